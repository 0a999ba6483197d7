"""Rules in the compare's kernels against plain Python: which rule a connection falls under, what a mask forgives."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.rules import RuleSet, from_table
from ring.kernels.ledger import begin, commit, recover
from ring.layout import CMD_RULES, UNDO, UNDO_CAPACITY, UNDO_N
from stages.kernels import rules as kernel
from stages.kernels.packet import parse
from stages.layout import rules as layout
from stages.layout.compare import C_MASK_P, C_MASK_S, C_VERDICT, O_RULES, ROW_WORDS
from stages.layout.packet import FRAGMENT, ICMP, IP, SCRATCH, UDP
from stages.layout.table import R_KEY
from tests.oracle.rules import Flow, Mask, agreeing, either, matches, one, rule_takes, star, then
from tests.packets import P_ICMP, P_TCP, P_UDP, ether, ipv4, ipv6

ENTRIES = 256
RULES = UNDO + 2 * ENTRIES
C = RULES + layout.WORDS  # a connection
S = C + ROW_WORDS
BYTES = (S + SCRATCH) * 8
ROOM = 1 << 16


class Bench:
    """A stage's words with an area of rules, one connection, and room for two pieces of payload."""

    def __init__(self) -> None:
        self.w: Any = np.zeros(BYTES // 8 + 2 * ROOM // 8, np.int64)
        self.u8: Any = self.w.view(np.uint8)
        self.w[UNDO_CAPACITY] = ENTRIES
        self.w[O_RULES] = RULES
        self.row = begin(self.w)

    def write(self, rules: RuleSet) -> None:
        """Hand a set over, as the supervisor does."""
        change = int(self.w[CMD_RULES]) + 1
        at = RULES + layout.COPIES + (change & 1) * layout.COPY_WORDS
        self.w[at : at + layout.COPY_WORDS] = rules.words("comp0")
        self.w[CMD_RULES] = change

    def burst(self) -> int:
        """Commit, and begin the next burst; whether there were new rules."""
        commit(self.w, self.row, 0, 1)
        self.row = begin(self.w)
        return int(kernel.take_rules(self.w, self.row))

    def use(self, rules: RuleSet) -> None:
        """Write a set and go over to it, with a new connection."""
        self.write(rules)
        assert self.burst() == 1
        self.w[C : C + ROW_WORDS] = 0

    def classify(self, frame: bytes | None = None) -> int:
        """Number + 1 of the rule that the connection of a frame falls under."""
        if frame is not None:
            self.u8[BYTES : BYTES + len(frame)] = np.frombuffer(frame, np.uint8)
            self.w[C + C_VERDICT] = parse(self.u8, self.w, BYTES, len(frame), S)
            self.w[C + R_KEY : C + R_KEY + 6] = self.w[S : S + 6]
        assert kernel.stale(self.w, self.row, C)
        kernel.classify(self.w, self.row, C)
        assert not kernel.stale(self.w, self.row, C)
        return int(kernel.rule_number(self.w, C))

    def place(self, a: bytes, b: bytes) -> tuple[int, int]:
        """Lay two pieces of payload out; where they are."""
        for at, data in ((BYTES, a), (BYTES + ROOM, b)):
            self.u8[at : at + len(data)] = np.frombuffer(data, np.uint8)
        return BYTES, BYTES + ROOM

    def stream(self, a: bytes, b: bytes, offset: int = 0) -> tuple[int, int]:
        """The next bytes of both streams: how many agree, how many were forgiven."""
        x, y = self.place(a, b)
        self.w[UNDO_N] = 0  # as many calls as one likes
        agreed = int(kernel.agree_stream(self.u8, self.w, C, x, y, len(a), offset))
        return agreed & 0xFFFFFFFF, agreed >> 32

    def datagram(self, a: bytes, b: bytes, verdict: int) -> tuple[int, int]:
        """Two IP payloads: how many bytes agree, how many were forgiven."""
        x, y = self.place(a, b)
        self.w[C + C_VERDICT] = verdict
        agreed = int(kernel.agree_datagram(self.u8, self.w, C, x, y, len(a)))
        return agreed & 0xFFFFFFFF, agreed >> 32


def made(**tables: dict[str, Any]) -> RuleSet:
    """A set from tables of a config."""
    rules = RuleSet()
    for name, table in tables.items():
        rule, wrong = from_table(name, table, ["comp0", "comp1"])
        assert not wrong
        rules = rules.added(name, rule)
    return rules


def mask(*texts: str, **keys: Any) -> RuleSet:
    """One mask for everything."""
    return made(m={"action": "mask", **({"regex": list(texts)} if texts else {}), **keys})


def frame_of(flow: Flow) -> bytes:
    """A packet of a flow."""
    ports = flow.source_port.to_bytes(2, "big") + flow.destination_port.to_bytes(2, "big")
    body = ports + (b"\0" * 8 + b"\x50" + b"\0" * 7 if flow.protocol == P_TCP else b"\0" * 4)
    ip = ipv6 if ":" in flow.source else ipv4
    return ether(ip(flow.source, flow.destination, flow.protocol, body), 0x86DD if ip is ipv6 else 0x0800, flow.vlans)


# --- which rule ------------------------------------------------------------------------------------------------------
PREFIXES4 = ["10.0.0.0/8", "10.0.0.0/30", "10.0.0.1/32", "0.0.0.0/0", "192.168.0.0/17"]
PREFIXES6 = ["fd00::/8", "fd00::/64", "fd00::8000:0:0:0/65", "fd00::1/128", "::/0", "fd00::/127"]
PORTS = [(80, 80), (443, 8443), (1, 65535), (65535, 65535)]
TAGS = [(0,), (5,), (100, 5)]


def _address(net: str, n: int) -> str:
    """One inside a network, or beside it."""
    found = ipaddress.ip_network(net)
    base = int(found.network_address) + n % (found.num_addresses + 2) - 1
    return str(type(found.network_address)(base % (1 << found.max_prefixlen)))


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    """Packets near the borders of the networks and ranges above."""
    nets = draw(st.sampled_from([PREFIXES4, PREFIXES6]))
    ends = [_address(draw(st.sampled_from(nets)), draw(st.integers(0, 9))) for _ in range(2)]
    icmp = P_ICMP if nets is PREFIXES4 else 58
    protocol = draw(st.sampled_from([P_TCP, P_UDP, icmp, 47]))
    numbers = st.sampled_from([1, 79, 80, 81, 442, 443, 8443, 8444, 65534, 65535])
    ports = (draw(numbers), draw(numbers)) if protocol in (P_TCP, P_UDP) else (0, 0)
    return Flow(*ends, protocol, *ports, draw(st.sampled_from([(), (5,), (6,), (100, 5), (5, 100)])))


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    """A rule as lists, for the oracle."""

    def some(values: list[Any]) -> list[Any]:
        return draw(st.lists(st.sampled_from(values), max_size=2))

    nets = draw(st.sampled_from([PREFIXES4, PREFIXES6, PREFIXES4 + PREFIXES6]))
    protocols = some([P_TCP, P_UDP, P_ICMP, 58, 47])
    ported = not protocols or {P_TCP, P_UDP} & set(protocols)
    return {
        "sources": some(nets), "destinations": some(nets), "protocols": protocols,
        "source_ports": some(PORTS) if ported else [], "destination_ports": some(PORTS) if ported else [],
        "vlans": some(TAGS),
    }  # fmt: skip


def table_of(rule: dict[str, Any]) -> dict[str, Any]:
    """The same rule as a table of a config."""
    spans = {key: [f"{a}-{b}" for a, b in rule[key]] for key in ("source_ports", "destination_ports")}
    shown = {
        "source": rule["sources"], "destination": rule["destinations"], "protocol": rule["protocols"],
        "source_port": spans["source_ports"], "destination_port": spans["destination_ports"],
        "vlan": [".".join(map(str, tags)) for tags in rule["vlans"]],
    }  # fmt: skip
    return {"action": "pass", **{key: value for key, value in shown.items() if value}}


def _families(rule: dict[str, Any]) -> bool:
    """Whether source and destination can be of one kind."""
    sides = [{":" in net for net in rule[key]} for key in ("sources", "destinations")]
    return not sides[0] or not sides[1] or bool(sides[0] & sides[1])


BENCH = Bench()


@settings(max_examples=150, deadline=None)
@given(st.lists(rules().filter(_families), min_size=1, max_size=4), st.lists(flows(), min_size=1, max_size=6))
def test_the_first_rule_that_matches_wins(listed: list[dict[str, Any]], packets: list[Flow]) -> None:
    """By networks of both kinds, ports, protocols and VLANs, at and beside their borders, as `ipaddress` has it."""
    BENCH.use(made(**{f"r{i}": table_of(rule) for i, rule in enumerate(listed)}))
    for flow in packets:
        expected = next((i + 1 for i, rule in enumerate(listed) if rule_takes(flow, **rule)), 0)
        BENCH.w[C : C + ROW_WORDS] = 0
        BENCH.w[UNDO_N] = 0
        assert BENCH.classify(frame_of(flow)) == expected
        assert kernel.passes(BENCH.w, C) == (expected != 0)
        assert not kernel.masks(BENCH.w, C)


def test_a_rule_for_another_compare_is_not_in_this_ones_set() -> None:
    """``compare`` names the only compare that has the rule; without it all have it."""
    rules = made(
        other={"action": "pass", "compare": "comp1"}, own={"action": "mask", "bytes": "0", "compare": "comp0"},
        every={"action": "pass"},
    )  # fmt: skip
    bench = Bench()
    bench.use(rules)
    assert bench.classify(frame_of(Flow("10.0.0.1", "10.0.0.2", P_UDP, 1, 2))) == 2
    assert kernel.masks(bench.w, C)
    assert not kernel.passes(bench.w, C)
    assert layout.rule_name(bench.w, RULES, int(bench.w[CMD_RULES]), 2) == "own"
    assert layout.rule_name(bench.w, RULES, int(bench.w[CMD_RULES]), 1) == ""


def test_a_fragment_is_no_packet_of_a_port() -> None:
    """What has no ports falls under rules without ports, by its protocol."""
    fragment = ether(ipv4("10.0.0.1", "10.0.0.2", P_UDP, b"x" * 16, frag=8), 0x0800)
    bench = Bench()
    bench.use(
        made(
            port={"action": "pass", "protocol": "udp", "source_port": "1-65535"},
            all={"action": "pass", "protocol": "udp"},
        )
    )
    assert bench.classify(fragment) == 2


def test_a_connection_is_classified_once_and_after_each_change() -> None:
    """`stale` until it was classified, and again after new rules; counters say how many connections a rule had."""
    flow = frame_of(Flow("10.0.0.1", "10.0.0.2", P_TCP, 80, 4711))
    first, second = made(a={"action": "pass"}), made(b={"action": "pass", "protocol": "udp"}, c={"action": "pass"})
    bench = Bench()
    assert bench.classify(flow) == 0
    bench.use(first)
    assert bench.classify(flow) == 1
    kernel.hit(bench.w, C, 3)
    bench.write(second)
    assert kernel.rules_due(bench.w, bench.row)
    assert not kernel.stale(bench.w, bench.row, C)
    assert bench.burst() == 1
    assert bench.classify() == 2
    assert bench.burst() == 0
    assert not kernel.stale(bench.w, bench.row, C)
    hits, connections = RULES + layout.HITS, RULES + layout.CONNECTIONS
    assert [int(n) for n in bench.w[hits + 1 : hits + 3]] == [3, 0]
    assert [int(n) for n in bench.w[connections + 1 : connections + 3]] == [1, 1]


def test_a_burst_that_never_counted_leaves_no_trace_of_new_rules() -> None:
    """Killed after it went over to a new set: the next burst classifies by it again, and counts once."""
    flow = frame_of(Flow("10.0.0.1", "10.0.0.2", P_TCP, 80, 4711))
    bench = Bench()
    bench.use(made(a={"action": "pass"}))
    bench.classify(flow)
    bench.burst()
    bench.write(made(a={"action": "mask", "regex": "x"}))
    before = bench.w[C : C + ROW_WORDS].copy()
    bench.row = begin(bench.w)
    kernel.take_rules(bench.w, bench.row)
    bench.classify()
    kernel.hit(bench.w, C, 1)
    recover(bench.u8, bench.w, 0)
    assert (bench.w[C : C + ROW_WORDS] == before).all()
    assert not bench.w[RULES + layout.HITS : RULES + layout.HITS + 2].any()
    bench.row = begin(bench.w)
    assert kernel.take_rules(bench.w, bench.row) == 1
    assert bench.classify() == 1
    assert kernel.masks(bench.w, C)
    assert int(bench.w[RULES + layout.CONNECTIONS + 1]) == 2


def test_the_other_copy_is_not_read_while_it_is_written() -> None:
    """At every word that the supervisor has written so far, a connection is classified by the set in force."""
    flow = frame_of(Flow("10.0.0.1", "10.0.0.2", P_TCP, 80, 4711))
    old, new = made(a={"action": "pass", "protocol": "tcp"}), mask("a(b)", bytes="1")
    bench = Bench()
    bench.use(old)
    change = int(bench.w[CMD_RULES]) + 1
    at, words = RULES + layout.COPIES + (change & 1) * layout.COPY_WORDS, new.words("comp0")
    written = np.flatnonzero(words)
    assert len(written) > 10
    for i in written:
        bench.w[at + i] = words[i]
        assert bench.burst() == 0
        bench.w[C : C + ROW_WORDS] = 0
        assert bench.classify(flow) == 1
        assert kernel.passes(bench.w, C)
    bench.w[CMD_RULES] = change
    assert bench.burst() == 1
    assert bench.classify() == 1
    assert kernel.masks(bench.w, C)


# --- masks -----------------------------------------------------------------------------------------------------------
ALPHABET = b"abc\n"


def _render(tree: Any) -> str:
    """A tree of the oracle as text."""
    match tree:
        case ("set", members):
            return "[" + "".join(f"\\x{b:02x}" for b in sorted(members)) + "]"
        case ("then", a, b):
            return f"{_render(a)}{_render(b)}"
        case ("or", a, b):
            return f"(?:{_render(a)}|{_render(b)})"
        case ("star", a):
            return f"(?:{_render(a)})*"
    return ""


def _trees() -> st.SearchStrategy[Any]:
    leaves = st.sets(st.sampled_from(ALPHABET), min_size=1, max_size=3).map(lambda s: one(bytes(s)))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(then, inner, inner),
            st.builds(then, inner, inner),
            st.builds(either, inner, inner),
            inner.map(star),
        ),
        max_leaves=6,
    )


