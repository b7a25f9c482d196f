"""What the project stands on: all of it used, all of it named, none of it known to be broken (docs/SECURITY.md)."""

from __future__ import annotations

import ast
import configparser
import functools
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "conf" / "lock"
# Benchmarks are run from where they lie.
OURS = {"edgecache", "tests", "benchmarks", "docs", *(path.stem for path in (ROOT / "benchmarks").glob("*.py"))}
_IMPORT = re.compile(r"^\s*(?:from|import) (\w+)", re.MULTILINE)
# Used, but not by an import of ours.
BY_NAME = {
    "uvloop": "edgecache.processes.loop asks for it",
    "import-linter": "a command",
    "mypy": "a command",
    "mypy-zope": "mypy's plugin",
    "pypiserver": "a command",
    "pytest": "a command",
    "pytest-xdist": "pytest's plugin",
    "ruff": "a command",
    "setuptools": "builds the package that a test installs",
    "types-pyyaml": "types of PyYAML",
    "uv": "a command",
}
# Nobody who installs us is bound to anything by these but to keep their notices.
LICENCES = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|OpenLDAP|OLDAP|Zope Public|ZPL|Mozilla Public License 2|MPL-2"
)
_PIN = re.compile(
    r"^([A-Za-z0-9._-]+)==(\S+)(?: ; (.*?))? \\\n((?: {4}--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


def declared(section: str, key: str) -> list[Requirement]:
    """:return: what setup.cfg asks for there."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return [Requirement(line) for line in parser[section][key].split("\n") if line.strip()]


RUN = declared("options", "install_requires")
TEST = declared("options.extras_require", "test")


def locked(name: str) -> dict[str, Version]:
    """:return: the pins of a lock."""
    return {canonicalize_name(pin[1]): Version(pin[2]) for pin in _PIN.finditer((LOCKS / name).read_text())}


@functools.cache
def imported(*places: str) -> dict[str, str]:
    """:return: outside modules, by their first name, and a file that imports each."""
    found: dict[str, str] = {}
    for path in (path for place in places for path in (ROOT / place).rglob("*.py")):
        text = path.read_text()
        # Most files have nothing new; a sentence that begins with "from" is none either, says the parser.
        if any(_outside(word) and word not in found for word in _IMPORT.findall(text)):
            for module in _modules(ast.parse(text)):
                if _outside(module):
                    found.setdefault(module, str(path.relative_to(ROOT)))
    return found


def _outside(module: str) -> bool:
    return module not in sys.stdlib_module_names and module not in OURS


def _modules(tree: ast.Module) -> Iterator[str]:
    """:return: first names of what is imported."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (one.name.partition(".")[0] for one in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]


@functools.cache
def installed() -> Mapping[str, list[str]]:
    """:return: modules, and the distributions that have them; it takes a look at every file."""
    return metadata.packages_distributions()


def distributions(module: str) -> set[str]:
    """:return: what one can install to have ``module``."""
    return {canonicalize_name(name) for name in installed().get(module, ())}


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(one.name) for one in requirements}


def needed(requirements: list[Requirement]) -> Iterator[tuple[str, Requirement]]:
    """:return: these, and all that they need on this machine: for whom, and what."""
    seen: set[tuple[str, str]] = set()
    left = [("edgecache", one) for one in requirements]
    while left:
        asker, one = left.pop()
        yield asker, one
        for extra in ("", *one.extras):
            key = canonicalize_name(one.name), extra
            if key not in seen:
                seen.add(key)
                texts = metadata.requires(one.name) or []
                more = [Requirement(text) for text in texts]
                left += [
                    (one.name, each) for each in more if each.marker is None or each.marker.evaluate({"extra": extra})
                ]


