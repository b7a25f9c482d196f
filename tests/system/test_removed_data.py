"""A data directory that is removed under a running node: it promises nothing that is not kept, and can start anew."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import ask
from tests.system.harness import Node
from tests.system.origins import Origin
from tests.system.processes import until
from tests.system.traffic import reply_to


class RemovedDataTests(SynchronousTestCase):
    def test_it_acknowledges_no_purge_ends_with_a_clear_line_and_starts_anew(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-removed-")
        self.addCleanup(directory.cleanup)
        origin = Origin(reply_to).start()
        self.addCleanup(origin.stop)
        node = Node(Path(directory.name), origin.url)
        self.addCleanup(node.end)
        node.start()
        node.ask("/packages/700/a.whl")
        token = node.token
        shutil.rmtree(node.data / "control")

        fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        content = json.dumps({"urls": [node.url + "/x"], "id": "lost"}).encode()
        try:
            answer = ask(node.admin_url, "/purge?wait=durable", method="POST", fields=fields, content=content)
            self.assertEqual(503, answer.status, answer.content)
        except OSError:
            self.assertIn("was removed", node.log)

        until(node.has_failed, "its end")
        self.assertIn("control/data.mdb was removed or replaced while in use; the node ends", node.log)
        self.assertNotIn("Traceback", node.log)
        shutil.rmtree(node.data)
        node.start()
        self.assertEqual(200, node.ask("/packages/700/a.whl").status)
        self.assertEqual(200, node.purge(urls=[node.url + "/x"], id="kept").status)
