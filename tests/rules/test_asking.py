"""What becomes of a request before anything is looked up, and what of it goes upstream."""

from __future__ import annotations

import gc
import weakref

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.asking import Asked, ask
from edgecache.rules.decisions import Forward, Refuse, Store
from edgecache.rules.indexpaths import SIMPLE_ACCEPT
from edgecache.rules.outbound import interim_head, outbound
from edgecache.rules.sites import Sites
from edgecache.words.config import Config, NodeSettings, Profile, SiteSettings
from edgecache.words.messages import Fields
from edgecache.words.reasons import ForwardReason
from tests.rules.build import INDEX, PLAIN, asked, field_lines, head, request, respond, sites

MISS = Forward(ForwardReason.URI_MISS)
ALONE = Forward(ForwardReason.METHOD, alone=True)


def refused(*lines: str, of: Sites = PLAIN, **more: object) -> Refuse:
    found = ask(request(*lines, **more), of)  # type: ignore[arg-type]  # parameters of request()
    assert isinstance(found, Refuse), found
    return found


def sent(by: Asked, forward: Forward = MISS) -> Fields:
    return outbound(by, forward).fields


class SiteTests(SynchronousTestCase):
    """DESIGN 12: Host chooses among the sites that are configured, and names nothing else."""

    def named(self, *hosts: tuple[str, ...]) -> Sites:
        settings_of = [
            SiteSettings(f"s{n}", Profile.PLAIN, ("http://o",), hosts=names) for n, names in enumerate(hosts)
        ]
        return Sites(Config(NodeSettings("n"), tuple(settings_of)))

    def test_the_host_with_or_without_its_port(self) -> None:
        known = self.named(("a.test", "b.test:81"), ("[::1]",))
        for authority, expected in (
            (b"a.test", "s0"),
            (b"a.test:80", "s0"),
            (b"b.test:81", "s0"),
            (b"[::1]", "s1"),
            (b"[::1]:80", "s1"),
        ):
            self.assertEqual([expected], [site.settings.name for site in known.of_host(authority)])

    def test_no_site_is_421(self) -> None:
        known = self.named(("a.test", "b.test:81"))
        for authority in ("c.test", "b.test", "a.test.evil", ""):
            self.assertEqual(421, refused(of=known, authority=authority).status, authority)

    def test_the_default_site_takes_any_host(self) -> None:
        known = self.named(("a.test",), ("*",))
        self.assertEqual(["s0", "s1"], [asked(of=known, authority=name).site.settings.name for name in ("a.test", "x")])

    def test_a_node_s_name_is_made_fit_for_fields(self) -> None:
        for name, via, cache_name, cdn_id in (
            ("EU-1", b"1.1 EU-1", b"EU-1", b"eu-1"),
            ("1st node", b"1.1 1st-node", b'"1st-node"', b"1st-node"),
            ("ä,b", b"1.1 --b", b'"--b"', b"--b"),
        ):
            site = Sites(Config(NodeSettings(name), (SiteSettings("s", Profile.PLAIN, ("http://o",)),))).all[0]
            self.assertEqual((via, cache_name, cdn_id), (site.via, site.cache_name, site.cdn_id))


class RefusedTests(SynchronousTestCase):
    def test_an_index_is_read_only(self) -> None:
        """DESIGN 12"""
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PURGE", "get"):
            found = refused(of=INDEX, method=method, target="/simple/a/")
            self.assertEqual((405, ((b"allow", b"GET, HEAD"),), True), (found.status, found.fields, found.close))

    def test_an_index_takes_no_content(self) -> None:
        for method in ("GET", "HEAD"):
            found = refused(of=INDEX, method=method, has_content=True, content_length=1)
            self.assertEqual((400, True), (found.status, found.close))

    def test_a_loop_is_broken(self) -> None:
        """RFC 8586 §2"""
        for value in ("edge-1", "other, EDGE-1", 'a; x="1, 2", edge-1; y=z'):
            found = refused(f"CDN-Loop: {value}")
            self.assertEqual((508, "proxy_loop_detected"), (found.status, found.proxy_error), value)
        for value in ("edge-2", "edge-11", 'a; x="edge-1"', 'a; x="b, edge-1"'):
            self.assertIsInstance(ask(request(f"CDN-Loop: {value}"), PLAIN), Asked)

    def test_no_tunnel(self) -> None:
        self.assertEqual(501, refused(method="CONNECT").status)

    def test_a_purge_is_refused_on_every_profile_and_never_forwarded(self) -> None:
        for of, target in ((PLAIN, "/a"), (INDEX, "/simple/a/")):
            self.assertEqual(405, refused(of=of, method="PURGE", target=target).status)

    def test_max_forwards_is_obeyed(self) -> None:
        """RFC 9110 §7.6.2"""
        self.assertEqual(501, refused("Max-Forwards: 0", method="TRACE").status)
        self.assertIn((b"max-forwards", b"4"), sent(asked("Max-Forwards: 5", method="OPTIONS"), ALONE))
        self.assertIn((b"max-forwards", b"5"), sent(asked("Max-Forwards: 5")))


