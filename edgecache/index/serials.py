"""What the list of all projects says of each project's serial (mirrors compare their pages with it, FIELD 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from edgecache.rules.indexpaths import normalised_name

_SERIAL = "_last-serial"


def list_serials(document: bytes) -> dict[bytes, int]:
    """
    :param document: canonical, of the list.
    :return: serials by normalised name; empty where the index tells none.
    """
    if document.count(b'"' + _SERIAL.encode() + b'"') < 2:
        # The list's own, at most: no need to look at half a million projects.
        return {}
    found: dict[bytes, int] = {}
    for entry in orjson.loads(document)["projects"]:
        serial = entry.get(_SERIAL)
        if type(serial) is int:
            found[normalised_name(entry["name"].encode())] = serial
    return found


def newer_projects(document: bytes, known: Callable[[], Mapping[bytes, int]]) -> dict[bytes, int]:
    """
    :param known: serials of the projects of which there is a page; asked for only if the list tells any.
    :return: those of which the list tells a higher one.
    """
    listed = list_serials(document)
    if not listed:
        return {}
    return {name: listed[name] for name, serial in known().items() if listed.get(name, 0) > serial}
