"""What clients get of a page."""

from __future__ import annotations

import gzip
import hashlib
import re
from typing import Any

import orjson
import zstandard
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.index.documents import BadPage, Document, canonical
from edgecache.index.representing import Links, derive, etag_of
from edgecache.rules.indexpaths import PageKind, artifact_of, artifact_path
from edgecache.rules.representations import Coding, Media, Representation
from tests.index.pages import AT, FILE, HTML, SHA256, derived, file, files_of, of_json, project

OURS = f"../../files/six/{SHA256}/{FILE}"
NASTY = "\"'><script>alert(1)</script>&amp;\r\n\t\x00\x7f\u2028]]>-->"


def links_in(page: bytes) -> list[str]:
    return re.findall(r'<a href="([^"]*)"', page.decode())


class LinkTests(SynchronousTestCase):
    """Links to files become ours; nothing else changes."""

    def test_relative_by_default(self) -> None:
        document = of_json(project(file()))
        self.assertEqual([file(url=OURS)], orjson.loads(derived(document))["files"])
        self.assertEqual([f"{OURS}#sha256={SHA256}"], links_in(derived(document, Media.HTML)))

    def test_below_a_public_url_and_the_path_of_the_site(self) -> None:
        links = Links(b"https://cache.example:8443/pypi", b"/team")
        expected = f"https://cache.example:8443/pypi/team/files/six/{SHA256}/{FILE}"
        self.assertEqual([file(url=expected)], orjson.loads(derived(of_json(project(file())), links=links))["files"])

    def test_a_path_alone_changes_no_relative_link(self) -> None:
        document = of_json(project(file()))
        self.assertEqual(derived(document), derived(document, links=Links(b"", b"/team")))

    def test_they_are_the_paths_that_files_are_asked_for_by(self) -> None:
        for name in ("six-1.0+l.tar.gz", "a b.whl", "ä.zip", "a%2f.whl", "a#b?.zip", "x'\"<&>.whl", "six.whl.metadata"):
            for hashes in ({}, {"sha256": SHA256}, {"md5": "0f"}):
                shown = orjson.loads(derived(of_json(project(file(filename=name, hashes=hashes)))))["files"][0]["url"]
                sha256 = bytes.fromhex(hashes.get("sha256", ""))
                self.assertEqual(artifact_path(b"six", sha256, name.encode()), shown.removeprefix("../..").encode())
                asked = artifact_of(shown.removeprefix("../..").encode())
                assert asked is not None
                self.assertEqual(name.encode(), asked.filename + asked.companion)

    def test_releases_link_to_the_same_files_below_what_mirror_tools_insist_on(self) -> None:
        """bandersnatch refuses every link whose path does not begin with /packages."""
        entry = {"filename": FILE, "url": "https://files.example/a", "digests": {"sha256": SHA256}}
        document = of_json({"info": {}, "urls": [entry]}, PageKind.RELEASES)
        shown = orjson.loads(derived(document, Media.PLAIN_JSON, PageKind.RELEASES))["urls"][0]["url"].encode()
        self.assertTrue(shown.startswith(b"/packages/"))
        self.assertEqual(artifact_of(artifact_path(b"six", bytes.fromhex(SHA256), FILE.encode())), artifact_of(shown))

    def test_a_fragment_stays(self) -> None:
        document = of_json(project(file(url="x.whl#egg=six&subdirectory=a")))
        self.assertEqual(f"{OURS}#egg=six&subdirectory=a", orjson.loads(derived(document))["files"][0]["url"])
        self.assertEqual(
            [f"{OURS}#sha256={SHA256}&amp;egg=six&amp;subdirectory=a"], links_in(derived(document, Media.TEXT))
        )

    def test_other_links_stay_as_the_origin_has_them(self) -> None:
        """PEP 708, 740."""
        page = project(
            file(provenance="https://index.example/six.provenance"),
            meta={"api-version": "1.2", "tracks": ["https://other.example/simple/six/"]},
            alternate_locations=["https://index.example/simple/six/"],
        )
        shown = orjson.loads(derived(of_json(page)))
        self.assertEqual(page["files"][0]["provenance"], shown["files"][0]["provenance"])
        self.assertEqual((page["meta"], page["alternate-locations"]), (shown["meta"], shown["alternate-locations"]))

    def test_the_old_name_of_metadata_is_never_said_in_json(self) -> None:
        """PEP 714; in HTML both are."""
        document = of_json(project(file(dist_info_metadata={"sha256": SHA256})))
        self.assertNotIn(b"dist-info-metadata", derived(document))
        shown = derived(document, Media.HTML).decode()
        for name in ("data-core-metadata", "data-dist-info-metadata"):
            self.assertIn(f' {name}="sha256={SHA256}"', shown)

    def test_releases_have_absolute_links_wherever_they_are(self) -> None:
        entry = {"filename": FILE, "url": "https://files.example/a", "digests": {"sha256": SHA256}, "size": 3}
        page = {"info": {"home_page": "https://six.example"}, "urls": [entry], "releases": {"1.0": [entry], "0.1": []}}
        document = of_json(page, PageKind.RELEASES)
        for links, base, start in (
            (Links(), b"http://a.example:8080", "http://a.example:8080"),
            (Links(b"", b"/team"), b"http://a.example", "http://a.example/team"),
            (Links(b"https://b.example", b"/team"), b"http://a.example", "https://b.example/team"),
            (Links(b"", b"/team"), b"", "/team"),
        ):
            kept = entry | {"url": f"{start}/packages/files/six/{SHA256}/{FILE}"}
            expected = page | {"urls": [kept], "releases": {"1.0": [kept], "0.1": []}}
            shown = derived(document, Media.PLAIN_JSON, PageKind.RELEASES, links, base)
            self.assertEqual(expected, orjson.loads(shown))

    def test_lists_link_to_pages_of_ours(self) -> None:
        page = {"meta": {"api-version": "1.0"}, "projects": [{"name": "Zope.Interface"}, {"name": "a'b c"}]}
        document = of_json(page, PageKind.LIST)
        self.assertEqual(page, orjson.loads(derived(document, Media.JSON, PageKind.LIST)))
        shown = derived(document, Media.HTML, PageKind.LIST)
        self.assertEqual(["zope-interface/", "a%27b%20c/"], links_in(shown))
        self.assertIn(b">Zope.Interface</a>", shown)


