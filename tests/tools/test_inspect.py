"""tools.inspect: tables of every kind, rows by what people see of them, memory of running and of dead pipelines."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ring
from ring import layout
from ring.ledger import StageSegment
from stages import catalog
from stages.compare.layout import conns, options, rules, scalars
from stages.compare.rules.rule_set import RuleSet, from_table
from stages.packets.layout import parsed, rows, table
from tests.interpreter import fresh_python
from tests.packets import ACK, P_UDP, PSH, fragments, in_pppoe, tcp_frame, udp
from tests.pipeline.running import ROOT, Running, gone, until
from tests.rig import Rig, defaults
from tests.stages.compare.test_compare import PARAMS, handshake, seg
from tests.stages.rewriter.rewriting import OFFSET, Flow
from tests.tunnels import ENDS6, gre, ip_in_ip, vxlan
from tools.inspect import memory
from tools.inspect.__main__ import main
from tools.inspect.memory import Found, Memory, NotShownError
from tools.inspect.tables import Looked, look
from tools.inspect.values import age, duration, flags, plain, signed

SHM = Path("/dev/shm")
_serial = itertools.count()
CAPTURE = str(ROOT / "samples" / "divergence.pcapng")
NEEDED: dict[str, dict[str, Any]] = {
    "colo-compare": PARAMS,
    "filter-rewriter": {"max_connections": 64},
    "netdev-pcap": {"read": CAPTURE},
}


def _name() -> str:
    return f"look-{os.getpid()}-{next(_serial)}"


def _unlink(name: str) -> None:
    for path in SHM.glob(f"{name}.*"):
        path.unlink()


@contextlib.contextmanager
def placed(rig: Rig) -> Iterator[str]:
    """The segments of a rig under the names that a pipeline gives: stage ``it``, rings by its ports."""
    name = _name()
    try:
        kind = rig.kind.name.encode().ljust(layout.NAME_BYTES, b"\0")
        rig.segment.w[layout.KIND_NAME : layout.KIND_NAME + layout.NAME_BYTES // 8] = np.frombuffer(kind, np.int64)
        os.link(SHM / f"{rig.prefix}.s", SHM / f"{name}.s.it")
        for port in rig.rings:
            os.link(SHM / f"{rig.prefix}.r.{port}", SHM / f"{name}.r.it.{port}")
        yield name
    finally:
        _unlink(name)


@contextlib.contextmanager
def fresh(kind: str) -> Iterator[tuple[str, StageSegment]]:
    """A segment of a kind that no process has attached to yet."""
    name, made = _name(), catalog.kind(kind)
    segment = StageSegment.create(f"{name}.s.it", made.words(defaults(made, False) | NEEDED.get(kind, {})), kind=kind)
    try:
        yield name, segment
    finally:
        segment.close()
        _unlink(name)


def looked(name: str, segment: str = "it", *, of_ring: bool = False) -> Looked:
    return look(Found(name, of_ring, segment), memory.pipelines()[name])


Out = tuple[int, str, str]


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the program; exit status, output, errors."""

    def run(*arguments: str, width: int = 120) -> Out:
        monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()  # what a stage has logged
        status = main(arguments)
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def _show_all(inspect: Any, name: str) -> None:
    """Everything there is to be shown of a stage, as text and as data, and nothing of it is written."""
    before = (SHM / f"{name}.s.it").read_bytes()
    for command in ((), (name,), (name, "it"), *((name, "it", view) for view in looked(name).views)):
        for more in ((), ("--all",), ("--json",)):
            status, out, err = inspect(*command, *more)
            assert (status, err) == (0, ""), (command, err)
            assert out.strip()
            if more == ("--json",):
                assert isinstance(json.loads(out), dict)
    for view in looked(name).views.values():
        for number in view.live()[:2]:
            status, out, err = inspect(name, "it", view.name, str(number))
            assert (status, err) == (0, "")
            shown = [field for field in view.table.fields if view.holds(view.row(number), field)]
            assert all(re.search(rf"^{field.name}  ", out, re.MULTILINE) for field in shown)
            assert json.loads(inspect(name, "it", view.name, str(number), "--json")[1])["row"] == number
    assert (SHM / f"{name}.s.it").read_bytes() == before


# --- every kind ---------------------------------------------------------------------------------------------------
EVERY_KIND = pytest.mark.parametrize("kind", catalog.MODULES)


@EVERY_KIND
def test_a_fresh_segment_can_be_shown(kind: str, inspect: Any) -> None:
    """All words are 0: no table is laid out."""
    with fresh(kind) as (name, _):
        _show_all(inspect, name)


