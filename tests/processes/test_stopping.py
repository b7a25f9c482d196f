"""What a node leaves behind for its own end."""

from __future__ import annotations

import signal

from twisted.trial.unittest import SynchronousTestCase

from edgecache.service import on_stop_signals


class _Vast:
    """As a node is: to write it out takes minutes."""

    stopped = 0

    def stop(self) -> None:
        self.stopped += 1

    def __repr__(self) -> str:
        raise AssertionError("all that a node has was to be written out")


class StopSignalTests(SynchronousTestCase):
    def setUp(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def test_the_signals_default_is_put_back_without_a_look_at_the_node(self) -> None:
        """As twistd does, so that it ends by the signal that stopped it."""
        vast = _Vast()
        on_stop_signals(vast.stop)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
            signal.signal(number, signal.SIG_DFL)
        self.assertEqual(2, vast.stopped)
