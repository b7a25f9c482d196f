"""docs/ARCHITECTURE.md names what is in the code, and every package of the code is in it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
PACKAGES = sorted(path.parent.name for path in (ROOT / "edgecache").glob("*/__init__.py"))


def resolves(dotted: str) -> bool:
    """Is ``dotted`` (below the package) a module, or something in one?"""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module("edgecache." + ".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            if not hasattr(found, name) and name not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, name, None)
        return True
    return False


class ArchitecturePageTests(SynchronousTestCase):
    """STYLE: names equal to code."""

    def test_every_name_in_the_route_is_in_the_code(self) -> None:
        tops = "|".join([*PACKAGES, "node", "workers", "service"])
        names = set(re.findall(rf"(?<![\w./-])((?:{tops})\.[a-z_]+(?:\.\w+)*)", PAGE)) - {"service.py", "workers.py"}
        names = {name for name in names if not name.endswith(".py")}
        self.assertGreater(len(names), 20)
        self.assertEqual([], sorted(name for name in names if not resolves(name)))

    def test_every_file_named_is_there(self) -> None:
        files = set(re.findall(r"`((?:\w+/)+\w+\.py)`", PAGE))
        self.assertGreater(len(files), 10)
        missing = [name for name in files if not any((ROOT / base / name).exists() for base in (".", "edgecache"))]
        self.assertEqual([], sorted(missing))

    def test_every_package_is_described(self) -> None:
        self.assertEqual([], [name for name in PACKAGES if f"`{name}`" not in PAGE])

    def test_every_decision_is_in_their_index_once(self) -> None:
        decisions = ROOT / "docs" / "decisions"
        named = re.findall(r"^\* \[\d+\]\((\S+)\): ", (decisions / "README.md").read_text(), re.MULTILINE)
        self.assertEqual(sorted(path.name for path in decisions.glob("[0-9]*.md")), sorted(named))

    def test_the_name_check_can_fail(self) -> None:
        self.assertFalse(resolves("rules.policy.on_nothing"))
        self.assertFalse(resolves("nowhere.at_all"))
