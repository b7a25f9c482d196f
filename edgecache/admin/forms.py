"""The form that publishers upload with, as far as a node needs to know it."""

from __future__ import annotations

import re

from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from edgecache.rules.indexpaths import normalised_name

_MOST_OCTETS = 512
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


def project_of_form(content_type: str, begin: bytes) -> bytes | None:
    """
    :param content_type: of the form (RFC 7578).
    :param begin: its first octets.
    :return: the normalised name in its field ``name``; ``None`` when that is not there, or none.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get("boundary", "")
    if not boundary:
        return None
    decoder = MultipartDecoder(boundary.encode("latin-1", "replace"), max_form_memory_size=None)
    decoder.receive_data(begin)
    within, found = False, b""
    try:
        while True:
            event = decoder.next_event()
            match event:
                case Field(name="name"):
                    within = True
                case Data() if within:
                    found += event.data
                    if len(found) > _MOST_OCTETS:
                        return None
                    if not event.more_data:
                        break
                case NeedData() | Epilogue():
                    return None
                case File() | _:
                    pass
    except (ValueError, HTTPException):
        # It is the origin's to say what is wrong with a form that it took.
        return None
    text = found.decode("utf-8", "replace").strip()
    return normalised_name(text.encode()) if _NAME.fullmatch(text) else None
