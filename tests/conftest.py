"""
Every test runs on the reactor that the program runs on: Twisted's asyncio reactor over uvloop.

All tests together are spread over processes: most of the time of those with real nodes is waiting. Tests that are
named on the command line run in one process, unless ``-n`` says how many.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from twisted.trial.unittest import SynchronousTestCase
from xdist.scheduler import LoadScopeScheduling

from edgecache.processes.loop import install_reactor
from tests import pace
from tests.system import warm

install_reactor()
warm.switch_on()

_watch = pace.Watch()
_PURE = ("tests/rules/", "tests/words/", "tests/index/")
"""Where tests have neither files nor sockets nor processes: nothing there needs a turn."""

# How long an example takes is the machine's affair.
settings.register_profile("edgecache", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("edgecache")


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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """What fails while the machine stands still is run again."""
    if item.nodeid.startswith(_PURE):
        return None
    pace.run(item, nextitem, _watch)
    return True


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are CPUs: a test that waits leaves its CPU to others."""
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return len(os.sched_getaffinity(0)) + 1 if everything else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that wait most begin, so that no process is left alone with them at the end."""
    items.sort(key=lambda item: (not item.nodeid.startswith("tests/system/"), "test_simulation" not in item.nodeid))


class Sharing(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types here
    """What shares a ``setUpClass`` runs in one process, and so does what shares a ``tearDownModule``."""

    def _split_scope(self, nodeid: str) -> str:
        module, _, name = nodeid.partition("::")
        if "def tearDownModule(" in Path(self.config.rootpath, module).read_text():
            return module
        return f"{module}::{name.partition('::')[0]}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Sharing:
    config.option.loadscopereorder = False
    return Sharing(config, log)
