"""Purges through the admin listener of a node with two workers; nothing older is served after the answer."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import Answer, Together
from tests.system.harness import Node, unhurried
from tests.system.origins import BEFORE_HEAD, Hold, Origin
from tests.system.processes import until
from tests.system.versions import (
    ROUNDS,
    Page,
    VersionedOrigin,
    requests_by_worker,
    version_of,
    versions_seen,
)

# In records of one piece, and in blobs with a tail.
ONE = Page("/a/1", "red")
DEEP = Page("/a/b/2", "red blue", padding=300_000)
OTHER = Page("/c/3", "blue")
QUERY = Page("/c/3?x=1", "green")
# A soft purge opens the window that the response itself allows (RFC 5861 §3).
PATIENT = Page("/d/4", "red", cache_control="max-age=86400, stale-while-revalidate=600")
PAGES = (ONE, DEEP, OTHER, QUERY, PATIENT)


@frozen
class Case:
    """A purge document and the pages that it names."""

    name: str
    document: dict[str, Any]
    matched: tuple[Page, ...]


CASES = (
    Case("a path", {"urls": ["/a/1"]}, (ONE,)),
    Case("a path with its query", {"urls": ["/c/3?x=1"]}, (QUERY,)),
    Case("a prefix", {"prefixes": ["/a/"]}, (ONE, DEEP)),
    Case("the root's prefix", {"prefixes": ["/"]}, PAGES),
    Case("a tag", {"tags": ["blue"]}, (DEEP, OTHER)),
    Case("a tag of pages in several places", {"tags": ["red"]}, (ONE, DEEP, PATIENT)),
    Case("several of several kinds", {"urls": ["/a/1"], "tags": ["green"]}, (ONE, QUERY)),
    Case("everything", {"all": True}, PAGES),
)


class PurgeTestCase(SynchronousTestCase):
    """A node with two workers in front of an origin with versions: one for all tests of a class."""

    versions: VersionedOrigin
    origin: Origin
    node: Node

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-purge-")
        cls.addClassCleanup(directory.cleanup)
        cls.versions = VersionedOrigin({page.target: page for page in PAGES})
        cls.origin = cls.versions.origin.start()
        cls.addClassCleanup(cls.origin.stop)
        root = Path(directory.name)
        cls.node = Node(root, cls.origin.url, arguments=unhurried(root))
        cls.addClassCleanup(cls.node.end)
        cls.node.start()

    def setUp(self) -> None:
        """Nothing of an earlier test is left: no page's current version is stored."""
        self.origin.start()
        self.versions.publish()
        self.node.purge(all=True, mode="delete")

    def fill(self) -> int:
        """Every page is stored in the current version, and every worker finds it."""
        for page in PAGES:
            self.until_hit(page)
            self.assertEqual({self.versions.version}, versions_seen(self.node, page), page.target)
        return self.versions.version

    def until_hit(self, page: Page) -> None:
        until(lambda: self.node.ask(page.target).hit, f"{page.target} in the store")

    def until_seen(self, page: Page, version: int) -> None:
        until(lambda: versions_seen(self.node, page, 1) == {version}, f"{page.target} in version {version}")


