"""
The open conformance suite for HTTP caches (http-tests/cache-tests) against a plain node: what it misses is listed here.

``EDGECACHE_CONFORMANCE`` says where a checkout of the suite is; without it there is nothing to run. It needs node.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.system import processes
from tests.system.harness import Node
from tests.system.processes import until

SUITE = os.environ.get("EDGECACHE_CONFORMANCE", "")

# A transfer coding that nobody knows is refused, and not stored: what it frames may be framed otherwise.
REQUIRED = {"headers-store-Transfer-Encoding"}

OPTIONAL = {
    # Parts that have other octets than they say, or no validator: docs/decisions/0210-partial-responses.md.
    "partial-store-partial-reuse-partial-suffix",
    "partial-store-partial-reuse-partial-byterange",
    "partial-store-partial-reuse-partial-absent",
    "partial-store-partial-reuse-partial",
    "partial-store-partial-complete",
    # A response to POST, which one to GET would be answered with.
    "method-POST",
    # Languages are compared as they are sent.
    "vary-normalise-lang-select",
    # Nothing says when it was modified, but for Date.
    "conditional-lm-fresh-no-lm",
}


if SUITE:

    class ConformanceTests(SynchronousTestCase):
        """RFC 9111, as others read it."""

        def test_all_that_is_required_and_all_that_is_optional_but_what_is_listed(self) -> None:
            directory = tempfile.TemporaryDirectory(prefix="edgecache-conformance-")
            self.addCleanup(directory.cleanup)
            port = processes.free_port()
            origin = subprocess.Popen(self.driven("serve", str(port)))
            self.addCleanup(origin.wait)
            self.addCleanup(origin.kill)
            until(lambda: port in processes.listening_ports(origin.pid), "the suite's origin")
            node = Node(Path(directory.name), f"http://127.0.0.1:{port}")
            self.addCleanup(node.end)
            node.start()
            done = subprocess.run(self.driven("run", node.url), stdout=subprocess.PIPE, timeout=600, check=True)
            told: list[dict[str, Any]] = json.loads(done.stdout)
            counts, passed = Counter(each["kind"] for each in told), Counter()
            failed: dict[str, set[str]] = {kind: set() for kind in counts}
            for each in told:
                passed[each["kind"]] += each["passed"]
                if not each["passed"]:
                    failed[each["kind"]].add(each["id"])
            # What is recorded in docs/TESTING.md.
            sys.stdout.write("\n" + ", ".join(f"{kind}: {passed[kind]} of {of}" for kind, of in counts.items()) + "\n")
            why = {each["id"]: each["why"] for each in told}
            self.assertEqual({}, {name: why[name] for name in failed["required"] - REQUIRED})
            self.assertEqual({}, {name: why[name] for name in failed["optimal"] - OPTIONAL})

        @staticmethod
        def driven(*words: str) -> list[str]:
            return ["node", "--no-warnings", str(Path(__file__).with_name("conformance.mjs")), SUITE, *words]
