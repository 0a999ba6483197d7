"""Words of shared memory: each has its place, its name and its sentence in one line of a layout, and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline import segments
from ring import fields, hot, layout
from ring.fields import Field
from ring.layout import OWN_COUNTERS, Counter
from stages import catalog
from stages.capture.layout import recording
from stages.compare.layout import conns, events, kept, records, rules, slots
from stages.device.layout import counters as device_counters
from stages.packets.layout import table

ROOT = Path(__file__).resolve().parent.parent.parent
LAYOUTS = sorted(
    path
    for path in ROOT.glob("stages/**/*.py")
    if path.name == "layout.py" or (path.parent.name == "layout" and path.name != "__init__.py")
)
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
    "stages.compare.kernels.timestamps": {"_CHECKSUM": "of TCP"},
    "stages.compare.kernels.twins": {
        "PRIMARY_AHEAD": "what `take_twins` returns",
        "SECONDARY_AHEAD": "what `take_twins` returns",
        "_PLAIN": "flags of the layout, put together",
    },
    "stages.compare.kernels.uncompared": dict.fromkeys(
        ("_ICMP", "_IGMP", "_ICMPV6", "_PIM", "_ALL_PIM_ROUTERS", "_LINK_LOCAL_GROUP"), "of IP"
    ),
    "stages.device.kernels.checksums": {"_SCTP_OFFSET": "of SCTP"},
    "stages.device.kernels.layers": dict.fromkeys(
        (
            *("_IPV4", "_IPV6", "_ETHERNET", "_HOPS", "_ROUTING", "_DESTINATION", "_IN_IPV4", "_IN_IPV6", "_UDP"),
            *("_GRE", "_GRE_KEY", "_VXLAN", "_VXLAN_OLD", "_GENEVE"),
        ),
        "of Ethernet, IP or tunnels",
    ),
    "stages.device.kernels.packet_socket": dict.fromkeys(
        (
            *("_MSG_TRUNC", "_VLAN_VALID", "_TPID_VALID", "_MACS", "_TAG"),
            *("_GSO_TYPE", "_CSUM_START", "_CSUM_OFFSET"),
        ),
        "of packet(7), Ethernet or virtio",
    ),
    "stages.device.kernels.segments": dict.fromkeys(
        (
            *("_TYPE", "_SIZE", "_START", "_OFFSET", "_NEEDS_CSUM", "_TCPV4", "_TCPV6", "_UDP_L4", "_ECN"),
            *("_TCP", "_UDP", "_TCP_SUM", "_UDP_SUM"),
        ),
        "of virtio, IP, TCP or UDP",
    ),
    "stages.mirror.kernels": dict.fromkeys(
        ("_NEEDS_CSUM", "_TCP", "_UDP", "_ICMPV6", "_FLAGS", "_CHECKSUM", "_MPTCP"), "of virtio, IP or TCP"
    ),
    "stages.null.kernels": {"_MANY": "no limit"},
    "stages.packets.kernels.gate": {"_MANY": "no limit"},
    "stages.packets.kernels.forward": {"BURST": "a limit within a burst"},
    "stages.packets.kernels.tcp_options": dict.fromkeys(
        ("_END", "_NOP", "_SACK", "_TIMESTAMPS", "_TS_LENGTH"), "of TCP's options"
    ),
    "stages.rewriter.kernels.burst": dict.fromkeys(
        ("_TCP", "_SEQ", "_ACK", "_CHECKSUM", "_TSVAL", "_TSECR"), "of IP or TCP"
    ),
    "stages.rewriter.kernels.announcements": {
        "_MOST": "a limit within a burst",
        **dict.fromkeys(("_IP_ROUNDS", "_IP_NS"), "of RFC 4861: how many, how far apart"),
        **dict.fromkeys(("_ALL_NODES_HIGH", "_ALL_NODES_LOW"), "an address"),
    },
    "stages.rewriter.kernels.discovery": dict.fromkeys(
        (
            *("_ROUTER_SOLICITATION", "_ROUTER_ADVERTISEMENT", "_SOLICITATION", "_SOURCE_LINK", "_TARGET_LINK"),
            *("_IPV4", "_ICMPV6"),
        ),
        "of neighbour discovery or IP",
    ),
    "stages.rewriter.kernels.made": dict.fromkeys(
        (
            *("REQUEST", "REPLY", "REQUEST_REVERSE", "ARP", "RARP", "IPV6", "ADVERTISEMENT", "ROUTER", "SOLICITED"),
            *("OVERRIDE", "BROADCAST", "ALL_NODES", "_ICMPV6", "_LEAST", "_ARP_SIZE", "_ADVERTISEMENT_SIZE"),
        ),
        "of Ethernet, ARP or neighbour discovery",
    ),
    "stages.rewriter.kernels.icmp_errors": dict.fromkeys(
        ("_ICMP", "_TCP", "_ICMPV6", "_CHECKSUM", "_SEQ", "_TCP_CHECKSUM"), "of IP, ICMP or TCP"
    ),
    "stages.socket.kernels": {"_MANY": "no limit"},
}


def _module(path: Path) -> ModuleType:
    return import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def _tables(module: ModuleType) -> dict[str, tuple[Field, ...]]:
    """Tables of fields that a module has: FIELDS, SCALARS, .._FIELDS."""
    return {name: value for name, value in vars(module).items() if _all_are(Field, value)}


def _all_are(kind: type, value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(one, kind) for one in value)


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
        assert {name for name in vars(module) if name.endswith("FIELDS")} <= set(_tables(module)), module.__name__
        listed = {field for table in _tables(module).values() for field in table}
        for words in made:
            assert set(words.fields) <= listed, module.__name__


COUNTED = [module for module in map(_module, LAYOUTS) if hasattr(module, "COUNTERS")]


def test_the_counters_of_every_kind_are_looked_at() -> None:
    """Each kind's counters are those of a layout."""
    listed = [module.COUNTERS for module in COUNTED]
    for kind in catalog.kinds():
        assert any(kind.counters == one[: len(kind.counters)] for one in listed), kind.name