MASKS = st.builds(Mask, _trees(), _trees(), st.booleans())
STREAMS = st.lists(st.tuples(st.sampled_from(ALPHABET), st.sampled_from(ALPHABET), st.integers(0, 2)), max_size=14)


def _text(found: Mask) -> str:
    return f"{'^' if found.anchored else ''}{_render(found.before)}({_render(found.group)})"


def _sides(drawn: list[tuple[int, int, int]]) -> tuple[bytes, bytes]:
    """Two streams that differ in a third of their bytes."""
    return bytes(x for x, _, _ in drawn), bytes(y if n == 0 else x for x, y, n in drawn)


@settings(max_examples=60, deadline=None)
@given(_trees(), st.lists(st.sampled_from(ALPHABET), max_size=6).map(bytes))
def test_the_oracle_reads_expressions_as_python_does(tree: Any, text: bytes) -> None:
    """A rendered tree matches in `re` what it matches by derivatives."""
    assert (re.fullmatch(_render(tree).encode("latin-1"), text) is not None) == matches(tree, text)


@settings(max_examples=200, deadline=None)
@given(st.lists(MASKS, min_size=1, max_size=2), STREAMS, st.booleans(), st.lists(st.integers(0, 14), max_size=3))
def test_streams_agree_where_every_byte_is_equal_or_masked(
    masks: list[Mask], drawn: list[tuple[int, int, int]], begins: bool, cuts: list[int]
) -> None:
    """However the streams are cut into pieces, the first byte that does not agree is where trying says it is."""
    a, b = _sides(drawn)
    BENCH.use(mask(*map(_text, masks)))
    BENCH.classify(frame_of(Flow("10.0.0.1", "10.0.0.2", P_TCP, 80, 4711)))
    agreed = forgiven = 0
    for start, end in zip(sorted({0, *cuts}), [*sorted({0, *cuts})[1:], len(a)], strict=True):
        if agreed < min(start, len(a)):
            break
        same, masked = BENCH.stream(a[start:end], b[start:end], start if begins else -1)
        agreed, forgiven = agreed + same, forgiven + masked
    assert agreed == agreeing(a, b, masks, begins)
    assert forgiven == sum(x != y for x, y in zip(a[:agreed], b[:agreed], strict=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(MASKS, max_size=1), STREAMS, st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=2))
