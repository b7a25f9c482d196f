"""S3-FIFO by octets, with a shelter for pages: what a plan does with the queues that it is shown."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator

from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.eviction import (
    HITS,
    MAIN,
    PROBATION,
    SHELTER,
    SHELTER_SHARE,
    Entry,
    Queue,
    Standing,
    Step,
    plan,
    queue_of_new,
)


@define(eq=False)
class Thing(Entry):
    name: int = 0


@define
class Store:
    """Queues in memory, that fit ``capacity`` octets."""

    capacity: int
    queues: dict[Queue, OrderedDict[int, Thing]] = field(factory=lambda: {queue: OrderedDict() for queue in Queue})
    standing: Standing = field(factory=lambda: Standing(evicting=True))
    remembered: set[int] = field(factory=set)

    def oldest(self, queue: Queue) -> Iterator[Thing]:
        return iter(list(self.queues[queue].values()))

    def put(self, name: int, octets: int, *, hits: int = 0, page: bool = False, queue: Queue | None = None) -> None:
        """A new thing; ``queue`` if it is not new."""
        known = name in self.remembered
        self.remembered.discard(name)
        queue = queue_of_new(known, self.standing) if queue is None else queue
        self.queues[queue][name] = Thing(octets, hits, page, name)
        self.standing.add(queue, octets)

    def find(self, name: int) -> Thing | None:
        return next((queue[name] for queue in self.queues.values() if name in queue), None)

    def room(self, octets: int, most: int = 64) -> list[Step[Thing]]:
        """One plan, carried out."""
        steps = plan(self, self.standing, self.capacity, octets, most)
        for step in steps:
            thing = step.entry
            was = next(queue for queue in Queue if thing.name in self.queues[queue])
            del self.queues[was][thing.name]
            self.standing.add(was, -thing.octets)
            thing.hits = step.hits
            if step.to is not None:
                self.queues[step.to][thing.name] = thing
                self.standing.add(step.to, thing.octets)
            elif step.remembered:
                self.remembered.add(thing.name)
        return steps

    def make_room(self, octets: int) -> None:
        while self.standing.octets + octets > self.capacity and self.standing.octets:
            self.room(self.standing.octets + octets - self.capacity)

    def names(self, queue: Queue) -> list[int]:
        return list(self.queues[queue])


class ProbationTests(SynchronousTestCase):
    def test_what_was_not_hit_twice_leaves_it_oldest_first_and_is_remembered(self) -> None:
        store = Store(100)
        for name, hits in enumerate((0, 1, 0)):
            store.put(name, 10, hits=hits, queue=PROBATION)
        store.room(20)
        self.assertEqual(([2], [], {0, 1}), (store.names(PROBATION), store.names(MAIN), store.remembered))

    def test_what_was_hit_twice_goes_on_in_main_and_begins_anew_there(self) -> None:
        store = Store(100)
        store.put(1, 10, hits=2, queue=PROBATION)
        store.put(2, 10, queue=PROBATION)
        store.room(10)
        self.assertEqual([1], store.names(MAIN))
        self.assertEqual(0, store.queues[MAIN][1].hits)
        self.assertIsNone(store.find(2))

    def test_what_comes_back_while_it_is_known_goes_to_main(self) -> None:
        store = Store(100)
        store.put(1, 10, queue=PROBATION)
        store.room(10)
        store.put(1, 10)
        store.put(2, 10)
        self.assertEqual(([2], [1]), (store.names(PROBATION), store.names(MAIN)))

    def test_as_long_as_nothing_was_evicted_a_tenth_is_on_probation(self) -> None:
        store = Store(10_000, standing=Standing())
        for name in range(1000):
            store.put(name, 10)
        self.assertTrue(900 <= store.standing.probation <= 1100)
        store.standing.evicting = True
        store.put(1000, 10)
        self.assertIn(1000, store.names(PROBATION))


class MainTests(SynchronousTestCase):
    def test_it_is_left_alone_up_to_nine_tenths(self) -> None:
        store = Store(100)
        for name in range(9):
            store.put(name, 10, queue=MAIN)
        store.put(9, 10, queue=PROBATION)
        store.room(10)
        self.assertIsNone(store.find(9))
        store.put(10, 1, queue=MAIN)
        store.room(1)
        self.assertIsNone(store.find(0))

    def test_each_hit_is_worth_a_round_and_three_count(self) -> None:
        store = Store(30)
        store.put(0, 10, hits=200, queue=MAIN)
        for name in range(1, 12):
            store.put(name, 10, queue=MAIN)
            store.make_room(10)
        rounds = 0
        while store.find(0) is not None:
            rounds += 1
            store.put(100 + rounds, 10, queue=MAIN)
            store.make_room(10)
            self.assertLess(rounds, 20)
        # Three of the size of main, and what it waits for at first.
        self.assertLess(rounds, 3 * (HITS + 1))

    def test_where_all_of_it_was_hit_there_is_room_all_the_same(self) -> None:
        store = Store(100_000)
        for name in range(1000):
            store.put(name, 90, hits=3, queue=MAIN)
        for name in range(1000, 1100):
            store.put(name, 90, queue=PROBATION)
        store.standing.main += 10_000
        steps = store.room(900, most=64)
        self.assertGreaterEqual(sum(step.to is None for step in steps), 64 // 9)

    def test_what_leaves_it_is_not_remembered(self) -> None:
        store = Store(10)
        store.put(1, 10, queue=MAIN)
        store.room(1)
        self.assertEqual(set(), store.remembered)

    def test_with_nothing_on_probation_it_gives_way(self) -> None:
        store = Store(1000)
        store.put(1, 10, queue=MAIN)
        store.room(1)
        self.assertEqual(0, store.standing.octets)


class ShelterTests(SynchronousTestCase):
    def test_pages_that_something_huge_pushes_out_are_still_there(self) -> None:
        store = Store(1_000_000)
        for name in range(200):
            store.put(name, 100, page=True, queue=PROBATION)
        for name in range(200, 1180):
            store.put(name, 1000, queue=PROBATION)
        store.make_room(500_000)
        store.put(5000, 500_000)
        self.assertEqual(list(range(200)), store.names(SHELTER))

    def test_it_has_its_share_and_no_more_and_the_oldest_leave_it(self) -> None:
        store = Store(1_000_000)
        for name in range(1000):
            store.put(name, 100, page=True, queue=PROBATION)
        while store.standing.octets > 20_000:
            store.room(store.standing.octets - 20_000)
        self.assertEqual(list(range(800, 1000)), store.names(SHELTER))
        self.assertEqual(SHELTER_SHARE * store.capacity, store.standing.shelter)

    def test_a_page_that_was_hit_there_goes_back_to_main(self) -> None:
        store = Store(1000)
        store.put(1, 2, hits=1, page=True, queue=SHELTER)
        for name in range(2, 15):
            store.put(name, 2, page=True, queue=SHELTER)
        store.room(2)
        self.assertEqual([1], store.names(MAIN))

    def test_one_large_page_does_not_empty_it(self) -> None:
        store = Store(1000)
        for name in range(10):
            store.put(name, 2, page=True, queue=SHELTER)
        store.put(99, 15, page=True, queue=PROBATION)
        store.room(1)
        self.assertIsNone(store.find(99))
        self.assertEqual(10, len(store.names(SHELTER)))


_THINGS = st.lists(
    st.tuples(st.sampled_from(Queue), st.integers(1, 500), st.integers(0, HITS), st.booleans()), max_size=60
)


class AnyPlanTests(SynchronousTestCase):
    @given(_THINGS, st.integers(1, 5000), st.integers(1, 64), st.integers(1, 20_000))
    def test_it_gives_what_is_needed_or_has_considered_all_it_may_and_evicts_nothing_for_nothing(
        self, things: list[tuple[Queue, int, int, bool]], needed: int, most: int, capacity: int
    ) -> None:
        store = Store(capacity)
        for name, (queue, octets, hits, page) in enumerate(things):
            store.put(name, octets, hits=hits, page=page, queue=queue)
        before = Standing(store.standing.probation, store.standing.main, store.standing.shelter, True)
        steps = plan(store, store.standing, capacity, needed, most)
        self.assertEqual(before, store.standing)
        self.assertLessEqual(len(steps), most)
        self.assertEqual(len(steps), len({step.entry.name for step in steps}))
        evicted = [step.entry for step in steps if step.to is None]
        given_back = sum(entry.octets for entry in evicted)
        if given_back < needed:
            self.assertTrue(len(steps) in (most, len(things)))
        elif evicted:
            self.assertIs(evicted[-1], steps[-1].entry)
            self.assertLess(given_back - evicted[-1].octets, needed)
        for entry in evicted:
            queue = things[entry.name][0]
            self.assertLess(entry.hits, 2 if queue is PROBATION else 1)

    @given(_THINGS, st.integers(1, 5000))
    def test_turn_by_turn_everything_can_be_evicted(
        self, things: list[tuple[Queue, int, int, bool]], capacity: int
    ) -> None:
        store = Store(capacity)
        for name, (queue, octets, hits, page) in enumerate(things):
            store.put(name, octets, hits=hits, page=page, queue=queue)
        turns = 0
        while store.room(1 << 40):
            turns += 1
            self.assertLess(turns, 20)
        self.assertEqual(Standing(0, 0, 0, True), store.standing)

    @given(st.integers(0, 1 << 32), st.integers(5, 40))
    def test_hit_by_hit_it_does_what_the_published_algorithm_does(self, seed: int, capacity: int) -> None:
        chance = random.Random(seed)
        store, published = Store(capacity), Published(capacity)
        for _ in range(300):
            name = min(int(chance.paretovariate(0.5)), 500)
            found = store.find(name)
            self.assertEqual(published.hit(name), found is not None)
            if found is not None:
                found.hits = min(found.hits + 1, HITS)
            else:
                store.make_room(1)
                store.put(name, 1)


@define
class Published:
    """
    S3-FIFO as its paper has it, for things of one octet, with ghosts that are never forgotten; but that no more than
    eight in a row are spared in main.
    """

    capacity: int
    small: list[int] = field(factory=list)
    main: list[int] = field(factory=list)
    ghosts: set[int] = field(factory=set)
    counts: dict[int, int] = field(factory=dict)

    def hit(self, name: int) -> bool:
        if name in self.counts:
            self.counts[name] = min(self.counts[name] + 1, 3)
            return True
        spared = 0
        while len(self.counts) >= self.capacity:
            if self.small and (spared == 8 or len(self.main) <= 0.9 * self.capacity):
                self._evict_small()
                spared = 0
            else:
                self._evict_main()
                spared += 1
        (self.main if name in self.ghosts else self.small).append(name)
        self.ghosts.discard(name)
        self.counts[name] = 0
        return False

    def _evict_small(self) -> None:
        name = self.small.pop(0)
        if self.counts[name] > 1:
            self.counts[name] = 0
            self.main.append(name)
        else:
            del self.counts[name]
            self.ghosts.add(name)

    def _evict_main(self) -> None:
        name = self.main.pop(0)
        if self.counts[name]:
            self.counts[name] -= 1
            self.main.append(name)
        else:
            del self.counts[name]
