"""Words of shared memory: each has its place, its name and its sentence in one line of a layout, and nowhere else."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline import segments
from ring import fields, layout
from ring.fields import Field
from stages.capture.layout import recording
from stages.compare.layout import conns, events, kept, records, rules, slots
from stages.device.layout import counters as device_counters
from stages.kind import OWN_COUNTERS, Counter
from stages.packets.layout import table

ROOT = Path(__file__).resolve().parent.parent.parent
LAYOUTS = sorted(path for path in ROOT.glob("stages/**/layout/*.py") if path.name != "__init__.py")
KERNELS = sorted(
    path
    for package in ("ring", "stages")
    for path in ROOT.glob(f"{package}/**/*.py")
    if path.parent.name == "kernels" or path.name == "kernels.py"
)
UNITS = ("", "ns", "seq", "delta", "bool", "bytes", "text", "slot+1", "row", "flags")

# Numbers that kernels have of their own.  None of them says where a word of shared memory lies, or what is in it.
ALLOWED = {
    "stages.capture.kernels.pcap_blocks": {"_BILLION": "ns of a second"},
    "stages.capture.kernels.replay": {"_MOST_PUTS": "a limit within a burst"},
    "stages.compare.kernels.burst": {"_BURST": "a limit within a burst", "_MISSES": "a limit within a burst"},
    "stages.compare.kernels.fragments": {"MOST": "a limit: a group that has more is as true as before"},
    "stages.compare.kernels.notify": dict.fromkeys(("_ASK", "_HELLO", "_INIT", "_DONE"), "messages of QEMU, bytes"),
    "stages.compare.kernels.reassembly": {"_LARGEST": "of IP"},
    "stages.compare.kernels.slots": dict.fromkeys(("_SMALL", "_LARGE", "_JUMBO"), "sizes of the layout, by name"),
    "stages.compare.kernels.tcp_compare": {
        "_RESERVE": "a limit within a burst",
        "RESETS": "flags of the layout, put together",
        "NOT_NOW": "flags of the layout, put together",
    },
    "stages.compare.kernels.tcp_segments": dict.fromkeys(
        ("COUNTED", "MATCHED_HELD", "HELD", "WAITS"), "what `_secondary_data` returns"
    ),
    "stages.compare.kernels.timestamps": {"_CHECKSUM": "of TCP", "_NEEDS_CSUM": "of virtio"},
    "stages.compare.kernels.twins": {
        "PRIMARY_AHEAD": "what `take_twins` returns",
        "SECONDARY_AHEAD": "what `take_twins` returns",
        "_PLAIN": "flags of the layout, put together",
    },
    "stages.device.kernels.packet_socket": dict.fromkeys(
        (
            *("_MSG_TRUNC", "_VLAN_VALID", "_TPID_VALID", "_MACS", "_TAG"),
            *("_CSUM_START", "_CSUM_OFFSET", "_SCTP_OFFSET"),
        ),
        "of packet(7), Ethernet, virtio or SCTP",
    ),
    "stages.null.kernels": {"_MANY": "no limit"},
    "stages.packets.kernels.gate": {"_MANY": "no limit"},
    "stages.packets.kernels.forward": {"BURST": "a limit within a burst"},
    "stages.packets.kernels.tcp_options": dict.fromkeys(
        ("_END", "_NOP", "_SACK", "_TIMESTAMPS", "_TS_LENGTH"), "of TCP's options"
    ),
    "stages.rewriter.kernels.burst": dict.fromkeys(
        ("_NEEDS_CSUM", "_TCP", "_SEQ", "_ACK", "_CHECKSUM", "_TSVAL", "_TSECR"), "of virtio, IP or TCP"
    ),
    "stages.rewriter.kernels.icmp_errors": dict.fromkeys(
        ("_ICMP", "_TCP", "_ICMPV6", "_CHECKSUM", "_SEQ", "_TCP_CHECKSUM"), "of IP, ICMP or TCP"
    ),
    "stages.socket.kernels": {"_MANY": "no limit"},
}


def _module(path: Path) -> ModuleType:
    return import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def _tables(module: ModuleType) -> dict[str, tuple[Field, ...]]:
    return {name: value for name, value in vars(module).items() if name == "FIELDS" or name.endswith("_FIELDS")}


TABLES = [
    pytest.param(module, table, id=f"{module.__name__}.{name}")
    for module in map(_module, LAYOUTS)
    for name, table in _tables(module).items()
]
EVERY_TABLE = pytest.mark.parametrize(("module", "table"), TABLES)


@EVERY_TABLE
def test_a_constant_is_its_fields_name_in_capitals(module: ModuleType, table: tuple[Field, ...]) -> None:
    """What a kernel uses and what a person reads are one line."""
    for field in table:
        assert getattr(module, field.name.upper()) == field.offset, field


@EVERY_TABLE
def test_a_word_has_another_meaning_only_where_the_table_says_so(module: ModuleType, table: tuple[Field, ...]) -> None:
    """Fields do not overlap; those made by `again` lie in words that have a meaning already."""
    taken: set[int] = set()
    for field in table:
        words = set(range(field.offset, field.offset + field.size))
        assert field.size > 0
        assert words <= taken if field.again else not words & taken, field
        taken |= words


@EVERY_TABLE
def test_a_field_says_what_it_means(module: ModuleType, table: tuple[Field, ...]) -> None:
    """Names are unique; writer, sentence and unit are there."""
    assert len({field.name for field in table}) == len(table)
    for field in table:
        assert field.writer in ("supervisor", "worker", "kernels"), field
        assert field.unit in UNITS, field
        assert field.meaning and not field.meaning.removesuffix("..").endswith("."), field


def test_every_module_with_a_table_was_looked_at() -> None:
    """A table that the tests above would not find: its fields are in no FIELDS."""
    for module in map(_module, LAYOUTS):
        made = [value for value in vars(module).values() if isinstance(value, fields.Words)]
        listed = {field for table in _tables(module).values() for field in table}
        for words in made:
            assert set(words.fields) <= listed, module.__name__


@pytest.mark.parametrize("path", [path for path in LAYOUTS if path.name == "counters.py"], ids=str)
def test_a_counters_constant_is_its_name_in_capitals(path: Path) -> None:
    """So the index, the name and the sentence cannot be swapped."""
    module = _module(path)
    counters: tuple[Counter, ...] = module.COUNTERS
    assert [getattr(module, c.name.upper()) for c in counters] == list(
        range(OWN_COUNTERS, OWN_COUNTERS + len(counters))
    )
    assert len({c.name for c in counters}) == len(counters) <= layout.COUNTERS - OWN_COUNTERS


def test_a_tap_device_has_the_first_counters_of_an_interface() -> None:
    """They share their kernels, and so the indices."""
    tap = [counter.name for counter in device_counters.TAP_COUNTERS]
    assert tap == [counter.name for counter in device_counters.COUNTERS][: len(tap)]


def test_tables_fit_where_they_lie() -> None:
    """Options, scalars, rows and records have the room that is reserved for them."""
    for module in map(_module, LAYOUTS):
        name = module.__name__.rsplit(".", 1)[1]
        end = max((f.offset + f.size for t in _tables(module).values() for f in t), default=0)
        if name == "options":
            assert layout.OPTIONS < end <= recording.RECORDER < layout.OPTIONS + layout.OPTION_WORDS
        if name == "scalars":
            assert end <= layout.SCALARS
    assert recording.FIELDS[-1].offset < recording.WORDS
    assert table.FIELDS[-1].offset + table.SECRETS <= table.DESCRIPTOR
    assert max(f.offset + f.size for f in events.FIELDS) <= events.WORDS
    assert max(f.offset + f.size for f in records.FIELDS) <= records.HEADER
    assert max(f.offset + f.size for f in kept.FIELDS) <= kept.HEADER
    assert rules.COPIES + 2 * rules.COPY_WORDS <= rules.WORDS
    assert max(f.offset + f.size for f in rules.RULE_FIELDS) <= rules.RECORD_WORDS


def test_flags_have_names() -> None:
    """A viewer names each bit; no two constants share one."""
    bits = {name: value for name, value in vars(conns).items() if name.startswith("CF_")}
    assert {f"CF_{name}": 1 << i for i, name in enumerate(conns.FLAG_NAMES)} == bits


def test_what_a_fragment_keeps_lies_where_a_segment_keeps_something_else() -> None:
    """The two meanings of a slot's words, and those of a row, are stated: no kernel counts on a neighbourhood."""
    again = {f.name: f.offset for f in (*slots.FIELDS, *conns.FIELDS) if f.again}
    assert again == {
        "ident": slots.SEQ, "place": slots.ACK, "here": slots.FLAGS, "whole": slots.END, "last": slots.LIFE,
        "transport": slots.ACK, "given_up": conns.PRIMARY_ISN, "given_up_at": conns.PRIMARY_MAX_ACK,
    }  # fmt: skip
    assert conns.SECONDARY_ISN == conns.GIVEN_UP + 1
    assert conns.SECONDARY_MAX_ACK == conns.GIVEN_UP_AT + 1


# --- what a new supervisor finds ----------------------------------------------------------------------------------
def _numbers(value: Any) -> bool:
    """Whether a value is a number, or a tuple of numbers."""
    return isinstance(value, int) or (isinstance(value, tuple) and bool(value) and all(map(_numbers, value)))


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: str(path.relative_to(ROOT)))
def test_kernels_define_no_places(path: Path) -> None:
    """A number that a kernel module defines is none that memory is read by: those are in layouts, and in the digest."""
    names = {
        name.id
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        for name in ast.walk(target)
        if isinstance(name, ast.Name)
    }
    module = _module(path)
    numbers = {name for name in names if _numbers(getattr(module, name))}
    assert numbers == set(ALLOWED.get(module.__name__, {}))


def test_the_digest_of_a_plan_has_all_layouts_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed line of any layout, or of the table builder, is another digest: nothing is taken over."""
    read: list[Path] = []
    as_it_is = Path.read_bytes

    def noting(path: Path) -> bytes:
        read.append(path)
        return as_it_is(path)

    monkeypatch.setattr(Path, "read_bytes", noting)
    segments.plan_digest(1)
    assert {*LAYOUTS, ROOT / "ring/layout.py", ROOT / "ring/fields.py"} <= set(read)
