"""What one client sends changes neither what others are sent nor what an origin is asked for them (FIELD 8)."""

from __future__ import annotations

import os
from typing import Any

from attrs import asdict
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Again, Forward, Freshen, Pass, Store
from edgecache.rules.outbound import outbound
from edgecache.rules.policy import invalidated
from edgecache.rules.varying import variant_of
from edgecache.words.reasons import ForwardReason
from edgecache.words.stored import Stored
from tests.rules.build import INDEX, NOW, PLAIN, asked, consider, field_lines, head, respond, sites, stored

EXAMPLES = int(os.environ.get("EDGECACHE_POISON", "100"))
MISS = Forward(ForwardReason.URI_MISS)

NAMES = (
    "x-forwarded-host",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-prefix",
    "x-forwarded-port",
    "x-forwarded-server",
    "forwarded",
    "x-host",
    "x-original-url",
    "x-rewrite-url",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-real-ip",
    "true-client-ip",
    "x-wap-profile",
    "x-amz-website-redirect-location",
    "authorization",
    "proxy-authorization",
    "cookie",
    "origin",
    "referer",
    "user-agent",
    "accept-language",
    "accept-charset",
    "content-type",
    "range",
    "if-range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "cache-control",
    "pragma",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "via",
    "max-forwards",
    "expect",
    "http2-settings",
    "edgecache-page",
    "edgecache-scheme",
    "edgecache-budget",
)
"""What recipes use. Not what an index allows, nor CDN-Loop, which nobody may take out (RFC 8586)."""

VALUES = st.one_of(
    st.sampled_from(
        (
            "evil.example",
            "127.0.0.1",
            "no-store",
            "no-cache, max-age=0",
            "close, Accept, Accept-Encoding, Host, Range, Authorization, Cache-Control, Via",
            "bytes=0-0",
            "bytes=-0",
            "DELETE",
            "/admin",
            '"a"',
            "*",
            "0",
        )
    ),
    st.from_regex(r"\A[!-~]{0,12}\Z"),
)
LINES = st.lists(
    st.tuples(st.one_of(st.sampled_from(NAMES), st.from_regex(r"\Ax-[a-z]{1,9}\Z")), VALUES).map(": ".join), max_size=6
)
PIP = ("Accept: application/vnd.pypi.simple.v1+json, text/html;q=0.1", "Accept-Encoding: gzip")
RESPONSES = (
    ('ETag: "a"', "Vary: Cookie, X-Forwarded-Host, Accept-Language"),
    ("Cache-Control: max-age=60", "Vary: *"),
    ("Cache-Control: private", "Set-Cookie: a=b"),
    ("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", "Connection: X-Served-By", "X-Served-By: z"),
)


def fill(asked: Asked) -> dict[str, Any]:
    """Everything that the origin is asked with."""
    return asdict(outbound(asked, MISS))


def becomes(decision: Any) -> tuple[str, dict[str, Any]]:
    """What is decided of a response, with all that is in it."""
    return type(decision).__name__, asdict(decision)


class IndexTests(SynchronousTestCase):
    """DESIGN 12: an allow-list, all of it in the key."""

    @given(
        LINES,
        st.sampled_from(("/simple/a/", "/simple/", "/pypi/a/json", "/files/a/-/a-1.tar.gz", "/a-1.whl", "/other")),
        st.sampled_from(RESPONSES),
        st.sampled_from((200, 301, 404, 302, 400, 403, 500)),
    )
    @settings(max_examples=EXAMPLES)
    def test_no_other_field_changes_key_request_or_what_becomes_of_the_response(
        self, lines: list[str], target: str, response: tuple[str, ...], status: int
    ) -> None:
        public = "https://edge.test"
        of = sites(profile=INDEX.all[0].profile, public_url=public)
        plain, attack = asked(*PIP, of=of, target=target), asked(*PIP, *lines, of=of, target=target)
        self.assertEqual((plain.key, plain.representation), (attack.key, attack.representation))
        self.assertEqual(fill(plain), fill(attack))
        one, other = (respond(each, head(*response, status=status), forward=MISS) for each in (plain, attack))
        self.assertEqual(becomes(one), becomes(other))

    @given(LINES)
    @settings(max_examples=EXAMPLES)
    def test_nor_what_becomes_of_what_is_stored(self, lines: list[str]) -> None:
        page = asked(*PIP, of=INDEX, target="/simple/a/")
        one = stored('ETag: "a"', by=page)
        for status, response in ((304, ()), (200, ('ETag: "b"',)), (200, ("Cache-Control: no-store",)), (400, ())):
            forward = Forward(ForwardReason.STALE, one)
            asking = (page, asked(*PIP, *lines, of=INDEX, target="/simple/a/"))
            found = [respond(each, head(*response, status=status), forward=forward) for each in asking]
            self.assertEqual(becomes(found[0]), becomes(found[1]))


