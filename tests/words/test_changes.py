"""What a reload takes over, and what waits for a restart."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from edgecache.words.changes import changes
from edgecache.words.config import (
    Config,
    IndexSettings,
    LimitSettings,
    ListenSettings,
    NodeSettings,
    Profile,
    Secret,
    SiteSettings,
    StoreSettings,
    TLSSettings,
    UpstreamSettings,
)
from edgecache.words.siblingsettings import SiblingSettings, SiblingsSettings

SITE = SiteSettings("default", Profile.PLAIN, ("http://one.example",))
CONFIG = Config(NodeSettings("a"), (SITE,))
SIBLINGS = SiblingsSettings("ca.pem", "a.pem", "a.key")


class ChangesTests(SynchronousTestCase):
    def test_nothing_changed(self) -> None:
        found = changes(CONFIG, CONFIG)
        self.assertEqual((CONFIG, (), ()), (found.config, found.taken, found.waiting))

    def test_what_can_be_had_is_and_is_named_without_its_value(self) -> None:
        site = evolve(SITE, origins=("http://user:pass@two.example",), origin_authorization=Secret("hidden"))
        read = evolve(CONFIG, sites=(site,), limits=LimitSettings(idle_seconds=5.0), tls=TLSSettings("c.pem", "k.pem"))
        found = changes(CONFIG, read)
        self.assertEqual(read, found.config)
        self.assertEqual(
            ("[[site]] default: origins", "[[site]] default: origin_authorization", "[tls]", "[limits] idle_seconds"),
            found.taken,
        )
        self.assertEqual((), found.waiting)

    def test_sites_come_and_go_by_name(self) -> None:
        other = evolve(SITE, name="other", hosts=("other.example",))
        self.assertEqual(("[[site]] other (new)",), changes(CONFIG, evolve(CONFIG, sites=(SITE, other))).taken)
        both = evolve(CONFIG, sites=(SITE, other))
        self.assertEqual(("[[site]] other (gone)",), changes(both, CONFIG).taken)
        self.assertEqual(("[[site]] (their order)",), changes(both, evolve(CONFIG, sites=(other, SITE))).taken)

    def test_what_is_made_at_the_start_waits_and_runs_on_as_it_is(self) -> None:
        read = evolve(
            CONFIG,
            node=NodeSettings("a", workers=4, region="eu"),
            store=StoreSettings(size=1 << 30),
            upstream=UpstreamSettings(proxy=Secret("http://proxy.example:1"), head_seconds=1.0),
        )
        found = changes(CONFIG, read)
        self.assertEqual(("[node] workers", "[store] size", "[upstream] proxy"), found.waiting)
        self.assertEqual(("[node] region", "[upstream] head_seconds"), found.taken)
        self.assertEqual((1, "eu"), (found.config.node.workers, found.config.node.region))

    def test_who_is_let_in_waits_with_where_we_listen(self) -> None:
        """A site with credentials may be meant for loopback alone."""
        site = evolve(SITE, origins=("http://user:pass@two.example",))
        public = evolve(CONFIG, listen=ListenSettings(public=("0.0.0.0:80",)))
        found = changes(public, evolve(CONFIG, sites=(site,)))
        self.assertEqual(public, found.config)
        self.assertEqual(("[[site]] default: origins", "[listen] public"), found.waiting)

    def test_a_lone_node_becomes_one_of_several_by_a_restart(self) -> None:
        read = evolve(CONFIG, siblings=SIBLINGS, others=(SiblingSettings("b", "https://b.example:1"),))
        found = changes(CONFIG, read)
        self.assertEqual((CONFIG, ("[siblings]", "[[sibling]] b (new)")), (found.config, found.waiting))
        self.assertEqual(("[[sibling]] b (gone)",), changes(read, evolve(read, others=())).taken)

    def test_nothing_is_counted_before_somebody_folds_it(self) -> None:
        read = evolve(CONFIG, sites=(evolve(SITE, profile=Profile.INDEX),))
        found = changes(CONFIG, read)
        self.assertFalse(found.config.counts_downloads)
        self.assertEqual((("[[site]] default: profile",), ("[index] downloads",)), (found.taken, found.waiting))
        self.assertEqual(IndexSettings(), read.index)
