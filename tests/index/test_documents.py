"""What pages of an index are read as (PEP 503, 592, 629, 658, 691, 700, 708, 714, 740, 792), and which are refused."""

from __future__ import annotations

from typing import Any

import orjson
from twisted.trial.unittest import SynchronousTestCase

from edgecache.index.documents import QUARANTINED, BadPage, canonical
from edgecache.rules.indexpaths import PageKind
from tests.index.pages import AT, FILE, HTML, JSON, SHA256, file, files_of, of_html, of_json, project

LIST, PROJECT, RELEASES = PageKind.LIST, PageKind.PROJECT, PageKind.RELEASES


def deep(levels: int) -> bytes:
    return b'{"meta": {}, "files": [], "x": ' + b"[" * levels + b"]" * levels + b"}"


REFUSED: tuple[tuple[bytes, bytes, str], ...] = (
    # content type, content, why
    (JSON, b"", "not JSON"),
    (JSON, b"[]", "not a JSON object"),
    (JSON, b'"files"', "not a JSON object"),
    (JSON, b'{"files": []', "not JSON"),
    (JSON, b'{"files": [NaN]}', "not JSON"),
    (JSON, b'{"files": [], "x": 1e999}', "not JSON"),
    (JSON, b'{"files": [], "x": "\xff"}', "not JSON"),
    (JSON, b'{"files": [], "x": "\\ud800"}', "not JSON"),
    (JSON, deep(300), "too deeply"),
    (JSON, deep(100_000), "not JSON"),
    (JSON, b'{"files": [' + b"0," * 2_000_000 + b"0]}", "more values"),
    (JSON, b"{}", "without files"),
    (JSON, b'{"files": {}}', "without files"),
    (JSON, b'{"files": [], "meta": []}', "meta"),
    (JSON, b'{"files": [], "meta": {"api-version": "2.0"}}', "api-version"),
    (JSON, b'{"files": [], "meta": {"api-version": 1.0}}', "api-version"),
    (JSON, b'{"files": [], "meta": {"api-version": "1.0\\n"}}', "api-version"),
    (JSON, b'{"files": [], "name": "seven"}', "another project"),
    (JSON, b'{"files": [], "name": 6}', "another project"),
    (JSON, b'{"files": [], "project-status": 1}', "project-status"),
    (JSON, b'{"files": [], "project-status": {"status": ["quarantined"]}}', "project-status"),
    (JSON, b'{"files": [{"filename": "a.whl", "url": "ftp://h/a.whl"}]}', "none of what it lists is usable"),
    (JSON, b'{"files": [' + b"0," * 20_000 + b"0]}", "over 10000 entries"),
    (b"application/vnd.pypi.simple.v2+json", b'{"files": []}', "not 1"),
    (b"application/vnd.pypi.simple.v2+html", b"<html></html>", "not 1"),
    (b"application/pdf", b"%PDF", "nothing that an index sends"),
    (b"text/plain", b"we are closed", "nothing that an index sends"),
    (HTML, b'<meta name="pypi:repository-version" content="2.0">', "api-version"),
    (HTML, b'<a href="six-1.0.tar.gz">six-1.0.tar.gz</a><a href="six-1.', "breaks off"),
    (HTML, b'<a href="six-1.0.tar.gz">six-1.0.tar.gz</a><!-- ', "breaks off"),
    (HTML, b'<a href="/status">Status</a> is worth a look <a href="mailto:x">', "some other page"),
    (HTML, b'<a href="javascript:alert(1)/six-1.0.tar.gz">x</a>', "none of what it lists is usable"),
    (HTML, b'<base href="javascript:x"><a href="six-1.0.tar.gz">x</a>', "base of its links"),
    (HTML, b'<base href="https://u:p@h.example/"><a href="six-1.0.tar.gz">x</a>', "base of its links"),
    (HTML, b"<a " + b"x " * 3_000_000 + b">", "of over 128 KiB"),
    (HTML, b"<!-- " + b"x " * 3_000_000 + b"-->", "of over 128 KiB"),
    (HTML, b"<br>" * 500_001, "more tags"),
)

DROPPED: tuple[tuple[object, str], ...] = (
    # what stands among the files, why it does not for long
    (None, "not an object"),
    ([], "not an object"),
    ("six", "not an object"),
    ({}, "without filename"),
    (file(filename=None), "without filename"),
    (file(filename=7), "without filename"),
    (file(filename=""), "without filename"),
    (file(filename=".."), "directory"),
    (file(filename="../../six.whl"), "separators"),
    (file(filename="a\\b.whl"), "separators"),
    (file(filename="a\r\nSet-Cookie: x.whl"), "control"),
    (file(filename="x" * 300), "255"),
    (file(url=None), "without URL"),
    (file(url={"href": "x"}), "without URL"),
    (file(url="javascript:alert(1)"), "scheme"),
    (file(url="https://u:p@files.example/a.whl"), "credentials"),
    (file(url="https://files.example/a\r\nb.whl"), "control"),
    (file(hashes={"sha256": "short"}), "sha256"),
    (file(hashes={"sha256": 1}), "sha256"),
    (file(hashes={"SHA256": SHA256 + "\n"}), "sha256"),
    (file(hashes={}, url="https://files.example/a.whl#sha256=zz"), "sha256"),
    (file(core_metadata={"sha256": "zz"}), "sha256"),
)