@EVERY_KIND
def test_words_that_something_wrote_over_are_shown_or_refused(kind: str, inspect: Any) -> None:
    """Whatever lies in a segment behind its header: an answer, and no traceback."""
    random = np.random.default_rng(7)
    with fresh(kind) as (name, segment):
        first = layout.COMMITTED
        segment.w[first:] = random.integers(-(1 << 62), 1 << 62, len(segment.w) - first)
        segment.w[layout.OPTIONS : layout.OPTIONS + layout.OPTION_WORDS] = random.integers(1, len(segment.w), 48)
        for view in looked(name).views:
            status, out, err = inspect(name, "it", view)
            assert (status == 0 and out) or (status == 1 and "another version made it" in err), err


@pytest.mark.parametrize(
    ("kind", "more", "port"),
    [
        ("filter-mirror", {}, "tx_in"),
        ("filter-redirector", {}, "tx_in"),
        ("filter-rewriter", {"max_connections": 64}, "tx_in"),
        ("filter-dump", {"file": "dump.pcapng"}, "tx_in"),
        ("colo-compare", PARAMS, "primary_in"),
        ("netdev-null", {}, "send"),
        ("netdev-pcap", {"read": CAPTURE}, "send"),
        ("chardev-socket", {"path": "sock", "server": True}, "send"),
    ],
)
def test_a_used_segment_can_be_shown(
    kind: str, more: dict[str, Any], port: str, inspect: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages on the bench that have seen a frame."""
    monkeypatch.chdir(tmp_path)
    with Rig(kind, more) as rig, placed(rig) as name:
        rig.feed(port, tcp_frame("10.0.0.2", "10.0.0.1", 80, 4711, flags=ACK))
        rig.run()
        _show_all(inspect, name)
        data = json.loads(inspect(name, "it", "counters", "--json")[1])
        assert data["fields"] == rig.counters()
    for path in tmp_path.glob("sock"):
        path.unlink()


@EVERY_KIND
def test_what_a_kind_declares_is_right(kind: str) -> None:
    """Tables have different names; names, parts and columns are of fields that are there."""
    with fresh(kind) as (name, _):
        views = looked(name).views
    declared = catalog.kind(kind).tables
    common = [name for name in views if name not in {one.name for one in declared}]
    assert len(common) + len(declared) == len(views)
    for one in declared:
        fields = {field.name: field for field in one.fields}
        assert len(fields) == len(one.fields)
        for what in (one.names, one.parts, one.shown, one.holds, one.columns):
            assert set(what) <= set(fields), one.name
        assert not isinstance(one.live, str) or not one.live or one.live in fields
        assert all(len(parts) <= fields[field].size for field, parts in one.parts.items())
        flagged = {name for name, field in fields.items() if field.unit == "flags"}
        assert flagged <= set(one.names), one.name


# --- the compare --------------------------------------------------------------------------------------------------
@pytest.fixture
def compare(tmp_path: Path) -> Iterator[tuple[Rig, str]]:
    """A compare that holds three packets of a connection, and knows another."""
    with Rig("colo-compare", PARAMS | {"divergences": str(tmp_path / "d")}) as rig, placed(rig) as name:
        rig.run(now=1)
        handshake(rig, port=4000)
        handshake(rig, port=4711, isn=5_000)
        rig.feed("primary_in", seg(1001, b"one", PSH | ACK), seg(1004, b"two", PSH | ACK), seg(1007, b"three"))
        rig.run(now=1_000_000_000)
        yield rig, name


def test_connections_and_their_packets(compare: tuple[Rig, str], inspect: Any) -> None:
    """A row as a line, its flags by name; slots in order of their connection."""
    _, name = compare
    _, out, _ = inspect(name, "it", "connections", width=200)
    head, titles, *lines = out.splitlines()
    assert head == f"{name} it connections: 2 in use, of 64 rows"
    assert titles.split()[:5] == ["ROW", "KEY", "SEEN", "COUNT", "FLAGS"]
    assert "tcp 10.0.0.2:80 > 10.0.0.1:4000" in lines[0]
    assert "3/0/0" in lines[0] and "SYNCED,SYN_MATCHED" in lines[0]
    row = json.loads(inspect(name, "it", "connections", "0", "--json")[1])
    assert row["live"] and row["stable"]
    assert row["fields"]["count"] == [3, 0, 0]
    assert row["shown"]["count"] == "packets 3, acks 0, secondary 0"
    assert row["fields"]["compared"] == 1001 and "compared" not in row["shown"]
    held = json.loads(inspect(name, "it", "slots", "--json")[1])
    assert [one["fields"]["frame"] for one in held["rows"]] == [57, 57, 59]
    assert {one["shown"]["conn"] for one in held["rows"]} == {"row 0"}
    assert held["rows"][0]["shown"]["flags"] == "PSH, ACK"
    assert f"slot {held['rows'][1]['row']}" == held["rows"][0]["shown"]["next"]
    assert row["shown"]["cursor"] == f"slot {held['rows'][0]['row']}"


def test_slots_are_in_use_or_free(compare: tuple[Rig, str]) -> None:
    """Each slot is held, or an entry of a free queue."""
    _, name = compare
    views = looked(name).views
    free = {views["queues"].row(n).words[0] for n in views["queues"].live()}
    held = set(views["slots"].live())
    assert len(held) == 3
    assert not held & free and held | free == set(range(views["slots"].count))
    assert {views["queues"].row(n).which for n in views["queues"].live()[:1]} == {"primary_256"}


def test_buckets_lead_to_rows(compare: tuple[Rig, str]) -> None:
    """As many as there are connections, each with the number + 1 of another row."""
    _, name = compare
    views = looked(name).views
    assert sorted(views["buckets"].row(n).words[0] for n in views["buckets"].live()) == [1, 2]


def test_packets_that_explain_a_difference(compare: tuple[Rig, str], inspect: Any) -> None:
    """Each packet of a record, whatever the length of those before it."""
    rig, name = compare
    assert looked(name).views["kept"].live() == []
    rig.feed("secondary_in", seg(1001, b"eno", PSH | ACK))
    rig.run(now=1_000_000_001)
    data = json.loads(inspect(name, "it", "kept", "--json")[1])
    record = json.loads(inspect(name, "it", "records", "0", "--json")[1])
    assert data["found"] == record["fields"]["packets"] == len(data["rows"]) > 4
    assert [row["shown"]["side"] for row in data["rows"][:2]] == ["primary", "secondary"]
    assert [row["fields"]["at"] for row in data["rows"][:3]] == [54, 54, -1]
    assert {row["shown"]["kind"] for row in data["rows"]} == {"held", "passed"}
    assert {row["which"] for row in data["rows"]} == {"record 0"}


def test_what_rules_are_made_of(compare: tuple[Rig, str], inspect: Any) -> None:
    """Networks, ranges and automata, with the rules that they belong to."""
    rig, name = compare
    one, wrong = from_table(
        "one", {"action": "mask", "source": "10.0.0.0/8", "source_port": [80, "90-99"], "regex": "a(b)"}, ["it"]
    )
    two, also = from_table(
        "two", {"action": "pass", "destination": ["fd00::/8", "10.1.0.0/16"], "protocol": "tcp"}, ["it"]
    )
    assert not wrong and not also
    w = rig.segment.w
    at = int(w[options.RULES]) + rules.COPIES + rules.COPY_WORDS
    w[at : at + rules.COPY_WORDS] = RuleSet().extended({"one": one, "two": two}).words("it")
    w[layout.CMD_RULES] += 1
    rig.run(now=1_000_000_001)

    def told(table: str) -> list[tuple[str, ...]]:
        data = json.loads(inspect(name, "it", table, "--json")[1])
        return [(row["which"], *(str(v) for v in row["fields"].values())) for row in data["rows"]]

    assert [row[:2] for row in told("rule_networks")] == [
        ("one source", "4"), ("two destination", "6"), ("two destination", "4"),
    ]  # fmt: skip
    assert told("rule_ranges") == [
        ("one source_port", "80", "80"), ("one source_port", "90", "99"), ("two protocol", "6", "6"),
    ]  # fmt: skip
    assert [row[0] for row in told("rule_automata")] == ["one"]
    _, out, _ = inspect(name, "it", "rules", "0")
    assert "first 0, count 1" in out


def test_a_row_of_fragments_has_words_of_its_own(inspect: Any) -> None:
    """What is a sequence number elsewhere is not shown as one there, nor the other way round."""
    pieces = fragments("10.0.0.2", "10.0.0.1", P_UDP, udp("10.0.0.2", "10.0.0.1", 53, 4000, bytes(3000)), 1400)[:2]
    with Rig("colo-compare", PARAMS) as rig, placed(rig) as name:
        rig.run(now=1)
        rig.feed("primary_in", *pieces)
        rig.run(now=2)
        row = json.loads(inspect(name, "it", "connections", "0", "--json")[1])
        assert row["shown"]["key"] == "udp in fragments 10.0.0.2 > 10.0.0.1"
        assert row["shown"]["primary_isn"] == "" and row["shown"]["given_up"] != ""
        text = inspect(name, "it", "connections", "0")[1]
        assert "given_up_at" in text and "primary_isn" not in text
        listed = json.loads(inspect(name, "it", "slots", "--json")[1])["rows"]
        slots = [json.loads(inspect(name, "it", "slots", str(row["row"]), "--json")[1]) for row in listed]
        first, second = sorted(slots, key=lambda slot: slot["fields"]["place"])
        # Words that mean nothing in a row are shown as nothing.
        assert all(slot["shown"]["seq"] == slot["shown"]["ack"] == "" for slot in slots)
        assert all(slot["shown"].get("ident") != "" and slot["shown"].get("place") != "" for slot in slots)
        assert [first["fields"][name] for name in ("place", "here", "whole")] == [1, 2800, -1]
        assert [second["shown"][name] for name in ("here", "whole", "last")] == ["", "", ""]


def test_keys_say_what_a_packet_is_inside_of(inspect: Any) -> None:
    """Three and four tags, a session, tunnels; those that nothing else tells apart by where they run."""
    with Rig("filter-rewriter", {"max_connections": 64}) as rig, placed(rig) as name:
        Flow(rig, port=1, vlans=(7, 8, 9)).open()
        Flow(rig, port=2, vlans=(7, 8, 9, 10)).open()
        Flow(rig, port=3, vlans=(7,), wrap=lambda f: in_pppoe(f, 5)).open()
        Flow(rig, port=4, vlans=(7,), wrap=lambda f: vxlan(f, vni=42)).open()
        Flow(rig, port=5, wrap=lambda f: gre(f, key=6)).open()
        Flow(rig, port=5, wrap=lambda f: gre(f, key=6, ends=ENDS6)).open()
        Flow(rig, port=6, wrap=ip_in_ip).open()
        data = json.loads(inspect(name, "it", "connections", "--json")[1])
        keys = [row["shown"]["key"] for row in data["rows"]]
        flow = "tcp 198.51.100.9:{} > 10.0.0.1:80"
        assert keys[:4] == [
            flow.format("1") + " vlan 7/8/9",
            flow.format("2") + " vlan 7/8/9/10",
            flow.format("3") + " vlan 7 in pppoe 5",
            flow.format("4") + " vlan 7 in vxlan 42",
        ]
        assert [key.partition(" via ")[0] for key in keys[4:]] == [
            *2 * [flow.format("5") + " in gre 6"], flow.format("6") + " in ip",
        ]  # fmt: skip
        assert len(set(keys)) == 7
        for value, found in (("vxlan", 1), ("vxlan 42", 1), ("vlan 7/8/9", 1), ("pppoe 5", 1), ("gre", 2), ("via", 3)):
            told = json.loads(inspect(name, "it", "connections", "--json", "--where", f"key={value}")[1])
            assert told["found"] == found, value


def test_keys_have_their_vlans(inspect: Any) -> None:
    """One tag, two tags, IPv6."""
    with Rig("filter-rewriter", {"max_connections": 64}) as rig, placed(rig) as name:
        Flow(rig, port=1).open()
        Flow(rig, port=2, vlans=(7,)).open()
        Flow(rig, port=3, vlans=(7, 9), hosts=("2001:db8::9", "2001:db8::1")).open()
        data = json.loads(inspect(name, "it", "connections", "--json")[1])
        assert [row["shown"]["key"] for row in data["rows"]] == [
            "tcp 198.51.100.9:1 > 10.0.0.1:80",
            "tcp 198.51.100.9:2 > 10.0.0.1:80 vlan 7",
            "tcp [2001:db8::9]:3 > [2001:db8::1]:80 vlan 7/9",
        ]
        for value, found in (("vlan 9", 0), ("2001:0db8::9", 1), ("[2001:db8::1]:80", 1), ("10.0.0.1:80", 2), ("3", 1)):
            told = json.loads(inspect(name, "it", "connections", "--json", "--where", f"key={value}")[1])
            assert told["found"] == found, value


# --- the rewriter -------------------------------------------------------------------------------------------------
def test_an_offset_is_a_signed_number(inspect: Any) -> None:
    """seq_offset is kept modulo 2^32; people see how far, and which way."""
    with Rig("filter-rewriter", {"max_connections": 64}) as rig, placed(rig) as name:
        Flow(rig).open()
        Flow(rig, port=2, isns=(1_000, 70_000, 5_000)).open()
        _, out, _ = inspect(name, "it", "connections")
        assert f"+{OFFSET}" in out and f"-{OFFSET}" in out and "established" in out
        for condition, found in (
            (f"seq_offset={-OFFSET}", 1),
            ("seq_offset>0", 1),
            ("seq_offset!=0", 2),
            ("state=established", 2),
            ("state!=established", 0),
        ):
            _, out, _ = inspect(name, "it", "connections", "--json", "--where", condition)
            assert json.loads(out)["found"] == found, condition


# --- conditions ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        (["key=10.0.0.1:4711"], [1]),
        (["key!=10.0.0.1:4711"], [0]),
        (["key=tcp 10.0.0.2:80 > 10.0.0.1:4000"], [0]),
        (["key=udp"], []),
        (["count>0"], [0]),
        (["count.packets>=3"], [0]),
        (["count.acks>0"], []),
        (["count.0=3"], [0]),
        (["flags=SYNCED"], [0, 1]),
        (["flags=synced,DIVERGED"], []),
        (["flags!=SYNCED"], []),
        (["flags!=-"], [0, 1]),
        (["live=yes"], [0, 1]),
        (["closed=true"], []),
        (["transport=tcp"], [0, 1]),
        (["transport=1"], [0, 1]),
        (["rule=-"], [0, 1]),
        (["cursor=-"], [1]),
        (["head.packets=-", "key=4711"], [1]),
        (["primary_isn=1,000"], [0]),
        (["primary_isn=0x3e8"], [0]),
        (["compared>1000", "row<1"], [0]),
        (["row=1"], [1]),
        (["seen>1h"], [0, 1]),
        (["seen < 1 h"], []),
        (["seen=1"], [1]),
        (["grace_since=-"], [0, 1]),
        (["work_next=-"], [0, 1]),
        (["given_up_at<1h"], []),
    ],
    ids=str,
)
def test_rows_by_what_people_see(
    conditions: list[str], found: list[int], compare: tuple[Rig, str], inspect: Any
) -> None:
    """Values are written as they are shown; all conditions must hold."""
    _, name = compare
    asked = [word for condition in conditions for word in ("--where", condition)]
    status, out, _ = inspect(name, "it", "connections", "--json", *asked)
    assert status == 0
    assert [row["row"] for row in json.loads(out)["rows"]] == found


@pytest.mark.parametrize(
    ("table", "condition", "found"),
    [
        ("slots", "conn=row 0", 3),
        ("slots", "conn=1", 0),
        ("slots", "prev=-", 1),
        ("slots", "list=packets", 3),
        ("history", "which=secondary", 2),
        ("history", "which!=secondary", 5),
        ("history", "bytes=three", 1),
        ("history", "bytes=0x7468726565", 1),
        ("events", "reason=arming", 1),
        ("events", "key=-", 1),
        ("queues", "which=secondary_69632", 7),
    ],
)
def test_rows_of_other_tables(table: str, condition: str, found: int, compare: tuple[Rig, str], inspect: Any) -> None:
    """Rows of other tables, rows beside their number, bytes."""
    rig, name = compare
    if table == "queues":
        found = int(rig.segment.scalars()[scalars.QUEUE_TAIL + 5]) - int(rig.segment.scalars()[scalars.QUEUE_HEAD + 5])
    _, out, _ = inspect(name, "it", table, "--json", "--where", condition)
    assert json.loads(out)["found"] == found


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("live", "write FIELD=VALUE, or with one of != >= <= = > <"),
        ("lives=1", "connections has no field 'lives'; known: key, hash, live"),
        ("flags=SYNCD", "no flag 'SYNCD'; known: SYNCED, P_SYN"),
        ("flags>SYNCED", "only = and != mean something"),
        ("transport=tpc", "'tpc' is no value of transport; known: other, tcp"),
        ("count.slots=1", "count has no part 'slots'; known: packets, acks, secondary"),
        ("hash.1=1", "hash has no part '1'; known: 0 to 0"),
        ("key=10.0.0", "'10.0.0' is no address, port or protocol"),
        ("key>10.0.0.1", "only = and != mean something"),
        ("key=", "a value is missing"),
        ("seen=5s", "write < or >"),
        ("seen>soon", "'soon' is no time: write how long ago"),
        ("cursor=first", "'first' is no slot"),
        ("work_next=first", "'first' is no row"),
        ("life=long", "'long' is no value of life: write a number"),
        ("row=first", "'first' is no number of a row"),
    ],
)
def test_a_condition_that_means_nothing_says_so(
    condition: str, told: str, compare: tuple[Rig, str], inspect: Any
) -> None:
    """Field, operator or value, and what is known; status 2."""
    _, name = compare
    status, out, err = inspect(name, "it", "connections", "--where", condition)
    assert (status, out) == (2, "")
    assert err.startswith("tools.inspect: --where") and told in err


# --- tables on terminals ------------------------------------------------------------------------------------------
def test_a_table_has_as_many_columns_as_fit(compare: tuple[Rig, str], inspect: Any) -> None:
    """Nothing is wrapped or cut; what is left out is said."""
    _, name = compare
    seen = []
    for width in (60, 80, 120, 160, 240):
        _, out, _ = inspect(name, "it", "connections", width=width)
        assert max(map(len, out.splitlines())) <= max(width, 75)
        seen.append(len(out.splitlines()[1].split()))
        assert "more fields: --all" in out
    assert seen == sorted(seen) and seen[0] < seen[-1]
    _, out, _ = inspect(name, "it", "connections", "--all", width=60)
    assert {field.upper() for field in looked(name).views["connections"].fields} <= set(out.splitlines()[1].split())


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_row_is_no_wider_than_the_terminal(width: int, compare: tuple[Rig, str], inspect: Any) -> None:
    """Values and sentences go on in the next line."""
    _, name = compare
    for command in ((name, "it", "connections", "0"), (name, "it", "history", "0"), (name, "it", "scalars")):
        _, out, _ = inspect(*command, width=width)
        assert [line for line in out.splitlines() if len(line) > width] == []


def test_a_long_table_says_how_many_rows_are_left(compare: tuple[Rig, str], inspect: Any) -> None:
    """--limit, and what to write to see all."""
    _, name = compare
    free = len(looked(name).views["queues"].live())
    _, out, _ = inspect(name, "it", "queues")
    assert f"{free:,} in use" in out and f"… {free - 50:,} more rows: --limit {free}" in out
    assert len(out.splitlines()) == 53
    data = json.loads(inspect(name, "it", "queues", "--json", "--limit", "2")[1])
    assert (len(data["rows"]), data["found"]) == (2, free)


def test_text_in_memory_moves_no_cursor() -> None:
    """A rule's name may hold anything."""
    assert plain("a\x1b[2Jb\nc") == "a.[2Jb.c"
    assert plain("a\nb", lines=True) == "a\nb"


# --- values -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (0, "0 ns"), (999, "999 ns"), (1_500, "1.5 µs"), (2_000_000, "2 ms"), (1_234_000_000, "1.2 s"),
        (65_000_000_000, "1 min 5 s"), (3_600_000_000_000, "1 h"), (100 * 3_600_000_000_000, "4 d 4 h"),
    ],
)  # fmt: skip
def test_durations(ns: int, shown: str) -> None:
    """In the unit that fits."""
    assert duration(ns) == shown
    assert age(10**15, 10**15 + ns) == f"{shown} ago"
    if ns:
        assert age(10**15 + ns, 10**15) == f"in {shown}"


