"""Where an origin says that something is, as clients know it: a redirect stays within the site."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.locating import relocated
from edgecache.words.config import Profile
from tests.rules.build import head, sites


def location(value: str, **settings: Any) -> str:
    (site,) = sites(**settings).all
    found = relocated(site, head(f"Location: {value}", "X: /a", status=301)).get(b"location")
    assert found is not None
    return found.decode()


TEAM = {"profile": Profile.INDEX, "path": "/team", "origins": ("https://o.test/root", "http://b.test:81")}


class LocationTests(SynchronousTestCase):
    def test_what_is_below_an_origin_s_prefix_is_below_the_site_s_path(self) -> None:
        for value, expected in (
            ("/root/simple/x/", "/team/simple/x/"),
            ("https://o.test/root/simple/x/?q=1", "/team/simple/x/?q=1"),
            ("https://o.test:443/root/a", "/team/a"),
            ("//o.test/root/a", "/team/a"),
            ("http://B.test:81/a", "/team/a"),
            ("/other/a", "/team/other/a"),
        ):
            self.assertEqual(expected, location(value, **TEAM), value)

    def test_what_is_elsewhere_or_relative_is_left_alone(self) -> None:
        for value in (
            "https://o.test/else",
            "https://c.test/root/a",
            "../x/",
            "?q",
            "x",
            "mailto:a@b",
            "http://b.test/a",
        ):
            self.assertEqual(value, location(value, **TEAM), value)
        self.assertEqual("/else", location("/else", origins=("https://o.test/root",)))

    def test_pages_that_the_origin_has_elsewhere(self) -> None:
        settings = {**TEAM, "simple_path": "/pypi/simple/"}
        self.assertEqual("/team/simple/x/", location("/root/pypi/simple/x/", **settings))

    def test_an_index_names_itself_and_a_plain_site_at_the_root_is_left_alone(self) -> None:
        absolute = "https://o.test/a"
        self.assertEqual("/a", location(absolute, profile=Profile.INDEX, origins=("https://o.test",)))
        self.assertEqual(absolute, location(absolute, origins=("https://o.test",)))
        self.assertEqual("/a", location("https://o.test/root/a", origins=("https://o.test/root",)))
