"""Settings: from a TOML text and flags to one tree, or to an error that names the place."""

from __future__ import annotations

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.words.checking import checked, listens_at
from edgecache.words.config import GIB, Config, Policy, Profile, Secret, StoreSettings
from edgecache.words.errors import ConfigError
from edgecache.words.reading import Document, Facts, build, from_plain, octets, plain

FACTS = Facts(host="edge host.example", cpus=3, here="/work")
SITE = '[[site]]\nprofile = "plain"\norigins = ["http://origin.example"]\n'


def no_secret(kind: str, name: str) -> str:
    raise LookupError(name)


def read(text: str, *flags: tuple[str, tuple[str | int, ...], object]) -> Config:
    """The tree of a file ``/etc/e.toml``."""
    document = Document.parse(text, "e.toml", "/etc")
    for flag, path, value in flags:
        document.override(flag, path, value)
    return checked(build(document, FACTS, no_secret), document)


class DefaultTests(SynchronousTestCase):
    def test_an_empty_file_is_loopback_8080_and_8081_and_a_store_in_the_working_directory(self) -> None:
        config = read("")
        self.assertEqual((("127.0.0.1:8080",), ("127.0.0.1:8081",)), (config.listen.public, config.listen.admin))
        self.assertEqual(("/work/edgecache-data", 20 * GIB), (config.node.data, config.store.size))

    def test_there_is_one_worker_for_each_cpu(self) -> None:
        self.assertEqual(3, read("").node.workers)

    def test_the_identifier_is_the_host_name_as_far_as_a_token_may_hold_it(self) -> None:
        self.assertEqual("edge-host.example", read("").node.id)

    def test_a_site_is_named_after_its_first_host(self) -> None:
        other = SITE + 'hosts = ["Files.example"]\n'
        self.assertEqual(["default", "Files.example"], [site.name for site in read(SITE + other).sites])