class PlaceTests(SynchronousTestCase):
    """What a path of an index means is remembered: by that, and in no other way."""

    def test_a_path_that_is_too_long_to_be_remembered_means_the_same(self) -> None:
        digest = "ab" * 32
        for name in ("a", "a" * 600):
            spelt = asked(target=f"/packages/files/x/{digest}/{name}%2ewhl?b", of=INDEX)
            plain = asked(target=f"/files/x/{digest}/{name}.whl", of=INDEX)
            self.assertEqual((plain.key, plain.artifact), (spelt.key, spelt.artifact))
            self.assertEqual(f"/files/x/{digest}/{name}.whl".encode(), spelt.target)

    def test_a_site_that_is_no_index_has_none(self) -> None:
        self.assertIsNone(asked(target="/simple/a/", of=PLAIN).page)
        self.assertIsNotNone(asked(target="/simple/a/", of=INDEX).page)
        self.assertIsNone(asked(target="/simple/a/", of=PLAIN).page)


class KeyTests(SynchronousTestCase):
    """The key is what is sent upstream (DESIGN 12)."""

    def test_target_with_query_and_site_make_it(self) -> None:
        keys = {asked(target=target).key for target in ("/a", "/a?", "/a?b", "/a/", "/A", "/%61")}
        self.assertEqual(6, len(keys))
        self.assertEqual(asked(target="/a").key_hash, asked("X: y", target="/a", method="HEAD").key_hash)
        self.assertNotEqual(asked(of=sites(name="other")).key, asked().key)

    def test_the_host_counts_only_where_the_origin_sees_it(self) -> None:
        self.assertEqual(asked(authority="a").key, asked(authority="b").key)
        self.assertIsNone(outbound(asked(authority="a"), MISS).authority)
        seen = sites(preserve_host=True)
        self.assertNotEqual(asked(authority="a", of=seen).key, asked(authority="b", of=seen).key)
        self.assertEqual(b"a", outbound(asked(authority="a", of=seen), MISS).authority)


class IndexPathTests(SynchronousTestCase):
    """DESIGN 11: an index whose pages are elsewhere is served below /simple/ all the same."""

    def target(self, target: str, profile: Profile = Profile.INDEX) -> bytes:
        of = sites(profile=profile, simple_path="/+simple/")
        return outbound(asked(target=target, of=of), MISS).target

    def test_a_page_is_asked_for_where_the_origin_has_it(self) -> None:
        self.assertEqual(b"/+simple/attrs/", self.target("/simple/attrs/?a=b"))
        self.assertEqual(b"/+simple/", self.target("/simple/"))

    def test_what_is_no_page_is_left_alone(self) -> None:
        self.assertEqual(b"/+f/ab/attrs.whl", self.target("/+f/ab/attrs.whl"))
        self.assertEqual(b"/a/simple/b", self.target("/a/simple/b"))

    def test_a_plain_origin_has_no_pages(self) -> None:
        self.assertEqual(b"/simple/attrs/", self.target("/simple/attrs/", Profile.PLAIN))


