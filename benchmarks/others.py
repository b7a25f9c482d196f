"""
Honest clients beside whatever else goes on: one target at a fixed rate, in a process of their own.

``others.py URL TARGET RATE`` asks from its start on, and is told by lines: ``begin`` counts from now on, ``end`` is
answered with a line of JSON (:class:`Seen`). A benchmark that is busy itself would find its own delays in theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attrs import asdict, define, field, frozen

from benchmarks.flow import Flow

WARM_SECONDS = 0.3
"""Before anything counts: what an honest client has is a connection."""

SETTLE_SECONDS = 10.0

LATE_SECONDS = 2e-3
"""
A request that went out so much later than it was due is not looked at: its client was kept from running, and so it may
be when the answer comes. A loop's timers are a millisecond coarse.
"""

FOR_EVER = 3600.0


@frozen
class Seen:
    """
    Seconds from when a request was sent until it was answered, of those that were sent in time.

    :ivar failed: share of requests without an answer of 2xx, late ones too.
    :ivar samples: requests that were sent in time.
    :ivar late: how many were not, see :data:`LATE_SECONDS`.
    """

    p50: float
    p99: float
    failed: float
    samples: int
    late: int


@define(eq=False)
class Others:
    """Such clients, by ``with``."""

    url: str
    target: str
    rate: float
    _process: subprocess.Popen[str] = field(init=False)

    def __enter__(self) -> Others:
        command = [sys.executable, __file__, self.url, self.target, str(self.rate)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._hear()
        return self

    def __exit__(self, *failure: object) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self) -> None:
        """Count from now on."""
        self._tell("begin")

    def end(self) -> Seen:
        """:return: what they saw since :meth:`begin`."""
        self._tell("end")
        return Seen(**json.loads(self._hear()))

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def others(url: str, target: str, rate: float, seconds: float) -> Seen:
    """:return: what such clients see in so many seconds from now on."""
    with Others(url, target, rate) as asking:
        asking.begin()
        time.sleep(seconds)
        return asking.end()


async def _ask(url: str, target: str, rate: float) -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    flow = Flow(url, "localhost")
    running = loop.create_task(flow.run(rate, FOR_EVER, lambda number: target))
    await asyncio.sleep(WARM_SECONDS)
    print("asking", flush=True)
    while order := await orders.readline():
        if order == b"begin\n":
            flow.sent.clear()
        else:
            running.cancel()
            await flow.settle(SETTLE_SECONDS)
            print(json.dumps(asdict(_seen(flow))), flush=True)
            flow.close()


def _seen(flow: Flow) -> Seen:
    in_time = [sent for sent in flow.sent if sent.late <= LATE_SECONDS]
    if not in_time:
        raise SystemExit(f"all {len(flow.sent)} requests were sent late: this machine is too busy to tell anything")
    failed = sum(sent.status // 100 != 2 for sent in flow.sent) / len(flow.sent)
    seconds = sorted(sent.seconds - sent.late for sent in in_time)
    p50, p99 = (seconds[int(len(seconds) * share)] for share in (0.5, 0.99))
    return Seen(p50, p99, failed, len(seconds), len(flow.sent) - len(seconds))


def main() -> None:
    import uvloop

    url, target, rate = sys.argv[1:]
    # Where there are fewer CPUs than busy processes, it is nobody's fault that one waits; these few octets don't.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    uvloop.run(_ask(url, target, float(rate)))


if __name__ == "__main__":
    main()
