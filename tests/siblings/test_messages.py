"""Messages between siblings as documents."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.siblings.messages import BadMessage, from_document, to_document
from edgecache.words.purging import Entry, LogName
from edgecache.words.spreading import Message, Pull, Pulled, Push, Refused, Sender, Stands

names = st.text(st.characters(codec="utf-8"), max_size=30)
octets = st.binary(min_size=16, max_size=16)
logs = st.builds(LogName, names, octets)
sequences = st.integers(0, 1 << 40)
positions = st.dictionaries(logs, sequences, max_size=4)
senders = st.builds(Sender, logs, st.tuples(octets), st.frozensets(names, max_size=4), st.booleans())
entries = st.builds(Entry, logs, sequences, st.just(0), st.just(0), names, octets, st.binary(max_size=60))
pages = st.lists(entries, max_size=3).map(tuple)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Pull, senders, names, positions),
    st.builds(Pulled, senders, names, positions, pages, positions, st.booleans()),
    st.builds(Push, senders, pages),
    st.builds(Stands, senders, positions),
    st.builds(Refused, senders, names),
)


def over_the_wire(message: Message) -> Any:
    return orjson.loads(orjson.dumps(to_document(message)))


class DocumentTests(SynchronousTestCase):
    @given(messages)
    def test_a_message_is_read_as_it_was_written(self, message: Message) -> None:
        self.assertEqual(message, from_document(over_the_wire(message)))

    @given(messages)
    def test_what_the_next_release_adds_is_ignored(self, message: Message) -> None:
        document = over_the_wire(message)
        document["colour"] = document["sender"]["colour"] = "blue"
        self.assertEqual(message, from_document(document))

    @given(messages, st.data())
    def test_a_message_without_one_of_its_parts_is_refused(self, message: Message, data: st.DataObject) -> None:
        document = over_the_wire(message)
        part = data.draw(st.sampled_from([document, document["sender"]]))
        # What an earlier release does not say.
        del part[data.draw(st.sampled_from(sorted(part.keys() - {"life"})))]
        self.assertRaises(BadMessage, from_document, document)

    def test_a_release_that_does_not_say_its_life_is_understood(self) -> None:
        document = over_the_wire(Stands(Sender(LogName("a", bytes(16)), (), frozenset(), life="x"), {}))
        self.assertEqual("x", document["sender"].pop("life"))
        self.assertEqual("", from_document(document).sender.life)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["kind", "sender", "log"]), inner),
        )
    )
    def test_anything_else_is_refused(self, document: Any) -> None:
        self.assertRaises(BadMessage, from_document, document)

    def test_numbers_that_are_none_are_refused(self) -> None:
        message = Stands(Sender(LogName("a", bytes(16)), (), frozenset()), {LogName("a", bytes(16)): 1})
        for wrong in (-1, 1.0, True, "1", 1 << 63, None):
            document = to_document(message)
            document["positions"][0][2] = wrong
            self.assertRaises(BadMessage, from_document, document)