class OutboundTests(SynchronousTestCase):
    """RFC 9110 §7.6"""

    def test_end_to_end_fields_go_through(self) -> None:
        lines = (
            "Accept: a/b",
            "Cookie: c=d",
            "Authorization: x",
            "X-Forwarded-For: 1.2.3.4",
            "Cache-Control: max-age=0",
            "X-A: 1",
            "X-A: 2",
        )
        fields = sent(asked(*lines))
        for line in lines:
            name, _, value = line.partition(": ")
            self.assertIn((name.lower().encode(), value.encode()), fields)

    def test_fields_of_this_connection_do_not(self) -> None:
        fields = sent(
            asked(
                "Host: h",
                "Connection: X-Hop, close",
                "X-Hop: 1",
                "Keep-Alive: x",
                "Proxy-Connection: x",
                "Proxy-Authorization: x",
                "TE: trailers",
                "Trailer: x",
                "Transfer-Encoding: chunked",
                "Upgrade: h2c",
                "HTTP2-Settings: x",
                "Content-Length: 3",
                "Expect: 100-continue",
                "Edgecache-Anything: x",
            ),
            ALONE,
        )
        self.assertEqual([b"via", b"cdn-loop"], [name for name, _ in fields])

    def test_via_and_cdn_loop_grow(self) -> None:
        fields = dict(sent(asked("Via: 1.0 a", "CDN-Loop: b; c=d", "Via: 1.1 e")))
        self.assertEqual((b"1.0 a, 1.1 e, 1.1 edge-1", b"b; c=d, edge-1"), (fields[b"via"], fields[b"cdn-loop"]))

    def test_after_a_purge_no_cache_on_the_way_may_answer(self) -> None:
        fields = sent(asked("Cache-Control: max-age=100", "Pragma: x"), Forward(ForwardReason.STALE, no_cache=True))
        self.assertEqual([(b"cache-control", b"no-cache"), (b"pragma", b"no-cache")], fields[-2:])
        self.assertEqual(2, sum(name in (b"cache-control", b"pragma") for name, _ in fields))

    def test_content_and_its_length_go_along(self) -> None:
        class Nothing:
            length: int | None = 3
            failed: Exception | None = None

            def read(self, position: int, limit: int) -> bytes:
                return b""

            def ended(self, position: int) -> bool:
                return True

            def attach(self, reader: object) -> None: ...

            def detach(self, reader: object) -> None: ...

        out = outbound(asked(method="POST", has_content=True, content_length=3), ALONE, content=Nothing())
        self.assertEqual((b"POST", 3, False), (out.method, out.content_length, out.idempotent))
        self.assertTrue(outbound(asked(), MISS).idempotent)

    def test_an_interim_response_keeps_its_fields(self) -> None:
        """RFC 9110 §15.2"""
        octets = interim_head(
            103,
            b"Early Hints",
            [(b"link", b"</s>; rel=preload"), (b"x", b"1"), (b"connection", b"x"), (b"content-length", b"0")],
            asked(),
        )
        self.assertTrue(octets.startswith(b"HTTP/1.1 103 Early Hints\r\n"))
        self.assertEqual({"link": "</s>; rel=preload", "via": "1.1 edge-1"}, field_lines(octets))


PIP = "Accept: application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"
UV = "Accept: application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"


