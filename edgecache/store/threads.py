"""One thread per purpose, so that a disk's sync never holds the loop up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, Protocol, TypeVar

from attrs import define
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")


class InThread(Protocol):
    """Runs a function elsewhere; tests run it on the spot."""

    def __call__(self, function: Callable[..., T], /, *args: Any) -> Deferred[T]:
        """:return: fires on the loop with the function's result or failure."""


@define(eq=False, repr=False)
class OneThread:
    """An :class:`InThread` with one thread: functions run one after the other, in order."""

    _reactor: IReactorFromThreads
    _pool: ThreadPool

    @classmethod
    def named(cls, reactor: IReactorFromThreads, name: str) -> OneThread:
        """:param name: of the thread, for debuggers. :meth:`start` comes later."""
        pool = ThreadPool(minthreads=1, maxthreads=1, name=name)
        # A process that ends without having stopped it must not wait for ever for more to do.
        pool.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]
        return cls(reactor, pool)

    def start(self) -> None:
        """Begin with what was asked so far."""
        self._pool.start()

    def stop(self) -> None:
        """Wait for what runs now and what is queued. Harmless when it has stopped."""
        if not self._pool.joined:
            self._pool.stop()

    def __call__(self, function: Callable[..., T], /, *args: Any) -> Deferred[T]:
        # Also where no thread can be had any more: whoever asks is told by the Deferred.
        return maybeDeferred(deferToThreadPool, self._reactor, self._pool, function, *args)


class FewThreads(OneThread):
    """An :class:`InThread` in which what takes long does not hold up all that does not."""

    @classmethod
    def named(cls, reactor: IReactorFromThreads, name: str, most: int = 2) -> FewThreads:
        """
        :param name: of the threads, for debuggers. :meth:`start` comes later.
        :param most: how many there are at most; none while there is nothing to do.
        """
        return cls(reactor, ThreadPool(minthreads=0, maxthreads=most, name=name))
