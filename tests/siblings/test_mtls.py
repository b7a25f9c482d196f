"""Who is let in, and whom we speak to: real certificates on real sockets (DESIGN 9, 12)."""

from __future__ import annotations

import datetime
import socket
import ssl
from pathlib import Path
from typing import Any

from attrs import define
from twisted.internet import reactor  # noqa: TID251  (tests run on the reactor itself)
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.logger import eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from edgecache.siblings.bounded import REQUEST_SECONDS
from edgecache.siblings.connections import HANDSHAKE_SECONDS
from edgecache.siblings.identity import (
    BadCertificate,
    Identity,
    certificate_of,
    check_peer_der,
    client_context,
    named_id,
    server_context,
)
from edgecache.siblings.problems import Problems
from edgecache.siblings.server import PER_MEMBER, STRANGERS, Answering, ControlSite
from edgecache.siblings.transport import (
    Call,
    CallFailed,
    CallRefused,
    CertificateRefused,
    Message,
)
from tests.siblings.fleet import MESSAGE_OCTETS, Certificates, Node, identity_of, trusting
from tests.upstream.authority import Authority


async def echo(asker: str, message: Message) -> Message:
    return {"asker": asker, **message}


async def broken(asker: str, message: Message) -> Message:
    raise RuntimeError("a handler's own mistake")


async def unspeakable(asker: str, message: Message) -> Message:
    return {"octets": b"no JSON has these"}


class Case(TestCase):
    """A node ``home``, and whoever asks it."""

    timeout = 120

    def setUp(self) -> None:
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.certificates = Certificates(Path(self.mktemp()))
        self.home = self.node(
            self.certificates.issue("home"), {Call.PULL: echo, Call.PUSH: broken, Call.STATE: unspeakable}
        )

    def node(self, identity: Any, handlers: Any = None, **how: Any) -> Node:
        node = Node(identity, handlers or {}, **how).start()
        self.addCleanup(lambda: Deferred.fromCoroutine(node.stop()))
        return node

    async def refused(self, asker: Node, *, call: Call = Call.PULL, to: str = "home", **how: Any) -> CallFailed:
        """The error of a call that must fail."""
        await asker.know(self.home, as_id=to, **how)
        error = await self.assertFailure(Deferred.fromCoroutine(asker.caller.call(to, call, {})), CallFailed)
        assert isinstance(error, CallFailed)
        return error

    def logged(self, text: str) -> int:
        return sum(text in eventAsText(event, includeTimestamp=False, includeSystem=False) for event in self.events)

    def assertLogged(self, text: str) -> None:
        lines = [
            eventAsText(event, includeTimestamp=False, includeSystem=False)
            for event in self.events
            if "siblings" in str(event.get("log_format"))
        ]
        self.assertTrue(self.logged(text), lines)


