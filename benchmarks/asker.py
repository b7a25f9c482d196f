"""
One worker of a node whose siblings are only simulated: they answer look-ups of content, and nothing else.

``asker.py CONFIGURATION SOCKET PORTS``: a TOML file, the listening socket's descriptor, and the port of each address
as JSON, by name. It holds a lease as a node without siblings does, and has applied a log of each sibling.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgecache.processes.loop import install_reactor


async def start(reactor: Any, loop: asyncio.AbstractEventLoop) -> None:
    from edgecache.processes.channel import pair
    from edgecache.processes.settings import load, local_facts, read_secret
    from edgecache.store.control import Control
    from edgecache.store.environments import Environments
    from edgecache.store.page import Page
    from edgecache.store.pagelayout import FREE
    from edgecache.store.pagewriter import PageWriter
    from edgecache.store.threads import OneThread
    from edgecache.words.purging import LogName
    from edgecache.words.reading import build
    from edgecache.workerparts import WorkerParts
    from edgecache.workers import start_worker

    config = build(load(sys.argv[1]), local_facts(), read_secret)
    data = config.node.data
    environments = Environments.open(data, config.store, node_process=True)
    page = PageWriter.create(os.path.join(data, "page"), 1)
    page.publish_fresh_until(FREE)
    thread = OneThread.named(reactor, "control")
    thread.start()
    control = Control.open(
        environments.control, page, thread, node_id=config.node.id, incarnation=environments.incarnation
    )
    await control.adopt({LogName(other.id, os.urandom(16)): 1000 for other in config.others}, [])
    node, channel = pair(loop.call_soon)
    await start_worker(
        WorkerParts(
            config=config,
            index=0,
            count=1,
            spawn=1,
            data=data,
            page=Page.open(page.path, 0),
            channel=channel,
            environments=environments,
            sockets=[socket.socket(fileno=int(sys.argv[2]))],
            owner_socket=None,
            owner_paths=[],
            reactor=reactor,
            loop=loop,
        )
    )
    ports = json.loads(sys.argv[3])
    node.notify("addresses", origins={name: [["127.0.0.1", port, at]] for at, (name, port) in enumerate(ports.items())})


def main() -> None:
    reactor, loop = install_reactor()
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    def failed(failure: Failure) -> None:
        failure.printTraceback()
        os._exit(1)

    _ = Deferred.fromCoroutine(start(reactor, loop)).addErrback(failed)
    reactor.run()


if __name__ == "__main__":
    main()
