"""colo-compare, killed anywhere while fragments are gathered, put together, compared, settled by a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from ring import hot
from tests.crash.harness import NOW, Outcome, kill_at_every_store
from tests.packets import P_UDP, ip_frame
from tests.rig import Rig
from tests.stages.compare.audit import audit
from tests.stages.compare.fragment_scenes import V4, body, cut, even, piece
from tests.stages.compare.test_compare import DONE, MS, PARAMS

WHOLE = body(400)
MINE, THEIRS = even(V4, WHOLE, 104), even(V4, WHOLE, 200, 3)


def _rig(mine: Sequence[bytes] = (MINE[2], MINE[0]), theirs: Sequence[bytes] = THEIRS[:1], ago: int = 10) -> Rig:
    """The datagram of MINE is unfinished on both sides; small tables, so that rows and slots are used again."""
    more = {"max_connections": 4, "max_queue_size": 8, "hold_memory": 1 << 16}
    rig = Rig("colo-compare", PARAMS | more, ring_size=1 << 14)
    rig.run(NOW - ago)
    rig.feed("primary_in", *mine)
    rig.feed("secondary_in", *theirs)
    rig.run(NOW - ago)
    return rig


def _overdue() -> Rig:
    """Two halves whose time is over, the same on both sides though cut otherwise; a duplicate, an overlap."""
    evil = piece(V4, bytes(104), 56, True, 8)
    return _rig(
        (MINE[2], MINE[0], MINE[0], *even(V4, WHOLE, 104, 8)[:1], evil),
        (
            evil,
            *even(V4, WHOLE, 56, 3)[:1],
            *even(V4, WHOLE, 104, 8)[:1],
            *cut(V4, WHOLE, [56, 104, 208, 312], 3)[1:4:2],
        ),
        3000 * MS,
    )


def _primary_completes(rig: Rig) -> None:
    """The primary's datagram is whole and held, then the secondary's is whole and equal."""
    rig.feed("primary_in", MINE[1], MINE[3])
    rig.feed("secondary_in", *even(V4, body(100), 48, 8)[:2], THEIRS[1])


def _secondary_completes(rig: Rig) -> None:
    """The secondary's is whole first; a duplicate; a datagram that the other side did not cut."""
    rig.feed("secondary_in", THEIRS[0], THEIRS[1], ip_frame(*V4, P_UDP, body(200)))
    rig.feed("primary_in", MINE[0], MINE[3], MINE[1], *cut(V4, body(200), [64, 128], 9))


def _one_burst(rig: Rig) -> None:
    """A datagram that comes and goes within a burst: its slots are recycled; overlaps are not."""
    rig.feed("primary_in", *even(V4, body(96), 32, 20), MINE[1][:-8] + bytes(8), MINE[1])
    rig.feed("secondary_in", *even(V4, body(96), 48, 21))


def _checkpoint(rig: Rig) -> None:
    """What is unfinished leaves, and its rest follows."""
    rig.feed("notify_in", DONE)
    rig.feed("primary_in", MINE[1], MINE[3], *even(V4, body(96), 48, 21))
    rig.feed("secondary_in", MINE[3], *even(V4, body(96), 32, 20))


def _nothing_more(rig: Rig) -> None:
    """The deadline, beside a datagram that is whole."""
    rig.feed("primary_in", *even(V4, body(96), 32, 20))
    rig.feed("secondary_in", *even(V4, body(96), 48, 21))


def _flood(rig: Rig) -> None:
    """More halves than a queue holds: the oldest leave before their time."""
    for i in range(10):
        for port in ("primary_in", "secondary_in"):
            rig.feed(port, *even(V4, body(96, seed=i), 48, 30 + i)[:1])


def _check(rig: Rig, outcome: Outcome) -> None:
    c = outcome.counters
    for balance in rig.kind.balances:
        assert sum(c[n] for n in balance.left) == sum(c[n] for n in balance.right), balance.label
    audit(rig)


SCENES: dict[str, tuple[Callable[[], Rig], Callable[[Rig], None], int, int]] = {
    "the primary completes": (_rig, _primary_completes, 4, 2),
    "the secondary completes": (_rig, _secondary_completes, 8, 0),
    "one burst": (_rig, _one_burst, 3, 5),
    "checkpoint": (_rig, _checkpoint, 6, 0),
    "never whole": (_overdue, _nothing_more, 8, 0),
    "a flood that is never whole": (_rig, _flood, 3, 17),
}


# A child stepped by the instruction is slow: with JIT the scene that touches the most.
@pytest.mark.parametrize("name", ["the primary completes"] if hot.JIT else SCENES)
def test_a_compare_killed_at_any_store_keeps_every_fragment(name: str) -> None:
    """What leaves, what is held and every counter are those of a run that nobody disturbed."""
    make, feed, _, _ = SCENES[name]
    kills = kill_at_every_store(make, feed, check=_check, stride=7, tables=False)
    assert kills > 5


@pytest.mark.parametrize("name", SCENES)
def test_the_scenes_do_what_they_say(name: str) -> None:
    """Undisturbed: so many frames released and held."""
    make, feed, released, held = SCENES[name]
    with make() as rig:
        feed(rig)
        rig.run(NOW)
        assert (len(rig.take("outdev")), rig.counters()["held"]) == (released, held)
        audit(rig)
