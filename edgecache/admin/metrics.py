"""``/metrics``: the page's counters and the node's state, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from edgecache.admin.documents import versions
from edgecache.admin.parts import AdminParts
from edgecache.words.counters import Counter

_GAUGES = frozenset((Counter.CONNECTIONS_OPEN, Counter.FILLS_RUNNING))

# Name without the prefix and without "_total", and help. One that is missing goes by its enum name.
_WORKER: dict[Counter, tuple[str, str]] = {
    Counter.REQUESTS: ("requests", "Requests from clients"),
    Counter.HITS: ("hits", "Requests answered from the store without asking anybody"),
    Counter.STALE_HITS: ("stale_hits", "Requests answered stale on purpose"),
    Counter.NOT_MODIFIED: ("not_modified", "304 answers made here"),
    Counter.FORWARDED: ("forwarded", "Requests for which an upstream was asked"),
    Counter.COLLAPSED: ("collapsed", "Requests that waited for another one's fill"),
    Counter.REFUSED: ("refused", "Requests answered 4xx or 5xx without asking upstream"),
    Counter.BYTES_SENT: ("sent_bytes", "Octets sent to clients"),
    Counter.BYTES_FETCHED: ("fetched_bytes", "Octets of content fetched from upstreams"),
    Counter.CONNECTIONS: ("connections", "Connections accepted"),
    Counter.CONNECTIONS_OPEN: ("connections_open", "Connections open now"),
    Counter.FILLS: ("fills", "Fills begun"),
    Counter.FILLS_RUNNING: ("fills_running", "Fills in progress"),
    Counter.STORED: ("stored", "Responses stored"),
    Counter.FRESHENED: ("freshened", "Stored responses validated with 304"),
    Counter.STORE_FAILURES: ("store_failures", "Responses served but not stored, for want of room or for damage"),
    Counter.UPSTREAM_REQUESTS: ("upstream_requests", "Requests sent to upstreams"),
    Counter.UPSTREAM_FAILURES: ("upstream_failures", "Exchanges with upstreams that failed"),
    Counter.CUT: ("cut_responses", "Responses broken off so that the client can tell"),
    Counter.SLOW_CLIENTS: ("slow_clients", "Clients cut at a deadline"),
    Counter.BAD_REQUESTS: ("bad_requests", "Requests that could not be understood"),
    Counter.DAMAGED: ("damaged", "Stored records or chunks with a wrong checksum"),
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
    Counter.DENIED: ("denied", "Requests refused for want of a client's credentials"),
    Counter.UNCACHED: ("uncached", "Requests that a token let past the store"),
    Counter.UPLOADS: ("uploads", "Uploads that the origin took"),
    Counter.DERIVED: ("derived_pages", "Forms of an index page that were derived from it"),
    Counter.BAD_PAGES: ("bad_pages", "Pages of an index from upstreams that were none"),
    Counter.OLD_PAGES: ("old_pages", "Pages of an index from upstreams with a lower serial than was known"),
    Counter.LATE_PAGES: ("late_pages", "Pages of an index that came later than their clients wait"),
}


@define(eq=False, slots=False)
class NodeMetrics(Collector):
    """Everything is read when it is asked for; nothing is kept twice."""

    _parts: AdminParts

    def collect(self) -> Iterator[Metric]:
        """:raises ControlFailed: control cannot be read."""
        yield from self._node()
        yield from self._workers()
        yield from self._store()
        yield from self._purges()
        yield from self._upstreams()
        yield from self._followers()
        if self._parts.downloads is not None:
            folded = self._parts.downloads.folded
            yield _counter("downloads", "Downloads counted since the start", folded.downloads)
            yield _counter("download_log_lines_lost", "Lines that the log of downloads lacks", folded.log_lines_lost)
            yield _counter("download_failures", "Attempts to count that failed; their events wait", folded.failures)

    def _node(self) -> Iterator[Metric]:
        parts = self._parts
        node = parts.config.node
        yield InfoMetricFamily(
            "edgecache",
            "This node and its releases",
            {"node": node.id, "region": node.region, **versions()},
        )
        yield _gauge("start_time_seconds", "When the node started, seconds since the epoch", parts.started_at)
        yield _gauge("ready", "Is the node ready for traffic?", parts.unready() is None)
        yield _gauge("draining", "Is the node going down?", parts.page.draining)

    def _followers(self) -> Iterator[Metric]:
        up = _family(True, "follower_up", "Is the project list of the site's origin followed as promised?", "site")
        polls = _family(False, "follower_polls", "Polls of the project list", "site", "outcome")
        changes = _family(False, "follower_changes", "Projects invalidated because of the list", "site", "kind")
        for one in self._parts.followers():
            up.add_metric([one.site], one.followed_for > 0.0)
            counts = one.counts
            polls.add_metric([one.site, "unchanged"], counts.unchanged)
            polls.add_metric([one.site, "failed"], counts.failures)
            polls.add_metric([one.site, "changed"], max(0, counts.polls - counts.unchanged - counts.failures))
            changes.add_metric([one.site, "changed"], counts.changed)
            changes.add_metric([one.site, "vanished"], counts.vanished)
        yield from (up, polls, changes)

    def _workers(self) -> Iterator[Metric]:
        workers = self._parts.workers()
        counts = [(str(worker.index), self._parts.page.counters(worker.index)) for worker in workers]
        for counter in Counter:
            name, text = _WORKER.get(counter, (counter.name.lower(), counter.name.lower().replace("_", " ")))
            family = _family(counter in _GAUGES, name, text, "worker")
            for worker, values in counts:
                family.add_metric([worker], values[counter])
            yield family
        up = _family(True, "worker_up", "Does the worker accept connections?", "worker")
        restarts = _family(False, "worker_restarts", "Processes of the worker that died", "worker")
        for state in workers:
            up.add_metric([str(state.index)], state.running)
            restarts.add_metric([str(state.index)], state.restarts)
        yield up
        yield restarts

    def _store(self) -> Iterator[Metric]:
        collector = self._parts.collector
        if collector is None:
            return
        fills = collector.fills()
        used = _family(True, "store_used_bytes", "Octets of pages that hold something", "environment")
        size = _family(True, "store_size_bytes", "Octets of the map", "environment")
        full = _family(True, "store_full", "Is nothing new stored for want of room?", "environment")
        entries = _family(True, "store_entries", "Rows of a database", "environment", "database")
        for fill in fills:
            used.add_metric([fill.name], fill.used)
            size.add_metric([fill.name], fill.size)
            full.add_metric([fill.name], fill.full)
            for database, count in fill.entries.items():
                entries.add_metric([fill.name, database], count)
        yield from (used, size, full, entries)
        collected = collector.collected
        yield _counter("evicted_records", "Records evicted to make room", collected.evicted_records)
        yield _counter("moved_records", "Records moved on in the order of eviction", collected.moved_records)
        yield _counter("evicted_bytes", "Octets of content of evicted records", collected.evicted_octets)
        yield _counter("freed_contents", "Contents freed that nobody had any more", collected.freed_contents)
        yield _counter("freed_bytes", "Octets in blobs freed", collected.freed_octets)
        yield _counter("collector_failures", "Attempts to make room that failed", collected.failures)

    def _purges(self) -> Iterator[Metric]:
        parts = self._parts
        accepted = _family(False, "purges", "Purges accepted by this node", "mode")
        for mode, count in parts.purger.accepted.items():
            accepted.add_metric([mode.name.lower()], count)
        yield accepted
        groups = _family(
            False, "group_invalidations", "Answers with groups to share, by what became of them", "outcome"
        )
        for outcome, count in parts.groups().items():
            groups.add_metric([outcome], count)
        yield groups
        yield _gauge("feed_listeners", "Readers of the change feed, waiting or streaming", parts.feed.listeners)
        given = _family(False, "feed_events", "Events given to readers of the change feed", "type")
        given.add_metric(["change"], parts.feed.given)
        given.add_metric(["reset"], parts.feed.resets)
        yield given
        purges = parts.control.read.purges()
        yield _gauge("purge_epoch", "Count of selectors ever invalidated on this node", purges.epoch)
        yield _gauge("purge_trimmed_epoch", "Epochs up to this one are forgotten", purges.trimmed)
        position = _family(True, "purge_log_position", "Entries of a node's purge log that are here", "node")
        for head in parts.control.read.heads():
            position.add_metric([head.log.id], head.sequence)
        yield position

    def _upstreams(self) -> Iterator[Metric]:
        up = _family(True, "upstream_up", "Is the address asked before all others are?", "origin", "address")
        ejected = _family(True, "upstream_ejections_in_a_row", "Ejections in a row", "origin", "address")
        for upstream in self._parts.upstreams():
            up.add_metric([upstream.origin, upstream.address], upstream.healthy)
            ejected.add_metric([upstream.origin, upstream.address], upstream.ejections)
        yield from (up, ejected)
        counts = self._parts.upstream_counts()
        for name, text, found in (
            ("upstream_outcomes", "Exchanges with upstreams by how they ended, probes included", counts.outcomes),
            ("upstream_ejections", "Ejections of addresses by the kind of failure", counts.ejections),
        ):
            family = _family(False, name, text, "origin", "outcome")
            for labels, count in found.items():
                family.add_metric(labels, count)
            yield family


def exposition(parts: AdminParts, accept: str) -> tuple[bytes, str]:
    """
    :param accept: the request's Accept field.
    :return: the metrics and their content type.
    :raises ControlFailed: control cannot be read.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeMetrics(parts))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _family(gauge: bool, name: str, text: str, *labels: str) -> CounterMetricFamily | GaugeMetricFamily:
    kind = GaugeMetricFamily if gauge else CounterMetricFamily
    return kind(f"edgecache_{name}", text, labels=labels)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"edgecache_{name}", text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"edgecache_{name}", text, value)
