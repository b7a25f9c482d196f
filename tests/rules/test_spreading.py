"""One member of a fleet, event by event (DESIGN 9)."""

from __future__ import annotations

from typing import TypeVar

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.membership import Membership
from edgecache.rules.spreading import Member
from edgecache.words.purging import Entry, LogName, PurgeState
from edgecache.words.siblingsettings import Quorum
from edgecache.words.spreading import (
    FENCED,
    FREE,
    VERSION,
    Admit,
    Adopt,
    Changed,
    Copy,
    Effect,
    Publish,
    Pull,
    Pulled,
    Push,
    Refused,
    Renounce,
    Send,
    Sender,
    Stands,
)
from tests.siblings.host import Disk

T = TypeVar("T", bound=Effect)

LOGS = {name: LogName(name, name.encode() * 16) for name in "abcde"}
A, B, C = LOGS["a"], LOGS["b"], LOGS["c"]
NOW, WALL = 5_000.0, 1_700_000_000.0


def entry(log: LogName, sequence: int, content: bytes = b"0:1") -> Entry:
    return Entry(log, sequence, 0, 0, f"{log.id}{sequence}", b"", content)


def heads(**sequences: int) -> dict[LogName, int]:
    return {LOGS[name]: sequence for name, sequence in sequences.items()}


def of_kind(kind: type[T], effects: list[Effect]) -> list[T]:
    return [effect for effect in effects if isinstance(effect, kind)]


def messages(effects: list[Effect], to: str = "") -> list[object]:
    return [send.message for send in of_kind(Send, effects) if to in ("", send.to)]


class Rig:
    """Node ``a`` among its siblings, played by the test."""

    def __init__(
        self,
        members: str = "abc",
        *,
        admitted: bool = True,
        page_octets: int = 1 << 20,
        quorum: Quorum = Quorum.MAJORITY,
    ) -> None:
        self.disk = Disk(A)
        self.quorum = quorum
        self.membership = Membership.of("a", members, quorum=quorum)
        for name in members:
            self.disk.positions[LOGS[name]] = 0
        self.member = Member.begin(
            A,
            self.membership,
            self.disk,
            positions=dict(self.disk.positions),
            admitted=admitted,
            life="life",
            page_octets=page_octets,
        )
        self.members = members
        self.round = ""

    def sender(self, name: str, *, joining: bool = False) -> Sender:
        membership = Membership.of(name, self.members, quorum=self.quorum)
        return Sender(LOGS[name], membership.hashes, membership.everyone, joining)

    def tick(self, now: float = NOW, wall: float | None = None) -> list[Effect]:
        effects = self.member.tick(now, WALL + now - NOW if wall is None else wall)
        pulls = [each for each in messages(effects) if isinstance(each, Pull)]
        if pulls:
            self.round = pulls[0].round
        return effects

    def pulled(
        self, name: str, *entries: Entry, now: float = NOW, joining: bool = False, **sequences: int
    ) -> list[Effect]:
        positions = heads(**dict.fromkeys(self.members, 0)) | heads(**sequences)
        answer = Pulled(self.sender(name, joining=joining), self.round, positions, entries)
        return self.member.came(name, answer, now)

    def pushed(self, name: str, *sequences: int, request: int = 7) -> list[Effect]:
        push = Push(self.sender(name), tuple(entry(LOGS[name], sequence) for sequence in sequences))
        return self.member.came(name, push, NOW, request)

    def stands(self, name: str, now: float = NOW, joining: bool = False, **sequences: int) -> list[Effect]:
        positions = heads(**dict.fromkeys(self.members, 0)) | heads(**sequences)
        return self.member.came(name, Stands(self.sender(name, joining=joining), positions), now)

    def purged(self, *sequences: int, now: float = NOW) -> list[Effect]:
        entries = [entry(A, sequence) for sequence in sequences]
        for each in entries:
            self.disk.add(each)
        return self.member.appended(entries, now)