class IndexTests(SynchronousTestCase):
    """DESIGN 12: few fields reach an index, and those are in the key."""

    def test_a_page_is_asked_for_in_one_way_whatever_clients_want_of_it(self) -> None:
        """DESIGN 10: JSON, or HTML from origins that have nothing else; what clients get is derived."""
        for target, accept in (
            ("/simple/", SIMPLE_ACCEPT),
            ("/simple/a/", SIMPLE_ACCEPT),
            ("/pypi/a/json", b"application/json"),
            ("/pypi/a/1.0/json", b"application/json"),
        ):
            all_of = [
                asked(*lines, of=INDEX, target=target + query, method=method)
                for lines in ((), (PIP, "Accept-Encoding: gzip"), (UV, "Accept-Encoding: zstd"), ("Accept: text/html",))
                for query in ("", "?x=y")
                for method in ("GET", "HEAD")
            ]
            self.assertEqual(1, len({one.key for one in all_of}), target)
            for one in all_of:
                self.assertEqual((True, False), (one.fills, one.head_only))
                out = outbound(one, MISS)
                self.assertEqual((b"GET", target.encode()), (out.method, out.target))
                self.assertEqual([accept], [value for name, value in out.fields if name == b"accept"])
                self.assertEqual([b"identity"], [value for name, value in out.fields if name == b"accept-encoding"])

    def test_names_are_normalised_and_slashes_added_by_a_redirect(self) -> None:
        """PEP 503; relative, so that it is right wherever the site is, and with the query."""
        for target, location in (
            ("/simple", "./simple/"),
            ("/simple/Foo_Bar", "./foo-bar/"),
            ("/simple/Foo_Bar/?a=b", "../foo-bar/?a=b"),
            ("/simple/foo", "./foo/"),
            ("/simple/zope%2Einterface/", "../zope-interface/"),
            ("/pypi/Foo.Bar/json", "../foo-bar/json"),
            ("/pypi/Foo.Bar/1.0/json?x", "../../foo-bar/1.0/json?x"),
        ):
            for method in ("GET", "HEAD"):
                found = ask(request(target=target, method=method), INDEX)
                assert isinstance(found, Refuse), target
                self.assertEqual((301, ((b"location", location.encode()),)), (found.status, found.fields))

    def test_so_are_other_spellings_that_origins_would_answer_with_their_own_links(self) -> None:
        """Relative as well, but where a segment is empty: clients do not agree on what leads out of that."""
        below = sites(profile=Profile.INDEX, path="/team")
        public = sites(profile=Profile.INDEX, path="/team", public_url="https://front.test/x")
        for target, location in (
            ("/simple/./foo/", "../../simple/foo/"),
            ("/simple/foo/.?a=b", "../../simple/foo/?a=b"),
            ("/x/../simple/foo", "../simple/foo"),
            ("/pypi/foo/1%2e0/json", "../../../pypi/foo/1.0/json"),
            ("/pypi/foo/./json", "../../pypi/foo/json"),
            ("/pypi/Foo/./json", "../../pypi/Foo/json"),
            ("/%73imple/foo/", "../../simple/foo/"),
            ("/simple/foo/%2e%2e/bar/", "../../../../simple/bar/"),
            ("/%73imple", "./simple"),
            ("//simple/foo/", "{}/simple/foo/"),
            ("/simple//Foo", "{}/simple/Foo"),
            ("/simple/foo//", "{}/simple/foo/"),
            ("///pypi/foo/json", "{}/pypi/foo/json"),
            ("//files/a/-/a-1.tar.gz", "{}/files/a/-/a-1.tar.gz"),
        ):
            for of, site, above in ((INDEX, "", ""), (below, "/team", "/team"), (public, "/team", "/x/team")):
                found = ask(request(target=site + target), of)
                assert isinstance(found, Refuse), target
                self.assertEqual((301, ((b"location", location.format(above).encode()),)), (found.status, found.fields))
        for target in (
            "//",
            "//other//",
            "/simple/../other",
            "/packages//a.whl",
            "/simple/%2f/",
            "/other/%66oo",
            "/pypi/a/../json",
        ):
            self.assertEqual(target.encode(), asked(of=INDEX, target=target).target)
            self.assertEqual(target.encode(), asked(of=PLAIN, target=target).target)

    def test_where_it_leads_nobody_is_redirected_again(self) -> None:
        for target in ("/simple/", "/simple/foo-bar/", "/pypi/foo-bar/json", "/pypi/foo-bar/1.0/json"):
            self.assertIsNotNone(asked(of=INDEX, target=target).page, target)
        for target in ("/", "/simple/a/b/", "/simple/-a/", "/simple/a-1.0.tar.gz", "/pypi/a/", "/packages/A_B.whl"):
            self.assertIsNone(asked(of=INDEX, target=target).page, target)

    def test_a_serial_that_is_none_is_refused(self) -> None:
        self.assertEqual(12, asked("Edgecache-Min-Serial: 12", of=INDEX, target="/simple/a/").min_serial)
        found = ask(request("Edgecache-Min-Serial: latest", target="/simple/a/"), INDEX)
        assert isinstance(found, Refuse)
        self.assertEqual(400, found.status)

    def test_a_file_is_one_whoever_asks(self) -> None:
        for target in ("/packages/a-1-py3-none-any.whl", "/simple/a/a-1.tar.gz", "/packages/a.whl.metadata?x=y"):
            keys = {
                asked(*lines, of=INDEX, target=target).key
                for lines in ((), (PIP,), ("Accept-Encoding: gzip",), ("Range: bytes=0-9",))
            }
            self.assertEqual(1, len(keys), target)
            self.assertIn(
                (b"accept-encoding", b"identity"), sent(asked("Accept-Encoding: gzip", of=INDEX, target=target))
            )

    def test_authorization_stays_here_unless_it_is_let_through(self) -> None:
        by = asked("Authorization: x", of=INDEX, target="/simple/a/")
        self.assertEqual((False, False), (by.authorized, by.bypass))
        self.assertNotIn(b"authorization", dict(sent(by)))
        passed = asked(
            "Authorization: x", of=sites(profile=Profile.INDEX, pass_authorization=True), target="/simple/a/"
        )
        self.assertEqual((True, True, False), (passed.authorized, passed.bypass, passed.fills))
        self.assertIn((b"authorization", b"x"), sent(passed, ALONE))

    @given(
        st.lists(
            st.tuples(
                st.one_of(
                    st.sampled_from(
                        (
                            "x-forwarded-host",
                            "x-forwarded-for",
                            "forwarded",
                            "x-original-url",
                            "x-rewrite-url",
                            "x-http-method-override",
                            "cookie",
                            "origin",
                            "referer",
                            "user-agent",
                            "range",
                            "if-range",
                            "if-none-match",
                            "if-modified-since",
                            "if-match",
                            "authorization",
                            "pragma",
                            "connection",
                            "te",
                            "via",
                            "x-host",
                            "accept-language",
                            "accept-charset",
                            "max-forwards",
                            "content-type",
                        )
                    ),
                    st.from_regex(r"\A[a-z]{1,3}-[a-z]{1,9}\Z"),
                ),
                st.from_regex(r"\A[!-~ ]{0,20}\Z"),
            ),
            max_size=5,
        ),
        st.sampled_from(("/simple/a/", "/simple/", "/packages/a-1.tar.gz")),
    )
    @settings(max_examples=80)
    def test_a_field_that_is_not_allowed_changes_neither_request_nor_key_nor_what_is_stored(
        self, lines: list[tuple[str, str]], target: str
    ) -> None:
        """FIELD 8. (A CDN-Loop of others must be kept, RFC 8586 §2; it is in no key and changes no response.)"""
        allowed = (PIP, "Accept-Encoding: gzip")
        dropped = {"accept", "accept-encoding", "cdn-loop", "cache-control"}
        more = tuple(f"{name}: {value}" for name, value in lines if name not in dropped)
        plain, poisoned = asked(*allowed, of=INDEX, target=target), asked(*allowed, *more, of=INDEX, target=target)
        self.assertEqual((plain.key, sent(plain)), (poisoned.key, sent(poisoned)))
        response = head('ETag: "a"', "Vary: Cookie, X-Forwarded-Host")
        one, other = respond(plain, response), respond(poisoned, response)
        assert isinstance(one, Store) and isinstance(other, Store)
        self.assertEqual((one.stored.head, one.record_hash), (other.stored.head, other.record_hash))


