"""
What a client gets while upstreams hang, stall, drop packets or are all down: ours, nginx, HAProxy, Varnish and Squid.

``python benchmarks/failover.py`` takes under 6 minutes, nearly all of it waiting; ``--quick`` asks ours alone, in one.
Every cache stands before the same characters (``benchmarks/characters.py``), set up as ``benchmarks/peers.py`` says:
the peers once with their own deadlines, once with ours. BAD is asked first wherever an order can be set. Nobody waits
longer than 70 s for an answer. Ours runs first and alone; the peers then wait all at the same time, so a few hundredths
of a second between them mean nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attrs import define, field, frozen

from benchmarks.characters import Cast, Dropping, Part, Role
from benchmarks.fetching import Got, fetch
from benchmarks.peers import SHORT, Deadlines, OurPeer, Peer, Start, installed, leave_at_termination
from benchmarks.tables import table

PATIENCE_SECONDS = 70.0
HOST = "files.example"
MB = 1_000_000

# Active checks every 2 s need two of them, of 2 s each, to find an origin that was never good.
CHECKED_AFTER_SECONDS = 8.0
# Ejections of 10 s, with jitter, are over.
LATER_SECONDS = 15.0


@define(eq=False)
class Scene:
    """One cache, freshly started before its own origins."""

    peer: Peer
    roles: list[Role]
    checked_at: float
    rows: list[tuple[str, str]] = field(factory=list)

    def get(self, target: str, due: Sequence[Part], *, seconds: float = PATIENCE_SECONDS) -> Got:
        return fetch(self.peer.url, HOST, target, [part.due for part in due], seconds=seconds)

    def say(self, label: str, cell: str) -> None:
        self.rows.append((label, cell))

    def wait_for_checks(self) -> None:
        """Let active checks find out what they can; ours has none."""
        time.sleep(max(0.0, self.checked_at - time.monotonic()))


@frozen
class Scenario:
    """
    What happens to one cache.

    :ivar dropping: there is an address first that drops packets.
    :ivar busy: it computes more than it waits, and would disturb others.
    """

    parts: tuple[Part, ...]
    play: Callable[[Scene], None]
    labels: tuple[str, ...]
    ordered: bool = True
    dropping: bool = False
    busy: bool = False


def hang(scene: Scene) -> None:
    """BAD accepts and never answers, and never did."""
    scene.wait_for_checks()
    first = scene.get("/first", [SMALL])
    scene.say(HANG[0], first.told)
    scene.say(HANG[1], _worst(_in_turn(scene, "/next", 10)))
    time.sleep(LATER_SECONDS)
    scene.say(HANG[2], _worst(_in_turn(scene, "/later", 3)))


def turn(scene: Scene) -> None:
    """BAD has answered well for 200 requests."""
    before = sorted(got.first for got in _in_turn(scene, "/before", 200))
    scene.roles[0].turn(Part("silent"))
    got = scene.get("/first", [SMALL])
    scene.say(TURN[0], f"{got.told} (p95 {before[len(before) * 95 // 100] * 1e3:.0f} ms)")
    scene.say(TURN[1], _worst(_in_turn(scene, "/next", 10)))


def stall(scene: Scene) -> None:
    """BAD stops at 10 % of 1 MB while four clients wait."""
    bad, good = scene.roles
    with ThreadPoolExecutor(4) as pool:
        getting = [pool.submit(scene.get, "/large", [LARGE])]
        # The others come while the first waits.
        time.sleep(0.5)
        getting += [pool.submit(scene.get, "/large", [LARGE]) for _ in range(3)]
        gots = [each.result() for each in getting]
    scene.say(STALL[0], f"{sum(got.exact for got in gots)} of 4")
    pause = max(got.pause for got in gots)
    scene.say(STALL[1], f"> {PATIENCE_SECONDS:.0f} s" if pause >= PATIENCE_SECONDS - 1 else f"{pause:.2f} s")
    scene.say(STALL[2], str(sum(bool(seen.range) for seen in good.asked())))
    asked = len(bad.asked())
    got = scene.get("/next", [LARGE])
    scene.say(STALL[3], f"{'yes' if len(bad.asked()) > asked else 'no'}; {got.told}")


def change(scene: Scene) -> None:
    """BAD stops at 10 % of 1 MB, and the other has another version under the same name."""
    got = scene.get("/large", [OLD, NEW])
    scene.say(CHANGE[0], got.told)
    again = scene.get("/large", [OLD, NEW])
    scene.say(CHANGE[1], "YES" if again.complete and not again.exact and again.status == 200 else "no")


def drop(scene: Scene) -> None:
    """One of four addresses drops packets; whose turn it is goes round."""
    scene.wait_for_checks()
    gots = list(_in_turn(scene, "/drop", 20))
    slow = sum(got.first > 0.05 for got in gots)
    scene.say(DROP[0], f"{_worst(gots)}; {slow} of {len(gots)}")


def fifty(scene: Scene) -> None:
    """One client asks 50 things at once; half of them fall to the address that hangs."""
    with ThreadPoolExecutor(50) as pool:
        gots = list(pool.map(lambda number: scene.get(f"/at-once/{number}", [SMALL]), range(50)))
    slowest = max(got.seconds for got in gots)
    last = f"> {PATIENCE_SECONDS:.0f} s" if slowest >= PATIENCE_SECONDS - 1 else f"{slowest:.2f} s"
    scene.say(FIFTY[0], f"{sum(got.exact for got in gots)} of 50; {last}")


def down(how: str) -> Callable[[Scene], None]:
    """:return: both origins go, with one response stored, by now stale, and another not."""

    def play(scene: Scene) -> None:
        """All are down."""
        kept = _store(scene)
        for role in scene.roles:
            role.refuse() if how == "refuse" else role.turn(Part("silent"))
        with ThreadPoolExecutor(2) as pool:
            stored = pool.submit(scene.get, "/kept", [SHORT_LIVED])
            missing = pool.submit(scene.get, "/missing", [SHORT_LIVED])
        labels = DOWN[how]
        got = stored.result()
        scene.say(labels[0], got.told if kept else "was not stored")
        scene.say(labels[1], _honesty(got))
        got = missing.result()
        retry = got.fields.get("retry-after")
        scene.say(labels[2], got.told + (f", retry after {retry}" if retry else ""))

    return play


def failing(scene: Scene) -> None:
    """Both origins answer 503 from now on, with a stored response that is stale."""
    kept = _store(scene)
    for role in scene.roles:
        role.turn(Part("failing"))
    good = 0
    for _ in range(5):
        good += scene.get("/kept", [SHORT_LIVED]).exact
        # A refresh in the background is over by then.
        time.sleep(0.5)
    scene.say(FAILING[0], f"{good} of 5" if kept else "was not stored")


def _store(scene: Scene) -> bool:
    """Have ``/kept`` stored, and let it become stale. Was it?"""
    for _ in range(2):
        scene.get("/kept", [SHORT_LIVED])
    asked = sum(seen.target.endswith("/kept") for role in scene.roles for seen in role.asked())
    time.sleep(SHORT_LIVED.max_age + 1.5)
    return asked == 1


def _in_turn(scene: Scene, target: str, number: int) -> Iterator[Got]:
    """One new URL after the other, all together no longer than one client's patience."""
    until = time.monotonic() + PATIENCE_SECONDS
    for at in range(number):
        left = until - time.monotonic()
        if at and left < 1:
            return
        yield scene.get(f"{target}/{at}", [SMALL], seconds=max(left, 1.0))


