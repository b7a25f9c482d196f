"""
Composition of one worker: reader, writer, upstream client, route and listeners.

The same function starts a worker in its own process and, with ``--workers 0``, inside the node process.
"""

from __future__ import annotations

import gc
import time

from attrs import define, field
from twisted.internet.defer import gatherResults
from twisted.logger import Logger

from edgecache.fills.artifacts import Artifacts
from edgecache.fills.attempts import Attempts
from edgecache.fills.catalogues import Catalogues
from edgecache.fills.deriving import Derivations
from edgecache.fills.fills import STARTS, Fills
from edgecache.fills.hashing import Hashing
from edgecache.fills.homes import SiblingsAsked
from edgecache.fills.keeping import Keep, kept_octets
from edgecache.fills.nodeprocess import NodeProcess
from edgecache.fills.outlet import Outlet
from edgecache.fills.owners import UNCOUNTED, Owners
from edgecache.fills.pages import Pages
from edgecache.fills.paging import Paging
from edgecache.fills.parts import Parts
from edgecache.fills.sending import Sender
from edgecache.fills.serials import Serials
from edgecache.fills.unstored import Unstored
from edgecache.fills.warming import Warming
from edgecache.node import Node
from edgecache.processes.memory import give_back, keep_freed
from edgecache.processes.timers import LoopTimers, boot_clock
from edgecache.rules import status_fields
from edgecache.rules.decisions import Refuse
from edgecache.rules.guesses import Guesses
from edgecache.rules.purges import PurgeTable
from edgecache.rules.siblinghood import marked
from edgecache.rules.sites import Sites, node_token
from edgecache.siblings.content import Applied, Guests
from edgecache.siblings.identity import server_context
from edgecache.siblings.origins import SiblingTrust, content_origins, homes_of
from edgecache.siblings.problems import Problems
from edgecache.store.ahead import Disk
from edgecache.store.controlreading import ControlReader
from edgecache.store.epochs import WINDOW, Epochs
from edgecache.store.hot import Hot
from edgecache.store.reading import StoreReader
from edgecache.store.serials import StoredSerials
from edgecache.store.threads import FewThreads
from edgecache.store.writing import StoreWriter
from edgecache.upstream.addresses import AddressBook, Origin, origins_of, unix_address
from edgecache.upstream.client import Client
from edgecache.upstream.dialing import LoopDialer
from edgecache.upstream.linkhosts import LinksFollowed
from edgecache.upstream.standing import Standing
from edgecache.wire.access import AccessLog
from edgecache.wire.gate import Gate
from edgecache.wire.listener import Listener
from edgecache.wire.listening import Server, start_server
from edgecache.wire.purging import PublicPurging
from edgecache.wire.sampling import Sampling
from edgecache.wire.sending import TURN
from edgecache.wire.tls import Handshakes, tls_context, why
from edgecache.wire.turns import Turns
from edgecache.words.counters import Counter
from edgecache.words.fleet import acquainted
from edgecache.words.purging import LogName
from edgecache.workerparts import CountedDownloads, WorkerParts, access_log

_log = Logger()

COLLECT_AFTER = 10_000
"""
Containers made and not let go before the collector looks. What a request or a fill holds is let go when it ends, by
reference count; the default of 700 took a sixth of the CPU of small misses to find that out again and again.
"""

DISK_THREADS = 8
"""Contents of which a worker reads at the same time what is not in memory."""


