"""What queries on the admin listener have in common."""

from __future__ import annotations

from edgecache.admin.answers import Problem
from edgecache.admin.requests import AdminRequest


def seconds_to_wait(request: AdminRequest, otherwise: float, longest: float) -> float:
    """
    :param otherwise: where ``timeout`` is not said.
    :return: seconds; more than ``longest`` are as many.
    :raises Problem: that is no number of seconds.
    """
    arguments: dict[bytes, list[bytes]] = request.args or {}
    text = arguments.get(b"timeout", [b"%g" % otherwise])[0].decode("utf-8", "backslashreplace")
    try:
        timeout = float(text)
    except ValueError:
        timeout = -1.0
    if not timeout >= 0.0:
        raise Problem(400, "invalid-query", f"timeout: {text!r} is no number of seconds.")
    return min(timeout, longest)
