"""
Load while an upstream is out, ours beside nginx, HAProxy, Varnish and Squid (set up as ``benchmarks/peers.py`` says).

Neighbours: one site's only origin begins to hang under 500 requests; what do clients of another site notice, all of
whose requests are misses? The peers have their own deadlines there, so that their 500 do hang.

Outage: one of two origins begins to hang under requests at a steady rate, a quarter of them misses. How many requests
do the two then see, for each miss and each fill that was under way? The peers have our deadlines there.

``python benchmarks/outage.py`` takes 4 minutes, ``--quick`` ours alone. Everything shares the machine, so the rates are
those that leave it room. A run is of use if "late" is small (the share of requests that were sent over 20 ms late) and
so is what was in flight when the outage began: a cache that cannot keep up asks its upstreams less than it should.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import uvloop

from benchmarks.characters import Cast, Part, Role
from benchmarks.flow import Flow, percentile
from benchmarks.peers import SHORT, Deadlines, OurPeer, Peer, Start, installed, leave_at_termination
from benchmarks.tables import table

HANGING = 500
KEPT = 50
ONE, OTHER = "one.example", "other.example"
SMALL = Part("good", size=1024)

NEIGHBOURS = ("p50 before, ms", "p50 during", "p99 before", "p99 during", "failed during", "hanging at the end", "late")
OUTAGE = (
    "misses during",
    "in flight when it began",
    "upstream requests",
    "ratio",
    "misses answered well",
    "p50 of misses, ms",
    "p99 of misses",
    "longest miss",
    "p99 of hits",
    "late",
)


async def neighbours(peer: Peer, roles: list[Role], options: argparse.Namespace) -> list[str]:
    """500 hang on OTHER while ONE is served."""
    served = Flow(peer.url, ONE)
    hanging = Flow(peer.url, OTHER)
    try:
        # Connections, pools and threads are there before it counts.
        await served.run(options.calm, 2, "/warm/{}".format)
        await hanging.run(20, 1, "/warm/{}".format)
        await hanging.settle(5)
        warm = len(served.sent)
        await served.run(options.calm, options.seconds, "/before/{}".format)
        before = served.sent[warm:]
        await _elsewhere(lambda: roles[1].turn(Part("silent")))
        hung = [hanging.send(f"/hang/{number}", time.monotonic()) for number in range(HANGING)]
        await asyncio.sleep(1)
        await served.run(options.calm, options.seconds, "/during/{}".format)
        await served.settle(5)
        during = served.sent[warm + len(before) :]
        return [
            *(f"{percentile(each, share) * 1e3:.1f}" for share in (0.5, 0.99) for each in (before, during)),
            str(sum(each.status != 200 for each in during)),
            str(sum(each.answered is None for each in hung)),
            _late(served),
        ]
    finally:
        served.close()
        hanging.close()


async def outage(peer: Peer, roles: list[Role], options: argparse.Namespace) -> list[str]:
    """The first of two origins begins to hang."""
    flow = Flow(peer.url, ONE)
    every = max(1, round(1 / options.misses))

    def mixed(number: int) -> str:
        return f"/kept/{number % KEPT}" if number % every else f"/miss/{len(flow.sent)}"

    try:
        await flow.run(100, KEPT / 100, "/kept/{}".format)
        await flow.run(options.rate / 4, 2, mixed)
        await flow.run(options.rate, 4, mixed)
        turning = asyncio.create_task(_elsewhere(lambda: roles[0].turn(Part("silent"))))
        await flow.run(options.rate, options.seconds, mixed)
        began = await turning
        await flow.settle(20)
        asking = [each for each in flow.sent if each.target.startswith("/miss/")]
        misses = [each for each in asking if each.due >= began]
        flying = sum(each.due < began and (each.answered is None or each.answered > began) for each in asking)
        hits = [each for each in flow.sent if each.due >= began and each.target.startswith("/kept/")]
        asked = await _elsewhere(lambda: sum(seen.at >= began for role in roles for seen in role.asked()))
        return [
            str(len(misses)),
            str(flying),
            str(asked),
            f"{asked / (len(misses) + flying):.3f}",
            f"{sum(each.status == 200 for each in misses) / len(misses):.2%}",
            *(f"{percentile(misses, share) * 1e3:.0f}" for share in (0.5, 0.99, 1.0)),
            f"{percentile(hits, 0.99) * 1e3:.0f}" if hits else "-",
            _late(flow),
        ]
    finally:
        flow.close()


def _late(flow: Flow) -> str:
    return f"{sum(each.late > 0.02 for each in flow.sent) / len(flow.sent):.1%}"


async def _elsewhere(call: Callable[[], Any]) -> Any:
    """In a thread: the flow goes on."""
    return await asyncio.get_running_loop().run_in_executor(None, call)


Play = Callable[[Peer, list[Role], argparse.Namespace], Coroutine[Any, Any, list[str]]]


def measured(
    root: Path, start: Start, play: Play, options: argparse.Namespace, *, together: bool, deadlines: Deadlines | None
) -> list[str]:
    """
    One cache before two origins in processes of their own.

    :param together: they are of one site.
    """
    casts = [Cast(), Cast()]
    stops = [cast.stop for cast in casts]
    try:
        roles = [cast.play(SMALL) for cast in casts]
        ports = [role.port for role in roles]
        sites = {ONE: ports} if together else {ONE: ports[:1], OTHER: ports[1:]}
        peer = start(root, sites, ordered=False, deadlines=deadlines)
        stops.append(peer.stop)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(play(peer, roles, options))
    finally:
        for stop in reversed(stops):
            stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ours alone")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="these of them; default: all that are installed")
    parser.add_argument("--rate", type=float, default=1000, help="requests a second in the outage")
    parser.add_argument("--misses", type=float, default=0.25, help="the share of them that is for new URLs")
    parser.add_argument("--calm", type=float, default=200, help="misses a second beside hanging ones")
    parser.add_argument("--seconds", type=float, default=6, help="of each part that counts")
    options = parser.parse_args()
    starts: dict[str, Start] = {OurPeer.name: OurPeer}
    if not options.quick:
        peers = installed()
        starts |= {name: peers[name] for name in options.peers or peers}

    leave_at_termination()
    root = Path(tempfile.mkdtemp(prefix="edgecache-benchmark-"))
    # A server that changes its user, as squid does, needs the way to its own directory.
    root.chmod(0o755)
    try:
        for title, labels, play, together, deadlines in (
            (f"{HANGING} hang on a neighbour, {options.calm:.0f} misses/s", NEIGHBOURS, neighbours, False, None),
            (
                f"One of two origins hangs, {options.rate:.0f} requests/s, {options.misses:.0%} misses",
                OUTAGE,
                outage,
                True,
                SHORT,
            ),
        ):
            rows = [["", *labels]]
            for name, start in starts.items():
                given = None if start is OurPeer else deadlines
                place = root / f"{name}-{play.__name__}"
                rows.append([name, *measured(place, start, play, options, together=together, deadlines=given)])
            print(f"{title}\n\n{table([list(column) for column in zip(*rows, strict=True)])}\n", flush=True)
    finally:
        shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
