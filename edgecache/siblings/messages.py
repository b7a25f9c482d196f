"""
Messages between siblings as plain documents, for JSON, and back (DESIGN 9).

Keys that a reader does not know are ignored, so that the next release may add some.
"""

from __future__ import annotations

import base64
from typing import Any

from attrs import define

from edgecache.words.errors import EdgeError
from edgecache.words.purging import Entry, LogName, Positions
from edgecache.words.spreading import Message, Pull, Pulled, Push, Refused, Sender, Stands

Document = dict[str, Any]

_MOST_SEQUENCE = 1 << 63
_INCARNATION_OCTETS = 16
_MOST_CHARACTERS = 8000


@define(eq=False, repr=False)
class BadMessage(EdgeError):
    """:ivar problem: what is wrong with it."""

    problem: str


def to_document(message: Message) -> Document:
    """:return: what :func:`from_document` makes an equal message of, except for the sender's own epochs in entries."""
    document: Document = {"kind": _KINDS[type(message)], "sender": _sender(message.sender)}
    match message:
        case Pull():
            document |= {"round": message.round, "positions": _positions(message.positions)}
        case Pulled():
            document |= {
                "round": message.round,
                "positions": _positions(message.positions),
                "entries": [_entry(entry) for entry in message.entries],
                "too_old": _positions(message.too_old),
                "more": message.more,
            }
        case Push():
            document["entries"] = [_entry(entry) for entry in message.entries]
        case Stands():
            document["positions"] = _positions(message.positions)
        case Refused():
            document["problem"] = message.problem
    return document


def from_document(document: Any) -> Message:
    """
    :param document: what JSON gave, of any shape.
    :raises BadMessage: it is no message.
    """
    try:
        return _message(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadMessage(f"{type(error).__name__}: {error}") from error


_KINDS: dict[type, str] = {Pull: "pull", Pulled: "pulled", Push: "push", Stands: "stands", Refused: "refused"}


def _message(document: Any) -> Message:
    sender = _read_sender(document["sender"])
    match document["kind"]:
        case "pull":
            return Pull(sender, _text(document["round"]), _read_positions(document["positions"]))
        case "pulled":
            return Pulled(
                sender,
                _text(document["round"]),
                _read_positions(document["positions"]),
                tuple(_read_entry(each) for each in document["entries"]),
                _read_positions(document["too_old"]),
                _truth(document["more"]),
            )
        case "push":
            return Push(sender, tuple(_read_entry(each) for each in document["entries"]))
        case "stands":
            return Stands(sender, _read_positions(document["positions"]))
        case "refused":
            return Refused(sender, _text(document["problem"]))
        case kind:
            raise ValueError(f"no such kind of message: {kind!r:.100}")


def _sender(sender: Sender) -> Document:
    return {
        "version": sender.version,
        "log": _log(sender.log),
        "configurations": [each.hex() for each in sender.hashes],
        "members": sorted(sender.members),
        "joining": sender.joining,
        "life": sender.life,
    }


def _read_sender(document: Document) -> Sender:
    return Sender(
        _read_log(document["log"]),
        tuple(bytes.fromhex(each) for each in document["configurations"]),
        frozenset(_text(each) for each in document["members"]),
        _truth(document["joining"]),
        _number(document["version"]),
        _text(document.get("life", "")),
    )


def _log(log: LogName) -> list[str]:
    return [log.id, log.incarnation.hex()]


def _read_log(document: Any) -> LogName:
    name, incarnation = document
    octets = bytes.fromhex(incarnation)
    if len(octets) != _INCARNATION_OCTETS:
        raise ValueError(f"an incarnation has {_INCARNATION_OCTETS} octets")
    return LogName(_text(name), octets)


def _positions(positions: Positions) -> list[list[Any]]:
    return [[*_log(log), sequence] for log, sequence in positions.items()]


def _read_positions(document: Any) -> Positions:
    return {_read_log((name, incarnation)): _number(sequence) for name, incarnation, sequence in document}


def _entry(entry: Entry) -> Document:
    return {
        "log": _log(entry.log),
        "sequence": entry.sequence,
        "id": entry.purge_id,
        "digest": entry.digest.hex(),
        "content": base64.b64encode(entry.content).decode(),
    }


def _read_entry(document: Document) -> Entry:
    return Entry(
        log=_read_log(document["log"]),
        sequence=_number(document["sequence"]),
        # Epochs are each node's own.
        first_epoch=0,
        last_epoch=0,
        purge_id=_text(document["id"]),
        digest=bytes.fromhex(document["digest"]),
        content=base64.b64decode(document["content"], validate=True),
    )


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MOST_SEQUENCE:
        raise ValueError(f"no number: {value!r:.100}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MOST_CHARACTERS:
        raise ValueError(f"no short text: {value!r:.100}")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"neither true nor false: {value!r:.100}")
    return value
