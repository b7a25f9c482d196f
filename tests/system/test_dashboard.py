"""The dashboard in a browser: what an operator sees and does, and what a URL or an origin cannot do there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import unittest
from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import ask
from tests.system.fleet import Fleet
from tests.system.fleetcase import PACE
from tests.system.harness import Node
from tests.system.origins import Origin, text
from tests.system.processes import until

_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1000")

# What would run, or break out of where it is shown, if it were markup.
HOSTILE = "/a/%22%3E%3Cscript%3Edocument.title='taken'%3C/script%3E<img%20src=x%20onerror=document.title='taken'>'"


# What another site's page can try: everything that needs no permission, and what does. A name and how it went.
CROSS_SITE = """
const [admin, done] = arguments;
const purge = JSON.stringify({all: true}), got = [];
const attempt = async (name, path, how) => {
  try {
    const answer = await fetch(admin + path, how);
    got.push([name, answer.type === 'opaque' ? 'opaque' : 'read ' + answer.status]);
  } catch (error) { got.push([name, 'refused']); }
};
(async () => {
  for (const kind of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data', 'application/json'])
    for (const mode of ['cors', 'no-cors'])
      for (const credentials of ['include', 'omit'])
        await attempt(`POST ${kind} ${mode} ${credentials}`, '/purge?wait=complete',
                      {method: 'POST', mode, credentials, body: purge, headers: {'Content-Type': kind}});
  for (const path of ['/status', '/metrics', '/healthz', '/feed', '/', '/dashboard/api.js', '/explain?url=/a'])
    await attempt('GET ' + path, path, {});
  await attempt('bearer', '/status', {headers: {Authorization: 'Bearer guess'}});
  for (const method of ['DELETE', 'PURGE']) await attempt(method, '/tokens/admin', {method});
  const source = new EventSource(admin + '/feed');
  source.onmessage = () => got.push(['SSE', 'read']);
  await new Promise(go => { source.onerror = go; });
  source.close();
  done(got);
})();
"""
FRAMED = """
const [admin, done] = arguments;
const frame = document.createElement('iframe');
frame.onload = done;
frame.src = admin + '/';
document.body.append(frame);
"""


def browser(profile: str) -> Chrome:
    """:raises unittest.SkipTest: there is none here."""
    driver, program = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or program is None:
        raise unittest.SkipTest("chromium and chromium-driver are not installed here")
    options = Options()
    options.binary_location = program
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options=options, service=Service(driver, env={**os.environ, "HOME": profile}))


class DashboardTests(SynchronousTestCase):
    """One node, one origin, one tab; each test signs in anew."""

    browser: Chrome
    node: Node
    origin: Origin

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-dashboard-", ignore_cleanup_errors=True)
        cls.addClassCleanup(directory.cleanup)
        cls.browser = browser(directory.name)
        cls.addClassCleanup(cls.browser.quit)
        cls.origin = Origin().start()
        cls.addClassCleanup(cls.origin.stop)
        cls.node = Node(Path(directory.name) / "node", cls.origin.url, workers=1)
        cls.addClassCleanup(cls.node.end)
        cls.node.start()

    def setUp(self) -> None:
        self.browser.get(f"{self.node.admin_url}/")
        self.browser.execute_script("sessionStorage.clear()")  # type: ignore[no-untyped-call]
        self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        self.browser.get(f"{self.node.admin_url}/")

    def sign_in(self, token: str | None = None) -> None:
        self.type("token", token or self.node.token)

    def type(self, field: str, words: str) -> None:
        """Into a field that is shown, and Enter."""
        element = self.browser.find_element(By.ID, field)
        until(element.is_displayed, f"the field {field}")
        element.clear()
        element.send_keys(words, Keys.ENTER)

    def shown(self, where: str, words: str) -> str:
        """The text of an element, once it has ``words``."""

        def look() -> str:
            found: str = self.browser.execute_script("return document.querySelector(arguments[0]).innerText", where)  # type: ignore[no-untyped-call]
            return found if words in found else ""

        return until(look, f"{words!r} in {where}")

    def problems(self) -> list[str]:
        """What the browser complains of: scripts that fail, what a policy stopped, files that are not there."""
        entries = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def test_it_shows_how_the_node_is(self) -> None:
        self.origin.serve("/a", text("content"))
        self.node.ask("/a")
        self.node.ask("/a")
        self.sign_in()
        self.shown("#node-line", "ready")
        self.assertIn(self.origin.url, self.shown("#upstreams", "healthy"))
        self.shown("#workers", "runs")
        self.assertIn("blobs", self.shown("#store", "small"))
        self.shown("#hottest", "/a")
        loaded = self.browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")  # type: ignore[no-untyped-call]
        self.assertGreater(len(loaded), 5)
        self.assertEqual([], [name for name in loaded if not name.startswith(self.node.admin_url)])
        self.assertEqual([], self.problems())

    def test_the_only_origin_that_fails_is_the_first_thing_to_be_seen(self) -> None:
        """Though it is asked on: there is no other."""
        self.addCleanup(self.origin.start)
        self.origin.stop()
        self.sign_in()
        self.shown("#node-line", "ready")

        def failing() -> bool:
            self.node.ask(f"/missed-{os.urandom(4).hex()}")
            return "failing" in self.browser.find_element(By.ID, "upstreams").text

        until(failing, "that it fails")
        self.assertIn("refuses connections", self.shown("#upstreams", "there is no other"))
        self.assertIn("origin-down", self.shown("#attention", "critical"))
        self.assertIn("(critical)", self.browser.title)
        self.origin.start()
        self.origin.serve("/back", text("content"))
        until(lambda: self.node.ask("/back").status == 200, "an answer")
        self.shown("#node-line", "nothing needs attention")
        self.assertFalse(self.browser.find_element(By.ID, "attention").is_displayed())

    def test_a_node_that_does_not_answer_is_not_shown_as_ready(self) -> None:
        self.addCleanup(self.node.start)
        self.sign_in()
        self.shown("#node-line", "ready")
        self.node.kill()
        self.shown("#node-line", "no answer")
        self.assertIn("What is shown is of", self.shown("#news", "does not answer"))
        self.assertIn("no answer", self.browser.title)

    def test_on_a_phone_nothing_is_beside_what_is_seen(self) -> None:
        self.node.purge(prefixes=["/a-long-prefix-of-many-files-and-directories/"])
        narrow = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
        self.addCleanup(self.browser.execute_cdp_cmd, "Emulation.clearDeviceMetricsOverride", {})
        self.sign_in()
        self.shown("#purges", "/a-long-prefix")
        self.type("url", "/a")
        self.shown("#found", "It is for site")
        beside = (
            "return [...document.querySelectorAll('main *')].filter(one => !one.closest('thead, svg'))"
            ".filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth)"
            ".map(one => one.outerHTML.slice(0, 200))"
        )
        self.assertEqual([], self.browser.execute_script(beside))  # type: ignore[no-untyped-call]
        # A cell's name has what is in it beside it, however much that is.
        most = "return Math.max(...[...document.querySelectorAll('td')].map(one => one.children.length))"
        self.assertEqual(1, self.browser.execute_script(most))  # type: ignore[no-untyped-call]
        named = "return getComputedStyle(document.querySelector('#upstreams td:last-child'), '::before').content"
        self.assertIn("Next probe", self.browser.execute_script(named))  # type: ignore[no-untyped-call]
        for kind in ("columnheader", "rowheader", "cell"):
            roles = f"return document.querySelectorAll('#upstreams[role=table] [role=row] [role={kind}]').length"
            self.assertGreater(self.browser.execute_script(roles), 0, kind)  # type: ignore[no-untyped-call]

    def test_a_url_is_looked_up_and_purged(self) -> None:
        target = "/looked-up"
        self.origin.serve(target, text("old", etag='"1"'))
        until(lambda: self.node.ask(target).hit, "stored")
        self.sign_in()
        self.shown("#node-line", "ready")
        self.type("url", target)
        self.shown("#found", "answered from the store")
        self.origin.serve(target, text("new", etag='"2"'))
        self.browser.find_element(By.CSS_SELECTOR, "#purge button").click()
        self.shown("#purge-progress", "complete")
        # What was said of it before is not true any more.
        self.shown("#summary", "It was purged")
        self.shown("#purges", target)
        self.assertEqual(b"new", self.node.ask(target).content)
        self.assertEqual([], self.problems())

    def test_a_purge_that_was_taken_is_shown_as_such_whatever_a_second_look_comes_to(self) -> None:
        self.sign_in()
        self.type("url", "/looked-up-once")
        self.shown("#found", "Nothing is stored")
        broken = (
            "const whole = window.fetch; window.fetch = (path, how) =>"
            " path.startsWith('/explain') ? Promise.reject(new TypeError('no answer')) : whole(path, how)"
        )
        self.browser.execute_script(broken)  # type: ignore[no-untyped-call]
        self.browser.find_element(By.CSS_SELECTOR, "#purge button").click()
        self.shown("#purge-progress", "complete")
        self.assertNotIn("does not answer", self.browser.find_element(By.ID, "purge-progress").text)

    def test_what_a_url_says_is_never_run(self) -> None:
        self.origin.serve(HOSTILE, text("content"))
        self.node.ask(HOSTILE)
        self.node.ask(HOSTILE)
        self.sign_in()
        self.shown("#node-line", "ready")
        self.type("url", HOSTILE)
        self.shown("#found", "It is for site")
        self.browser.find_element(By.CSS_SELECTOR, "#purge button").click()
        self.shown("#purge-progress", "complete")
        self.shown("#purges", "onerror")
        self.assertNotIn("taken", self.browser.title)
        self.assertEqual([], self.browser.find_elements(By.CSS_SELECTOR, "main script, main img"))
        self.assertEqual([], self.problems())

    def test_what_operators_and_origins_say_is_never_run_either(self) -> None:
        """Tags, ids and origins are shown too, and what is wrong with what was typed."""
        mark = "<img src=x onerror=document.title='taken'><script>document.title='taken'</script>"
        self.node.purge(tags=[f"tag-{mark}"], id=f"id-{mark}")
        self.sign_in()
        self.shown("#purges", "tag-<img")
        self.type("url", f"http://{mark}/")
        self.shown("#found", "<img")
        self.type("url", f"http://[{mark}")
        until(lambda: "[" in self.browser.find_element(By.ID, "content").text, "what is wrong with it")
        self.assertNotIn("taken", self.browser.title)
        self.assertEqual([], self.browser.find_elements(By.CSS_SELECTOR, "main script, main img"))
        # A script that is there all the same is not run: the policy of the page has no room for it.
        self.browser.execute_script(
            "const one = document.createElement('script'); one.textContent = arguments[0]; document.body.append(one);"
            "const other = document.createElement('img'); other.setAttribute('onerror', arguments[0]);"
            "other.src = 'data:,'; document.body.append(other)",
            "document.title = 'taken'",
        )  # type: ignore[no-untyped-call]
        until(lambda: any("Content Security Policy" in one for one in self.problems()), "the policy in the console")
        self.assertNotIn("taken", self.browser.title)

    def test_the_token_is_in_the_memory_of_this_tab_and_nowhere_else(self) -> None:
        self.sign_in()
        self.shown("#node-line", "ready")
        look = (
            "return JSON.stringify([localStorage, document.cookie, location.href, document.documentElement.outerHTML,"
            " performance.getEntriesByType('resource').map(one => one.name), window.name])"
        )
        self.assertNotIn(self.node.token, self.browser.execute_script(look))  # type: ignore[no-untyped-call]
        self.assertEqual("", self.browser.find_element(By.ID, "token").get_attribute("value"))
        self.assertEqual([], self.browser.get_cookies())  # type: ignore[no-untyped-call]
        first = self.browser.current_window_handle
        self.browser.switch_to.new_window("tab")
        self.browser.get(f"{self.node.admin_url}/")
        until(self.browser.find_element(By.ID, "sign-in").is_displayed, "another tab knows no token")
        self.browser.close()
        self.browser.switch_to.window(first)

    def test_no_other_site_s_page_reads_or_does_anything(self) -> None:
        """Also while somebody is signed in, in the same browser, and on loopback, where some need no token."""
        self.sign_in()
        self.shown("#node-line", "ready")
        before = json.loads(self.node.admin("GET", "/status").content)["purges"]
        self.origin.serve("/evil", text("<!doctype html><title>evil</title>", ("Content-Type", "text/html")))
        self.browser.get(f"{self.origin.url}/evil")
        got = self.browser.execute_async_script(CROSS_SITE, self.node.admin_url)  # type: ignore[no-untyped-call]
        self.assertGreater(len(got), 15)
        self.assertEqual([], [one for one in got if one[1] not in ("refused", "opaque")], got)
        after = json.loads(self.node.admin("GET", "/status").content)["purges"]
        self.assertEqual(before["epoch"], after["epoch"])
        self.problems()
        self.browser.execute_async_script(FRAMED, self.node.admin_url)  # type: ignore[no-untyped-call]
        until(lambda: any("frame" in one.lower() for one in self.problems()), "that it was not framed, in the console")

    def test_without_a_good_token_nothing_is_shown(self) -> None:
        self.sign_in("wrong")
        self.shown("#sign-in-problem", "not known here")
        self.assertFalse(self.browser.find_element(By.ID, "board").is_displayed())
        self.assertEqual([], self.browser.find_elements(By.CSS_SELECTOR, "#upstreams tbody tr"))

    def test_the_token_is_forgotten_when_asked_to_be(self) -> None:
        self.sign_in()
        self.shown("#node-line", "ready")
        self.browser.find_element(By.ID, "sign-out").click()
        until(self.browser.find_element(By.ID, "sign-in").is_displayed, "the form")
        self.assertEqual({}, json.loads(self.browser.execute_script("return JSON.stringify(sessionStorage)")))  # type: ignore[no-untyped-call]
        self.assertFalse(self.browser.find_element(By.ID, "board").is_displayed())

    def test_every_field_and_button_is_reached_by_tab_and_has_a_name(self) -> None:
        self.sign_in()
        self.shown("#node-line", "ready")
        self.browser.execute_script("document.body.focus()")  # type: ignore[no-untyped-call]
        seen = []
        for _ in range(5):
            self.browser.switch_to.active_element.send_keys(Keys.TAB)
            focused = self.browser.switch_to.active_element
            seen.append((focused.tag_name, focused.accessible_name))
        wanted = {("a", "Skip to the content"), ("input", "URL or path"), ("button", "Look up")}
        self.assertEqual(wanted, wanted & set(seen), seen)
        shown = "return [...document.querySelectorAll('svg, meter, progress, table')]"
        unnamed = f"{shown}.filter(one => !one.ariaLabel && !one.caption).length"
        self.assertEqual(0, self.browser.execute_script(unnamed))  # type: ignore[no-untyped-call]


class FleetTests(SynchronousTestCase):
    def test_a_sibling_that_stands_still_and_a_purge_that_waits_for_it_are_seen(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-dashboard-", ignore_cleanup_errors=True)
        self.addCleanup(directory.cleanup)
        window = browser(directory.name)
        self.addCleanup(window.quit)
        fleet = Fleet(Path(directory.name) / "fleet", 2, "http://127.0.0.1:1", siblings=PACE)
        self.addCleanup(fleet.end)
        fleet.start()
        node, other = fleet.nodes.values()
        window.get(f"{node.admin_url}/")
        window.find_element(By.ID, "token").send_keys(node.token, Keys.ENTER)

        def shows(where: str, words: str) -> str:
            text = window.find_element(By.ID, where).text
            return text if words in text else ""

        until(lambda: shows("fleet", "as here"), "a sibling that has all that is here")
        os.kill(other.leader, signal.SIGSTOP)
        node.admin("POST", "/purge?wait=durable&timeout=1", {"urls": ["/a"]})
        until(lambda: shows("fleet", "cannot be called") and shows("purges", "local"), "that it cannot be called")
        self.assertIn("n1: 0 of 1", shows("fleet", "n2"))
        self.assertIn("not yet: n2. No majority has it", shows("purges", "local"))
        self.assertIn("sibling-problem", shows("attention", "Sibling n2 cannot be called"))


class OpenFilesTests(SynchronousTestCase):
    """What needs no token holds nothing, and lets nobody in (DESIGN 12)."""

    def test_the_page_can_be_framed_and_scripted_by_nobody(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-dashboard-")
        self.addCleanup(directory.cleanup)
        node = Node(Path(directory.name) / "node", "http://127.0.0.1:1", workers=0)
        self.addCleanup(node.end)
        node.start()
        page = node.admin("GET", "/", token=False)
        policy = page.fields["content-security-policy"]
        self.assertEqual((200, "DENY"), (page.status, page.fields["x-frame-options"]))
        for rule in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
            self.assertIn(rule, policy)
        self.assertNotIn("unsafe", policy)
        self.assertEqual(404, node.admin("GET", "/dashboard/..%2Fdashboard.py", token=False).status)
        self.assertEqual(401, node.admin("GET", "/status", token=False).status)
        self._unreadable(node)

    def _unreadable(self, node: Node) -> None:
        """Whatever is asked, of whom, however it goes: no page of another origin is let in, and nothing is kept."""
        due = {
            "cache-control": "no-store",
            "cross-origin-resource-policy": "same-origin",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
        }
        origin = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        asked = 0
        for method in ("GET", "POST", "OPTIONS", "DELETE", "PUT", "HEAD", "PURGE", "TRACE"):
            for path in (
                "/",
                "/dashboard/main.js",
                "/status",
                "/metrics",
                "/healthz",
                "/purge",
                "/feed?wait=0",
                "/no",
                "/%ff",
            ):
                for token in ({}, {"Authorization": f"Bearer {node.token}"}):
                    if method == "GET" and path == "/feed?wait=0" and token:
                        continue
                    answer = ask(node.admin_url, path, method=method, fields={**origin, **token})
                    where = method, path, bool(token)
                    self.assertEqual(
                        {}, {name: due[name] for name in due if answer.fields.get(name) != due[name]}, where
                    )
                    self.assertIn("frame-ancestors 'none'", answer.fields["content-security-policy"], where)
                    odd = [name for name in answer.fields if name.startswith("access-control") or name == "set-cookie"]
                    self.assertEqual([], odd, where)
                    asked += 1
        self.assertGreater(asked, 100)
