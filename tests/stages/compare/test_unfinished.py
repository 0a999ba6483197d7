"""colo-compare: datagrams that never become whole, on either side: the same of both is no difference."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ring import layout
from tests.oracle.compare import Compare as Oracle
from tests.packets import P_UDP, ip_frame, udp_frame
from tests.rig import Rig
from tests.stages.compare.audit import audit
from tests.stages.compare.fragment_scenes import V4, V6, body, even, never_whole, piece, primary, secondary
from tests.stages.compare.test_compare import ASK, MS, check, rig
from tests.stages.compare.test_fragments_oracle import settings_here

BOTH = pytest.mark.parametrize("pair", [V4, V6], ids=["v4", "v6"])
Halves = tuple[list[bytes], list[bytes]]


def deadline(g: Rig, now: int = 3100) -> tuple[list[bytes], dict[str, int]]:
    """What leaves when the time of everything held is over, and the counters."""
    g.run(now=now * MS)
    audit(g)
    return g.take("outdev"), check(g)


def halves(pair: tuple[str, str]) -> dict[str, Halves]:
    """What both replicas send of one datagram, by how that differs where it is no difference."""
    whole = body(2400, pair=pair)
    a, b, c = even(pair, whole, 800)
    _, _, late = even(pair, whole, 800, 99)
    small = even(pair, whole, 400, 99)
    return {
        "the first alone": ([a], [a]),
        "another identification": ([a], even(pair, whole, 800, 99)[:1]),
        "the last alone": ([c], [late]),
        "a hole in the middle": ([a, c], [a, c]),
        "another order": ([a, c], [c, a]),
        "cut otherwise": ([a, c], [*small[4:], *small[:2]]),
        "once and twice": ([a, b, a], [b, a]),
        "no end is known": ([a, b], small[:4]),
    }


@pytest.mark.parametrize("kind", halves(V4))
@BOTH
def test_the_same_half_of_a_datagram_on_both_sides_is_no_difference(pair: tuple[str, str], kind: str) -> None:
    """It leaves at the deadline of its first fragment; nobody is asked for a checkpoint."""
    mine, theirs = halves(pair)[kind]
    with rig() as g:
        assert primary(g, *mine, now=1) == secondary(g, *theirs, now=1000 * MS) == []
        assert deadline(g, 2999)[0] == []
        out, c = deadline(g, 3001)
        assert out == mine
        assert (c["released"], c["matched"], c["held"]) == (len(mine), len(theirs), 0)
        assert (c["fragments_unfinished"], c["fragments"]) == (len(mine) + len(theirs), 0)
        assert (c["divergences"], c["checkpoints_asked"]) == (0, 0) and g.take("notify_out") == []
    with rig() as g:  # the secondary's deadline comes first
        assert secondary(g, *theirs, now=1) == primary(g, *mine, now=1000 * MS) == []
        out, c = deadline(g, 3001)
        assert out == mine and (c["held"], c["divergences"]) == (0, 0)


@pytest.mark.parametrize("kind", never_whole(V4))
@BOTH
def test_the_same_contradictions_on_both_sides_are_no_difference(pair: tuple[str, str], kind: str) -> None:
    """Overlaps, two ends, empty pieces; in another order they are the same, unless that one has a whole datagram."""
    frames = never_whole(pair)[kind]
    orders = [frames] if kind == "other bytes at the same place" else [frames, frames[::-1]]
    for theirs in orders:
        with rig() as g:
            assert primary(g, *frames) == secondary(g, *theirs) == []
            out, c = deadline(g)
            assert out == frames
            assert (c["held"], c["divergences"], c["fragments_unfinished"]) == (0, 0, 2 * len(frames))


def others(pair: tuple[str, str]) -> dict[str, Halves]:
    """What both replicas send of one datagram, by what is a difference."""
    whole = body(2400, pair=pair)
    a, b, c = even(pair, whole, 800)
    changed = even(pair, whole[:790] + b"\xff" + whole[791:], 800)
    crossed = [piece(pair, whole[:800], 0, True), piece(pair, bytes(800), 400, True)]
    found = {
        "one byte": ([a, c], [changed[0], c]),
        "nothing of the other": ([a], []),
        "another half": ([a], [b]),
        "a part of it": ([a, b], [a]),
        "as many bytes elsewhere": ([a, b], [b, c]),
        "the end": ([a, piece(pair, whole[1600:], 1600, True)], [a, c]),
        "whole on one side": ([a, b], [a, b, c]),
        "not cut on one side": ([a, c], [ip_frame(*pair, P_UDP, whole)]),
        "a contradiction on one side": ([a, b], [a, b, changed[0]]),
        "other contradictions": (crossed, [crossed[0], piece(pair, bytes(800), 408, True)]),
        "one contradiction more": (crossed, [*crossed, piece(pair, bytes(8), 16, True)]),
    }
    if pair == V6:
        found["another protocol"] = ([a], [piece(pair, whole[:800], 0, True, proto=99)])
    return found


@pytest.mark.parametrize(("pair", "kind"), [(pair, kind) for pair in (V4, V6) for kind in others(pair)])
@pytest.mark.parametrize("swapped", [False, True], ids=["", "sides exchanged"])
def test_halves_that_are_not_the_same_are_a_difference(pair: tuple[str, str], kind: str, swapped: bool) -> None:
    """As any packet that the other side did not send: a checkpoint is asked for."""
    mine, theirs = others(pair)[kind][:: -1 if swapped else 1]
    with rig() as g:
        assert primary(g, *mine) == secondary(g, *theirs) == []
        out, c = deadline(g)
        assert out == [] and (c["divergences"], c["diverged_timeout"], c["fragments_unfinished"]) == (1, 1, 0)
        assert g.take("notify_out") == [ASK]


@BOTH
def test_halves_of_several_datagrams_meet_their_own(pair: tuple[str, str]) -> None:
    """Two of three are the same, one of them twice; another host's half is not taken for one of them."""
    groups = [even(pair, body(1600, pair=pair, seed=i), 800, i) for i in (1, 2, 1, 3)]
    theirs = [even(pair, body(1600, pair=pair, seed=i), 800, 10 * n) for n, i in enumerate((2, 1, 4, 1))]
    foreign = even(("10.0.0.2", "10.0.0.77"), body(1600), 800)[0]
    mine = [piece(pair, body(1600, pair=pair, seed=i)[:800], 0, True, 20 + n) for n, i in enumerate((1, 2, 1, 3))]
    with rig(checkpoint="local") as g:
        assert primary(g, *mine, foreign) == []
        assert secondary(g, *(group[0] for group in theirs)) == []
        out, c = deadline(g)
        assert out == [*mine, foreign] and len(groups) == 4
        assert (c["fragments_unfinished"], c["divergences"], c["held"]) == (6, 3, 0)  # seeds 3 and 4, and the foreign
        assert (c["released"], c["matched"], c["dropped_diverged"]) == (5, 3, 1)


