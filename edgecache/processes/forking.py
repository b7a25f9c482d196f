"""The node process's side of the nursery (:mod:`edgecache.processes.nursery`), from which its workers are forked."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.processes import nursery

_log = Logger()

WORKER_MODULE = "edgecache.worker_main"

Say = Callable[[bytes], None]


_ABOVE = 16
"""No descriptor that goes to a fixed place is numbered so low."""


@frozen(eq=False, repr=False)
class Nursery:
    """
    The process, for who has started it.

    :ivar requests: to it.
    :ivar answers: of it; they end when it does.
    :ivar errors: what it, and the workers that have no channel yet, complain about.
    """

    pid: int
    requests: socket.socket
    answers: socket.socket
    errors: socket.socket

    @classmethod
    def executed(cls, module: str) -> Nursery:
        """
        :param module: whose ``main`` is a worker.
        :raises OSError: it cannot be run.
        """
        # -P: the working directory is no place to import from.
        command = [sys.executable, "-P", "-m", nursery.__name__, module]
        # It sees the same modules as we do, wherever those came from.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

        def start(descriptors: Sequence[int]) -> int:
            high = [nursery.moved_up(descriptor, _ABOVE) for descriptor in descriptors]
            try:
                placed = [(os.POSIX_SPAWN_DUP2, descriptor, place) for place, descriptor in enumerate(high)]
                return os.posix_spawn(sys.executable, command, environment, file_actions=placed)
            finally:
                for descriptor in high:
                    os.close(descriptor)

        return cls._started(start)

    @classmethod
    def forked(cls, module: str) -> Nursery:
        """
        The same from this process: what that has imported, both have, and the rest they import at the same time.

        It may have opened nothing yet that a worker must not have: no event loop, no thread, no store.

        :param module: whose ``main`` is a worker.
        :raises OSError: it cannot be forked.
        """
        own = os.getpid()
        _open_standard()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()

        def start(descriptors: Sequence[int]) -> int:
            if pid := os.fork():
                return pid
            try:
                nursery.die_with_parent()
                if os.getppid() == own:
                    most = max(map(int, os.listdir("/proc/self/fd")))
                    nursery.arrange(descriptors, most)
                    if sys.stderr is None:
                        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
                    nursery.serve(module)
            except BaseException:  # noqa: BLE001  # the rim: these are its last words
                traceback.print_exc()
            finally:
                # Whatever else goes wrong: there must not be two of us.
                os._exit(1)

        return cls._started(start)

    @classmethod
    def _started(cls, start: Callable[[Sequence[int]], int]) -> Nursery:
        """:param start: makes the process, with these as descriptors 0, 1, 2 and so on, and returns its id."""
        requests, its_requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        answers, its_answers = socket.socketpair()
        errors, its_errors = socket.socketpair()
        with its_requests, its_answers, its_errors, open(os.devnull, "rb") as nothing:
            its = [nothing.fileno(), its_answers.fileno(), its_errors.fileno(), its_requests.fileno(), 1]
            assert its.index(its_requests.fileno()) == nursery.REQUESTS
            assert len(its) - 1 == nursery.OUTPUT
            try:
                return cls(start(its), requests, answers, errors)
            except OSError:
                for ours in (requests, answers, errors):
                    ours.close()
                raise


@define(eq=False, repr=False)
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


@define(eq=False, repr=False)
class Forks:
    """
    Has workers forked; a nursery is started when the first one is asked for, and anew when it has died.

    Its workers die with it, as it dies with this process. One that stands still (somebody has stopped it) could replace
    no worker and tell of no death: :meth:`watch` has it go on, or ends it.

    :ivar module: whose ``main`` is a worker.
    :ivar patience: ticks that it may stand still; eight times as many while it starts.
    :ivar ahead: a nursery that was started before.
    """

    _reactor: Any
    module: str
    patience: int
    ahead: Nursery | None = None
    _nursery: Nursery | None = None
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
        if self._nursery is None:
            self._nursery = self._start()
        ours, theirs = socket.socketpair()
        self._last += 1
        self._children[self._last] = child
        try:
            with theirs:
                socket.send_fds(self._nursery.requests, [b"%d" % self._last], [theirs.fileno(), *descriptors])
        except (BrokenPipeError, ConnectionResetError):
            # It has died, of which `lost` will tell this child, too.
            pass
        except OSError:
            # It stands still, and enough waits for it; or the kernel takes no more.
            del self._children[self._last]
            ours.close()
            raise
        self._read(ours, say, child.fell_silent)

    def watch(self) -> None:
        """
        Once a tick: does it still answer?

        First it is told to go on, which undoes a stop and harms nobody. Only then it is killed, for its workers die
        with it: without it they could not be replaced, and nobody would be told how they end.
        """
        if self._nursery is None or self._stopped:
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
            self._nursery.requests.send(nursery.ALIVE)
        except OSError:
            return  # as in `fork`

    def stop(self) -> Deferred[None]:
        """There are no workers any more, and there will be none; fires when the nursery has ended."""
        if self._nursery is None:
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        self._signal(signal.SIGKILL)
        return stopped

    def _signal(self, number: signal.Signals) -> None:
        assert self._nursery is not None
        # It keeps its number until `lost` has waited for it.
        os.kill(self._nursery.pid, number)

    def _start(self) -> Nursery:
        started, self.ahead = self.ahead or Nursery.executed(self.module), None
        # While it stands still, nobody may stand still with it.
        started.requests.setblocking(False)
        self._silent, self._answered = 0, False
        self._read(started.answers, self.said, self.lost)
        self._read(started.errors, _complaint, lambda: None)
        return started

    def _read(self, end: socket.socket, say: Say, ended: Callable[[], None]) -> None:
        end.setblocking(False)
        self._reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, _Once(_Lines(say, ended)))
        end.close()

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

    def lost(self) -> None:
        """The nursery's answers have ended, and with it its children."""
        gone, self._nursery = self._nursery, None
        assert gone is not None
        gone.requests.close()
        try:
            os.kill(gone.pid, signal.SIGKILL)
            _, status = os.waitpid(gone.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            # Whoever started us has children's ends ignored.
            status = signal.SIGKILL
        waiting, self._stopped = self._stopped, []
        if waiting:
            for stopped in waiting:
                stopped.callback(None)
            return
        _log.error("the process that workers are forked from has ended: {how}", how=how(status))
        children, self._children = self._children, {}
        for child in children.values():
            if self._answered or os.WIFSIGNALED(status):
                child.died(signal.SIGKILL)
            else:
                # Nothing has ended it: it cannot import what a worker needs, and the next one could not, either.
                child.refused(f"what they need cannot be imported ({how(status)}); the log above says why")


def _open_standard() -> None:
    """Where one of the standard descriptors is closed, what is opened next would be taken for it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < nursery.FIRST:
        pass
    os.close(descriptor)


def how(status: int) -> str:
    """:param status: as ``wait`` gives it. :return: for people, how a process ended."""
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def _complaint(line: bytes) -> None:
    _log.warn("workers: {line}", line=line.decode("utf-8", "replace"))


@define(eq=False, repr=False)
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
