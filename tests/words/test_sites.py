"""Settings of several and of private indexes: paths, credentials, clients (DESIGN 10, 11)."""

from __future__ import annotations

import orjson
from twisted.trial.unittest import SynchronousTestCase

from edgecache.upstream.addresses import origins_of
from edgecache.words.config import Access, Config
from edgecache.words.credentials import credentials, digested
from edgecache.words.errors import ConfigError
from edgecache.words.reading import from_plain, plain
from tests.words.test_reading import SITE, read

INDEX = '[[site]]\nprofile = "index"\norigins = ["https://index.example"]\n'
CLIENT = 'access = "token"\n[[site.client]]\nname = "ci"\ntoken = "a-long-token"\n'
EVERYWHERE = '[listen]\npublic = ["0.0.0.0:8080"]\n'


class SiteCase(SynchronousTestCase):
    def refused(self, text: str) -> str:
        return str(self.assertRaises(ConfigError, read, text))


class PathTests(SiteCase):
    def test_sites_share_a_host_by_their_paths(self) -> None:
        config = read(INDEX + INDEX + 'path = "/team-a"\n' + INDEX + 'path = "/team-a/b"\nhosts = ["a.example"]')
        self.assertEqual(["default", "default/team-a", "a.example/team-a/b"], [site.name for site in config.sites])

    def test_two_sites_of_one_host_and_path(self) -> None:
        text = INDEX + 'path = "/a"\n' + INDEX + 'path = "/a"\nname = "b"'
        self.assertIn("'*' below /a belongs to another site already", self.refused(text))
        text = INDEX + 'hosts = ["bücher.example"]\n' + INDEX + 'hosts = ["xn--bcher-kva.example"]'
        self.assertIn("'xn--bcher-kva.example' belongs to another site already", self.refused(text))

    def test_a_path_is_plain(self) -> None:
        for path in ("team", "/team/", "/", "/a//b", "/../a", "/.a", "/a%20b", "/a?b", "/\u00e4"):
            self.assertIn('[[site]] path: is a path such as "/team-a"', self.refused(INDEX + f'path = "{path}"'), path)

    def test_a_public_url_has_no_credentials_and_ends_without_a_slash(self) -> None:
        read_back = read(INDEX + 'public_url = "https://edge.example/x/"').sites[0].public_url
        self.assertEqual("https://edge.example/x", read_back)
        for url in ("edge.example", "https://u:p@edge.example", "https://edge.example/?q", "ftp://edge.example"):
            self.assertIn("[[site]] public_url: ", self.refused(INDEX + f'public_url = "{url}"'), url)


class OriginCredentialsTests(SiteCase):
    def test_user_and_password_or_a_scheme_and_what_it_needs(self) -> None:
        self.assertEqual("Basic dTpwIHc6eA==", credentials("u:p w:x"))
        for value in ("Bearer abc", "Token abc", "Basic eA=="):
            self.assertEqual(value, credentials(value))
        self.assertRaises(ValueError, credentials, "Bearer")
        for value in ("abc", "Bearer a b", "u:p\n"):
            self.assertNotIn(value, str(self.assertRaises(ValueError, credentials, value)), value)

    def test_every_origin_of_the_site_gets_them_and_no_repr_shows_them(self) -> None:
        two = INDEX.replace('"]', '", "https://b.example/root"]')
        config = read(two + 'origin_authorization = "me:hush"\n' + INDEX + 'path = "/b"')
        self.assertEqual([b"Basic bWU6aHVzaA=="] * 2, [one.authorization for one in origins_of(config.sites[0])])
        self.assertIsNone(origins_of(config.sites[1])[0].authorization)
        for shown in (repr(config), repr(origins_of(config.sites[0]))):
            self.assertNotIn("hush", shown)
            self.assertNotIn("bWU6aHVzaA", shown)

    def test_only_clients_get_what_they_open(self) -> None:
        """DESIGN 11: beyond loopback not without client authentication."""
        for line in ('origin_authorization = "me:hush"\n', ""):
            site = INDEX if line else INDEX.replace("https://", "https://me:hush@")
            problem = self.refused(EVERYWHERE + site + line)
            self.assertIn("0.0.0.0:8080 can be reached from other machines", problem)
            self.assertNotIn("hush", problem)
            read(site + line)
            self.assertEqual(Access.TOKEN, read(EVERYWHERE + site + line + CLIENT).sites[0].access)

    def test_not_twice(self) -> None:
        text = INDEX.replace("https://", "https://u:p@") + 'origin_authorization = "a:b"'
        self.assertIn("origins: has credentials, and so has origin_authorization", self.refused(text))


