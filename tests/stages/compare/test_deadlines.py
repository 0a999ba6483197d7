"""colo-compare says when time alone gives it something to do, so that its process sleeps until just then."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.packets import udp_frame
from tests.rig import Rig
from tests.stages.compare.test_compare import ASK, CLIENT, DONE, MS, SERVER, check, handshake, rig, seg


def _alone(g: Rig) -> int:
    g.feed("primary_in", seg(1001, b"alone"))
    g.run(now=10 * MS)
    return 10 * MS + 300 * MS


def _alone_at_the_secondary(g: Rig) -> int:
    g.feed("secondary_in", seg(1001, b"alone"))
    g.run(now=10 * MS)
    return 10 * MS + 300 * MS


def _overtaken(g: Rig) -> int:
    one, other = (udp_frame(SERVER, CLIENT, 53, 9, x) for x in (b"one", b"other"))
    g.feed("primary_in", one)
    g.feed("secondary_in", other)
    g.run(now=20 * MS)
    return 20 * MS + 50 * MS


def _interval(g: Rig) -> int:
    for at in (0, 1):
        g.feed("primary_in", seg(1001 + at, b"p"))
        g.feed("secondary_in", seg(1001 + at, b"s"))
        g.run(now=(10 + at) * MS)
        if at == 0:
            assert g.take("notify_out") == [ASK]
            g.feed("notify_in", DONE)
            g.run(now=10 * MS)
    return 10 * MS + 100 * MS


def _unanswered(g: Rig) -> int:
    _alone(g)
    g.run(now=310 * MS)
    assert g.take("notify_out") == [ASK]
    return 310 * MS + 300 * MS


@pytest.mark.parametrize("scene", [_alone, _alone_at_the_secondary, _overtaken, _interval, _unanswered])
def test_what_time_brings_comes_at_the_time_that_was_named(scene: Callable[[Rig], int]) -> None:
    """Nothing a nanosecond before it, the request at it."""
    with rig(compare_timeout=300, checkpoint_interval_ms=100) as g:
        handshake(g)
        due = scene(g)
        now = due - 50 * MS
        g.run(now=now)
        assert g.stage.next_deadline(now) == due  # type: ignore[attr-defined]
        g.run(now=due - 1)
        assert g.take("notify_out") == []
        g.run(now=due)
        assert g.take("notify_out") == [ASK]
        check(g)


def test_nothing_held_is_nothing_due() -> None:
    with rig() as g:
        handshake(g)
        g.run(now=10 * MS)
        assert g.stage.next_deadline(10 * MS) == 0  # type: ignore[attr-defined]


def test_what_waits_for_an_answer_does_not_keep_the_process_awake() -> None:
    """A deadline that has passed is never named again: the next one is that of asking again."""
    with rig(compare_timeout=300) as g:
        handshake(g)
        _alone(g)
        g.feed("primary_in", seg(1006, b"later"))
        g.run(now=40 * MS)
        for now in (310 * MS, 345 * MS, 500 * MS):
            g.run(now=now)
            at = g.stage.next_deadline(now)  # type: ignore[attr-defined]
            assert at > now
        assert at == 610 * MS


@pytest.mark.parametrize("scene", [_alone, _alone_at_the_secondary, _overtaken])
def test_time_in_which_the_compare_did_not_run_is_no_difference(scene: Callable[[Rig], int]) -> None:
    """What was held has the whole of its time again, and is due at the end of it; a short gap changes nothing."""
    with rig(compare_timeout=300) as g:
        handshake(g)
        due = scene(g)
        whole = 50 * MS if scene is _overtaken else 300 * MS
        g.stage.went_on(due - 1, 149 * MS)
        assert g.stage.next_deadline(due - 1) == due  # type: ignore[attr-defined]
        back = due + 5_000 * MS
        g.stage.went_on(back, 5_000 * MS)
        g.run(now=back)
        assert g.stage.next_deadline(back) == back + whole  # type: ignore[attr-defined]
        g.run(now=back + whole - 1)
        assert (g.take("notify_out"), check(g)["divergences"]) == ([], 0)
        g.run(now=back + whole)
        assert (g.take("notify_out"), check(g)["divergences"]) == ([ASK], 1)
