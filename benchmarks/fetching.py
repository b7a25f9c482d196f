"""One client that waits with patience, and says what it got and when."""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from attrs import frozen

from tests.system.contents import Artifact


@frozen
class Got:
    """
    What one client got. Times are seconds.

    :ivar status: 0 when there was no head.
    :ivar first: from the request to the first octet of content, or to the end of what there was.
    :ivar pause: the longest wait for octets, the first included.
    :ivar complete: it ended, and by its own framing nothing is missing.
    :ivar exact: it is complete, a 200, and one of the contents that were due.
    :ivar right: each octet that came is in its place in one of those.
    :ivar patience: how long it would have waited; it did, if neither complete nor cut.
    """

    status: int
    fields: dict[str, str]
    octets: int
    first: float
    pause: float
    seconds: float
    complete: bool
    exact: bool
    right: bool
    waited: bool

    @property
    def told(self) -> str:
        """In a cell of a table."""
        if self.exact:
            return f"{self.first:.2f} s"
        if self.status not in (0, 200):
            return f"{self.status} after {self.seconds:.1f} s"
        if not self.right:
            return f"WRONG CONTENT after {self.seconds:.1f} s"
        if self.waited:
            return f"> {self.seconds:.0f} s"
        if self.status == 0:
            return f"closed after {self.seconds:.1f} s"
        if self.complete:
            return f"SHORT, LOOKS COMPLETE, after {self.seconds:.1f} s"
        return f"cut after {self.seconds:.1f} s"


def fetch(url: str, host: str, target: str, due: Sequence[Artifact], *, seconds: float) -> Got:
    """GET over a new connection, for at most so long."""
    parts = urlsplit(url)
    began = time.monotonic()
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=seconds)
    status, fields, content = 0, dict[str, str](), b""
    first: float | None = None
    last, pause = began, 0.0
    complete = waited = False
    try:
        connection.request("GET", target, headers={"Host": host, "Accept-Encoding": "identity"})
        sock = connection.sock
        response = connection.getresponse()
        status = response.status
        fields = {name.lower(): value for name, value in response.getheaders()}
        while True:
            sock.settimeout(max(0.001, began + seconds - time.monotonic()))
            piece = response.read1(1 << 16)
            now = time.monotonic()
            pause, last = max(pause, now - last), now
            if not piece:
                break
            first = now if first is None else first
            content += piece
        # Without a length, its end is the end of it; chunks that are missing would have raised.
        complete = not response.length
    except TimeoutError:
        waited = True
    except (http.client.IncompleteRead, http.client.RemoteDisconnected, ConnectionError):
        complete = False
    finally:
        connection.close()
    ended = time.monotonic()
    contents = [each.whole() for each in due]
    return Got(
        status=status,
        fields=fields,
        octets=len(content),
        first=(ended if first is None else first) - began,
        pause=max(pause, ended - last),
        seconds=ended - began,
        complete=complete,
        exact=complete and status == 200 and content in contents,
        right=any(each.startswith(content) for each in contents),
        waited=waited,
    )