class LeaseTests(SynchronousTestCase):
    def test_a_node_begins_fenced(self) -> None:
        rig = Rig()
        rig.tick()
        self.assertEqual(FENCED, rig.member.fresh_until)

    def test_a_lease_counts_from_the_start_of_the_round_that_a_majority_answered(self) -> None:
        rig = Rig("abcde")
        rig.tick()
        self.assertEqual([], of_kind(Publish, rig.pulled("b", now=NOW + 1)))
        self.assertEqual([Publish(NOW + 10)], rig.pulled("c", now=NOW + 3))

    def test_one_dead_node_fences_nobody_else(self) -> None:
        rig = Rig("abc")
        for second in range(30):
            rig.tick(NOW + second)
            rig.pulled("b", now=NOW + second + 0.1)
            self.assertEqual(NOW + second + 10, rig.member.fresh_until)

    def test_an_answer_counts_when_all_that_it_names_is_on_disk(self) -> None:
        rig = Rig()
        rig.tick()
        first = rig.pulled("b", entry(B, 1), b=2)
        self.assertEqual([Copy((entry(B, 1),))], first)
        self.assertEqual([], of_kind(Publish, rig.member.stored(heads(b=1), NOW)))
        self.assertEqual([Publish(NOW + 10)], of_kind(Publish, rig.member.stored(heads(b=2), NOW)))

    def test_a_push_is_answered_after_the_lease_is_published(self) -> None:
        rig = Rig()
        rig.tick()
        rig.pushed("b", 1)
        rig.pulled("b", b=1)
        kinds = [type(effect) for effect in rig.member.stored(heads(b=1), NOW) if isinstance(effect, Publish | Send)]
        self.assertEqual([Publish, Send], kinds)

    def test_a_lone_nodes_lease_does_not_end(self) -> None:
        rig = Rig("a", admitted=False)
        self.assertIn(Admit(), rig.tick())
        self.assertEqual([Publish(FREE)], of_kind(Publish, rig.member.became_admitted(NOW)))

    def test_a_jump_of_wall_time_drops_the_lease_and_the_rounds(self) -> None:
        for jump in (-1.5, 1.5, 3600.0):
            rig = Rig()
            rig.tick()
            before = rig.round
            rig.pulled("b")
            effects = rig.tick(NOW + 1, WALL + 1 + jump)
            self.assertEqual([Publish(FENCED)], of_kind(Publish, effects))
            rig.round = before
            self.assertEqual([], of_kind(Publish, rig.pulled("c")))

    def test_wall_time_that_is_slewed_drops_nothing(self) -> None:
        rig = Rig()
        for second in range(100):
            effects = rig.tick(NOW + second, WALL + second * 1.0005)
            self.assertNotIn(Publish(FENCED), effects)
            rig.pulled("b", now=NOW + second)

    def test_small_jumps_that_add_up_within_a_lease_drop_it(self) -> None:
        rig = Rig()
        rig.tick()
        rig.pulled("b")
        self.assertNotIn(Publish(FENCED), rig.tick(NOW + 1, WALL + 1.8))
        self.assertIn(Publish(FENCED), rig.tick(NOW + 2, WALL + 3.6))

    def test_an_answer_to_another_round_gives_nothing(self) -> None:
        rig = Rig()
        rig.tick()
        rig.round = "life before.1"
        self.assertEqual([], rig.pulled("b"))


