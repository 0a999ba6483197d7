"""colo-compare's requests for checkpoints: one at a time, not too often, periodic in a storm."""

from __future__ import annotations

from itertools import pairwise

from tests.rig import Rig
from tests.stages.compare.test_compare import ASK, DONE, MS, check, handshake, rig, seg


def differ(g: Rig, at: int, now: int) -> None:
    """Both sides say something else at position ``at`` of the stream."""
    g.feed("primary_in", seg(1001 + at, b"p"))
    g.feed("secondary_in", seg(1001 + at, b"s"))
    g.run(now=now)


def test_the_next_request_waits_until_the_interval_is_over() -> None:
    with rig(checkpoint_interval_ms=100) as g:
        handshake(g)
        differ(g, 0, 1000 * MS)
        assert g.take("notify_out") == [ASK]  # the first one never waits
        g.feed("notify_in", DONE)
        g.run(now=1010 * MS)
        differ(g, 1, 1020 * MS)
        assert g.take("notify_out") == [] and check(g)["divergences"] == 2
        g.run(now=1109 * MS)
        assert g.take("notify_out") == []
        g.run(now=1110 * MS)
        assert g.take("notify_out") == [ASK]
        c = check(g)
        assert (c["checkpoints_asked"], c["storms"]) == (2, 0)


def test_a_checkpoint_that_comes_by_itself_makes_a_waiting_request_void() -> None:
    with rig(checkpoint_interval_ms=100) as g:
        handshake(g)
        differ(g, 0, 1000 * MS)
        g.feed("notify_in", DONE)
        g.run(now=1001 * MS)
        differ(g, 1, 1002 * MS)
        g.feed("notify_in", DONE)
        g.run(now=1003 * MS)
        g.run(now=5000 * MS)
        assert g.take("notify_out") == [ASK] and check(g)["held"] == 0


def test_a_storm_makes_checkpoints_periodic_and_ends_when_nothing_differs() -> None:
    """As often as a checkpoint is made, the replicas differ again: a fixed rhythm instead, until it is quiet."""
    with rig(checkpoint_interval_ms=10, storm_checkpoints=5, storm_window_ms=1000, storm_interval_ms=200) as g:
        handshake(g)
        now, at, answers = 1000, 0, []
        while check(g)["storms"] == 0:
            differ(g, at, now * MS)
            assert g.take("notify_out") == [ASK]
            g.feed("notify_in", DONE)
            g.run(now=(now + 1) * MS)
            now, at = now + 20, at + 1
        assert at == 5
        start = now
        for now in range(start, start + 600, 10):  # differences all the time
            differ(g, at, now * MS)
            at += 1
            if g.take("notify_out"):
                answers.append(now)
                g.feed("notify_in", DONE)
                g.run(now=now * MS)
        assert [b - a for a, b in pairwise(answers)] == [200, 200][: len(answers) - 1]
        assert check(g)["checkpoints_periodic"] == len(answers) >= 2
        quiet = []
        for now in range(start + 600, start + 4000, 10):
            g.run(now=now * MS)
            if g.take("notify_out"):
                quiet.append(now)
                g.feed("notify_in", DONE)
                g.run(now=now * MS)
        assert 4 <= len(quiet) <= 7 and quiet[-1] < start + 600 + 1000 + 2 * 200  # a window without differences
        differ(g, at, 10_000 * MS)
        assert g.take("notify_out") == [ASK]  # on demand again
        assert check(g)["storms"] == 1


def test_storm_detection_can_be_switched_off() -> None:
    with rig(checkpoint_interval_ms=0, storm_checkpoints=0) as g:
        handshake(g)
        for i in range(50):
            differ(g, i, (1000 + i) * MS)
            assert g.take("notify_out") == [ASK]
            g.feed("notify_in", DONE)
            g.run(now=(1000 + i) * MS)
        assert check(g)["storms"] == 0
