"""The client of ``benchmarks/mix.py`` counts what came, however it is framed, and what failed."""

from __future__ import annotations

import socket
import threading

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.mixclient import SMALL, Requests, Seen, drive

HEAD = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"
LARGE = SMALL + (3 << 20)
ANSWERS = {
    b"length": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    b"large": b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (LARGE, bytes(LARGE)),
    b"chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"unmodified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 900\r\n\r\n",
    b"error": b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
    b"last": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"cut": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    b"cold": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ncold",
}
CLOSED_AFTER = (b"last", b"cut")
ENOUGH = 24


class Server:
    """One connection after the other; what a path is answered with is in ``ANSWERS``."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            with connection:
                if not self._serve(connection):
                    return

    def _serve(self, connection: socket.socket) -> bool:
        """:return: False when it was asked to stop."""
        try:
            while asked := connection.recv(1000):
                name = asked.split()[1][1:]
                if name == b"stop":
                    return False
                connection.sendall(ANSWERS[name])
                if name in CLOSED_AFTER:
                    break
        except OSError:
            # The client's time was up.
            return True
        return True

    def stop(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as last:
            last.sendall(HEAD % b"stop")
        self._thread.join()
        self._listening.close()


class MixClientTests(SynchronousTestCase):
    def seen(self, *names: bytes) -> tuple[Seen, Requests]:
        """What is seen of these, over and over."""
        server = Server()
        self.addCleanup(server.stop)
        requests = Requests(
            [HEAD % name for name in names if name != b"cold"],
            [HEAD % b"cold"],
            [0 if name == b"cold" else number for number, name in enumerate(names, 1)],
        )
        return drive(server.port, 1, 60.0, requests, lambda seen: sum(seen.statuses.values()) >= ENOUGH)[0], requests

    def test_answers_are_told_apart_by_their_size_and_status(self) -> None:
        seen, _ = self.seen(b"length", b"large", b"chunked", b"unmodified")
        self.assertEqual({200, 304}, set(seen.statuses))
        self.assertEqual(0, seen.failed)
        # Some may be on their way when time is up.
        self.assertLessEqual(abs(len(seen.small) - 3 * len(seen.large)), 3)
        self.assertGreaterEqual(seen.octets, len(seen.large) * LARGE)

    def test_an_error_fails_and_so_does_what_is_cut(self) -> None:
        seen, _ = self.seen(b"length", b"error", b"cut")
        self.assertGreaterEqual(seen.failed, 2)
        self.assertLessEqual(abs(seen.failed - 2 * seen.statuses[503]), 1)

    def test_a_server_may_close_after_an_answer(self) -> None:
        seen, _ = self.seen(b"last")
        self.assertEqual(0, seen.failed)
        self.assertGreater(len(seen.small), 1)

    def test_a_cold_one_is_used_up(self) -> None:
        seen, requests = self.seen(b"length", b"cold")
        self.assertLessEqual(abs(requests.used - len(seen.small) // 2), 1)
