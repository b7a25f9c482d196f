"""
A worker's view of how its upstreams are: what the node process says of each address, and what it is told.

Reports go over the control channel, a few times a second however much is asked; only the first failures
of an address go at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, field

from edgecache.rules.health import EJECTED_WORD, FAILING_WORD, share
from edgecache.upstream.addresses import Address
from edgecache.words.config import UpstreamSettings
from edgecache.words.ports import Timer, Timers
from edgecache.words.reasons import Outcome

REPORT_SECONDS = 0.25
"""Goods wait this long for company, and so do failures that say nothing new."""

BENCH_SECONDS = 1.0
"""What this worker saw counts here until the page says so: longer than the node process ever takes."""

_BEHIND = frozenset((Outcome.TOO_SLOW, Outcome.ERROR_STATUS))
"""Of a sibling, these may be its upstream's fault (DESIGN 9)."""

_RUNS = 8
"""Alternations of one address in one report; beyond that their order is lost, not their number."""
_TARGET_OCTETS = 2048
"""A longer target is not worth carrying around."""


@define(eq=False, repr=False)
class _Run:
    """
    ``goods`` exchanges that went well, then ``times`` that failed by ``kind``; mixed where a report got long.

    :ivar target: of the last failure, the origin's prefix included.
    """

    goods: int = 0
    kind: Outcome | None = None
    times: int = 0
    target: bytes | None = None


@define(eq=False, repr=False)
class _Report:
    """What is to be told of one address."""

    address: Address
    runs: list[_Run] = field(factory=list)

    def good(self) -> None:
        last = self.runs[-1] if self.runs else None
        if last is not None and (last.kind is None or len(self.runs) >= _RUNS):
            last.goods += 1
        else:
            self.runs.append(_Run(goods=1))

    def failed(self, kind: Outcome, target: bytes | None) -> int:
        """:return: how many in a row it has been, as far as this report knows."""
        last = self.runs[-1] if self.runs else None
        if last is None or (len(self.runs) < _RUNS and last.kind is not None and (last.kind is not kind or last.goods)):
            last = _Run()
            self.runs.append(last)
        # A hang decides; at the end of a long report it must not go by another failure's name.
        if last.kind is None or kind.hang or not last.kind.failure:
            last.kind = kind
        last.times += 1
        last.target = target or last.target
        row = 0
        for run in reversed(self.runs):
            row += run.times
            if run.goods:
                break
        return row

    def slow(self) -> None:
        """Lost at the end of a long report: an address with that much news is looked after anyway."""
        if len(self.runs) < _RUNS:
            self.runs.append(_Run(kind=Outcome.SLOW_TO_CONNECT))


