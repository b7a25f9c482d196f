"""
Honest clients beside whatever else goes on: one target at a fixed rate, in a process of their own.

``others.py URL TARGET RATE SECONDS`` prints a line of JSON (:class:`Seen`). A benchmark that is busy itself would find
its own delays in theirs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attrs import asdict, frozen

from benchmarks.flow import Flow, percentile

SETTLE_SECONDS = 10.0


@frozen
class Seen:
    """
    Seconds from when a request was due until it was answered.

    :ivar failed: share of requests without an answer of 2xx.
    :ivar late: p99 of how late this process was itself; above a few milliseconds the machine is busy.
    """

    p50: float
    p99: float
    failed: float
    late: float


def others(url: str, target: str, rate: float, seconds: float) -> Seen:
    """:return: what such clients see from now on."""
    command = [sys.executable, __file__, url, target, str(rate), str(seconds)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return Seen(**json.loads(ran.stdout))


async def _ask(url: str, target: str, rate: float, seconds: float) -> Seen:
    flow = Flow(url, "localhost")
    await flow.run(rate, seconds, lambda number: target)
    await flow.settle(SETTLE_SECONDS)
    failed = sum(sent.status // 100 != 2 for sent in flow.sent) / len(flow.sent)
    late = sorted(sent.late for sent in flow.sent)[int(0.99 * (len(flow.sent) - 1))]
    seen = Seen(percentile(flow.sent, 0.5), percentile(flow.sent, 0.99), failed, late)
    flow.close()
    return seen


def main() -> None:
    import uvloop

    url, target, rate, seconds = sys.argv[1:]
    seen = uvloop.run(_ask(url, target, float(rate), float(seconds)))
    print(json.dumps(asdict(seen)))


if __name__ == "__main__":
    main()
