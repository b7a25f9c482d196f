"""Metrics of what has a state rather than a count: the lease, siblings, certificates, reloads, verify."""

from __future__ import annotations

from collections.abc import Iterator
from math import isinf

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from edgecache.admin.parts import AdminParts
from edgecache.store.scrubbing import Pass


def fleet_metrics(parts: AdminParts) -> Iterator[Metric]:
    """The lease, and each sibling."""
    left = parts.lease()
    yield gauge("lease_fenced", "Must the node ask upstream before it serves what can be purged?", left < 0)
    if not isinf(left):
        yield gauge("lease_left_seconds", "Until it must; below 0 it has to", left)
    heard = family(True, "sibling_last_heard_timestamp_seconds", "When the sibling last spoke", "sibling")
    up = family(True, "sibling_up", "Is the sibling heard of, and listened to?", "sibling")
    lacking = family(True, "sibling_lacking_purges", "Purges that are here and, as far as known, not there", "sibling")
    of_seconds = 0.0 if parts.config.siblings is None else parts.config.siblings.lease_seconds
    now = parts.wall()
    for sibling in parts.siblings():
        spoke = sibling.heard_at is not None and now - sibling.heard_at <= of_seconds
        up.add_metric([sibling.id], spoke and not sibling.problem and not sibling.joining)
        lacking.add_metric([sibling.id], sibling.lacking)
        if sibling.heard_at is not None:
            heard.add_metric([sibling.id], sibling.heard_at)
    yield from (up, lacking, heard)


def operator_metrics(parts: AdminParts) -> Iterator[Metric]:
    """What an operator does, or has to do."""
    expiry = family(True, "certificate_expiry_timestamp_seconds", "When a certificate is worth nothing any more", "use")
    for one in parts.certificates.document(parts.config, parts.wall()):
        if one["expires_at"] is not None:
            expiry.add_metric([one["use"]], one["expires_at"])
    yield expiry
    reloaded = parts.reloaded()
    if reloaded is not None:
        yield gauge("config_last_reload_successful", "Were the settings taken over?", not reloaded.detail)
        yield gauge("config_last_reload_timestamp_seconds", "When they were last read again", reloaded.at)
        yield gauge("config_restart_needed", "Settings that wait for a restart", len(reloaded.waiting))
    scrubbing = parts.scrubbing
    if scrubbing is not None:
        yield gauge("verify_running", "Is the store being looked through?", scrubbing.state is Pass.RUNNING)
        yield gauge("verify_damaged_objects", "Damaged responses that the last look found", scrubbing.verified.damaged)
        yield gauge("verify_read_bytes", "Octets of content that the last look has read", scrubbing.verified.octets)
        if scrubbing.ended_at is not None:
            yield gauge("verify_last_end_timestamp_seconds", "When the last look ended", scrubbing.ended_at)


def family(is_gauge: bool, name: str, text: str, *labels: str) -> CounterMetricFamily | GaugeMetricFamily:
    """:param name: without the prefix, and without ``_total``."""
    kind = GaugeMetricFamily if is_gauge else CounterMetricFamily
    return kind(f"edgecache_{name}", text, labels=labels)


def gauge(name: str, text: str, value: float) -> Metric:
    """:return: one value that goes up and down."""
    return GaugeMetricFamily(f"edgecache_{name}", text, value)


def counter_of(name: str, text: str, value: float) -> Metric:
    """:return: one value that only grows."""
    return CounterMetricFamily(f"edgecache_{name}", text, value)
