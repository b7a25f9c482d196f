"""What a worker gets from the node process, and what it makes of that alone: its notes of what clients asked for."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import Any

from attrs import field, frozen

from edgecache.index.downloads import DIRECTORY as DOWNLOADS
from edgecache.processes.channel import Channel
from edgecache.processes.timers import LoopTimers
from edgecache.store.environments import Environments
from edgecache.store.page import Page
from edgecache.store.threads import OneThread
from edgecache.wire.access import AccessLog
from edgecache.wire.downloads import DownloadEvents
from edgecache.words.config import Config
from edgecache.words.errors import StartError


@frozen(eq=False, repr=False)
class WorkerParts:
    """
    Everything that a worker gets from the node process.

    :ivar index: which of the ``count`` workers; it owns the keys whose hash says so.
    :ivar spawn: number of this incarnation, in no other worker's life again; orphan rows carry it.
    :ivar data: the data directory; its lock is held by this process too.
    :ivar page: the mapped page, opened for block ``index``.
    :ivar channel: to the node process.
    :ivar sockets: listening sockets of the public listener, one per address, this worker's own.
    :ivar owner_socket: listening Unix socket on which other workers ask this one, ``None`` for a lone worker.
    :ivar owner_paths: path of each worker's ``owner_socket``, by index; empty for a lone worker.
    :ivar content: listening sockets for siblings' look-ups, one per address, this worker's own.
    """

    config: Config
    index: int
    count: int
    spawn: int
    data: str
    page: Page
    channel: Channel
    environments: Environments
    sockets: list[socket.socket]
    owner_socket: socket.socket | None
    owner_paths: list[str]
    reactor: Any
    loop: asyncio.AbstractEventLoop
    content: list[socket.socket] = field(factory=list)


@frozen(eq=False, repr=False)
class CountedDownloads:
    """
    Those of one worker, on their way to disk.

    :ivar thread: writes them.
    """

    events: DownloadEvents
    thread: OneThread

    @classmethod
    def of(cls, parts: WorkerParts) -> CountedDownloads | None:
        """:return: ``None`` where nothing is counted."""
        if not parts.config.counts_downloads:
            return None
        thread = OneThread.named(parts.reactor, "downloads")
        thread.start()
        events = DownloadEvents(
            os.path.join(parts.data, DOWNLOADS),
            parts.config.node.id,
            parts.config.index.log_pages,
            parts.page,
            LoopTimers(parts.loop),
            parts.loop.call_soon,
            thread,
        )
        return cls(events, thread)


def access_log(parts: WorkerParts) -> AccessLog | None:
    """
    :return: open; ``None`` where none is kept.
    :raises StartError: it cannot be opened.
    """
    settings = parts.config.log
    if not settings.access:
        return None
    access = AccessLog(settings.access, settings.format == "combined", time.time, parts.loop.call_soon)
    try:
        access.open()
    except OSError as error:
        raise StartError(f"access log {settings.access}: {os.strerror(error.errno or 0)}") from error
    return access
