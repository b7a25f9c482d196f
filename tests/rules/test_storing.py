"""What is stored, and what of it (RFC 9111 §3)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.decisions import WHOLE, Forward, Pass, Reuse, ServeStale, Store
from edgecache.rules.presenting import complete, head_of
from edgecache.rules.selectors import tag_selector
from edgecache.words.config import Profile
from edgecache.words.reasons import ForwardReason
from edgecache.words.stored import Flag
from tests.rules.build import (
    CONTENT_ID,
    INDEX,
    NOW,
    PLAIN,
    asked,
    consider,
    field_lines,
    head,
    plan_for,
    respond,
    reused,
    sites,
    status_of,
    stored,
)

FRESH = "Cache-Control: max-age=60"


def is_stored(*lines: str, status: int = 200, by: tuple[str, ...] = (), method: str = "GET") -> bool:
    return isinstance(respond(asked(*by, method=method), head(*lines, status=status)), Store)


class StorableTests(SynchronousTestCase):
    """RFC 9111 §3"""

    def test_an_explicit_lifetime_makes_any_final_status_storable(self) -> None:
        for status in (
            200,
            203,
            204,
            299,
            301,
            302,
            303,
            307,
            308,
            400,
            404,
            410,
            418,
            499,
            500,
            502,
            503,
            504,
            599,
            999,
        ):
            self.assertTrue(is_stored(FRESH, status=status), status)

    def test_parts_and_304_are_not_stored(self) -> None:
        for status in (206, 304):
            self.assertFalse(is_stored(FRESH, 'ETag: "a"', status=status), status)

    def test_what_the_response_forbids(self) -> None:
        for value in ("no-store", "No-StOrE", "max-age=60, no-store", "private, max-age=60", "PRIVATE, s-maxage=60"):
            self.assertFalse(is_stored(f"Cache-Control: {value}", 'ETag: "a"'), value)

    def test_must_understand_lifts_no_store_for_statuses_that_are_understood(self) -> None:
        """§5.2.2.3"""
        line = "Cache-Control: max-age=3600, no-store, must-understand"
        self.assertTrue(is_stored(line))
        self.assertFalse(is_stored(line, status=599))
        self.assertFalse(is_stored("Cache-Control: max-age=3600, must-understand", status=599))

    def test_what_the_request_forbids(self) -> None:
        self.assertFalse(is_stored(FRESH, by=("Cache-Control: no-store",)))

    def test_only_get_is_stored(self) -> None:
        for method in ("HEAD", "POST", "PUT", "OPTIONS"):
            self.assertFalse(is_stored(FRESH, method=method), method)

    def test_authorization_needs_an_explicit_word(self) -> None:
        """§3.5"""
        for value, expected in (
            ("max-age=60", False),
            ("max-age=60, public", True),
            ("max-age=60, must-revalidate", True),
            ("s-maxage=60", True),
            ("max-age=60, proxy-revalidate", False),
            ("max-age=60, public, private", False),
        ):
            self.assertEqual(expected, is_stored(f"Cache-Control: {value}", by=("Authorization: FOO",)), value)

    def test_the_targeted_field_decides_alone(self) -> None:
        """RFC 9213 §2.2"""
        self.assertTrue(is_stored("Cache-Control: no-store", "CDN-Cache-Control: max-age=10000"))
        for value in ("private", "no-store"):
            self.assertFalse(is_stored(FRESH, f"CDN-Cache-Control: {value}"), value)
        for value in ("max-age=10000, &&&&&", 'max-age="10000"'):
            self.assertFalse(is_stored("Cache-Control: no-store", f"CDN-Cache-Control: {value}"), value)

    def test_vary_star_in_every_shape(self) -> None:
        for lines in (("*",), ("*, *",), ("*", "*"), (", *",), ("", "*"), ("*, Foo",), ("Foo, *",)):
            self.assertFalse(is_stored(FRESH, *(f"Vary: {value}" for value in lines)), lines)

    def test_set_cookie_and_cookie_don_t_matter(self) -> None:
        self.assertTrue(is_stored(FRESH, "Set-Cookie: a=b", by=("Cookie: a=b",)))

    def test_more_than_64_tags_are_too_many(self) -> None:
        self.assertTrue(is_stored(FRESH, "Surrogate-Key: " + " ".join(f"t{n}" for n in range(64))))
        self.assertFalse(is_stored(FRESH, "Surrogate-Key: " + " ".join(f"t{n}" for n in range(65))))

    def test_what_cannot_be_shared_is_remembered_and_an_error_is_not(self) -> None:
        for lines, status, remember in (
            (("Cache-Control: no-store",), 200, True),
            ((), 200, True),
            ((), 503, False),
            ((), 206, False),
        ):
            found = respond(asked(), head(*lines, status=status))
            assert isinstance(found, Pass)
            self.assertEqual(remember, found.remember, (lines, status))


class PrototypeTests(SynchronousTestCase):
    """The record of a response whose content is still to come."""

    def test_what_goes_into_it(self) -> None:
        by = asked(target="/x/y?z")
        plan = plan_for(
            by, head(FRESH, 'ETag: W/"e"', "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"), length=5, floor=9
        )
        one = plan.stored
        self.assertEqual(
            (by.key, by.key_hash, 9, 5, b""), (one.key, plan.record_hash, one.floor, one.size, one.content_id)
        )
        self.assertEqual((b'W/"e"', 784111777.0, NOW, NOW), (one.etag, one.last_modified, one.validated_at, one.date))
        self.assertEqual((b"", None), (one.variant, plan.nominated))
        self.assertIs(int, type(one.flags))

    def test_flags(self) -> None:
        for lines, flag in (
            (("Cache-Control: max-age=1, no-cache", 'ETag: "a"'), Flag.ALWAYS_VALIDATE),
            (("Cache-Control: max-age=1, must-revalidate",), Flag.NEVER_STALE),
            (("Cache-Control: max-age=1, proxy-revalidate",), Flag.NEVER_STALE),
            (("Cache-Control: s-maxage=1",), Flag.NEVER_STALE),
            (("Cache-Control: max-age=1, immutable",), Flag.IMMUTABLE),
            ((FRESH, "Content-Encoding: gzip"), Flag.CODED),
        ):
            self.assertEqual(int(flag), plan_for(asked(), head(*lines)).stored.flags, lines)
        self.assertEqual(int(Flag.CHUNKED), plan_for(asked(), head(FRESH), length=None).stored.flags)
        self.assertEqual(0, plan_for(asked(), head(FRESH, "Content-Encoding: Identity")).stored.flags)

    def test_content_length_is_the_last_line_once_it_is_known(self) -> None:
        known = plan_for(asked(), head(FRESH, "X: y"), length=5).stored
        self.assertTrue(known.head.endswith(b"\r\ncontent-length: 5\r\n"))
        self.assertEqual(known.head, complete(known, 5, CONTENT_ID).head)
        unknown = plan_for(asked(), head(FRESH, "X: y"), length=None).stored
        self.assertEqual(-1, unknown.size)
        self.assertNotIn("content-length", field_lines(unknown.head))
        whole = complete(unknown, 7, CONTENT_ID)
        self.assertEqual(
            (unknown.head + b"content-length: 7\r\n", 7, CONTENT_ID), (whole.head, whole.size, whole.content_id)
        )

    def test_204_has_no_content_and_no_length(self) -> None:
        """RFC 9110 §8.6"""
        for length in (None, 0):
            one = plan_for(asked(), head(FRESH, status=204), length=length).stored
            self.assertEqual(0, one.size)
            self.assertNotIn("content-length", field_lines(complete(one, 0, CONTENT_ID).head))


class HeadTests(SynchronousTestCase):
    """What of a response is stored and shown (RFC 9111 §3.1)."""

    def test_end_to_end_fields_stay_as_they_came(self) -> None:
        for line in (
            "Content-Type: text/plain;charset=utf-8",
            "Content-Encoding: whatever",
            "Content-Range: whatever",
            "Content-Location: /b",
            "Content-MD5: N7UdGUp1E+RbVvZSTy1R8g==",
            "Set-Cookie: a=b",
            "Set-Cookie2: a=b",
            'ETag: "e"',
            "Expires: Mon, 11 Jan 2038 11:11:11 GMT",
            "Repr-Digest: sha-256=:AAAA:",
            "CDN-Cache-Control: max-age=10",
            'X-Anything: a, "b"',
        ):
            name, _, value = line.partition(": ")
            self.assertEqual(value, field_lines(stored(FRESH, line).head)[name.lower()], line)

    def test_fields_for_one_connection_are_never_stored(self) -> None:
        names = (
            "Connection",
            "Keep-Alive",
            "Proxy-Connection",
            "Proxy-Authenticate",
            "Proxy-Authentication-Info",
            "Proxy-Authorization",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
        )
        shown = field_lines(stored(FRESH, *(f"{name}: x" for name in names)).head)
        for name in names:
            self.assertNotIn(name.lower(), shown)

    def test_fields_that_connection_names_are_never_stored(self) -> None:
        shown = field_lines(stored(FRESH, "Connection: A, close, b", "a: 1", "b: 2", "c: 3").head)
        self.assertEqual([None, None, "3"], [shown.get(name) for name in "abc"])

    def test_age_and_cache_status_are_made_anew(self) -> None:
        one = stored(FRESH, "Age: 7", "Cache-Status: other; hit")
        self.assertEqual([], [name for name in field_lines(one.head) if name in ("age", "cache-status")])
        shown = field_lines(head_of(asked(), one, WHOLE, age=9, cache_status=b"edge-1; hit"))
        self.assertEqual(("9", "edge-1; hit"), (shown["age"], shown["cache-status"]))

    def test_without_age_none_is_shown(self) -> None:
        self.assertNotIn("age", field_lines(head_of(asked(), stored(FRESH), WHOLE, age=-1, cache_status=b"x")))

    def test_date_is_kept_and_added_where_it_is_missing_or_invalid(self) -> None:
        self.assertEqual("Tue, 14 Nov 2023 22:13:20 GMT", field_lines(stored(FRESH, at=NOW).head)["date"])
        for one in (head(FRESH, date=None), head(FRESH, "Date: foo")):
            self.assertEqual("Tue, 14 Nov 2023 22:13:20 GMT", field_lines(plan_for(asked(), one).stored.head)["date"])

    def test_via_has_this_node_last(self) -> None:
        """RFC 9110 §7.6.3"""
        self.assertEqual("1.1 edge-1", field_lines(stored(FRESH).head)["via"])
        self.assertEqual("1.0 a, 1.1 edge-1", field_lines(stored(FRESH, "Via: 1.0 a").head)["via"])

    def test_ranges_are_offered_of_what_is_stored(self) -> None:
        self.assertEqual("bytes", field_lines(stored(FRESH, "Accept-Ranges: none").head)["accept-ranges"])
        self.assertNotIn("accept-ranges", field_lines(stored(FRESH, status=404).head))

    def test_qualified_private_and_no_cache_are_for_the_first_client_only(self) -> None:
        """RFC 9111 §5.2.2.4, §5.2.2.7"""
        plan = plan_for(
            asked(),
            head('Cache-Control: max-age=60, no-cache="a", private="Set-Cookie"', "a: 1", "Set-Cookie: s", "b: 2"),
        )
        others, own = field_lines(plan.stored.head), field_lines(plan.own.head)
        self.assertEqual([None, None, "2"], [others.get(name) for name in ("a", "set-cookie", "b")])
        self.assertEqual(["1", "s", "2"], [own.get(name) for name in ("a", "set-cookie", "b")])
        self.assertTrue(reused(asked(), complete(plan.stored, 10, CONTENT_ID)))

    def test_without_them_there_is_one_head_for_all(self) -> None:
        plan = plan_for(asked(), head(FRESH))
        self.assertIs(plan.own, plan.stored)

    @given(
        st.lists(
            st.tuples(
                st.from_regex(rb"\Ax-[a-z0-9-]{1,12}\Z"),
                st.binary(max_size=30).map(
                    lambda value: bytes(octet for octet in value if octet >= 0x20 and octet != 0x7F).strip(b" \t")
                ),
            ),
            max_size=8,
        ),
        st.integers(0, 1 << 40),
    )
    @settings(max_examples=80)
    def test_what_was_stored_is_what_is_sent(self, lines: list[tuple[bytes, bytes]], size: int) -> None:
        response = head(FRESH)
        response.fields += lines
        one = complete(plan_for(asked(), response, length=size).stored, size, CONTENT_ID)
        sent = head_of(asked(), one, WHOLE, age=3, cache_status=b"x").split(b"\r\n")
        self.assertEqual([b"%b: %b" % line for line in lines], [line for line in sent if line.startswith(b"x-")])
        self.assertEqual(1, sent.count(b"content-length: %d" % size))
        self.assertEqual((b"HTTP/1.1 200 OK", b""), (sent[0], sent[-1]))


class TagTests(SynchronousTestCase):
    """DESIGN 9, RFC 9875 §2"""

    def test_tags_become_selectors_and_are_not_shown(self) -> None:
        by = asked()
        one = stored(FRESH, "Surrogate-Key: a b", "Cache-Tag: c, d e", 'Cache-Groups: "f", "g";x, h, 5', by=by)
        site = PLAIN.all[0].id
        expected = {tag_selector(site, tag) for tag in (b"a", b"b", b"c", b"d e", b"f", b"g")}
        self.assertEqual(expected, set(one.selectors) - set(by.selectors))
        self.assertEqual(by.selectors, one.selectors[: len(by.selectors)])
        self.assertEqual(
            [], [name for name in field_lines(one.head) if name in ("surrogate-key", "cache-tag", "cache-groups")]
        )

    def test_they_are_not_shown_of_what_is_passed_on_either(self) -> None:
        found = respond(asked(), head("Surrogate-Key: a", "Cache-Tag: c", 'Cache-Groups: "f"', "X: y"))
        assert isinstance(found, Pass)
        self.assertEqual({"x", "date", "via", "content-length"}, set(field_lines(found.head)))

    def test_invalid_groups_are_ignored(self) -> None:
        by = asked()
        self.assertEqual(by.selectors, stored(FRESH, 'Cache-Groups: "f', by=by).selectors)

    def test_a_page_of_a_project_has_its_tag(self) -> None:
        tag = tag_selector(INDEX.all[0].id, b"project/foo-bar")
        for target in ("/simple/foo-bar/", "/pypi/foo-bar/json", "/pypi/foo-bar/1.0/json?x"):
            self.assertIn(tag, stored(by=asked(of=INDEX, target=target)).selectors, target)
        self.assertNotIn(tag, stored(by=asked(of=INDEX, target="/simple/")).selectors)


class IndexTests(SynchronousTestCase):
    """DESIGN 10, 12"""

    def test_only_five_statuses_are_stored(self) -> None:
        by = asked(of=INDEX, target="/simple/a/")
        for status in (200, 203, 204, 300, 301, 302, 307, 308, 400, 401, 403, 404, 410, 429, 500, 503):
            found = isinstance(respond(by, head("Cache-Control: max-age=60", status=status)), Store)
            self.assertEqual(status in (200, 301, 308, 404, 410), found, status)

    def test_clients_are_told_to_ask_us_again(self) -> None:
        shown = field_lines(
            stored(
                "Cache-Control: max-age=600, public", "Expires: 0", "Pragma: x", by=asked(of=INDEX, target="/simple/a/")
            ).head
        )
        self.assertEqual(("max-age=0", None, None), (shown["cache-control"], shown.get("expires"), shown.get("pragma")))
        asked_more = asked(of=sites(profile=Profile.INDEX, client_max_age_seconds=5), target="/simple/a/")
        self.assertEqual("max-age=5", field_lines(stored(by=asked_more).head)["cache-control"])

    def test_an_artifact_keeps_what_the_origin_said(self) -> None:
        file = asked(of=INDEX, target="/packages/a-1.tar.gz")
        self.assertEqual("max-age=5", field_lines(stored("Cache-Control: max-age=5", by=file).head)["cache-control"])

    def test_cookies_of_an_index_reach_nobody(self) -> None:
        by = asked(of=INDEX, target="/simple/a/")
        self.assertNotIn("set-cookie", field_lines(stored("Set-Cookie: s=1", by=by).head))
        found = respond(by, head("Set-Cookie: s=1", status=403))
        assert isinstance(found, Pass)
        self.assertNotIn("set-cookie", field_lines(found.head))

    def test_no_store_and_private_are_obeyed(self) -> None:
        by = asked(of=INDEX, target="/simple/a/")
        for value in ("no-store", "private"):
            self.assertIsInstance(respond(by, head(f"Cache-Control: {value}")), Pass, value)


class UnknownEndTests(SynchronousTestCase):
    """DESIGN 8"""

    def test_content_that_only_the_connection_ends_is_not_stored(self) -> None:
        fresh = head("Cache-Control: max-age=60")
        self.assertIsInstance(respond(asked(), fresh, length=None, delimited_by_close=True), Pass)
        self.assertIsInstance(respond(asked(), fresh, length=None), Store)


class PassTests(SynchronousTestCase):
    """What is passed on."""

    def test_status_reason_fields_and_length_are_the_origin_s(self) -> None:
        found = respond(
            asked(method="POST"),
            head("Age: 3", "X: y", "Connection: z", "Z: 1", status=999, reason="Whatever It Is"),
            length=4,
        )
        assert isinstance(found, Pass)
        self.assertTrue(found.head.startswith(b"HTTP/1.1 999 Whatever It Is\r\n"))
        self.assertEqual(
            {"age": "3", "x": "y", "content-length": "4", "via": "1.1 edge-1", "date": "Tue, 14 Nov 2023 22:13:20 GMT"},
            field_lines(found.head),
        )

    def test_a_head_keeps_the_length_it_announced(self) -> None:
        found = respond(asked(method="HEAD"), head(), length=1234)
        assert isinstance(found, Pass)
        self.assertEqual("1234", field_lines(found.head)["content-length"])

    def test_a_part_and_a_304_for_the_client_s_own_question_go_through(self) -> None:
        alone = Forward(ForwardReason.BYPASS, alone=True)
        for status in (206, 304, 412, 416):
            found = respond(
                asked('If-Match: "a"'), head(FRESH, "Content-Range: bytes 0-1/9", status=status), forward=alone
            )
            assert isinstance(found, Pass)
            self.assertEqual(status, status_of(found.head))


class OneRequestTests(SynchronousTestCase):
    def test_what_is_about_one_request_or_network_is_not_stored(self) -> None:
        """RFC 6585 §3 to §6"""
        for status in (428, 429, 431, 511):
            self.assertFalse(is_stored(FRESH, status=status), status)


class ServerErrorTests(SynchronousTestCase):
    """RFC 9111 §4.3.3"""

    def test_an_error_does_not_replace_what_may_be_served_stale(self) -> None:
        one = stored(FRESH)
        forward = Forward(ForwardReason.STALE, one, stale_allowed=True)
        for status in (500, 502, 503, 504):
            found = respond(asked(), head(FRESH, status=status), forward=forward, at=NOW + 70)
            assert isinstance(found, ServeStale)
            self.assertEqual((70, True), (found.reuse.age, found.reuse.stale))

            self.assertEqual((f"origin answered {status}", status), (found.detail, found.received))

    def test_where_staleness_is_forbidden_the_error_is_passed_on_and_leaves_what_is_stored(self) -> None:
        forward = Forward(ForwardReason.STALE, stored(FRESH), stale_allowed=False)
        for status in (500, 501, 502, 503, 504, 505, 599):
            found = respond(asked(), head(FRESH, status=status), forward=forward, at=NOW + 70)
            assert isinstance(found, Pass), status
            self.assertEqual((status, None, False), (status_of(found.head), found.update, found.remember))

    def test_after_the_window_of_stale_if_error_it_is_not_replaced_either(self) -> None:
        forward = Forward(ForwardReason.STALE, stored(f"{FRESH}, stale-if-error=5"), stale_allowed=True)
        self.assertIsInstance(respond(asked(), head(FRESH, status=500), forward=forward, at=NOW + 70), Pass)

    def test_no_error_replaces_what_is_good(self) -> None:
        """Also one that an origin wants to have stored; nor what is stored of a loss."""
        for status in (200, 301, 404):
            forward = Forward(ForwardReason.STALE, stored(FRESH, status=status), stale_allowed=True)
            for error in (501, 505, 520, 599):
                found = respond(asked(), head(FRESH, status=error), forward=forward, at=NOW + 70)
                self.assertIsInstance(found, Pass, (status, error))

    def test_an_error_takes_the_place_of_an_error(self) -> None:
        forward = Forward(ForwardReason.STALE, stored(FRESH, status=599), stale_allowed=True)
        self.assertIsInstance(respond(asked(), head(FRESH, status=505), forward=forward, at=NOW + 70), Store)

    def test_a_refresh_behind_a_stale_answer_leaves_it_where_it_is(self) -> None:
        """RFC 5861 §3: nobody waits, and nothing is lost."""
        one = stored(f"{FRESH}, stale-while-revalidate=60, stale-if-error=5")
        for after, expected in ((61, ServeStale), (70, Pass)):
            reuse = consider(asked(), one, after=after)
            assert isinstance(reuse, Reuse) and reuse.behind is not None
            found = respond(asked(), head(FRESH, status=500), forward=reuse.behind, at=NOW + after)
            self.assertIsInstance(found, expected, after)

    def test_an_installer_gets_503_for_504(self) -> None:
        """FIELD 3: it tries again after the one, never after the other."""
        by = asked(of=INDEX, target="/simple/a/")
        found = respond(by, head("Retry-After: 3600", status=504, reason="Gateway Timeout"))
        assert isinstance(found, Pass)
        self.assertEqual((503, "5"), (status_of(found.head), field_lines(found.head)["retry-after"]))
        for status in (500, 502, 503):
            found = respond(by, head(status=status))
            assert isinstance(found, Pass)
            self.assertEqual(status, status_of(found.head))
        plain = respond(asked(), head(status=504))
        assert isinstance(plain, Pass)
        self.assertEqual(504, status_of(plain.head))

    def test_other_errors_are_the_resource_s(self) -> None:
        forward = Forward(ForwardReason.STALE, stored(FRESH), stale_allowed=True)
        for status in (400, 404, 410, 501, 505):
            found = respond(asked(), head(status=status), forward=forward, at=NOW + 70)
            self.assertNotIsInstance(found, ServeStale)
