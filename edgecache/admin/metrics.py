"""``/metrics``: the page's counters and the node's state, for Prometheus."""

from __future__ import annotations

import os
from collections import Counter as Counts
from collections.abc import Iterator
from itertools import accumulate

from attrs import define
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from edgecache.admin.documents import configuration_hash, versions
from edgecache.admin.metricnames import GAUGES, OF_WORKERS
from edgecache.admin.parts import AdminParts, WorkerState
from edgecache.admin.statemetrics import counter_of, family, fleet_metrics, gauge, operator_metrics
from edgecache.upstream.addresses import origins_of, sibling_origin
from edgecache.words.config import Config
from edgecache.words.counters import Counter
from edgecache.words.latency import HITS, MISSES, Histogram

LINKED = "linked"
"""The label of all hosts that only pages of an index name."""

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@define(eq=False, repr=False, slots=False)
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
        yield from fleet_metrics(self._parts)
        yield from operator_metrics(self._parts)
        if self._parts.downloads is not None:
            folded = self._parts.downloads.folded
            yield counter_of("downloads", "Downloads counted since the start", folded.downloads)
            yield counter_of("download_log_lines_lost", "Lines that the log of downloads lacks", folded.log_lines_lost)
            yield counter_of("download_failures", "Attempts to count that failed; their events wait", folded.failures)

    def _node(self) -> Iterator[Metric]:
        parts = self._parts
        node = parts.config.node
        yield InfoMetricFamily("edgecache_build", "Releases of the node and of what it stands on", versions())
        told = {"node": node.id, "region": node.region, "configuration": configuration_hash(parts.config)}
        yield InfoMetricFamily("edgecache_node", "Who this is, and a hash of its settings", told)
        yield gauge("start_time_seconds", "When the node started, seconds since the epoch", parts.started_at)
        yield gauge("ready", "Is the node ready for traffic?", parts.unready() is None)
        yield gauge("draining", "Is the node going down?", parts.page.draining)

    def _followers(self) -> Iterator[Metric]:
        up = family(True, "follower_up", "Is the project list of the site's origin followed as promised?", "site")
        polls = family(False, "follower_polls", "Polls of the project list", "site", "outcome")
        changes = family(False, "follower_changes", "Projects invalidated because of the list", "site", "kind")
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
            name, text = OF_WORKERS.get(counter, (counter.name.lower(), counter.name.lower().replace("_", " ")))
            each = family(counter in GAUGES, name, text, "worker")
            for worker, values in counts:
                each.add_metric([worker], values[counter])
            yield each
        yield _histogram("hit_seconds", "Time to the heads of hits, of a sample: at most 20 a second", HITS, counts)
        yield _histogram("miss_seconds", "Time to the heads of answers that had to be waited for", MISSES, counts)
        up = family(True, "worker_up", "Does the worker accept connections?", "worker")
        restarts = family(False, "worker_restarts", "Processes of the worker that died", "worker")
        for state in workers:
            up.add_metric([str(state.index)], state.running)
            restarts.add_metric([str(state.index)], state.restarts)
        yield up
        yield restarts
        yield from _processes(workers)

    def _store(self) -> Iterator[Metric]:
        collector = self._parts.collector
        if collector is None:
            return
        fills = collector.fills()
        used = family(True, "store_used_bytes", "Octets of pages that hold something", "environment")
        size = family(True, "store_size_bytes", "Octets of the map", "environment")
        full = family(True, "store_full", "Is nothing new stored for want of room?", "environment")
        entries = family(True, "store_entries", "Rows of a database", "environment", "database")
        for fill in fills:
            used.add_metric([fill.name], fill.used)
            size.add_metric([fill.name], fill.size)
            full.add_metric([fill.name], fill.full)
            for database, count in fill.entries.items():
                entries.add_metric([fill.name, database], count)
        yield from (used, size, full, entries)
        collected = collector.collected
        yield counter_of("evicted_records", "Records evicted to make room", collected.evicted_records)
        yield counter_of("moved_records", "Records moved on in the order of eviction", collected.moved_records)
        yield counter_of("evicted_bytes", "Octets of content of evicted records", collected.evicted_octets)
        yield counter_of("freed_contents", "Contents freed that nobody had any more", collected.freed_contents)
        yield counter_of("freed_bytes", "Octets in blobs freed", collected.freed_octets)
        yield counter_of("collector_failures", "Attempts to make room that failed", collected.failures)

    def _purges(self) -> Iterator[Metric]:
        parts = self._parts
        accepted = family(False, "purges", "Purges accepted by this node", "mode")
        for mode, count in parts.purger.accepted.items():
            accepted.add_metric([mode.name.lower()], count)
        yield accepted
        groups = family(False, "group_invalidations", "Answers with groups to share, by what became of them", "outcome")
        for outcome, count in parts.groups().items():
            groups.add_metric([outcome], count)
        yield groups
        yield gauge("feed_listeners", "Readers of the change feed, waiting or streaming", parts.feed.listeners)
        given = family(False, "feed_events", "Events given to readers of the change feed", "type")
        given.add_metric(["change"], parts.feed.given)
        given.add_metric(["reset"], parts.feed.resets)
        yield given
        purges = parts.control.read.purges()
        yield gauge("purge_epoch", "Count of selectors ever invalidated on this node", purges.epoch)
        yield gauge("purge_trimmed_epoch", "Epochs up to this one are forgotten", purges.trimmed)
        position = family(True, "purge_log_position", "Entries of a node's purge log that are here", "node")
        for head in parts.control.read.heads():
            position.add_metric([head.log.id], head.sequence)
        yield position

    def _upstreams(self) -> Iterator[Metric]:
        # Of an origin the last one is empty, which Prometheus takes for none.
        which = ("origin", "address", "sibling")
        up = family(True, "upstream_up", "Is the address asked before all others are?", *which)
        failing = family(True, "upstream_failing", "Does it fail, and is asked because there is no other?", *which)
        ejected = family(True, "upstream_consecutive_ejections", "Ejections in a row", *which)
        known = _configured(self._parts.config)
        for upstream in self._parts.upstreams():
            if upstream.origin not in known:
                continue
            values = [upstream.origin, upstream.address, upstream.sibling]
            up.add_metric(values, upstream.healthy)
            failing.add_metric(values, upstream.failing)
            ejected.add_metric(values, upstream.ejections)
        yield from (up, failing, ejected)
        counts = self._parts.upstream_counts()
        for name, text, found in (
            ("upstream_outcomes", "Exchanges with upstreams by how they ended, probes included", counts.outcomes),
            ("upstream_ejections", "Ejections of addresses by the kind of failure", counts.ejections),
        ):
            each = family(False, name, text, "origin", "outcome")
            # Pages of an index can name any number of hosts: those count as one.
            folded: Counts[tuple[str, str]] = Counts()
            for (origin, outcome), count in found.items():
                folded[origin if origin in known else LINKED, outcome] += count
            for labels, count in folded.items():
                each.add_metric(labels, count)
            yield each


