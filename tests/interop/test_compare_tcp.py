"""TCP: QEMU's colo-compare and ours, one frame at a time, where QEMU is right: the same verdicts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.interop.compare_pair import Scenario
from tests.interop.compare_rows import Row
from tests.packets import ACK, FIN, MOD, PSH, RST, SYN
from tools import qemu

pytest_plugins = ("tests.interop.compare_plugin",)
pytestmark = pytest.mark.skipif(not qemu.available(), reason=f"needs Debian's package {qemu.PACKAGE}")
Make = Callable[..., Scenario]
DATA = bytes(range(1, 41))


def handshake(s: Scenario, isn: int, other: int = 77_777, **more: Any) -> None:
    """SYN+ACK of both; the primary's leaves both with the secondary's."""
    syn = s.seg(isn, flags=SYN | ACK, **more)
    assert s.primary(syn).out == ([], [])
    assert s.secondary(s.seg(other, flags=SYN | ACK, **more)).out == ([syn], [syn])


def cut(s: Scenario, isn: int, size: int, data: bytes = DATA, **more: Any) -> list[bytes]:
    """``data`` in segments of ``size`` bytes."""
    return [s.seg(isn + 1 + i, data[i : i + size], ACK | PSH, **more) for i in range(0, len(data), size)]


@pytest.mark.parametrize("first", ["primary", "secondary"])
@pytest.mark.parametrize("isn", [0, 1_000, MOD // 2 - 20, MOD - 21, MOD - 1])
def test_the_same_segmentation(scenario: Make, isn: int, first: str) -> None:
    """A segment leaves both as soon as the second of the two has sent it."""
    with scenario() as s:
        handshake(s, isn)
        for frame in cut(s, isn, 10):
            one, two = (s.primary, s.secondary) if first == "primary" else (s.secondary, s.primary)
            assert one(frame).out == ([], [])
            assert two(frame).out == ([frame], [frame])
        assert s.asked == [0, 0]


@pytest.mark.parametrize("mine", [1, 7, 10, 40])
@pytest.mark.parametrize("theirs", [1, 3, 10, 13, 40])
@pytest.mark.parametrize("way", ["primary first", "secondary first", "in turn"])
def test_another_segmentation_is_no_difference(scenario: Make, mine: int, theirs: int, way: str) -> None:
    """Whatever the segments: everything leaves, nobody asks."""
    with scenario() as s:
        handshake(s, 1_000)
        p = [("primary_in", frame) for frame in cut(s, 1_000, mine)]
        q = [("secondary_in", frame) for frame in cut(s, 1_000, theirs)]
        turns = [x for pair in itertools.zip_longest(p, q) for x in pair if x is not None]
        step = s.play({"primary first": p + q, "secondary first": q + p, "in turn": turns}[way])
        assert step.out == ([frame for _, frame in p], [frame for _, frame in p])
        assert s.asked == [0, 0]


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("offset", range(-3, 4))
@pytest.mark.parametrize("cuts", [(1, 1), (4, 1), (1, 4), (2, 3)])
def test_sequence_numbers_wrap_at_every_byte(scenario: Make, at: int, offset: int, cuts: tuple[int, int]) -> None:
    """A stream of eight bytes whose byte ``at`` has the number 2^32 + ``offset``."""
    isn = (MOD + offset - at - 1) % MOD
    with scenario() as s:
        handshake(s, isn)
        mine, theirs = (cut(s, isn, size, DATA[:8]) for size in cuts)
        order = itertools.zip_longest(mine, theirs)
        for p, q in order:
            if p is not None:
                s.primary(p)
            if q is not None:
                s.secondary(q)
        assert s.all == (s.fed, s.fed) and s.asked == [0, 0]


@pytest.mark.parametrize("offset", range(-3, 4))
@pytest.mark.parametrize("step", [1, 2, 5])
def test_acknowledgements_wrap(scenario: Make, offset: int, step: int) -> None:
    """Both acknowledge the client's bytes across 2^32; equal acknowledgements hold nothing up in either."""
    with scenario() as s:
        handshake(s, 1_000, ack=(MOD + offset - 2 * step) % MOD)
        for i, frame in enumerate(cut(s, 1_000, 10)):
            data = frame[54:]
            new = s.seg(1_001 + 10 * i, data, ack=(MOD + offset + (i - 2) * step) % MOD)
            s.secondary(new)
            assert s.primary(new).out == ([new], [new])
        assert s.asked == [0, 0]


def test_several_flows_do_not_touch_each_other(scenario: Make) -> None:
    """Three connections interleaved, one of which waits: the others go on."""
    with scenario() as s:
        ports = (4000, 4001, 4002)
        for i, port in enumerate(ports):
            handshake(s, 1_000 * (i + 1), port=port)
        waiting = s.seg(1_001, b"nobody else has said this", port=4000)
        s.primary(waiting)
        for i, port in enumerate(ports[1:], 1):
            for frame in cut(s, 1_000 * (i + 1), 9, port=port):
                s.primary(frame)
                assert s.secondary(frame).out == ([frame], [frame])
        assert waiting not in s.all[0] + s.all[1]
        assert s.asked == [0, 0]