class FormTests(SynchronousTestCase):
    """One page, several forms."""

    def test_html_of_a_page(self) -> None:
        page = project(
            file(
                requires_python=">=3.8,<4", yanked="a & b", core_metadata=True, gpg_sig=True, provenance="https://h/p"
            ),
            file(
                filename="six-2.whl",
                hashes={"blake2b_256": "1f", "md5": "0f"},
                yanked=True,
                gpg_sig=False,
                core_metadata={},
            ),
            file(filename="six-3.whl", hashes={"blake2b_256": "1f"}, yanked="", core_metadata=False),
            meta={"api-version": "1.4", "_last-serial": 17, "tracks": ["https://t/"]},
            project_status={"status": "archived", "reason": "<done>"},
            alternate_locations=["https://a/"],
        )
        expected = f"""<!DOCTYPE html>
<html>
<head>
<meta name="pypi:repository-version" content="1.4">
<meta name="pypi:project-status" content="archived">
<meta name="pypi:project-status-reason" content="&lt;done&gt;">
<meta name="pypi:tracks" content="https://t/">
<meta name="pypi:alternate-locations" content="https://a/">
<title>Links for six</title>
</head>
<body>
<h1>Links for six</h1>
<a href="{OURS}#sha256={SHA256}" data-requires-python="&gt;=3.8,&lt;4" data-core-metadata="true" \
data-dist-info-metadata="true" data-yanked="a &amp; b" data-gpg-sig="true" data-provenance="https://h/p">{FILE}</a><br>
<a href="../../files/six/-/six-2.whl#md5=0f" data-core-metadata="true" data-dist-info-metadata="true" data-yanked="" \
data-gpg-sig="false">six-2.whl</a><br>
<a href="../../files/six/-/six-3.whl#blake2b_256=1f">six-3.whl</a><br>
</body>
</html>
<!--SERIAL 17-->
"""
        self.assertEqual(expected, derived(of_json(page), Media.TEXT).decode())
        self.assertEqual(expected, derived(of_json(page), Media.HTML).decode())

    def test_codings_unpack_to_the_same_and_pack_to_the_same(self) -> None:
        document = of_json(project(*(file(filename=f"six-{n}.whl") for n in range(100)))).octets
        for media in (Media.JSON, Media.TEXT):
            plain = derive(PageKind.PROJECT, b"six", document, Representation(media, Coding.IDENTITY), Links())
            for coding, unpack in ((Coding.GZIP, gzip.decompress), (Coding.ZSTD, zstandard.decompress)):
                asked = Representation(media, coding)
                packed = [derive(PageKind.PROJECT, b"six", document, asked, Links()) for _ in range(2)]
                self.assertEqual(plain, unpack(packed[0]))
                self.assertEqual(packed[0], packed[1])
                self.assertLess(len(packed[0]), len(plain) / 4)
            # No name and no time in it.
            self.assertEqual(bytes(5), packed_head(document, media))

    def test_siblings_get_the_document_itself(self) -> None:
        document = of_json(project(file()))
        self.assertEqual(document.octets, derived(document, Media.SOURCE))

    def test_what_is_no_canonical_document_has_no_forms(self) -> None:
        bad = (
            b"",
            b"[]",
            b"{}",
            b'{"files": [1]}',
            b'{"files": [{"filename": 1, "hashes": {}, "url": ""}]}',
            b'{"files": 1}',
        )
        for content in bad:
            for media in (Media.JSON, Media.HTML):
                self.assertRaises(BadPage, derived, Document(content), media)
        for kind, media in ((PageKind.RELEASES, Media.HTML), (PageKind.PROJECT, Media.PLAIN_JSON)):
            self.assertRaises(BadPage, derived, of_json(project(), PageKind.PROJECT), media, kind)


