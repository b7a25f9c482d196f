"""
What a worker's counters are called for Prometheus.

By its own practice: a unit at the end where there is one, ``_total`` at the end of what only grows, and what is
counted in between. docs/METRICS.md has all of them.
"""

from __future__ import annotations

from edgecache.words.counters import Counter

GAUGES = frozenset((Counter.CONNECTIONS_OPEN, Counter.FILLS_RUNNING))

# Name without the prefix and without "_total", and help. One that is missing goes by its enum name.
OF_WORKERS: dict[Counter, tuple[str, str]] = {
    Counter.REQUESTS: ("requests", "Requests from clients"),
    Counter.HITS: ("hits", "Requests answered from the store without asking anybody"),
    Counter.STALE_HITS: ("stale_hits", "Requests answered stale on purpose"),
    Counter.NOT_MODIFIED: ("not_modified_responses", "304 answers made here"),
    Counter.FORWARDED: ("forwarded_requests", "Requests for which an upstream was asked"),
    Counter.COLLAPSED: ("collapsed_requests", "Requests that waited for another one's fill"),
    Counter.REFUSED: ("refused_requests", "Requests answered 4xx or 5xx without asking upstream"),
    Counter.BYTES_SENT: ("sent_bytes", "Octets sent to clients"),
    Counter.BYTES_FETCHED: ("fetched_bytes", "Octets of content fetched from upstreams"),
    Counter.CONNECTIONS: ("connections", "Connections accepted"),
    Counter.CONNECTIONS_OPEN: ("open_connections", "Connections open now"),
    Counter.FILLS: ("fills", "Fills begun"),
    Counter.FILLS_RUNNING: ("fills_running", "Fills in progress"),
    Counter.STORED: ("stored_responses", "Responses stored"),
    Counter.FRESHENED: ("freshened_responses", "Stored responses validated with 304"),
    Counter.STORE_FAILURES: ("store_failures", "Responses served but not stored, for want of room or for damage"),
    Counter.UPSTREAM_REQUESTS: ("upstream_requests", "Requests sent to upstreams"),
    Counter.UPSTREAM_FAILURES: ("upstream_failures", "Exchanges with upstreams that failed"),
    Counter.CUT: ("cut_responses", "Responses broken off so that the client can tell"),
    Counter.SLOW_CLIENTS: ("slow_clients", "Clients cut at a deadline"),
    Counter.BAD_REQUESTS: ("bad_requests", "Requests that could not be understood"),
    Counter.DAMAGED: ("damaged_objects", "Stored records or chunks with a wrong checksum"),
    Counter.OWNER_HOPS: ("owner_hops", "Requests handed to the worker that owns the key"),
    Counter.HEDGES: ("hedges", "Heads asked for elsewhere as well, because they took long"),
    Counter.MOVES: ("moves", "Requests that went on to another address before anything was sent"),
    Counter.RESUMES: ("resumes", "Contents whose rest was asked for, after they broke off"),
    Counter.RESUMED: ("resumed_contents", "Contents that were complete after that"),
    Counter.SIBLING_ASKS: ("sibling_asks", "Look-ups of content sent to siblings"),
    Counter.SIBLING_ANSWERS: ("sibling_answers", "Look-ups that a sibling had an answer to"),
    Counter.SIBLING_LOOK_UPS: ("sibling_look_ups", "Look-ups that siblings sent here"),
    Counter.SIBLING_HITS: ("sibling_hits", "Siblings' look-ups answered from the store"),
    Counter.DOWNLOADS_LOST: ("downloads_lost", "Events of downloads that could not be written"),
    Counter.WRONG_CONTENTS: ("wrong_contents", "Contents that were not what their digest names"),
    Counter.TLS_FAILED: ("failed_tls_handshakes", "Clients whose TLS handshake failed, or took too long"),
    Counter.HOT_ANSWERS: ("hot_answers", "Contents sent from the memory of what is asked for most"),
    Counter.PARTS_STORED: ("stored_parts", "Beginnings and endings of contents stored, for want of the whole"),
    Counter.PART_HITS: ("part_hits", "Ranges answered from a stored part, without asking anybody"),
    Counter.COMPLETED: ("completed_contents", "Contents of which a stored beginning was gone on with"),
    Counter.DENIED: ("denied_requests", "Requests refused for want of a client's credentials"),
    Counter.UNCACHED: ("uncached_requests", "Requests that a token let past the store"),
    Counter.UPLOADS: ("uploads", "Uploads that the origin took"),
    Counter.DERIVED: ("derived_pages", "Forms of an index page that were derived from it"),
    Counter.BAD_PAGES: ("bad_pages", "Pages of an index from upstreams that were none"),
    Counter.OLD_PAGES: ("old_pages", "Pages of an index from upstreams with a lower serial than was known"),
    Counter.LATE_PAGES: ("late_pages", "Pages of an index that came later than their clients wait"),
}
