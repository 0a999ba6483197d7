"""What was looked at, as lines of text and as data."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pipeline.columns import columns
from ring import layout
from ring.fields import Field, Table
from ring.sizes import show_size
from tools.inspect.memory import Found, Memory, NotShownError, Owner, opened
from tools.inspect.tables import Looked, Row, View, fill, look
from tools.inspect.values import NONE, Shower, age

_UNKNOWN: Final = "owner unknown, as none of its memory can be read"
CHANGED: Final = "while it changed"
_SIGNED: Final = re.compile(r"[+-]?[0-9]+|-|")
_LEAST: Final = 20  # columns of a sentence beside a value, or it stands below


def shower(looked: Looked) -> Shower:
    """For the tables of a segment, as of now."""
    return Shower(looked.memory.w, time.monotonic_ns(), looked.row_at, looked.word_of)


# --- all pipelines ------------------------------------------------------------------------------------------------
def _owner(places: list[Found]) -> Owner | None:
    memory = next(opened(places), None)
    return memory.owner if memory else None


def all_data(known: dict[str, list[Found]]) -> dict[str, Any]:
    """Pipelines as data."""
    return {"pipelines": [_pipeline_data(name, places) for name, places in known.items()]}


def _pipeline_data(name: str, places: list[Found]) -> dict[str, Any]:
    owner = _owner(places)
    rings = sum(place.ring for place in places)
    return {
        "pipeline": name,
        "owner": owner._asdict() if owner else None,
        "stages": len(places) - rings,
        "rings": rings,
    }


def all_lines(known: dict[str, list[Found]]) -> list[str]:
    """Pipelines as text."""
    if not known:
        return ["no pipeline has memory in /dev/shm"]
    rows = []
    for name, places in known.items():
        rings = sum(place.ring for place in places)
        rows.append([name, str(_owner(places) or _UNKNOWN), str(len(places) - rings), str(rings)])
    return columns(rows, heads=("PIPELINE", "OWNER", "STAGES", "RINGS"))


# --- one pipeline -------------------------------------------------------------------------------------------------
class Overview:
    """The segments of a pipeline, and why some of them cannot be shown."""

    def __init__(self, name: str, places: list[Found]) -> None:
        self.name, self.places = name, places
        self.stages: list[Looked] = []
        self.rings: list[Memory] = []
        self.troubles: list[str] = []
        for place in places:
            try:
                if place.ring:
                    self.rings.append(Memory(place))
                else:
                    self.stages.append(look(place, places))
            except NotShownError as error:
                self.troubles.append(str(error))

    def data(self) -> dict[str, Any]:
        """As data."""
        return {
            **_pipeline_data(self.name, self.places),
            "stages": [
                {
                    "stage": one.memory.place.id,
                    "kind": one.kind,
                    "heartbeat": int(one.memory.w[layout.LIFE_HEARTBEAT]),
                    "tables": [table_data(view) for view in one.views.values()],
                }
                for one in self.stages
            ],
            "rings": [ring_data(ring) for ring in self.rings],
            "troubles": self.troubles,
        }

    def lines(self) -> list[str]:
        """As text."""
        stages: list[list[str]] = []
        tables: list[list[str]] = []
        for one in self.stages:
            beat = int(one.memory.w[layout.LIFE_HEARTBEAT])
            stages.append([one.memory.place.id, one.kind, age(beat, time.monotonic_ns()) if beat else NONE])
            tables += [[one.memory.place.id, *_counts(v)] for v in one.views.values() if not v.small and v.count]
        rings = [
            [r["ring"], r["producer"] or NONE, r["consumer"] or NONE, show_size(r["size"]), f"{r['used']:,}"]
            for r in map(ring_data, self.rings)
        ]
        blocks = [
            [f"{self.name}: {_owner(self.places) or _UNKNOWN}", *self.troubles],
            columns(stages, heads=("STAGE", "KIND", "HEARTBEAT")) if stages else [],
            columns(tables, heads=("STAGE", "TABLE", "IN USE", "ROWS")) if tables else [],
            columns(rings, heads=("RING", "FROM", "TO", "SIZE", "USED")) if rings else [],
        ]
        return _joined(blocks)


def _joined(blocks: Sequence[list[str]]) -> list[str]:
    lines: list[str] = []
    for block in blocks:
        if block:
            lines += ["", *block] if lines else block
    return lines


def _counts(view: View) -> list[str]:
    return [view.name, f"{len(view.live()):,}", f"{view.count:,}"]


def table_data(view: View) -> dict[str, Any]:
    """What is said of a table as a whole."""
    return {
        "table": view.name,
        "meaning": view.table.meaning,
        "capacity": view.count,
        "live": len(view.live()),
    }


def ring_data(ring: Memory) -> dict[str, Any]:
    """What is said of a ring as a whole."""
    return {
        "ring": ring.place.id,
        "producer": ring.text(layout.P_NAME),
        "consumer": ring.text(layout.C_NAME),
        "size": int(ring.w[layout.SIZE]),
        "used": fill(ring),
    }


# --- one segment --------------------------------------------------------------------------------------------------
def segment_data(looked: Looked) -> dict[str, Any]:
    """Its tables; those of one row with what is in it."""
    shows = shower(looked)
    tables = []
    for view in looked.views.values():
        row = {"row": row_data(view, view.row(0), shows)} if view.small and view.count else {}
        tables.append(table_data(view) | row)
    return head_data(looked) | {"tables": tables}


def head_data(looked: Looked) -> dict[str, Any]:
    """Where a table stands."""
    place = looked.memory.place
    if place.ring:
        return {"pipeline": place.pipeline, **ring_data(looked.memory)}
    return {"pipeline": place.pipeline, "stage": place.id, "kind": looked.kind}


def segment_lines(looked: Looked, width: int) -> list[str]:
    """The small tables in full, and a list of the large ones."""
    place = looked.memory.place
    shows = shower(looked)
    blocks = [[f"{place.pipeline} {place.id}: {looked.kind}, {looked.memory.owner}"]]
    if place.ring:
        ring = ring_data(looked.memory)
        share = f"{100 * ring['used'] / ring['size']:.1f} %" if ring["size"] else NONE
        ends = f"{ring['producer'] or NONE} > {ring['consumer'] or NONE}"
        blocks.append([f"{ends}, {show_size(ring['size'])}, {ring['used']:,} bytes in it ({share})"])
    large = []
    for view in looked.views.values():
        if not view.small:
            large.append([*_counts(view), view.table.meaning])
        elif view.count:
            blocks.append([f"{view.name}: {view.table.meaning}", *row_lines(view, view.row(0), shows, width, indent=2)])
        else:
            blocks.append([f"{view.name}: not laid out yet"])
    if large:
        blocks.append(columns(large, heads=("TABLE", "IN USE", "ROWS", "MEANING")))
    return _joined(blocks)


# --- one row ------------------------------------------------------------------------------------------------------
def row_data(view: View, row: Row, shows: Shower) -> dict[str, Any]:
    """A row: its numbers, and how people see those that look otherwise (empty: this row has another field there)."""
    raw: dict[str, Any] = {}
    shown: dict[str, str] = {}
    for name, field in view.fields.items():
        words = row.of(field)
        raw[name] = words[0] if field.size == 1 else words
        text = shows.line(view.table, field, words) if view.holds(row, field) else ""
        if text.replace(",", "") != str(raw[name]):
            shown[name] = text
    called = {"which": row.which} if view.table.which else {}
    return {"row": row.number, **called, "stable": row.stable, "fields": raw, "shown": shown}


def row_lines(view: View, row: Row, shows: Shower, width: int, *, indent: int = 0) -> Iterator[str]:
    """A field a line: name, value, and what it means with its unit.  What is too wide goes on in the next line."""
    fields = [field for field in view.table.fields if view.holds(row, field)]
    cells = [(f.name, shows.line(view.table, f, row.of(f)), _meaning(view, f)) for f in fields]
    if not row.stable:
        yield f"{' ' * indent}({CHANGED})"
    first = max(len(name) for name, _, _ in cells)
    longest = max((len(line) for _, value, _ in cells for line in value.split("\n")), default=1)
    room = max(width - indent - first - 4, _LEAST)
    second = min(longest, max(room * 2 // 5, 18))
    third = max(room - second, _LEAST)
    for name, value, meaning in cells:
        # A value that is much wider than its column stands above its sentence, and is not broken into a tower.
        above = len(value) > 2 * second and len(value) + 2 > second
        values = _wrapped(value, room + 2 if above else second)
        sentence = _wrapped(meaning, third)
        if above:
            for i, line in enumerate(values):
                yield f"{'':{indent}}{name if i == 0 else '':{first}}  {line}".rstrip()
            values, name = [""] * len(sentence), ""  # noqa: PLW2901
        for i in range(max(len(values), len(sentence))):
            left = values[i] if i < len(values) else ""
            right = sentence[i] if i < len(sentence) else ""
            yield f"{'':{indent}}{name if i == 0 else '':{first}}  {left:{second}}  {right}".rstrip()


def _wrapped(text: str, width: int) -> list[str]:
    return [part for line in text.split("\n") for part in textwrap.wrap(line, width, break_on_hyphens=False) or [""]]


def _meaning(view: View, field: Field) -> str:
    unit = f" [{field.unit}]" if field.unit else ""
    another = "or: " if field.again and field.name not in view.table.holds else ""
    return f"{another}{field.meaning}{unit}"


# --- rows of a table ----------------------------------------------------------------------------------------------
def table_lines(view: View, rows: Sequence[Row], shows: Shower, *, total: int, width: int | None) -> list[str]:
    """Rows as a table, in as many columns as fit into ``width`` (None: all)."""
    fields = _in_order(view.table, everything=width is None)
    heads = ["ROW", *(["WHICH"] if view.table.which else [])]
    kept = [[str(r.number), *([r.which or NONE] if view.table.which else [])] for r in rows]
    left = 0
    used = sum(max(len(head), *(len(row[i]) for row in kept)) + 2 for i, head in enumerate(heads)) - 2 if kept else 0
    for field in fields:
        head = field.name.upper()
        cells = [shows.cell(view.table, field, row.of(field)) if view.holds(row, field) else "" for row in rows]
        wide = max([len(head), *map(len, cells)])
        if width is not None and used + 2 + wide > width:
            left += 1
            continue
        used += 2 + wide
        if all(_SIGNED.fullmatch(cell) for cell in cells):
            head, cells = head.rjust(wide), [cell.rjust(wide) for cell in cells]
        heads.append(head)
        for line, cell in zip(kept, cells, strict=True):
            line.append(cell)
    if any(not row.stable for row in rows):
        heads.append("")
        for line, row in zip(kept, rows, strict=True):
            line.append("" if row.stable else CHANGED)
    lines = columns(kept, heads=heads) if kept else []
    more = total - len(rows)
    notes = [f"… {more:,} more row{'s' * (more > 1)}: --limit {total}"] if more else []
    if left and kept:
        notes.append(f"… {left} more field{'s' * (left > 1)}: --all, or a row's number behind the table's name")
    return [*lines, *notes]


def _in_order(table: Table, *, everything: bool) -> list[Field]:
    """Those that people want to see first in front; other meanings of the same words only where all are wanted."""
    place = {name: i for i, name in enumerate(table.columns)}
    fields = [field for field in table.fields if everything or not field.again]
    return sorted(fields, key=lambda field: place.get(field.name, len(place)))
