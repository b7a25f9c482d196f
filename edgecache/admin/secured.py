"""TLS of the operator's commands, towards nodes and what stands before them; and why asking one came to nothing."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import ssl
from twisted.python.failure import Failure
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from edgecache.siblings.tls import said

# Of TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325 §4.2); nothing older is spoken.
_CIPHERS = ssl.AcceptableCiphers.fromOpenSSLCipherString("ECDHE+AESGCM:ECDHE+CHACHA20")  # type: ignore[no-untyped-call]  # Twisted has no types here


@implementer(IPolicyForHTTPS)
class Secured(BrowserLikePolicyForHTTPS):
    """Certificates and names are checked as browsers do, against ``trustRoot`` or the system's CAs."""

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        """See :class:`twisted.web.iweb.IPolicyForHTTPS`."""
        options: Any = ssl.optionsForClientTLS(
            hostname.decode("ascii"), self._trustRoot, extraCertificateOptions={"acceptableCiphers": _CIPHERS}
        )
        return options


def innermost(error: BaseException) -> BaseException:
    """:return: the cause that says most."""
    reasons = getattr(error, "reasons", None)
    found = reasons[0].value if reasons and isinstance(reasons[0], Failure) else None
    return found or error


def reason(error: BaseException) -> str:
    """:return: why, in a few words."""
    error = innermost(error)
    if isinstance(error, VerificationError):
        return "TLS failed: its certificate is for another host"
    if isinstance(error, SSL.Error):
        words = said(error)
        if "certificate verify failed" in words:
            words = "its certificate has expired, or is of no CA that is trusted here"
        return f"TLS failed: {words}"
    return str(error) or type(error).__name__
