"""What a node's processes use while something goes on."""

from __future__ import annotations

import threading
from typing import Protocol

from tests.system import processes


class Family(Protocol):
    """Processes that come and go: a node's."""

    def family(self) -> list[int]: ...


class MemoryWatch:
    """The most memory of their own that a node's processes had together while this was open."""

    def __init__(self, node: Family) -> None:
        self._node = node
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.most = 0

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self.most = max(self.most, processes.anonymous_octets(self._node.family()))

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._over.set()
        self._thread.join()