def _worst(gots: Iterator[Got] | list[Got]) -> str:
    """What the worst off of them got."""
    return max(gots, key=lambda got: (not got.exact, got.seconds)).told


def _honesty(got: Got) -> str:
    if got.status != 200:
        return "-"
    said = [f"Age {got.fields['age']}"] if "age" in got.fields else []
    return ", ".join(said + [short for name, short in _FIELDS if name in got.fields]) or "nothing"


_FIELDS = (("cache-status", "CS"), ("proxy-status", "PS"), ("warning", "Warning"))

SMALL = Part("good")
LARGE = Part("good", size=MB)
OLD = Part("good", size=MB, name="old", etag="one")
NEW = Part("good", size=MB, name="new", etag="two")
STALLING = Part("stalling", size=MB, after=MB // 10)
SHORT_LIVED = Part("good", max_age=1)

HANG = ("1 BAD never answered: first request", "1 ... worst of the next 10", "1 ... worst of 3, 15 s later")
TURN = ("1 BAD hangs after 200 answers: next request", "1 ... worst of the next 10")
STALL = (
    "2 stall at 10 % of 1 MB, 4 clients: exact",
    "2 ... longest pause",
    "2 ... Range requests upstream",
    "2 ... next URL asks BAD?",
)
CHANGE = ("3 stall, other has another ETag: client gets", "3 ... incomplete one stored?")
DROP = ("4 one of 4 drops packets: worst of 20; over 50 ms",)
DOWN = {
    "refuse": ("6 all refuse: stored, stale", "6 ... says so by", "6 ... not stored"),
    "hang": ("6 all hang: stored, stale", "6 ... says so by ", "6 ... not stored "),
}
FAILING = ("6 all answer 503: stored one still given",)
FIFTY = ("8 50 at once, half to one that hangs: exact; last",)

SCENARIOS = (
    Scenario((Part("silent"), SMALL), hang, HANG),
    Scenario((SMALL, SMALL), turn, TURN, busy=True),
    Scenario((STALLING, LARGE), stall, STALL),
    Scenario((Part("stalling", size=MB, name="old", after=MB // 10), NEW), change, CHANGE),
    Scenario((SMALL, SMALL, SMALL), drop, DROP, ordered=False, dropping=True, busy=True),
    Scenario((SHORT_LIVED, SHORT_LIVED), down("refuse"), DOWN["refuse"]),
    Scenario((SHORT_LIVED, SHORT_LIVED), down("hang"), DOWN["hang"]),
    Scenario((SHORT_LIVED, SHORT_LIVED), failing, FAILING),
    Scenario((Part("silent"), SMALL), fifty, FIFTY, ordered=False, busy=True),
)


@define(eq=False)
class Column:
    """One cache in all scenarios."""

    name: str
    start: Start
    deadlines: Deadlines | None
    cells: dict[str, str] = field(factory=dict)

    @property
    def told(self) -> str:
        return f"{self.name}, {'own' if self.deadlines is None else 'our'} deadlines"


class Run:
    """All of it; leaves no process behind."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._cast = Cast()
        self._ends: list[Callable[[], None]] = [self._cast.stop]
        self._lock = threading.Lock()
        # A node ends with the thread that started it, so these stay to the end.
        self._starters = ThreadPoolExecutor(2)
        self.failed = False

    def columns(self, columns: list[Column], *, together: bool) -> None:
        """Start every cache of every scenario, then play all: busy scenarios one by one unless ``together``."""
        jobs = [(column, scenario) for column in columns for scenario in SCENARIOS]
        scenes = list(self._starters.map(lambda job: self._scene(*job), jobs))
        played = list(zip(jobs, scenes, strict=True))
        if not together:
            for job, scene in played:
                if job[1].busy:
                    self._play(*job, scene)
        rest = [each for each in played if together or not each[0][1].busy]
        with ThreadPoolExecutor(len(rest)) as pool:
            for job, scene in rest:
                pool.submit(self._play, *job, scene)

    def _scene(self, column: Column, scenario: Scenario) -> Scene | None:
        """A cache before its origins; None, and a traceback, for one that does not start."""
        try:
            roles = [self._cast.play(part) for part in scenario.parts]
            ports = [role.port for role in roles]
            if scenario.dropping:
                dropping = Dropping()
                self._end(dropping.stop)
                ports.insert(0, dropping.port)
            root = self._root / f"{column.name}-{column.deadlines is not None}-{SCENARIOS.index(scenario)}"
            peer = column.start(root, {HOST: ports}, ordered=scenario.ordered, deadlines=column.deadlines)
            self._end(peer.stop)
        except Exception:  # noqa: BLE001  # reported; the others go on
            self._report(column, scenario)
            return None
        checked = 0.0 if column.name == OurPeer.name else CHECKED_AFTER_SECONDS
        return Scene(peer, roles, time.monotonic() + checked)

    def _play(self, column: Column, scenario: Scenario, scene: Scene | None) -> None:
        if scene is None:
            return
        began = time.monotonic()
        try:
            scenario.play(scene)
        except Exception:  # noqa: BLE001  # reported; the other scenarios go on
            self._report(column, scenario)
        column.cells.update(scene.rows)
        self._progress(f"{column.told}: {scenario.play.__doc__} {time.monotonic() - began:.0f} s")

    def _report(self, column: Column, scenario: Scenario) -> None:
        with self._lock:
            self.failed = True
            print(f"{column.told}, {scenario.labels[0]}:", file=sys.stderr)
            traceback.print_exc()

    def _progress(self, line: str) -> None:
        with self._lock:
            print(line, file=sys.stderr)

    def _end(self, end: Callable[[], None]) -> None:
        with self._lock:
            self._ends.append(end)

    def stop(self) -> None:
        # First whoever still starts something, lest it is left behind.
        self._starters.shutdown(cancel_futures=True)
        for end in reversed(self._ends):
            end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ours alone")
    parser.add_argument("--keep", action="store_true", help="keep configurations and logs, and say where they are")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="these of them; default: all that are installed")
    options = parser.parse_args()
    peers = {} if options.quick else installed()
    if options.peers:
        peers = {name: peers[name] for name in options.peers}
    ours = Column(OurPeer.name, OurPeer, None)
    own = [Column(name, start, None) for name, start in peers.items()]
    short = [Column(name, start, SHORT) for name, start in peers.items()]

    leave_at_termination()
    root = Path(tempfile.mkdtemp(prefix="edgecache-benchmark-"))
    # A server that changes its user, as squid does, needs the way to its own directory.
    root.chmod(0o755)
    began = time.monotonic()
    run = Run(root)
    try:
        run.columns([ours], together=False)
        if peers:
            run.columns(own + short, together=True)
    finally:
        run.stop()
        if options.keep:
            print(f"kept: {root}", file=sys.stderr)
        else:
            shutil.rmtree(root)
    if peers:
        print("The peers with their own deadlines\n")
        print(_table([ours, *own]))
        print("\nThe peers with ours: connect 2 s, head 5 s, stall 3 s, 12 s in all\n")
        print(_table([ours, *short]))
        print(
            "\nHAProxy and Varnish check actively and had 8 s to find out what was down from the start; "
            "BAD is fine for checks where it only stalls."
        )
    else:
        print(_table([ours]))
    print(f"\nAge, CS: Cache-Status, PS: Proxy-Status. {time.monotonic() - began:.0f} s")
    return 1 if run.failed else 0


def _table(columns: list[Column]) -> str:
    rows = [["", *(column.name for column in columns)]]
    for scenario in SCENARIOS:
        for label in scenario.labels:
            rows.append([label.strip(), *(column.cells.get(label, "?") for column in columns)])
    return table(rows)


if __name__ == "__main__":
    sys.exit(main())
