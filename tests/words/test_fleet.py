"""Settings of a fleet: what they give, and which contradictions are refused, with their place (DESIGN 9, 11)."""

from __future__ import annotations

import orjson
from twisted.trial.unittest import SynchronousTestCase

from edgecache.words.checking import checked
from edgecache.words.config import Config
from edgecache.words.errors import ConfigError
from edgecache.words.fleet import acquainted, members, previous_members
from edgecache.words.reading import Document, Facts, build, from_plain, plain
from edgecache.words.siblingsettings import Quorum
from tests.words.test_reading import no_secret

OWN = '[node]\nid = "eu-1"\n[siblings]\nca = "ca.pem"\ncertificate = "eu-1.pem"\nkey = "eu-1.key"\n'
LISTEN = '[listen]\nsiblings = ["0.0.0.0:8443"]\ncontent = ["0.0.0.0:8444"]\n'


def other(node_id: str, *settings: str, port: int | None = None) -> str:
    """A table of another member."""
    port = 1000 + sum(node_id.encode()) if port is None else port
    urls = f'control_url = "https://edge.example:{port}"\ncontent_url = "https://edge.example:{port + 20000}"\n'
    return f'[[sibling]]\nid = "{node_id}"\n{urls}' + "".join(f"{setting}\n" for setting in settings)


def read(text: str) -> Config:
    """The tree of a file ``/etc/e.toml``."""
    document = Document.parse(text, "e.toml", "/etc")
    return checked(build(document, Facts(host="a", cpus=1, here="/work"), no_secret), document)


class FleetCase(SynchronousTestCase):
    def refused(self, text: str) -> str:
        return str(self.assertRaises(ConfigError, read, text))

    def assertRefused(self, expected: str, text: str) -> None:
        said = self.refused(text)
        self.assertIn(expected, said)
        self.assertRegex(said, r"^e\.toml:\d+: ")


class MemberTests(FleetCase):
    def test_without_a_table_a_node_is_alone(self) -> None:
        config = read('[node]\nid = "eu-1"\n')
        self.assertIsNone(config.siblings)
        self.assertEqual((("eu-1",), (), frozenset()), (members(config), previous_members(config), acquainted(config)))

    def test_members_are_this_node_and_every_other(self) -> None:
        config = read(LISTEN + OWN + other("us-1") + other("ap-1"))
        self.assertEqual(("ap-1", "eu-1", "us-1"), members(config))
        self.assertEqual({"ap-1", "us-1"}, acquainted(config))

    def test_paths_are_relative_to_the_file(self) -> None:
        settings = read(LISTEN + OWN).siblings
        assert settings is not None
        self.assertEqual(
            ("/etc/ca.pem", "/etc/eu-1.pem", "/etc/eu-1.key"), (settings.ca, settings.certificate, settings.key)
        )

    def test_a_worker_reads_what_the_node_process_has(self) -> None:
        more = 'quorum = "any"\nprevious_members = ["eu-1"]\nprevious_lease_seconds = 20\n'
        config = read(LISTEN + OWN + more + other("us-1", "weight = 2.5", 'region = "us"'))
        self.assertEqual(config, from_plain(orjson.loads(orjson.dumps(plain(config)))))

    def test_who_leaves_is_no_member_but_may_still_speak(self) -> None:
        change = 'previous_members = ["eu-1", "us-1", "ap-1"]\n'
        config = read(LISTEN + OWN + change + other("us-1") + other("ap-1", "leaving = true"))
        self.assertEqual((("eu-1", "us-1"), {"ap-1", "us-1"}), (members(config), acquainted(config)))
        self.assertEqual(("ap-1", "eu-1", "us-1"), previous_members(config))


