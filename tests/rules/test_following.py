"""While the project list of an origin is followed, pages live as where purges are pushed, and only so long."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.decisions import Forward, OnRequest, Reuse
from edgecache.rules.policy import on_request
from edgecache.words.config import Profile
from edgecache.words.reasons import PurgeMode
from edgecache.words.stored import Flag, Stored
from tests.rules.build import NOW, asked, sites
from tests.store.rooms import response

OF = sites(profile=Profile.INDEX, page_seconds=10.0, purged_page_seconds=1000.0, follow_seconds=30.0)
PAGE = response(
    generated_at=NOW, validated_at=NOW, fresh_until=NOW + 10.0, stale_while_revalidate_until=NOW + 10.0, flags=Flag.PAGE
)


def after(
    seconds: float,
    *lines: str,
    target: str = "/simple/six/",
    stored: Stored = PAGE,
    followed: bool = True,
    purged: PurgeMode | None = None,
    fenced: bool = False,
) -> OnRequest:
    return on_request(asked(*lines, of=OF, target=target), stored, purged, fenced, NOW + seconds, followed=followed)


class FollowedTests(SynchronousTestCase):
    def test_pages_of_projects_live_as_long_as_where_purges_are_pushed(self) -> None:
        for target in ("/simple/six/", "/pypi/six/json", "/pypi/six/1.0/json"):
            found = after(999.0, target=target)
            assert isinstance(found, Reuse), target
            self.assertEqual((999, 1, False), (found.age, found.ttl, found.stale))
            self.assertIsInstance(after(1000.0, target=target), Forward, target)

    def test_once_it_is_not_followed_any_more_what_is_stored_lives_as_without(self) -> None:
        self.assertIsInstance(after(9.0, followed=False), Reuse)
        self.assertIsInstance(after(10.0, followed=False), Forward)

    def test_what_was_purged_or_may_have_been_is_validated_all_the_same(self) -> None:
        self.assertIsInstance(after(1.0, purged=PurgeMode.REVALIDATE), Forward)
        self.assertIsInstance(after(1.0, fenced=True), Forward)

    def test_installers_that_demand_the_newest_are_answered_from_the_store(self) -> None:
        self.assertIsInstance(after(500.0, "Cache-Control: max-age=0"), Reuse)
        self.assertIsInstance(after(5.0, "Cache-Control: max-age=0", followed=False), Forward)
        self.assertIsInstance(after(500.0, "Cache-Control: no-cache"), Forward)

    def test_the_list_itself_what_is_no_page_and_what_is_not_there_live_as_without(self) -> None:
        for target in ("/simple/", "/other", "/files/six/-/six-1.0.tar.gz"):
            self.assertIsInstance(after(11.0, target=target), Forward, target)
        self.assertIsInstance(after(11.0, stored=evolve(PAGE, status=404)), Forward)

    def test_what_stands_in_for_a_better_origins_answer_does_too(self) -> None:
        self.assertIsInstance(after(11.0, stored=evolve(PAGE, flags=Flag.PAGE | Flag.FALLBACK)), Forward)
