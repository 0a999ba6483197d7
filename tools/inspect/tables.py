"""The tables of a segment: those that every stage has, those that its kind declares, those of a ring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np

from ring import layout
from ring.fields import Field, Table
from ring.layout import true_row
from ring.ledger import percentile
from stages import catalog
from stages.kind import Kind
from tools.inspect.memory import Found, Memory, NotShownError, opened
from tools.inspect.values import duration


class Row(NamedTuple):
    """One row, copied.  ``which``: what it is called beside its number."""

    number: int
    which: str
    words: list[int]
    stable: bool

    def of(self, field: Field) -> list[int]:
        """A field's words."""
        return self.words[field.offset : field.offset + field.size]


class View:
    """A table of one segment."""

    def __init__(self, memory: Memory, table: Table) -> None:
        self.memory, self.table, self.name = memory, table, table.name
        self.fields = {field.name: field for field in table.fields}
        self._words = max(field.offset + field.size for field in table.fields)
        self.step = table.row_words or self._words

    def _asked(self, function: Callable[[Any], Any]) -> Any:
        try:
            return function(self.memory.w)
        except (ValueError, IndexError) as error:
            raise NotShownError(
                f"{self.memory.place.name}: {self.name} cannot be read ({error}): another version made it"
            ) from None

    @property
    def start(self) -> int:
        """Word of row 0."""
        return int(self._asked(self.table.start))

    @property
    def count(self) -> int:
        """Rows; 0: it is not laid out yet."""
        return min(max(0, int(self._asked(self.table.rows))), len(self.memory.w) // self.step)

    @property
    def small(self) -> bool:
        """Whether it has one row at most, and so is shown in full."""
        return not self.table.live and self.count <= 1

    def live(self) -> list[int]:
        """Numbers of the rows in use, in the order in which they are to be seen."""
        live, count = self.table.live, self.count
        if not live or not count:
            return list(range(count))
        if callable(live):
            return [int(n) for n in self._asked(lambda w: list(islice(live(w), len(w)))) if 0 <= n < count]
        first = self.start + self.fields[live].offset
        end = first + count * self.step
        column = self.memory.w[first : end : self.step]
        # A row that an open burst gives back is in use until that burst commits.
        changed = self.memory.changed() - first
        back = changed[(changed >= 0) & (changed < end - first) & (changed % self.step == 0)] // self.step
        return [int(n) for n in np.union1d(np.flatnonzero(column), back)]

    def row(self, number: int) -> Row:
        """A copy of one row."""
        words, stable = self.memory.copy(lambda: self.start + number * self.step, self._words)
        which = self.table.which
        called = str(self._asked(lambda w: which(w, number))) if which else ""
        return Row(number, called, words.tolist(), stable)

    def holds(self, row: Row, field: Field) -> bool:
        """Whether a field's words have its meaning in this row, and not that of another field."""
        holds = self.table.holds.get(field.name)
        return holds is None or bool(self._asked(lambda w: holds(w, row.words)))

    def in_use(self, row: Row) -> bool:
        """Whether a row that was copied is in use."""
        live = self.table.live
        if isinstance(live, str):
            return not live or row.words[self.fields[live].offset] != 0
        return row.number in self.live()


# --- what every stage has -----------------------------------------------------------------------------------------
def _between(fields: Iterable[Field], first: int, end: int) -> tuple[Field, ...]:
    return tuple(field for field in fields if first <= field.offset < end)


def _absolute(name: str, meaning: str, fields: tuple[Field, ...], **more: Any) -> Table:
    return Table(name, meaning, fields, lambda w: 0, **more)


def _magic(w: Any, words: Sequence[int]) -> str:
    return words[0].to_bytes(8, "big", signed=True).decode("ascii", "replace")


def _latency(w: Any, words: Sequence[int]) -> str:
    counts = np.array(words)
    if not counts.sum():
        return "-"
    half, most = (duration(percentile(counts, q)) for q in (0.5, 0.99))
    return f"p50 {half}, p99 {most} ({int(counts.sum()):,} samples)"


def _position(position: int, size: int) -> str:
    return f"{position:,}" + (f" (at {position & size - 1:,})" if size else "")


def common(kind: Kind, sizes: Mapping[str, int]) -> tuple[Table, ...]:
    """Tables that every stage has; ``sizes`` of the rings at its ports."""
    fields = layout.STAGE_FIELDS
    ends = [(port, layout.ROW_HEADS + i, "up to which it was read") for i, port in enumerate(kind.inputs)]
    ends += [(port, layout.ROW_TAILS + i, "up to which it was written") for i, port in enumerate(kind.outputs)]
    cursors = tuple(Field(port, at, 1, "kernels", f"byte position {what}") for port, at, what in ends)
    counters = tuple(
        Field(counter.name, i, 1, "kernels", counter.sentence)
        for i, counter in enumerate(kind.all_counters)
        if counter is not None
    )
    waits = tuple(
        Field(port, i * layout.BUCKETS, layout.BUCKETS, "kernels", "time that samples spent in its ring")
        for i, port in enumerate(kind.inputs)
    )

    def shows(port: str) -> Callable[[Any, Sequence[int]], str]:
        return lambda w, words: _position(words[0], sizes.get(port, 0))

    return (
        _absolute(
            "header",
            "what the segment is, and whose",
            _between(fields, 0, layout.CMD_STATUS),
            shown={"magic": _magic},
        ),
        _absolute("commands", "what the supervisor wants", _between(fields, layout.CMD_STATUS, layout.LIFE_HEARTBEAT)),
        _absolute("life", "how the stage's process is", _between(fields, layout.LIFE_HEARTBEAT, layout.UNDO_N)),
        _absolute(
            "bursts",
            "the commit point, and the undo log of an open burst",
            (*_between(fields, layout.COMMITTED, layout.ROW_A), *_between(fields, layout.UNDO_N, layout.INPUTS)),
            names={"blocked": kind.outputs},
        ),
        Table(
            "undo_log",
            "what an open burst has changed in tables",
            layout.UNDO_FIELDS,
            lambda w: layout.UNDO,
            lambda w: int(w[layout.UNDO_N]) if w[layout.UNDO_BURST] == w[layout.COMMITTED] + 1 else 0,
            live=lambda w: range(int(w[layout.UNDO_N])),
        ),
        _absolute(
            "parameters",
            "where the stage sees its rings",
            _between(fields, layout.INPUTS, layout.OPTIONS),
            parts={"inputs": kind.inputs, "outputs": kind.outputs},
        ),
        Table(
            "cursors",
            "how far the last commit came",
            cursors,
            true_row,
            shown={port: shows(port) for port, _, _ in ends},
        ),
        Table("counters", "as of the last commit", counters, lambda w: true_row(w) + layout.ROW_COUNTERS),
        Table(
            "latency",
            "how long frames wait in the rings that it reads",
            waits,
            lambda w: layout.HISTOGRAMS,
            shown=dict.fromkeys(kind.inputs, _latency),
        ),
    )


# --- segments -----------------------------------------------------------------------------------------------------
class Looked:
    """A segment and its tables, by name."""

    def __init__(self, memory: Memory, kind: str, tables: Iterable[Table]) -> None:
        self.memory, self.kind = memory, kind
        self.views = {table.name: View(memory, table) for table in tables}

    def view(self, name: str) -> View:
        """The table of that name."""
        if name not in self.views:
            known = ", ".join(self.views)
            raise NotShownError(f"{self.memory.place.id} has no table {name!r}; known: {known}", status=2)
        return self.views[name]

    def word_of(self, number: int) -> int:
        """Word at which the row of a connection begins, 0: there is no such table."""
        view = self.views.get("connections")
        return view.start + number * view.step if view else 0

    def row_at(self, word: int) -> int | None:
        """Number of the connection whose row begins at a word; None: none does."""
        view = self.views.get("connections")
        if view is None:
            return None
        number, rest = divmod(word - view.start, view.step)
        return number if rest == 0 and 0 <= number < view.count else None


def look(place: Found, neighbours: list[Found]) -> Looked:
    """A segment with all its tables; ``neighbours``: all segments of its pipeline."""
    memory = Memory(place)
    if place.ring:
        return Looked(memory, "ring", RING_TABLES)
    name = memory.text(layout.KIND_NAME)
    if name not in catalog.MODULES:
        raise NotShownError(f"{place.name} says that its kind is {name!r}, not known here: another version made it")
    kind = catalog.kind(name)
    return Looked(memory, name, (*common(kind, _sizes(place, kind, neighbours)), *kind.tables))


def _sizes(place: Found, kind: Kind, neighbours: list[Found]) -> dict[str, int]:
    """Bytes of the rings at a stage's ports.  A ring does not say which input it is: known where all are as large."""
    rings = list(opened([one for one in neighbours if one.ring]))
    read = {int(ring.w[layout.SIZE]) for ring in rings if ring.text(layout.C_NAME) == place.id}
    by_id = {ring.place.id: int(ring.w[layout.SIZE]) for ring in rings}
    known = dict.fromkeys(kind.inputs, read.pop()) if len(read) == 1 else {}
    return known | {port: by_id[f"{place.id}.{port}"] for port in kind.outputs if f"{place.id}.{port}" in by_id}


# --- a ring -------------------------------------------------------------------------------------------------------
def _in_ring(w: Any, words: Sequence[int]) -> str:
    return _position(words[0], int(w[layout.SIZE]))


def _link(w: Any, words: Sequence[int]) -> str:
    return f"{'connected' if words[0] & 1 else 'not connected'} ({words[0]:,})"


_STATES: Final = ("", "open", "draining", "closed")
RING_TABLES: Final = (
    _absolute(
        "header",
        "what the segment is, and whose",
        _between(layout.RING_FIELDS, 0, layout.TAIL),
        names={"state": _STATES},
        shown={"magic": _magic},
    ),
    _absolute(
        "producer",
        "the end that writes frames",
        _between(layout.RING_FIELDS, layout.TAIL, layout.HEAD),
        shown={"tail": _in_ring, "sample_pos": _in_ring, "p_link": _link},
    ),
    _absolute(
        "consumer",
        "the end that reads frames",
        _between(layout.RING_FIELDS, layout.HEAD, layout.PAGE),
        shown={"head": _in_ring, "c_link": _link},
    ),
)


def fill(memory: Memory) -> int:
    """Bytes in a ring."""
    words = memory.copy(lambda: 0, layout.C_BELL_INO + 1).words
    return int(words[layout.TAIL]) - int(words[layout.HEAD])
