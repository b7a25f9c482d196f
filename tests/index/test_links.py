"""Which links are usable, and what relative ones mean (RFC 3986 §5)."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.index.links import BadLink, Base, checked_filename, filename_of

PAGE = "https://index.example/simple/six/"

USABLE = (
    # reference, what it means
    ("https://files.example/a.whl", "https://files.example/a.whl"),
    ("http://files.example:8080/a.whl?x=1#egg=a", "http://files.example:8080/a.whl?x=1#egg=a"),
    ("HTTPS://Files.Example/A.whl", "https://files.example/A.whl"),
    ("a.whl", "https://index.example/simple/six/a.whl"),
    ("./a.whl", "https://index.example/simple/six/a.whl"),
    ("../../packages/a.whl#md5=00", "https://index.example/packages/a.whl#md5=00"),
    ("../../../../../a.whl", "https://index.example/a.whl"),
    ("/packages/a.whl", "https://index.example/packages/a.whl"),
    ("//files.example/a.whl", "https://files.example/a.whl"),
    ("  a.whl\n", "https://index.example/simple/six/a.whl"),
    ("a b.whl", "https://index.example/simple/six/a%20b.whl"),
    ('a".whl', "https://index.example/simple/six/a%22.whl"),
    ("<a>.whl", "https://index.example/simple/six/%3Ca%3E.whl"),
    ("ä.whl", "https://index.example/simple/six/%C3%A4.whl"),
    ("a%0d%0a.whl", "https://index.example/simple/six/a%0d%0a.whl"),
    ("https://files.example/x/../a.whl", "https://files.example/a.whl"),
    ("https://files.example/../../a.whl", "https://files.example/a.whl"),
    ("https://files.example/.hidden/a.whl", "https://files.example/.hidden/a.whl"),
    ("x/../a.whl", "https://index.example/simple/six/a.whl"),
    # Who may be contacted is not decided here.
    ("http://127.0.0.1/a.whl", "http://127.0.0.1/a.whl"),
    ("http://169.254.169.254/latest", "http://169.254.169.254/latest"),
    ("http://[::1]:80/a.whl", "http://[::1]:80/a.whl"),
    ("http://localhost/a.whl", "http://localhost/a.whl"),
)

REFUSED = (
    # reference, why
    (None, "without URL"),
    (17, "without URL"),
    ("", "without URL"),
    ("javascript:alert(1)//a.whl", "another scheme"),
    ("JavaScript:alert(1)", "another scheme"),
    ("data:text/html,x", "another scheme"),
    ("file:///etc/passwd", "another scheme"),
    ("ftp://files.example/a.whl", "another scheme"),
    ("git+https://files.example/a.git", "another scheme"),
    ("httpss://files.example/a.whl", "another scheme"),
    ("https://files.example/a\r\nX: y.whl", "control"),
    ("https://files.example/\ta.whl", "control"),
    ("java\nscript:alert(1)", "control"),
    ("a\x00.whl", "control"),
    ("\\\\files.example\\a.whl", "backslashes"),
    ("https:\\\\files.example/a.whl", "backslashes"),
    ("https://user:secret@files.example/a.whl", "credentials"),
    ("https://user@files.example/a.whl", "credentials"),
    ("//user@files.example/a.whl", "credentials"),
    ("https://files.example:0/a.whl", "port"),
    ("https://files.example:65536/a.whl", "port"),
    ("https://files.example:x/a.whl", "host"),
    ("https://files.example:/a.whl", "host"),
    ("https:///a.whl", "host"),
    ("https://", "host"),
    ("https://fi les.example/a.whl", "host"),
    ('https://fi"les.example/a.whl', "host"),
    ("https://fïles.example/a.whl", "host"),
    ("https://[::1/a.whl", "host"),
    ("https://files.example/" + "a" * 8192, "8,192"),
)

NAMES_REFUSED = (
    None,
    5,
    "",
    ".",
    "..",
    "a/b",
    "../a",
    "a\\b",
    "a\r\nb",
    "a\x00",
    "a\x7f",
    "a\x85b",
    "x" * 256,
    "ä" * 128,
)


class LinkTests(SynchronousTestCase):
    """Each row of the tables."""

    def test_usable_links_mean_one_absolute_url(self) -> None:
        base = Base.of(PAGE)
        self.assertEqual([(given, means) for given, means in USABLE], [(one, base.resolve(one)) for one, _ in USABLE])

    def test_the_others_are_refused_and_it_says_why(self) -> None:
        base = Base.of(PAGE)
        for reference, why in REFUSED:
            with self.assertRaises(BadLink, msg=repr(reference)) as caught:
                base.resolve(reference)
            self.assertIn(why, caught.exception.why, reference)
            self.assertNotIn("secret", str(caught.exception))

    def test_names_that_are_no_single_printable_segment_are_refused(self) -> None:
        for name in NAMES_REFUSED:
            with self.assertRaises(BadLink, msg=repr(name)):
                checked_filename(name)
        for name in ("six-1.0+l.tar.gz", "a'\"<b>.whl", "ä.whl", "x" * 255, "..."):
            self.assertEqual(name, checked_filename(name))

    def test_the_name_in_a_url_is_its_last_segment_decoded(self) -> None:
        for url, name in (
            ("https://h.example/a/b%20c.whl", "b c.whl"),
            ("https://h.example/a/b.whl?c=/d.whl#/e", "b.whl"),
            ("b%2fc.whl", "b/c.whl"),
            ("https://h.example/", ""),
        ):
            self.assertEqual(name, filename_of(url))
        self.assertRaises(BadLink, filename_of, "https://h.example/%ff.whl")

    def test_a_base_without_path_is_one(self) -> None:
        self.assertEqual("https://h.example/a", Base.of("https://h.example").resolve("a"))
        self.assertEqual("https://h.example/a", Base.of("https://h.example?x=/y/").resolve("a"))
        self.assertEqual("https://h.example/x/a", Base.of("https://h.example/x/y?z=/").resolve("a"))

    def test_a_base_is_no_longer_than_pages_have_them(self) -> None:
        """All directories above it are kept: a megabyte of slashes would be a terabyte."""
        self.assertRaises(BadLink, Base.of, "https://h.example" + "/" * 2048)

    @given(
        st.lists(st.sampled_from(["..", ".", "a", "b.c", "%2e", "x y"]), max_size=6).map("/".join),
        st.sampled_from(["/simple/six/", "/simple/six", "/", "/a/b/c/d/", "/a/?q=/x"]),
    )
    def test_the_short_cuts_are_what_the_standard_library_says(self, reference: str, path: str) -> None:
        if not reference:
            return
        page = f"https://index.example{path}"
        expected = urljoin(page, reference.replace(" ", "%20"))
        self.assertEqual(expected, Base.of(page).resolve(reference))

    @given(st.text(max_size=30), st.sampled_from(["", "https://", "http://h.example/", "//", "/", "../"]))
    def test_whatever_is_resolved_is_plain_http_to_a_host(self, text: str, start: str) -> None:
        try:
            url = Base.of(PAGE).resolve(start + text)
        except BadLink:
            return
        parts = urlsplit(url)
        self.assertIn(parts.scheme, ("http", "https"))
        self.assertTrue(parts.hostname)
        self.assertIsNone(parts.username)
        self.assertTrue(url.isascii() and url.isprintable())
        self.assertFalse(set(' "<>\\^`{|}') & set(url))
        self.assertEqual(url, Base.of(PAGE).resolve(url))
