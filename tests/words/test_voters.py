"""Settings of a voter: what it has, and what is refused because it would have no effect there (DESIGN 9)."""

from __future__ import annotations

from edgecache.words.checking import checked
from edgecache.words.errors import ConfigError
from edgecache.words.reading import Document, Facts, build
from edgecache.words.voters import is_voter
from tests.words.test_fleet import LISTEN, OWN, FleetCase, other, read
from tests.words.test_reading import no_secret

LISTENS = '[listen]\nsiblings = ["0.0.0.0:8443"]\n'
VOTER = OWN + "voter = true\n"


class VoterSettingsTests(FleetCase):
    def test_it_has_no_clients_no_workers_and_no_site(self) -> None:
        config = read(LISTENS + VOTER + other("us-1"))
        self.assertTrue(is_voter(config))
        self.assertEqual(((), 0, ()), (config.listen.public, config.node.workers, config.sites))
        self.assertEqual(("127.0.0.1:8081",), config.listen.admin)
        self.assertFalse(is_voter(read(LISTEN + OWN + other("us-1"))))

    def test_what_is_about_serving_is_refused_at_its_line(self) -> None:
        for table, place in (
            ('[[site]]\nprofile = "plain"\norigins = ["http://o"]\n', "[[site]] profile"),
            ('[store]\nsize = "1GiB"\n', "[store] size"),
            ("[store]\n", "store"),
            ("[upstream]\nresumes = 1\n", "[upstream] resumes"),
            ('[tls]\ncertificate = "c"\nkey = "k"\n', "[tls] certificate"),
            ("[limits]\nfields = 20\n", "[limits] fields"),
            ('[log]\nformat = "json"\n', "[log] format"),
        ):
            text = LISTENS + VOTER + other("us-1")
            line = text.count("\n") + 1 + (place != "store")
            said = self.refused(text + table)
            self.assertEqual(f"e.toml:{line}: {place}: has no effect here", said.partition(": a voter")[0])

    def test_so_are_a_public_listener_workers_and_a_share_of_keys(self) -> None:
        self.assertRefused(
            "[listen] public: must be empty", LISTENS + 'public = ["127.0.0.1:80"]\n' + VOTER + other("us-1")
        )
        self.assertRefused(
            "[node] workers: has no effect",
            OWN.replace("[sib", "workers = 2\n[sib") + VOTER[len(OWN) :] + other("us-1") + LISTENS,
        )
        self.assertRefused("[siblings] weight: has no effect", LISTENS + VOTER + "weight = 2\n" + other("us-1"))
        self.assertRefused("[siblings] region_homes", LISTENS + VOTER + "region_homes = true\n" + other("us-1"))

    def test_what_says_that_there_is_none_is_fine(self) -> None:
        text = OWN.replace("[sib", "workers = 0\n[sib") + "voter = true\nregion_homes = false\n" + other("us-1")
        self.assertTrue(is_voter(read(LISTENS + "public = []\ncontent = []\n" + text)))

    def test_of_purges_it_may_be_asked(self) -> None:
        config = read(LISTENS + VOTER + other("us-1") + "[purge]\nwait_longest_seconds = 9\n")
        self.assertEqual(9.0, config.purge.wait_longest_seconds)

    def test_alone_it_has_nobody_to_vote_with(self) -> None:
        self.assertRefused("[siblings] voter: is for one of several", LISTENS + VOTER)

    def test_a_flag_is_refused_by_its_name(self) -> None:
        for flag, path, value in (
            ("--origin", ("site", 0, "origins"), ["http://o"]),
            ("--listen", ("listen", "public"), ["127.0.0.1:1"]),
            ("--size", ("store", "size"), "1GiB"),
            ("--workers", ("node", "workers"), 2),
        ):
            document = Document.parse(LISTENS + VOTER + other("us-1"), "e.toml", "/etc")
            if path[0] == "site":
                document.data["site"] = [{"profile": "index"}]
            document.override(flag, path, value)
            facts = Facts(host="a", cpus=1, here="/work")
            config = build(document, facts, no_secret)
            error = self.assertRaises(ConfigError, checked, config, document)
            self.assertTrue(str(error).startswith(f"{flag}: "), error)
