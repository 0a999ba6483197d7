"""A connection table, as `tools.inspect` shows it: its rows, and its descriptor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from ring.fields import Field, Table
from stages.packets.flow import describe_key
from stages.packets.layout import parsed, rows, table, tcp

Show = Callable[[Any, Sequence[int]], str]
Holds = Callable[[Any, Sequence[int]], bool]
KEY: Final[Mapping[str, Show]] = {"key": lambda w, words: describe_key(words)}
"""`Table.shown` of a table with a key."""

_BUCKET: Final = tuple(field._replace(offset=0) for field in table.BUCKET_FIELDS)  # a table of its own
DESCRIPTOR: Final = tuple(field for field in table.FIELDS if field.name != "secret")  # it is one


def connections(
    at: Callable[[Any], int],
    fields: tuple[Field, ...],
    row_words: int,
    names: Mapping[str, tuple[str, ...]],
    columns: tuple[str, ...],
    parts: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    shown: Mapping[str, Show] = MappingProxyType({}),
    holds: Mapping[str, Holds] = MappingProxyType({}),
) -> tuple[Table, Table, Table]:
    """The tables of a connection table at word ``at``, 0: nobody knows yet where it lies."""
    names_of = ("connections", "connection_table", "buckets")
    columns = ("key", *columns)
    meaning = "who talks to whom, and what is known of it"
    return keyed(names_of, meaning, at, fields, row_words, names, columns, parts, {**KEY, **shown}, holds)


def keyed(
    called: tuple[str, str, str],
    meaning: str,
    at: Callable[[Any], int],
    fields: tuple[Field, ...],
    row_words: int,
    names: Mapping[str, tuple[str, ...]],
    columns: tuple[str, ...],
    parts: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    shown: Mapping[str, Show] = MappingProxyType({}),
    holds: Mapping[str, Holds] = MappingProxyType({}),
) -> tuple[Table, Table, Table]:
    """The same of any table of that form: ``called``: its rows, its descriptor, its buckets."""

    def capacity(w: Any) -> int:
        t = at(w)
        count = int(w[t + table.CAPACITY]) if t else 0
        if count and int(w[t + table.ROW_WORDS]) != row_words:
            raise ValueError(f"rows of {int(w[t + table.ROW_WORDS])} words, and {row_words} are known here")
        return count

    return (
        Table(
            called[0],
            meaning,
            (*rows.FIELDS, *fields),
            lambda w: int(w[at(w) + table.ROWS]),
            capacity,
            row_words,
            live="live",
            names=names,
            parts=parts,
            shown=shown,
            holds=holds,
            columns=columns,
        ),
        Table(
            called[1],
            f"how the {called[0]} lie: rows, and buckets of a hash before them",
            DESCRIPTOR,
            at,
            lambda w: int(at(w) > 0),
        ),
        Table(
            called[2],
            "where a key is looked for: buckets that have a row, in the order of hashes",
            _BUCKET,
            lambda w: at(w) + table.BUCKET,
            lambda w: int(w[at(w) + table.BUCKETS]) if at(w) else 0,
            live="bucket",
        ),
    )


def scratch(at: Callable[[Any], int], count: int = 1) -> Table:
    """Packets at hand, as the packet parser writes them."""
    return Table(
        "scratch",
        "the packet at hand, as the packet parser has read it; private to a burst",
        parsed.FIELDS,
        at,
        lambda w: count if at(w) else 0,
        parsed.SCRATCH,
        names={"flags": tcp.FLAG_NAMES},
        shown=KEY,
        columns=("key", "seq", "ack", "flags", "data_len"),
    )
