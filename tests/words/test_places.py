"""Where a key stands in a TOML text."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.words.places import Path, line_of, lines_of

TEXT = '''\
# comment [not.a.table]
top = 1

[node]
id = "[x]" # id = 2
text = """
region = "not a key"
"""
data = [
  "workers = 1",   # ]
  'b',
]
"quoted key" = { inline = 1 }
a.b = 2
[[site]]
hosts = []
[[site]]
[site.deep]
key = 1
'''


class PlaceTests(SynchronousTestCase):
    def test_every_key_and_table_has_its_line(self) -> None:
        expected: dict[Path, int] = {
            ("top",): 2,
            ("node",): 4,
            ("node", "id"): 5,
            ("node", "text"): 6,
            ("node", "data"): 9,
            ("node", "quoted key"): 13,
            ("node", "a", "b"): 14,
            ("site", 0): 15,
            ("site", 0, "hosts"): 16,
            ("site", 1): 17,
            ("site", 1, "deep"): 18,
            ("site", 1, "deep", "key"): 19,
        }
        tomllib.loads(TEXT)
        self.assertEqual(expected, lines_of(TEXT))

    def test_what_has_no_line_is_shown_at_the_table_around_it(self) -> None:
        lines = lines_of(TEXT)
        self.assertEqual(13, line_of(lines, ("node", "quoted key", "inline")))
        self.assertEqual(17, line_of(lines, ("site", 1, "origins")))
        self.assertIsNone(line_of(lines, ("log", "access")))


ODD = ['[\n "]",\n]', '"""\n[x]\ny = 2\n"""', "{ z = 1 }", '"\\""  # c = 1', "'''q'''"]
VALUES = st.sampled_from(["1", '"a = 1"', "'# no'", "[1, 2]", *ODD])
KEYS = st.lists(st.sampled_from("abcdef"), unique=True, max_size=4)


class PropertyTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.booleans(), KEYS, st.lists(VALUES, min_size=4, max_size=4)), max_size=4))
    @settings(max_examples=60)
    def test_each_key_that_the_parser_finds_stands_on_the_line_that_is_said(
        self, tables: list[tuple[bool, list[str], list[str]]]
    ) -> None:
        parts = []
        for number, (array, keys, values) in enumerate(tables):
            parts.append("[[many]]" if array else f"[t{number}]")
            parts += [f"{key} = {value}" for key, value in zip(keys, values, strict=False)]
        text = "\n".join(parts)
        rows = text.split("\n")
        lines = lines_of(text)
        for path in self.leaves(tomllib.loads(text), ()):
            self.assertTrue(rows[lines[path] - 1].startswith(f"{path[-1]} ="), (path, text))

    def leaves(self, data: Any, path: Path) -> list[Path]:
        found: list[Path] = []
        for name, value in data.items():
            if isinstance(value, dict) and not path:
                found += self.leaves(value, (name,))
            elif isinstance(value, list) and name == "many":
                for at, one in enumerate(value):
                    found += self.leaves(one, ("many", at))
            else:
                found.append((*path, name))
        return found
