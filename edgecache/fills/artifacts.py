"""Where the files are that the pages of an index name, and what becomes of what is found there (DESIGN 10)."""

# Note [a page that is older than the link]
#
# Whoever asks for a file has a page that names it, maybe another node's, and newer than ours. So a page of ours that
# does not name it proves nothing unless it was validated after the request came.

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve
from twisted.logger import Logger

from edgecache.fills.catalogues import Catalogues
from edgecache.fills.pages import FoundPage, NoPage, ProjectPages, Unobtainable
from edgecache.fills.said import NOBODY, Said
from edgecache.fills.ways import LESSER, Lesser, Way
from edgecache.index.catalogue import NamedFile
from edgecache.index.errors import BadPage
from edgecache.rules import artifacts
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Forward, Pass, Store
from edgecache.rules.digests import SHA256, Digest
from edgecache.rules.freshness import UNSAID
from edgecache.rules.indexpaths import ArtifactAsked
from edgecache.rules.lookups import Told
from edgecache.store.epochs import Epochs
from edgecache.upstream.addresses import origins_of
from edgecache.upstream.linkhosts import LinksFollowed, link_origin
from edgecache.upstream.responses import Response
from edgecache.words.config import Policy
from edgecache.words.errors import FileNotThere, LinkRefused, PageUnobtainable, UpstreamFailed, WrongDigest
from edgecache.words.messages import Head, Outbound
from edgecache.words.ports import Timers
from edgecache.words.stored import Stored

_log = Logger()

_METADATA = b".metadata"


@define(eq=False, repr=False)
class Artifacts:
    """
    The files of the indexes of one worker.

    :ivar clock: wall time, seconds since the epoch.
    """

    pages: ProjectPages
    links: LinksFollowed
    catalogues: Catalogues
    epochs: Epochs
    timers: Timers
    clock: Callable[[], float]

    def seek(self, asked: Asked, forward: Forward) -> Sought | None:
        """:return: what finds the file that is asked for; ``None`` for everything else."""
        artifact = asked.artifact
        if artifact is None:
            return None
        return Sought(self, asked, artifact, forward, self.clock(), artifacts.digest_in_path(artifact))


class Wait:
    """A part could not be had on its own: whoever wants it has to wait until the whole has come so far."""