class ClientTests(SiteCase):
    def worker_s(self, config: Config) -> Config:
        return from_plain(orjson.loads(orjson.dumps(plain(config))))

    def test_of_a_secret_the_digest_is_kept_and_it_may_be_written_so(self) -> None:
        config = read(INDEX + CLIENT)
        token = config.sites[0].clients[0].token
        assert token is not None
        self.assertEqual(digested(b"a-long-token"), token.value)
        self.assertNotIn("a-long-token", str(plain(config)))
        self.assertEqual(config, read(INDEX + CLIENT.replace("a-long-token", token.value)))
        self.assertEqual(config, self.worker_s(config))

    def test_access_and_clients_need_each_other(self) -> None:
        self.assertIn("there is no [[site.client]]", self.refused(INDEX + 'access = "token"'))
        self.assertIn('while access is "open"', self.refused(INDEX + CLIENT.replace('"token"\n', '"open"\n', 1)))

    def test_a_client_has_a_token_or_a_user_and_a_password(self) -> None:
        for lines in (
            'name = "x"',
            'name = "x"\nuser = "u"',
            'name = "x"\npassword = "12345678"',
            'name = "x"\nuser = "u"\ntoken = "12345678"',
            'name = "x"\nuser = "u"\ntoken = "12345678"\npassword = "12345678"',
        ):
            text = INDEX + 'access = "token"\n[[site.client]]\n' + lines
            self.assertIn("has a token, or a user and a password", self.refused(text), lines)
        read(INDEX + 'access = "token"\n[[site.client]]\nname = "x"\nuser = "u"\npassword = "12345678"')

    def test_what_no_client_can_be(self) -> None:
        for lines, problem in (
            ('name = "x"\ntoken = "short"', "token: has fewer than 8 characters"),
            ('name = "x"\ntoken = ""', "token: has fewer than 8 characters"),
            ('name = "x"\nuser = "a:b"\npassword = "12345678"', "user: has no colon"),
            ('name = "a b"\ntoken = "12345678"', "name: is up to 64"),
            ('token = "12345678"', "name: is missing"),
        ):
            self.assertIn(problem, self.refused(INDEX + 'access = "token"\n[[site.client]]\n' + lines), lines)
        twice = INDEX + CLIENT + CLIENT.partition("\n")[2]
        self.assertIn("'ci' is another client's already", self.refused(twice))

    def test_credentials_for_us_are_not_passed_on(self) -> None:
        text = INDEX + "pass_authorization = true\n" + CLIENT
        self.assertIn('pass_authorization: would pass on what access = "token" asks', self.refused(text))


class UploadTests(SiteCase):
    def test_it_is_a_path_of_an_index(self) -> None:
        self.assertEqual("/legacy/", read(INDEX + 'upload = "/legacy/"').sites[0].upload)
        for path in ("legacy", "/a b", "/a?b"):
            self.assertIn("upload: is a path", self.refused(INDEX + f'upload = "{path}"'), path)
        self.assertIn("upload: is for an index", self.refused(SITE + 'upload = "/"'))


class RequestFieldTests(SiteCase):
    def test_they_are_names_of_fields_and_for_a_plain_site(self) -> None:
        self.assertEqual(("Accept",), read(SITE + 'request_fields = ["Accept"]').sites[0].request_fields)
        for name in ("", "a b", "a:", "\\u00e4"):
            self.assertIn("no name of a field", self.refused(SITE + f'request_fields = ["{name}"]'), name)
        self.assertIn("is for a plain site", self.refused(INDEX + 'request_fields = ["accept"]'))