def packed_head(document: bytes, media: Media) -> bytes:
    asked = Representation(media, Coding.GZIP)
    return derive(PageKind.PROJECT, b"six", document, asked, Links())[3:8]


class EntityTagTests(SynchronousTestCase):
    """RFC 9110 §8.8.3: the same tag, the same octets."""

    def test_whatever_changes_the_octets_changes_the_tag(self) -> None:
        plain = Representation(Media.JSON, Coding.IDENTITY)
        digest = hashlib.sha256(b"x").digest()
        tags = [
            etag_of(digest, 1, plain, Links()),
            etag_of(digest, 2, plain, Links()),
            etag_of(digest, None, plain, Links()),
            etag_of(hashlib.sha256(b"y").digest(), 1, plain, Links()),
            etag_of(digest, 1, plain, Links(b"https://h", b"/x")),
            etag_of(digest, 1, plain, Links(b"https://h/x", b"")),
            *(etag_of(digest, 1, evolve(plain, media=media), Links()) for media in Media if media is not Media.JSON),
            *(etag_of(digest, 1, evolve(plain, coding=coding), Links()) for coding in (Coding.GZIP, Coding.ZSTD)),
            etag_of(digest, 1, evolve(plain, base=b"http://h"), Links()),
        ]
        self.assertEqual(len(tags), len(set(tags)))
        self.assertEqual(tags[0], etag_of(digest, 1, plain, Links()))
        for tag in tags:
            self.assertRegex(tag, rb'\A"[0-9a-f]{32}"\Z')


_TEXT = st.one_of(
    st.text(max_size=20), st.just(NASTY), st.sampled_from([FILE, "../x", "a b.whl", 'x".whl', "x'><b>.whl"])
)
_ANY = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2**62), _TEXT, st.just({}), st.just([]), st.just({"sha256": SHA256})
)
_FILE = st.fixed_dictionaries(
    {
        "filename": st.one_of(_TEXT, st.sampled_from(["six-1.whl", "six-2.zip"]), _ANY),
        "url": st.one_of(_TEXT.map("https://h.example/".__add__), _TEXT, _ANY, st.just("/a.whl#sha256=" + SHA256)),
        "hashes": st.one_of(
            st.just({}), st.just({"sha256": SHA256, "md5": "0f"}), st.dictionaries(_TEXT, _ANY, max_size=2), _ANY
        ),
    },
    optional={
        "requires-python": _ANY,
        "yanked": _ANY,
        "core-metadata": _ANY,
        "dist-info-metadata": _ANY,
        "gpg-sig": _ANY,
        "size": _ANY,
        "provenance": _ANY,
    },
)
_PAGE = st.fixed_dictionaries(
    {"files": st.lists(_FILE, max_size=4)},
    optional={
        "meta": st.fixed_dictionaries({"api-version": st.just("1.1")}, optional={"tracks": st.lists(_ANY, max_size=2)}),
        "alternate-locations": st.one_of(st.lists(_ANY, max_size=2), _ANY),
        "project-status": st.one_of(_ANY, st.fixed_dictionaries({}, optional={"status": _ANY, "reason": _ANY})),
        "versions": _ANY,
        "unknown": _ANY,
    },
)