class SelectorTests(PurgeTestCase):
    def _shows(self, mode: str) -> None:
        for case in CASES:
            old = self.fill()
            before = requests_by_worker(self.node)
            new = self.versions.publish()
            self.node.purge(**case.document, mode=mode)
            for page in PAGES:
                expected = new if page in case.matched else old
                self.assertEqual({expected}, versions_seen(self.node, page), f"{case.name}, {mode}: {page.target}")
            for page in set(PAGES) - set(case.matched):
                self.assertTrue(self.node.ask(page.target).hit, f"{case.name}: {page.target} was not named")
            answered = requests_by_worker(self.node) - before
            self.assertEqual(2, len([worker for worker, count in answered.items() if count > 0]), str(answered))
            # The next case begins with one version everywhere.
            self.node.purge(all=True)

    def test_each_selector_with_revalidate(self) -> None:
        self._shows("revalidate")

    def test_each_selector_with_delete(self) -> None:
        self._shows("delete")

    def test_each_selector_with_soft_serves_the_old_one_only_until_it_is_refreshed(self) -> None:
        for case in CASES:
            old = self.fill()
            new = self.versions.publish()
            self.node.purge(**case.document, mode="soft")
            for page in PAGES:
                if page in case.matched:
                    self.assertLessEqual(versions_seen(self.node, page, 1), {old, new}, case.name)
                    self.until_seen(page, new)
                    self.assertEqual({new}, versions_seen(self.node, page), f"{case.name}: {page.target}")
                else:
                    self.assertEqual({old}, versions_seen(self.node, page), f"{case.name}: {page.target}")
            self.node.purge(all=True)

    def test_an_absolute_url_names_its_page_and_that_of_a_foreign_host_too_on_the_default_site(self) -> None:
        for host in (self.node.url, "http://any.example"):
            old = self.fill()
            new = self.versions.publish()
            self.node.purge(urls=[f"{host}/a/1"])
            self.assertEqual({new}, versions_seen(self.node, ONE), host)
            self.assertEqual({old}, versions_seen(self.node, OTHER), host)
            self.node.purge(all=True)

    def test_a_purge_that_names_nothing_stored_touches_nothing(self) -> None:
        old = self.fill()
        self.versions.publish()
        self.node.purge(urls=["/a/none"], prefixes=["/none/"], tags=["none"])
        for page in PAGES:
            self.assertEqual({old}, versions_seen(self.node, page))


class ModeTests(PurgeTestCase):
    def test_the_first_request_after_a_purge_validates_and_tells_every_cache_beyond_to_do_so(self) -> None:
        old = self.fill()
        self.origin.forget()
        self.node.purge(urls=["/a/1"])
        versions_seen(self.node, ONE)
        (asked,) = (seen for seen in self.origin.seen if seen.target == "/a/1")
        self.assertEqual(f'"v{old}"', asked.fields.get("if-none-match"))
        self.assertIn("no-cache", asked.fields.get("cache-control", ""))

    def test_with_the_origin_down_revalidate_serves_the_old_page_as_stale(self) -> None:
        old = self.fill()
        self.node.purge(urls=["/a/1"], mode="revalidate")
        self.origin.stop()
        answer = self.node.ask("/a/1")
        self.assertEqual(old, version_of(ONE, answer))
        self.assertIn("age", answer.fields)

    def test_with_the_origin_down_delete_serves_nothing(self) -> None:
        self.fill()
        self.node.purge(urls=["/a/1"], mode="delete")
        self.origin.stop()
        answers = [self.node.ask("/a/1") for _ in range(ROUNDS)]
        self.assertEqual({503}, {answer.status for answer in answers})
        self.assertIn("retry-after", answers[0].fields)
        self.assertIn("proxy-status", answers[0].fields)

    def test_the_strictest_mode_of_several_purges_counts(self) -> None:
        self.fill()
        self.node.purge(urls=["/a/1"], mode="delete")
        self.node.purge(prefixes=["/a/"], mode="soft")
        self.origin.stop()
        self.assertEqual({503}, {self.node.ask("/a/1").status for _ in range(ROUNDS)})

    def test_soft_answers_at_once_while_the_origin_hangs_and_asks_it_once(self) -> None:
        old = self.fill()
        hold = Hold(BEFORE_HEAD)
        self.addCleanup(hold.release)
        new = self.versions.publish(hold)
        self.origin.forget()
        self.node.purge(urls=[PATIENT.target], mode="soft")
        self.assertEqual({old}, versions_seen(self.node, PATIENT))
        hold.wait_reached()
        self.assertEqual(1, self.origin.count(PATIENT.target), "nobody waited for a deadline, nobody asked twice")
        hold.release()
        self.until_seen(PATIENT, new)

    def test_a_purge_can_be_asked_about_and_sent_again(self) -> None:
        old = self.fill()
        self.node.purge(urls=["/a/1"], id="release-1")
        versions_seen(self.node, ONE)
        new = self.versions.publish()
        self.node.purge(urls=["/a/1"], id="release-1")
        self.assertEqual({old}, versions_seen(self.node, ONE), "the same id is the same purge")
        self.assertEqual(200, self.node.admin("GET", "/purge/release-1").status)
        self.assertEqual(404, self.node.admin("GET", "/purge/release-2").status)
        self.node.purge(urls=["/a/1"], id="release-2")
        self.assertEqual({new}, versions_seen(self.node, ONE))

    def test_without_the_token_nothing_is_purged(self) -> None:
        old = self.fill()
        self.versions.publish()
        self.assertIn(self.node.admin("POST", "/purge", {"all": True}, token=False).status, (401, 403))
        self.assertEqual({old}, versions_seen(self.node, ONE))