def test_datagrams_agree_where_every_byte_is_equal_masked_or_in_a_range(
    masks: list[Mask], drawn: list[tuple[int, int, int]], spans: list[tuple[int, int]]
) -> None:
    """Behind the UDP header, whose checksum may differ where the mask was needed; no state is kept."""
    a, b = _sides(drawn)
    ranges = [(first, first + more) for first, more in spans]
    keys = {"bytes": [f"{x}-{y}" for x, y in ranges]} if ranges or not masks else {}
    if not masks and not ranges:
        keys, ranges = {"bytes": "3"}, [(3, 3)]
    BENCH.use(mask(*map(_text, masks), **keys))
    BENCH.classify(frame_of(Flow("10.0.0.1", "10.0.0.2", P_UDP, 80, 4711)))
    expected = agreeing(a, b, masks, True, ranges)
    state = BENCH.w[C + C_MASK_P], BENCH.w[C + C_MASK_S]
    assert BENCH.datagram(b"headerAA" + a, b"headerAA" + b, UDP)[0] == 8 + expected
    same, forgiven = BENCH.datagram(b"headerAA" + a, b"headerBB" + b, UDP)
    assert same == (8 + expected if forgiven or expected < len(a) else 6)
    assert forgiven == sum(x != y for x, y in zip(a[:expected], b[:expected], strict=True))
    assert BENCH.datagram(b"heXderAA" + a, b"headerAA" + b, UDP) == (2, 0)
    assert BENCH.datagram(a, b, IP)[0] == expected
    assert (BENCH.w[C + C_MASK_P], BENCH.w[C + C_MASK_S]) == state


