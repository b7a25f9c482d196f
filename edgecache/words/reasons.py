"""Reasons as enums: a value is the Cache-Status token, the metric label and the log field at once."""

from __future__ import annotations

import enum


class ForwardReason(enum.Enum):
    """Why the store could not answer: the ``fwd`` tokens of RFC 9211 §2.2."""

    BYPASS = "bypass"
    """The cache was configured, or told, not to handle this request."""
    METHOD = "method"
    """The method's semantics require forwarding."""
    URI_MISS = "uri-miss"
    """Nothing is stored for the target URI."""
    VARY_MISS = "vary-miss"
    """Something is stored, but no variant that Vary selects."""
    REQUEST = "request"
    """A fresh response was stored; the request's own directives forbade its reuse."""
    STALE = "stale"
    """The stored response is stale, was purged, or cannot be vouched for."""
    PARTIAL = "partial"
    """Only a part of the wanted representation is stored."""


class Outcome(enum.Enum):
    """How an exchange with an address ended, as far as that says something about the address (FIELD 1)."""

    GOOD = "good"
    """Its content is complete, or enough of it has come."""
    SLOW_TO_CONNECT = "slow-to-connect"
    """Not connected yet when the next address was tried: not a failure, but the others come first meanwhile."""
    CONNECT_FAILED = "connect-failed"
    CONNECT_TIMED_OUT = "connect-timeout"
    TLS_FAILED = "tls-failed"
    CERTIFICATE_WRONG = "certificate-wrong"
    NO_HEAD = "no-head"
    STALLED = "stalled"
    TOO_SLOW = "too-slow"
    LOST = "lost"
    """Closed or reset too early, or shorter than announced."""
    BAD_RESPONSE = "bad-response"
    WRONG_RANGE = "wrong-range"
    WRONG_DIGEST = "wrong-digest"
    ERROR_STATUS = "error-status"
    """Its own 502, 503 or 504."""

    @property
    def failure(self) -> bool:
        """Does it count against the address?"""
        return self not in (Outcome.GOOD, Outcome.SLOW_TO_CONNECT)

    @property
    def said(self) -> str:
        """What an address does whose exchanges end so, for people."""
        return _SAID[self]

    @property
    def hang(self) -> bool:
        """Does one of these suffice to eject an address?"""
        return self in (Outcome.CONNECT_TIMED_OUT, Outcome.NO_HEAD, Outcome.STALLED, Outcome.TOO_SLOW)


_SAID = {
    Outcome.GOOD: "answers well",
    Outcome.SLOW_TO_CONNECT: "is slow to connect",
    Outcome.CONNECT_FAILED: "refuses connections",
    Outcome.CONNECT_TIMED_OUT: "does not connect",
    Outcome.TLS_FAILED: "TLS fails",
    Outcome.CERTIFICATE_WRONG: "has a wrong certificate",
    Outcome.NO_HEAD: "takes requests and does not answer",
    Outcome.STALLED: "stalls in the middle of contents",
    Outcome.TOO_SLOW: "sends too slowly",
    Outcome.LOST: "breaks connections off",
    Outcome.BAD_RESPONSE: "does not speak HTTP as it should",
    Outcome.WRONG_RANGE: "sends other parts than were asked for",
    Outcome.WRONG_DIGEST: "sends wrong contents",
    Outcome.ERROR_STATUS: "answers 502, 503 or 504",
}


class PurgeMode(enum.IntEnum):
    """
    What a purge does to a response that it selects; a larger one is stricter.

    The numbers are stored in control and never change.
    """

    SOFT = 1
    """Stale: stale-while-revalidate applies."""
    REVALIDATE = 2
    """Ask upstream before serving; may be served stale when no upstream answers."""
    DELETE = 3
    """Gone: not served again, not as stale either, and not used to validate."""