@define(eq=False, repr=False)
class Standing:
    """
    What a worker asks before it chooses an address, and tells when an exchange is over.

    Addresses without a slot (Unix sockets, and those for which the page has no room) are always well,
    and nothing is told about them.

    :ivar health: word of a slot in the page.
    :ivar notify: to the node process: op and payload.
    """

    _health: Callable[[int], int]
    _notify: Callable[..., None]
    _timers: Timers
    _settings: UpstreamSettings
    # By slot: until when, and is it more than slow to connect?
    _benched: dict[int, tuple[float, bool]] = field(factory=dict)
    _reports: dict[int, _Report] = field(factory=dict)
    # What was sent at once since the last tick, so that a flood of the same is not.
    _urgent: set[tuple[int, str]] = field(factory=set)
    _timer: Timer | None = None
    _watchers: dict[object, Callable[[int], None]] = field(factory=dict)

    def share(self, address: Address) -> float:
        """:return: how much of its normal share of requests ``address`` gets now, 0.0 (others first) to 1.0."""
        slot = address.slot
        if slot < 0:
            return 1.0
        now = self._timers.seconds()
        if self._benched and self._bench(slot, now) is not None:
            return 0.0
        return share(self._health(slot), now, self._settings.slow_start_seconds)

    def ejected(self, address: Address) -> bool:
        """Is it to be asked only where nobody else is left? Also just after a hang that this worker saw."""
        slot = address.slot
        if slot < 0:
            return False
        if self._benched and self._bench(slot, self._timers.seconds()):
            return True
        return self._health(slot) == EJECTED_WORD

    def failing(self, address: Address) -> bool:
        """Did the last that was heard of it speak against it, whether it is in service or not?"""
        return address.slot >= 0 and self._health(address.slot) in (EJECTED_WORD, FAILING_WORD)

    def good(self, address: Address) -> None:
        """An exchange's content is complete, or ``restore_octets`` of it have come. Once per exchange."""
        slot = address.slot
        if slot < 0:
            return
        if self._benched.get(slot, (0.0, True))[1] is False:
            del self._benched[slot]
        self._report(slot, address).good()
        self._later()

    def failed(self, address: Address, outcome: Outcome | None, target: bytes | None = None) -> None:
        """
        An exchange failed.

        :param outcome: by what; ``None`` (of a failure that says nothing about the address) is ignored.
        :param target: of a GET or HEAD, below the origin's prefix; the address may be probed with it.
        """
        slot = address.slot
        if slot < 0 or outcome is None or not outcome.failure:
            return
        if address.origin.sibling and outcome in _BEHIND:
            return
        if target is not None:
            target = address.origin.prefix + target
            if len(target) > _TARGET_OCTETS:
                target = None
        row = self._report(slot, address).failed(outcome, target)
        if outcome.hang:
            self._benched[slot] = (self._timers.seconds() + BENCH_SECONDS, True)
            self._at_once(slot, "hang")
        elif row >= self._settings.trip_failures:
            self._at_once(slot, "row")
        else:
            self._at_once(slot, "failure")

    def slow_to_connect(self, address: Address) -> None:
        """It was not connected when the next one was tried; how its own attempt ends may still be told."""
        slot = address.slot
        if slot < 0:
            return
        if self._bench(slot, self._timers.seconds()) is None:
            self._benched[slot] = (self._timers.seconds() + BENCH_SECONDS, False)
        self._report(slot, address).slow()
        self._at_once(slot, "slow")

    def on_ejected(self, callback: Callable[[int], None]) -> Callable[[], None]:
        """
        Call ``callback(slot)`` when the node process ejects an address.

        :return: ends that; harmless when called twice, and from within.
        """
        key = object()
        self._watchers[key] = callback
        return lambda: _drop(self._watchers, key)

    def told_ejected(self, slots: Iterable[int]) -> None:
        """From the channel: the node process has ejected these. The page says so already."""
        for slot in slots:
            for key, callback in list(self._watchers.items()):
                # An earlier one may have ended it.
                if key in self._watchers:
                    callback(slot)

    def close(self) -> None:
        """Send what is left, and start nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._send()

    def _bench(self, slot: int, now: float) -> bool | None:
        """:return: ``None`` where the page alone counts; is it as good as ejected?"""
        found = self._benched.get(slot)
        if found is None:
            return None
        until, hung = found
        if now < until:
            return hung
        del self._benched[slot]
        return None

    def _report(self, slot: int, address: Address) -> _Report:
        report = self._reports.get(slot)
        # The slot may have a new tenant. Nobody waits for news of the old one.
        if report is None or (report.address is not address and report.address.name != address.name):
            report = self._reports[slot] = _Report(address)
        return report

    def _at_once(self, slot: int, what: str) -> None:
        self._later()
        if (slot, what) not in self._urgent:
            self._urgent.add((slot, what))
            self._send()

    def _later(self) -> None:
        if self._timer is None:
            self._timer = self._timers.callLater(REPORT_SECONDS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._urgent.clear()
        self._send()

    def _send(self) -> None:
        if not self._reports:
            return
        reports, self._reports = self._reports, {}
        self._notify(
            "outcomes",
            outcomes=[
                [
                    slot,
                    report.address.name,
                    run.goods,
                    run.kind and run.kind.value,
                    run.times,
                    run.target and run.target.decode("latin-1"),
                ]
                for slot, report in reports.items()
                for run in report.runs
            ],
        )


def _drop(watchers: dict[object, Callable[[int], None]], key: object) -> None:
    watchers.pop(key, None)