@BOTH
def test_what_comes_later_of_a_settled_half_is_compared_as_well(pair: tuple[str, str]) -> None:
    """The rest of both is settled like the first half; the rest of one alone is a difference."""
    a, b, c = even(pair, body(2400, pair=pair), 800)
    with rig() as g:
        primary(g, a)
        secondary(g, a)
        assert deadline(g, 3001)[0] == [a]
        assert primary(g, b, c, now=3002 * MS) == secondary(g, c, b, now=3002 * MS) == []
        out, counters = deadline(g, 6003)
        assert out == [b, c] and (counters["divergences"], counters["fragments_unfinished"]) == (0, 6)
        assert secondary(g, b, now=6004 * MS) == []
        assert deadline(g, 9005)[1]["diverged_timeout"] == 1


def test_a_copy_that_comes_after_its_datagram_on_both_sides_is_no_difference() -> None:
    a, b = even(V4, body(1600), 800)
    with rig() as g:
        assert primary(g, a, b, a) == []
        assert secondary(g, a, b, a) == [a, b]
        out, c = deadline(g)
        assert out == [a] and (c["divergences"], c["held"]) == (0, 0)


def test_a_half_waits_for_room_in_outdev_and_then_leaves() -> None:
    a = even(V4, body(3000), 1480)[0]
    filler = udp_frame(*V4, 5, 5, bytes(1400))
    with rig(ring_size=1 << 12) as g:
        assert primary(g, a) == secondary(g, a) == []
        for _ in range(2):
            g.feed("primary_in", filler)
            g.feed("secondary_in", filler)
            g.run(now=1)
        g.run(now=3001 * MS)
        assert g.segment.w[layout.BLOCKED] != 0 and check(g)["held"] == 2
        assert g.take("outdev") == [filler] * 2
        out, c = deadline(g, 3002)
        assert out == [a] and (c["divergences"], c["held"]) == (0, 0)