@pytest.mark.parametrize(
    ("verdict", "first", "second", "expected"),
    [
        (ICMP, b"\0\0AAiiss1234", b"\0\0BBiiss1X34", (12, 1)),
        (ICMP, b"\0\0AAiiss1234", b"\0\0BBiiss1234", (2, 0)),
        (ICMP, b"\0\0AAiiss1234", b"\0\0BBiiXs1X34", (2, 0)),
        (ICMP, b"\0\0AAiiss1234", b"\0\0BBiiss12X4", (10, 0)),
        (UDP, b"ports__", b"ports_X", (6, 0)),
        (FRAGMENT, b"0123456789", b"012345678X", (9, 0)),
    ],
)
def test_a_checksum_may_differ_only_with_what_is_masked(
    verdict: int, first: bytes, second: bytes, expected: tuple[int, int]
) -> None:
    """ICMP and UDP, with a mask of byte 1 of the payload; a fragment is compared as it is."""
    bench = Bench()
    bench.use(mask(bytes="1"))
    bench.classify(frame_of(Flow("10.0.0.1", "10.0.0.2", P_UDP, 80, 4711)))
    assert bench.datagram(first, second, verdict) == expected


def test_a_date_and_a_cookie_are_masked_and_nothing_else() -> None:
    """The expressions that the page on rules shows, on an answer that comes in pieces of every length."""
    text = "HTTP/1.1 200 OK\r\nDate: {}\r\nSet-Cookie: a=b; sid={}; Path=/\r\nX: {}\r\n\r\n{}"
    a = text.format("Mon, 23 Nov 2026 07:00:00 GMT", "00ff", "same", "sid=12").encode()
    b = text.format("Mon, 23 Nov 2026 07:00:01 GMT", "ab12", "same", "sid=13").encode()
    for step in (1, 2, 7, len(a)):
        bench = Bench()
        bench.use(mask(r"\r\nDate: ([^\r\n]*)", r"; sid=([0-9a-f]*)"))
        bench.classify(frame_of(Flow("10.0.0.1", "10.0.0.2", P_TCP, 80, 4711)))
        agreed = forgiven = 0
        for at in range(0, len(a), step):
            same, masked = bench.stream(a[at : at + step], b[at : at + step], at)
            agreed, forgiven = agreed + same, forgiven + masked
            if agreed < min(at + step, len(a)):
                break
        assert agreed == len(a) - 1  # "sid=" in the body has no "; " before it
        assert forgiven == 5