class UseTests(SynchronousTestCase):
    def test_each_is_named_once_however_it_is_spelt(self) -> None:
        for requirements in (RUN, TEST):
            spelt = [canonicalize_name(one.name) for one in requirements]
            self.assertEqual(sorted(set(spelt)), sorted(spelt))
        self.assertEqual(set(), names(RUN) & names(TEST))

    def test_what_is_imported_is_named(self) -> None:
        for places, allowed in ((("edgecache", "twisted"), RUN), (("tests", "benchmarks"), [*RUN, *TEST])):
            known = names(allowed)
            missing = {
                module: where for module, where in imported(*places).items() if not distributions(module) & known
            }
            self.assertEqual({}, missing)

    def test_what_is_named_is_used(self) -> None:
        for places, requirements in ((("edgecache", "twisted"), RUN), (("tests", "benchmarks"), TEST)):
            used = {name for module in imported(*places) for name in distributions(module)}
            self.assertEqual(set(), names(requirements) - used - set(BY_NAME))

    def test_each_has_a_lowest_version(self) -> None:
        free = {"types-pyyaml"}
        loose = [one.name for one in [*RUN, *TEST] if not one.specifier and canonicalize_name(one.name) not in free]
        self.assertEqual([], loose)

    def test_licences_let_everybody_use_it(self) -> None:
        odd: dict[str, Any] = {}
        for _, one in needed(RUN):
            about = metadata.metadata(one.name)
            classifiers = [text for text in about.get_all("Classifier", []) if text.startswith("License")]
            said = " ".join([about.get("License-Expression") or "", about.get("License") or "", *classifiers])
            if not LICENCES.search(said[:2000]):
                odd[one.name] = said[:80]
        self.assertEqual({}, odd)


class LockTests(SynchronousTestCase):
    """conf/lock: what the container is made of."""

    def test_every_line_of_a_lock_is_a_release_with_its_digests(self) -> None:
        for name in ("run.txt", "build.txt"):
            self.assertEqual("", _PIN.sub("", (LOCKS / name).read_text()).strip(), name)

    def test_it_has_all_that_setup_cfg_asks_for_and_all_that_these_need(self) -> None:
        pins = locked("run.txt")
        for asker, one in needed(RUN):
            pin = pins.get(canonicalize_name(one.name))
            self.assertIsNotNone(pin, f"{one}, for {asker}")
            assert pin is not None
            self.assertTrue(one.specifier.contains(pin, prereleases=True), f"{one}, for {asker}, has {pin}")

    def test_it_has_nothing_else(self) -> None:
        # Of other machines and Pythons, too: those that a marker names.
        wanted = {canonicalize_name(one.name) for _, one in needed(RUN)}
        marked = {canonicalize_name(pin[1]) for pin in _PIN.finditer((LOCKS / "run.txt").read_text()) if pin[3]}
        self.assertEqual(set(), set(locked("run.txt")) - wanted - marked)

    def test_the_container_takes_nothing_but_what_is_locked(self) -> None:
        runs = (ROOT / "Dockerfile").read_text()
        installs = re.findall(r"pip (?:install|wheel) .*", runs)
        self.assertGreater(len(installs), 3)
        for line in installs:
            self.assertTrue("--require-hashes -r /src/conf/lock/" in line or "--no-deps" in line, line)
        # What builds it is locked as well, and not fetched anew.
        self.assertIn("pip wheel --no-cache-dir --no-build-isolation --no-deps", runs)
        with (ROOT / "pyproject.toml").open("rb") as file:
            asked = [Requirement(text) for text in tomllib.load(file)["build-system"]["requires"]]
        for one in asked:
            self.assertTrue(one.specifier.contains(locked("build.txt")[canonicalize_name(one.name)]), str(one))


class AdvisoryTests(SynchronousTestCase):
    """conf/lock/advisories.toml: releases that are known to be broken."""

    def advisories(self) -> list[dict[str, str]]:
        with (LOCKS / "advisories.toml").open("rb") as file:
            found: list[dict[str, str]] = tomllib.load(file)["advisory"]
        self.assertTrue(all(one.keys() == {"distribution", "id", "safe", "what"} for one in found))
        return found

    def test_setup_cfg_lets_none_of_them_in(self) -> None:
        asked = {canonicalize_name(one.name): one for one in [*RUN, *TEST]}
        for one in self.advisories():
            requirement = asked.get(canonicalize_name(one["distribution"]))
            if requirement is not None:
                lowest = max(Version(each.version) for each in requirement.specifier if each.operator in (">=", "=="))
                self.assertGreaterEqual(lowest, Version(one["safe"]), one)

    def test_the_locks_have_none_of_them(self) -> None:
        pins = {**locked("build.txt"), **locked("run.txt")}
        for one in self.advisories():
            self.assertGreaterEqual(pins[canonicalize_name(one["distribution"])], Version(one["safe"]), one)

    def test_nor_has_what_these_tests_run_with(self) -> None:
        for one in self.advisories():
            self.assertGreaterEqual(Version(metadata.version(one["distribution"])), Version(one["safe"]), one)
