"""What is secret is in nothing that a node says or keeps: logs, errors, metrics, documents, the store (DESIGN 12)."""

from __future__ import annotations

import base64
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import tempfile
import threading
from pathlib import Path
from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from edgecache.processes.settings import read_secret
from edgecache.words.checking import checked
from edgecache.words.errors import ConfigError
from edgecache.words.reading import Document, Facts, build
from tests.system.certificates import make_certificate
from tests.system.clients import Answer, ask
from tests.system.harness import Node
from tests.system.origins import Origin, text
from tests.system.processes import until
from tests.system.secrets_hunt import found, kept, told

# What is special in it is percent-encoded in a URL.
USERINFO = {"user": "planted-user-Nq7", "password": "plant/ed:pass@Zw3"}
BEARER = "planted-bearer-Hk4v"
CLIENT_TOKEN = "planted-client-token-Xe8"
CLIENT_PASSWORD = "planted-client-password-Rt5"
PROXY_PASSWORD = "planted-proxy-password-Uo2"
# What clients bring along: theirs, wrong guesses of ours, and what is meant for somebody else.
BROUGHT = {
    "Authorization": "Bearer planted-wrong-token-Gd6",
    "Cookie": "session=planted-cookie-session-Ya1",
    "Edgecache-Bypass": "planted-bypass-guess-Mv9",
    "Proxy-Authorization": "Basic " + base64.b64encode(b"me:planted-for-a-proxy-Bs0").decode(),
    "Fastly-Key": "planted-fastly-key-Cf2",
}
SECRETS = (
    *USERINFO.values(),
    BEARER,
    CLIENT_TOKEN,
    CLIENT_PASSWORD,
    PROXY_PASSWORD,
    "planted-wrong-token-Gd6",
    "planted-cookie-session-Ya1",
    "planted-bypass-guess-Mv9",
    "planted-for-a-proxy-Bs0",
    "planted-fastly-key-Cf2",
)
FILE = """
[tls]
certificate = "{certificate}"
key = "{key}"
[upstream]
head_seconds = 0.3
first_byte_seconds = 0.5
[log]
access = "access.log"
format = "combined"
[[site]]
name = "good"
hosts = ["good.example"]
profile = "plain"
origins = ["http://{userinfo}127.0.0.1:{good}"]
[[site]]
name = "bearer"
hosts = ["bearer.example"]
profile = "plain"
origins = ["http://127.0.0.1:{good}/refusing"]
origin_authorization = {{ env = "PLANTED_BEARER" }}
[[site]]
name = "private"
hosts = ["private.example"]
profile = "plain"
origins = ["http://127.0.0.1:{good}"]
origin_authorization = "Bearer {bearer}"
access = "token"
[[site.client]]
name = "ci"
token = {{ file = "ci.token" }}
[[site.client]]
name = "alice"
user = "alice"
password = "{client_password}"
[[site]]
name = "dead"
hosts = ["dead.example"]
profile = "plain"
origins = ["http://{userinfo}127.0.0.1:9"]
[[site]]
name = "no-tls"
hosts = ["no-tls.example"]
profile = "plain"
origins = ["https://{userinfo}127.0.0.1:{good}"]
[[site]]
name = "rude"
hosts = ["rude.example"]
profile = "plain"
origins = ["http://{userinfo}127.0.0.1:{rude}"]
[[site]]
name = "index"
profile = "index"
origins = ["http://{userinfo}127.0.0.1:{rude}"]
"""
DOCUMENTS = (
    "/status", "/metrics", "/objects", "/objects?by=biggest", "/feed?wait=0", "/downloads", "/healthz", "/readyz", "/",
    "/verify", "/explain?url=/a", "/explain?url=http://good.example/a", "/explain?url=http://private.example/a",
    "/explain?url=http://dead.example/a", "/nothing-here",
)  # fmt: skip


