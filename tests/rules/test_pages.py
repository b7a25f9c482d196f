"""Base records of pages, and what is derived from them (DESIGN 10)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.index.representing import Links, etag_of
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Forward, Freshen, Pass, Reuse, Store
from edgecache.rules.hops import PageNeeded, page_needed
from edgecache.rules.pages import base_record, serial_of, serial_told, view_of
from edgecache.rules.policy import on_request
from edgecache.rules.presenting import present
from edgecache.rules.representations import SOURCE
from edgecache.words.config import Profile
from edgecache.words.reasons import ForwardReason, PurgeMode
from edgecache.words.stored import Flag, Stored
from tests.rules.build import INDEX, NOW, asked, field_lines, head, respond, sites

PAGE = "/simple/six/"
JSON = "Accept: application/vnd.pypi.simple.v1+json"
FORMS = tuple((kind, coding) for kind in (JSON, "Accept: text/html", "Accept: */*") for coding in ("gzip", "zstd", "x"))


def by(*lines: str, **more: object) -> Asked:
    return asked(*lines, of=INDEX, target=PAGE, **more)


def base(*lines: str, document: bytes = b"{}", digest: bytes = b"d" * 32, serial: int | None = 7) -> Stored:
    plan = respond(by(), head(*lines))
    assert isinstance(plan, Store)
    return base_record(plan.stored, document, digest, b"c" * 16, serial)


def etag(asked: Asked, page: Stored, links: Links | None = None) -> bytes:
    assert asked.representation is not None
    return etag_of(page.digest, serial_of(page), asked.representation, links or Links())


class BaseTests(SynchronousTestCase):
    def test_it_has_the_origins_validators_and_nothing_else_that_is_about_what_the_origin_sent(self) -> None:
        page = base(
            'ETag: "a"',
            "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
            "Content-Type: text/html",
            "Vary: Accept, Cookie",
            "Repr-Digest: sha-256=:AAAA:",
            "Content-Language: en",
            "X-PyPI-Last-Serial: 6",
            "X: y",
        )
        fields = field_lines(page.head)
        self.assertEqual(
            {
                "etag": '"a"',
                "last-modified": "Sun, 06 Nov 1994 08:49:37 GMT",
                "content-type": "application/vnd.edgecache.page+json",
                "x-pypi-last-serial": "7",
                "x": "y",
                "content-length": "2",
            },
            {name: fields[name] for name in fields if name not in ("date", "via", "cache-control", "accept-ranges")},
        )
        self.assertEqual((b'"a"', 2, b"d" * 32, 7), (page.etag, page.size, page.digest, serial_of(page)))
        self.assertEqual(int(Flag.PAGE), page.flags)

    def test_only_a_200_is_a_page(self) -> None:
        for status in (301, 308, 404, 410):
            plan = respond(by(), head(status=status))
            assert isinstance(plan, Store)
            self.assertFalse(plan.stored.flags & Flag.PAGE)

    def test_what_both_head_and_content_vouch_for_counts(self) -> None:
        for field, document, expected in ((None, None, None), (5, None, 5), (None, 5, 5), (5, 6, 5), (6, 5, 5)):
            self.assertEqual(expected, serial_told(field, document))

    def test_a_304_of_whatever_form_freshens_it_and_never_lowers_its_serial(self) -> None:
        page = base('ETag: "a"')
        for lines, serial in (((), 7), (("X-PyPI-Last-Serial: 6",), 7), (("X-PyPI-Last-Serial: 8",), 8)):
            answer = head('ETag: "a"', "Vary: Accept", "Content-Type: text/html", *lines, status=304)
            found = respond(by(), answer, forward=Forward(ForwardReason.STALE, page), at=NOW + 50, floor=9)
            assert isinstance(found, Freshen)
            fields = field_lines(found.stored.head)
            self.assertEqual("application/vnd.edgecache.page+json", fields["content-type"])
            self.assertNotIn("vary", fields)
            self.assertTrue(found.stored.head.endswith(b"content-length: 2\r\n"))
            self.assertEqual(
                (serial, 9, NOW + 60), (serial_of(found.stored), found.stored.floor, found.stored.fresh_until)
            )

    def test_what_may_not_be_stored_can_be_derived_from_all_the_same(self) -> None:
        for line in ("Cache-Control: no-store", "Cache-Control: private", "Vary: *"):
            found = respond(by(), head(line))
            assert isinstance(found, Pass)
            assert found.page is not None
            self.assertEqual("no-store", field_lines(found.page.head)["cache-control"])

    def test_the_list_lives_seconds_also_where_purges_are_pushed(self) -> None:
        pushed = sites(profile=Profile.INDEX, purged=True)
        for target, seconds in (("/simple/", 10), (PAGE, 86400), ("/pypi/six/json", 86400)):
            plan = respond(asked(of=pushed, target=target), head())
            assert isinstance(plan, Store)
            self.assertEqual(NOW + seconds, plan.stored.fresh_until, target)


class ViewTests(SynchronousTestCase):
    def test_it_has_the_bases_head_with_its_own_form(self) -> None:
        page = base('ETag: "a"', "X: y")
        request = by(JSON, "Accept-Encoding: gzip")
        view = view_of(request, page, request.representation or SOURCE, b'"own"')
        fields = field_lines(view.sized(99).head)
        self.assertEqual(
            ('"own"', "gzip", "99", "7", "y"),
            tuple(fields[name] for name in ("etag", "content-encoding", "content-length", "x-pypi-last-serial", "x")),
        )
        self.assertEqual(field_lines(page.head)["date"], fields["date"])
        self.assertNotIn("last-modified", fields)

    def test_a_date_alone_vouches_for_nothing(self) -> None:
        page = base("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT")
        request = by("If-Modified-Since: Sun, 06 Nov 2033 08:49:37 GMT")
        view = view_of(request, page, request.representation or SOURCE, b'"own"')
        self.assertEqual("Whole", type(present(request, view.sized(5))).__name__)


_pages = st.builds(
    lambda digest, serial: base(digest=digest * 32, serial=serial),
    st.sampled_from((b"a", b"b")),
    st.sampled_from((None, 1, 2)),
)
_forms = st.sampled_from(FORMS)


class AloneTests(SynchronousTestCase):
    """No form of a page goes stale alone (DESIGN 10)."""

    @given(
        _pages,
        _forms,
        _forms,
        st.sampled_from((None, *PurgeMode)),
        st.booleans(),
        st.booleans(),
        st.floats(-100, 1000),
        st.sampled_from(
            ((), ("Cache-Control: max-age=0",), ("Cache-Control: no-cache",), ("Edgecache-Min-Serial: 2",))
        ),
    )
    @settings(max_examples=200)
    def test_whether_one_may_be_sent_is_whether_all_may(
        self,
        page: Stored,
        one: tuple[str, str],
        other: tuple[str, str],
        purged: PurgeMode | None,
        fenced: bool,
        head: bool,
        after: float,
        lines: tuple[str, ...],
    ) -> None:
        def decided(form: tuple[str, str], method: str) -> object:
            kind, coding = form
            request = by(kind, f"Accept-Encoding: {coding}", *lines, method=method)
            self.assertEqual(page.key, request.key)
            found = on_request(request, page, purged, fenced, NOW + after)
            if isinstance(found, Reuse):
                return found.age, found.ttl, found.stale
            assert isinstance(found, Forward)
            return found.reason, found.stored is page, found.alone, found.no_cache, found.stale_allowed

        self.assertEqual(decided(one, "GET"), decided(other, "HEAD" if head else "GET"))

    @given(_pages, _forms, _pages, _forms, st.sampled_from((Links(), Links(b"https://e.test"))))
    @settings(max_examples=200)
    def test_derived_content_is_found_by_exactly_what_it_was_made_of(
        self, page: Stored, form: tuple[str, str], other: Stored, another: tuple[str, str], links: Links
    ) -> None:
        def made(page: Stored, form: tuple[str, str], links: Links) -> tuple[object, bytes, bytes]:
            request = by(form[0], f"Accept-Encoding: {form[1]}")
            assert request.representation is not None
            view = view_of(request, page, request.representation, etag(request, page, links))
            of = (page.digest, serial_of(page), request.representation.name, links)
            return of, view.record_hash, view.prototype.etag

        one, two = made(page, form, Links()), made(other, another, links)
        self.assertEqual(one[0] == two[0], one[1] == two[1])
        self.assertEqual(one[0] == two[0], one[2] == two[2])


class NeededTests(SynchronousTestCase):
    @given(st.builds(PageNeeded, st.booleans(), st.integers(0, 2**63), st.floats(0, 2**40)))
    def test_what_is_needed_survives_the_hop(self, needed: PageNeeded) -> None:
        self.assertEqual(needed, page_needed([(b"edgecache-page", needed.value)]))
        self.assertIsNone(page_needed([(b"edgecache-page", needed.value + b" 1")]))

    def test_it_is_the_page_itself_and_good_enough(self) -> None:
        request = by(f"Edgecache-Page: 0 0 {(NOW + 0.5).hex()}")
        self.assertIs(SOURCE, request.representation)
        page = base()
        self.assertIsInstance(on_request(request, page, None, False, NOW + 1), Forward)
        younger = by(f"Edgecache-Page: 0 0 {(NOW - 0.5).hex()}")
        self.assertIsInstance(on_request(younger, page, None, False, NOW + 1), Reuse)