def shown(value: object) -> object:
    """A text as HTML can say it."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", "\ufffd", value) if type(value) is str else value


def told(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What HTML and JSON say of files alike, in one form."""
    return [
        {
            "filename": one["filename"],
            "url": one["url"].partition("#")[0],
            "sha256": one["hashes"].get("sha256"),
            "requires": shown(one.get("requires-python") or None),
            "yanked": shown(one.get("yanked") or False),
            "metadata": one.get("core-metadata", False) not in (False, None),
            "signed": one.get("gpg-sig"),
        }
        for one in files
    ]


class HostilePageTests(SynchronousTestCase):
    """Whatever a page says, what is made of it is a page, and its links are ours."""

    @settings(max_examples=100)
    @given(_PAGE)
    def test_nothing_breaks_out_and_both_forms_say_the_same(self, page: dict[str, Any]) -> None:
        try:
            document = of_json(page)
        except BadPage:
            return
        as_json = orjson.loads(derived(document))
        for one in as_json["files"]:
            path = one["url"].partition("#")[0].removeprefix("../..").encode()
            asked = artifact_of(path)
            assert asked is not None, path
            self.assertEqual(one["filename"].encode(), asked.filename + asked.companion)
        as_html = derived(document, Media.HTML)
        # One tag to a line, each line one of the renderer's own.
        for line in as_html.decode().splitlines():
            self.assertIsNotNone(LINE.fullmatch(line), line)
        wheels = [one for one in as_json["files"] if one["filename"].endswith((".whl", ".zip", ".tar.gz"))]
        if wheels:
            base = b"https://cache.example/simple/six/"
            again = files_of(canonical(PageKind.PROJECT, b"six", as_html, HTML, base))
            expected = told(wheels)
            for one in expected:
                one["url"] = "https://cache.example" + one["url"].removeprefix("../..")
            self.assertEqual(expected, told(again))

    def test_each_text_of_a_page_is_only_text(self) -> None:
        page = project(
            file(requires_python=NASTY, yanked=NASTY, provenance=NASTY, unknown=NASTY, hashes={NASTY: NASTY}),
            file(filename=f"{NASTY[:20]}.whl".replace("/", "")),
            meta={"api-version": "1.0", "tracks": [NASTY], "_last-serial": NASTY},
            alternate_locations=[NASTY],
            project_status={"status": NASTY, "reason": NASTY},
        )
        document = of_json(page)
        self.assertEqual(0, document.dropped)
        rendered = derived(document, Media.HTML).decode()
        self.assertNotIn("<script", rendered)
        self.assertEqual(1, rendered.count("-->") + 1)
        for line in rendered.splitlines():
            self.assertIsNotNone(LINE.fullmatch(line), line)
        self.assertEqual(NASTY, orjson.loads(derived(document))["files"][0]["unknown"])

    def test_a_list_of_nasty_names(self) -> None:
        document = of_json(
            {"projects": [{"name": "\"'><script>"}, {"name": "javascript:x"}, {"name": "//h.example"}]}, PageKind.LIST
        )
        rendered = derived(document, Media.HTML, PageKind.LIST)
        self.assertEqual(["%22%27%3E%3Cscript%3E/", "javascript%3Ax/"], links_in(rendered))
        self.assertNotIn(b"<script", rendered)

    def test_the_page_of_the_page_is_the_same(self) -> None:
        """A node whose origin is another node."""
        first = derived(of_json(project(file(), file(filename="six-2.whl", hashes={}))))
        again = canonical(PageKind.PROJECT, b"six", first, Media.JSON.value, AT)
        self.assertEqual(first, derived(again))


LINE = re.compile(
    r"""<!DOCTYPE\ html>|</?(?:html|head|body)>|<!--SERIAL\ [0-9]+-->
    |<meta\ name="pypi:[a-z-]+"\ content="[^"<>]*">
    |<title>[^<>]*</title>|<h1>[^<>]*</h1>
    |<a\ href="[^"<>]*"(?:\ data-[a-z-]+="[^"<>]*")*>[^<>]*</a><br>""",
    re.VERBOSE,
)