class PurgeDuringFillTests(PurgeTestCase):
    """The origin is held; who waited before the purge may have the old page, nobody who asks after it."""

    def _purge_while_held(self, page: Page, after: int, document: dict[str, Any]) -> None:
        hold = Hold(after)
        self.addCleanup(hold.release)
        # A version that nothing stored can be validated against: its body comes, and is held.
        old = self.versions.publish(hold)
        waited: list[Answer] = []
        waiters = Together()
        for _ in range(4):
            waiters.start(lambda: waited.append(self.node.ask(page.target)))
        hold.wait_reached()
        new = self.versions.publish()
        self.node.purge(**document)

        self.assertEqual({new}, versions_seen(self.node, page), f"{document} while {page.target} is filled")
        hold.release()
        waiters.join()
        self.assertLessEqual({version_of(page, answer) for answer in waited}, {old, new})
        # The older fill ends later: it must not replace the newer record.
        self.assertEqual({new}, versions_seen(self.node, page), f"{document} after the older fill has ended")
        self.until_hit(page)

    def test_in_the_middle_of_the_body(self) -> None:
        for document in ({"urls": [DEEP.target]}, {"prefixes": ["/a/"]}, {"tags": ["blue"]}, {"all": True}):
            self._purge_while_held(DEEP, 150_000, document)
            self.node.purge(all=True)

    def test_in_the_middle_of_a_small_body(self) -> None:
        self._purge_while_held(ONE, 5, {"urls": [ONE.target]})

    def test_before_the_head(self) -> None:
        """No tag of the response is known yet, so any tag's purge counts."""
        for document in ({"urls": [ONE.target]}, {"tags": ["red"]}, {"all": True}):
            self._purge_while_held(ONE, BEFORE_HEAD, document)
            self.node.purge(all=True)


class PurgeUnderTrafficTests(PurgeTestCase):
    def test_no_request_sent_after_an_answer_sees_what_was_before_it(self) -> None:
        self.fill()
        over = threading.Event()
        # Published before the purge is sent, raised when its answer is here.
        promised = {page.target: self.versions.version for page in PAGES}
        checked: list[int] = []

        def client(page: Page) -> None:
            while not over.is_set():
                at_least = promised[page.target]
                got = version_of(page, self.node.ask(page.target))
                if got < at_least:
                    raise AssertionError(f"{page.target}: version {got} after the purge of {at_least - 1} was answered")
                checked.append(got)

        clients = Together()
        for page in PAGES:
            clients.start(client, page)
        try:
            for number in range(40):
                case = CASES[number % len(CASES)]
                new = self.versions.publish()
                self.node.purge(**case.document, mode=("revalidate", "delete")[number % 2])
                for page in case.matched:
                    promised[page.target] = new
        finally:
            over.set()
            clients.join()
        self.assertGreater(len(checked), len(PAGES))
        self.assertGreater(len(set(checked)), 2)


class PurgeAndCrashTests(PurgeTestCase):
    def test_killed_at_once_after_the_answer_it_serves_nothing_older_when_it_is_back(self) -> None:
        # Each kind of selector once: a start takes its time.
        for number, case in enumerate(CASES[::2]):
            old = self.fill()
            new = self.versions.publish()
            self.node.purge(**case.document, mode=("revalidate", "delete")[number % 2])
            self.node.kill()
            self.node.start()
            for page in PAGES:
                expected = new if page in case.matched else old
                self.assertEqual({expected}, versions_seen(self.node, page), f"{case.name}: {page.target}")
            self.node.purge(all=True)