class PlainTests(SynchronousTestCase):
    """RFC 9111's shared cache: what an origin is sent, and no more, selects."""

    @given(LINES, st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    @settings(max_examples=EXAMPLES)
    def test_what_the_origin_is_sent_alike_is_one_variant_whatever_a_client_says(
        self, lines: list[str], nominated: list[str]
    ) -> None:
        """A field named by Connection does not reach the origin: its value must not stand for the answer."""
        names = tuple(sorted(name.encode() for name in nominated))
        attack = asked(*lines)
        seen = tuple(f"{name.decode()}: {value.decode('latin-1')}" for name, value in attack.upstream_fields)
        without = asked(*(line for line in seen if not line.startswith(("via:", "cdn-loop:"))))
        if b"via" not in names:
            self.assertEqual(variant_of(without, names), variant_of(attack, names))

    def test_a_field_that_connection_names_selects_nothing(self) -> None:
        for name, value in (("Accept-Language", "de"), ("Origin", "https://victim.example"), ("Cookie", "a=b")):
            victim, attack = asked(f"{name}: {value}"), asked(f"{name}: {value}", f"Connection: {name}")
            names = (name.lower().encode(),)
            self.assertNotEqual(variant_of(victim, names), variant_of(attack, names))
            self.assertEqual(variant_of(asked(), names), variant_of(attack, names))

    @given(LINES)
    @settings(max_examples=EXAMPLES)
    def test_where_fields_are_listed_no_other_reaches_the_origin_or_the_store(self, lines: list[str]) -> None:
        of = sites(request_fields=("Accept-Language", "X-Tenant"))
        spoken = (
            "cache-control:",
            "pragma:",
            "connection:",
            "via:",
            "max-forwards:",
            "if-",
            "range:",
            "accept-language:",
        )
        more = [line for line in lines if not line.startswith(spoken)]
        allowed = ("Accept-Language: de", "X-Tenant: t")
        plain, attack = asked(*allowed, of=of), asked(*allowed, *more, of=of)
        self.assertEqual(fill(plain), fill(attack))
        self.assertIn((b"x-tenant", b"t"), outbound(attack, MISS).fields)
        response = head("Cache-Control: max-age=60", "Vary: Cookie, X-Tenant, Origin")
        self.assertEqual(becomes(respond(plain, response)), becomes(respond(attack, response)))
        self.assertEqual(
            (plain.authorized, plain.bypass, plain.simple), (attack.authorized, attack.bypass, attack.simple)
        )

    def test_what_has_content_keeps_its_fields_all_the_same(self) -> None:
        upload = asked("X-A: 1", of=sites(request_fields=("accept",)), method="POST", has_content=True)
        self.assertIn((b"x-a", b"1"), outbound(upload, Forward(ForwardReason.METHOD, alone=True)).fields)

    def test_what_some_origins_take_for_another_method_or_target_is_neither_stored_nor_answered_from_the_store(
        self,
    ) -> None:
        one = stored("Cache-Control: max-age=60")
        for line in ("X-HTTP-Method-Override: DELETE", "X-Original-URL: /admin", "X-Rewrite-URL: /admin"):
            attack = asked(line)
            found = consider(attack, one)
            assert isinstance(found, Forward), line
            self.assertTrue(found.alone)
            self.assertFalse(attack.fills)
            passed = respond(attack, head("Cache-Control: max-age=60"), forward=found)
            assert isinstance(passed, Pass)
            self.assertEqual((False, None), (passed.remember, passed.update))

    def test_a_get_with_content_is_never_stored(self) -> None:
        fat = asked(has_content=True, content_length=3)
        self.assertIsInstance(respond(fat, head("Cache-Control: max-age=60")), Pass)


class OthersTests(SynchronousTestCase):
    """What was for one client's credentials, or forbidden to keep by that client, leaves no trace for others."""

    def setUp(self) -> None:
        self.one = stored("Cache-Control: max-age=10", 'ETag: "a"', "X: old")

    def after(self, by: Asked, *lines: str, status: int = 200, alone: bool = False) -> object:
        return respond(by, head(*lines, status=status), forward=Forward(ForwardReason.REQUEST, self.one, alone=alone))

    def test_an_answer_to_credentials_does_not_end_what_is_stored(self) -> None:
        for status in (200, 302, 404):
            found = self.after(asked("Authorization: x"), "Cache-Control: max-age=60", status=status)
            assert isinstance(found, Pass)
            self.assertIsNone(found.update, status)

    def test_nor_does_one_that_is_about_the_request(self) -> None:
        for status in (400, 401, 403, 405, 413, 414, 431):
            found = self.after(asked("X: " + "x" * 9000), "Cache-Control: no-store", status=status)
            assert isinstance(found, Pass)
            self.assertEqual((False, None), (found.remember, found.update), status)

    def test_a_304_to_credentials_changes_nothing_for_others(self) -> None:
        found = self.after(asked("Authorization: x"), "Set-Cookie: sid=x", status=304)
        assert isinstance(found, Again), found
        self.assertEqual((None, True), (found.forward.stored, found.forward.alone))

    def test_unless_the_response_is_for_all(self) -> None:
        found = self.after(asked("Authorization: x"), "Cache-Control: public, max-age=60", status=304)
        self.assertIsInstance(found, Freshen)

    def fields_after(self, found: object) -> dict[str, str]:
        assert isinstance(found, Freshen | Pass)
        after = found.stored if isinstance(found, Freshen) else found.update
        assert isinstance(after, Stored)
        return field_lines(after.head)

    def test_fields_of_a_private_304_or_head_are_kept_for_nobody(self) -> None:
        private = ("Cache-Control: private", "Set-Cookie: sid=x", "X: mine", 'ETag: "a"')
        for by, status in ((asked(), 304), (asked(method="HEAD"), 200)):
            shown = self.fields_after(self.after(by, *private, status=status, alone=by.head))
            self.assertNotIn("set-cookie", shown)
            self.assertEqual("old", shown["x"])

    def test_a_head_with_credentials_or_an_error_to_one_says_nothing_about_what_is_stored(self) -> None:
        secret = asked("Authorization: x", method="HEAD")
        for by, lines, status in (
            (secret, ('ETag: "b"', "X: mine"), 200),
            (secret, ('ETag: "a"', "X: mine"), 200),
            (asked(method="HEAD"), (), 400),
            (asked(method="HEAD"), (), 403),
        ):
            found = self.after(by, *lines, status=status, alone=True)
            assert isinstance(found, Pass)
            self.assertIsNone(found.update, (lines, status))

    def test_no_client_keeps_an_index_page_from_being_stored(self) -> None:
        """What the index is asked has nothing of the client that no-store could be about."""
        page = asked("Cache-Control: no-store", of=INDEX, target="/simple/a/")
        self.assertIsInstance(respond(page, head('ETag: "a"'), forward=MISS), Store)


class GroupTests(SynchronousTestCase):
    """RFC 9875 §3, of a hostile origin."""

    def test_an_answer_that_names_more_groups_than_a_response_may_have_costs_no_more_of_them(self) -> None:
        def named(count: int) -> list[str]:
            value = ", ".join(f'"g{number}"' for number in range(count))
            found = invalidated(asked(method="POST"), head(f"Cache-Group-Invalidation: {value}"))
            self.assertEqual({PLAIN.all[0].id}, {one.site for one in found})
            return [one.kind for one in found]

        self.assertEqual(["url", *["tag"] * 64], named(64))
        self.assertEqual(["url", "all", *["tag"] * 64], named(10_000))

    def test_only_an_unsafe_request_invalidates(self) -> None:
        said = head('Cache-Group-Invalidation: "a"', "Location: /b", date=NOW)
        self.assertEqual((), invalidated(asked(), said))
        self.assertEqual((), invalidated(asked(has_content=True), said))
