"""What is asked for often is answered from memory as it is from the store: every octet, every way of asking."""

from __future__ import annotations

from edgecache.rules.selectors import Selector
from edgecache.rules.sites import Sites
from edgecache.store.hot import ENOUGH
from edgecache.wire.sending import HIGH_WATER, PIECE
from edgecache.words.counters import Counter
from tests.fills.rig import Client, RigCase
from tests.fills.test_serving import FRESH, content_of, serves


class FromMemoryTests(RigCase):
    async def hot(self, octets: int) -> Client:
        """A client, after a content was asked for until it is kept."""
        self.origin.scripts[f"/{octets}"] = serves(content_of(octets), FRESH, 'ETag: "a"')
        await self.ask(f"/{octets}")
        await self.hit(f"/{octets}")
        client = await self.client()
        for _ in range(ENOUGH):
            self.assertEqual(content_of(octets), (await client.ask(f"/{octets}")).content)
        (worker,) = self._workers
        assert worker._hot is not None
        self.assertIn(octets, [kept.size for kept in worker._hot._kept.values()])
        return client

    def test_whole_in_part_and_not_at_all(self):
        async def test():
            for octets in (20_000, 65_536, 1_000_000):
                client, content = await self.hot(octets), content_of(octets)
                before = self.counter(Counter.HOT_ANSWERS)
                for field, status, due in (
                    ("X: y", 200, content),
                    ("Range: bytes=-16384", 206, content[-16384:]),
                    ("Range: bytes=5-19000", 206, content[5:19001]),
                    ("Range: bytes=0-0", 206, content[:1]),
                    ('If-None-Match: "a"', 304, b""),
                ):
                    for _ in range(2):
                        answer = await client.ask(f"/{octets}", field)
                        self.assertEqual((status, True), (answer.status, answer.hit))
                        self.assertEqual(due, answer.content)
                # All but the 304.
                self.assertEqual(before + 8, self.counter(Counter.HOT_ANSWERS))
                self.assertEqual(b"", (await client.ask(f"/{octets}", method="HEAD")).content)
                client.send(f"/{octets}", "Connection: close")
                self.assertEqual(content, (await client.receive()).content)
                self.assertEqual(b"", await client.reader.read())

        return self.run_async(test())

    def test_to_a_slow_reader_among_others(self):
        async def test():
            await self.hot(1_000_000)
            slow = await self.client(receive_octets=4096)
            slow.writer.transport.pause_reading()
            for _ in range(12):
                slow.send("/1000000")
            slow.send("/1000000", "Range: bytes=10-500000")
            for _ in range(3):
                self.assertEqual(content_of(1_000_000), (await self.ask("/1000000")).content)
            slow.writer.transport.resume_reading()
            for _ in range(12):
                self.assertEqual(content_of(1_000_000), (await slow.receive()).content)
            self.assertEqual(content_of(1_000_000)[10:500_001], (await slow.receive()).content)

        return self.run_async(test())

    def test_many_requests_at_once_on_one_connection(self):
        async def test():
            client = await self.hot(65_536)
            for _ in range(20):
                client.send("/65536")
            for _ in range(20):
                self.assertEqual(content_of(65_536), (await client.receive()).content)

        return self.run_async(test())

    def test_what_a_client_has_yet_to_take_is_no_copy_and_let_go_of_when_it_leaves(self):
        """DESIGN 13: 96 KiB of memory for one that is sending."""

        async def test():
            await self.hot(1_000_000)
            (kept,) = self._workers[0]._hot._kept.values()
            for direct in (True, False):
                slow = await self.client(receive_octets=4096)
                await slow.ask("/1000000", "Range: bytes=0-0")
                connections = self._workers[0]._listeners[0]._connections
                if not direct:  # as with TLS
                    for connection in connections:
                        connection._descriptor = -1
                slow.writer.transport.pause_reading()
                for _ in range(16):
                    slow.send("/1000000")
                await self.until(lambda: kept.readers == 1)
                waiting = [connection._transport.get_write_buffer_size() for connection in connections]
                self.assertLessEqual(max(waiting), PIECE + HIGH_WATER)
                slow.leave()
                await self.until(lambda: kept.readers == 0)

        return self.run_async(test())

    def test_a_connection_that_is_closed_lets_go_of_its_socket(self):
        """Two owners would close it twice, and the second time it may be somebody else's."""

        async def test():
            client = await self.hot(65_536)
            (connection,) = [each for each in self._workers[0]._listeners[0]._connections if each._socket is not None]
            borrowed = connection._socket
            client.writer.close()
            await self.until(lambda: connection.gone)
            self.assertEqual((None, -1), (connection._socket, borrowed.fileno()))

        return self.run_async(test())

    def test_what_is_purged_is_not_answered_from_memory(self):
        async def test():
            client = await self.hot(65_536)
            self.origin.scripts["/65536"] = serves(content_of(65_535), FRESH, 'ETag: "b"')
            await self.purge(Selector("url", Sites(self.config).all[0].id, b"/65536"))
            self.assertEqual(content_of(65_535), (await client.ask("/65536")).content)

        return self.run_async(test())
