"""
What goes on during a soak: clients of every kind whose sizes change, purges, origins that fail, a sibling that dies.

All that is drawn comes from one seed; every octet that a client is given is compared with what is due.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from enum import Enum, auto
from urllib.parse import urlsplit

from attrs import define, field

from tests.system.clients import Answer, Download
from tests.system.contents import PIECE, Artifact, first_difference
from tests.system.fleet import Fleet
from tests.system.harness import Node
from tests.system.origins import BEFORE_HEAD, Hold, Origin, Reply, Seen

KIB = 1 << 10
MIXES = (
    {2 * KIB: 60, 14 * KIB: 30, 180 * KIB: 8, 3_000 * KIB: 2},
    {14 * KIB: 30, 66 * KIB: 30, 180 * KIB: 30, 1_100 * KIB: 10},
    {700: 50, 31 * KIB: 40, 400 * KIB: 9, 4_300 * KIB: 1},
    {66 * KIB: 20, 700 * KIB: 50, 1_100 * KIB: 25, 4_300 * KIB: 5},
)
"""Sizes and how often each is asked for; one mix follows the other."""

_TAGS = 40
_MOST_NUMBER = 4_000
_SLOW_OCTETS_PER_SECOND = 200 * KIB
_SLOW_SECONDS = 3.0
_RESET = struct.pack("ii", 1, 0)
_SMALL = 32 * KIB


class Wrong(AssertionError):
    """A client was given something else than what it asked for."""


class Mood(Enum):
    """How an origin is."""

    GOOD = auto()
    FAILING = auto()
    HANGING = auto()
    GONE = auto()


@define(eq=False)
class MoodyOrigin:
    """Any artifact; and it can be in any mood."""

    origin: Origin = field(init=False)
    mood: Mood = Mood.GOOD
    _hold: Hold = field(factory=lambda: Hold(BEFORE_HEAD))

    def __attrs_post_init__(self) -> None:
        self.origin = Origin(self._reply)

    def become(self, mood: Mood) -> None:
        """From now on; what hangs is let go."""
        self._hold.release()
        self._hold = Hold(BEFORE_HEAD)
        self.mood = mood
        if mood is Mood.GONE:
            self.origin.stop()
        else:
            self.origin.start()
        # A soak is long, and nobody looks.
        self.origin.forget()

    def _reply(self, seen: Seen) -> Reply | None:
        if not seen.target.startswith("/packages/"):
            return None
        fields = (("Cache-Control", "max-age=86400"), ("Surrogate-Key", tag_of(seen.target)))
        status = 503 if self.mood is Mood.FAILING else 200
        hold = self._hold if self.mood is Mood.HANGING else None
        return Reply(artifact_of(seen.target), status, fields, etag_of(seen.target), hold)


def artifact_of(target: str) -> Artifact:
    """``/packages/<size>/<number>`` names its content."""
    return Artifact(target, int(target.split("/")[2]))


def etag_of(target: str) -> str:
    """Of the one version that there is."""
    return f'"{target}"'


def tag_of(target: str) -> str:
    """Some of all targets have it."""
    return f"t{int(target.split('/')[3]) % _TAGS}"


@define(eq=False)
class Clients:
    """
    ``count`` threads that ask the nodes for this and that until ``over``.

    :ivar counts: of what happened, by a word.
    :ivar errors: of nodes' own errors, by what Proxy-Status says of them.
    :ivar waits: seconds of small hits since :meth:`take`.
    :ivar down: nodes that are killed, and asked by nobody.
    :ivar failure: of the first client that was given something wrong.
    """

    fleet: Fleet
    seed: int
    mix: dict[int, int] = field(factory=lambda: dict(MIXES[0]))
    counts: Counter[str] = field(factory=Counter)
    errors: Counter[str] = field(factory=Counter)
    waits: list[float] = field(factory=list)
    octets: int = 0
    failure: BaseException | None = None
    down: set[str] = field(factory=set)
    _over: threading.Event = field(factory=threading.Event)
    _lock: threading.Lock = field(factory=threading.Lock)
    _threads: list[threading.Thread] = field(factory=list)

    def start(self, count: int) -> None:
        for number in range(count):
            thread = threading.Thread(target=self._run, args=(random.Random(f"{self.seed} {number}"),), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """
        :raises Wrong: what a client saw.
        """
        self._over.set()
        for thread in self._threads:
            thread.join(120)
        if self.failure is not None:
            raise self.failure

    def take(self) -> tuple[list[float], int]:
        """:return: waits and octets since the last time."""
        with self._lock:
            waits, self.waits = self.waits, []
            octets, self.octets = self.octets, 0
        return waits, octets

    def _run(self, choices: random.Random) -> None:
        ways = (self._whole, self._whole, self._whole, self._part, self._known, self._leaves, self._slowly)
        weights = (30, 30, 20, 10, 6, 3, 1)
        while not self._over.is_set() and self.failure is None:
            name = choices.choice([each for each in self.fleet.ids if each not in self.down])
            size = choices.choices(list(self.mix), list(self.mix.values()))[0]
            target = f"/packages/{size}/{int(choices.paretovariate(0.7)) % _MOST_NUMBER}"
            way = choices.choices(ways, weights)[0]
            try:
                way(self.fleet.nodes[name], target, choices)
            except (OSError, http.client.HTTPException) as error:
                # A node that was killed; any other answers everybody.
                if name not in self.down:
                    self.failure = Wrong(f"{name} {target}: {error!r}")
                self._count("interrupted")
                self._over.wait(0.05)
            except BaseException as failure:  # noqa: BLE001  # raised again by stop()
                self.failure = failure

    def _count(self, word: str, octets: int = 0, seconds: float | None = None) -> None:
        with self._lock:
            self.counts[word] += 1
            self.octets += octets
            if seconds is not None:
                self.waits.append(seconds)

    def _judge(self, node: Node, target: str, answer: Answer, start: int, stop: int, statuses: tuple[int, ...]) -> None:
        if answer.status >= 500:
            self._count(f"{answer.status} at {node.root.name}")
            with self._lock:
                self.errors[f"{node.root.name}: {answer.fields.get('proxy-status')}"] += 1
            return
        if answer.status not in statuses:
            raise Wrong(f"{target}: {answer}")
        if not answer.complete:
            self._count(f"cut at {node.root.name}")
        if first_difference(artifact_of(target), start, answer.content) is not None:
            raise Wrong(f"{target} from {start}: {answer}")
        if answer.complete and len(answer.content) != stop - start:
            raise Wrong(f"{target}: {len(answer.content)} octets of {stop - start}, {answer}")

    def _whole(self, node: Node, target: str, choices: random.Random) -> None:
        began = time.monotonic()
        answer = node.ask(target)
        took = time.monotonic() - began
        self._judge(node, target, answer, 0, artifact_of(target).size, (200,))
        small = answer.hit and len(answer.content) <= _SMALL
        self._count("hit" if answer.hit else "miss", len(answer.content), took if small else None)

    def _part(self, node: Node, target: str, choices: random.Random) -> None:
        size = artifact_of(target).size
        start = choices.randrange(size)
        stop = min(size, start + choices.choice((1, 500, 16 * KIB, 300 * KIB)))
        answer = node.ask(target, fields={"Range": f"bytes={start}-{stop - 1}"})
        if answer.status == 200:
            start, stop = 0, size
        elif answer.status == 206 and answer.fields["content-range"] != f"bytes {start}-{stop - 1}/{size}":
            raise Wrong(f"{target} {start}-{stop}: {answer.fields}")
        self._judge(node, target, answer, start, stop, (200, 206))
        self._count("part", len(answer.content))

    def _known(self, node: Node, target: str, choices: random.Random) -> None:
        answer = node.ask(target, fields={"If-None-Match": etag_of(target)})
        self._judge(node, target, answer, 0, 0 if answer.status == 304 else artifact_of(target).size, (200, 304))
        self._count("known")

    def _leaves(self, node: Node, target: str, choices: random.Random) -> None:
        """In the middle, without a word, or with a reset."""
        parts = urlsplit(node.url)
        with socket.create_connection((str(parts.hostname), parts.port), timeout=120) as sock:
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            sock.recv(choices.choice((1, 100, PIECE)))
            if choices.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._count("left")

    def _slowly(self, node: Node, target: str, choices: random.Random) -> None:
        download = Download(node.url, target, artifact_of(target), receive_buffer=16 * KIB)
        enough = threading.Event()
        timer = threading.Timer(_SLOW_SECONDS, enough.set)
        timer.start()
        try:
            download.read_slowly(_SLOW_OCTETS_PER_SECOND, enough)
        finally:
            timer.cancel()
            download.close()
        if download.status == 200 and download.wrong_at is not None:
            raise Wrong(f"{target}: {download}")
        self._count("slow", download.position)


@define(eq=False)
class Trouble:
    """
    What happens to the fleet; one thing after the other.

    At any time one of two origins is good, and only the last node ever dies.
    """

    clients: Clients
    origins: tuple[MoodyOrigin, MoodyOrigin]
    choices: random.Random
    done: Counter[str] = field(factory=Counter)

    def next(self) -> None:
        """One more."""
        ways: tuple[Callable[[], None], ...] = (self._purge, self._origin, self._sibling, self._mix)
        self.choices.choices(ways, (60, 20, 8, 12))[0]()

    def settle(self) -> None:
        """All is well from now on."""
        for origin in self.origins:
            origin.become(Mood.GOOD)
        self._back()

    def _purge(self) -> None:
        target = f"/packages/{self.choices.choice(list(self.clients.mix))}/{self.choices.randrange(200)}"
        documents = (
            {"urls": [target]},
            {"prefixes": [target.rpartition("/")[0] + "/"]},
            {"tags": [tag_of(target)]},
            {"all": True},
        )
        document = self.choices.choices(documents, (50, 20, 29, 1))[0]
        mode = self.choice_of("revalidate", "delete", "soft")
        node = self.clients.fleet.nodes[self.choice_of(*self.clients.fleet.ids[:2])]
        wait = self.choice_of("durable", "effective")
        answer = node.admin("POST", f"/purge?wait={wait}&timeout=2", {**document, "mode": mode})
        # 503: too few have heard of it in time. Where one of three is down and all is busy, that is honest; it spreads.
        if answer.status not in (200, 202, 503):
            raise Wrong(f"purge of {document}: {answer}")
        self.done[f"purge {'kept here' if answer.status == 503 else next(iter(document))}"] += 1

    def choice_of(self, *words: str) -> str:
        return self.choices.choice(words)

    def _origin(self) -> None:
        bad, good = self.choices.sample(self.origins, 2)
        good.become(Mood.GOOD)
        mood = self.choices.choice(list(Mood))
        bad.become(mood)
        self.done[f"origin {mood.name.lower()}"] += 1

    def _sibling(self) -> None:
        if self.clients.down:
            self._back()
            return
        name = self.clients.fleet.ids[-1]
        self.clients.down.add(name)
        self.clients.fleet.nodes[name].kill(self.choices)
        self.done["sibling killed"] += 1

    def _back(self) -> None:
        for name in list(self.clients.down):
            self.clients.fleet.nodes[name].start()
            self.clients.down.remove(name)

    def _mix(self) -> None:
        self.clients.mix = dict(self.choices.choice(MIXES))
        self.done["mix"] += 1
