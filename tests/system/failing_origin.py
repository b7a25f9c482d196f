"""
``python -m tests.system.failing_origin PORT CHARACTER LOG``: a character in a process of its own.

It prints ``ready`` once it accepts. LOG gets a line per request: target and Range.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from attrs import define

from tests.characters import Asked, Character, Good, Player, Stalling
from tests.system.contents import Artifact

PAGE = Good(
    content=b"a page",
    etag=b'"page"',
    # Stale when it comes, and it says since when.
    fields=((b"Cache-Control", b"max-age=1000"), (b"Age", b"1000")),
)
BROKEN = Good(
    content=b"an error", status=b"503 Service Unavailable", etag=None, fields=((b"Cache-Control", b"max-age=600"),)
)


@define(eq=False)
class Site(Character):
    """Pages by ``page``, and ``/wheel`` by ``wheel``."""

    page: Character
    wheel: Character
    log: Path

    def answer(self, asked: Asked, player: Player) -> None:
        with self.log.open("a") as log:
            log.write(f"{asked.target.decode()} {asked.fields.get(b'range', b'').decode()}\n")
        (self.wheel if asked.target == b"/wheel" else self.page).answer(asked, player)


def character(name: str, log: Path) -> Site:
    """:return: the one of that name."""
    octets = Artifact("failing", 1_000_000).whole()
    fields = ((b"Cache-Control", b"max-age=600"),)
    wheel = Good(content=octets, fields=fields)
    match name:
        case "good":
            return Site(PAGE, wheel, log)
        case "broken":
            return Site(BROKEN, BROKEN, log)
        case "stalling":
            return Site(PAGE, Stalling(content=octets, fields=fields, after=100_000), log)
    raise SystemExit(f"no character of the name {name}")


async def main(port: int, name: str, log: Path) -> None:
    site = character(name, log)
    server = await asyncio.get_running_loop().create_server(site.player, "127.0.0.1", port)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