def test_differences_and_flags() -> None:
    """Modulo 2^32, signed; bits without a name as a number."""
    assert [signed(n) for n in (5, -5, (1 << 32) - 5, 1 << 31)] == [5, -5, -5, -(1 << 31)]
    assert [flags(n, ("A", "B")) for n in (0, 1, 3, 13)] == ["-", "A", "A,B", "A,0xc"]


# --- copies -------------------------------------------------------------------------------------------------------
def _kill_in_a_burst(rig: Rig, values: dict[int, int]) -> None:
    """Words that a burst has put when its process is killed: changed, with their old values in the undo log."""
    w = rig.segment.w
    w[layout.UNDO_N] = 0
    w[layout.UNDO_BURST] = w[layout.COMMITTED] + 1
    for at, value in values.items():
        for now in (77, value):  # twice: the older entry counts
            n = int(w[layout.UNDO_N])
            w[layout.UNDO + 2 * n : layout.UNDO + 2 * n + 2] = at, w[at]
            w[layout.UNDO_N] = n + 1
            w[at] = now


def test_what_a_burst_did_not_commit_is_not_shown(compare: tuple[Rig, str], inspect: Any) -> None:
    """A dead stage's memory is shown as its next incarnation will find it."""
    rig, name = compare
    w = rig.segment.w
    first = int(w[w[options.TABLE] + table.ROWS])
    before = json.loads(inspect(name, "it", "connections", "--json")[1])["rows"]
    _kill_in_a_burst(rig, {first + rows.LIVE: 0, first + conns.COMPARED: 5, first + conns.WORDS + conns.COUNT: 9})
    after = json.loads(inspect(name, "it", "connections", "--json")[1])["rows"]
    assert [row["fields"] for row in after] == [row["fields"] for row in before]
    assert json.loads(inspect(name, "it", "undo_log", "--json")[1])["found"] == 6
    assert int(w[first + conns.COMPARED]) == 5  # nothing was put back