class Rude:
    """An origin that answers what the path says, in ways that are none: see the words below."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(sock,), daemon=True).start()

    def _answer(self, sock: socket.socket) -> None:
        with sock:
            asked = sock.recv(65536)
            path = asked.split(b" ")[1] if b" " in asked else b""
            secret = re.search(rb"Authorization: (\S+ \S+)", asked, re.IGNORECASE)
            said = secret[1] if secret else b""
            if b"garbage" in path:
                # Whoever is confused repeats what it was told.
                sock.sendall(b"what? " + said + b"\r\n\r\n")
            elif b"phrase" in path:
                sock.sendall(b"HTTP/1.1 99999 " + said + b"\r\n\r\n")
            elif b"field" in path:
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: " + said + b"\r\n\r\n")
            elif b"short" in path:
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nCache-Control: max-age=9\r\n\r\nshort")
            elif b"simple" in path:
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\n{{{")
            elif b"hang" in path:
                sock.recv(1)  # until it leaves

    def stop(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


class SecretsTests(SynchronousTestCase):
    """A node with a secret at every place that has one, and every way to make it talk."""

    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="edgecache-secrets-"))
        self.addCleanup(shutil.rmtree, self.root)
        self.good, self.rude = Origin(lambda seen: self._refusing(seen) or text("right")).start(), Rude()
        self.addCleanup(self.good.stop)
        self.addCleanup(self.rude.stop)
        certificate, key = make_certificate(self.root / "tls")
        self.key = "".join(key.read_text().splitlines()[1:-1])
        (self.root / "ci.token").write_text(CLIENT_TOKEN)
        self.settings = FILE.format(
            certificate=certificate,
            key=key,
            userinfo="{}:{}@".format(*(quote(one, safe="") for one in USERINFO.values())),
            good=self.good.url.rpartition(":")[2],
            rude=self.rude.port,
            bearer=BEARER,
            client_password=CLIENT_PASSWORD,
        )
        self.file = self.root / "node.toml"
        self.file.write_text(self.settings)
        os.environ["PLANTED_BEARER"] = f"Bearer {BEARER}"
        self.addCleanup(os.environ.pop, "PLANTED_BEARER")
        self.heard: dict[str, bytes] = {}

    @staticmethod
    def _refusing(seen: object) -> object:
        return text("no", ("WWW-Authenticate", "Bearer")) if "/refusing" in str(seen) else None

    def start(self) -> Node:
        where = ("--config", str(self.file))
        # What its command line shows is looked at.
        node = Node(self.root / "node", profile="index", workers=1, size="128MiB", arguments=where, cold=True)
        self.addCleanup(node.end)
        return node.start()

    def provoke(self, node: Node) -> None:
        """Requests of clients, good and bad, to every site."""
        basic = base64.b64encode(f"alice:{CLIENT_PASSWORD}".encode()).decode()
        asks: list[tuple[str, str, dict[str, str]]] = [
            ("GET", "/a", {"Host": "good.example"}),
            ("GET", "/a", {"Host": "good.example"}),
            ("GET", "/b", {"Host": "good.example", **BROUGHT}),
            ("POST", "/c", {"Host": "good.example", **BROUGHT}),
            ("GET", "/a", {"Host": "bearer.example"}),
            ("GET", "/a", {"Host": "private.example"}),
            ("GET", "/a", {"Host": "private.example", **BROUGHT}),
            ("GET", "/a", {"Host": "private.example", "Authorization": f"Bearer {CLIENT_TOKEN}"}),
            ("GET", "/d", {"Host": "private.example", "Authorization": f"Basic {basic}"}),
            ("GET", "/a", {"Host": "dead.example"}),
            ("GET", "/a", {"Host": "no-tls.example"}),
            *(("GET", f"/{way}", {"Host": "rude.example"}) for way in ("garbage", "phrase", "field", "short", "hang")),
            ("GET", "/simple/a/", {"Host": "index.example", **BROUGHT}),
            ("POST", "/simple/", {"Host": "index.example", **BROUGHT}),
            ("PURGE", "/a", {"Host": "good.example", **BROUGHT}),
            ("GET", "/a", {"Host": "good.example", "Edgecache-Min-Serial": "planted-fastly-key-Cf2"}),
        ]
        for method, target, fields in asks:
            answer = self.ask(node, method, target, fields)
            # What an origin says of its own accord is the client's to have.
            if "rude" not in fields["Host"] or answer.status >= 500:
                self.heard[f"{method} {target} {fields['Host']}"] = repr(answer.fields).encode() + answer.content
        for octets in (
            b"GET http://a:planted-cookie-session-Ya1@good.example/a HTTP/1.1\r\nHost: good.example\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: a:planted-cookie-session-Ya1@good.example\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: good.example\r\nAuthorization: planted-cookie-session-Ya1\0\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: good.example\r\nplanted-cookie-session-Ya1 : 1\r\n\r\n",
        ):
            self.heard[repr(octets[:60])] = self.raw(node, octets)

    def ask(self, node: Node, method: str, target: str, fields: dict[str, str]) -> Answer:
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(
            "127.0.0.1", int(node.url.rpartition(":")[2]), timeout=120, context=context
        )
        try:
            connection.request(method, target, headers={"Connection": "close", **fields})
            response = connection.getresponse()
            try:
                content = response.read()
            except http.client.IncompleteRead as cut:
                content = cut.partial
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)
        finally:
            connection.close()

    def raw(self, node: Node, octets: bytes) -> bytes:
        context = ssl._create_unverified_context()
        with (
            socket.create_connection(("127.0.0.1", int(node.url.rpartition(":")[2])), 120) as plain,
            context.wrap_socket(plain) as tls,
        ):
            tls.sendall(octets)
            return tls.recv(65536)

    def operate(self, node: Node) -> None:
        """Requests of operators, good and bad."""
        made = node.admin("POST", "/tokens", {"name": "planted", "scopes": ["purge"]})
        self.made = re.findall(r"edge_[\w-]+", made.content.decode())[0]
        for name, answer in (
            ("wrong", node.admin("GET", "/status", token=False)),
            ("unknown", self._with(node, "GET", "/status", "Bearer planted-wrong-token-Gd6")),
            ("fastly", self._with(node, "POST", "/service/x/purge/project/a", "", BROUGHT)),
            ("scope", self._with(node, "GET", "/status", f"Bearer {self.made}")),
            ("not json", self._with(node, "POST", "/purge", f"Bearer {self.made}", {}, b"{planted-cookie-session-Ya1")),
            ("url", node.admin("POST", "/purge", {"urls": ["http://a:planted-cookie-session-Ya1@good.example/a"]})),
            ("purged", node.admin("POST", "/purge?wait=complete", {"urls": ["http://good.example/a"]})),
            ("explained", node.admin("GET", "/explain?url=http://a:planted-cookie-session-Ya1@good.example/a")),
            ("revoked", node.admin("DELETE", "/tokens/planted")),
            ("token in a refused URL", ask(node.admin_url, f"/purge?token={quote(self.made)}", method="POST")),
            ("user in a refused URL", ask(node.admin_url, "http://a:planted-cookie-session-Ya1@b/a", method="PURGE")),
            ("token in a URL", node.admin("GET", f"/status?token={quote(self.made)}", token=False)),
        ):  # fmt: skip
            self.heard[f"admin: {name}"] = repr(answer.fields).encode() + answer.content
        done = node.edgecache("explain", "http://good.example/a")
        self.heard["edgecache explain"] = (done.stdout + done.stderr).encode()

    def _with(
        self,
        node: Node,
        method: str,
        target: str,
        authorization: str,
        fields: dict[str, str] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        more = {"Authorization": authorization} if authorization else {}
        return ask(node.admin_url, target, method=method, fields={**(fields or {}), **more}, content=content)

    def nowhere(self, node: Node, *secrets: str) -> None:
        secrets = (*SECRETS, *secrets, node.token, *(self.key[at : at + 40] for at in range(0, len(self.key) - 40, 40)))
        shown = {**self.heard, **told(node, *DOCUMENTS), "log": node.log.encode()}
        # The token of the first start lies in its file, for the command line; downloads of clients are none.
        shown |= kept(node.data, "admin.token")
        shown |= {str(path): path.read_bytes() for path in self.root.glob("access.log*")}
        self.assertIn("access.log", " ".join(shown))
        self.assertEqual([], found(secrets, shown))

    def test_a_running_node_says_none_whatever_it_is_asked(self) -> None:
        node = self.start()
        self.provoke(node)
        self.operate(node)
        # And whatever it is made to read again, or dies of.
        for broken in (
            self.settings.replace("[log]", 'origin_authorization = "planted-cookie-session-Ya1"\n[log]'),
            self.settings + f'\norigin_authorization = "{BEARER}',
            self.settings.replace("127.0.0.1:9", "127.0.0.1:99999"),
            self.settings.replace('token = { file = "ci.token" }', f'token = ["{CLIENT_TOKEN}"]'),
        ):
            self.file.write_text(broken)
            before = node.log.count("everything stays as it was")
            os.kill(node.twistd_pid(), signal.SIGHUP)
            until(lambda before=before: node.log.count("everything stays as it was") > before, "a reload that fails")
        for pid in node.worker_pids():
            os.kill(pid, signal.SIGABRT)
        until(lambda: self.answers(node), "another worker")
        self.nowhere(node, self.made)
        self.file.write_text(
            self.settings.replace("[upstream]", f"[upstream]\nproxy = 'http://me:{PROXY_PASSWORD}@127.0.0.1:9'")
        )
        node.stop()
        self.assertEqual(503, self.ask(node.start(), "GET", "/new", {"Host": "good.example"}).status)
        self.nowhere(node, self.made)

    def test_the_hunt_finds_what_is_there(self) -> None:
        pair = base64.b64encode(b"somebody:planted@secret!").decode()
        said = f"Basic {pair}", quote("planted@secret!"), "planted@secret!", b"planted@secret!".hex()
        for text_ in said:
            self.assertEqual(1, len(found(["planted@secret!"], {"a log": f"before {text_} after".encode()})), text_)

    def answers(self, node: Node) -> bool:
        try:
            return self.ask(node, "GET", "/a", {"Host": "good.example"}).status == 200
        except OSError:
            return False


SITE = '[[site]]\nprofile = "plain"\norigins = ["http://127.0.0.1:1"]\n'
HUSH = "planted-in-a-setting-Lq3"
WRONG = (
    # Where what is special in a password was not percent-encoded, any part of the URL may be of it.
    *(f'[[site]]\nprofile = "plain"\norigins = ["{url}"]' for url in (
        f"http://me:{HUSH}@host:99999",
        f"http://me:a#{HUSH}@host",
        f"http://me:a?{HUSH}@host",
        f"http://me:80/{HUSH}@host",
        f"http://me:a/{HUSH}@host",
        f"http://me:[{HUSH}@host",
        f"http://[{HUSH}]@host",
        f"http://me:{HUSH}@[zz::1]",
        f"http://me:{HUSH}@ho st",
        f"http://me:{HUSH}@",
        f"ftp://me:{HUSH}@host",
        f"{HUSH}@host",
        f"me:{HUSH}@host:80",
        f"http://me:{HUSH}\u00e9@host",
    )),
    SITE + f'origin_authorization = "{HUSH}"',
    SITE + f'origin_authorization = "Bearer {HUSH}\\u0000"',
    SITE + f'origin_authorization = ["{HUSH}"]',
    SITE + f'origin_authorization = {{ value = "{HUSH}" }}',
    SITE + f'origin_authorization = "{HUSH}',
    SITE + f'origin_authorization = {HUSH}',
    SITE + f'origin_authorisation = "{HUSH}"',
    SITE + f'access = "token"\n[[site.client]]\nname = "a"\ntoken = ["{HUSH}"]',
    SITE + f'access = "token"\n[[site.client]]\nname = "a"\npassword = "{HUSH}"',
    SITE + f'access = "token"\n[[site.client]]\nname = "a"\ntoken = "{HUSH}"\npassword = "{HUSH}"',
    SITE + 'access = "token"\n' + 2 * f'[[site.client]]\nname = "a"\ntoken = "{HUSH}"\n',
    *(SITE + f'[upstream]\nproxy = "{url}"' for url in (
        f"https://me:{HUSH}@host:1", f"http://me:80/{HUSH}@host", f"http://me:{HUSH}@", f"ftp://me:{HUSH}@host", HUSH,
    )),
)  # fmt: skip


class RefusalTests(SynchronousTestCase):
    """Settings that cannot be used are refused by their place; what is in them is not repeated."""

    def test_no_part_of_a_secret_is_in_what_is_said_of_it(self) -> None:
        for settings in WRONG:
            document: Document | None = None
            with self.assertRaises(ConfigError, msg=settings) as refused:
                document = Document.parse(settings, "node.toml", "/")
                checked(build(document, Facts("host", 1, "/"), read_secret), document)
            for shown in (str(refused.exception), repr(refused.exception)):
                self.assertEqual([], found([HUSH], {settings: shown.encode()}))
                self.assertIn("node.toml", shown)


class ModesTests(SynchronousTestCase):
    """What a node keeps is its own user's, whatever the umask lets through."""

    def test_nobody_else_may_look_into_the_data_directory_nor_into_any_file_of_it(self) -> None:
        root = Path(tempfile.mkdtemp(prefix="edgecache-modes-"))
        self.addCleanup(shutil.rmtree, root)
        origin = Origin(lambda seen: text("right")).start()
        self.addCleanup(origin.stop)
        file = root / "node.toml"
        file.write_text('[log]\naccess = "access.log"\n[index]\ndownload_log = "downloads.log"\n')
        prefix = ("sh", "-c", 'umask 0; exec "$@"', "sh")
        node = Node(
            root / "node", origin.url, profile="index", workers=1, arguments=("--config", str(file)), prefix=prefix
        )
        self.addCleanup(node.end)
        node.start()
        node.ask("/simple/a/")
        node.purge(all=True)
        node.admin("GET", "/downloads")
        until((root / "access.log").exists, "the access log")
        self.assertEqual({}, self.let_in(0o077, node.data, *node.data.rglob("*")))
        self.assertTrue((node.data / "audit.log").exists())
        # Logs are for an operator's group to read.
        self.assertEqual({}, self.let_in(0o037, root / "access.log", root / "downloads.log"))

    def let_in(self, others: int, *names: Path) -> dict[str, str]:
        """:return: what of these gives ``others`` anything."""
        modes = {str(name): name.stat().st_mode & others for name in names if name.exists()}
        return {name: oct(mode) for name, mode in modes.items() if mode}
