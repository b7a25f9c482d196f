"""
The listeners besides the public one, held by strangers: TLS handshakes, siblings' control and content, admin.

And upstreams that are slow or endless on purpose. Deadlines are short here.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from edgecache.admin.site import CONNECTIONS
from edgecache.siblings.server import STRANGERS
from tests.system import processes
from tests.system.attackers import Attack
from tests.system.certificates import make_certificate
from tests.system.clients import Download, Together
from tests.system.contents import Artifact
from tests.system.fleet import Fleet
from tests.system.fleetcase import PACE, UNLIMITED
from tests.system.harness import Node
from tests.system.origins import Origin
from tests.system.processes import until
from tests.system.test_attackers import MIB
from tests.system.traffic import reply_to
from tests.system.watching import MemoryWatch

MANY = 300
"""More than strangers may have (128), and than the admin listener has at all (256)."""


class ListenersTests(SynchronousTestCase):
    """A node with TLS and a sibling."""

    fleet: Fleet
    node: Node

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-legs-")
        cls.addClassCleanup(directory.cleanup)
        root = Path(directory.name)
        origin = Origin(reply_to).start()
        cls.addClassCleanup(origin.stop)
        certificate, key = make_certificate(root / "public")
        more = (
            f'{UNLIMITED}\n[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n[limits]\ntls_handshake_seconds = 1.0'
        )
        cls.fleet = Fleet(root / "fleet", 2, origin.url, workers=1, siblings=PACE, more=more, cold=True)
        cls.addClassCleanup(cls.fleet.end)
        cls.fleet.start()
        cls.node = cls.fleet.nodes["n1"]

    def test_held_by_strangers_they_go_on(self) -> None:
        control, content = self.fleet._ports["n1"]
        legs = {
            "silent in its handshake": (self.node.url, f"http://127.0.0.1:{content}", f"http://127.0.0.1:{control}"),
            "handshake octet by octet": (self.node.url, f"http://127.0.0.1:{content}", f"http://127.0.0.1:{control}"),
            "silent": (self.node.admin_url,),
            "head octet by octet": (self.node.admin_url,),
        }
        memory = processes.anonymous_octets(self.node.family())
        attacks = [Attack(url, {kind: MANY}, addresses=2) for kind, urls in legs.items() for url in urls]
        for attack in attacks:
            attack.__enter__()
            self.addCleanup(attack.__exit__)
        for attack in attacks:
            until(lambda attack=attack: all(each["made"] >= MANY for each in attack.told().values()), "all strangers")
        # Each way is still open to whom it is for.
        self.assertEqual(200, self.ask_public())
        for name in self.fleet.ids:
            self.fleet.wait_leased(self.fleet.nodes[name])
        for by in self.fleet.ids:
            purged = self.fleet.nodes[by].admin("POST", "/purge?wait=complete&timeout=60", {"all": True})
            self.assertEqual(200, purged.status, purged)
        for attack in attacks:
            # Their deadline at the control listener is ten seconds.
            most = STRANGERS if str(control) in attack.url else CONNECTIONS if attack.url == self.node.admin_url else 0
            until(lambda attack=attack, most=most: sum(attack.left().values()) <= most, f"the end of {attack.kinds}")
        self.assertLess(processes.anonymous_octets(self.node.family()) - memory, 64 * MIB)
        self.assertNotIn("Traceback", self.node.log)
        # One line for each reason, whoever comes how often.
        self.assertLess(self.node.log.count(" was refused: "), 10, self.node.log)

    def ask_public(self) -> int:
        """:return: status of a request over TLS."""
        parts = urlsplit(self.node.url)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection((str(parts.hostname), parts.port), timeout=120) as sock,
            context.wrap_socket(sock) as secure,
        ):
            secure.sendall(b"GET /packages/700/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return int(secure.recv(12)[9:])

    def test_a_client_that_renegotiates_is_not_heard(self) -> None:
        parts = urlsplit(self.node.url)
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        with socket.create_connection((str(parts.hostname), parts.port), timeout=120) as sock:
            sock.settimeout(None)
            secure = SSL.Connection(context, sock)
            secure.set_connect_state()
            secure.do_handshake()
            secure.renegotiate()
            with self.assertRaises(SSL.Error):
                secure.do_handshake()
                secure.sendall(b"GET /packages/700/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                secure.recv(100)
        self.assertEqual(200, self.ask_public())


CONTENT = Artifact("attacked", 300_000)
_HEAD = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n"


def _octet_by_octet() -> Iterator[bytes]:
    yield from (bytes([octet]) for octet in _HEAD * 1000)


def _endless_head() -> Iterator[bytes]:
    yield _HEAD
    while True:
        yield b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 1000


def _endless_interims() -> Iterator[bytes]:
    while True:
        yield b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def _endless_extension() -> Iterator[bytes]:
    yield _HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;"
    while True:
        yield b"y" * 65536


def _endless_trailer() -> Iterator[bytes]:
    yield _HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    while True:
        yield b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 1000


def _drip() -> Iterator[bytes]:
    yield _HEAD + b"Content-Length: %d\r\n\r\n" % CONTENT.size
    yield from (bytes([octet]) for octet in CONTENT.whole())


def _stall() -> Iterator[bytes]:
    yield _HEAD + b"Content-Length: %d\r\n\r\n" % CONTENT.size + CONTENT.read(0, 1000)
    while True:
        yield b""


WAYS: dict[str, Callable[[], Iterator[bytes]]] = {
    "head octet by octet": _octet_by_octet,
    "endless head": _endless_head,
    "endless interim responses": _endless_interims,
    "endless chunk extension": _endless_extension,
    "endless trailer": _endless_trailer,
    "content octet by octet": _drip,
    "content that stalls": _stall,
}


PAUSE_SECONDS = 0.02


class BadOrigin:
    """
    Answers each request in the way whose number is its target.

    :ivar left: ways of answers that the node did not wait for the end of.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.left: set[str] = set()
        self._over = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client:
            way = list(WAYS)[int(client.recv(65536).split(b" ")[1][1:])]
            try:
                for octets in WAYS[way]():
                    client.sendall(octets)
                    if len(octets) <= 1 and (self._over.wait(PAUSE_SECONDS) or _has_left(client)):
                        break
            except OSError:
                pass
            self.left.add(way)


