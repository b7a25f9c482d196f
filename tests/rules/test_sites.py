"""Several sites per node: by host, by path, and what a purge names of them (DESIGN 9, 12)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.asking import ask
from edgecache.rules.decisions import Forward, Refuse
from edgecache.rules.outbound import outbound
from edgecache.rules.policy import invalidated
from edgecache.rules.selectors import Selector, named_by_url, url_selector
from edgecache.rules.sites import Sites, climbs, site_id
from edgecache.words.config import Config, NodeSettings, Profile, SiteSettings
from edgecache.words.reasons import ForwardReason
from tests.rules.build import asked, head, request


def sites(*known: tuple[str, str, str], **more: Any) -> Sites:
    """Each: name, host, path."""
    return Sites(
        Config(
            NodeSettings("n"),
            tuple(
                SiteSettings(
                    name,
                    more.get("profile", Profile.INDEX),
                    (f"https://{name}.origin/root",),
                    hosts=(host,),
                    path=path,
                    simple_path=more.get("simple_path", "/simple/"),
                    public_url=more.get("public_url", ""),
                )
                for name, host, path in known
            ),
        )
    )


SHARED = sites(("all", "a.test", ""), ("team", "a.test", "/team"), ("sub", "a.test", "/team/sub"))
ALONE = sites(("team", "a.test", "/team"), ("rest", "*", ""))


class PathTests(SynchronousTestCase):
    def test_the_longest_path_wins_and_everything_is_about_what_is_below_it(self) -> None:
        for target, name, below in (
            ("/simple/x/", "all", b"/simple/x/"),
            ("/team/simple/x/?q", "team", b"/simple/x/"),
            ("/team/x?q", "team", b"/x?q"),
            ("/team/sub/simple/", "sub", b"/simple/"),
            ("/team/sub", "team", b"/sub"),
            ("/teams/x", "all", b"/teams/x"),
            ("/team", "all", b"/team"),
        ):
            found = asked(of=SHARED, authority="a.test", target=target)
            self.assertEqual((name, below), (found.site.settings.name, found.target), target)
            self.assertEqual(below, outbound(found, Forward(ForwardReason.URI_MISS)).target)

    def test_two_sites_share_no_key_and_no_selector_for_the_same_path_below_them(self) -> None:
        one, other = (asked(of=SHARED, authority="a.test", target=path + "/simple/x/") for path in ("", "/team"))
        self.assertNotEqual(one.key, other.key)
        self.assertFalse(set(one.selectors) & set(other.selectors))

    def test_pages_and_files_are_known_below_the_path(self) -> None:
        page = asked(of=SHARED, authority="a.test", target="/team/simple/x/").page
        artifact = asked(of=SHARED, authority="a.test", target="/team/files/x/-/x-1.tar.gz").artifact
        assert page is not None and artifact is not None
        self.assertEqual((b"x", b"x"), (page.project, artifact.project))

    def test_a_path_of_no_site_of_the_host_is_404_and_the_default_site_does_not_take_it(self) -> None:
        refused = ask(request(target="/simple/", authority="a.test"), ALONE)
        assert isinstance(refused, Refuse)
        self.assertEqual(404, refused.status)
        self.assertEqual("rest", asked(of=ALONE, authority="b.test", target="/team/simple/").site.settings.name)

    def test_what_climbs_above_a_site_is_refused(self) -> None:
        for target in ("/team/../simple/", "/team/x/%2e%2E/%2e./secret", "/team/..%2fsecret", "/team/..;a=b/s", "/.."):
            refused = ask(request(target=target, authority="a.test"), SHARED)
            assert isinstance(refused, Refuse), target
            self.assertEqual(400, refused.status, target)

    def test_what_leads_into_another_site_for_any_origin_that_resolves_it_is_refused(self) -> None:
        """Both may be at one origin, and only one of them open to everybody."""
        for target in (
            "/%74eam/x",
            "//team/x",
            "/./team/x",
            "/x/../team/x",
            "/%2fteam/x",
            "/\\team\\x",
            "/team;a=b/x",
            "/team%2fx",
            "/te%61m/",
            "/team/%73ub/x",
            "/team//sub/x?y",
        ):
            refused = ask(request(target=target, authority="a.test"), SHARED)
            assert isinstance(refused, Refuse), target
            self.assertEqual(400, refused.status, target)
        for target, name in (
            ("/team/a%2fb", "team"),
            ("/team/./", "team"),
            ("/team//", "team"),
            ("/te%61m", "all"),
            ("/x?y=//team/x", "all"),
            ("/x/%74eam/y", "all"),
            ("/team/sub;a", "team"),
        ):
            self.assertEqual(name, asked(of=SHARED, authority="a.test", target=target).site.settings.name, target)
        alone = sites(("team", "a.test", "/team"), ("all", "b.test", ""))
        self.assertEqual("all", asked(of=alone, authority="b.test", target="//team/x").site.settings.name)

    def test_dots_that_stay_within_it_are_the_origin_s_business(self) -> None:
        for target in ("/team/a/../b", "/team/a%2Fb/../c", "/team/...", "/team/a..b", "/team/a?../../.."):
            self.assertEqual(target[5:].encode(), asked(of=SHARED, authority="a.test", target=target).target)

    @given(st.lists(st.sampled_from(["..", "%2e%2e", ".", "", "a", "..;x", "%2f", "\\", "b%5c"]), max_size=8))
    def test_no_resolving_origin_leaves_its_prefix(self, segments: list[str]) -> None:
        """As origins do it that undo escapes, merge slashes and take a backslash for one."""
        path = "/".join(["", *segments])
        plain = path.replace("%2e", ".").replace("%2f", "/").replace("%5c", "\\").replace("\\", "/")
        depth, lowest = 0, 0
        for segment in filter(None, plain.split("/")):
            name = segment.partition(";")[0]
            depth += {"..": -1, ".": 0, "": 0}.get(name, 1)
            lowest = min(lowest, depth)
        self.assertEqual(lowest < 0, climbs(path.encode()), path)


def named(url: str, of: Sites, kind: str = "url") -> set[tuple[str, bytes]]:
    names = {site.id: site.settings.name for site in of.all}
    found = named_by_url(url.encode(), of, kind)
    assert found is not None
    return {(names[one.site], one.value) for one in found}


class PurgeTests(SynchronousTestCase):
    """A purge names resources as clients know them."""

    def test_a_file_of_an_index_is_meant_by_each_of_its_paths(self) -> None:
        """Releases documents link below /packages; what is stored and purged is one thing."""
        path = "/files/six/-/six-1.0.tar.gz"
        (site,) = sites(("a", "*", "")).all
        for spelt in (path, f"/packages{path}", f"https://a.test/packages{path}?q", "/files/six/-/six%2D1.0.tar.gz"):
            self.assertEqual(
                [Selector("url", site.id, path.encode())], named_by_url(spelt.encode(), sites(("a", "*", "")))
            )
        of = sites(("team", "a.test", "/team"))
        for target in (f"/team{path}", f"/team/packages{path}"):
            found = asked(of=of, authority="a.test", target=target)
            self.assertEqual(path.encode(), found.target)
            self.assertIn(url_selector(of.all[0].id, path.encode()), found.selectors)
        plain = sites(("a", "*", ""), profile=Profile.PLAIN)
        self.assertEqual(f"/packages{path}".encode(), asked(of=plain, target=f"/packages{path}").target)
        self.assertEqual(
            [Selector("url", site.id, f"/packages{path}".encode())], named_by_url(f"/packages{path}".encode(), plain)
        )

    def test_a_path_selects_on_every_site_what_its_clients_know_by_it(self) -> None:
        self.assertEqual({("all", b"/simple/x/")}, named("/simple/x/", SHARED))
        self.assertEqual({("all", b"/team/simple/x/"), ("team", b"/simple/x/")}, named("/team/simple/x/", SHARED))
        self.assertEqual({("all", b"/team")}, named("/team", SHARED))

    def test_a_url_selects_below_the_path_of_the_sites_that_its_host_names(self) -> None:
        self.assertEqual(
            {("team", b"/simple/x/"), ("rest", b"/team/simple/x/")}, named("http://a.test/team/simple/x/", ALONE)
        )
        self.assertEqual({("rest", b"/simple/x/")}, named("http://a.test/simple/x/", ALONE))

    def test_a_url_of_an_origin_is_below_its_prefix(self) -> None:
        self.assertEqual({("team", b"/simple/x/")}, named("https://team.origin/root/simple/x/", SHARED))
        self.assertEqual(set(), named("https://team.origin/simple/x/", SHARED))

    def test_pages_that_the_origin_has_elsewhere_are_found_by_its_own_url(self) -> None:
        known = sites(("team", "a.test", "/team"), simple_path="/pypi/simple/")
        self.assertEqual({("team", b"/simple/x/")}, named("https://team.origin/root/pypi/simple/x/", known))

    def test_letters_of_all_alphabets_are_what_requests_have_in_their_place(self) -> None:
        known = sites(("a", "b\xfccher.test", "/x"), ("rest", "*", ""), profile=Profile.PLAIN)
        self.assertEqual(
            {("a", b"/%C3%BC%20y?z=%E2%82%AC"), ("rest", b"/x/%C3%BC%20y?z=%E2%82%AC")},
            named("http://B\xfccher.test/x/\xfc y?z=\u20ac", known),
        )
        self.assertIn(("rest", b"/%C3%BC/"), named("/\xfc/", known, "prefix"))
        self.assertEqual({("rest", b"/x")}, named("http://" + "\xfc" * 70 + ".test/x", known))

    def test_the_public_url_names_its_site(self) -> None:
        known = sites(("team", "inside.test", "/team"), public_url="https://front.test/below")
        self.assertEqual({("team", b"/simple/x/")}, named("https://front.test/below/team/simple/x/", known))
        self.assertEqual(set(), named("https://front.test/team/simple/x/", known))

    def test_a_prefix_above_a_site_selects_all_of_it(self) -> None:
        self.assertEqual({("all", b"/team/"), ("team", b"/"), ("sub", b"/")}, named("/team/", SHARED, "prefix"))
        self.assertEqual({("all", b"/"), ("team", b"/"), ("sub", b"/")}, named("http://a.test/", SHARED, "prefix"))
        self.assertEqual({("team", b"/")}, named("https://team.origin/", SHARED, "prefix"))
        self.assertEqual({("all", b"/team/simple/"), ("team", b"/simple/")}, named("/team/simple/", SHARED, "prefix"))

    def test_a_page_is_meant_by_whatever_spelling_leads_to_it(self) -> None:
        for path in ("/team//simple/Foo", "/team/simple/./foo/", "/team/%73imple//foo"):
            self.assertIn(("team", b"/simple/foo/"), named(path, SHARED), path)

    def test_what_a_purge_selects_is_what_a_request_is_selected_by(self) -> None:
        found = asked(of=SHARED, authority="a.test", target="/team/simple/x/")
        self.assertIn(url_selector(site_id("team"), b"/simple/x/"), found.selectors)

    def test_an_unsafe_request_invalidates_below_the_path(self) -> None:
        """RFC 9111 §4.4"""
        known = sites(("team", "a.test", "/team"), profile=Profile.PLAIN)
        post = asked(of=known, authority="a.test", target="/team/a/b", method="POST")
        for location, expected in (
            ("/team/a/c", b"/a/c"),
            ("c", b"/a/c"),
            ("http://a.test/team/c", b"/c"),
            ("https://team.origin/root/c", b"/c"),
            ("/c", None),
            ("http://a.test/c", None),
        ):
            values = [b"/a/b"] + ([] if expected is None else [expected])
            selectors = tuple(Selector("url", site_id("team"), value) for value in values)
            self.assertEqual(selectors, invalidated(post, head(f"Location: {location}", status=201)), location)
