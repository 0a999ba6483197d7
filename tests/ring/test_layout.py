"""Where the words of both kinds of segment lie."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from ring import layout
from ring.fields import Field

TABLES = pytest.mark.parametrize(
    "fields", [layout.RING_FIELDS, layout.STAGE_FIELDS], ids=["ring segment", "stage segment"]
)


@TABLES
def test_no_two_fields_overlap(fields: tuple[Field, ...]) -> None:
    """Every word belongs to one field at most."""
    for one, next_one in pairwise(sorted(fields, key=lambda f: f.offset)):
        assert one.offset + one.size <= next_one.offset, f"{one.name} runs into {next_one.name}"


@TABLES
def test_no_two_writers_share_a_cache_line_once_the_segment_is_made(fields: tuple[Field, ...]) -> None:
    """Words that different processes write while frames flow never share 128 bytes (two lines, for the prefetcher)."""
    lines: dict[int, set[str]] = {}
    side = {"producer": "producer", "consumer": "consumer", "supervisor": "supervisor"}
    for field in fields:
        if field.name in ("p_name", "c_name", "state"):
            continue  # written once in an end's life
        for word in range(field.offset, field.offset + field.size):
            lines.setdefault(word // 16, set()).add(side.get(field.writer, "creator" if field.offset < 16 else "stage"))
    assert all(len(writers - {"creator"}) <= 1 for writers in lines.values()), lines


@TABLES
def test_every_field_has_a_writer_and_a_meaning(fields: tuple[Field, ...]) -> None:
    """A table row says who writes the word and what it means; names are unique."""
    assert len({f.name for f in fields}) == len(fields)
    for field in fields:
        assert field.writer in ("creator", "producer", "consumer", "supervisor", "worker", "kernels"), field
        assert field.size > 0
        assert field.meaning


@pytest.mark.parametrize("fields", [layout.RING_FIELDS, layout.STAGE_FIELDS, layout.ROW_FIELDS, layout.UNDO_FIELDS])
def test_every_constant_is_its_field(fields: tuple[Field, ...]) -> None:
    """A field's name in capitals is the constant that says where it lies."""
    for field in fields:
        assert getattr(layout, field.name.upper()) == field.offset, field


def test_the_two_ends_of_a_ring_have_lines_of_their_own() -> None:
    """Head and tail are 128 bytes apart, each at the start of a 128-byte line, its end's other words behind it."""
    assert (layout.HEAD - layout.TAIL) * 8 == 128
    assert layout.TAIL * 8 % 128 == layout.HEAD * 8 % 128 == 0
    for field in layout.RING_FIELDS:
        if field.name.startswith("p_") and field.name != "p_name":
            assert layout.TAIL < field.offset < layout.TAIL + 16
        if field.name.startswith("c_") and field.name != "c_name":
            assert layout.HEAD < field.offset < layout.HEAD + 16


def test_a_doorbell_stands_behind_its_asleep_word() -> None:
    """Descriptor and inode of a doorbell come right after `asleep`, a start time right after its pid."""
    for asleep, fd, inode in (
        (layout.P_ASLEEP, layout.P_BELL_FD, layout.P_BELL_INO),
        (layout.C_ASLEEP, layout.C_BELL_FD, layout.C_BELL_INO),
    ):
        assert (fd, inode) == (asleep + 1, asleep + 2)
    assert (layout.P_START, layout.C_START) == (layout.P_PID + 1, layout.C_PID + 1)


def test_sizes_add_up() -> None:
    """The header fits its page, a row has room for its parts, the fixed part of a stage ends before the undo log."""
    assert max(f.offset + f.size for f in layout.RING_FIELDS) * 8 <= layout.PAGE
    assert layout.ROW_TAILS == layout.ROW_HEADS + layout.PORTS
    assert layout.ROW_SCALARS == layout.ROW_TAILS + layout.PORTS
    assert layout.ROW_COUNTERS == layout.ROW_SCALARS + layout.SCALARS
    assert layout.ROW_COUNTERS + layout.COUNTERS == layout.ROW_WORDS
    assert max(f.offset + f.size for f in layout.STAGE_FIELDS) <= layout.UNDO
    assert layout.ROWS == layout.ROW_A
    assert layout.ROW_B == layout.ROWS + layout.ROW_WORDS
    assert layout.HISTOGRAMS == layout.ROWS + 2 * layout.ROW_WORDS
    assert layout.ROW_WORDS % 16 == layout.ROWS % 16 == 0, "a row is whole lines of 128 bytes"
    assert layout.MAX_FRAME == 4096 + 65536
    assert layout.MAX_RECORD == layout.MAX_FRAME + 8
    assert layout.PAGE % 4096 == 0


def test_magic_numbers_spell_their_names() -> None:
    """A hex dump of a segment says whose it is."""
    assert layout.RING_MAGIC.to_bytes(8, "big") == b"COLORING"
    assert layout.STAGE_MAGIC.to_bytes(8, "big") == b"COLOSTAG"


def test_the_diagram_agrees_with_the_tables() -> None:
    """Each ``word N`` line of the docstring is the offset of the first of the fields that it names."""
    ring_part, stage_part = (layout.__doc__ or "").split("A *stage segment*")
    rows = {part: re.findall(r"^ +word +(\d+) ", part, re.MULTILINE) for part in (ring_part, stage_part)}
    starts = {f.offset: f.name for f in layout.RING_FIELDS}
    assert [starts[int(word)] for word in rows[ring_part]] == ["magic", "p_name", "c_name", "tail", "head"]
    starts = {f.offset: f.name for f in layout.STAGE_FIELDS} | {layout.UNDO: "undo"}
    named = [starts[int(word)] for word in rows[stage_part]]
    assert named == [
        *("magic", "cmd_status", "life_heartbeat", "undo_n", "inputs", "committed", "row_a", "row_b"),
        *("histograms", "control", "undo"),
    ]


def test_state_moves_and_prohibited_moves_are_disjoint_and_reasoned() -> None:
    """No move is both allowed and prohibited, and each has a reason."""
    assert not layout.RING_MOVES.keys() & layout.RING_PROHIBITED.keys()
    assert all({**layout.RING_MOVES, **layout.RING_PROHIBITED}.values())
