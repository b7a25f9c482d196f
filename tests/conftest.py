"""Every test runs on the reactor that the program runs on: Twisted's asyncio reactor over uvloop."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest
from twisted.trial.unittest import SynchronousTestCase

from edgecache.processes.loop import install_reactor

install_reactor()


def _mktemp(case: SynchronousTestCase) -> str:
    """Trial's own makes it below the working directory and leaves it there."""
    directory = tempfile.mkdtemp(prefix="edgecache-test-")
    case.addCleanup(shutil.rmtree, directory, ignore_errors=True)
    return os.path.join(directory, "temp")


SynchronousTestCase.mktemp = _mktemp  # type: ignore[method-assign]  # for every test case of ours


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where nothing may be skipped (``.ci/run``), a skipped test is a failed run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = [] if reporter is None else reporter.stats.get("skipped", [])
    if skipped and os.environ.get("EDGECACHE_SKIP_NOTHING") and not exitstatus:
        session.exitstatus = 1
