"""What queries on the admin listener have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecache.admin.answers import Problem

if TYPE_CHECKING:
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


def arguments(request: AdminRequest, *known: str) -> dict[str, list[str]]:
    """
    :param known: names that the query may have.
    :return: the values of each that it has.
    :raises Problem: it has another one, or what is no UTF-8.
    """
    found: dict[str, list[str]] = {}
    given: dict[bytes, list[bytes]] = request.args or {}
    for name, values in given.items():
        shown = name.decode("utf-8", "backslashreplace")
        if shown not in known:
            raise Problem(400, "invalid-query", f"{shown!r} is none of {', '.join(known)}.")
        try:
            found[shown] = [value.decode() for value in values]
        except UnicodeDecodeError as error:
            raise Problem(400, "invalid-query", f"{shown}: it is not UTF-8.") from error
    return found


def number(asked: dict[str, list[str]], name: str, otherwise: int, most: int) -> int:
    """
    :return: what ``name`` says, at most ``most``.
    :raises Problem: that is no number.
    """
    text = asked.get(name, [str(otherwise)])[-1]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Problem(400, "invalid-query", f"{name}: {text!r} is no number.")
    return min(int(text), most)
