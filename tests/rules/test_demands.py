"""What purges say about serials."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.demands import demands_of
from edgecache.rules.indexpaths import project_tag
from edgecache.rules.purging import PurgeAsked, parse_purge
from edgecache.rules.selectors import Selector, all_selector, tag_selector
from edgecache.words.purging import SerialDemand
from edgecache.words.reasons import PurgeMode
from tests.rules.build import sites

SITE = 7
ALL = all_selector(SITE)


def tag(project: bytes, site: int = SITE) -> int:
    return tag_selector(site, project_tag(project))


def demands(mode: PurgeMode, kind: str, value: bytes, **serials: int) -> list[SerialDemand]:
    return demands_of([Selector(kind, SITE, value).canonical], mode, serials)


class DemandTests(SynchronousTestCase):
    def test_a_purge_with_serials_raises_them_on_every_site(self) -> None:
        asked = parse_purge({"serials": {"Zope.Interface": 5}, "tags": ["x"]}, sites())
        assert isinstance(asked, PurgeAsked)
        (site,) = sites().all
        found = demands_of([each.canonical for each in asked.selectors], asked.mode, asked.serials)
        self.assertEqual([SerialDemand(all_selector(site.id), tag(b"zope-interface", site.id), 5)], found)

    def test_without_serials_only_a_delete_says_anything(self) -> None:
        for mode in (PurgeMode.SOFT, PurgeMode.REVALIDATE):
            self.assertEqual([], demands(mode, "tag", b"project/six"))
        self.assertEqual(
            [SerialDemand(ALL, tag(b"six"), forget=True)], demands(PurgeMode.DELETE, "tag", b"project/six")
        )

    def test_a_delete_with_serials_forgets_first(self) -> None:
        self.assertEqual(
            [SerialDemand(ALL, tag(b"six"), 9, True)], demands(PurgeMode.DELETE, "tag", b"project/six", six=9)
        )

    def test_and_so_it_does_however_the_project_is_spelt(self) -> None:
        asked = parse_purge({"tags": ["project/Foo.Bar"], "serials": {"Foo_Bar": 9}, "mode": "delete"}, sites())
        assert isinstance(asked, PurgeAsked)
        found = demands_of([each.canonical for each in asked.selectors], asked.mode, asked.serials)
        self.assertEqual([(9, True)], [(one.serial, one.forget) for one in found])

    def test_whatever_names_all_pages_of_a_project_forgets_its_serial(self) -> None:
        for kind, value in (
            ("url", b"/simple/six/"),
            ("url", b"/simple/Six/?format=x"),
            ("url", b"/team/simple/six/"),
            ("url", b"/pypi/six/json"),
            ("prefix", b"/simple/six/"),
        ):
            self.assertEqual(
                [SerialDemand(ALL, tag(b"six"), forget=True)], demands(PurgeMode.DELETE, kind, value), value
            )

    def test_whatever_names_all_projects_forgets_all_serials(self) -> None:
        for kind, value in (("all", b""), ("prefix", b"/"), ("prefix", b"/simple/"), ("prefix", b"/team/simple/")):
            found = demands(PurgeMode.DELETE, kind, value)
            self.assertEqual([SerialDemand(ALL, ALL, forget=True)], found, value)

    def test_what_names_no_page_says_nothing(self) -> None:
        for kind, value in (
            ("tag", b"project/"),
            ("tag", b"other"),
            ("url", b"/files/six/-/six-1.0.tar.gz"),
            ("url", b"/simple/"),
            ("prefix", b"/files/"),
        ):
            self.assertEqual([], demands(PurgeMode.DELETE, kind, value), value)

    def test_a_selector_that_is_none_is_an_error(self) -> None:
        self.assertRaises(ValueError, demands_of, [b"nonsense"], PurgeMode.DELETE, {})
