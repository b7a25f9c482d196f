"""
What each worker counts, by position in its block of the mapped page.

One number per line here is one 8-byte slot; only the worker writes it, anyone reads it.
"""

from __future__ import annotations

import enum


class Counter(enum.IntEnum):
    """Counters of one worker; monotonic except where the name says ``OPEN`` or ``RUNNING``."""

    REQUESTS = 0
    HITS = 1
    """Answered from the store without asking anybody."""
    STALE_HITS = 2
    """Answered stale on purpose."""
    NOT_MODIFIED = 3
    """304 answers made here."""
    FORWARDED = 4
    COLLAPSED = 5
    """Waited for another request's fill."""
    REFUSED = 6
    """Answered 4xx or 5xx by us without asking upstream."""
    BYTES_SENT = 7
    BYTES_FETCHED = 8
    CONNECTIONS = 9
    CONNECTIONS_OPEN = 10
    FILLS = 11
    FILLS_RUNNING = 12
    STORED = 13
    FRESHENED = 14
    STORE_FAILURES = 15
    """Served, but not stored: full, or damaged."""
    UPSTREAM_REQUESTS = 16
    UPSTREAM_FAILURES = 17
    CUT = 18
    """Responses that we had to break off so that the client can tell."""
    SLOW_CLIENTS = 19
    """Clients cut at one of our deadlines."""
    BAD_REQUESTS = 20
    DAMAGED = 21
    """Records or chunks whose checksum was wrong."""
    OWNER_HOPS = 22
    HEDGES = 23
    """Heads that were asked for elsewhere as well, because they took long."""
    MOVES = 24
    """Fills that went on to another address before anything was sent."""
    RESUMES = 25
    """Contents whose rest was asked for, after they broke off."""
    RESUMED = 26
    """Contents that were complete after that."""
    SIBLING_ASKS = 27
    """Siblings that were asked for content."""
    SIBLING_ANSWERS = 28
    """Those that had an answer."""
    SIBLING_LOOK_UPS = 29
    """Look-ups by siblings; they are no clients' requests, and counted nowhere else."""
    SIBLING_HITS = 30
    """Those that the store answered."""
    DOWNLOADS_LOST = 31
    """Events of downloads that could not be written."""
    DENIED = 32
    """Refused for want of a client's credentials."""
    UNCACHED = 33
    """Fetched past the store with a token."""
    UPLOADS = 34
    """Uploads that the origin took."""
    DERIVED = 35
    """Forms of an index page that were derived from it."""
    BAD_PAGES = 36
    """Pages of an index that upstreams sent, and that were none."""
    OLD_PAGES = 37
    """Pages whose serial was lower than one that was known already."""
    LATE_PAGES = 38
    """Pages that came, but not within the time that their clients wait."""
    WRONG_CONTENTS = 40
    """Contents that were not what their digest names: neither stored, nor ever complete at a client."""
    TLS_FAILED = 41
    """Clients whose TLS handshake failed, or took too long."""
    HOT_ANSWERS = 42
    """Contents that were sent from the memory of hot ones (:mod:`edgecache.store.hot`)."""
    PARTS_STORED = 43
    """Beginnings and endings of contents that were stored (:mod:`edgecache.rules.parts`)."""
    PART_HITS = 44
    """Ranges that were answered by these."""
    COMPLETED = 45
    """Contents of which a stored beginning was gone on with."""


SLOTS = 96
"""Slots per block: room to grow without moving anything. From 64 on they belong to :mod:`edgecache.words.latency`."""