@pytest.mark.parametrize("module", COUNTED, ids=lambda module: str(module.__name__))
def test_a_counters_constant_is_its_name_in_capitals(module: ModuleType) -> None:
    """So the index, the name and the sentence cannot be swapped."""
    counters: tuple[Counter, ...] = module.COUNTERS
    assert _all_are(Counter, counters)
    assert [getattr(module, c.name.upper()) for c in counters] == list(
        range(OWN_COUNTERS, OWN_COUNTERS + len(counters))
    )
    assert len({c.name for c in counters}) == len(counters) <= layout.COUNTERS - OWN_COUNTERS


def test_a_tap_device_has_the_first_counters_of_an_interface() -> None:
    """They share their kernels, and so the indices."""
    tap = device_counters.TAP_COUNTERS
    assert [counter.name for counter in tap] == ["sent", "dropped_refused", "dropped_before_failover"]
    assert tap == device_counters.COUNTERS[: len(tap)]


def test_tables_fit_where_they_lie() -> None:
    """Options, scalars, rows and records have the room that is reserved for them."""
    seen = set()
    for path, module in zip(LAYOUTS, map(_module, LAYOUTS), strict=True):
        for name, fields_of_it in _tables(module).items():
            end = max(f.offset + f.size for f in fields_of_it)
            if path.stem == "options" or (path.stem, name) == ("layout", "FIELDS"):
                assert layout.OPTIONS <= fields_of_it[0].offset < end <= recording.RECORDER, module
                seen.add("options")
            elif path.stem == "scalars" or (path.stem, name) == ("layout", "SCALARS"):
                assert end <= layout.SCALARS, module
                seen.add("scalars")
            elif (path.stem, name) == ("layout", "TABLE_FIELDS"):
                assert fields_of_it[0].offset == 0, f"{module}: it counts from the table's start"
            else:
                assert path.stem != "layout", f"{module}.{name}: where it lies, this test does not know"
    assert seen == {"options", "scalars"}
    assert recording.RECORDER < layout.OPTIONS + layout.OPTION_WORDS
    assert recording.FIELDS[-1].offset < recording.WORDS
    assert table.FIELDS[-1].offset + table.SECRETS <= table.DESCRIPTOR
    assert max(f.offset + f.size for f in events.FIELDS) <= events.WORDS
    assert max(f.offset + f.size for f in records.FIELDS) <= records.HEADER
    assert max(f.offset + f.size for f in kept.FIELDS) <= kept.HEADER
    assert rules.COPIES + 2 * rules.COPY_WORDS <= rules.WORDS
    assert max(f.offset + f.size for f in rules.RULE_FIELDS) <= rules.RECORD_WORDS


