"""The checker of histories itself: true ones are accepted, and whatever makes one of them false is found."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.system.history import (
    Agreed,
    Asked,
    Begun,
    Claimed,
    Counted,
    Disturbed,
    History,
    Keeper,
    Read,
    Record,
    Sampled,
    Told,
    Uploaded,
)
from tests.system.historychecks import main, violations

NODES = ["n1", "n2", "n3"]
KEY, LOG = "page six", "n1/aa"
BEGUN = Begun(1, NODES, bound_seconds=2.0, settled_seconds=1.0, recovery_seconds=1.0)


def uploaded(at: float, version: int) -> Uploaded:
    return Uploaded(at, at + 0.1, {KEY: version}, {KEY: f"look {version}"})


def asked(at: float, name: str, *, strict: bool = False) -> Asked:
    return Asked(at, name, [KEY], strict)


def claimed(at: float, name: str, state: str, sequence: int, *, by: float | None = None) -> Claimed:
    """A member is missing unless it is complete."""
    status = {"local": 503, "durable": 202}.get(state, 200)
    applied = NODES[: {"local": 1, "complete": 3}.get(state, 2)]
    pending = NODES[len(applied) :]
    return Claimed(at - 0.1, at, "n1", name, status, state, applied, pending, by, LOG, sequence)


def read(at: float, node: str, version: int, **more: object) -> Read:
    fields = {"status": 200, "look": f"look {version}", "octets": f"octets {version}", **more}
    return Read(at, at + 0.1, node, f"r-{node}", KEY, version=version, **fields)  # type: ignore[arg-type]


def told(at: float, node: str, name: str, place: int) -> Told:
    return Told(at, node, name, {"7": place} if place else {})


def sampled(at: float, node: str, position: int) -> Sampled:
    return Sampled(at, at + 0.1, node, {LOG: position})


def true_history() -> list[Record]:
    """Two versions; one purge that becomes complete, one that is durable while n3 is cut off; a death of n2."""
    return [
        BEGUN,
        uploaded(0.0, 1),
        *(told(0.5, node, "", 0) for node in NODES),
        *(read(1.0, node, 1) for node in NODES),
        uploaded(2.0, 2),
        read(2.5, "n1", 1),
        asked(3.0, "a"),
        read(3.1, "n2", 1),
        claimed(4.0, "a", "complete", 1),
        *(sampled(4.5, node, 1) for node in NODES),
        *(told(4.6, node, "a", 1) for node in NODES),
        *(read(5.0, node, 2) for node in NODES),
        Disturbed("cut", 5.5, 12.0, []),
        uploaded(6.0, 3),
        asked(6.5, "b"),
        claimed(7.0, "b", "durable", 2, by=8.9),
        read(7.5, "n1", 3),
        read(7.5, "n2", 3),
        read(7.5, "n3", 2),
        Disturbed("kill", 8.0, 8.6, ["n2"], died=True, gone=8.2),
        Read(8.3, 8.4, "n2", "r-n2", KEY, failure="ConnectionRefusedError"),
        read(9.0, "n3", 3),
        claimed(9.5, "b", "effective", 2),
        read(9.6, "n1", 3, download="whole"),
        Agreed(12.0, 12.5, {LOG: 2}, {node: ["a", "b"] for node in NODES}),
        *(sampled(13.0, node, 2) for node in NODES),
        *(told(13.5, node, "b", 2) for node in NODES),
        *(read(14.0, node, 3) for node in NODES),
        Counted(15.0, {"n1": 1, "n2": 0, "n3": 0}),
    ]


class TrueHistoryTests(SynchronousTestCase):
    def test_it_is_accepted(self) -> None:
        self.assertEqual([], violations(History(true_history())))

    def test_the_order_in_which_records_were_kept_of_different_actors_means_nothing(self) -> None:
        records = true_history()
        random.Random(1).shuffle(records)
        # Places in feeds are those of one reader, which keeps its own in their order.
        feeds = iter([record for record in true_history() if isinstance(record, Told)])
        records = [next(feeds) if isinstance(record, Told) else record for record in records]
        self.assertEqual([], violations(History(records)))

    def test_it_is_the_same_from_its_file_and_the_command_says_so(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            Keeper(Path(directory, "a.ndjson")).keep_all(true_history())
            self.assertEqual(true_history(), History.kept_in(Path(directory)).records)
            self.assertEqual(0, main(Path(directory)))

    def test_what_overlaps_binds_nothing(self) -> None:
        """A request that was called before an answer came may be served what was there before it."""
        records = [*true_history(), read(3.99, "n3", 1)]
        self.assertEqual([], violations(History(records)))

    def test_stale_content_is_older_than_a_purge_only_while_the_origin_fails(self) -> None:
        stale = read(5.2, "n2", 1, fresh=False)
        self.assertNotEqual([], violations(History([*true_history(), stale])))
        failing = Disturbed("origin-down", 4.9, 5.3, ["origin"])
        # Then it is the other promise that it breaks: n2 has shown version 2 before.
        before = [each for each in true_history() if not (isinstance(each, Read) and each.node == "n2")]
        self.assertEqual([], violations(History([*before, failing, stale])))

    def test_a_delete_of_another_document_makes_void_what_serials_say_of_stale_content(self) -> None:
        records: list[Record] = [
            BEGUN,
            uploaded(0.0, 1),
            uploaded(1.0, 2),
            asked(2.0, "a", strict=True),
            claimed(3.0, "a", "complete", 1),
            Disturbed("origin-down", 3.5, 9.0, ["origin"]),
            read(6.0, "n2", 1, fresh=False),
        ]
        self.assertEqual(1, len(violations(History(records))))
        records.append(Asked(4.0, "b", [], strict=True, voids=[KEY]))
        self.assertEqual([], violations(History(records)))

    def test_what_was_read_just_before_a_death_may_be_lost_with_it(self) -> None:
        records = [*true_history(), uploaded(7.6, 4), read(7.8, "n2", 4), read(9.0, "n2", 3)]
        self.assertEqual([], violations(History(records)))

    def test_what_a_node_has_lost_with_its_disk_binds_it_no_longer(self) -> None:
        lost = Disturbed("lose", 15.5, 16.5, ["n1"], died=True, gone=15.6, lost=["control", "content", "downloads"])
        records = [*true_history(), uploaded(14.2, 4), read(14.4, "n1", 4), read(16.7, "n1", 3), sampled(16.8, "n1", 0)]
        counted = Counted(17.0, {"n1": 0})
        self.assertEqual(3, len(violations(History([*records, counted]))))
        self.assertEqual([], violations(History([*records, lost, counted])))


class FalseHistoryTests(SynchronousTestCase):
    def refused(self, promise: str, *more: Record, change: Callable[[Record], Record] = lambda record: record) -> None:
        """:param promise: words of the violation that there has to be."""
        records = [*map(change, true_history()), *more]
        found = [violation.promise for violation in violations(History(records))]
        self.assertIn(promise, found)

    def test_older_content_after_a_complete_purge(self) -> None:
        self.refused("nothing older than a purge promised", read(4.01, "n3", 1))

    def test_older_content_at_a_node_that_has_applied_the_purge(self) -> None:
        self.refused("nothing older than a purge promised", read(7.01, "n2", 2))

    def test_older_content_at_a_node_that_was_cut_off_after_the_time_that_was_told(self) -> None:
        self.refused("nothing older than a purge promised", read(8.91, "n3", 2))

    def test_older_content_after_the_bound_whatever_time_was_told(self) -> None:
        def late(record: Record) -> Record:
            if isinstance(record, Claimed) and record.id == "b":
                return evolve(record, state="durable", status=202, effective_by=99.0, applied=NODES[:2])
            return record

        self.refused("nothing older than a purge promised", read(9.01, "n3", 2), change=late)

    def test_older_content_after_a_feed_has_told_of_the_purge(self) -> None:
        records: list[Record] = [
            BEGUN,
            uploaded(0.0, 1),
            uploaded(1.0, 2),
            asked(2.0, "a"),
            told(3.0, "n1", "a", 1),
            read(3.1, "n3", 1),
        ]
        self.assertIn("older than 2", "".join(map(str, violations(History(records)))))

    def test_older_content_at_a_node_that_comes_back_before_what_was_durable_is_effective(self) -> None:
        def n3(record: Record) -> Record:
            return evolve(record, nodes=["n3"]) if isinstance(record, Disturbed) and record.died else record

        self.refused("nothing older than a purge promised", read(8.3, "n3", 2), change=n3)

    def test_older_content_served_as_stale_where_a_serial_is_known_or_it_was_deleted(self) -> None:
        def strict(record: Record) -> Record:
            return evolve(record, strict=True) if isinstance(record, Asked) else record

        failing = Disturbed("origin-down", 4.9, 5.3, ["origin"])
        stale = read(5.0, "n2", 1, fresh=False)
        self.refused("nothing older than a purge promised", failing, stale, change=strict)

    def test_a_node_that_goes_back(self) -> None:
        self.refused("no node goes back", read(2.7, "n3", 2), read(2.9, "n3", 1))

    def test_a_node_that_goes_back_over_a_death_to_before_what_was_on_its_disk(self) -> None:
        self.refused("no node goes back", uploaded(5.2, 3), read(5.4, "n2", 3), read(8.7, "n2", 2))

    def test_a_page_that_is_older_than_the_list_of_the_same_node(self) -> None:
        listed = Read(2.6, 2.7, "n3", "r", "list", status=200, version=2, lists={KEY: 2})
        self.refused("no node goes back", listed, read(2.8, "n3", 1))

    def test_other_octets_of_the_same_version(self) -> None:
        self.refused("every octet is right", read(14.2, "n2", 3, octets="others"))

    def test_another_content_than_was_uploaded(self) -> None:
        self.refused("every octet is right", read(14.2, "n2", 3, look="look 2"))

    def test_a_version_that_nobody_has_uploaded_yet(self) -> None:
        self.refused("every octet is right", read(5.7, "n1", 3))

    def test_wrong_octets_of_a_file(self) -> None:
        self.refused("every octet is right", Read(14.2, 14.3, "n2", "r", "six.whl", status=200, wrong="other octets"))

    def test_an_older_version_than_was_demanded(self) -> None:
        self.refused("who demands a version gets no older one", read(2.5, "n3", 1, least=2))

    def test_an_error_while_nothing_but_cables_fails(self) -> None:
        self.refused("whoever can answer does", Read(6.0, 6.2, "n3", "r", KEY, status=503))

    def test_no_answer_of_a_node_while_the_origin_fails(self) -> None:
        failing = Disturbed("origin-down", 13.0, 14.0, ["origin"])
        self.refused("whoever can answer does", failing, Read(13.1, 13.2, "n3", "r", KEY, failure="reset"))

    def test_an_answer_that_breaks_off_unless_the_origin_fails(self) -> None:
        cut = Read(13.1, 13.2, "n3", "r", KEY, status=200, version=3, failure="cut")
        self.refused("whoever can answer does", cut)
        failing = Disturbed("origin-down", 13.15, 14.0, ["origin"])
        self.assertEqual([], violations(History([*true_history(), failing, cut])))

    def test_stale_content_though_nothing_fails(self) -> None:
        self.refused("whoever can answer does", read(14.2, "n2", 3, fresh=False))

    def test_an_answer_that_is_complete_with_somebody_missing(self) -> None:
        def wrong(record: Record) -> Record:
            return evolve(record, pending=["n3"], applied=NODES[:2]) if isinstance(record, Claimed) else record

        self.refused("what an answer claims is possible", change=wrong)

    def test_a_place_in_a_log_that_two_purges_have(self) -> None:
        def wrong(record: Record) -> Record:
            return evolve(record, sequence=1) if isinstance(record, Claimed) else record

        self.refused("what an answer claims is possible", change=wrong)

    def test_a_position_that_goes_back(self) -> None:
        self.refused("positions never go back", sampled(13.2, "n2", 1))

    def test_a_node_that_has_not_applied_what_it_is_said_to_have(self) -> None:
        self.refused("positions never go back", sampled(4.1, "n3", 0))

    def test_a_position_that_goes_back_over_a_death(self) -> None:
        self.refused("positions never go back", sampled(8.7, "n2", 1))

    def test_a_feed_that_leaves_a_purge_out(self) -> None:
        def less(record: Record) -> Record:
            return evolve(record, places={}, id="") if record == told(4.6, "n2", "a", 1) else record

        self.refused("a feed leaves nothing out", change=less)

    def test_a_feed_that_gives_out_a_purge_twice(self) -> None:
        self.refused("a feed leaves nothing out", told(14.0, "n2", "b", 2))

    def test_a_reset_of_a_feed_though_no_log_was_lost(self) -> None:
        self.refused("a feed leaves nothing out", told(14.0, "n2", "", 2))

    def test_feeds_of_which_each_has_another_purge_at_a_place(self) -> None:
        def other(record: Record) -> Record:
            return evolve(record, id="b") if record == told(4.6, "n2", "a", 1) else record

        self.refused("a feed leaves nothing out", change=other)

    def test_a_durable_purge_that_a_node_does_not_know_in_the_end(self) -> None:
        def forgotten(record: Record) -> Record:
            return evolve(record, known={**record.known, "n2": ["a"]}) if isinstance(record, Agreed) else record

        self.refused("nothing durable is lost", change=forgotten)

    def test_a_log_that_is_shorter_in_the_end_than_its_purges(self) -> None:
        def shorter(record: Record) -> Record:
            return evolve(record, positions={LOG: 1}) if isinstance(record, Agreed) else record

        self.refused("nothing durable is lost", change=shorter)

    def test_a_download_that_is_not_counted_or_counted_twice(self) -> None:
        for count in (0, 2):

            def wrong(record: Record, count: int = count) -> Record:
                return evolve(record, downloads={"n1": count}) if isinstance(record, Counted) else record

            self.refused("downloads are counted once", change=wrong)

    def test_every_version_that_is_served_one_too_old_where_it_was_bound(self) -> None:
        """Each read of the true history after a promise, made older, is found."""
        records = true_history()
        bound = [
            number
            for number, each in enumerate(records)
            if isinstance(each, Read) and each.version > 1 and not (each.node == "n3" and each.called == 7.5)
        ]
        self.assertEqual(10, len(bound))
        for number in bound:
            changed = list(records)
            each = records[number]
            assert isinstance(each, Read)
            old = each.version - 1
            changed[number] = evolve(each, version=old, look=f"look {old}", octets=f"octets {old}")
            self.assertNotEqual([], violations(History(changed)), each)
