"""
Whether the machine let a test's processes run (see docs/TESTING.md, "A machine that stands still").

A node gives a sibling 0.3 s, a lease lasts seconds: deadlines that a test of real processes cannot all do without. A
machine that takes its CPUs away for that long (another one on the same host, a disk that everybody waits for) is a
fault that the test did not order, and what fails then says nothing of the node.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

import pytest
from _pytest.runner import runtestprotocol

STILL_SECONDS = 0.1
"""Somebody who wanted to run, and waited for so long: the machine stood still."""
STOLEN = 0.1
"""Of the CPUs' time so much went to other machines on the same host: this one stood still again and again."""
TRIES = 3
"""How often a test is run that fails each time while the machine stands still."""

_TICK_SECONDS = 0.02


class Pace(Protocol):
    """Whether the machine runs."""

    def begin(self) -> None:
        """What was until now does not count."""

    def stood_still(self) -> str:
        """:return: in what way it did since then; ``""`` if it did not."""


class Watch:
    """A thread that wants to run 50 times a second and sees how late it is; and what the kernel knows of its host."""

    def __init__(self) -> None:
        self._longest = 0.0
        self._began = _ticks()
        threading.Thread(target=self._look, name="pace", daemon=True).start()

    def begin(self) -> None:
        self._longest, self._began = 0.0, _ticks()

    def stood_still(self) -> str:
        if self._longest >= STILL_SECONDS:
            return f"somebody waited {self._longest:.2f} s for a turn"
        every, stolen = (now - then for now, then in zip(_ticks(), self._began, strict=True))
        return f"{stolen / every:.0%} of its CPUs' time went to others" if stolen > STOLEN * every else ""

    def _look(self) -> None:
        while True:
            began = time.monotonic()
            # This is what is measured: nothing waits for it.
            time.sleep(_TICK_SECONDS)
            self._longest = max(self._longest, time.monotonic() - began - _TICK_SECONDS)


def _ticks() -> tuple[int, int]:
    """:return: of all CPUs' time in all, and of what the host gave to others (proc_stat(5))."""
    with open("/proc/stat") as file:
        times = [int(word) for word in file.readline().split()[1:9]]
    return sum(times), times[7]


def run(item: pytest.Item, nextitem: pytest.Item | None, pace: Pace) -> None:
    """
    Run a test and report it; from its very beginning once more if it fails while the machine stood still.

    Each failure that does not count is a warning of the run, with all that was said of it.
    """
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for left in reversed(range(TRIES)):
        pace.begin()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        failed = next((report for report in reports if report.failed), None)
        still = "" if failed is None or not left else pace.stood_still()
        if failed is None or not still:
            break
        item.warn(pytest.PytestWarning(f"run again, for the machine stood still: {still}\n{failed.longrepr}"))
        # What its class has set up may be what failed.
        item.session._setupstate.teardown_exact(None)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
