"""A test of real processes is run again when it fails while the machine stands still, and only then."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from attrs import define, field

from tests import pace
from tests.system.processes import until

CASE = """
import unittest
from pathlib import Path

SEEN = Path(__file__).with_name("seen")

class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.line("up")
        cls.addClassCleanup(cls.line, "down")

    @classmethod
    def line(cls, text):
        with SEEN.open("a") as file:
            print(text, file=file)

    def test_one(self):
        self.line("one")
        self.assertGreater(SEEN.read_text().count("one"), {failures})

    def test_two(self):
        self.line("two")
"""


@define
class Told:
    """:ivar still: in what way the machine stands still in each run of a test."""

    still: list[str]
    runs: int = field(init=False, default=0)

    def begin(self) -> None:
        self.runs += 1

    def stood_still(self) -> str:
        return self.still[self.runs - 1]


@define
class Runner:
    """Runs tests as ``tests/conftest.py`` does, and keeps what is said of them."""

    told: Told
    outcomes: list[tuple[str, str]] = field(factory=list)
    warned: list[str] = field(factory=list)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        pace.run(item, nextitem, self.told)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed:
            self.outcomes.append((report.nodeid.rpartition("::")[2], report.outcome))

    def pytest_warning_recorded(self, warning_message: object) -> None:
        self.warned.append(str(warning_message))


def told(directory: Path, failures: int, *still: str) -> tuple[Runner, list[str]]:
    """Run the case, whose first test fails so often. :return: what was reported, and what has happened."""
    # By its name it would be found again.
    (directory / f"test_{directory.name}.py").write_text(CASE.format(failures=failures))
    runner = Runner(Told(list(still)))
    options = ["-p", "no:xdist", "-p", "no:cacheprovider", "-p", "no:terminal", "-c", "/dev/null", "--noconftest"]
    _ = pytest.main([*options, "--rootdir", str(directory), str(directory)], plugins=[runner])
    return runner, (directory / "seen").read_text().split()


def test_what_fails_while_the_machine_stands_still_is_run_again_with_all_that_its_class_sets_up(tmp_path: Path) -> None:
    runner, seen = told(tmp_path, 1, "a while", "", "")
    assert runner.outcomes == [("test_one", "passed"), ("test_two", "passed")]
    assert seen == ["up", "one", "down", "up", "one", "two", "down"]
    (warning,) = runner.warned
    assert "stood still: a while" in warning
    assert "AssertionError: 1 not greater than 1" in warning


def test_what_fails_while_it_does_not_has_failed(tmp_path: Path) -> None:
    runner, seen = told(tmp_path, 1, "", "")
    assert runner.outcomes == [("test_one", "failed"), ("test_two", "passed")]
    assert seen == ["up", "one", "two", "down"]
    assert not runner.warned


def test_what_fails_each_time_has_failed(tmp_path: Path) -> None:
    runner, seen = told(tmp_path, 9, "a", "b", "c", "")
    assert runner.outcomes == [("test_one", "failed"), ("test_two", "passed")]
    assert seen.count("one") == pace.TRIES
    assert len(runner.warned) == pace.TRIES - 1


def test_what_passes_is_not_run_again(tmp_path: Path) -> None:
    runner, seen = told(tmp_path, 0, "a", "b")
    assert runner.outcomes == [("test_one", "passed"), ("test_two", "passed")]
    assert seen == ["up", "one", "two", "down"]


def test_a_process_that_was_stopped_has_stood_still() -> None:
    watch = pace.Watch()
    with subprocess.Popen(["sh", "-c", "sleep 0.5; kill -CONT $PPID"]):
        os.kill(os.getpid(), signal.SIGSTOP)
    until(lambda: "waited" in watch.stood_still(), "what the watch saw")
