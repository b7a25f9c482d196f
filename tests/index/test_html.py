"""HTML of an index (PEP 503 and what came after) says what the same page in JSON does."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.index import html
from edgecache.index.documents import BadPage, canonical
from edgecache.rules.indexpaths import PageKind
from edgecache.rules.representations import Media
from tests.index.pages import AT, FILE, SHA256, derived, files_of, of_html

ANCHORS: tuple[tuple[str, dict[str, Any]], ...] = (
    # attributes of an anchor, what it says about the file
    (f'href="#sha256={SHA256}"', {"hashes": {"sha256": SHA256}}),
    (f'href="#SHA256={SHA256.upper()}"', {"hashes": {"sha256": SHA256}}),
    ('href="#md5=0f"', {"hashes": {"md5": "0f"}}),
    ('href="#blake2b=0f&amp;egg=six&amp;sha512=1f"', {"hashes": {"blake2b": "0f", "sha512": "1f"}, "url": "#egg=six"}),
    ('href="" data-requires-python="&gt;=3.8, &lt;4"', {"requires-python": ">=3.8, <4"}),
    ('href="" data-requires-python=""', {}),
    ('href="" data-yanked', {"yanked": True}),
    ('href="" data-yanked=""', {"yanked": True}),
    ('href="" data-yanked="it &quot;broke&quot;"', {"yanked": 'it "broke"'}),
    ('href="" data-core-metadata="true"', {"core-metadata": True}),
    (f'href="" data-core-metadata="sha256={SHA256}"', {"core-metadata": {"sha256": SHA256}}),
    ('href="" data-dist-info-metadata="true"', {"core-metadata": True}),
    (
        f'href="" data-dist-info-metadata="true" data-core-metadata="sha256={SHA256}"',
        {"core-metadata": {"sha256": SHA256}},
    ),
    ('href="" data-core-metadata="false"', {"core-metadata": False}),
    ('href="" data-core-metadata="???"', {"core-metadata": False}),
    ('href="" data-gpg-sig="true"', {"gpg-sig": True}),
    ('href="" data-gpg-sig="false"', {"gpg-sig": False}),
    ('href="" data-provenance="https://index.example/x"', {"provenance": "https://index.example/x"}),
    ('HREF="" REL="internal" DATA-YANKED onclick="alert(1)"', {"yanked": True}),
    ('href="" href="https://elsewhere.example/six-2.0.tar.gz"', {}),
)

PIECES = [
    *("<a ", "href=", "x.zip", "'", '"', ">", "</a>", "<", "&#x", "&gt", ";", "<!", "[", "--", "<base ", "<?", "/"),
    *("<![if", "<script>", "</script", "<meta name=pypi:tracks content=", " ", "\r\n", "\0", "#sha256=", "javascript:"),
]

NGINX = """<html>
<head><title>Index of /simple/six/</title></head>
<body>
<h1>Index of /simple/six/</h1><hr><pre><a href="../">../</a>
<a href="six-1.0.tar.gz">six-1.0.tar.gz</a>                  22-Nov-2026 10:00     12345
<a href="six-1.0.tar.gz.asc">six-1.0.tar.gz.asc</a>          22-Nov-2026 10:00       833
<a href="six-1.0-py3-none-any_with_long_name-py3-none-any.whl">six-1.0-py3-none-any_with_long_name-py3-none-a..&gt;</a>
<a href="six-1.0-py3-none-any_with_long_name-py3-none-any.whl.metadata">six-1.0-py3..&gt;</a> x
</pre><hr></body>
</html>
"""


class FileTests(SynchronousTestCase):
    """Anchors and their attributes."""

    def test_each_attribute_says_what_its_key_does(self) -> None:
        for attributes, says in ANCHORS:
            url = f"https://files.example/{FILE}"
            page = f"<a {attributes.replace('=' + chr(34), '=' + chr(34) + url, 1)}>{FILE}</a>"
            expected = {"filename": FILE, "url": url, "hashes": {}} | says
            expected["url"] = url + says.get("url", "")
            self.assertEqual([expected], files_of(of_html(page)), attributes)

    def test_links_are_relative_to_the_page_or_to_what_it_names(self) -> None:
        for base, url in (
            ("", "https://index.example/simple/p/six-1.0.tar.gz"),
            ('<base href="https://files.example/x/">', "https://files.example/p/six-1.0.tar.gz"),
            ('<base href="/x/y/z"><base href="/u/v/w">', "https://index.example/x/p/six-1.0.tar.gz"),
            ('<base href="">', "https://index.example/simple/p/six-1.0.tar.gz"),
            ('<base href=""><base href="/u/v/w">', "https://index.example/simple/p/six-1.0.tar.gz"),
            ("<base target=x>", "https://index.example/simple/p/six-1.0.tar.gz"),
        ):
            self.assertEqual(url, files_of(of_html(f'{base}<a href="../p/six-1.0.tar.gz">x</a>'))[0]["url"], base)

    def test_the_link_names_the_file_and_the_text_only_if_that_does_not(self) -> None:
        for href, text, name in (
            ("six-1.0%2Bl.tar.gz?x#y", "other-1.0.tar.gz", "six-1.0+l.tar.gz"),
            ("/download/17", " six-1.0.tar.gz\n", "six-1.0.tar.gz"),
            ("/download?f=six-2.0.zip", "six-<b>1.0</b>.zip", "six-1.0.zip"),
            ("six-1.0.ZIP", "", "six-1.0.ZIP"),
        ):
            self.assertEqual([name], [one["filename"] for one in files_of(of_html(f'<a href="{href}">{text}</a>'))])

    def test_a_directory_listing_is_a_page(self) -> None:
        found = [one["filename"] for one in files_of(of_html(NGINX))]
        self.assertEqual([FILE, "six-1.0-py3-none-any_with_long_name-py3-none-any.whl"], found)

    def test_what_looks_like_files_elsewhere_is_none(self) -> None:
        page = f"""<!-- <a href="a-1.0.zip">x</a> --><script>"<a href='b-1.0.zip'>"</script>
            <p title='<a href="c-1.0.zip">'>
            <a>d-1.0.zip</a><a href="">e-1.0.zip</a><link href="f-1.0.zip"><a href={FILE}>x</a>"""
        self.assertEqual([FILE], [one["filename"] for one in files_of(of_html(page))])

    def test_octets_that_are_no_text_cost_only_themselves(self) -> None:
        page = b'<a href="six-1.0.zip" data-yanked="\xe4">x</a>'
        for charset, reason in ((b"", "\ufffd"), (b"; charset=ISO-8859-1", "ä"), (b'; Charset="rot13"', "\ufffd")):
            document = canonical(PageKind.PROJECT, b"six", page, b"text/html" + charset, AT)
            self.assertEqual([reason], [one["yanked"] for one in files_of(document)])


class PageTests(SynchronousTestCase):
    """What is not a file."""

    def read(self, page: str, kind: PageKind = PageKind.PROJECT) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(of_html(page, kind).octets)
        return found

    def test_a_page_without_links_is_a_project_without_files(self) -> None:
        expected = {"meta": {"api-version": "1.0"}, "files": [], "name": "six"}
        self.assertEqual(expected, self.read("<!DOCTYPE html><html><body><h1>Links for six</h1></body></html>\n"))

    def test_metas(self) -> None:
        """PEP 629, 708, 792. Of versions, only what HTML can keep is said: 1.1 promises sizes (PEP 700)."""
        page = self.read(
            '<META NAME="pypi:repository-version" CONTENT="1.4"><meta name="pypi:tracks" content="https://a.example/six/">'
            '<meta name="pypi:tracks" content="https://b.example/"><meta name="pypi:alternate-locations" content="x">'
            '<meta name="pypi:project-status" content="archived">'
            '<meta name="pypi:project-status-reason" content="&lt;b&gt;">'
            '<meta name="viewport" content="y"><a href="/about">About</a>'
        )
        expected = {
            "meta": {"api-version": "1.0", "tracks": ["https://a.example/six/", "https://b.example/"]},
            "files": [],
            "name": "six",
            "alternate-locations": ["x"],
            "project-status": {"status": "archived", "reason": "<b>"},
        }
        self.assertEqual(expected, page)

    def test_the_serial_in_a_comment(self) -> None:
        self.assertEqual(1234, of_html("<html></html>\n<!--SERIAL 1234-->").serial)
        for comment in ("SERIAL", "SERIAL -1", "SERIAL 1 2", "SERIAL " + "1" * 30, "serial 5"):
            self.assertIsNone(of_html(f"<html></html><!--{comment}-->").serial, comment)

    def test_a_list(self) -> None:
        page = self.read(
            '<a href="/simple/zope-interface/">Zope.Interface</a><a href="six/">six/</a><a href="six">six</a>'
            '<a href="a-project-with-a-long-name/">a-project-with..&gt;</a><a href="../">../</a><a href="/">up</a>'
            '<a href="javascript:void(0)">x</a><a href="mailto:x@index.example">y</a><a href="%2e%2e/">z</a>',
            PageKind.LIST,
        )
        expected = [{"name": "Zope.Interface"}, {"name": "six"}, {"name": "a-project-with-a-long-name"}]
        self.assertEqual({"meta": {"api-version": "1.0"}, "projects": expected}, page)

    def test_megabytes_that_never_end_are_read_once(self) -> None:
        """Each takes minutes where an end is looked for from every beginning, or text is gathered piece by piece."""
        for start, part in (
            ("", "<!--"),
            ("", "<a "),
            ("<a ", "x "),
            ("<a ", "x='"),
            ("<script>", "</"),
            ("", "<![CDATA["),
            ("", "&#"),
            ("", "<?"),
            ("<a href=x.zip>", "a<b>"),
        ):
            try:
                of_html(f'<a href="six-1.0.zip">x</a>{start}{part * 100_000}')
            except BadPage as refused:
                self.assertIn("128 KiB", refused.why)

    def test_where_the_pieces_end_that_the_parser_gets_makes_no_difference(self) -> None:
        anchors = "".join(f'<a href="six-{n}.zip" data-yanked="a &amp; b">six-{n}.zip</a>\n' for n in range(3000))
        expected = [(f"six-{n}.zip", "a & b") for n in range(3000)]
        for shift in range(0, 70, 9):
            found = files_of(of_html("x" * shift + anchors))
            self.assertEqual(expected, [(one["filename"], one["yanked"]) for one in found])

    def test_attributes_are_counted(self) -> None:
        self.patch(html, "MOST_ATTRIBUTES", {PageKind.PROJECT: 100})
        page = '<a href="six-1.0.zip">x</a>' + "<p x y z>" * 33
        self.assertEqual(1, len(files_of(of_html(page))))
        self.assertRaises(BadPage, of_html, page + "<p x>")

    def test_markup_that_the_parser_gives_up_on_is_refused(self) -> None:
        self.assertRaises(BadPage, of_html, f"<p title='&#{'9' * 5000};'>")

    @settings(max_examples=100)
    @given(
        st.lists(
            st.sampled_from(PIECES),
            max_size=30,
        ).map("".join)
    )
    def test_whatever_comes_is_a_page_or_refused(self, page: str) -> None:
        for kind in (PageKind.PROJECT, PageKind.LIST):
            try:
                document = of_html(page, kind)
            except BadPage:
                continue
            derived(document, Media.TEXT, kind)
