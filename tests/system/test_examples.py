"""What docs/DEPLOY.md shows of an upload pipeline is run as it stands there, against a node."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.system.harness import Node, environment

PAGE = (Path(__file__).parent.parent.parent / "docs" / "DEPLOY.md").read_text()
ADMIN = "http://127.0.0.1:8081"


def commands(section: str) -> list[str]:
    """What a section's console blocks have behind their prompts."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL))
    return [line[2:] for line in blocks.replace("\\\n", " ").splitlines() if line.startswith("$ ")]


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
            timeout=30,
            check=False,
        )
        self.assertEqual(0, ran.returncode, ran.stderr)
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    def test_a_purge_with_curl_and_a_token_for_nothing_else(self) -> None:
        purge, token = commands("Purging from your upload pipeline")
        self.assertEqual(("complete", "upload-4711"), ((answer := self.shell(purge))["state"], answer["id"]))
        self.assertEqual(["purge"], self.shell(token)["scopes"])

    def test_a_purge_from_python(self) -> None:
        (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        names: dict[str, Any] = {}
        exec(compile(code, "docs/DEPLOY.md", "exec"), names)
        self.assertEqual("complete", names["purge"]("attrs", self.node.token, self.node.admin_url))
        recent = json.loads(self.node.admin("GET", "/status").content)["purges"]["recent"]
        self.assertIn("project/attrs", {one["value"] for purge in recent for one in purge["sample"]})
