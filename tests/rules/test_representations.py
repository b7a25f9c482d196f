"""Which form of a page each client gets (PEP 691; RFC 9110 §12.5; FIELD 3)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.indexpaths import PageKind
from edgecache.rules.representations import Coding, Media, Representation, coding_of, media_of, representation_of

PIP = b"application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"
UV = b"application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"

ACCEPTED = (
    (PIP, Media.JSON),
    (UV, Media.JSON),
    (BROWSER, Media.TEXT),
    (b"application/vnd.pypi.simple.v1+json", Media.JSON),
    (b"application/vnd.pypi.simple.latest+json", Media.JSON),
    (b"application/vnd.pypi.simple.v1+html", Media.HTML),
    (b"application/vnd.pypi.simple.latest+html", Media.HTML),
    (b"Application/VND.pypi.Simple.v1+JSON", Media.JSON),
    (b"application/vnd.pypi.simple.v2+json, application/vnd.pypi.simple.v1+json;q=0.1", Media.JSON),
    (b"text/html", Media.TEXT),
    (b"*/*", Media.TEXT),
    (b"text/*", Media.TEXT),
    (b"application/*", Media.JSON),
    (b"text/html, application/vnd.pypi.simple.v1+json", Media.JSON),
    (b"text/html;q=0.9, application/vnd.pypi.simple.v1+json;q=0.8", Media.TEXT),
    (b"application/vnd.pypi.simple.v1+json;q=0, text/html", Media.TEXT),
    (b"application/vnd.pypi.simple.v1+json;q=0, */*", Media.TEXT),
    (b"*/*, application/vnd.pypi.simple.v1+json;q=0.5", Media.TEXT),
    (b"*/*;q=0.1, application/vnd.pypi.simple.v1+json;q=0.5", Media.JSON),
    (b"*/*, application/vnd.pypi.simple.v1+json", Media.JSON),
    (b"application/*, application/vnd.pypi.simple.v1+json;q=0", Media.HTML),
    # Whoever accepts nothing that there is gets what old installers know.
    (b"application/vnd.pypi.simple.v2+json", Media.TEXT),
    (b"image/png", Media.TEXT),
    (b"", Media.TEXT),
    (b",;q=1,,", Media.TEXT),
)

CODED = (
    ((), Coding.IDENTITY),
    ((b"gzip, deflate",), Coding.GZIP),
    ((b"gzip, deflate, br, zstd",), Coding.ZSTD),
    ((b"br", b"gzip"), Coding.GZIP),
    ((b"X-GZip",), Coding.GZIP),
    ((b"identity",), Coding.IDENTITY),
    ((b"identity, gzip",), Coding.GZIP),
    ((b"identity, gzip;q=0.5",), Coding.IDENTITY),
    ((b"zstd;q=0.1, gzip",), Coding.GZIP),
    ((b"gzip;q=0, zstd;q=0",), Coding.IDENTITY),
    ((b"*",), Coding.IDENTITY),
    ((b"br",), Coding.IDENTITY),
)


class NegotiationTests(SynchronousTestCase):
    """Each row of the tables."""

    def test_media_types(self) -> None:
        for accept, media in ACCEPTED:
            self.assertIs(media, media_of(accept), accept)

    def test_codings(self) -> None:
        for values, coding in CODED:
            self.assertIs(coding, coding_of(b",".join(values)), values)

    def test_a_client_that_says_nothing_gets_html_as_it_is(self) -> None:
        expected = Representation(Media.TEXT, Coding.IDENTITY)
        self.assertEqual(expected, representation_of(PageKind.PROJECT, (), b"http://cache.example"))

    def test_releases_have_one_form_with_links_below_the_name_that_the_client_used(self) -> None:
        fields = ((b"accept", b"text/html"), (b"accept-encoding", b"gzip"))
        expected = Representation(Media.PLAIN_JSON, Coding.GZIP, b"http://cache.example")
        self.assertEqual(expected, representation_of(PageKind.RELEASES, fields, b"http://cache.example"))

    def test_no_two_have_the_same_name(self) -> None:
        forms = [
            Representation(media, coding, base) for media in Media for coding in Coding for base in (b"", b"http://h")
        ]
        self.assertEqual(len(forms), len({form.name for form in forms}))
