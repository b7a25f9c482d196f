"""What an upload changes (DESIGN 10): when the origin has taken one, its project is purged everywhere."""

# Note [an upload is no purge of a client]
#
# Whoever may upload has changed the project at the origin already, and the origin has checked them. So no token of
# ours is asked for, no pace is kept, and nobody is refused anything: what siblings cannot be told now holds on this
# node, as without siblings, and is told in the log.

from __future__ import annotations

import base64
from typing import Any

from attrs import define
from twisted.logger import Logger

from edgecache.admin.parts import AdminParts
from edgecache.rules.indexpaths import project_tag
from edgecache.rules.purging import PurgeAsked
from edgecache.rules.selectors import Selector, rows_of
from edgecache.rules.sites import site_id
from edgecache.siblings.purger import NotAdmitted, PurgeAnswer, PurgeInvalid
from edgecache.words.config import SIMPLE
from edgecache.words.purging import PurgeState
from edgecache.words.reasons import PurgeMode

_log = Logger()

BY = "(upload)"
"""In the place of the name of a token; no token can have it."""

WAIT_SECONDS = 5.0
"""So long a publisher waits for a majority of the nodes; then it spreads on without them."""


@define(eq=False, repr=False)
class Uploads:
    """Serves the workers' ``uploaded`` calls. See Note [an upload is no purge of a client]."""

    _parts: AdminParts

    async def uploaded(self, site: str, content_type: str, begin: str, peer: str) -> dict[str, Any]:
        """
        An origin has taken an upload.

        :param site: its name.
        :param begin: of the form, in base64.
        :return: once a majority of the members has the purge, or :data:`WAIT_SECONDS` are over.
        :raises ControlFailed: it could not be written.
        """
        # Werkzeug is a twentieth of a start, and most nodes take no uploads.
        from edgecache.admin.forms import project_of_form

        project = project_of_form(content_type, base64.b64decode(begin))
        number = site_id(site)
        if project is None:
            _log.warn("an upload to {site} whose project cannot be read: all pages of it are purged", site=site)
            selectors = tuple(Selector("prefix", number, path) for path in (SIMPLE.encode(), b"/pypi/"))
        else:
            tag = Selector("tag", number, project_tag(project))
            selectors = (tag, Selector("url", number, SIMPLE.encode()))
        try:
            answer = await self._parts.purger.take(
                PurgeAsked(selectors, PurgeMode.REVALIDATE, {}, ""),
                BY,
                lambda answer, new: self._audit(answer, new, peer),
            )
        except (NotAdmitted, PurgeInvalid) as error:
            _log.warn("an upload to {site} is purged on this node alone: {error}", site=site, error=error)
            await self._parts.control.local(rows_of((one.canonical for one in selectors), PurgeMode.REVALIDATE))
            return {"state": PurgeState.LOCAL.value}
        answer = await self._parts.purger.reached(answer, PurgeState.DURABLE, WAIT_SECONDS)
        if answer.state is PurgeState.LOCAL:
            _log.warn("the purge {id} of an upload to {site} is not durable yet", id=answer.entry.purge_id, site=site)
        return {"state": answer.state.value}

    def _audit(self, answer: PurgeAnswer, new: bool, peer: str) -> None:
        self._parts.audit.purged(answer, new, peer=peer, front="upload")