@define(eq=False, repr=False)
class Worker:
    """A running worker."""

    _writer: StoreWriter
    _client: Client
    _standing: Standing
    _keep: Keep
    _in_thread: FewThreads
    _from_disk: FewThreads
    pages: Pages
    _listeners: list[Listener]
    _access: AccessLog | None
    _downloads: CountedDownloads | None
    _sampling: Sampling
    _unstored: Unstored
    _hot: Hot | None
    _servers: list[Server] = field(factory=list)

    async def drain(self, seconds: float, quiet_seconds: float, *, last: bool) -> int:
        """
        Accept nothing more; done when the last response is out, or after ``seconds``.

        :param quiet_seconds: a connection that is idle for less may send one more request.
        :param last: nobody accepts in this worker's place from now on.
        :return: how many connections were cut.
        """
        for server in self._servers:
            if last:
                server.finish()
            else:
                server.close()
        await gatherResults([listener.drain(seconds, quiet_seconds) for listener in self._listeners])
        return sum(listener.cut for listener in self._listeners)

    async def stop(self) -> None:
        """Close everything at once; what is committed stays, fills in progress are lost."""
        for server in self._servers:
            server.stop()
        await gatherResults([listener.stop() for listener in self._listeners])
        self._sampling.stop()
        self._unstored.stop()
        self._client.stop()
        self._standing.close()
        self._keep.close()
        self._in_thread.stop()
        self._from_disk.stop()
        await self._writer.close()
        if self._hot is not None:
            self._hot.close()
        if self._access is not None:
            self._access.close()
        if self._downloads is not None:
            await self._downloads.events.close()
            self._downloads.thread.stop()