def _has_left(client: socket.socket) -> bool:
    try:
        return client.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


class BadUpstreamTests(SynchronousTestCase):
    def test_what_is_slow_or_endless_is_left_and_costs_nothing(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-bad-")
        self.addCleanup(directory.cleanup)
        root = Path(directory.name)
        origin = BadOrigin()
        self.addCleanup(origin.stop)
        configuration = root / "edgecache.toml"
        configuration.write_text("[upstream]\nhead_seconds = 1.0\nstall_seconds = 1.0\nfirst_byte_seconds = 2.0\n")
        node = Node(root / "node", origin.url, workers=1, arguments=("--config", str(configuration)), cold=True)
        self.addCleanup(node.end)
        node.start()
        memory = processes.anonymous_octets(node.family())
        clients = Together()

        def ask(number: int) -> None:
            if list(WAYS)[number] == "content octet by octet":
                # Slow, but not too slow while there is nobody else to ask: it is the client who leaves.
                with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
                    dripping.read_all()
                self.assertEqual((200, None), (dripping.status, dripping.wrong_at))
                return
            answer = node.ask(f"/{number}")
            # Python's client takes an interim response for the final one.
            honest = answer.status in (103, 502, 503, 504) or not answer.complete
            self.assertTrue(honest, f"{list(WAYS)[number]}: {answer}")

        dripping = Download(node.url, f"/{list(WAYS).index('content octet by octet')}", CONTENT)
        for number in range(len(WAYS)):
            clients.start(ask, number)
        with MemoryWatch(node) as watch:
            until(lambda: dripping.position > 0, "the first octets")
            dripping.leave()
            clients.join()
            until(lambda: origin.left == set(WAYS), "the end of all upstream connections")
        self.assertLess(watch.most - memory, 32 * MIB)
        self.assertNotIn("Traceback", node.log)
