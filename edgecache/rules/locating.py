"""Where an origin says that something is, as clients know it (RFC 9110 §10.2.2, §8.7)."""

from __future__ import annotations

import re

from edgecache.rules.sites import Site, without_default_port
from edgecache.words.messages import Head

_REFERENCES = frozenset((b"location", b"content-location"))
_ABSOLUTE = re.compile(rb"(?:(https?):)?//([^/?#]*)([^?#]*)(.*)", re.IGNORECASE | re.DOTALL)


def relocated(site: Site, head: Head) -> Head:
    """
    :param head: of a response of one of the site's origins.
    :return: the same with Location and Content-Location below the site's path where they are below an origin's
        prefix: there our clients find it. A plain site that is its origin's root, path for path, is left alone.
    """
    if _REFERENCES.isdisjoint(head.by_name):
        return head
    fields = [(name, _known(site, value) if name in _REFERENCES else value) for name, value in head.fields]
    return Head(head.status, head.reason, fields)


def _known(site: Site, reference: bytes) -> bytes:
    if reference.startswith(b"/") and not reference.startswith(b"//"):
        below = _below(site, None, reference)
        return reference if below is None else site.path + below
    matched = _ABSOLUTE.fullmatch(reference)
    if matched is None:
        return reference
    authority = without_default_port((matched[1] or b"https").lower(), matched[2].lower())
    below = _below(site, authority, (matched[3] or b"/") + matched[4])
    alike = not site.index and not site.path and not any(prefix for _, prefix in site.origins)
    return reference if below is None or alike else site.path + below


def _below(site: Site, authority: bytes | None, path: bytes) -> bytes | None:
    """:return: what is below the longest prefix of an origin (of this authority) that fits."""
    for origin, prefix in sorted(site.origins, key=lambda one: len(one[1]), reverse=True):
        if authority is None or authority == origin:
            below = site.known(prefix, path)
            if below is not None:
                return below
    return None