# what a file says, what is kept of it
PUT_RIGHT: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    (file(hashes={"sha256": SHA256.upper()}), file()),
    (file(hashes=[]), file(hashes={})),
    (file(hashes=None, url=f"https://files.example/{FILE}#sha256={SHA256}"), file()),
    (file(url=f"https://files.example/{FILE}#sha256={'0' * 64}"), file()),
    (file(hashes={"md5": "0f", 'a"b': "0f", "sha1": "<>"}), file(hashes={"md5": "0f"})),
    (
        file(url="six.whl#egg=six&md5=0f"),
        file(url=AT.decode() + "six.whl#egg=six", hashes={"sha256": SHA256, "md5": "0f"}),
    ),
    (file(dist_info_metadata=True), file(core_metadata=True)),
    (file(dist_info_metadata=True, core_metadata=False), file(core_metadata=False)),
    (file(core_metadata={"sha256": SHA256}), file(core_metadata={"sha256": SHA256})),
    (file(core_metadata={}), file(core_metadata={})),
    (file(core_metadata="true"), file()),
    (file(core_metadata=None), file()),
    (file(yanked=None), file(yanked=False)),
    (file(yanked=1), file(yanked=True)),
    (file(yanked="broken"), file(yanked="broken")),
    (file(gpg_sig="yes"), file()),
    (file(requires_python=3), file()),
    (file(requires_python=None), file()),
    (file(size=-1), file()),
    (file(size=1.5), file()),
    (file(size=2**64), file()),
    (file(size=True), file()),
    (file(size=0), file(size=0)),
    # What we don't know stays, and so do links that are not files' own.
    (file(provenance="javascript:x", upload_time=[{}]), file(provenance="javascript:x", upload_time=[{}])),
)


class RefusedPageTests(SynchronousTestCase):
    """A hostile or broken page is refused as a whole, and says why."""

    def test_each_is_refused_and_it_says_why(self) -> None:
        for content_type, content, why in REFUSED:
            with self.assertRaises(BadPage, msg=repr(content[:80])) as caught:
                canonical(PROJECT, b"six", content, content_type, AT)
            self.assertIn(why, caught.exception.why, content[:80])

    def test_lists_and_releases_of_other_shapes_are_refused(self) -> None:
        for kind, content in (
            (LIST, b"{}"),
            (LIST, b'{"projects": {"six": 1}}'),
            (LIST, b'{"projects": [1, {"name": 2}]}'),
            (LIST, b'{"projects": [{"name": "a/../b"}]}'),
            (RELEASES, b"[]"),
            (RELEASES, b'{"message": "no"}'),
            (RELEASES, b'{"info": {}, "urls": {}}'),
            (RELEASES, b'{"info": {"name": "seven"}, "urls": []}'),
            (RELEASES, b'{"info": {}, "releases": []}'),
            (RELEASES, b'{"info": {}, "releases": {"1.0": {}}}'),
            (RELEASES, b"<html></html>"),
        ):
            with self.assertRaises(BadPage, msg=repr(content)):
                canonical(kind, b"" if kind is LIST else b"six", content, JSON, AT)

    def test_a_page_is_nobodys_whose_name_is_no_projects(self) -> None:
        for name in (b"", b"Six", b"a/b", b"..", b'a"b', b"a\r\n", b"-a", b"a_b"):
            self.assertRaises(BadPage, canonical, PROJECT, name, b'{"files": []}', JSON, AT)

    def test_what_it_says_holds_nothing_of_the_page(self) -> None:
        for content in (
            b'{"files": [secret',
            b'{"files": [], "name": "secret"}',
            b'{"files": [{"filename": "../secret"}]}',
        ):
            with self.assertRaises(BadPage) as caught:
                canonical(PROJECT, b"six", content, JSON, AT)
            self.assertNotIn("secret", str(caught.exception))


class FilesOfPageTests(SynchronousTestCase):
    """One bad file does not lose the page."""

    def test_what_nothing_can_be_made_of_is_dropped_and_counted(self) -> None:
        for bad, why in DROPPED:
            document = of_json(project(bad, file(), bad))
            self.assertEqual([file()], files_of(document), bad)
            self.assertEqual(2, document.dropped, bad)
            self.assertIn(why, document.why_dropped, bad)

    def test_what_has_the_wrong_type_is_left_out_and_the_rest_stays(self) -> None:
        for given, kept in PUT_RIGHT:
            document = of_json(project(given))
            self.assertEqual([kept], files_of(document), given)
            self.assertEqual((0, ""), (document.dropped, document.why_dropped))

    def test_a_file_listed_twice_stays_listed_twice(self) -> None:
        other = file(hashes={"sha256": "0" * 64})
        self.assertEqual([file(), other, file()], files_of(of_json(project(file(), other, file()))))

    def test_addresses_are_passed_on_whoever_they_belong_to(self) -> None:
        """Connections are refused where they are made."""
        given = file(url="http://127.0.0.1:6379/six-1.0.tar.gz")
        self.assertEqual([given], files_of(of_json(project(given))))


