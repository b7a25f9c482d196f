"""
A resolver with real names, run by test_resolving where it may write the hosts file: ``python -m``, with that file.

Prints one JSON line for each step: what was published last, and how often names were asked for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.python.threadpool import ThreadPool

from edgecache.processes.loop import install_reactor
from edgecache.processes.timers import LoopTimers
from edgecache.upstream.addresses import parse_origin
from edgecache.upstream.resolving import Resolver, thread_look_up
from edgecache.words.config import Secret, UpstreamSettings

NAME = "origin.test"
PROXY = "proxy.test"
MANY = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "192.0.2.1")


def main(hosts: str, proxied: bool) -> None:
    """:param proxied: is the origin behind a proxy, whose name is the one in the file?"""
    reactor, loop = install_reactor()
    settings = UpstreamSettings(resolve_seconds=0.02, proxy=Secret(f"http://{PROXY}:3128") if proxied else None)
    name = PROXY if proxied else NAME
    pool = ThreadPool(0, 2)
    look_up = thread_look_up(reactor, pool)
    asked = 0
    published: list[dict[str, Any]] = []
    failures = 0

    def write(*addresses: str) -> None:
        with open(hosts, "w") as file:
            file.writelines(f"{address} {name}\n" for address in addresses)

    def ask(host: str, port: int) -> Deferred[list[str]]:
        nonlocal asked
        asked += 1
        if until is not None and until():
            loop.call_soon(advance)
        return look_up(host, port)

    def observe(event: Any) -> None:
        nonlocal failures
        failures += "cannot resolve" in (event.get("log_format") or "")

    def story() -> Iterator[Callable[[], bool]]:
        write(*MANY)
        _ = resolver.start()
        yield lambda: bool(published)
        say()
        write()
        yield lambda: failures > 0
        after = asked + 5
        yield lambda: asked > after
        say()
        write("192.0.2.3", "2001:db8::1")
        yield lambda: len(published) > 1
        say()

    def say() -> None:
        (rows,) = resolver.document["origins"].values()
        sys.stdout.write(json.dumps({"rows": rows, "failures": failures, "published": len(published)}) + "\n")

    until: Callable[[], bool] | None = None

    def advance() -> None:
        nonlocal until
        until = next(telling, None)
        if until is None:
            resolver.stop()
            pool.stop()
            reactor.stop()

    resolver = Resolver([parse_origin(f"http://{NAME}:81")], LoopTimers(loop), settings, ask, published.append)
    globalLogPublisher.addObserver(observe)
    pool.start()
    telling = story()
    reactor.callWhenRunning(advance)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "proxied")