def test_words_that_never_stand_still_are_said_to_change(
    compare: tuple[Rig, str], inspect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that could not be made at one moment is shown, with a note."""
    rig, name = compare
    numbers = itertools.count()

    def restless(self: Memory) -> tuple[int, int, int]:
        return next(numbers), 0, 0

    monkeypatch.setattr(Memory, "_marks", restless)
    assert "while it changed" in inspect(name, "it", "connections")[1]
    assert "(while it changed)" in inspect(name, "it", "connections", "0")[1]
    assert not json.loads(inspect(name, "it", "connections", "0", "--json")[1])["stable"]
    assert rig.counters()["held"] == 3


def test_memory_cannot_be_written(compare: tuple[Rig, str]) -> None:
    """The mapping is read-only, and so are the words."""
    _, name = compare
    with pytest.raises(ValueError, match="read-only"):
        looked(name).memory.w[0] = 1


# --- rings --------------------------------------------------------------------------------------------------------
def test_a_ring(compare: tuple[Rig, str], inspect: Any) -> None:
    """Both ends, positions with their place in the ring, what is in it."""
    rig, name = compare
    rig.feed("primary_in", seg(1, b"x" * 100))
    status, out, _ = inspect(name, "it.primary_in")
    assert status == 0
    assert "producer: the end that writes frames" in out and "state        open" in out
    used = 54 + 100 + 4
    assert f"256KiB, {used} bytes in it (0.1 %)" in out
    tail = json.loads(inspect(name, "it.primary_in", "producer", "--json")[1])
    assert tail["used"] == used
    assert tail["shown"]["tail"] == f"{tail['fields']['tail']:,} (at {tail['fields']['tail']:,})"
    data = json.loads(inspect(name, "--json")[1])
    assert {one["ring"]: one["used"] for one in data["rings"]}["it.primary_in"] == used


# --- what cannot be shown -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nobody"], "no pipeline 'nobody' has memory in /dev/shm; known: "),
        (["{name}", "comp9"], "has no stage or ring 'comp9'; stages: it; rings: it.notify_in"),
        (["{name}", "it", "slot"], "it has no table 'slot'; known: header, commands"),
        (["{name}", "it", "slots", "-1"], "slots of it has no row -1: it has rows 0 to "),
        (["{name}", "it", "slots", "1000000"], "slots of it has no row 1000000: it has rows 0 to "),
        (["{name}", "it.outdev", "slots"], "it.outdev has no table 'slots'; known: header, producer, consumer"),
    ],
)
def test_what_is_not_there(arguments: list[str], told: str, compare: tuple[Rig, str], inspect: Any) -> None:
    """The word at fault, and those that are known; status 2."""
    _, name = compare
    status, out, err = inspect(*(word.format(name=name) for word in arguments))
    assert (status, out) == (2, "")
    assert told in err


@pytest.mark.parametrize(
    "arguments", [["x", "it", "--where", "a=1"], ["x", "it", "t", "1", "--where", "a=1"], ["--limit", "0"], ["x"] * 5]
)
def test_a_command_line_that_means_nothing(arguments: list[str], inspect: Any) -> None:
    """argparse's own status."""
    with pytest.raises(SystemExit) as ended:
        inspect(*arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("word", "value", "told"),
    [
        (layout.VERSION, 99, "has layout version 99, and 2 is known here: look at it with the tools"),
        (layout.MAGIC, 7, "is no segment of a pipeline: another program's, or half made"),
        (layout.STAGE_WORDS, 1 << 40, "its header says 8,796,093,022,208: something wrote over it"),
        (layout.KIND_NAME, 0x65646F6E, "says that its kind is 'node', not known here"),
    ],
)
def test_segments_of_others(word: int, value: int, told: str, inspect: Any) -> None:
    """Another version's, another program's: said with the file's name; what can be listed is listed."""
    with fresh("netdev-null") as (name, segment):
        segment.w[word : word + (8 if word == layout.KIND_NAME else 1)] = 0
        segment.w[word] = value
        status, _, err = inspect(name, "it")
        assert status == 1 and told in err and f"{name}.s.it" in err
        status, out, _ = inspect(name)
        assert status == 1 and told in out
        assert inspect()[0] == 0


def test_a_row_of_another_length_is_another_versions(compare: tuple[Rig, str], inspect: Any) -> None:
    """The connection table says how long its rows are."""
    rig, name = compare
    w = rig.segment.w
    w[w[options.TABLE] + table.ROW_WORDS] += 1
    status, _, err = inspect(name, "it", "connections")
    assert status == 1
    assert f"rows of {conns.WORDS + 1} words, and {conns.WORDS} are known here" in err


def test_a_short_file_is_no_segment(inspect: Any) -> None:
    """Half made, or another program's."""
    name = _name()
    (SHM / f"{name}.s.it").write_bytes(b"x" * 100)
    try:
        status, _, err = inspect(name, "it")
        assert status == 1 and "100 bytes long, or half made" in err
    finally:
        _unlink(name)


@pytest.mark.parametrize(
    ("number", "told"), [(errno.ENOENT, "is gone: the pipeline"), (errno.EACCES, "may not be read by you: do it as ")]
)
def test_a_segment_that_cannot_be_opened(number: int, told: str, inspect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It went meanwhile, or is another user's; status 1."""
    with fresh("netdev-null") as (name, _):
        as_it_is = os.open

        def refusing(path: Any, *more: Any, **words: Any) -> int:
            if name in str(path):
                raise OSError(number, os.strerror(number))
            return as_it_is(path, *more, **words)

        monkeypatch.setattr(os, "open", refusing)
        status, _, err = inspect(name, "it")
        assert status == 1 and told in err
        assert "owner unknown" in inspect()[1]
        monkeypatch.undo()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """In /dev/shm anybody may make names."""
    name = _name()
    (tmp_path / "x").write_bytes(bytes(layout.PAGE))
    (SHM / f"{name}.s.it").symlink_to(tmp_path / "x")
    try:
        with pytest.raises(NotShownError, match="cannot be read"):
            Memory(Found(name, False, "it"))
    finally:
        _unlink(name)


# --- as a program -------------------------------------------------------------------------------------------------
COMMAND = [sys.executable, "-m", "tools.inspect"]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_a_pipeline_from_outside_alive_and_dead(tmp_path: Path) -> None:
    """A real one, looked at by another process; then its supervisor is killed, and its memory is still there."""
    with Running(tmp_path) as it:
        it.running()
        beside = _run(it.name)
        assert (beside.returncode, beside.stderr) == (0, "")
        assert beside.stdout.startswith(f"{it.name}: pid {it.pid}\n")
        assert re.search(r"^m0 +filter-mirror +\S+ \S+ ago$", beside.stdout, re.MULTILINE)
        life = json.loads(_run(it.name, "m0", "life", "--json").stdout)
        assert life["fields"]["life_pid"] == it.pids()["m0"] and life["fields"]["life_ready"] == 1
        cursors = json.loads(_run(it.name, "m0", "cursors", "--json").stdout)
        assert cursors["shown"]["tx_out"] == "0 (at 0)"
        pids = [it.forkserver(), *it.pids().values()]
        os.kill(it.pid, signal.SIGKILL)
        it.end()
        until(lambda: all(map(gone, pids)), "all have ended")
        dead = json.loads(_run("--json").stdout)["pipelines"]
        assert next(one for one in dead if one["pipeline"] == it.name)["owner"] == {"pid": it.pid, "alive": False}
        after = _run(it.name, "m0")
        assert after.returncode == 0 and f"dead (pid {it.pid} is gone)" in after.stdout
        for path in tmp_path.iterdir():
            if path.is_socket():
                path.unlink()
    assert _run(it.name).returncode == 2


def test_a_reader_that_has_seen_enough_is_no_error(compare: tuple[Rig, str]) -> None:
    """``| head -1``: no traceback, status 0."""
    _, name = compare
    with subprocess.Popen(
        [*COMMAND, name, "it", "queues", "--limit", "5000"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_nothing_compiled_is_loaded() -> None:
    """It starts fast: neither Numba nor kernels."""
    with fresh("colo-compare") as (name, _):
        code = (
            "import sys; from tools.inspect.__main__ import main; "
            f"main([{name!r}, 'it']); print(*(m for m in sys.modules if m.split('.')[0] in ('numba', 'llvmlite')))"
        )
        done = fresh_python(code, NUMBA_DISABLE_JIT=None)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ""


def test_a_lone_ring_is_no_pipeline(inspect: Any) -> None:
    """Its name is not one that a pipeline gives."""
    with ring.create(f"lone{os.getpid()}", "64KiB"):
        assert f"lone{os.getpid()}" not in inspect()[1]


def test_the_key_has_its_place() -> None:
    """What the descriptions of flows count on."""
    assert (rows.KEY, parsed.KEY) == (0, 0)
