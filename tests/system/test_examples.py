"""What README and docs/ show of commands is run as it stands there, against a node."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.system.harness import Node, environment
from tests.system.packages import wheel
from tests.system.serial_index import SerialIndex

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "DEPLOY.md").read_text()
ADMIN = "http://127.0.0.1:8081"


def commands(text: str) -> list[str]:
    """What the console blocks of a page have behind their prompts."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL))
    return [line[2:] for line in blocks.replace("\\\n", " ").splitlines() if line.startswith("$ ")]


def before_an_index(test: SynchronousTestCase, *, workers: int) -> Node:
    """:return: a node, started, in front of an index that has ``attrs``."""
    directory = tempfile.TemporaryDirectory(prefix="edgecache-examples-")
    test.addCleanup(directory.cleanup)
    index = SerialIndex().start()
    test.addCleanup(index.stop)
    index.upload(wheel("attrs", "1.0"))
    node = Node(Path(directory.name), index.url, profile="index", workers=workers)
    test.addCleanup(node.end)
    return node.start()


class PipelineTests(SynchronousTestCase):
    node: Node

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-examples-")
        cls.addClassCleanup(directory.cleanup)
        cls.node = Node(Path(directory.name), "http://127.0.0.1:1", profile="index", workers=0)
        cls.addClassCleanup(cls.node.end)
        cls.node.start()

    def shell(self, command: str) -> dict[str, Any]:
        """What it prints, run in the node's directory, as its operator would."""
        self.assertIn(ADMIN, command)
        command = command.replace(ADMIN, self.node.admin_url).replace("edgecache-data/", "data/")
        ran = subprocess.run(
            ["sh", "-ec", command],
            cwd=self.node.root,
            env={**environment(), "TOKEN": self.node.token},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.assertEqual(0, ran.returncode, ran.stderr)
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    def test_a_purge_with_curl_and_a_token_for_nothing_else(self) -> None:
        section = PAGE.partition("\n## Purging from your upload pipeline\n")[2].partition("\n## ")[0]
        purge, token = commands(section)
        self.assertEqual(("complete", "upload-4711"), ((answer := self.shell(purge))["state"], answer["id"]))
        self.assertEqual(["purge"], self.shell(token)["scopes"])

    def test_a_purge_from_python(self) -> None:
        (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        names: dict[str, Any] = {}
        exec(compile(code, "docs/DEPLOY.md", "exec"), names)
        self.assertEqual("complete", names["purge"]("attrs", self.node.token, self.node.admin_url))
        recent = json.loads(self.node.admin("GET", "/status").content)["purges"]["recent"]
        self.assertIn("project/attrs", {one["value"] for purge in recent for one in purge["sample"]})


class ClientTests(SynchronousTestCase):
    """What clients are told to do, done by a real pip."""

    def test_pip_set_to_the_node_installs_through_it(self) -> None:
        (command,) = [row for row in commands(PAGE) if row.startswith("pip config ")]
        node = before_an_index(self, workers=0)
        home = {**environment(), "PIP_CONFIG_FILE": str(node.root / "pip.conf"), "HOME": str(node.root)}
        environ = {name: value for name, value in home.items() if name == "PIP_CONFIG_FILE" or name[:4] != "PIP_"}
        set_, download = command.replace("https://edge.example", node.url), "pip download --no-cache-dir attrs"
        program = f"{sys.executable} -m pip "
        for row in (set_, download):
            ran = subprocess.run(
                ["sh", "-ec", re.sub(r"^pip ", program, row)],
                cwd=node.root,
                env=environ,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            self.assertEqual(0, ran.returncode, ran.stderr)
        self.assertEqual(["attrs-1.0-py3-none-any.whl"], [path.name for path in node.root.glob("*.whl")])


# How the examples call what is a node of the test's: itself, as its own sibling in another region.
_PLACES = (
    (r"https?://(?:edge-)?(?:eu|us)\.example:8081|https://edge\.example:8081|http://127\.0\.0\.1:8081", "admin_url"),
    (r"https://edge-(?:eu|us)\.example", "url"),
)
# Shown elsewhere, or by other tests: what starts something of its own.
_ELSEWHERE = re.compile(r"edgecache (demo|certs)\b")


def _status(command: str) -> int:
    """How it ends here (docs/COMMANDS.md): what is explained would be asked for elsewhere."""
    return 3 if " explain " in command else 0


class CommandTests(SynchronousTestCase):
    """Every command of the operator's, in the order of the pages, on a node before a small index."""

    PAGES = ("README.md", "docs/COMMANDS.md", "docs/DOWNLOADS.md", "docs/MIRRORS.md")

    def test_each_does_what_it_is_shown_for(self) -> None:
        node = before_an_index(self, workers=1)
        # What the pages speak of as being there.
        self.assertEqual("complete", json.loads(node.purge(tags=["x"], id="release-7").content)["state"])
        for name in ("eu.token", "us.token"):
            (node.root / name).write_text(node.token)
        (node.root / "requirements.txt").write_text("attrs==1.0\n")
        (node.root / "list.txt").write_text("/simple/\n")
        rows = [row for page in self.PAGES for row in commands((ROOT / page).read_text())]
        # Several pages show the same.
        wanted = [
            row for row in dict.fromkeys(rows) if re.match(r"edgecache |curl ", row) and not _ELSEWHERE.match(row)
        ]
        self.assertGreater(len(wanted), 20)
        program = f"{sys.executable} -c 'from edgecache.cli import main; main()'"
        own = f"{program} --admin {node.admin_url} --data {node.data}"
        for row in wanted:
            command = row.replace("since=AbC...", "since=")
            for place, ours in _PLACES:
                command = re.sub(place, getattr(node, ours), command)
            ran = subprocess.run(
                ["sh", "-ec", re.sub(r"^edgecache ", f"{own} ", command)],
                cwd=node.root,
                env={**environment(), "TOKEN": node.token, "EDGECACHE_TOKEN": node.token},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            self.assertEqual(_status(row), ran.returncode, f"{row}\n{ran.stdout[-1000:]}{ran.stderr[-1000:]}")
            self.assertNotIn("Traceback", ran.stderr)