class MemoryTests(SynchronousTestCase):
    def test_what_is_known_of_a_head_is_freed_with_it(self) -> None:
        """Without the collector: each client with heads of its own would leave thousands of them to it."""
        for known in (PLAIN, INDEX):
            one = request(target="/simple/attrs/")
            one.asked = ask(one, known)
            assert isinstance(one.asked, Asked)
            gone = weakref.ref(one.asked)
            gc.disable()
            self.addCleanup(gc.enable)
            del one
            self.assertIsNone(gone())


class SimpleTests(SynchronousTestCase):
    """Which requests take the straight path."""

    def test_only_what_needs_no_second_look(self) -> None:
        for lines, method, expected in (
            ((), "GET", True),
            ((), "HEAD", True),
            (("Range: bytes=0-1",), "GET", True),
            (('If-None-Match: "a"',), "GET", True),
            (("Cookie: a", "Authorization: b", "Cache-Control: nothing", "Pragma: foo"), "GET", True),
            (("Cache-Control: max-age=5",), "GET", False),
            (("Pragma: no-cache",), "GET", False),
            (('If-Match: "a"',), "HEAD", False),
            (("Cache-Control: no-store",), "GET", False),
            ((), "POST", False),
        ):
            self.assertEqual(expected, asked(*lines, method=method).simple, (lines, method))

    def test_what_is_sent_whole(self) -> None:
        for lines, expected in (
            ((), True),
            (("Range: bytes=0-1,3-4",), True),
            (("Range: bytes=0-1",), False),
            (('If-None-Match: "a"',), False),
        ):
            self.assertEqual(expected, asked(*lines).whole, lines)

    def test_what_is_sent_as_it_is_stored(self) -> None:
        for lines, target, method, expected in (
            ((), "/a.whl", "GET", True),
            ((), "/a.whl", "HEAD", False),
            (("Range: bytes=0-1",), "/a.whl", "GET", False),
            ((), "/simple/a/", "GET", False),
        ):
            self.assertEqual(expected, asked(*lines, of=INDEX, target=target, method=method).plain, (lines, target))

    def test_who_fills(self) -> None:
        for by, joinable, fills, unsafe in (
            (asked(), True, True, False),
            (asked(method="HEAD"), True, False, False),
            (asked("Cache-Control: no-store"), True, False, False),
            (asked(has_content=True), False, False, False),
            (asked(method="OPTIONS"), False, False, False),
            (asked(method="POST"), False, False, True),
            (asked(method="M-SEARCH"), False, False, True),
        ):
            self.assertEqual((joinable, fills, unsafe), (by.joinable, by.fills, by.unsafe), by.method)
