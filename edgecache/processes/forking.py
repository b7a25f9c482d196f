"""The node process's side of the nursery (:mod:`edgecache.processes.nursery`), from which its workers are forked."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.processes.nursery import ALIVE, OUTPUT, REQUESTS

_log = Logger()

Say = Callable[[bytes], None]


@define(eq=False)
class Child:
    """
    One worker that was asked for.

    :ivar born: told its process id.
    :ivar ended: told its wait status, once, when it has ended and all that it said has been read.
    :ivar refused: told instead of both why it cannot be.
    """

    born: Callable[[int], None]
    ended: Callable[[int], None]
    refused: Callable[[str], None]
    _status: int | None = None
    _silent: bool = False

    def died(self, status: int) -> None:
        """The nursery says so."""
        self._status = status
        self._perhaps()

    def fell_silent(self) -> None:
        """Its standard error has ended."""
        self._silent = True
        self._perhaps()

    def _perhaps(self) -> None:
        if self._silent and self._status is not None:
            self.ended(self._status)


@define(eq=False)
class Forks:
    """
    Has workers forked; the nursery is started when the first one is asked for, and anew when it has died.

    Its workers die with it, as it dies with this process. One that stands still (somebody has stopped it) could replace
    no worker and tell of no death: :meth:`watch` has it go on, or ends it.

    :ivar module: whose ``main`` is a worker.
    :ivar patience: ticks that it may stand still; eight times as many while it starts.
    """

    _reactor: Any
    module: str
    patience: int
    _requests: socket.socket | None = None
    _nursery: Any = None
    _stopped: list[Deferred[None]] = field(factory=list)
    _children: dict[int, Child] = field(factory=dict)
    _last: int = 0
    # Ticks since it was asked whether it lives, 0 when it has answered; whether it ever did.
    _silent: int = 0
    _answered: bool = False

    def fork(self, child: Child, say: Say, descriptors: list[int]) -> None:
        """
        :param say: gets each line of its standard error.
        :param descriptors: that it has from 3 on.
        :raises OSError: the nursery cannot be run.
        """
        if self._requests is None:
            self._requests = self._start()
        ours, theirs = socket.socketpair()
        self._last += 1
        self._children[self._last] = child
        try:
            with theirs:
                socket.send_fds(self._requests, [b"%d" % self._last], [theirs.fileno(), *descriptors])
        except OSError:
            # It has died, which we are yet to be told; or it stands still, and enough waits for it.
            del self._children[self._last]
            ours.close()
            raise
        ours.setblocking(False)
        self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, _Once(_Lines(say, child.fell_silent)))
        ours.close()

    def watch(self) -> None:
        """
        Once a tick: does it still answer?

        First it is told to go on, which undoes a stop and harms nobody. Only then it is killed, for its workers die
        with it: without it they could not be replaced, and nobody would be told how they end.
        """
        if self._requests is None or self._stopped:
            return
        if self._silent:
            self._silent += 1
            limit = self.patience if self._answered else 8 * self.patience
            if self._silent == max(2, limit // 2):
                self._signal(signal.SIGCONT)
            elif self._silent > limit:
                _log.error(
                    "the process that workers are forked from stands still; it is killed, and its workers with it"
                )
                self._signal(signal.SIGKILL)
                self._silent = 1
            return
        self._silent = 1
        try:
            self._requests.send(ALIVE)
        except OSError:
            return  # as in `fork`

    def stop(self) -> Deferred[None]:
        """There are no workers any more, and there will be none; fires when the nursery has ended."""
        if self._requests is None:
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        self._signal(signal.SIGKILL)
        return stopped

    def _signal(self, number: signal.Signals) -> None:
        try:
            self._nursery.signalProcess(int(number))
        except ProcessExitedAlready:
            return  # which we are yet to be told

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # While it stands still, nobody may stand still with it.
        ours.setblocking(False)
        self._silent, self._answered = 0, False
        with theirs, open(os.devnull, "rb") as nothing:
            self._nursery = self._reactor.spawnProcess(
                _Nursery(self),
                sys.executable,
                # -P: the working directory is no place to import from.
                [sys.executable, "-P", "-m", "edgecache.processes.nursery", self.module],
                # It sees the same modules as we do, wherever those came from.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                childFDs={0: nothing.fileno(), 1: "r", 2: "r", REQUESTS: theirs.fileno(), OUTPUT: 1},
            )
        return ours

    def said(self, line: bytes) -> None:
        """The nursery answers."""
        words = json.loads(line)
        self._silent, self._answered = 0, True
        if "alive" in words:
            return
        number = words["number"]
        if "pid" in words:
            self._children[number].born(words["pid"])
        elif "status" in words:
            self._children.pop(number).died(words["status"])
        else:
            self._children.pop(number).refused(words["error"])

    def lost(self, reason: Failure) -> None:
        """The nursery has ended, and with it its children."""
        assert self._requests is not None
        self._requests.close()
        self._requests = None
        waiting, self._stopped = self._stopped, []
        if waiting:
            for stopped in waiting:
                stopped.callback(None)
            return
        _log.error("the process that workers are forked from has ended: {reason}", reason=reason.getErrorMessage())
        children, self._children = self._children, {}
        for child in children.values():
            child.died(signal.SIGKILL)


@define(eq=False)
class _Nursery(ProcessProtocol):
    """What the reactor tells about it."""

    _forks: Forks
    _answers: _Lines = field(init=False)
    _errors: _Lines = field(init=False)

    @_answers.default
    def _take(self) -> _Lines:
        return _Lines(self._forks.said, lambda: None)

    @_errors.default
    def _tell(self) -> _Lines:
        return _Lines(lambda line: _log.warn("workers: {line}", line=line.decode("utf-8", "replace")), lambda: None)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        (self._answers if childFD == 1 else self._errors).dataReceived(data)

    def processEnded(self, reason: Failure) -> None:
        self._errors.connectionLost()
        self._forks.lost(reason)


@define(eq=False)
class _Lines(Protocol):
    """Octets to lines."""

    _say: Say
    _end: Callable[[], None]
    _rest: bytes = b""

    def dataReceived(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-65536:]
        for line in lines:
            if line.strip():
                self._say(line)

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._rest.strip():
            self._say(self._rest)
        self._end()


class _Once(Factory):
    """A factory for the one connection that there is already."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: Any) -> Protocol:
        return self._protocol