@pytest.mark.parametrize(
    "limits", [{"max_queue_size": 4}, {"hold_memory": 1 << 16, "max_queue_size": 1024}], ids=["queue", "slots"]
)
@pytest.mark.parametrize("checkpoint", ["frame", "local"])
def test_a_flood_of_halves_stops_nobody(limits: dict[str, int], checkpoint: str) -> None:
    """More than can be held: the oldest leave before their time, and a datagram behind them is compared."""
    mine = [piece(V4, body(1600, seed=i)[:800], 0, True, i) for i in range(200)]
    theirs = [piece(V4, body(1600, seed=i)[:800], 0, True, 500 + i) for i in range(200)]
    behind = udp_frame(*V4, 1, 2, b"behind them")
    with rig(checkpoint=checkpoint, **limits) as g:
        g.feed("primary_in", *mine, behind)
        g.feed("secondary_in", *theirs, behind)
        g.run(now=2)
        audit(g)
        c = check(g)
        assert (c["divergences"], c["checkpoints_asked"]) == (0, 0) and c["held"] > 0
        out = g.take("outdev")
        assert behind in out
        out += deadline(g)[0]
        assert [frame for frame in out if frame != behind] == mine
        c = check(g)
        assert (c["divergences"], c["held"], c["fragments_unfinished"]) == (0, 0, 400)


def test_full_queues_of_halves_that_differ_are_a_difference() -> None:
    """Nothing of them may leave before a checkpoint."""
    with rig(max_queue_size=4) as g:
        g.feed("primary_in", *(piece(V4, body(1600, seed=i)[:800], 0, True, i) for i in range(5)))
        g.feed("secondary_in", *(piece(V4, body(1600, seed=i)[:800], 0, True, i) for i in range(10, 15)))
        g.run(now=2)
        c = check(g)
        assert g.take("outdev") == [] and (c["diverged_stuck"], c["fragments_unfinished"]) == (1, 0)


def test_a_restart_between_the_halves() -> None:
    a, _, c = even(V4, body(2400), 800)
    with rig() as g:
        assert primary(g, a) == []
        g.restart()
        assert secondary(g, c, a, now=10) == []
        g.restart()
        assert primary(g, c, now=20) == []
        g.restart()
        assert deadline(g)[0] == [a, c]
        assert check(g)["divergences"] == 0


# --- against the oracle ---------------------------------------------------------------------------------------------
@st.composite
def _arrivals(draw: st.DrawFn) -> list[tuple[str, bytes]]:
    """Pieces of some datagrams of one conversation, of which none becomes whole; each side cuts in its own way."""
    pair = draw(st.sampled_from([V4, V6]))
    ways: list[tuple[str, Iterable[bytes]]] = []
    for i in range(draw(st.integers(1, 4))):
        whole = body(88, draw(st.integers(1, 2)), pair, seed=draw(st.integers(0, 1)))
        kept = draw(st.sets(st.integers(0, 10), min_size=1, max_size=10))
        for port in ("primary_in", "secondary_in"):
            marks = {8 * n for n in range(11) if (n in kept) != (n - 1 in kept)}
            marks |= {8 * n for n in draw(st.sets(st.integers(1, 10)))}
            ident = 10 * i + draw(st.integers(1, 9))
            frames = _pieces(pair, whole, sorted({0, 88, *marks}), kept, ident)
            spoilt = draw(st.integers(0, 7))
            if spoilt == 0:
                frames.append(draw(st.sampled_from(frames)))
            elif spoilt == 1:
                frames.append(piece(pair, bytes(8), 8 * draw(st.integers(0, 9)), True, ident))
            elif spoilt == 2 and len(frames) > 1:
                frames.pop()
            ways.append((port, draw(st.permutations(frames))))
    tickets = draw(st.permutations([n for n, (_, frames) in enumerate(ways) for _ in frames]))
    queues = [iter(frames) for _, frames in ways]
    return [(ways[n][0], next(queues[n])) for n in tickets]


def _pieces(pair: tuple[str, str], whole: bytes, edges: list[int], kept: set[int], ident: int) -> list[bytes]:
    spans = [(a, b) for a, b in pairwise(edges) if a // 8 in kept]
    return [piece(pair, whole[a:b], a, b < len(whole), ident) for a, b in spans]


@given(_arrivals())
@settings_here
def test_what_is_settled_at_the_deadline_is_what_the_oracle_says(arrivals: list[tuple[str, bytes]]) -> None:
    """In local mode, where each that differs is counted: how many frames were the same, how many groups were not."""
    oracle = Oracle()
    mine = [frame for port, frame in arrivals if port == "primary_in"]
    with rig(checkpoint="local") as g:
        out: list[bytes] = []
        for port, frame in arrivals:
            oracle.primary(frame) if port == "primary_in" else oracle.secondary(frame)
            g.feed(port, frame)
            g.run(now=10)
            out += g.take("outdev")
        groups = oracle.gather.groups
        assume(sum(len(group.frames) for group in groups.values()) == len(arrivals))  # nothing that made one whole
        alike, differ = oracle.gather.expire()
        left, c = deadline(g)
        assert sorted(out + left) == sorted(mine)
        assert (c["fragments_unfinished"], c["diverged_timeout"], c["held"]) == (alike, differ, 0)