class ValueTests(SynchronousTestCase):
    def test_what_the_file_says_is_in_the_tree(self) -> None:
        config = read(
            '[node]\nid = "eu-1"\nworkers = 0\n[store]\nsize = "1.5GiB"\n[limits]\nhead_octets = "32KiB"\n'
            '[[site]]\nprofile = "index"\npolicy = "ordered"\norigins = ["https://a.example", "https://b.example"]\n'
        )
        self.assertEqual(("eu-1", 0), (config.node.id, config.node.workers))
        self.assertEqual((3 * GIB // 2, 32768), (config.store.size, config.limits.head_octets))
        (site,) = config.sites
        self.assertEqual((Profile.INDEX, Policy.ORDERED), (site.profile, site.policy))
        self.assertEqual(("https://a.example", "https://b.example"), site.origins)

    def test_a_whole_number_is_a_number_of_seconds(self) -> None:
        self.assertEqual(7.0, read("[upstream]\nhead_seconds = 7").upstream.head_seconds)

    def test_paths_are_relative_to_the_file(self) -> None:
        config = read('[node]\ndata = "d"\n[tls]\ncertificate = "c.pem"\nkey = "/k.pem"\n[log]\naccess = "a.log"\n')
        assert config.tls is not None
        self.assertEqual("/etc/d", config.node.data)
        self.assertEqual(("/etc/c.pem", "/k.pem"), (config.tls.certificate, config.tls.key))
        self.assertEqual("/etc/a.log", config.log.access)

    def test_a_dash_is_standard_output_and_no_path(self) -> None:
        self.assertEqual("-", read('[log]\naccess = "-"').log.access)

    def test_a_flag_overrides_the_file(self) -> None:
        self.assertEqual(5, read("[node]\nworkers = 1", ("--workers", ("node", "workers"), 5)).node.workers)

    def test_the_simple_root_of_an_index_stands_for_what_is_above_it(self) -> None:
        text = '[[site]]\nprofile = "index"\norigins = ["https://a.example/team/simple/", "https://b.example/simple"]\n'
        self.assertEqual(("https://a.example/team", "https://b.example"), read(text).sites[0].origins)

    def test_of_a_plain_origin_the_path_is_left_alone(self) -> None:
        self.assertEqual(
            ("http://a.example/simple",),
            read('[[site]]\nprofile = "plain"\norigins = ["http://a.example/simple/"]').sites[0].origins,
        )


class ErrorTests(SynchronousTestCase):
    """An error names file, line and key, or the flag."""

    def refused(self, text: str, *flags: tuple[str, tuple[str | int, ...], object]) -> str:
        return str(self.assertRaises(ConfigError, read, text, *flags))

    def test_an_unknown_setting(self) -> None:
        self.assertEqual(
            "e.toml:3: [limits] conections: there is no such setting; is 'connections' meant?",
            self.refused("[limits]\n\nconections = 3\n"),
        )

    def test_an_unknown_table(self) -> None:
        self.assertEqual("e.toml:1: stor: there is no such setting; is 'store' meant?", self.refused("[stor]\n"))

    def test_a_value_of_the_wrong_kind(self) -> None:
        cases = {
            "[node]\nid = 3": "e.toml:2: [node] id: is a string",
            "[node]\nworkers = true": "e.toml:2: [node] workers: is a whole number",
            "[node]\nworkers = 1.5": "e.toml:2: [node] workers: is a whole number",
            "[node]\nlease_seconds = nan": "e.toml:2: [node] lease_seconds: is a number",
            "[node]\nlease_seconds = inf": "e.toml:2: [node] lease_seconds: is a number",
            "[listen]\npublic = 'x:1'": 'e.toml:2: [listen] public: is a list: ["..."]',
            "[listen]\npublic = [1]": "e.toml:2: [listen] public: is a string",
            SITE + "purged = 1": "e.toml:4: [[site]] purged: is true or false",
            "node = 1": "e.toml:1: node: is a table",
            SITE.replace("[[site]]", "[site]"): "e.toml:1: site: is an array of tables: [[site]]",
            SITE + "[site.client]": "e.toml:4: [[site]] client: is an array of tables: [[site.client]]",
            "[store]\nsize = 'big'": "e.toml:2: [store] size: 'big' is no size: a number, then KiB, MiB, GiB or TiB",
        }
        self.assertEqual(cases, {text: self.refused(text) for text in cases})

    def test_a_value_out_of_range(self) -> None:
        self.assertEqual("e.toml:2: [node] workers: must be >= 0: -1", self.refused("[node]\nworkers = -1"))
        self.assertIn("e.toml:2: [store] size: must be >=", self.refused("[store]\nsize = 1"))
        self.assertIn("e.toml:2: [upstream] tls_seconds: must be > 0", self.refused("[upstream]\ntls_seconds = 0"))

    def test_a_word_that_is_none_of_the_choices(self) -> None:
        self.assertEqual(
            "e.toml:2: [[site]] profile: is one of 'index', 'plain'",
            self.refused('[[site]]\nprofile = "cdn"\norigins = ["http://a"]'),
        )

    def test_a_missing_setting_names_its_table(self) -> None:
        self.assertEqual("e.toml:3: [[site]] origins: is missing", self.refused('\n\n[[site]]\nprofile = "plain"'))

    def test_a_flag_is_named_instead_of_a_line(self) -> None:
        self.assertEqual(
            "--size: '3x' is no size: a number, then KiB, MiB, GiB or TiB",
            self.refused("[store]\nsize = 100000000", ("--size", ("store", "size"), "3x")),
        )

    def test_toml_that_is_none_names_the_line(self) -> None:
        self.assertTrue(self.refused("\n[node\n").startswith("e.toml:2: "), self.refused("\n[node\n"))

    def test_an_error_in_the_second_site_names_its_line(self) -> None:
        self.assertTrue(self.refused(SITE + SITE.replace("http", "ftp")).startswith("e.toml:6: [[site]] origins: "))


class DemandTests(SynchronousTestCase):
    """What settings demand of each other."""

    def refused(self, text: str) -> str:
        return str(self.assertRaises(ConfigError, read, text))

    def test_two_sites_of_one_host_or_name(self) -> None:
        self.assertIn("the name 'default' is taken", self.refused(SITE + SITE))
        self.assertIn("'*' belongs to another site", self.refused(SITE + SITE + 'name = "other"'))

    def test_an_address_that_is_none(self) -> None:
        self.assertEqual(
            "e.toml:2: [listen] admin: 'localhost' is not host:port", self.refused('[listen]\nadmin = ["localhost"]')
        )

    def test_an_address_is_one_listener_s(self) -> None:
        self.assertEqual(
            "e.toml:3: [listen] admin: 127.0.0.1:80 is [listen] public's already",
            self.refused('[listen]\npublic = ["127.0.0.1:80"]\nadmin = ["127.0.0.1:80"]'),
        )
        read('[listen]\npublic = ["127.0.0.1:0"]\nadmin = ["127.0.0.1:0"]')

    def test_a_host_of_a_site_is_what_a_host_field_may_say(self) -> None:
        """Anything else would be a site that nobody reaches."""
        for host in (
            "https://x.example",
            "x.example/",
            "*.x.example",
            "u@x.example",
            "",
            "x:y",
            "a b",
            "bü..cher.example",
        ):
            self.assertIn("[[site]] hosts: ", self.refused(SITE + f'hosts = ["{host}"]'), host)
            self.assertIn("[[site]] file_hosts: ", self.refused(SITE + f'file_hosts = ["{host}"]'), host)
        read(SITE + 'hosts = ["*", "x.example:8080", "[::1]:80", "bücher.example", "under_score"]')
        read(SITE + 'file_hosts = ["x.example", "10.0.0.1:81"]')

    def test_what_is_found_only_when_a_file_is_opened_is_placed_as_well(self) -> None:
        document = Document.parse('[tls]\ncertificate = "c"\nkey = "k"', "e.toml", "/etc")
        for where, expected in (
            ("[tls] key", "e.toml:3: [tls] key"),
            ("[tls] certificate, key", "e.toml:2: [tls] certificate, key"),
            ("[upstream] ca", "[upstream] ca"),
            ("--listen", "--listen"),
        ):
            self.assertEqual(f"{expected}: no", str(document.placed(ConfigError(where, "no"))))

    def test_eviction_begins_before_the_store_is_full(self) -> None:
        self.assertIn("evict_share: must be below full_share", self.refused("[store]\nevict_share = 0.95"))

    def test_the_nodes_own_listener_is_no_origin(self) -> None:
        for host in ("127.0.0.1:8080", "localhost:8080"):
            self.assertIn("this node's own listener", self.refused(SITE.replace("origin.example", host)))

    def test_another_port_or_address_is_another_server(self) -> None:
        for host, port in (("127.0.0.1", 8090), ("127.0.0.2", 8080), ("origin.example", 8080)):
            self.assertFalse(listens_at(read(""), host, port), host)

    def test_a_listener_on_every_address_is_there_on_loopback_too(self) -> None:
        self.assertTrue(listens_at(read('[listen]\npublic = ["0.0.0.0:8080"]'), "127.0.0.1", 8080))

    def test_credentials_forbid_listening_beyond_loopback(self) -> None:
        guarded = SITE.replace("http://", "http://me:secret@")
        self.assertEqual(("http://me:secret@origin.example",), read(guarded).sites[0].origins)
        refused = self.refused('[listen]\npublic = ["0.0.0.0:8080"]\n' + guarded)
        self.assertIn("can be reached from other machines", refused)
        self.assertNotIn("secret", refused)

    def test_an_origin_is_scheme_authority_and_prefix(self) -> None:
        for url in ("ftp://a", "http://", "http://a/?q", "http://a/#f", "http://a:99999", "http://a:0", "http://a b"):
            self.assertIn("e.toml:3: [[site]] origins: ", self.refused(SITE.replace("http://origin.example", url)), url)

    def test_an_at_sign_in_the_path_of_an_origin_may_not_end_a_password(self) -> None:
        """Some indexes name a view of a feed so."""
        feed = "https://index.example/team/_packaging/feed@release/pypi"
        self.assertEqual((feed,), read(SITE.replace("http://origin.example", feed)).sites[0].origins)
        for url in ("http://me:80/half@host", "http://to/ken@host/team", "http://to/k/en@index.example/team"):
            said = self.refused(SITE.replace("http://origin.example", url))
            self.assertIn("percent-encoded", said)
            self.assertNotIn("en@", said)

    def test_the_pages_of_an_index_are_below_a_path(self) -> None:
        for path in ("simple", "/simple", "", "/a b/", "/ä/"):
            self.assertIn("simple_path: is a path", self.refused(SITE + f'simple_path = "{path}"'), path)

    def test_what_is_probed_is_a_path(self) -> None:
        for path in ("healthz", "/a b", "/\u00e4", "/a#b", "http://origin.example/", "*"):
            self.assertIn("probe_path: is a path", self.refused(SITE + f'probe_path = "{path}"'), path)
        for path in ("", "/", "/simple/?x=%20"):
            self.assertEqual(path, read(SITE + f'probe_path = "{path}"').sites[0].probe_path)

    def test_the_shortest_ejection_is_no_longer_than_the_longest(self) -> None:
        self.assertIn("eject_longest_seconds: must not be below", self.refused("[upstream]\neject_seconds = 301"))
        self.assertEqual(1.0, read("[upstream]\neject_seconds = 1\neject_longest_seconds = 1").upstream.eject_seconds)

    def test_a_key_is_of_a_certificate(self) -> None:
        self.assertEqual(
            "e.toml:2: [upstream] client_key: is the key of no client_certificate",
            self.refused('[upstream]\nclient_key = "node.key"'),
        )
        read('[upstream]\nclient_key = "node.key"\nclient_certificate = "node.pem"')

    def test_an_identifier_that_no_field_may_hold(self) -> None:
        self.assertIn("[node] id", self.refused('[node]\nid = "a b"'))


class SecretTests(SynchronousTestCase):
    def test_it_is_never_shown(self) -> None:
        self.assertNotIn("hush", repr(Secret("hush")))

    def test_origins_are_not_shown_with_the_tree(self) -> None:
        self.assertNotIn("hush", repr(read(SITE.replace("http://", "http://me:hush@"))))


class PlainTests(SynchronousTestCase):
    """A worker gets the settings as JSON."""

    def test_a_worker_reads_what_the_node_process_has(self) -> None:
        config = read(SITE + '[tls]\ncertificate = "c"\nkey = "k"\n[store]\nsize = "2GiB"')
        self.assertEqual(config, from_plain(orjson.loads(orjson.dumps(plain(config)))))

    def test_what_is_not_set_stays_unset(self) -> None:
        config = read("")
        self.assertIsNone(from_plain(orjson.loads(orjson.dumps(plain(config)))).tls)


class SizeTests(SynchronousTestCase):
    @given(st.integers(0, 1 << 20), st.sampled_from([("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("", 0)]))
    @settings(max_examples=50)
    def test_a_size_is_its_number_times_its_unit(self, number: int, unit: tuple[str, int]) -> None:
        self.assertEqual(number << unit[1], octets(f"{number}{unit[0]}"))

    def test_decimal_units_are_refused_for_they_mean_two_things(self) -> None:
        self.assertRaises(ValueError, octets, "20GB")

    def test_the_smallest_store_is_allowed(self) -> None:
        self.assertEqual(64 << 20, StoreSettings(size=octets("64MiB")).size)