class ProjectPageTests(SynchronousTestCase):
    """What is not a file."""

    def test_unknown_keys_stay_and_numbers_beyond_64_bits_become_floats(self) -> None:
        page = project(file(), versions=["1.0"], x={"y": [1, None, 2.5, "\u2028"]}, alternate_locations=["x:y"])
        self.assertEqual(page, orjson.loads(of_json(page).octets))
        octets = canonical(PROJECT, b"six", b'{"files":[],"x":18446744073709551616}', JSON, AT).octets
        self.assertEqual(2.0**64, orjson.loads(octets)["x"])

    def test_the_name_is_normalised(self) -> None:
        for name in ("Six", "six"):
            self.assertEqual("six", orjson.loads(of_json(project(name=name)).octets)["name"])
        page = orjson.dumps(project(name="Zope_.Interface"))
        self.assertIn(b'"zope-interface"', canonical(PROJECT, b"zope-interface", page, JSON, AT).octets)

    def test_what_is_missing_is_said(self) -> None:
        document = canonical(PROJECT, b"six", b'\xef\xbb\xbf{"files": []}', JSON, AT)
        self.assertEqual(project(meta={"api-version": "1.0"}), orjson.loads(document.octets))

    def test_its_serial(self) -> None:
        for told, serial in ((7, 7), (0, 0), (-1, None), ("7", None), (True, None), (2**64, None), (None, None)):
            page = project(meta={"api-version": "1.0", "_last-serial": told})
            self.assertEqual(serial, of_json(page).serial, told)
        self.assertEqual(7, of_json({"info": {}, "last_serial": 7}, RELEASES).serial)
        self.assertIsNone(of_json(project()).serial)

    def test_its_status(self) -> None:
        """PEP 792."""
        for told, status in (({"status": "archived"}, "archived"), ("Deprecated ", "deprecated"), ({}, "active")):
            self.assertEqual(status, of_json(project(project_status=told)).status)
        self.assertEqual("active", of_json(project()).status)

    def test_a_quarantined_project_has_no_files(self) -> None:
        """PEP 792, whatever the origin lists."""
        document = of_json(project(file(), project_status={"status": "quarantined", "reason": "x"}))
        self.assertEqual(([], QUARANTINED, 0), (files_of(document), document.status, document.dropped))
        page = '<meta name="pypi:project-status" content="quarantined"><a href="six-1.0.tar.gz">x</a>'
        self.assertEqual([], files_of(of_html(page)))

    def test_a_type_that_tells_nothing_is_told_by_the_content(self) -> None:
        for content_type in (b"", b"application/octet-stream", b"text/plain; charset=utf-8"):
            for content in (b' {"files": []}', b"\n<html></html>"):
                self.assertEqual([], files_of(canonical(PROJECT, b"six", content, content_type, AT)))

    def test_a_canonical_document_is_its_own(self) -> None:
        """What a sibling sends is checked by reading it as if an origin had."""
        page = project(*(given for given, _ in PUT_RIGHT), *(bad for bad, _ in DROPPED), file(url="../x y.whl#md5=A&b"))
        first = of_json(page)
        again = canonical(
            PROJECT, b"six", first.octets, b"application/vnd.edgecache.page+json", b"http://other.example/"
        )
        self.assertEqual((first.octets, 0), (again.octets, again.dropped))

    def test_a_hundred_megabytes_of_nothing_but_brackets_cost_nothing(self) -> None:
        self.assertRaises(BadPage, canonical, PROJECT, b"six", b"[{" * 50_000_000, JSON, AT)


class ListAndReleasesTests(SynchronousTestCase):
    """``/simple/`` and ``/pypi/<name>/json``."""

    def test_projects_stay_as_they_are_spelt(self) -> None:
        page = {"meta": {"_last-serial": 9, "api-version": "1.0"}, "projects": [{"_last-serial": 3, "name": "Zope.X"}]}
        document = of_json(page, LIST)
        self.assertEqual((page, 9), (orjson.loads(document.octets), document.serial))

    def test_projects_without_usable_name_are_dropped(self) -> None:
        document = of_json({"projects": [{"name": "a"}, {"name": "../b"}, {}, 3]}, LIST)
        self.assertEqual([{"name": "a"}], orjson.loads(document.octets)["projects"])
        self.assertEqual(3, document.dropped)

    def test_links_of_releases_become_absolute(self) -> None:
        entry = {"filename": FILE, "url": "../x.whl", "digests": {"sha256": SHA256}, "has_sig": None}
        page = {"info": {"home_page": "javascript:x"}, "urls": [entry, 1], "releases": {"1.0": [entry], "0.9": []}}
        kept = entry | {"url": "https://index.example/simple/x.whl"}
        document = of_json(page, RELEASES)
        self.assertEqual(page | {"urls": [kept], "releases": {"1.0": [kept], "0.9": []}}, orjson.loads(document.octets))
        self.assertEqual(1, document.dropped)