UNSHOWN = {
    "stages.packets.layout.table.FIELDS": {"secret"},
    "stages.rewriter.layout.tables.FIELDS": {"scratch_at", "address_at"},  # a table of its own; private to a burst
    "stages.compare.layout.rules.LIST_FIELDS": {"list_first", "list_count"},  # parts of a rule's fields
    "stages.compare.layout.rules.AREA_FIELDS": {"now", "copies"},  # private to a burst; tables of their own
    "stages.compare.layout.rules.COPY_FIELDS": {
        "copy_order",
        "copy_records",
        "copy_items",
        "copy_automata",
    },  # the same
}
PRIVATE = ("capture.layout.columns", "capture.layout.memory", "capture.layout.recording", "device.layout.memory",
           "device.layout.message", "device.layout.segmentation")  # fmt: skip
"""Layouts of memory that ends with a process, and that nobody else can read."""


def test_every_word_of_a_segment_can_be_looked_at() -> None:
    """What a layout says of a stage's segment is in a table that a kind declares for tools.inspect."""
    shown = {(f.name, f.meaning) for kind in catalog.kinds() for shows in kind.tables for f in shows.fields}
    unshown: dict[str, set[str]] = {}
    for module in map(_module, LAYOUTS):
        for name, one in _tables(module).items():
            if (module.__name__.removeprefix("stages."), name) in {(private, "FIELDS") for private in PRIVATE}:
                continue
            if missing := {f.name for f in one if (f.name, f.meaning) not in shown}:
                unshown[f"{module.__name__}.{name}"] = missing
    assert unshown == UNSHOWN


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
    assert ROOT / "stages/packets/kernels/table.py" in read  # where a key is looked for: its hash


# --- digests cover what they are about ----------------------------------------------------------------------------
def _imported(path: Path) -> set[Path]:
    """Files of this repository that a file imports, wherever in it that stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {(node.module, alias.name) for alias in node.names}
    return {found for module, name in names if (found := _file_of(module, name))}


def _file_of(module: str, name: str) -> Path | None:
    """The file of ``module.name`` if that is a module, else that of ``module``; None: it is none of ours."""
    folder = ROOT.joinpath(*module.split("."))
    places = (folder / f"{name}.py", folder / name / "__init__.py") if name else ()
    return next((p for p in (*places, folder.with_suffix(".py"), folder / "__init__.py") if p.is_file()), None)


def _closure(paths: Iterable[Path]) -> set[Path]:
    todo, found = list(paths), set()
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += _imported(path)
    return found


def _covered(patterns: Iterable[str]) -> set[Path]:
    return {path for pattern in patterns for path in ROOT.glob(pattern)}


def test_what_layouts_are_made_of_is_in_the_digest_of_a_plan() -> None:
    """No number of a layout comes from a file whose change would go unnoticed."""
    assert _closure(LAYOUTS) <= _covered(segments._LAYOUTS)


def test_what_kernels_are_made_of_is_in_the_digest_of_the_cache() -> None:
    """Machine code of other sources is never loaded: all that layouts and kernels import is in the digest."""
    assert _closure([*LAYOUTS, *KERNELS]) <= _covered(hot._SOURCES)


def test_an_import_is_followed() -> None:
    """Through a module, a name in it, a package, and a function's body."""
    here = _imported(Path(__file__))
    assert {ROOT / "ring/fields.py", ROOT / "ring/layout.py", ROOT / "stages/catalog.py"} <= here
    assert not any("pytest" in str(path) for path in here)
    assert ROOT / "ring/kernels/ledger.py" in _closure([ROOT / "stages/null/kernels.py"])
