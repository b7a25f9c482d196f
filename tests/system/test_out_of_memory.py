"""A worker that gets no more memory: answers are exact or broken off, and all is well again once there is some."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import resource
import threading

from attrs import define, field

from tests.system.clients import ask
from tests.system.processes import until
from tests.system.starving import StarvingCase, address_space
from tests.system.traffic import Wrong, check, lost

REQUESTS = int(os.environ.get("EDGECACHE_STARVED", "80"))
SEED = int(os.environ.get("EDGECACHE_SEED", random.SystemRandom().randrange(1 << 32)))
SIZES = (700, 65_536, 1_048_576, 4_300_000, 20_000_000)
# Enough for little things, and for one large content at a time.
SPARE = 8 << 20


@define(eq=False)
class Hungry:
    """Clients that ask for more at once than there is memory for."""

    url: str
    known: list[str]
    whole: int = 0
    refused: int = 0
    failure: BaseException | None = None
    unanswered: list[str] = field(factory=list)

    def run(self, clients: int) -> None:
        """:raises Wrong: octets that are not what was asked for."""
        threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self, client: int) -> None:
        chance = random.Random(SEED + client)
        for number in range(REQUESTS // 10):
            target = f"/packages/{chance.choice(SIZES)}/{client}-{number}.whl"
            if chance.random() < 0.5:
                target = chance.choice(self.known)
            try:
                self.whole += check(target, ask(self.url, target, seconds=120))
            except TimeoutError:
                self.unanswered.append(target)
            except (OSError, http.client.HTTPException):
                self.refused += 1
            except Wrong as wrong:
                self.failure = wrong


class OutOfMemoryTests(StarvingCase):
    def gauge(self, name: str) -> int:
        lines = self.node.admin("GET", "/metrics").content.decode().splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith(name) and line[len(name)] in " {")

    def test_nobody_is_given_other_octets_or_left_waiting_and_the_worker_goes_on_as_before(self) -> None:
        known = [f"/packages/{size}/known.whl" for size in SIZES]
        for target in known:
            until(lambda target=target: self.node.ask(target).hit, target)  # type: ignore[misc]
        hungry = Hungry(self.node.url, known)
        # How much is asked for at once, and how much a Python has in reserve, is not ours to say.
        for spare in (SPARE, SPARE // 2, SPARE // 4, SPARE // 8):
            if "MemoryError" in self.node.log:
                break
            for pid in self.node.worker_pids():
                # One that died of it is being replaced.
                with contextlib.suppress(OSError):
                    resource.prlimit(pid, resource.RLIMIT_AS, (address_space(pid) + spare, resource.RLIM_INFINITY))
            hungry.run(10)
        for pid in self.node.worker_pids():
            resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.assertEqual([], hungry.unanswered, f"EDGECACHE_SEED={SEED}")
        self.assertIn("MemoryError", self.node.log, "there was enough")
        until(lambda: len(self.node.worker_pids()) == 2, "both workers")
        self.assertEqual([], lost(self.node.url, set(known)))
        for size in SIZES:
            target = f"/packages/{size}/after.whl"
            until(lambda target=target: self.node.ask(target).hit, target)  # type: ignore[misc]
        until(lambda: not self.gauge("edgecache_fills_running"), "the end of all fills")
