"""Listening sockets: a port in use is found, and each worker has its own of the same port."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from edgecache.processes.sockets import OwnerSockets, PublicSockets, bind_once
from edgecache.words.endpoints import Endpoint, endpoint
from edgecache.words.errors import StartError

ANY = Endpoint("127.0.0.1", 0)


def port(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


class PublicSocketTests(SynchronousTestCase):
    def bind(self, *endpoints: Endpoint, workers: int = 2) -> PublicSockets:
        bound = PublicSockets.bind(list(endpoints), workers)
        self.addCleanup(bound.close)
        return bound

    def test_every_worker_has_a_socket_of_every_address(self) -> None:
        bound = self.bind(ANY, Endpoint("127.0.0.2", 0), workers=3)
        self.assertEqual([2, 2, 2], [len(own) for own in bound.by_worker])
        for column in zip(*bound.by_worker, strict=True):
            self.assertEqual(1, len({sock.getsockname() for sock in column}))
            self.assertEqual(3, len({sock.fileno() for sock in column}))

    def test_port_zero_is_told_as_the_port_that_it_became(self) -> None:
        bound = self.bind(ANY)
        self.assertEqual([f"127.0.0.1:{port(bound.by_worker[0][0])}"], bound.addresses)

    def test_without_worker_processes_there_is_one(self) -> None:
        self.assertEqual(1, len(self.bind(ANY, workers=0).by_worker))

    def test_a_port_in_use_is_refused_even_where_its_holder_would_share_it(self) -> None:
        taken = self.bind(ANY)
        error = self.assertRaises(StartError, PublicSockets.bind, [endpoint(taken.addresses[0])], 2)
        self.assertEqual(f"cannot listen on {taken.addresses[0]}: Address already in use", str(error))

    def test_an_address_of_another_machine_is_refused(self) -> None:
        error = self.assertRaises(StartError, PublicSockets.bind, [Endpoint("192.0.2.1", 8080)], 1)
        self.assertIn("cannot listen on 192.0.2.1:8080: ", str(error))

    def test_a_connection_waits_while_no_worker_accepts(self) -> None:
        bound = self.bind(ANY)
        with socket.create_connection(("127.0.0.1", port(bound.by_worker[0][0])), 60):
            pass

    def test_the_kernel_gives_connections_to_every_worker(self) -> None:
        bound = self.bind(ANY)
        clients = [socket.create_connection(bound.by_worker[0][0].getsockname(), 60) for _ in range(64)]
        self.addCleanup(lambda: [client.close() for client in clients])
        counts = [self.accepted(own[0]) for own in bound.by_worker]
        self.assertEqual(64, sum(counts))
        self.assertGreater(min(counts), 8)

    def accepted(self, sock: socket.socket) -> int:
        count = 0
        while True:
            try:
                sock.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1

    def test_the_admin_port_is_shared_with_nobody(self) -> None:
        (sock,) = bind_once([ANY])
        self.addCleanup(sock.close)
        self.assertRaises(StartError, bind_once, [Endpoint("127.0.0.1", port(sock))])


class OwnerSocketTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()

    def bind(self, workers: int, directory: str | None = None) -> OwnerSockets:
        owners = OwnerSockets.bind(directory or self.directory, workers)
        self.addCleanup(owners.close)
        return owners

    def reach(self, path: str) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    def test_a_lone_worker_has_nobody_to_ask(self) -> None:
        owners = self.bind(1)
        self.assertEqual(([], None), (owners.paths, owners.of(0)))

    def test_each_worker_is_reached_at_its_path(self) -> None:
        owners = self.bind(2)
        for path in owners.paths:
            self.reach(path)
        self.assertEqual([os.path.basename(path) for path in owners.paths], sorted(os.listdir(self.directory)))

    def test_only_this_user_reaches_them(self) -> None:
        owners = self.bind(2)
        self.assertEqual([0o600, 0o600], [os.stat(path).st_mode & 0o777 for path in owners.paths])
        self.assertEqual(0o700, os.stat(self.directory).st_mode & 0o777)

    def test_what_a_killed_node_left_is_replaced(self) -> None:
        first = OwnerSockets.bind(self.directory, 2)
        for sock in first.sockets:
            sock.close()
        self.reach(self.bind(2).paths[1])

    def test_a_data_directory_deeper_than_a_sockets_path_may_be(self) -> None:
        deep = os.path.join(os.path.abspath(self.directory), *["d" * 60] * 3)
        Path(deep).mkdir(parents=True)
        owners = self.bind(2, deep)
        self.reach(owners.paths[1])
        self.assertEqual(["owner-0.sock", "owner-1.sock"], sorted(os.listdir(deep)))

    def test_that_holds_also_when_twistd_has_gone_into_the_background(self) -> None:
        """Another process has them then, and the one that made them is gone."""
        deep = os.path.join(os.path.abspath(self.directory), *["d" * 60] * 3)
        Path(deep).mkdir(parents=True)
        owners = self.bind(2, deep)
        child = os.fork()
        if not child:
            found = [path.split("/")[2] for path in owners.paths]
            os._exit(0 if found == [str(os.getpid())] * 2 else 1)
        self.assertEqual(0, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