class RefusalTests(SynchronousTestCase):
    """What is not from a member, or not for us, is refused with a sentence, and changes nothing."""

    def refusal(self, rig: Rig, peer: str, message: Pull | Push) -> str:
        rig.tick()
        positions = rig.member.positions
        effects = rig.member.came(peer, message, NOW, 7)
        self.assertEqual(1, len(effects))
        (send,) = of_kind(Send, effects)
        self.assertEqual((peer, 7), (send.to, send.answering))
        assert isinstance(send.message, Refused)
        self.assertEqual(positions, rig.member.positions)
        return send.message.problem

    def test_one_that_is_no_member(self) -> None:
        rig = Rig()
        push = Push(evolve(rig.sender("b"), log=LOGS["e"]), (entry(LOGS["e"], 1),))
        self.assertEqual("'e' is no sibling of 'a'.", self.refusal(rig, "e", push))

    def test_a_certificate_of_another_node(self) -> None:
        rig = Rig()
        pull = Pull(rig.sender("b"), "", {})
        self.assertEqual("The message is from 'b', the certificate from 'c'.", self.refusal(rig, "c", pull))

    def test_another_configuration(self) -> None:
        rig = Rig()
        others = Membership.of("b", "abcd")
        pull = Pull(Sender(B, others.hashes, others.everyone), "", {})
        problem = self.refusal(rig, "b", pull)
        self.assertIn("configured otherwise", problem)
        self.assertIn("a, b, c, d there and a, b, c here", problem)
        self.assertEqual(problem, rig.member.siblings()[0].problem)

    def test_a_version_two_releases_away(self) -> None:
        for version, refused in ((VERSION + 2, True), (VERSION + 1, False), (VERSION - 1, False)):
            rig = Rig()
            pull = Pull(evolve(rig.sender("b"), version=version), "", {})
            if refused:
                self.assertIn("do not understand", self.refusal(rig, "b", pull))
            else:
                self.assertIsInstance(messages(rig.member.came("b", pull, NOW))[0], Pulled)

    def test_one_of_whom_two_processes_speak_until_one_of_them_is_silent(self) -> None:
        """Two copies of one node: each of two purges with one number would be taken for the other."""
        rig = Rig()

        def hears(second: int, *lives: str) -> list[str]:
            said = []
            for life in lives:
                sender = evolve(rig.sender("b"), life=life)
                answers = messages(rig.member.came("b", Pull(sender, "r", heads(b=0)), NOW + second, second), "b")
                said += [type(answer).__name__ for answer in answers]
            return said

        begins = {second: hears(second, "one", "two") for second in range(30)}
        self.assertEqual(["Pulled", "Pulled"], begins[10])
        self.assertEqual(["Refused", "Refused"], begins[29])
        self.assertIn("'b' is there twice", rig.member.problem("b"))
        self.assertEqual([["Refused"], ["Pulled"]], [hears(second, "one") for second in (40, 50)])
        self.assertEqual("", rig.member.problem("b"))

    def test_a_new_process_of_whose_predecessor_some_messages_are_late_by_minutes_is_listened_to(self) -> None:
        rig = Rig()
        for second, life in enumerate(["one"] * 5 + ["two"] * 30 + ["one"] * 8 + ["two"] * 30):
            push = Push(evolve(rig.sender("b"), life=life), (entry(B, 1),))
            effects = rig.member.came("b", push, NOW + second, second)
            self.assertFalse([each for each in messages(effects) if isinstance(each, Refused)], second)

    def test_a_refusal_is_remembered_until_the_sibling_is_heard_again(self) -> None:
        rig = Rig()
        rig.tick()
        self.assertEqual([], rig.member.came("b", Refused(rig.sender("b"), "No."), NOW))
        self.assertEqual("refuses us: No.", rig.member.siblings()[0].problem)
        rig.stands("b")
        self.assertEqual("", rig.member.siblings()[0].problem)


class PushTests(SynchronousTestCase):
    def test_a_purge_is_pushed_to_all_at_once(self) -> None:
        rig = Rig()
        rig.tick()
        effects = rig.purged(1)
        self.assertEqual(
            {"b": (entry(A, 1),), "c": (entry(A, 1),)},
            {send.to: send.message.entries for send in of_kind(Send, effects) if isinstance(send.message, Push)},
        )

    def test_a_push_is_answered_once_it_is_durable(self) -> None:
        rig = Rig()
        rig.tick()
        self.assertEqual([Copy((entry(B, 1),))], rig.pushed("b", 1))
        (send,) = of_kind(Send, rig.member.stored(heads(b=1), NOW))
        self.assertEqual(("b", 7), (send.to, send.answering))
        assert isinstance(send.message, Stands)
        self.assertEqual(1, send.message.positions[B])

    def test_a_push_of_what_is_here_is_answered_at_once_and_copied_once(self) -> None:
        rig = Rig()
        rig.tick()
        rig.pushed("b", 1)
        self.assertEqual([], rig.pushed("b", 1, request=8))
        answered = of_kind(Send, rig.member.stored(heads(b=1), NOW))
        self.assertEqual([7, 8], [send.answering for send in answered])
        self.assertEqual([9], [send.answering for send in of_kind(Send, rig.pushed("b", 1, request=9))])

    def test_a_push_that_comes_too_early_waits_and_the_one_before_it_is_asked_for(self) -> None:
        rig = Rig()
        rig.tick()
        (pull,) = messages(rig.pushed("b", 2), "b")
        self.assertIsInstance(pull, Pull)
        self.assertEqual([Copy((entry(B, 1), entry(B, 2)))], rig.pushed("b", 1, request=8))

    def test_a_push_that_cannot_be_kept_is_answered_with_what_is_here(self) -> None:
        rig = Rig()
        rig.tick()
        rig.pushed("b", 1)
        (send,) = of_kind(Send, rig.member.failed(NOW))
        assert isinstance(send.message, Stands)
        self.assertEqual(0, send.message.positions[B])
        self.assertEqual([Copy((entry(B, 1),))], rig.pulled("b", entry(B, 1), b=1))

    def test_a_push_that_waits_for_longer_than_a_lease_is_answered_with_what_is_here(self) -> None:
        rig = Rig()
        rig.tick()
        rig.pushed("b", 2)
        self.assertEqual([7], [send.answering for send in of_kind(Send, rig.tick(NOW + 11)) if send.answering])

    def test_only_entries_of_its_own_log_are_taken_from_a_push(self) -> None:
        rig = Rig()
        rig.tick()
        self.assertEqual([], of_kind(Copy, rig.member.came("b", Push(rig.sender("b"), (entry(C, 1),)), NOW)))

    @given(st.permutations([*range(1, 7), *range(1, 7)]), st.data())
    def test_neither_order_nor_duplicates_matter(self, sequences: list[int], data: st.DataObject) -> None:
        rig = Rig()
        rig.tick()
        copied: list[Entry] = []
        # Whatever came before, a round has all of it at last.
        for sequence in [*sequences, 0]:
            if sequence and data.draw(st.booleans()):
                effects = rig.pushed("b", sequence)
            else:
                effects = rig.pulled("b", *(entry(B, number) for number in range(sequence or 1, 7)), b=6)
            copied += (each for copy in of_kind(Copy, effects) for each in copy.entries)
        self.assertEqual([entry(B, number) for number in range(1, 7)], copied)


