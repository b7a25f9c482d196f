"""A thread that commits what the loop hands to it, in groups: one per environment and process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

import lmdb
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from edgecache.store.environment import DAMAGE, Environment
from edgecache.words.errors import StoreFull

# Note [groups]
#
# A commit costs a sync of the disk; what is asked for while one runs goes
# into the next, together. Nobody waits for a group to become large: alone, an operation is committed at once. When a
# group fails, its halves are tried, down to single operations, so that only what cannot be stored is refused.

_log = Logger()

GROUP_OCTETS = 4 << 20
"""FIELD 7: a transaction's pages are held in memory until its commit."""
LARGE_GROUP_OCTETS = 8 << 20
"""Of blobs, where nothing but content waits: a sync costs about as much as writing two MiB does."""
GROUP_OPERATIONS = 1024


class Transaction(Protocol):
    """What an operation is applied to."""

    def finish(self) -> None:
        """Before the commit."""


T = TypeVar("T", bound=Transaction)

Outcome = bool | StoreFull
"""What an operation answered, now that it is committed; or why it is not."""


@define(eq=False, repr=False)
class _Operation(Generic[T]):
    octets: int
    apply: Callable[[T], bool]
    done: Callable[[Outcome], None]
    grows: bool


CallFromThread = Callable[..., object]


@define(eq=False, repr=False)
class Committer(Generic[T]):
    """
    Operations are applied in the order of :meth:`submit`, committed when they are told so.

    The thread starts with the first operation and ends with :meth:`close`.
    """

    _environment: Environment
    _wrap: Callable[[lmdb.Transaction, dict[bytes, lmdb._Database]], T]
    _call_from_thread: CallFromThread
    _group_octets: int = GROUP_OCTETS
    _queue: SimpleQueue[_Operation[T] | None] = field(factory=SimpleQueue)
    _closing: bool = False
    _running: bool = False
    _waiting: list[Deferred[None]] = field(factory=list)
    # Said once per spell of failures, not for each refused response.
    _failing: bool = False

    def submit(
        self, octets: int, apply: Callable[[T], bool], done: Callable[[Outcome], None], *, grows: bool = False
    ) -> None:
        """
        From the loop; never blocks. After :meth:`close` the operation is refused at once.

        :param octets: about how much it writes.
        :param apply: is called in the thread within the write transaction, again if a commit failed.
        :param done: is called in the loop.
        :param grows: it adds what takes room, and is refused where there is hardly any.
        """
        if self._closing:
            done(StoreFull(self._environment.name, "closing"))
            return
        if not self._running:
            try:
                # A daemon: a disk that never answers must not keep the process from ending.
                threading.Thread(target=self._run, name=f"store-{self._environment.name}", daemon=True).start()
            except (RuntimeError, MemoryError) as error:
                # Too many threads, or too little memory for one: the next operation may find more.
                refusal = StoreFull(self._environment.name, str(error) or "no memory for a thread")
                self._tell([_Operation(octets, apply, done, grows)], [refusal])
                return
            self._running = True
        self._queue.put(_Operation(octets, apply, done, grows))

    def close(self) -> Deferred[None]:
        """:return: fires when everything submitted so far was told its outcome, and the thread is at its end."""
        ended: Deferred[None] = Deferred()
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        if self._running:
            self._waiting.append(ended)
        else:
            ended.callback(None)
        return ended

    def _run(self) -> None:
        ending = False
        while not ending:
            first = self._queue.get()
            if first is None:
                break
            group = [first]
            octets = first.octets
            while octets < self._group_octets and len(group) < GROUP_OPERATIONS:
                try:
                    following = self._queue.get_nowait()
                except Empty:
                    break
                if following is None:
                    ending = True
                    break
                group.append(following)
                octets += following.octets
            self._call_from_thread(self._tell, group, self._commit(group))
        self._call_from_thread(self._ended)

    def _tell(self, group: list[_Operation[T]], results: Sequence[Outcome]) -> None:
        failing = next((result for result in results if isinstance(result, StoreFull)), None)
        if failing is not None and not self._failing:
            _log.warn(
                "store: {where} takes nothing new, serving goes on: {detail}",
                where=failing.where,
                detail=failing.detail,
            )
        self._failing = failing is not None
        for operation, result in zip(group, results, strict=True):
            try:
                operation.done(result)
            except Exception:  # noqa: BLE001 - one fill's defect must not keep the others from hearing of theirs
                _log.failure("store: a writer to {name} failed to take its outcome", name=self._environment.name)

    def _ended(self) -> None:
        self._running = False
        waiting, self._waiting = self._waiting, []
        for ended in waiting:
            ended.callback(None)

    def _commit(self, group: list[_Operation[T]]) -> Sequence[Outcome]:
        """See Note [groups]."""
        try:
            return self._attempt(group)
        except lmdb.Error as error:
            if isinstance(error, DAMAGE):
                self._environment.condemn(str(error))
            elif len(group) > 1 and not isinstance(error, lmdb.PanicError):
                half = len(group) // 2
                return [*self._commit(group[:half]), *self._commit(group[half:])]
            refusal = StoreFull(self._environment.name, str(error))
        except Exception as error:  # noqa: BLE001 - a defect of ours must not end the thread: fills would wait for ever
            _log.failure("store: writing to {name} failed", name=self._environment.name)
            refusal = StoreFull(self._environment.name, repr(error))
        return [refusal] * len(group)

    def _attempt(self, group: list[_Operation[T]]) -> list[Outcome]:
        environment = self._environment
        if environment.condemned:
            return [StoreFull(environment.name, "damaged")] * len(group)
        with environment.writing, environment.env.begin(write=True) as txn:
            wrapped = self._wrap(txn, environment.databases)
            # Whoever makes room says when there is too little (the page); he may be late, or stand still.
            room = environment.most - environment.used(txn)
            results: list[Outcome] = []
            for operation in group:
                room -= operation.octets if operation.grows else 0
                refused = operation.grows and room < 0
                results.append(StoreFull(environment.name, "nearly full") if refused else operation.apply(wrapped))
            wrapped.finish()
        return results
