"""Addresses and URLs as people write them, taken apart once."""

from __future__ import annotations

import base64
import ipaddress
import re
from urllib.parse import unquote_to_bytes, urlsplit

from attrs import field, frozen

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")


@frozen
class Endpoint:
    """
    Where to listen.

    :ivar host: a literal address without brackets, or a name.
    :ivar port: 0 takes any free one.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Can only this machine reach it?"""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() in ("localhost", "localhost.")


def endpoint(text: str) -> Endpoint:
    """
    Take ``host:port`` or ``[v6]:port`` apart.

    :raises ValueError: with what is wrong with it.

    >>> str(endpoint("[::1]:8080"))
    '[::1]:8080'
    """
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} is not host:port")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{port!r} is no port")
    if host.startswith("[") and host.endswith("]"):
        return Endpoint(str(ipaddress.IPv6Address(host[1:-1])), int(port))
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is no host; IPv6 is written [::1]:port")
    return Endpoint(host, int(port))


def host_spelt(authority: str) -> str:
    """
    :return: an authority as Host has it: lower case, names of other alphabets in ASCII (RFC 3490).
    :raises UnicodeError: it can be no name's.

    >>> host_spelt("B\xfccher.example:80")
    'xn--bcher-kva.example:80'
    """
    lowered = authority.lower()
    return lowered if lowered.isascii() else lowered.encode("idna").decode("ascii")


@frozen
class OriginURL:
    """
    An origin as configured.

    :ivar shown: for people: scheme, authority and path, never credentials.
    :ivar credentials: does the URL carry any?
    :ivar path: without a final slash.
    """

    shown: str
    host: str
    port: int
    path: str
    credentials: bool


def origin_url(text: str) -> OriginURL:
    """
    Take the URL of an origin apart.

    :raises ValueError: with what is wrong with it; the message never shows credentials.
    """
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("a URL has no blanks and only ASCII in it")
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        if ":" in host:
            ipaddress.IPv6Address(host)
    except ValueError:
        # It would show what may be a password that was not percent-encoded.
        raise ValueError("is no URL; what is special in a password is percent-encoded") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("an origin begins with http:// or https://")
    if "@" in parts.path and _may_be_userinfo(text):
        raise ValueError("after a slash there is an @; what is special in a password is percent-encoded (and here %40)")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("the port is no number up to 65535") from None
    if ":" not in host and not _HOST.fullmatch(host):
        raise ValueError("the URL names no host")
    if port == 0:
        raise ValueError("port 0 is no port to connect to")
    if parts.query or parts.fragment:
        raise ValueError("an origin has a scheme, an authority and a path prefix at most: no query, no fragment")
    bare = f"[{host}]" if ":" in host else host
    authority = bare if port is None else f"{bare}:{port}"
    path = parts.path.rstrip("/")
    default = 443 if parts.scheme == "https" else 80
    return OriginURL(f"{parts.scheme}://{authority}{path}", host, port or default, path, "@" in parts.netloc)


def _may_be_userinfo(text: str) -> bool:
    """
    Is what stands before the last @ of a URL perhaps user and password, with a slash in them, and not a host and path?
    """
    before, _, after = text.partition("://")[2].rpartition("@")
    return ":" in before or before.count("/") < 2 or "." in after.partition("/")[0]


@frozen
class ProxyURL:
    """
    A proxy that connects us to origins (CONNECT, RFC 9110 §9.3.6).

    :ivar host: lower-case name, or an IP address without brackets.
    :ivar authorization: value of Proxy-Authorization (RFC 7617) made of the URL's credentials, never shown.
    """

    host: str
    port: int
    authorization: bytes | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """For people."""
        return f"http://{Endpoint(self.host, self.port)}"


def proxy_url(text: str) -> ProxyURL:
    """
    Take the URL of a proxy apart.

    :raises ValueError: with what is wrong with it; the message shows nothing of it, for any part may be a
        password that was not percent-encoded.

    >>> proxy_url("http://me:secret@proxy.example:3128")
    ProxyURL(host='proxy.example', port=3128)
    """
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("a URL has no blanks and only ASCII in it")
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname or ""
        if ":" in host:
            ipaddress.IPv6Address(host)
    except ValueError:
        raise ValueError("is no URL; what is special in a password is percent-encoded") from None
    if parts.scheme != "http":
        raise ValueError("a proxy begins with http://")
    if ":" not in host and not _HOST.fullmatch(host):
        raise ValueError("the URL names no host")
    if port == 0:
        raise ValueError("port 0 is no port to connect to")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("a proxy is http://host:port, and credentials at most")
    authorization = None
    if parts.username or parts.password:
        user, password = (unquote_to_bytes(part or "") for part in (parts.username, parts.password))
        if b":" in user:
            raise ValueError("a user name has no colon in it (RFC 7617)")
        authorization = b"Basic " + base64.b64encode(user + b":" + password)
    return ProxyURL(host, port or 80, authorization)