def exposition(parts: AdminParts, accept: str) -> tuple[bytes, str]:
    """
    :param accept: the request's Accept field.
    :return: the metrics and their content type.
    :raises ControlFailed: control cannot be read.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeMetrics(parts))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _configured(config: Config) -> frozenset[str]:
    """:return: names of origins that the settings name, the siblings included."""
    origins = {origin.name for site in config.sites for origin in origins_of(site)}
    return frozenset(
        origins | {sibling_origin(one.id, one.content_url).name for one in config.others if one.content_url}
    )


def _processes(workers: list[WorkerState]) -> Iterator[Metric]:
    """What the kernel says of workers; those of the node process are ``process_*``."""
    cpu = family(False, "worker_cpu_seconds", "CPU time of the worker's present process", "worker")
    memory = family(True, "worker_resident_memory_bytes", "Memory that the worker uses, shared included", "worker")
    for worker in workers:
        used = None if worker.pid is None else resources(worker.pid)
        if used is not None:
            cpu.add_metric([str(worker.index)], used[0])
            memory.add_metric([str(worker.index)], used[1])
    yield from (cpu, memory)


def resources(pid: int) -> tuple[float, int] | None:
    """:return: CPU seconds and resident octets of a process; ``None`` of one that is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name before these may have anything in it.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE


def _histogram(name: str, text: str, kind: Histogram, counts: list[tuple[str, list[int]]]) -> Metric:
    found = HistogramMetricFamily(f"edgecache_{name}", text, labels=["worker"])
    for worker, slots in counts:
        buckets = accumulate(kind.buckets(slots))
        bounds = [*(str(bound) for bound in kind.bounds), "+Inf"]
        found.add_metric([worker], list(zip(bounds, buckets, strict=True)), kind.seconds(slots))
    return found
