"""
Clients that fill a node with many artifacts of many sizes, check every octet, and know what the node must not lose.

Everything that is drawn comes from one ``random.Random``, so that a run's choices are known by its seed; what the
machine's scheduling adds is what the crash tests are after.
"""

from __future__ import annotations

import http.client
import random
import threading

from attrs import define, field

from tests.system.clients import Answer, ask
from tests.system.contents import Artifact
from tests.system.origins import Reply, Seen

# Around every boundary of the store: one piece, 64 KiB, one chunk and its tail, many chunks.
SIZES = (1, 700, 8_192, 16_300, 65_000, 65_512, 65_536, 200_000, 1_048_576, 4_300_000)


def artifact_of(target: str) -> Artifact:
    """``/packages/<size>/<name>`` names its content completely."""
    _, _, size, _ = target.split("/")
    return Artifact(target, int(size))


def reply_to(seen: Seen) -> Reply | None:
    """An origin's default: any artifact that is asked for."""
    if not seen.target.startswith("/packages/"):
        return None
    return Reply(artifact_of(seen.target), etag=f'"{seen.target}"')


class Wrong(AssertionError):
    """A client was given octets that are not those of what it asked for, as if they were."""


def check(target: str, answer: Answer) -> bool:
    """
    Is this a complete answer? One that was cut must be seen to be, and be right as far as it goes.

    :raises Wrong: it is neither an honest error nor the content.
    """
    due = artifact_of(target).whole()
    if answer.status >= 500:
        return False
    if answer.status != 200:
        raise Wrong(f"{target}: {answer}")
    if answer.complete and answer.content != due:
        raise Wrong(f"{target}: {len(answer.content)} octets of {len(due)}, {answer}")
    if not due.startswith(answer.content):
        raise Wrong(f"{target}: cut after {len(answer.content)} octets, and these are not the first ones")
    return answer.complete


@define(eq=False)
class Traffic:
    """
    ``clients`` threads that ask for new and for known artifacts until ``stop``.

    :ivar committed: what a client got as a hit: its record was on disk, so it must survive every crash.
    :ivar received: octets in all; what the crashes are timed by.
    """

    url: str
    random: random.Random
    clients: int = 4
    committed: set[str] = field(factory=set)
    asked: list[str] = field(factory=list)
    received: int = 0
    answered: int = 0
    interrupted: int = 0
    failure: BaseException | None = None
    _lock: threading.Condition = field(factory=threading.Condition)
    _over: threading.Event = field(factory=threading.Event)
    _threads: list[threading.Thread] = field(factory=list)

    def start(self) -> None:
        self._over.clear()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(self.clients)]
        for thread in self._threads:
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

    def wait_received(self, more: int) -> None:
        """Return when so many more octets were received, which is in the middle of something."""
        with self._lock:
            goal = self.received + more
            self._lock.wait_for(lambda: self.received >= goal or self.failure is not None, timeout=300)
            if self.failure is not None:
                raise self.failure
            if self.received < goal:
                raise AssertionError(f"the node answered {self.received} octets of {goal} in five minutes")

    def _draw(self) -> str:
        with self._lock:
            if self.asked and self.random.random() < 0.5:
                # Mostly recent ones: being filled, committed, or just now read by others.
                return self.random.choice(self.asked[-12:])
            target = f"/packages/{self.random.choice(SIZES)}/{len(self.asked)}.whl"
            self.asked.append(target)
            return target

    def _run(self) -> None:
        while not self._over.is_set():
            target = self._draw()
            try:
                answer = ask(self.url, target)
                whole = check(target, answer)
            except (OSError, http.client.HTTPException):
                # Nobody listened, or the connection ended before a head: the crash.
                with self._lock:
                    self.interrupted += 1
                self._over.wait(0.05)
                continue
            except BaseException as failure:  # noqa: BLE001  # raised again by stop()
                with self._lock:
                    self.failure = failure
                    self._lock.notify_all()
                return
            with self._lock:
                self.answered += 1
                self.interrupted += not whole
                self.received += len(answer.content)
                if whole and answer.hit:
                    self.committed.add(target)
                self._lock.notify_all()


def lost(url: str, committed: set[str]) -> list[str]:
    """Those of ``committed`` that the store does not have any more; asked so that nothing is filled."""
    missing = []
    for target in sorted(committed):
        answer = ask(url, target, fields={"Cache-Control": "only-if-cached"})
        if not (check(target, answer) and answer.hit):
            missing.append(f"{target}: {answer}")
    return missing