class PageTests(SynchronousTestCase):
    def answer(self, rig: Rig, **known: int) -> Pulled:
        pull = Pull(rig.sender("b"), "round", heads(a=0, b=0, c=0) | heads(**known))
        (send,) = of_kind(Send, rig.member.came("b", pull, NOW, 7))
        assert isinstance(send.message, Pulled)
        return send.message

    def test_a_page_begins_where_the_asker_stands(self) -> None:
        rig = Rig()
        rig.purged(1, 2, 3)
        answer = self.answer(rig, a=1)
        self.assertEqual((entry(A, 2), entry(A, 3)), answer.entries)
        self.assertFalse(answer.more)

    def test_a_page_has_as_much_as_fits_and_at_least_one_entry(self) -> None:
        for octets, fitting in ((1, 1), (6, 2), (8, 2), (9, 3)):
            rig = Rig(page_octets=octets)
            rig.purged(1, 2, 3)
            answer = self.answer(rig)
            self.assertEqual((fitting, fitting < 3), (len(answer.entries), answer.more))
            self.assertEqual(3, answer.positions[A])

    def test_hundreds_of_entries_are_read_bit_by_bit(self) -> None:
        rig = Rig()
        rig.purged(*range(1, 200))
        self.assertEqual(list(range(1, 200)), [each.sequence for each in self.answer(rig).entries])

    def test_the_next_page_is_asked_for_when_this_one_is_durable(self) -> None:
        rig = Rig()
        rig.tick()
        answer = Pulled(rig.sender("b"), rig.round, heads(b=2), (entry(B, 1),), more=True)
        self.assertEqual([Copy((entry(B, 1),))], rig.member.came("b", answer, NOW))
        (pull,) = messages(rig.member.stored(heads(b=1), NOW))
        assert isinstance(pull, Pull)
        self.assertEqual((rig.round, 1), (pull.round, pull.positions[B]))

    def test_what_was_committed_this_moment_is_not_in_a_page_that_does_not_name_it(self) -> None:
        rig = Rig()
        rig.disk.add(entry(A, 1))
        self.assertEqual(((), 0), (self.answer(rig).entries, self.answer(rig).positions[A]))

    def test_a_log_that_is_trimmed_is_read_from_where_it_begins_and_everything_is_validated(self) -> None:
        rig = Rig()
        rig.disk.keep = 2
        rig.purged(1, 2, 3, 4)
        answer = self.answer(rig, a=1)
        self.assertEqual((heads(a=2), (entry(A, 3), entry(A, 4))), (answer.too_old, answer.entries))
        other = Rig()
        other.tick()
        old = Pulled(other.sender("b"), other.round, heads(b=4), (entry(B, 3), entry(B, 4)), heads(b=2))
        self.assertEqual(
            [Adopt(heads(b=2), everything=True), Copy((entry(B, 3), entry(B, 4)))], other.member.came("b", old, NOW)
        )