class ContradictionTests(FleetCase):
    def test_others_need_certificates(self) -> None:
        self.assertIn("needs [siblings]", self.refused(other("us-1")))
        self.assertRefused("[listen] siblings: needs [siblings]", '[listen]\nsiblings = ["0.0.0.0:8443"]\n')
        self.assertRefused("[listen] content: needs [siblings]", '[listen]\ncontent = ["0.0.0.0:8444"]\n')

    def test_who_has_siblings_listens_to_them(self) -> None:
        self.assertIn("siblings: is empty: no sibling could reach", self.refused(OWN + other("us-1")))
        listen = '[listen]\nsiblings = ["0.0.0.0:8443"]\n'
        self.assertIn("content: is empty: no sibling could ask", self.refused(listen + OWN + other("us-1")))

    def test_where_to_listen_is_host_and_port(self) -> None:
        self.assertRefused("[listen] siblings: '8443' is not host:port", OWN + '[listen]\nsiblings = ["8443"]\n')

    def test_a_voter_has_no_content(self) -> None:
        self.assertRefused("[listen] content: must be empty", LISTEN + OWN + "voter = true\n")
        self.assertRefused("content_url: a voter has no content", LISTEN + OWN + other("us-1", "voter = true"))
        listen = '[listen]\nsiblings = ["0.0.0.0:8443"]\n'
        config = read(listen + OWN + "voter = true\n" + other("us-1"))
        self.assertEqual((), config.listen.content)

    def test_only_a_voter_has_no_content_url(self) -> None:
        text = '[[sibling]]\nid = "v"\ncontrol_url = "https://a:1"\n'
        self.assertRefused("content_url: is missing", LISTEN + OWN + text)
        self.assertEqual("", read(LISTEN + OWN + text + "voter = true\n").others[0].content_url)

    def test_an_id_is_one_and_has_no_case(self) -> None:
        for node_id in ("eu-1", "EU-1"):
            self.assertRefused("[[sibling]] id: ", LISTEN + OWN + other(node_id))
        self.assertRefused("[[sibling]] id: 'US-1' is taken", LISTEN + OWN + other("us-1") + other("US-1"))
        self.assertRefused("[[sibling]] id: is up to 64", LISTEN + OWN + other("a b"))

    def test_urls_are_https_host_and_port(self) -> None:
        for url, problem in (
            ("http://a:1", "begins with https://"),
            ("https://me:secret@a:1", "nothing more"),
            ("https://a:1/path", "nothing more"),
            ("https://a:1/?q", "no query"),
            ("a:1", "begins with http"),
        ):
            text = f'[[sibling]]\nid = "us-1"\ncontrol_url = "{url}"\ncontent_url = "https://b:1"\n'
            said = self.refused(LISTEN + OWN + text)
            self.assertIn("[[sibling]] control_url: ", said)
            self.assertIn(problem, said)
            self.assertNotIn("secret", said)

    def test_a_url_is_one_nodes(self) -> None:
        self.assertRefused("is used twice", LISTEN + OWN + other("us-1", port=5000) + other("us-2", port=5000))

    def test_a_public_url_is_the_nodes_own(self) -> None:
        own = 'public_url = "http://us-1.example"'
        self.assertEqual("http://us-1.example", read(LISTEN + OWN + other("us-1", own)).others[0].public_url)
        self.assertRefused("is used twice", LISTEN + OWN + other("us-1", own) + other("us-2", own))
        for url, problem in (
            ("ftp://a", "begins with http"),
            ("http://a/x", "nothing more"),
            ("http://b:c@a", "nothing"),
        ):
            said = self.refused(LISTEN + OWN + other("us-1", f'public_url = "{url}"'))
            self.assertIn("[[sibling]] public_url: ", said)
            self.assertIn(problem, said)
        voter = '[[sibling]]\nid = "v"\ncontrol_url = "https://a:1"\nvoter = true\n'
        self.assertRefused("public_url: a voter has no clients", LISTEN + OWN + voter + own)

    def test_members_change_one_at_a_time(self) -> None:
        for before in ('["eu-1"]', '["eu-1", "ap-1", "ap-2", "ap-3"]', '["ap-1", "us-1"]'):
            text = LISTEN + OWN + f"previous_members = {before}\n" + other("us-1") + other("us-2")
            self.assertRefused("members change one at a time", text)
        for before in ('["eu-1", "us-1"]', '["eu-1", "us-1", "us-2"]', '["eu-1", "us-1", "us-2", "ap-1"]'):
            read(LISTEN + OWN + f"previous_members = {before}\n" + other("us-1") + other("us-2"))

    def test_previous_members_are_ids_each_once(self) -> None:
        self.assertRefused("is up to 64", LISTEN + OWN + 'previous_members = ["eu-1", "a b"]\n')
        self.assertRefused("names a member twice", LISTEN + OWN + 'previous_members = ["eu-1", "eu-1"]\n')

    def test_who_leaves_was_a_member(self) -> None:
        self.assertRefused("leaving: is only for one of previous", LISTEN + OWN + other("us-1", "leaving = true"))

    def test_what_was_before_is_said_with_who_was(self) -> None:
        for setting in ('previous_quorum = "any"', "previous_lease_seconds = 20"):
            self.assertRefused("is only used while previous_members", LISTEN + OWN + setting)

    def test_any_is_for_two(self) -> None:
        self.assertEqual(Quorum.ANY, self.quorum(LISTEN + OWN + 'quorum = "any"\n' + other("us-1")))
        three = other("us-1") + other("us-2")
        self.assertRefused("quorum: 'any' is for two", LISTEN + OWN + 'quorum = "any"\n' + three)
        before = 'previous_members = ["eu-1", "us-1", "us-2"]\nprevious_quorum = "any"\n'
        self.assertRefused("previous_quorum: 'any' is for two", LISTEN + OWN + before + three)

    def quorum(self, text: str) -> Quorum:
        settings = read(text).siblings
        assert settings is not None
        return settings.quorum

    def test_a_lease_outlasts_a_round_that_fails(self) -> None:
        self.assertRefused("lease_seconds: is at least twice", LISTEN + OWN + "lease_seconds = 5\n")
        read(LISTEN + OWN + "lease_seconds = 6\n")
        read(LISTEN + OWN + "lease_seconds = 1\npull_seconds = 0.25\ncall_seconds = 0.25\n")

    def test_the_numbers_have_bounds(self) -> None:
        for setting in (
            "weight = 0",
            "pull_seconds = 0",
            "call_seconds = 61",
            'message_octets = "1KiB"',
            "weight = -1",
        ):
            self.assertRefused(setting.split(" ")[0], LISTEN + OWN + setting)
