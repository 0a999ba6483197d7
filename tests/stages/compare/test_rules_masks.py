"""Masks in the compare's kernels against plain Python: which differences are forgiven, in streams and datagrams."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.compare.kernels import rules as kernel
from stages.compare.layout import conns
from stages.compare.layout import rules as rule_words
from stages.compare.rules.rule_set import from_table
from stages.packets.layout import transports
from tests.oracle.rules import Flow, Mask, agreeing, either, matches, one, star, then
from tests.packets import P_TCP, P_UDP
from tests.stages.compare.rules_bench import Bench, C, frame_of, mask

BENCH = Bench()
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
    state = BENCH.w[C + conns.PRIMARY_MASK], BENCH.w[C + conns.SECONDARY_MASK]
    assert BENCH.datagram(b"headerAA" + a, b"headerAA" + b, transports.UDP)[0] == 8 + expected
    same, forgiven = BENCH.datagram(b"headerAA" + a, b"headerBB" + b, transports.UDP)
    assert same == (8 + expected if forgiven or expected < len(a) else 6)
    assert forgiven == sum(x != y for x, y in zip(a[:expected], b[:expected], strict=True))
    assert BENCH.datagram(b"heXderAA" + a, b"headerAA" + b, transports.UDP) == (2, 0)
    assert BENCH.datagram(a, b, transports.IP)[0] == expected
    assert (BENCH.w[C + conns.PRIMARY_MASK], BENCH.w[C + conns.SECONDARY_MASK]) == state


@pytest.mark.parametrize(
    ("transport", "first", "second", "expected"),
    [
        (transports.ICMP, b"\0\0AAiiss1234", b"\0\0BBiiss1X34", (12, 1)),
        (transports.ICMP, b"\0\0AAiiss1234", b"\0\0BBiiss1234", (2, 0)),
        (transports.ICMP, b"\0\0AAiiss1234", b"\0\0BBiiXs1X34", (2, 0)),
        (transports.ICMP, b"\0\0AAiiss1234", b"\0\0BBiiss12X4", (10, 0)),
        (transports.UDP, b"ports__", b"ports_X", (6, 0)),
        (transports.FRAGMENT, b"0123456789", b"012345678X", (9, 0)),
    ],
)
def test_a_checksum_may_differ_only_with_what_is_masked(
    transport: int, first: bytes, second: bytes, expected: tuple[int, int]
) -> None:
    """ICMP and UDP, with a mask of byte 1 of the payload; a fragment is compared as it is."""
    bench = Bench()
    bench.use(mask(bytes="1"))
    bench.classify(frame_of(Flow("10.0.0.1", "10.0.0.2", P_UDP, 80, 4711)))
    assert bench.datagram(first, second, transport) == expected


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
    bench.w[C + conns.PRIMARY_MASK] = (1 << 32) << rule_words.POSITION
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
    assert (bench.w[C + conns.PRIMARY_MASK], bench.w[C + conns.SECONDARY_MASK]) == (0, 0)
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


def test_each_side_has_a_state_of_its_own() -> None:
    """Two forms of the group, one on each side, cut in the middle."""
    bench = Bench()
    bench.use(mask("a(bc|dd)"))
    bench.classify(frame_of(Flow("10.0.0.1", "10.0.0.2", P_TCP, 80, 4711)))
    assert bench.stream(b"ab", b"ad", 0) == (2, 1)
    assert bench.stream(b"c", b"d", 2) == (1, 1)
    assert bench.stream(b"b", b"X", 3) == (0, 0)
