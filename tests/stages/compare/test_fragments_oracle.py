"""Fragments in the compare against the oracle: random cuts, orders, duplicates, overlaps and losses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.oracle.compare import Compare as Oracle
from tests.packets import P_UDP, ip_frame
from tests.stages.compare.audit import audit
from tests.stages.compare.fragment_scenes import V4, V6, body, cut, piece
from tests.stages.compare.test_compare import DONE, check, rig

EXAMPLES = 100
settings_here = settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@dataclass(frozen=True)
class Scene:
    """What arrives, in order; a frame on no port is a checkpoint."""

    arrivals: tuple[tuple[str, bytes], ...]
    restarts: frozenset[int]


@st.composite
def _side(draw: st.DrawFn, pair: tuple[str, str], whole: bytes, ident: int, vlans: tuple[int, ...]) -> list[bytes]:
    """One replica's frames of a datagram: mostly sound, sometimes with one lost, repeated or wrong."""
    if draw(st.integers(0, 4)) == 0:
        return [ip_frame(*pair, P_UDP, whole, vlans=vlans)]
    marks = draw(st.lists(st.integers(1, (len(whole) - 1) // 8).map(lambda n: 8 * n), min_size=1, max_size=6))
    frames = cut(pair, whole, marks, ident, vlans=vlans)
    kind = draw(st.integers(0, 9))
    if kind == 0:
        frames.pop(draw(st.integers(0, len(frames) - 1)))
    elif kind <= 2:
        frames.append(draw(st.sampled_from(frames)))
    elif kind == 3:
        at, size = 8 * draw(st.integers(0, 12)), 8 * draw(st.integers(0, 6))
        frames.append(piece(pair, bytes(size), at, draw(st.booleans()), ident, vlans=vlans))
    return draw(st.permutations(frames))


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """One to four datagrams between two hosts; identifications may meet."""
    pair = draw(st.sampled_from([V4, V6]))
    vlans = draw(st.sampled_from([(), (3,)]))
    ways: list[tuple[str, list[bytes]]] = []
    for i in range(draw(st.integers(1, 4))):
        whole = body(draw(st.integers(17, 90)), draw(st.integers(1, 2)), pair, seed=i)
        for port in ("primary_in", "secondary_in"):
            ident = draw(st.sampled_from([i, 10 + i, 5]))
            ways.append((port, draw(_side(pair, whole, ident, vlans))))
    tickets = draw(st.permutations([way for way, (_, frames) in enumerate(ways) for _ in frames]))
    queues = [iter(frames) for _, frames in ways]
    arrivals = [(ways[way][0], next(queues[way])) for way in tickets]
    if draw(st.booleans()):
        arrivals.insert(draw(st.integers(0, len(arrivals))), ("", b""))
    return Scene(tuple(arrivals), draw(st.frozensets(st.integers(0, 40), max_size=3)))


@given(scenes())
@settings_here
def test_what_leaves_is_what_the_oracle_says_after_every_arrival(scene: Scene) -> None:
    """Also over restarts and a checkpoint in the middle; the tables are whole and the books add up."""
    oracle = Oracle()
    with rig() as g:
        for i, (port, frame) in enumerate(scene.arrivals):
            if i in scene.restarts:
                g.restart()
            if not port:
                expected = oracle.checkpoint()
                g.feed("notify_in", DONE)
            else:
                expected = oracle.primary(frame) if port == "primary_in" else oracle.secondary(frame)
                g.feed(port, frame)
            g.run(now=10)
            out = g.take("outdev")
            assert Counter(out) == Counter(expected), f"after arrival {i}"
            assert port == "secondary_in" or out == expected
            c = check(g)
            assert (c["held_primary"], c["fragments"]) == (oracle.held_primary, oracle.gather.gathered)
            audit(g)
        g.feed("notify_in", DONE)
        g.run(now=20)
        assert g.take("outdev") == oracle.checkpoint()
        assert check(g)["held"] == 0 and check(g)["divergences"] == 0
        audit(g)


@given(st.data(), st.sampled_from([V4, V6]), st.integers(200, 4000))
@settings_here
def test_sound_datagrams_always_agree(data: st.DataObject, pair: tuple[str, str], size: int) -> None:
    """Whatever the cuts and orders of both: the primary's fragments leave, in its order, and nothing is held."""
    whole = body(size, pair=pair)
    cuts = st.lists(st.integers(1, (size - 1) // 8).map(lambda n: 8 * n), min_size=1, max_size=20)
    mine, theirs = (data.draw(st.permutations(cut(pair, whole, data.draw(cuts), ident))) for ident in (3, 4))
    order = data.draw(st.permutations([True] * len(mine) + [False] * len(theirs)))
    first, second = iter(mine), iter(theirs)
    out: list[bytes] = []
    with rig() as g:
        for primary in order:
            g.feed("primary_in" if primary else "secondary_in", next(first if primary else second))
            g.run(now=10)
            out += g.take("outdev")
        audit(g)
        c = check(g)
        assert out == mine and c["held"] == 0 and c["divergences"] == 0
        assert (c["released"], c["matched"]) == (len(mine), len(theirs))
