"""DESIGN 9 under interleavings that Hypothesis chooses and shrinks: messages pass, wait, come twice or are lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from attrs import define, field
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.membership import CLOCK_DRIFT
from edgecache.words.siblingsettings import Quorum

from .flaws import FLAWS
from .host import Host
from .oracle import Violation
from .simulation import TICK, Flaw, World, members_of

Flying = tuple[Host, Host, Callable[..., None], tuple[Any, ...]]

NODES = st.integers(0, 2)
WHICH = st.integers(0, 1000)


@define(eq=False)
class Air(World):
    """
    A world whose network is in the hands of the test.

    :ivar slow_pairs: pairs between which messages do not pass by themselves.
    :ivar flying: those messages, oldest first.
    """

    slow_pairs: set[tuple[str, str]] = field(factory=set)
    flying: list[Flying] = field(factory=list)

    def call(self, host: Host, to: Host, act: Callable[..., None], *arguments: Any) -> None:
        if (host.id, to.id) not in self.slow_pairs:
            super().call(host, to, act, *arguments)
        else:
            self.flying.append((host, to, act, arguments))


class FleetMachine(RuleBasedStateMachine):
    """Three members, or two of which one is enough."""

    flaw = Flaw()

    @initialize(
        two=st.booleans(),
        admitted=st.booleans(),
        page=st.sampled_from([1, 1 << 20]),
        keep=st.sampled_from([2, 1000]),
        slow=st.sampled_from([0.01, 1.0]),
    )
    def begin(self, two: bool, admitted: bool, page: int, keep: int, slow: float) -> None:
        names = ["n1", "n2"] if two else ["n1", "n2", "n3"]
        quorum = Quorum.ANY if two else Quorum.MAJORITY
        self.world = Air(random.Random(0), self.flaw, page_octets=page, one_disk=two, slow=slow)
        for name, drift in zip(names, (CLOCK_DRIFT, -CLOCK_DRIFT, 0.0), strict=False):
            host = self.world.add(name, members_of(names, quorum, name), admitted=admitted, keep=keep)
            host.rate = 1 + drift
        self.hosts = list(self.world.hosts.values())
        self.purges = 0
        # Faults are only interesting in a fleet that has been well.
        self.world.run(8 * TICK)
        self.everybody_asks()
        self.world.run(self.world.time + 0.1)

    def host(self, number: int) -> Host:
        return self.hosts[number % len(self.hosts)]

    @rule(seconds=st.sampled_from([0.001, 0.006, 0.1, TICK, 1.0, 2.1]))
    def wait(self, seconds: float) -> None:
        self.world.run(self.world.time + seconds)

    @rule(one=NODES, other=NODES, there=st.booleans(), back=st.booleans())
    def connect(self, one: int, other: int, there: bool, back: bool) -> None:
        """Do messages between two of them pass by themselves?"""
        a, b = self.host(one).id, self.host(other).id
        self.world.slow_pairs -= {(a, b), (b, a)}
        self.world.slow_pairs |= {pair for pair, passes in (((a, b), there), ((b, a), back)) if not passes}

    @rule()
    def connect_all(self) -> None:
        self.world.slow_pairs.clear()

    @rule(number=NODES)
    def isolate(self, number: int) -> None:
        a = self.host(number).id
        self.world.slow_pairs |= {pair for each in self.hosts for pair in ((a, each.id), (each.id, a))}

    @precondition(lambda self: self.world.flying)
    @rule(which=WHICH, stays=st.booleans())
    def deliver(self, which: int, stays: bool) -> None:
        at = which % len(self.world.flying)
        self.arrive(self.world.flying[at] if stays else self.world.flying.pop(at))

    def arrive(self, message: Flying) -> None:
        _, to, act, arguments = message
        if to.awake:
            act(*arguments)

    @precondition(lambda self: self.world.flying)
    @rule(number=NODES, heard=st.booleans())
    def lose(self, number: int, heard: bool) -> None:
        """What a node said, or what it was to hear."""
        host = self.host(number)
        self.world.flying = [each for each in self.world.flying if each[1 if heard else 0] is not host]

    @rule(number=NODES, key=st.integers(0, 1))
    def purge(self, number: int, key: int) -> None:
        self.world.origin[key] += 1
        self.purges += 1
        host = self.host(number)
        if host.awake:
            host.purge(str(self.purges), b"%d:%d" % (key, self.world.origin[key]))
            self.world.run(self.world.time + 0.002)

    @rule(number=NODES, key=st.integers(0, 1), seconds=st.sampled_from([0.1, 1.0, 2.1]))
    def purge_behind_its_back(self, number: int, key: int, seconds: float) -> None:
        """Most of what can go wrong begins so: one node hears nothing, and another purges."""
        self.isolate(number)
        self.purge(number + 1, key)
        self.world.run(self.world.time + seconds)
        self.everybody_asks()

    @rule()
    def everybody_asks(self) -> None:
        for host in self.hosts:
            for key in (0, 1):
                if host.awake:
                    host.request(key)

    @rule(number=NODES, control=st.booleans(), records=st.booleans(), down=st.sampled_from([None, 0.0, 0.1, 2.1]))
    def crash(self, number: int, control: bool, records: bool, down: float | None) -> None:
        """:param down: seconds until it is started again, if that is known."""
        host = self.host(number)
        if not host.awake:
            return
        host.stop()
        if records:
            host.small.clear()
        # See Storm._may_lose_control.
        if control and host.disk.admitted and not self.world.oracle.lost:
            self.world.lose_control(host)
        if down is not None:
            self.world.after(down, self.world.restart, None, host)

    @rule()
    def restart(self) -> None:
        for host in self.hosts:
            self.world.restart(host)

    @rule(number=NODES)
    def stand_still(self, number: int) -> None:
        if self.host(number).awake:
            self.world.stand_still(self.host(number), 3.0)

    @rule(number=NODES)
    def set_the_clock(self, number: int) -> None:
        self.host(number).wall_offset += 60.0

    def teardown(self) -> None:
        """When faults stop, everybody has everything, and is free."""
        self.world.slow_pairs.clear()
        self.world.flying.clear()
        for host in self.hosts:
            self.world.restart(host)
        # Who stands still wakes up before.
        self.world.run(self.world.time + 3.0 + 10 * TICK)
        self.world.oracle.check_end()


FleetTests = FleetMachine.TestCase
FleetTests.settings = settings(max_examples=100, stateful_step_count=40, suppress_health_check=list(HealthCheck))


class NoticeTests(SynchronousTestCase):
    """The machine sees what goes wrong."""

    def notices(self, name: str) -> None:
        class Flawed(FleetMachine):
            flaw = FLAWS[name]

        finding = settings(
            max_examples=300,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        self.assertRaises(Violation, run_state_machine_as_test, Flawed, settings=finding)

    def test_an_early_acknowledgement(self) -> None:
        self.notices("a purge is durable on one disk")

    def test_a_new_control_that_vouches(self) -> None:
        self.notices("a joining node vouches")

    def test_a_fill_that_is_joined_after_a_purge(self) -> None:
        self.notices("a fill is joined after a purge")