async def start_worker(parts: WorkerParts) -> Worker:
    """
    Build the worker and begin to accept.

    :raises StartError: it cannot.
    """
    config, page, timers = parts.config, parts.page, LoopTimers(parts.loop)
    keep_freed()
    node_id = config.node.id.encode()
    sites = Sites(config)
    control = ControlReader.of(parts.environments.control)
    purges = PurgeTable(max(page.trimmed, page.epoch - WINDOW), WINDOW)
    purges.extend(control.rows_since(purges.epoch))
    epochs = Epochs(page, control, purges)
    writer = StoreWriter(parts.environments, page, parts.spawn, parts.reactor)
    from_disk = FewThreads.named(parts.reactor, "disk", DISK_THREADS)
    disk = Disk(parts.environments, from_disk, timers.seconds)
    reader = StoreReader(parts.environments, page, writer.damaged, disk)
    trust = None if config.siblings is None else SiblingTrust.of(config.siblings)
    client = Client(LoopDialer(parts.loop), timers, config.upstream, siblings=trust)
    book = _follow_addresses(parts)
    applied = Applied(LogName(config.node.id, parts.environments.incarnation), control.applied, lambda: page.epoch)
    standing = Standing(page.health, parts.channel.notify, timers, config.upstream)
    parts.channel.on("ejected", standing.told_ejected)
    in_thread = FewThreads.named(parts.reactor, "pages")
    derivations = Derivations(reader, writer, page, in_thread)
    hot = Hot.of(config.store.hot_octets)
    sender = Sender(reader, page, derivations, hot)
    stored_serials = StoredSerials(parts.environments, reader.unreadable)
    serials = Serials(stored_serials, control.demanded)
    owners = Owners(
        parts.index,
        [unix_address(path) for path in parts.owner_paths],
        client,
        page,
        # The owner's own budget, and a little for the hop.
        config.upstream.first_byte_seconds + 1.0,
    )

    shares = frozenset(site.id for site in sites.all if site.settings.share_invalidation and trust is not None)

    def fenced() -> bool:
        return page.fresh_until <= boot_clock()

    def siblings(outlet: Outlet) -> SiblingsAsked:
        return SiblingsAsked.of(
            config.node.id,
            homes_of(config),
            {origin.sibling: origin for origin in content_origins(config)},
            book,
            outlet,
            applied.value,
            fenced,
        )

    hashing = Hashing()
    partial = Parts(reader, writer, epochs, sender, page, timers, time.time, fenced, hashing)
    keep = Keep(epochs, timers, partial.spilled, kept_octets(config.store.size, parts.count))
    fills = Fills(
        reader,
        writer,
        Attempts.of(
            client,
            book,
            standing,
            config.upstream,
            timers,
            page,
            siblings if config.siblings is not None else None,
            hashing,
        ),
        epochs,
        keep,
        partial,
        sender,
        page,
        time.time,
        NodeProcess(parts.channel, page, shares),
        node_id,
        fenced,
        timers,
        config.upstream.first_byte_seconds,
        owners,
        serials,
        Paging(serials, page, stored_serials, in_thread, config.index.page_octets),
        derivations,
    )
    catalogues = Catalogues(in_thread)
    pages = Pages(sites, fills, timers, catalogues.has)
    links = LinksFollowed(book, parts.channel.call, parts.channel.notify, timers, config.upstream.proxy is not None)
    fills.unstored = unstored = Unstored(lambda rows: parts.channel.notify("unstored", rows=rows), timers, time.time)
    fills.starts = Turns(parts.loop.call_soon, STARTS)
    fills.artifacts = Artifacts(pages, links, catalogues, epochs, timers, time.time)
    purging = PublicPurging(
        parts.channel.call,
        b"1.1 " + node_token(config.node.id),
        lambda refuse: status_fields.refusal(None, node_id, refuse, time.time()),
        time.time,
    )
    gate = Gate(parts.channel.call, page, timers, Guesses(config.limits.wrong_credentials_per_minute))
    parts.channel.on("bypass-tokens", gate.tokens_are)
    node = Node(
        sites,
        reader,
        writer,
        page,
        epochs,
        sender,
        fills,
        owners,
        node_id,
        time.time,
        boot_clock,
        timers,
        applied,
        lambda sibling: parts.channel.notify("behind", sibling=sibling),
        gate,
        purging,
        lambda site: parts.channel.notify("list", site=site),
        Warming(reader, derivations, parts.environments, from_disk, timers.seconds),
    )
    pages.answer = node.answer
    access, downloads = access_log(parts), CountedDownloads.of(parts)

    def refusal(status: int, detail: str) -> tuple[bytes, bytes]:
        page.add(Counter.REFUSED)
        return status_fields.refusal(None, node_id, Refuse(status, detail, close=True), time.time())

    octets = Turns(parts.loop.call_soon, TURN)

    def listener(owned: bool) -> Listener:
        return Listener(
            answer=node.answer_worker if owned else node.answer,
            limits=config.limits,
            counters=UNCOUNTED if owned else page,
            timers=timers,
            soon=parts.loop.call_soon,
            secure=config.tls is not None and not owned,
            trusted=owned,
            on_done=access.done if access is not None and not owned else None,
            downloads=downloads.events if downloads is not None and not owned else None,
            wall=time.time,
            refusal=refusal,
            unshaken=Handshakes(UNCOUNTED if owned else page, timers).failed,
            give_back=give_back,
            octets=octets,
        )

    public, owned = listener(False), listener(True)
    public.passes = node.passes
    # Whatever can fail comes before anything accepts.
    tls = None if config.tls is None else tls_context(config.tls)
    context = None if config.siblings is None or not parts.content else server_context(config.siblings)
    servers = [await start_server(parts.loop, public, sock, tls) for sock in parts.sockets]
    if parts.owner_socket is not None:
        servers.append(await start_server(parts.loop, owned, parts.owner_socket))
    listeners = [public, owned]
    if context is not None:
        problems = Problems(timers, "siblings (content)")
        content = Listener(
            answer=node.answer_sibling,
            limits=config.limits,
            counters=UNCOUNTED,
            timers=timers,
            soon=parts.loop.call_soon,
            secure=True,
            trusted=True,
            wall=time.time,
            refusal=lambda status, detail: status_fields.refusal(
                None, node_id, marked(Refuse(status, detail, close=True)), time.time()
            ),
            make=Guests(acquainted(config), problems).connection,
            unshaken=lambda peer, problem: problems.tell(peer.decode("latin-1"), why(problem)) if problem else None,
            octets=octets,
        )
        servers += [await start_server(parts.loop, content, sock, context) for sock in parts.content]
        listeners.append(content)
    for each in listeners:
        each.start()
    sampling = Sampling(
        public, page, timers, lambda rows: parts.channel.notify("popular", index=parts.index, rows=rows)
    )
    sampling.start()
    # Everything made so far lives as long as the worker: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    in_thread.start()
    from_disk.start()
    return Worker(
        writer,
        client,
        standing,
        keep,
        in_thread,
        from_disk,
        pages,
        listeners,
        access,
        downloads,
        sampling,
        unstored,
        hot,
        servers,
    )


def _follow_addresses(parts: WorkerParts) -> AddressBook:
    origins: list[Origin] = [origin for site in parts.config.sites for origin in origins_of(site)]
    origins += content_origins(parts.config)
    book = AddressBook()
    parts.channel.on("addresses", lambda **document: book.update(document, origins))
    return book