class StateTests(SynchronousTestCase):
    """What the answer to a purge is made of."""

    def state(self, rig: Rig, now: float = NOW) -> tuple[PurgeState, tuple[str, ...], tuple[str, ...], float | None]:
        spread = rig.member.state(A, 1, now, WALL + now - NOW)
        return spread.state, spread.applied, spread.pending, spread.effective_by

    def test_local_then_durable_then_complete(self) -> None:
        rig = Rig()
        rig.tick()
        rig.purged(1)
        self.assertEqual((PurgeState.LOCAL, ("a",), ("b", "c"), None), self.state(rig))
        effects = rig.stands("b", a=1)
        self.assertEqual([Changed(A, 1, PurgeState.DURABLE)], effects)
        self.assertEqual((PurgeState.DURABLE, ("a", "b"), ("c",)), self.state(rig)[:3])
        self.assertEqual([Changed(A, 1, PurgeState.COMPLETE)], rig.stands("c", a=1))
        self.assertEqual((PurgeState.COMPLETE, ("a", "b", "c"), (), None), self.state(rig))

    def test_effective_when_every_lease_from_before_is_over(self) -> None:
        rig = Rig()
        rig.tick()
        rig.purged(1)
        rig.stands("b", now=NOW + 1, a=1)
        bound = rig.membership.bound_seconds
        self.assertAlmostEqual(WALL + 1 + bound, self.state(rig)[3] or 0.0, places=3)
        self.assertAlmostEqual(WALL + 1 + bound, self.state(rig, NOW + 5)[3] or 0.0, places=3)
        self.assertEqual(PurgeState.DURABLE, self.state(rig, NOW + bound + 0.99)[0])
        self.assertEqual((PurgeState.EFFECTIVE, ("a", "b"), ("c",), None), self.state(rig, NOW + bound + 1.01))
        self.assertIn(Changed(A, 1, PurgeState.EFFECTIVE), rig.tick(NOW + bound + 1.01))

    def test_a_purge_of_a_lone_node_is_complete_at_once(self) -> None:
        rig = Rig("a")
        rig.tick()
        rig.purged(1)
        self.assertEqual((PurgeState.COMPLETE, ("a",), (), None), self.state(rig))

    def test_every_node_can_tell_of_every_purge(self) -> None:
        rig = Rig()
        rig.tick()
        rig.stands("b", b=1)
        self.assertEqual(PurgeState.LOCAL, rig.member.state(B, 1, NOW, WALL).state)
        rig.member.stored(heads(b=1), NOW)
        self.assertEqual(PurgeState.DURABLE, rig.member.state(B, 1, NOW, WALL).state)

    def test_an_acknowledgement_that_was_lost_is_made_up_for_by_the_next_round(self) -> None:
        rig = Rig()
        rig.tick()
        rig.purged(1)
        rig.member.came("b", Pull(rig.sender("b"), "theirs", heads(a=1, b=0, c=0)), NOW, 7)
        self.assertEqual(PurgeState.DURABLE, self.state(rig)[0])


class JoiningTests(SynchronousTestCase):
    def test_a_node_whose_control_is_new_accepts_and_acknowledges_nothing(self) -> None:
        rig = Rig(admitted=False)
        rig.tick()
        self.assertFalse(rig.member.accepts)
        (answer,) = messages(rig.pushed("b", 1))
        assert isinstance(answer, Stands)
        self.assertTrue(answer.sender.joining)
        (pulled,) = messages(rig.member.came("b", Pull(rig.sender("b"), "", {}), NOW, 7))
        assert isinstance(pulled, Pulled)
        self.assertTrue(pulled.sender.joining)

    def test_it_is_admitted_by_enough_admitted_siblings_and_has_no_lease_before(self) -> None:
        rig = Rig(admitted=False)
        rig.tick()
        self.assertEqual([], rig.pulled("b"))
        self.assertEqual([Admit()], rig.pulled("c"))
        self.assertFalse(rig.member.accepts)
        self.assertEqual([Publish(NOW + 10)], of_kind(Publish, rig.member.became_admitted(NOW)))
        self.assertTrue(rig.member.accepts)

    def test_it_is_admitted_when_all_siblings_answered_though_they_are_new_as_well(self) -> None:
        rig = Rig(admitted=False)
        rig.tick()
        rig.pulled("b", joining=True)
        self.assertEqual([Admit()], rig.pulled("c", joining=True))

    def test_an_answer_admits_only_if_the_new_log_is_written_down_there(self) -> None:
        rig = Rig(admitted=False)
        rig.tick()
        for name in "bc":
            answer = Pulled(rig.sender(name), rig.round, heads(b=0, c=0))
            self.assertEqual([], rig.member.came(name, answer, NOW))

    def test_a_new_log_is_written_down_when_it_is_heard_of(self) -> None:
        rig = Rig()
        rig.tick()
        again = LogName("b", b"another life    ")
        pull = Pull(evolve(rig.sender("b", joining=True), log=again), "", {again: 0})
        self.assertEqual([Adopt({again: 0}, everything=False)], of_kind(Adopt, rig.member.came("b", pull, NOW)))

    def test_where_one_disk_suffices_a_new_log_invalidates_everything_before_its_entries_are_taken(self) -> None:
        rig = Rig("ab", quorum=Quorum.ANY)
        rig.tick()
        again = LogName("b", b"another life    ")
        sender = evolve(rig.sender("b"), log=again)
        push = Push(sender, (entry(again, 1),))
        answer = Pulled(sender, rig.round, {again: 1}, (entry(again, 1),))
        self.assertEqual([Adopt({again: 0}, everything=True)], rig.member.came("b", answer, NOW))
        self.assertEqual([], of_kind(Copy, rig.member.came("b", push, NOW)))
        self.assertEqual([Copy((entry(again, 1),))], of_kind(Copy, rig.member.stored({again: 0}, NOW)))


