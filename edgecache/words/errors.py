"""One tree of errors; each says who failed, and its attributes say the rest."""

from __future__ import annotations

from typing import ClassVar

from attrs import define, fields

from edgecache.words.reasons import Outcome


@define(eq=False, repr=False)
class EdgeError(Exception):
    """Base of all errors that this program raises on purpose."""

    def __repr__(self) -> str:
        said = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(type(self)) if each.repr)
        return f"{type(self).__name__}({said})"

    def __str__(self) -> str:
        return repr(self)


@define(eq=False, repr=False)
class UpstreamFailed(EdgeError):
    """
    One upstream address gave no usable response, or its content broke off.

    :ivar upstream: ``scheme://host:port`` and the address tried, for people.
    :ivar after: seconds from asking until the failure.
    :cvar proxy_error: the Proxy-Status error type (RFC 9209 §2.3).
    :cvar sent: the request may have reached the origin.
    :cvar outcome: what it says about the address; ``None``: nothing.
    """

    upstream: str
    after: float

    proxy_error = "proxy_internal_error"
    sent = True
    outcome: ClassVar[Outcome | None] = None


@define(eq=False, repr=False)
class ConnectFailed(UpstreamFailed):
    """Refused, unreachable, or reset while connecting."""

    detail: str = ""
    proxy_error = "connection_refused"
    sent = False
    outcome = Outcome.CONNECT_FAILED


@define(eq=False, repr=False)
class ConnectTimedOut(UpstreamFailed):
    """No connection within ``connect_seconds``, or none that the proxy made for us."""

    detail: str = ""
    proxy_error = "connection_timeout"
    sent = False
    outcome = Outcome.CONNECT_TIMED_OUT


@define(eq=False, repr=False)
class ResolveFailed(UpstreamFailed):
    """The host has no address that we know of."""

    detail: str = ""
    proxy_error = "dns_error"
    sent = False


@define(eq=False, repr=False)
class TLSFailed(UpstreamFailed):
    """The TLS handshake failed, or took over ``tls_seconds``."""

    detail: str = ""
    proxy_error = "tls_protocol_error"
    sent = False
    outcome = Outcome.TLS_FAILED


@define(eq=False, repr=False)
class CertificateWrong(TLSFailed):
    """The certificate is expired, of a CA that is not trusted, or not the host's."""

    proxy_error = "tls_certificate_error"
    outcome = Outcome.CERTIFICATE_WRONG


@define(eq=False, repr=False)
class HeadTimedOut(UpstreamFailed):
    """Connected and asked; no response head within ``head_seconds``."""

    proxy_error = "connection_read_timeout"
    outcome = Outcome.NO_HEAD


@define(eq=False, repr=False)
class ContentStalled(UpstreamFailed):
    """The head came; then, while we read, no octet for ``stall_seconds``."""

    proxy_error = "connection_read_timeout"
    outcome = Outcome.STALLED


@define(eq=False, repr=False)
class ContentTooSlow(UpstreamFailed):
    """It comes, but slower than ``slow_octets_per_second``, and another address is healthy."""

    proxy_error = "connection_read_timeout"
    outcome = Outcome.TOO_SLOW


@define(eq=False, repr=False)
class ConnectionLost(UpstreamFailed):
    """
    Closed or reset before the response was complete.

    :ivar reused: the connection came from the pool and not one octet of an answer was seen:
        the origin may just have closed an idle connection.
    :ivar given_up: another worker of this node broke its content off on purpose, for it knew no way on.
    """

    detail: str = ""
    reused: bool = False
    given_up: bool = False
    proxy_error = "connection_terminated"
    outcome = Outcome.LOST


@define(eq=False, repr=False)
class NotTaken(UpstreamFailed):
    """This node failed within a piece of content that came, for want of memory: what it took of that nobody knows."""

    proxy_error = "proxy_internal_error"


@define(eq=False, repr=False)
class BadResponse(UpstreamFailed):
    """What came is not a response that we accept: status, framing, size of its head, octets in it."""

    detail: str = ""
    proxy_error = "http_protocol_error"
    outcome = Outcome.BAD_RESPONSE


@define(eq=False, repr=False)
class WrongRange(BadResponse):
    """Asked for the rest of a content, it sent something else (FIELD 1, rule 4)."""

    outcome = Outcome.WRONG_RANGE


@define(eq=False, repr=False)
class WrongDigest(BadResponse):
    """
    The content is complete, and not what its digest names; or it is announced with a length that cannot be right.

    :ivar resumed: it came from several addresses, so that nobody is to blame.
    """

    resumed: bool = False
    outcome = Outcome.WRONG_DIGEST


@define(eq=False, repr=False)
class UnusablePage(UpstreamFailed):
    """
    What came is no page of an index, or too large. That says nothing about the address: others may send the same.
    """

    detail: str = ""
    proxy_error = "http_protocol_error"


@define(eq=False, repr=False)
class OldPage(UnusablePage):
    """
    The page is older than one that was seen before, by its serial (DESIGN 10).

    :ivar told: its serial; 0 without.
    """

    told: int = 0


@define(eq=False, repr=False)
class UpstreamBusy(UpstreamFailed):
    """Too many heads are awaited from this address already."""

    proxy_error = "connection_limit_reached"
    sent = False


@define(eq=False, repr=False)
class FileFailed(UpstreamFailed):
    """A file that the pages of an index may name cannot be had, though no address that was asked for it has failed."""


@define(eq=False, repr=False)
class LinkRefused(FileFailed):
    """A page names a file at a host that must not be asked (DESIGN 12)."""

    detail: str = ""
    proxy_error = "destination_ip_prohibited"
    sent = False


@define(eq=False, repr=False)
class PageUnobtainable(FileFailed):
    """What the page says of a file cannot be found out now."""

    detail: str = ""
    proxy_error = "destination_unavailable"
    sent = False


@define(eq=False, repr=False)
class FileNotThere(FileFailed):
    """The page names the file, and its host gave no usable answer."""

    detail: str = ""
    proxy_error = "destination_unavailable"


@define(eq=False, repr=False)
class ContentMissing(EdgeError):
    """A chunk of stored content is gone or damaged; whoever streams it must fetch the rest elsewhere."""

    content_id: bytes
    index: int


@define(eq=False, repr=False)
class StoreFull(EdgeError):
    """The store takes nothing new now: map or disk are full. Serving goes on without storing."""

    where: str
    detail: str


@define(eq=False, repr=False)
class ClientGone(EdgeError):
    """The client that sent this content has left before its end."""


@define(eq=False, repr=False)
class ConfigError(EdgeError):
    """
    A setting that cannot be used.

    :ivar where: file, line and key as far as they are known: what to look at.
    """

    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


@define(eq=False, repr=False)
class StartError(EdgeError):
    """The node cannot start here: one line for the operator."""

    problem: str

    def __str__(self) -> str:
        return self.problem


@define(eq=False, repr=False)
class ControlFailed(EdgeError):
    """Control could not be written or read; nothing of what was asked has happened."""

    detail: str

    def __str__(self) -> str:
        return f"control: {self.detail}"
