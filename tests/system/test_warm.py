"""A node that was forked is what one is that was executed, in all that :mod:`tests.system.warm` does not except."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.system import processes
from tests.system.harness import IMPORT_ROOT, Node
from tests.system.processes import until

# What twistd is given instead of a node: it says what it is run in, and ends.
_PROBE = """
import ctypes, fcntl, gc, importlib, json, os, resource, signal, sys, warnings
descriptors = {}
for number in os.listdir("/proc/self/fd"):
    try:
        descriptors[number] = os.readlink("/proc/self/fd/" + number), fcntl.fcntl(int(number), fcntl.F_GETFL)
    except OSError:
        continue  # by which the others were listed
death = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(death))
facts = {
    "argv": sys.argv,
    "path": sys.path,
    "flags": [str(sys.flags), sys.pycache_prefix, os.path.realpath(sys.executable), len(warnings.filters)],
    "streams": [
        (stream.encoding, stream.errors, stream.line_buffering, stream.write_through)
        for stream in (sys.stdin, sys.stdout, sys.stderr)
    ],
    "directory": os.getcwd(),
    "environment": dict(os.environ),
    "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "dies with its parent": death.value,
    "descriptors": descriptors,
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if "RLIMIT_" in name},
    "umask": os.umask(0o022),
    "name": open("/proc/self/comm").read(),
    "threads": len(os.listdir("/proc/self/task")),
    "collector": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count(), gc.get_debug()],
    "reactor": "twisted.internet.reactor" in sys.modules,
}
begins = sorted(sys.modules)
# What twistd has then looked at; and what a node, a worker and a voter import.
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
list(getPlugins(IServiceMaker))
importlib.import_module("edgecache.processes.loop").install_reactor()
for module in ("tap", "fleet", "explaining", "service", "voting", "worker_main"):
    importlib.import_module("edgecache." + module)
print()
print(json.dumps([facts, begins, sorted(sys.modules)]))
sys.exit(7)
"""

_A_SCRIPT = """
import sys
from pathlib import Path
from tests.system.harness import Node
node = Node(Path(sys.argv[1]), "http://127.0.0.1:9", workers=1).start()
print(node.leader, flush=True)
sys.stdin.read()
node.end()
"""


_A_TEST_RUN = f"""
from tests.system import warm
warm.switch_on()
{_A_SCRIPT}"""


class Probe(Node):
    """What is not a node, but started as one."""

    @property
    def words(self) -> list[str]:
        twistd, foreground, *_ = super().words
        return [twistd, foreground, "--no_save", "--python", "probe.py"]

    def says(self) -> tuple[dict[str, Any], set[str], set[str]]:
        """:return: what it is run in, the modules that it began with, and those that a node or a worker would have."""
        self.launch()
        assert self._process is not None
        status = self._process.wait(60)
        if status != 7:
            raise AssertionError(f"exit status {status}\n{self.log}")
        facts, begins, has = json.loads(self.log.splitlines()[-1])
        return facts, set(begins), set(has)


class WarmTests(SynchronousTestCase):
    def setUp(self) -> None:
        if os.environ.get("EDGECACHE_COLD"):
            self.skipTest("EDGECACHE_COLD has every node executed")
        directory = tempfile.TemporaryDirectory(prefix="edgecache-warm-")
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)

    def node(self, *arguments: str, cold: bool = False) -> Node:
        """One that is not started."""
        node = Node(self.root, "http://127.0.0.1:9", workers=1, size="64MiB", arguments=arguments, cold=cold)
        self.addCleanup(node.end)
        return node

    def test_it_begins_as_the_command_does_and_has_imported_only_what_that_would(self) -> None:
        (self.root / "probe.py").write_text(_PROBE)
        cold, cold_begins, cold_has = Probe(self.root, cold=True).says()
        warm, warm_begins, _ = Probe(self.root).says()
        for what in cold:
            self.assertEqual(cold[what], warm[what], what)
        self.assertFalse(cold["reactor"])
        self.assertEqual(signal.SIGKILL, cold["dies with its parent"])
        self.assertEqual(set(), cold_begins - warm_begins, "or each would import it again")
        self.assertEqual(set(), warm_begins - cold_has)
        self.assertGreater(len(warm_begins), len(cold_begins) + 300)

    def test_it_ends_as_the_command_does_whatever_ends_it(self) -> None:
        ends: dict[tuple[bool, object], object] = {}
        for cold in (True, False):
            node = self.node(cold=cold)
            for number in (signal.SIGTERM, signal.SIGKILL):
                node.start()
                assert node._process is not None
                self.assertIsNone(node._process.poll())
                self.assertEqual(node.leader, node.twistd_pid())
                self.assertEqual(["edge-worker"], [processes.name(pid) for pid in node.worker_pids()])
                os.kill(node.leader, signal.SIGSTOP)
                self.assertRaises(subprocess.TimeoutExpired, node._process.wait, 0.01)
                os.kill(node.leader, signal.SIGCONT)
                os.kill(node.leader, number)
                ends[cold, number] = node._process.wait(60), node._process.poll(), node._process.returncode
                until(lambda pid=node.leader: not processes.family(pid), "the end of its processes")
            refused = self.node("--size", "much", cold=cold)
            refused.launch()
            until(refused.has_failed, "its end")
            ends[cold, "refused"] = refused.log.splitlines()[-1]
            self.assertIn("--size", refused.log.splitlines()[-1])
        for how in (signal.SIGTERM, signal.SIGKILL, "refused"):
            self.assertEqual(ends[True, how], ends[False, how])
        self.assertEqual((-signal.SIGKILL,) * 3, ends[False, signal.SIGKILL])

    def test_whoever_is_not_a_test_has_nodes_executed_without_asking_for_it(self) -> None:
        """What measures nodes, as benchmarks do, would measure a start without imports, and pages that are shared."""
        script = subprocess.Popen(
            [sys.executable, "-c", _A_SCRIPT, str(self.root)],
            cwd=IMPORT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(script.communicate)
        assert script.stdout is not None
        leader = int(script.stdout.readline())
        self.assertIn("twistd -n edgecache", processes.command_line(leader))
        stat = processes._stat(leader)
        assert stat is not None
        self.assertEqual(script.pid, int(stat[1]))

    def test_it_ends_with_the_tests_when_these_are_killed(self) -> None:
        tests = subprocess.Popen(
            [sys.executable, "-c", _A_TEST_RUN, str(self.root)],
            cwd=IMPORT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(tests.communicate)
        self.addCleanup(tests.kill)
        assert tests.stdout is not None
        leader = int(tests.stdout.readline())
        self.assertEqual(3, len(processes.family(leader)))
        warm = processes._stat(leader)
        assert warm is not None
        tests.kill()
        until(lambda: not processes.family(leader), "the end of its processes")
        until(lambda: not processes.command_line(int(warm[1])), "the end of what they were forked from")
