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