class BackupTests(SynchronousTestCase):
    def test_a_node_whose_siblings_have_more_of_its_log_is_fenced_and_accepts_nothing(self) -> None:
        rig = Rig()
        rig.tick()
        rig.pulled("b")
        effects = rig.stands("c", a=5)
        self.assertEqual([Publish(FENCED), Renounce], [effects[0], type(effects[1])])
        self.assertFalse(rig.member.accepts)
        self.assertIn("older copy", rig.member.renounced)
        self.assertEqual([], of_kind(Publish, rig.tick(NOW + 1) + rig.pulled("b")))


class ContentTests(SynchronousTestCase):
    """For requests of siblings for content: is what is here as new as what the asker knows?"""

    def test_a_node_covers_what_it_has_on_disk(self) -> None:
        rig = Rig()
        self.assertTrue(rig.member.covers(heads(a=0, b=0)))
        self.assertFalse(rig.member.covers(heads(b=1)))
        self.assertFalse(rig.member.covers({LOGS["e"]: 0}))

    def test_who_is_behind_asks_at_once_but_once_a_second(self) -> None:
        rig = Rig()
        rig.tick()
        self.assertEqual(1, len(messages(rig.member.catch_up("b", NOW), "b")))
        self.assertEqual([], rig.member.catch_up("b", NOW))
        rig.tick(NOW + 1)
        self.assertEqual(1, len(rig.member.catch_up("b", NOW + 1)))


class ConfigurationTests(SynchronousTestCase):
    def test_while_members_change_a_lease_needs_both_majorities(self) -> None:
        rig = Rig("abc")
        rig.tick()
        rig.member.configured(Membership.of("a", "abcd", previous_members="abc"), NOW)
        rig.tick()
        self.assertEqual([], of_kind(Publish, rig.pulled("b")))
        rig.members = "abcd"
        effects = rig.member.came(
            "d",
            Pulled(
                Sender(LOGS["d"], Membership.of("d", "abcd").hashes, frozenset("abcd")), rig.round, heads(a=0, b=0, c=0)
            ),
            NOW,
        )
        self.assertEqual([Publish(NOW + 10)], of_kind(Publish, effects))

    def test_an_unrelated_configuration_drops_the_lease(self) -> None:
        rig = Rig("abc")
        rig.tick()
        rig.pulled("b")
        self.assertEqual([Publish(FENCED)], of_kind(Publish, rig.member.configured(Membership.of("a", "abde"), NOW)))

    def test_a_lone_node_that_gets_a_sibling_has_a_lease_that_ends(self) -> None:
        rig = Rig("a")
        rig.tick()
        effects = rig.member.configured(Membership.of("a", "ab", previous_members="a"), NOW)
        self.assertEqual([Publish(NOW + 10)], of_kind(Publish, effects))

    def test_a_member_that_only_a_sibling_knows_is_waited_for(self) -> None:
        rig = Rig("abc")
        rig.tick()
        rig.purged(1)
        changing = Membership.of("b", "abcd", previous_members="abc")
        told = Stands(Sender(B, changing.hashes, changing.everyone), heads(a=1, b=0, c=0))
        rig.member.came("b", told, NOW)
        rig.stands("c", a=1)
        spread = rig.member.state(A, 1, NOW, WALL)
        self.assertEqual((PurgeState.DURABLE, ("d",)), (spread.state, spread.pending))