def test_byte_ranges_count_from_the_first_byte_after_the_syn() -> None:
    """Not in a stream whose beginning was not seen, and not again after 4 GiB."""
    flow = frame_of(Flow("10.0.0.1", "10.0.0.2", P_TCP, 80, 4711))
    bench = Bench()
    bench.use(mask(bytes="2-3,5"))
    bench.classify(flow)
    assert bench.stream(b"01", b"01", 0) == (2, 0)
    assert bench.stream(b"abcdef", b"XYcXeX", -1) == (5, 3)  # what it is told later does not matter
    bench.use(mask(bytes="2-3"))
    bench.classify(flow)
    assert bench.stream(b"0123", b"01X3", -1) == (2, 0)
    bench.use(mask(bytes="2-3"))
    bench.classify(flow)
    assert bench.stream(b"3", b"X", 3) == (1, 1)
    bench.w[C + C_MASK_P] = (1 << 32) << layout.POSITION
    assert bench.stream(b"0123", b"01X3", 0) == (2, 0)


def test_after_a_restart_the_middle_of_a_stream_is_not_its_beginning() -> None:
    """``^`` holds at offset 0 only; a new life of the connection begins there again."""
    flow = frame_of(Flow("10.0.0.1", "10.0.0.2", P_TCP, 80, 4711))
    bench = Bench()
    bench.use(mask("^a(b*)"))
    bench.classify(flow)
    assert bench.stream(b"ab", b"ab", 0) == (2, 0)
    kernel.restart(bench.w, C)
    assert bench.stream(b"ab", b"aX", 2) == (1, 0)
    bench.use(mask("^a([bX]*)"))
    bench.classify(flow)
    kernel.restart(bench.w, C)
    assert bench.stream(b"ab", b"aX", 2) == (1, 0)
    kernel.restart(bench.w, C)
    assert bench.stream(b"ab", b"aX", 0) == (2, 1)