@pytest.mark.parametrize("at", [0, 1, 17, 39])
@pytest.mark.parametrize("cuts", [(40, 40), (10, 40), (40, 10), (7, 13)])
@pytest.mark.parametrize("first", ["primary", "secondary"])
def test_a_byte_that_differs_asks_and_nothing_from_there_on_leaves(
    scenario: Make, at: int, cuts: tuple[int, int], first: str
) -> None:
    """True divergence, at the edges of the stream and of a segment."""
    wrong = DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :]
    with scenario() as s:
        handshake(s, 1_000)
        mine = cut(s, 1_000, cuts[0])
        arrivals = [("primary_in", frame) for frame in mine]
        theirs = [("secondary_in", frame) for frame in cut(s, 1_000, cuts[1], wrong)]
        step = s.play(arrivals + theirs if first == "primary" else theirs + arrivals)
        good = mine[: at // cuts[0]]
        assert step.out == (good, good)
        assert step.asks[0] >= 1 and step.asks[1] == 1


def test_after_the_checkpoint_both_go_on(scenario: Make) -> None:
    """What was held leaves, in both; the connection goes on from there, and the next difference is asked for again."""
    with scenario() as s:
        handshake(s, 1_000)
        p = s.seg(1_001, b"hello")
        s.primary(p)
        assert s.secondary(s.seg(1_001, b"HELLO")).asks == (1, 1)
        assert s.checkpoint().out == ([p], [p])
        q = s.seg(1_006, b"world")
        s.primary(q)
        assert s.secondary(q).out == ([q], [q])
        s.primary(s.seg(1_011, b"one"))
        assert s.secondary(s.seg(1_011, b"two")).asks == (1, 1)


def test_close_and_reset_that_both_send(scenario: Make) -> None:
    """FIN by both, then RST by both: each leaves both with the second."""
    with scenario() as s:
        handshake(s, 1_000)
        for flags, seq in ((FIN | ACK, 1_001), (RST | ACK, 1_002)):
            frame = s.seg(seq, flags=flags)
            assert s.primary(frame).out == ([], [])
            assert s.secondary(frame).out == ([frame], [frame])


def test_a_stream_without_a_handshake(scenario: Make) -> None:
    """Connections older than the compare are compared from their first segment on."""
    with scenario() as s:
        for i in range(3):
            frame = s.seg(900 + 5 * i, b"hello")
            s.primary(frame)
            assert s.secondary(frame).out == ([frame], [frame])
        s.primary(s.seg(915, b"hello"))
        assert s.secondary(s.seg(915, b"hellO")).asks == (1, 1)


@pytest.mark.parametrize("gap", [1, 3])
def test_the_primary_reordered(scenario: Make, gap: int) -> None:
    """The primary's segments arrive out of order: both release in the order of the stream once all are said."""
    with scenario() as s:
        handshake(s, 1_000)
        mine = cut(s, 1_000, 10)
        order = [mine[i] for i in ((1, 0, 3, 2) if gap == 1 else (3, 0, 1, 2))]
        s.primary(*order)
        for frame in mine:
            s.secondary(frame)
        assert s.all == ([s.fed[0], *mine], [s.fed[0], *mine]) and s.asked == [0, 0]


def test_both_send_again_what_was_not_compared_yet(scenario: Make) -> None:
    """Two copies on each side: two leave."""
    with scenario() as s:
        handshake(s, 1_000)
        frame = s.seg(1_001, b"twice")
        s.primary(frame, frame)
        s.secondary(frame, frame)
        assert s.all[1] == s.fed and s.asked == [0, 0]


@pytest.mark.parametrize("reversed_order", [False, True])
def test_at_full_speed_the_same_frames_leave(scenario: Make, reversed_order: bool) -> None:
    """Thirty connections of four segments, written at once to both sockets, and one burst in ours."""
    with scenario() as s:
        arrivals, sides = [], ("primary_in", "secondary_in")
        for i in range(30):
            port = 10_000 + i
            for k, side in enumerate(sides):
                frames = [s.seg(1_000 * i + 50_000 * k, flags=SYN | ACK, port=port)]
                frames += cut(s, 1_000 * i, 10 + 3 * k, port=port)
                arrivals += [(side, frame) for frame in frames]
        s.burst(sorted(arrivals, key=lambda a: a[0], reverse=reversed_order))
        assert sorted(s.all[0]) == sorted(s.all[1]) == sorted(s.fed)
        assert s.asked == [0, 0]


def test_acknowledgements_without_data_that_both_send(scenario: Make) -> None:
    """Equal pure acknowledgements: with the secondary's at the latest in both."""
    with scenario({Row.ACKS}) as s:
        handshake(s, 1_000)
        for ack in (5_001, 5_002, 7_000):
            frame = s.seg(1_001, ack=ack)
            s.primary(frame)
            assert s.secondary(frame).out == ([frame], [frame])
        assert not s.used
