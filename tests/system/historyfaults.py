"""What happens to a fleet in a history: a seed decides it, phase by phase, and each fault ends."""

from __future__ import annotations

import os
import queue
import random
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field, frozen

from tests.system.clients import Together
from tests.system.harness import Node
from tests.system.history import CONTENT, CONTROL, DOWNLOADS, Disturbed, now
from tests.system.historychecks import ORIGIN
from tests.system.historystage import Stage
from tests.system.namespaces import can_lose
from tests.system.processes import kill_now

CABLES = ("cut", "deafen", "mute", "loss")
NODES = ("kill", "kill-worker", "stop", "stop-one", "restart", "lose", "lose-control", "lose-content")
ORIGINS = ("origin-down", "origin-hangs")
LONG = "long-cable"
_LOST = {"lose": (CONTROL, CONTENT, DOWNLOADS), "lose-control": (CONTROL, CONTENT), "lose-content": (CONTENT,)}
# Without its control a node moves its content aside: it is that of another incarnation.
_PARTS = {"lose": (".",), "lose-control": ("control",), "lose-content": ("small", "blobs")}
_PATIENCE_SECONDS = 120.0


@frozen
class Fault:
    """
    :ivar node: whom it befalls.
    :ivar begins: seconds after its phase.
    :ivar lasts: seconds.
    :ivar much: from 0 to 1, where a fault can be more or less.
    """

    kind: str
    node: str
    begins: float
    lasts: float
    much: float

    def __str__(self) -> str:
        return f"{self.kind} {self.node} {self.begins:.1f}+{self.lasts:.1f}"


Phase = tuple[Fault, ...]


def phases(seed: int, ids: list[str], seconds: float) -> Iterator[Phase]:
    """
    What befalls these nodes, for ever: at most one fault of the cables, one of the origin, and two of nodes at a time.

    A node's data are lost once at most: others are to have all of it by then, and a majority that loses its disks has
    lost what was on them.

    :param seconds: that a phase lasts at most.
    """
    chance = random.Random(seed)
    cables = CABLES if can_lose() else tuple(kind for kind in CABLES if kind != "loss")
    kinds = list(NODES)

    def drawn(kind: str, node: str) -> Fault:
        lasts = seconds * chance.uniform(0.3, 1.0)
        return Fault(kind, node, chance.uniform(0.0, seconds - lasts), lasts, chance.random())

    while True:
        found = []
        if chance.random() < 0.6:
            found.append(drawn(chance.choice(cables), chance.choice(ids)))
        if chance.random() < 0.4:
            found.append(drawn(LONG, chance.choice(ids)))
        if chance.random() < 0.3:
            found.append(drawn(chance.choice(ORIGINS), ORIGIN))
        for node in chance.sample(ids, chance.choice((0, 1, 1, 2))):
            kind = chance.choice(kinds)
            if kind.startswith("lose"):
                kinds = [each for each in NODES if not each.startswith("lose")]
            found.append(drawn(kind, node))
        if found:
            yield tuple(found)


@define(eq=False)
class Troubles:
    """
    Plays phases on a stage.

    :ivar played: faults by kind.
    """

    stage: Stage
    played: list[str] = field(factory=list)
    _over: threading.Event = field(factory=threading.Event)
    _asked: queue.Queue[tuple[Node, threading.Event] | None] = field(factory=queue.Queue)

    def play(self, phase: Phase) -> None:
        """Returns when its faults are over, and every node answers."""
        together = Together()
        for fault in phase:
            self.played.append(fault.kind)
            together.start(self._befall_and_end, fault)
        left = len(phase)
        while left:
            asked = self._asked.get(timeout=_PATIENCE_SECONDS)
            if asked is None:
                left -= 1
            else:
                # A node dies with the thread that started it: this one stays.
                node, launched = asked
                node.launch()
                launched.set()
        together.join()

    def _befall_and_end(self, fault: Fault) -> None:
        try:
            self._befall(fault)
        finally:
            self._asked.put(None)

    def _befall(self, fault: Fault) -> None:
        self._over.wait(fault.begins)
        if fault.kind in CABLES:
            with self._disturbed(fault, []):
                self._on_cables(fault)
        elif fault.kind == LONG:
            with self._disturbed(fault, []):
                self._lengthen(fault)
        elif fault.kind in ORIGINS:
            with self._disturbed(fault, [ORIGIN]):
                self._on_origin(fault)
        else:
            self._on_node(fault, self.stage.fleet.nodes[fault.node])

    @contextmanager
    def _disturbed(self, fault: Fault, nodes: list[str]) -> Iterator[None]:
        began = now()
        try:
            yield
        finally:
            self.stage.keeper.keep(Disturbed(fault.kind, began, now(), nodes))

    def _wait(self, fault: Fault) -> None:
        self._over.wait(fault.lasts)

    def _on_cables(self, fault: Fault) -> None:
        network, others = self.stage.network, [name for name in self.stage.fleet.ids if name != fault.node]
        try:
            match fault.kind:
                case "cut":
                    network.cut(fault.node)
                case "deafen":
                    for name in others:
                        network.mute(name, fault.node)
                case "mute":
                    network.mute(fault.node, *others)
                case _:
                    network.lose(fault.node, 5 + int(60 * fault.much))
            self._wait(fault)
        finally:
            network.heal()

    def _lengthen(self, fault: Fault) -> None:
        process = self.stage.long.get(fault.node)
        if process is None:
            return
        process.delay(0.02 + 0.6 * fault.much)
        self._wait(fault)
        process.delay(0.0)

    def _on_origin(self, fault: Fault) -> None:
        publication = self.stage.publication
        if fault.kind == "origin-down":
            publication.stop()
            self._wait(fault)
            publication.start()
        else:
            publication.hold()
            self._wait(fault)
            publication.go_on()

    def _on_node(self, fault: Fault, node: Node) -> None:
        began = now()
        gone, died = 0.0, False
        workers = node.worker_pids()
        match fault.kind:
            case "stop":
                self._stopped(fault, node.family())
            case "stop-one":
                # The watchdog kills a worker that stands still.
                died = bool(workers) and fault.much < 0.5
                self._stopped(fault, [workers[int(fault.much * len(workers))] if died else node.twistd_pid()])
            case "kill-worker" if workers:
                died = True
                kill_now(workers[: 1 + int(fault.much * len(workers))])
                self._wait(fault)
            case _:
                gone, died = self._died(fault, node), True
        # A worker is back when its place answers; a node that had to catch up may be fenced a little longer.
        node.wait_ready()
        lost = list(_LOST.get(fault.kind, ()))
        self.stage.keeper.keep(Disturbed(fault.kind, began, now(), [fault.node], died, gone, lost))

    def _died(self, fault: Fault, node: Node) -> float:
        """:return: when it was gone."""
        if fault.kind == "restart":
            node.stop()
        else:
            node.kill(random.Random(fault.much))
        gone = now()
        for part in _PARTS.get(fault.kind, ()):
            shutil.rmtree(node.data / part)
        self._wait(fault)
        launched = threading.Event()
        self._asked.put((node, launched))
        launched.wait(_PATIENCE_SECONDS)
        return gone

    def _stopped(self, fault: Fault, pids: list[int]) -> None:
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        self._wait(fault)
        for pid in pids:
            _send(pid, signal.SIGCONT)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        # Killed meanwhile, by its own watchdog.
        return
