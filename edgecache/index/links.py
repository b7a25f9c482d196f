"""
Links of index pages: which are usable at all, and what a relative one means (RFC 3986 §5; PEP 503).

Usable is an absolute ``http`` or ``https`` URL, after resolution against the page's own, without userinfo, whose
host is a name or an address in plain ASCII and whose port is one. White space around a link is taken off and what
RFC 3986 allows in no URL (space, quotes, angle brackets, non-ASCII) is percent-encoded, as browsers and
installers do. Refused are: every other scheme (``javascript:``, ``file:``, ``ftp:``, ``git+https:``), control
octets wherever they stand (CR and LF too, which browsers would drop), backslashes, credentials.

Addresses in URLs, loopback and private ones included, are passed on as they are: who may be contacted is decided
where connections are made, not here.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes, urljoin

from attrs import define, field, frozen

from edgecache.words.errors import EdgeError


@define(eq=False, repr=False)
class BadLink(EdgeError):
    """
    A link, or the name of a file, that nothing may be made of.

    :ivar why: for the log; names the rule, not the link.
    """

    why: str


_URL = re.compile(
    r"(?P<origin>https?://(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]{2,45}\])(?P<port>:[0-9]{1,5})?)"
    r"(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?"
    r"(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?"
    r"(?P<fragment>#[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?"
)
# Usable as they stand: nearly all there are, and half the price of looking at their parts.
_PLAIN = re.compile(r"https?://[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9._~%+,=!()/-]*")
# Whose meaning is plain, without urljoin parsing two URLs: any way up, or to the top, then down.
_RELATIVE = re.compile(r"(/|(?:\.\./)*)([A-Za-z0-9_~%][A-Za-z0-9._~!$&'()*+,;=@%/-]*)(#[A-Za-z0-9._=&-]*)?")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_START = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?(?://[^/?#]*)?")
_DOTS = re.compile(r"/\.\.?(?:/|\Z)")
# Those that RFC 3986 gives a meaning stay; % stays too, links are taken to be encoded where they need to be.
_KEPT = ":/?#@!$&'()*+,;=%-._~"
_UNSAFE_IN_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\u2028\u2029]")
# No file system takes a longer one.
_LONGEST_NAME = 255
_HIGHEST_PORT = 65535
# What servers take in a request line; a signed URL has about 2,000. All that is above a base is kept, hence less.
_LONGEST_URL = 8192
_LONGEST_BASE = 2048
_NO_HOST = "URL with a host that is none, or characters that no URL has"


def filename_of(url: str) -> str:
    """
    :return: last segment of the URL's path, percent-decoded; ``""`` without one.
    :raises BadLink: it is not UTF-8.

    >>> filename_of("https://files.example/a/six-1.0%2Blocal.tar.gz?x#sha256=00")
    'six-1.0+local.tar.gz'
    """
    path = url.partition("#")[0].partition("?")[0]
    segment = path.rpartition("/")[2]
    if "%" not in segment:
        return segment
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise BadLink("filename is not UTF-8") from None


def checked_filename(name: object) -> str:
    """
    :return: the name of a file if it is a single segment that can be shown and written anywhere.
    :raises BadLink: it is none.
    """
    if type(name) is not str or not name:
        raise BadLink("without filename")
    if name in (".", "..") or _UNSAFE_IN_NAME.search(name) is not None:
        raise BadLink("filename with control characters or separators, or that is a directory")
    if len(name) > _LONGEST_NAME or (not name.isascii() and len(name.encode()) > _LONGEST_NAME):
        raise BadLink("filename of more than 255 octets")
    return name


@frozen
class Base:
    """
    What relative links are relative to.

    :ivar url: absolute, without fragment.
    """

    url: str
    _above: list[str] = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        origin_end = self.url.index("/", self.url.index("://") + 3)
        path = self.url[origin_end:].partition("?")[0]
        origin = self.url[:origin_end]
        above = []
        while path:
            path = path.rpartition("/")[0]
            above.append(f"{origin}{path}/")
        object.__setattr__(self, "_above", above)

    @classmethod
    def of(cls, url: str) -> Base:
        """
        :param url: absolute.
        :raises BadLink: nothing can be relative to it.
        """
        url = absolute(url).partition("#")[0]
        if len(url) > _LONGEST_BASE:
            raise BadLink("URL of more than 2,048 octets")
        return cls(url)

    def resolve(self, reference: object) -> str:
        """
        :return: the absolute URL that a link means, fragment included.
        :raises BadLink: it is not a usable one.
        """
        if type(reference) is not str or not reference:
            raise BadLink("without URL")
        if len(reference) > _LONGEST_URL:
            raise BadLink("URL of more than 8,192 octets")
        if _PLAIN.fullmatch(reference) is not None and "/." not in reference:
            return reference
        if reference[:8] == "https://" or reference[:7] == "http://":
            return absolute(reference)
        plain = _RELATIVE.fullmatch(reference)
        if plain is not None and "/." not in plain[2]:
            up = -1 if plain[1] == "/" else min(len(plain[1]) // 3, len(self._above) - 1)
            return f"{self._above[up]}{plain[2]}{plain[3] or ''}"
        try:
            joined = urljoin(self.url, _cleaned(reference))
        except ValueError:
            raise BadLink(_NO_HOST) from None
        return absolute(joined)


def absolute(url: str) -> str:
    """
    :return: the URL, percent-encoded, its host in lower case, with a path and no dot segments in it.
    :raises BadLink: it is not absolute, or not usable.
    """
    matched = _URL.fullmatch(url)
    if matched is None:
        url = _encoded(_cleaned(url))
        matched = _URL.fullmatch(url)
        if matched is None:
            raise BadLink(_why_not(url))
    origin: str = matched["origin"]
    port: str | None = matched["port"]
    path: str | None = matched["path"]
    if port is not None and not 0 < int(port[1:]) <= _HIGHEST_PORT:
        raise BadLink("URL with a port that is none")
    if path is None:
        return f"{origin.lower()}/{url[len(origin) :]}"
    if "/." in path and _DOTS.search(path) is not None:
        rest = url[len(origin) + len(path) :]
        return origin.lower() + urljoin("http://h/", path).removeprefix("http://h") + rest
    return url if origin.islower() else origin.lower() + url[len(origin) :]


def _cleaned(reference: str) -> str:
    stripped = reference.strip(" \t\r\n\f")
    if _CONTROLS.search(stripped) is not None:
        raise BadLink("URL with control characters or backslashes")
    return stripped


def _encoded(url: str) -> str:
    start = _START.match(url)
    end = 0 if start is None else start.end()
    return url[:end].lower() + quote(url[end:], safe=_KEPT)


def _why_not(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        return "URL of another scheme than http and https"
    if "@" in re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0]:
        return "URL with credentials"
    return _NO_HOST
