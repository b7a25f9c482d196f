"""Several stored responses of one URL, and who may share a fill (RFC 9111 §4, §4.1)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Freshen
from edgecache.rules.policy import may_share
from edgecache.rules.varying import nominated, variant_hash, variant_of
from edgecache.words.config import Profile
from tests.rules.build import INDEX, NOW, asked, head, plan_for, sites, stored

FRESH = "Cache-Control: max-age=60"


def same(name: str, one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    names = (name.lower().encode(),)
    return variant_of(asked(*(f"{name}: {v}" for v in one)), names) == variant_of(
        asked(*(f"{name}: {v}" for v in other)), names
    )


class NominatedTests(SynchronousTestCase):
    def test_names_are_a_set_in_any_case(self) -> None:
        self.assertEqual((b"bar", b"foo"), nominated(head("Vary: Foo, BAR", "vary: foo,, bar")))
        self.assertEqual((), nominated(head()))
        self.assertEqual((), nominated(head("Vary: ,")))

    def test_a_star_anywhere_selects_nothing(self) -> None:
        for lines in (("Vary: *",), ("Vary: a, *",), ("Vary:", "Vary: *")):
            self.assertIsNone(nominated(head(*lines)), lines)


class VariantTests(SynchronousTestCase):
    def test_values_decide(self) -> None:
        for one, other, expected in (
            (("1",), ("1",), True),
            (("1",), ("2",), False),
            (("1",), (), False),
            ((), (), True),
            (("",), (), False),
            (("1, 2",), ("1", "2"), True),
            (("1,2",), ("  1 , 2 ",), True),
            (("1, 2",), ("2, 1",), False),
            (("a",), ("A",), False),
            (('"a, b"',), ('"a,b"',), False),
            (("a,",), ("a",), False),
            ((",a",), ("a",), False),
            (("a", ""), ("a",), False),
            (("a,,b",), ("a,b",), False),
        ):
            self.assertEqual(expected, same("Foo", one, other), (one, other))

    def test_negotiation_is_compared_by_its_meaning(self) -> None:
        for name, one, other, expected in (
            ("Accept-Language", "en, de", "de, en", True),
            ("Accept-Language", "en, de", "eN, De", True),
            ("Accept-Language", "en, de", " en ,   de", True),
            ("Accept-Language", "en, de;q=0.5", "de; q=0.5, en;q=1.0", True),
            ("Accept-Language", "en, de;q=0.5", "de, en;q=0.5", False),
            ("Accept-Encoding", "gzip, deflate", "deflate,gzip;q=1", True),
            ("Accept-Encoding", "x-gzip", "gzip", True),
            ("Accept-Encoding", "gzip", "gzip, br", False),
            ("Accept-Encoding", "gzip", "gzip;q=0", False),
            ("Accept", "text/html, a/b;q=0.123", "A/B; Q=0.1230 , text/HTML", True),
            ("Accept", "text/html;level=1", "text/html", False),
            ("Accept", "text/html;q=1;level=1", "text/html", False),
            ("Accept", 'text/html;a="b;q=x"', 'text/html;a="b;q=y"', False),
            ("Accept-Language", "de;q=x", "de", False),
            ("Accept-Language", "de;q=.5", "de;q=0.5", False),
            ("Accept-Language", "de;q=1.5", "de", False),
            ("Accept-Language", "de;q", "de", False),
        ):
            self.assertEqual(expected, same(name, (one,), (other,)), (name, one, other))

    def test_no_record_has_what_a_client_has_shown_of_itself(self) -> None:
        for name in ("Authorization", "Cookie"):
            variant = variant_of(asked(f"{name}: secret"), (name.lower().encode(),))
            self.assertNotIn(b"secret", variant)
            for value in ("other", "", None):
                lines = () if value is None else (f"{name}: {value}",)
                self.assertNotEqual(variant, variant_of(asked(*lines), (name.lower().encode(),)), (name, value))

    def test_fields_that_are_not_nominated_don_t_matter(self) -> None:
        self.assertEqual(
            variant_of(asked("Foo: 1", "Other: 2"), (b"foo",)), variant_of(asked("Foo: 1", "Other: 3"), (b"foo",))
        )

    def test_no_nomination_no_variant(self) -> None:
        by = asked("Foo: 1")
        self.assertEqual((b"", by.key_hash), (variant_of(by, ()), variant_hash(by.key_hash, b"")))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(("a", "b", "c")),
                st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=6),
            ),
            max_size=4,
        ),
        st.lists(
            st.tuples(
                st.sampled_from(("a", "b", "c")),
                st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=6),
            ),
            max_size=4,
        ),
        st.sets(st.sampled_from((b"a", b"b", b"c")), min_size=1),
    )
    @settings(max_examples=200)
    def test_equal_variants_have_equal_members_in_every_nominated_field(
        self, one: list[tuple[str, str]], other: list[tuple[str, str]], names: set[bytes]
    ) -> None:
        first, second = asked(*(f"{n}: {v}" for n, v in one)), asked(*(f"{n}: {v}" for n, v in other))
        chosen = tuple(sorted(names))

        def meaning(lines: list[tuple[str, str]]) -> list[tuple[bool, str]]:
            found = [[v for n, v in lines if n.encode() == name] for name in chosen]
            return [(bool(values), ",".join(values)) for values in found]

        if meaning(one) == meaning(other):
            self.assertEqual(variant_of(first, chosen), variant_of(second, chosen))
        if variant_of(first, chosen) == variant_of(second, chosen):
            stripped = [
                [
                    (there, [part for part in value.replace('"', "").split(",") if part])
                    for there, value in meaning(lines)
                ]
                for lines in (one, other)
            ]
            self.assertEqual(stripped[0], stripped[1])

    def test_an_index_has_no_variants_because_all_that_it_sees_is_in_the_key(self) -> None:
        page = asked("Accept: text/html", of=INDEX, target="/about/")
        plan = plan_for(page, head("Vary: Accept, Accept-Encoding, Cookie"))
        self.assertEqual((None, b"", page.key_hash), (plan.nominated, plan.stored.variant, plan.record_hash))
        self.assertIn(b"vary: Accept, Accept-Encoding, Cookie\r\n", plan.stored.head)

    def test_variants_lie_apart(self) -> None:
        one, other = asked("Foo: 1"), asked("Foo: 2")
        response = head(FRESH, "Vary: Foo, Bar")
        first, second = plan_for(one, response), plan_for(other, response)
        self.assertEqual((b"bar", b"foo"), first.nominated)
        self.assertEqual(3, len({first.record_hash, second.record_hash, one.key_hash}))
        self.assertEqual(first.record_hash, variant_hash(one.key_hash, variant_of(asked("foo:  1"), (b"bar", b"foo"))))


class SharingTests(SynchronousTestCase):
    """Who may have the response of somebody else's fill (RFC 9111 §4)."""

    def shares(self, waiter: Asked, *lines: str, leader: Asked | None = None, after: float = 0.3) -> bool:
        leader = leader or asked()
        return may_share(waiter, leader, plan_for(leader, head(*lines)), NOW + after)

    def test_anyone_whom_the_store_could_give_it(self) -> None:
        self.assertTrue(self.shares(asked("X: y"), FRESH))
        self.assertTrue(self.shares(asked(method="HEAD"), FRESH))
        self.assertTrue(self.shares(asked('If-None-Match: "a"', "Range: bytes=0-1"), FRESH))
        self.assertTrue(self.shares(asked("Cache-Control: max-age=0"), FRESH))

    def test_not_what_must_be_validated_or_is_stale(self) -> None:
        self.assertFalse(self.shares(asked(), "Cache-Control: no-cache", 'ETag: "a"'))
        self.assertFalse(self.shares(asked(), "Cache-Control: max-age=0", 'ETag: "a"'))
        self.assertFalse(self.shares(asked(), FRESH, after=60))

    def test_not_another_variant(self) -> None:
        leader = asked("Foo: 1")
        self.assertTrue(self.shares(asked("Foo: 1"), FRESH, "Vary: Foo", leader=leader))
        self.assertFalse(self.shares(asked("Foo: 2"), FRESH, "Vary: Foo", leader=leader))

    def test_not_another_key(self) -> None:
        self.assertFalse(self.shares(asked(target="/b"), FRESH))

    def test_not_who_demands_more_or_must_be_forwarded(self) -> None:
        for line in (
            "Cache-Control: no-cache",
            "Cache-Control: min-fresh=100",
            "Cache-Control: no-store",
            'If-Match: "a"',
        ):
            self.assertFalse(self.shares(asked(line), FRESH), line)
        self.assertFalse(self.shares(asked("Cache-Control: max-age=5"), FRESH, "Age: 9"))
        self.assertFalse(self.shares(asked(method="POST"), FRESH))

    def test_the_newest_for_who_came_before_it_was_demanded(self) -> None:
        newest = asked("Cache-Control: no-cache")
        for leader, after, expected in ((newest, True, True), (newest, False, False), (asked(), True, False)):
            plan = plan_for(leader, head(FRESH))
            self.assertIs(expected, may_share(newest, leader, plan, NOW, after=after))

    def test_a_freshened_variant_likewise(self) -> None:
        leader = asked("Foo: 1")
        plan = Freshen(stored(FRESH, "Vary: Foo", by=leader), b"")
        self.assertTrue(may_share(asked("Foo: 1"), leader, plan, NOW))
        self.assertFalse(may_share(asked("Foo: 2"), leader, plan, NOW))

    def test_credentials_on_an_index_share_with_nobody(self) -> None:
        index = sites(profile=Profile.INDEX, pass_authorization=True)
        leader, waiter = asked(of=index, target="/simple/a/"), asked("Authorization: x", of=index, target="/simple/a/")
        self.assertFalse(self.shares(waiter, leader=leader))
        plain = asked("Authorization: x", of=INDEX, target="/simple/a/")
        self.assertTrue(self.shares(plain, leader=asked(of=INDEX, target="/simple/a/")))