def asynchronous(method: Any) -> Any:
    """A test that waits."""

    def run(case: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(method(case))

    run.__name__, run.__doc__ = method.__name__, method.__doc__
    return run


class AskerTests(Case):
    """What the listener refuses, and says of it."""

    @asynchronous
    async def test_a_member_is_answered_and_nothing_is_logged(self) -> None:
        asker = self.node(self.certificates.issue("asker"))
        await asker.know(self.home)
        self.assertEqual({"asker": "asker", "n": 1}, await asker.caller.call("home", Call.PULL, {"n": 1}))
        self.assertEqual(0, self.logged("siblings:"))

    @asynchronous
    async def test_a_certificate_of_another_ca(self) -> None:
        stranger = Certificates(Path(self.mktemp())).issue("asker")
        error = await self.refused(self.node(trusting(stranger, self.home.identity)))
        self.assertIsInstance(error, CertificateRefused)
        self.assertIn("it refuses this node's certificate", error.problem)
        self.assertLogged("from 127.0.0.1 was refused: the certificate is not of the fleet's CA")

    @asynchronous
    async def test_a_certificate_that_has_expired(self) -> None:
        error = await self.refused(self.node(self.certificates.issue("asker", begins=-9, days=2)))
        self.assertIsInstance(error, CertificateRefused)
        self.assertIn("expired", error.problem)
        self.assertLogged("from 127.0.0.1 was refused: the certificate has expired")

    @asynchronous
    async def test_a_certificate_that_is_not_valid_yet(self) -> None:
        error = await self.refused(self.node(self.certificates.issue("asker", begins=2)))
        self.assertIsInstance(error, CertificateRefused)
        self.assertLogged("from 127.0.0.1 was refused: the certificate is not valid yet")

    @asynchronous
    async def test_no_certificate(self) -> None:
        context = ssl.create_default_context(cafile=str(self.certificates.directory / "ca.pem"))

        def attempt() -> bytes:
            with socket.create_connection(("127.0.0.1", self.home.port), 60) as plain:
                secured = context.wrap_socket(plain, server_hostname="127.0.0.1")
                # TLS 1.3: the refusal comes after our side of the handshake.
                secured.sendall(b"POST /siblings/pull HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
                return secured.recv(100)

        await self.assertFailure(deferToThread(attempt), ssl.SSLError)
        self.assertLogged("from 127.0.0.1 was refused: peer did not return a certificate")

    @asynchronous
    async def test_an_id_that_is_no_member(self) -> None:
        error = await self.refused(self.node(self.certificates.issue("other")))
        assert isinstance(error, CallRefused)
        self.assertEqual((403, "not-a-member"), (error.status, error.code))
        self.assertLogged("from 127.0.0.1 was refused: other is no member of this node's fleet")

    @asynchronous
    async def test_an_id_that_differs_in_case_only_is_no_member(self) -> None:
        error = await self.refused(self.node(self.certificates.issue("Asker")))
        assert isinstance(error, CallRefused)
        self.assertEqual("not-a-member", error.code)

    @asynchronous
    async def test_a_certificate_of_the_ca_that_names_no_node(self) -> None:
        authority = Authority(Path(self.certificates.directory), "corporate")
        odd = identity_of(*authority.issue("localhost"), authority.path)
        self.home.listener.follow(trusting(self.home.identity, odd), self.home.members)
        error = await self.refused(self.node(trusting(odd, self.home.identity)))
        assert isinstance(error, CallRefused)
        self.assertEqual((403, "wrong-certificate"), (error.status, error.code))
        self.assertLogged("from 127.0.0.1 was refused: the certificate names no node")

    @asynchronous
    async def test_a_certificate_that_expires_while_a_connection_lasts(self) -> None:
        asker = self.node(self.certificates.issue("asker"))
        await asker.know(self.home)
        await asker.caller.call("home", Call.PULL, {})
        self.home.wall += datetime.timedelta(days=30).total_seconds()
        error = await self.assertFailure(Deferred.fromCoroutine(asker.caller.call("home", Call.PULL, {})), CallRefused)
        self.assertEqual("certificate-expired", error.code)
        self.assertLogged("from 127.0.0.1 was refused: the certificate of asker has expired")

    @asynchronous
    async def test_a_member_that_is_none_any_more_is_refused_on_the_connection_that_it_has(self) -> None:
        asker = self.node(self.certificates.issue("asker"))
        await asker.know(self.home)
        await asker.caller.call("home", Call.PULL, {})
        self.home.listener.follow(self.home.identity, frozenset(("someone",)))
        error = await self.assertFailure(Deferred.fromCoroutine(asker.caller.call("home", Call.PULL, {})), CallRefused)
        self.assertEqual("not-a-member", error.code)

    @asynchronous
    async def test_whoever_was_let_in_by_a_ca_that_has_gone_is_refused_at_the_next_call(self) -> None:
        other = Certificates(Path(self.mktemp())).issue("asker")
        asker, ours = self.node(trusting(other, self.home.identity)), self.home.identity
        self.home.listener.follow(trusting(ours, other), self.home.members)
        await asker.know(self.home)
        await asker.caller.call("home", Call.PULL, {})
        self.home.listener.follow(ours, self.home.members)
        await self.assertFailure(Deferred.fromCoroutine(asker.caller.call("home", Call.PULL, {})), CertificateRefused)
        self.assertLogged("from 127.0.0.1 was refused: the certificate is not of the fleet's CA")

    @asynchronous
    async def test_who_is_refused_again_and_again_is_logged_once_a_minute(self) -> None:
        asker = self.node(self.certificates.issue("other"))
        for _ in range(3):
            await self.refused(asker)
        self.assertEqual(1, self.logged("refused: other is no member"))
        self.home.clock.advance(60)
        await self.refused(asker)
        self.assertEqual(2, self.logged("refused: other is no member"))

    @asynchronous
    async def test_plain_http(self) -> None:
        def attempt() -> bytes:
            with socket.create_connection(("127.0.0.1", self.home.port), 60) as plain:
                plain.sendall(b"POST /siblings/pull HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
                return plain.recv(1000)

        self.assertNotIn(b"HTTP/1.1", await deferToThread(attempt))
        self.assertLogged("from 127.0.0.1 was refused: http request")

    @asynchronous
    async def test_an_older_tls(self) -> None:
        context = client_context(self.certificates.settings("home"))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2

        def attempt() -> None:
            with socket.create_connection(("127.0.0.1", self.home.port), 60) as plain:
                context.wrap_socket(plain, server_hostname="127.0.0.1")

        await self.assertFailure(deferToThread(attempt), ssl.SSLError)
        self.assertLogged("from 127.0.0.1 was refused: unsupported protocol")


class HomeTests(Case):
    """Whom a caller refuses to speak to. The other side never sees its message."""

    def asker(self) -> Node:
        return self.node(self.certificates.issue("asker"))

    @asynchronous
    async def test_a_certificate_of_another_ca(self) -> None:
        impostor = Certificates(Path(self.mktemp())).issue("home")
        self.home.listener.follow(trusting(impostor, self.home.identity), self.home.members)
        error = await self.refused(self.asker())
        self.assertIsInstance(error, CertificateRefused)
        self.assertEqual("the certificate is not of the fleet's CA", error.problem)

    @asynchronous
    async def test_a_certificate_that_has_expired(self) -> None:
        self.home.listener.follow(self.certificates.issue("home", begins=-9, days=2), self.home.members)
        error = await self.refused(self.asker())
        self.assertEqual((CertificateRefused, "the certificate has expired"), (type(error), error.problem))

    @asynchronous
    async def test_another_node_of_the_fleet(self) -> None:
        error = await self.refused(self.asker(), to="us-1")
        self.assertEqual(
            (CertificateRefused, "the certificate is that of node home, not of us-1"), (type(error), error.problem)
        )

    @asynchronous
    async def test_the_right_node_at_a_host_that_its_certificate_does_not_name(self) -> None:
        self.home.listener.follow(self.certificates.issue("home", "elsewhere.example"), self.home.members)
        error = await self.refused(self.asker())
        self.assertEqual(
            (CertificateRefused, "the certificate of node home is not for 127.0.0.1"), (type(error), error.problem)
        )

    @asynchronous
    async def test_a_host_name_is_compared_as_well_as_an_address(self) -> None:
        self.home.listener.follow(self.certificates.issue("home", "localhost"), self.home.members)
        asker = self.asker()
        await asker.know(self.home, host="localhost")
        self.assertEqual({"asker": "asker"}, await asker.caller.call("home", Call.PULL, {}))
        error = await self.refused(asker)
        self.assertIsInstance(error, CertificateRefused)

    @asynchronous
    async def test_that_a_sibling_fails_is_logged_once_and_its_return_too(self) -> None:
        asker = self.asker()
        port = self.home.port
        await asker.know(self.home)
        await self.home.stop()
        for _ in range(2):
            await self.assertFailure(Deferred.fromCoroutine(asker.caller.call("home", Call.PULL, {})), CallFailed)
        self.assertEqual(1, self.logged("siblings: home cannot be called: "))
        self.assertIn("refused", asker.caller.problems["home"] or "")
        self.home.start(port)
        await asker.caller.call("home", Call.PULL, {})
        self.assertEqual(1, self.logged("siblings: home answers again"))
        self.assertEqual({"home": None}, asker.caller.problems)


class ConnectionTests(Case):
    """Connections last, and their end is nobody's problem."""

    @asynchronous
    async def test_calls_one_after_the_other_share_a_connection(self) -> None:
        asker = self.node(self.certificates.issue("asker"))
        await asker.know(self.home)
        for _ in range(5):
            await asker.caller.call("home", Call.PULL, {})
        self.assertEqual(1, self.home.listener.connections)

    @asynchronous
    async def test_many_calls_at_once_are_all_answered_over_a_few(self) -> None:
        asker = self.node(self.certificates.issue("asker"))
        await asker.know(self.home)
        calls = [Deferred.fromCoroutine(asker.caller.call("home", Call.PULL, {"n": n})) for n in range(40)]
        self.assertEqual(list(range(40)), [(await call)["n"] for call in calls])
        self.assertLessEqual(self.home.listener.connections, 8)

    @asynchronous
    async def test_a_sibling_that_has_restarted_is_called_over_a_new_one(self) -> None:
        asker = self.node(self.certificates.issue("asker"))
        port = self.home.port
        await asker.know(self.home)
        await asker.caller.call("home", Call.PULL, {})
        await self.home.stop()
        self.home.start(port)
        self.assertEqual({"asker": "asker"}, await asker.caller.call("home", Call.PULL, {}))
        self.assertEqual(0, self.logged("cannot be called"))

    @asynchronous
    async def test_of_too_many_of_one_member_the_oldest_goes(self) -> None:
        """A network may have lost them without a word to us: the member is no worse for it."""
        asker = self.node(self.certificates.issue("asker"))
        context = client_context(self.certificates.settings("asker"))
        held: list[ssl.SSLSocket] = []
        self.addCleanup(lambda: [each.close() for each in held])

        def connect() -> None:
            plain = socket.create_connection(("127.0.0.1", self.home.port), 60)
            held.append(context.wrap_socket(plain, server_hostname="127.0.0.1"))

        for _ in range(PER_MEMBER):
            await deferToThread(connect)
        await asker.know(self.home)
        self.assertEqual({"asker": "asker"}, await asker.caller.call("home", Call.PULL, {}))
        self.assertEqual(PER_MEMBER, self.home.listener.connections)

    @asynchronous
    async def test_a_sibling_that_accepts_and_says_nothing_is_left_at_the_deadline(self) -> None:
        accepted: Deferred[None] = Deferred()

        class Silent(Protocol):
            def connectionMade(self) -> None:
                accepted.callback(None)

        port = reactor.listenTCP(0, Factory.forProtocol(Silent), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        asker = self.node(self.certificates.issue("asker"))
        await asker.know(_At(port.getHost().port, self.home.identity))
        calling = Deferred.fromCoroutine(asker.caller.call("home", Call.PULL, {}))
        await accepted
        asker.clock.advance(2)
        error = await self.assertFailure(calling, CallFailed)
        self.assertEqual("no answer to pull within 2 s", error.problem)


@define(eq=False)
class _At:
    """A node, seen at another port."""

    port: int
    identity: Identity


class HandlerTests(Case):
    """A handler's mistakes stay its own."""

    @asynchronous
    async def test_one_that_fails_is_logged_and_the_next_call_answered(self) -> None:
        asker = self.node(self.certificates.issue("asker"))
        error = await self.refused(asker, call=Call.PUSH)
        assert isinstance(error, CallRefused)
        self.assertEqual((500, "failed"), (error.status, error.code))
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))
        self.assertEqual({"asker": "asker"}, await asker.caller.call("home", Call.PULL, {}))

    @asynchronous
    async def test_an_answer_that_json_cannot_carry_is_logged_and_ends_the_connection(self) -> None:
        await self.refused(self.node(self.certificates.issue("asker")), call=Call.STATE)
        self.assertNotEqual([], self.flushLoggedErrors(TypeError))


class RequestTests(Case):
    """Requests that no caller of ours makes."""

    async def ask(self, request: bytes) -> bytes:
        """The answer to a member that writes ``request`` itself."""
        self.certificates.issue("asker")
        context = client_context(self.certificates.settings("asker"))

        def attempt() -> bytes:
            answer = b""
            with socket.create_connection(("127.0.0.1", self.home.port), 60) as plain:
                secured = context.wrap_socket(plain, server_hostname="127.0.0.1")
                secured.sendall(request)
                while piece := secured.recv(1 << 16):
                    answer += piece
            return answer

        return await deferToThread(attempt)

    def post(self, content: bytes, path: bytes = b"/siblings/pull", method: bytes = b"POST") -> bytes:
        head = b"%b %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        return head % (method, path, len(content)) + content

    @asynchronous
    async def test_what_is_no_json_object(self) -> None:
        for content in (b"", b"{", b"[]", b"1", b'{"a": NaN}', b"\xff"):
            answer = await self.ask(self.post(content))
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), content)
            self.assertIn(b'"error":"not-json"', answer)

    @asynchronous
    async def test_another_method(self) -> None:
        answer = await self.ask(self.post(b"{}", method=b"PUT"))
        self.assertTrue(answer.startswith(b"HTTP/1.1 405 "), answer)
        self.assertIn(b"Allow: POST\r\n", answer)

    @asynchronous
    async def test_other_paths(self) -> None:
        for path in (b"/", b"/siblings/", b"/siblings/pull/", b"/siblings/other", b"/purge", b"/%ff", b"http://b/x"):
            answer = await self.ask(self.post(b"{}", path))
            self.assertTrue(answer.startswith(b"HTTP/1.1 404 "), path)

    @asynchronous
    async def test_a_form_is_not_read_as_one(self) -> None:
        form = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length"
        answer = await self.ask(self.post(b"--x\r\n\r\n").replace(b"Content-Length", form))
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)

    @asynchronous
    async def test_more_than_a_message_may_have_in_chunks_too(self) -> None:
        head = b"POST /siblings/pull HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
        answer = await self.ask(head + chunks * (MESSAGE_OCTETS // 0x4000 + 1) + b"0\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer[:100])


class BoundTests(SynchronousTestCase):
    """What a stranger can hold."""

    def setUp(self) -> None:
        self.clock = Clock()
        problems = Problems(self.clock)
        answering = Answering({}, lambda: 0.0, problems, frozenset())
        self.site = ControlSite(answering, problems, MESSAGE_OCTETS, self.clock)

    def arrive(self) -> StringTransport:
        transport = StringTransport()
        channel: Any = self.site.buildProtocol(None)  # type: ignore[no-untyped-call]  # Twisted has no types here
        channel.makeConnection(transport)
        return transport

    def test_a_handshake_has_its_deadline(self) -> None:
        transport = self.arrive()
        self.clock.advance(HANDSHAKE_SECONDS - 0.1)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(0.1)
        self.assertTrue(transport.disconnecting)

    def test_a_request_has_its_deadline(self) -> None:
        transport = StringTransport()
        channel: Any = self.site.buildProtocol(None)  # type: ignore[no-untyped-call]  # Twisted has no types here
        channel.makeConnection(transport)
        channel.in_time()
        channel.dataReceived(b"POST /siblings/pull HTTP/1.1\r\n")
        self.clock.advance(REQUEST_SECONDS - 0.1)
        channel.dataReceived(b"Host: a\r\n")
        self.assertFalse(transport.disconnecting)
        self.clock.advance(0.1)
        self.assertTrue(transport.disconnecting)

    def test_of_too_many_that_show_no_certificate_the_oldest_goes(self) -> None:
        transports = [self.arrive() for _ in range(STRANGERS + 1)]
        self.assertEqual([transports[0]], [one for one in transports if one.disconnecting])


class ContentContextTests(Case):
    """The same certificates on the loop's own TLS, as the workers' look-ups use them."""

    def handshake(self, asker: str, home: str) -> tuple[bytes | None, bytes | None]:
        """The certificates that both sides have seen."""
        server, client = (
            server_context(self.certificates.settings(home)),
            client_context(self.certificates.settings(asker)),
        )
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        theirs = server.wrap_bio(to_server, to_client, server_side=True)
        ours = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
        done: set[Any] = set()
        while len(done) < 2:
            for side in (ours, theirs):
                try:
                    side.do_handshake()
                    done.add(side)
                except ssl.SSLWantReadError:
                    pass
        return ours.getpeercert(True), theirs.getpeercert(True)

    def test_both_learn_who_the_other_is(self) -> None:
        self.certificates.issue("asker")
        seen_by_asker, seen_by_home = self.handshake("asker", "home")
        check_peer_der(seen_by_asker, "home", "127.0.0.1")
        self.assertEqual("asker", named_id(certificate_of(seen_by_home)))

    def test_another_node_than_meant_is_noticed(self) -> None:
        self.certificates.issue("asker")
        seen_by_asker, _ = self.handshake("asker", "home")
        for node_id, host in (("us-1", "127.0.0.1"), ("home", "127.0.0.2"), ("HOME", "127.0.0.1")):
            self.assertRaises(BadCertificate, check_peer_der, seen_by_asker, node_id, host)

    def test_no_certificate_is_none(self) -> None:
        self.assertRaises(BadCertificate, certificate_of, None)

    def test_another_ca_ends_the_handshake(self) -> None:
        self.certificates.issue("asker")
        other = Certificates(Path(self.mktemp()))
        other.issue("home")
        mine, self.certificates = self.certificates, other
        context = client_context(mine.settings("asker"))
        server = server_context(other.settings("home"))
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        theirs = server.wrap_bio(to_server, to_client, server_side=True)
        ours = context.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
        self.assertRaises(ssl.SSLWantReadError, ours.do_handshake)
        self.assertRaises(ssl.SSLWantReadError, theirs.do_handshake)
        self.assertRaises(ssl.SSLCertVerificationError, ours.do_handshake)
