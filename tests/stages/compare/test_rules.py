"""Rules in the compare's kernels against plain Python: which rule a connection falls under, and when that changes."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ring import layout as ring_layout
from ring.kernels.ledger import begin, recover
from stages.compare.kernels import rules as kernel
from stages.compare.layout import conns
from stages.compare.layout import rules as rule_words
from tests.oracle.rules import Flow, rule_takes
from tests.packets import P_ICMP, P_TCP, P_UDP, ether, ipv4
from tests.stages.compare.rules_bench import RULES, Bench, C, frame_of, made, mask

PREFIXES4 = ["10.0.0.0/8", "10.0.0.0/30", "10.0.0.1/32", "0.0.0.0/0", "192.168.0.0/17"]
PREFIXES6 = ["fd00::/8", "fd00::/64", "fd00::8000:0:0:0/65", "fd00::1/128", "::/0", "fd00::/127"]
PORTS = [(80, 80), (443, 8443), (1, 65535), (65535, 65535)]
TAGS = [(0,), (5,), (100, 5), (100, 5, 7), (100, 5, 7, 9)]


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
    return Flow(
        *ends,
        protocol,
        *ports,
        draw(st.sampled_from([(), (5,), (6,), (100, 5), (5, 100), (100, 5, 7), (100, 5, 7, 9), (100, 5, 9, 7)])),
    )


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
        BENCH.w[C : C + conns.WORDS] = 0
        BENCH.w[ring_layout.UNDO_N] = 0
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
    assert rule_words.rule_name(bench.w, RULES, int(bench.w[ring_layout.CMD_RULES]), 2) == "own"
    assert rule_words.rule_name(bench.w, RULES, int(bench.w[ring_layout.CMD_RULES]), 1) == ""


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
    hits, connections = RULES + rule_words.HITS, RULES + rule_words.CONNECTIONS
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
    before = bench.w[C : C + conns.WORDS].copy()
    bench.row = begin(bench.w)
    kernel.take_rules(bench.w, bench.row)
    bench.classify()
    kernel.hit(bench.w, C, 1)
    recover(bench.u8, bench.w, 0)
    assert (bench.w[C : C + conns.WORDS] == before).all()
    assert not bench.w[RULES + rule_words.HITS : RULES + rule_words.HITS + 2].any()
    bench.row = begin(bench.w)
    assert kernel.take_rules(bench.w, bench.row) == 1
    assert bench.classify() == 1
    assert kernel.masks(bench.w, C)
    assert int(bench.w[RULES + rule_words.CONNECTIONS + 1]) == 2


def test_the_other_copy_is_not_read_while_it_is_written() -> None:
    """At every word that the supervisor has written so far, a connection is classified by the set in force."""
    flow = frame_of(Flow("10.0.0.1", "10.0.0.2", P_TCP, 80, 4711))
    old, new = made(a={"action": "pass", "protocol": "tcp"}), mask("a(b)", bytes="1")
    bench = Bench()
    bench.use(old)
    change = int(bench.w[ring_layout.CMD_RULES]) + 1
    at, words = RULES + rule_words.COPIES + (change & 1) * rule_words.COPY_WORDS, new.words("comp0")
    written = np.flatnonzero(words)
    assert len(written) > 10
    for i in written:
        bench.w[at + i] = words[i]
        assert bench.burst() == 0
        bench.w[C : C + conns.WORDS] = 0
        assert bench.classify(flow) == 1
        assert kernel.passes(bench.w, C)
    bench.w[ring_layout.CMD_RULES] = change
    assert bench.burst() == 1
    assert bench.classify() == 1
    assert kernel.masks(bench.w, C)


def test_the_area_is_laid_out_without_overlap() -> None:
    """Counters, both copies, and within a copy header, order, records, items, text and automata."""
    assert rule_words.CONNECTIONS == rule_words.HITS + rule_words.RULES + 1
    assert rule_words.COPIES >= rule_words.CONNECTIONS + rule_words.RULES + 1
    assert rule_words.COPIES + 2 * rule_words.COPY_WORDS == rule_words.WORDS == 1 << 17
    assert max(rule_words.COPY_COUNT, rule_words.COPY_TEXT_BYTES) < rule_words.COPY_ORDER
    assert rule_words.RULE_NAME + rule_words.NAME_BYTES // 8 <= rule_words.RECORD_WORDS
    assert (
        rule_words.RULE_NAME
        > max(rule_words.RULE_AUTOMATON, rule_words.RULE_CLASSES, rule_words.RULE_STATES)
        > rule_words.RULE_BYTES + 1
    )
    assert rule_words.COPY_AUTOMATA < rule_words.COPY_WORDS
    assert rule_words.AUTOMATA_BYTES > 400_000
    assert rule_words.automaton_bytes(3, 3) == rule_words.CLASSES + 24
    assert 2 * rule_words.MAX_STATES + 1 <= rule_words.STATE