@define(eq=False, repr=False)
class Sought:
    """
    One file: a :class:`~edgecache.fills.attempts.Seeking`.

    :ivar came: wall time of the request.
    :ivar digest: what it must hash to: as its path says, later as its page says; ``None`` while neither does.
    :ivar size: octets, as its page says.
    :ivar found: where its page says that it is.
    :ivar floor: the epoch up to which that page is known good, where it is not current; ``None`` where it is.
    """

    _artifacts: Artifacts
    _asked: Asked
    _artifact: ArtifactAsked
    _forward: Forward
    came: float
    digest: Digest | None
    size: int | None = None
    found: Way | None = None
    floor: int | None = None
    _url: str = ""

    # Where it is

    async def way(self, until: float) -> Way | Response:
        """See :meth:`edgecache.fills.attempts.Seeking.way`."""
        if self.found is not None:
            # Some time ago: its name may lead elsewhere by now.
            await self._allow(self.found, until)
            return self.found
        page, file = await self._on_page(0, until)
        if file is None or page is None:
            return self._missing("the page of its project does not name it")
        if not page.current:
            # What it was purged for may concern the file.
            self.floor = page.stored.floor
        url, self.digest, self.size = self._meaning(file)
        if self._asked.head and self.digest is not None and self.size is not None:
            # Nobody need be asked: what has another length is never served.
            return Said(Head(200, b"OK"), b"", self._now, length=self.size)
        way = self._way_to(url)
        await self._allow(way, until)
        self.found = way
        return way

    async def vouched(self, stored: Stored, floor: int, until: float) -> Stored | None:
        """
        Its page decides whether a stored file is still good after a purge (DESIGN 9).

        :param floor: the epoch when it was asked for.
        :return: the same, known good up to the page's epoch; ``None``: the page does not name it any more.
        :raises UpstreamFailed: no page that is new enough.
        """

        def too_old(page: FoundPage | None) -> bool:
            # What is purged after that epoch is for those who ask later.
            since = floor if page is None else page.stored.floor
            return since < floor and self._artifacts.epochs.matching(stored.selectors, since) is not None

        page, file = await self._on_page(0, until)
        if too_old(page):
            page, file = await self._on_page(floor, until)
            if too_old(page):
                raise self._unobtainable("its page was not validated since the purge")
        if page is None or file is None:
            return None
        _, digest, _ = self._meaning(file)
        if digest is None or digest.value != stored.digest:
            return None
        now = self._artifacts.clock()
        return evolve(stored, floor=max(stored.floor, page.stored.floor), validated_at=now, fresh_until=now + UNSAID)

    async def _on_page(self, since: int, until: float) -> tuple[FoundPage | None, NamedFile | None]:
        """
        :return: the page, ``None`` where the origin says that there is none; the file as far as it is named.
        :raises PageUnobtainable: nobody knows.
        """
        page, file = await self._on_stored_page(since, until, 0.0)
        # See Note [a page that is older than the link]
        if file is None and (page is None or page.stored.validated_at < self.came):
            page, file = await self._on_stored_page(since, until, self.came)
        if file is None and page is not None and not page.current:
            raise self._unobtainable("its page does not name it, and is an old one")
        return page, file

    async def _on_stored_page(
        self, since: int, until: float, validated_since: float
    ) -> tuple[FoundPage | None, NamedFile | None]:
        around = self._artifacts
        outcome = await around.pages.document(self._asked, self._artifact.project, since, until, validated_since)
        match outcome:
            case NoPage():
                return None, None
            case Unobtainable():
                raise self._unobtainable("its page cannot be had", outcome.proxy_error)
            case FoundPage():
                try:
                    catalogue = await around.catalogues.of(outcome)
                except BadPage as bad:
                    raise self._unobtainable(f"its page cannot be read: {bad.why}") from bad
                file = catalogue.find(self._artifact)
                return outcome, file if file is not None and self._is_promised(file) else None

    def _is_promised(self, file: NamedFile) -> bool:
        """PEP 658: who asks for metadata that no page promises gets 404, without anybody being asked."""
        return self._artifact.companion != _METADATA or self._is_itself(file) or file.metadata_sha256 is not None

    def _is_itself(self, file: NamedFile) -> bool:
        """Does the page name what is asked for, not only what it belongs to?"""
        return not self._artifact.companion or file.filename != self._artifact.filename

    def _meaning(self, file: NamedFile) -> tuple[bytes, Digest | None, int | None]:
        """:return: URL, digest and size of what is asked for."""
        companion = self._artifact.companion
        if self._is_itself(file):
            return file.url, _digest(file.sha256), file.size
        # Beside the file, whatever signs its URL.
        path, mark, query = file.url.partition(b"?")
        digest = _digest(file.metadata_sha256 or b"") if companion == _METADATA else None
        return path + companion + mark + query, digest, None

    def _way_to(self, url: bytes) -> Way:
        site = self._asked.site
        linked = link_origin(url)
        if linked is None:
            raise self._refused(LinkRefused(url.decode("latin-1"), 0.0, "not a URL of http or https"))
        link, target = linked
        self._url = url.decode("ascii")
        origins = origins_of(site.settings)
        own = [one for one in origins if (one.scheme, one.host, one.port) == (link.scheme, link.host, link.port)]
        for one in own:
            if target.startswith(one.prefix + b"/"):
                below = target[len(one.prefix) :]
                return Way(origins, site.settings.policy, site.id, below, self.judge)
        if own:
            return Way((evolve(own[0], prefix=b""),), site.settings.policy, site.id, target, self.judge)
        return Way((link,), Policy.ROUND_ROBIN, link.name, target, self.judge, foreign=True)

    async def _allow(self, way: Way, until: float) -> None:
        """:raises LinkRefused: it must not be asked."""
        if way.foreign:
            links, settings = self._artifacts.links, self._asked.site.settings
            (link,) = way.origins
            await links.known(link, until)
            refused = links.refused(settings, origins_of(settings), link)
            if refused is not None:
                raise self._refused(refused)

    # What comes from there

    def judge(self, response: Response) -> UpstreamFailed | Lesser | None:
        """See :class:`~edgecache.fills.quest.Quest`."""
        status, length = response.head.status, response.length
        if status == 200 and self.size is not None and length is not None and length != self.size:
            detail = f"{self.size} octets were expected, as its page says, {length} are announced"
            _log.error("{target}: wrong file from {source}: {detail}", **self._logged(response, detail))
            return WrongDigest(response.address.name, self._now - response.requested_at, detail)
        # The page names it: a mirror may have caught up less far than another.
        return LESSER if status in (403, 404, 410) else None

    def taken(self, outbound: Outbound, response: Response) -> Response:
        """See :meth:`edgecache.fills.attempts.Seeking.taken`."""
        head = response.head
        asked = frozenset(name for name, _ in outbound.fields)
        if head.status == 200 or (head.status in (206, 416) and b"range" in asked):
            return response
        if head.status == 304 and not asked.isdisjoint((b"if-none-match", b"if-modified-since")):
            return response
        response.cancel()
        promised = self._artifact.companion == _METADATA
        if head.status in (404, 410) and not promised:
            return self._missing(f"its host answered {head.status}")
        told = None if head.status in (404, 410) else artifacts.elsewhere(self._asked, head, self._url)
        if told is None:
            # pip takes the 404 of metadata that its page has promised for the end of everything (FIELD 3).
            detail = f"{self._url}: answered {head.status}"
            raise FileNotThere(response.address.name, self._now - response.requested_at, detail)
        return Said(told, b"", self._now)

    def decide(self, response: Response, told: Told | None, floor: int) -> Store | Pass | Wait | None:
        """
        What becomes of the response.

        :param floor: the epoch taken before anybody was asked.
        :return: ``None``: what becomes of any file of an index.
        """
        asked, forward, head, now = self._asked, self._forward, response.head, self._artifacts.clock()
        if response.address is NOBODY:
            if head.status == 404 and not asked.head and not forward.alone:
                return None
            if head.status != 200:
                return artifacts.passed(asked, head, response.length, now)
        elif forward.ahead is not None:
            return artifacts.part(asked, head, forward.ahead, self.digest, now) or Wait()
        digest = self.digest
        if digest is None and told is not None and response.digest is not None:
            # Of metadata the path has no digest, but a sibling that says so has the page's.
            digest = response.digest if head.get(b"etag") == artifacts.etag_of(response.digest) else None
        if head.status != 200 or digest is None:
            return None
        size = self.size if response.length is None else response.length
        if asked.head or forward.alone:
            return Pass(artifacts.named_head(asked, head, digest, size, now))
        floor = floor if self.floor is None else min(floor, self.floor)
        return artifacts.plan(asked, head, digest, size, floor=floor, responded_at=now, told=told)

    # Failures

    @property
    def _now(self) -> float:
        return self._artifacts.timers.seconds()

    def _missing(self, detail: str) -> Said:
        return Said(artifacts.missing(self._asked, detail), f"{detail}\n".encode(), self._now)

    def _unobtainable(self, detail: str, proxy_error: str = "") -> PageUnobtainable:
        project = self._artifact.project.decode("ascii")
        return PageUnobtainable(project, 0.0, f"{detail} ({proxy_error})" if proxy_error else detail)

    def _refused(self, refused: LinkRefused) -> LinkRefused:
        _log.warn(
            "{target}: its page links to {link}, which is not asked: {detail}",
            target=self._asked.target.decode("ascii"),
            link=refused.upstream,
            detail=refused.detail,
        )
        return refused

    def _logged(self, response: Response, detail: str) -> dict[str, str]:
        target = self._asked.target.decode("ascii")
        return {"target": target, "source": response.address.name, "detail": detail}


def _digest(sha256: bytes) -> Digest | None:
    return Digest(SHA256, sha256) if sha256 else None