def test_a_mask_that_was_deleted_forgives_nothing_even_before_the_next_packet() -> None:
    """A connection that has not been classified anew is compared byte for byte once its rule is gone."""
    flow = frame_of(Flow("10.0.0.1", "10.0.0.2", P_TCP, 80, 4711))
    bench = Bench()
    rules = mask("a(.*)")
    bench.use(rules)
    bench.classify(flow)
    assert bench.stream(b"abc", b"aXX", 0) == (3, 2)
    bench.write(rules.without("m").added("m", rules.kept[0].rule))  # the same text under the same number: another rule
    bench.burst()
    assert bench.stream(b"bc", b"bX", 3) == (1, 0)
    bench.classify()
    assert (bench.w[C + C_MASK_P], bench.w[C + C_MASK_S]) == (0, 0)
    assert bench.stream(b"abc", b"aXX", 4) == (3, 2)


def test_a_mask_stays_in_its_state_while_other_rules_come_and_go() -> None:
    """A header that is half through when a rule is added is masked to its end."""
    flow = frame_of(Flow("10.0.0.1", "10.0.0.2", P_TCP, 80, 4711))
    bench = Bench()
    rules = mask("a([^\n]*)")
    bench.use(rules)
    bench.classify(flow)
    assert bench.stream(b"ab", b"aX", 0) == (2, 1)
    udp, _ = from_table("u", {"action": "pass", "protocol": "udp"}, ["comp0"])
    bench.write(rules.added("u", udp, before="m"))
    bench.burst()
    assert bench.classify() == 1
    assert bench.stream(b"b", b"X", 2) == (1, 1)


def test_the_area_is_laid_out_without_overlap() -> None:
    """Counters, both copies, and within a copy header, order, records, items, text and automata."""
    assert layout.CONNECTIONS == layout.HITS + layout.RULES + 1
    assert layout.COPIES >= layout.CONNECTIONS + layout.RULES + 1
    assert layout.COPIES + 2 * layout.COPY_WORDS == layout.WORDS == 1 << 17
    assert max(layout.COPY_COUNT, layout.COPY_TEXT_BYTES) < layout.COPY_ORDER
    assert layout.R_NAME + layout.NAME_BYTES // 8 <= layout.RECORD_WORDS
    assert layout.R_NAME > max(layout.R_AUTOMATON, layout.R_CLASSES, layout.R_STATES) > layout.R_BYTES + 1
    assert layout.COPY_AUTOMATA < layout.COPY_WORDS
    assert layout.AUTOMATA_BYTES > 400_000
    assert layout.automaton_bytes(3, 3) == layout.CLASSES + 24
    assert 2 * layout.MAX_STATES + 1 <= layout.STATE
