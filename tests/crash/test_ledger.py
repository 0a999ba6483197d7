"""The ledger, with a stage that changes its tables with every frame, killed anywhere."""

from __future__ import annotations

import os
import signal
from itertools import pairwise

import pytest

from ring import hot, layout
from ring.kernels import ledger
from stages import catalog
from tests.crash import harness, stepper
from tests.crash.harness import Outcome, finish, kill_at_every_store
from tests.crash.stores import Fuse, Fused
from tests.crash.tally import CELLS, TABLE
from tests.rig import Rig

FRAMES = [bytes([n]) * (3 * n + 1) for n in range(8)]


@pytest.fixture(autouse=True)
def tally_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own kind of stage."""
    monkeypatch.setitem(catalog.MODULES, "tally", "tests.crash.tally")  # type: ignore[attr-defined]


def _rig() -> Rig:
    return Rig("tally", ring_size=4096)


def _feed(rig: Rig) -> None:
    rig.feed("in", *FRAMES)


def _check(rig: Rig, outcome: Outcome) -> None:
    assert outcome.frames["out"] == FRAMES
    assert outcome.counters["in_frames"] == outcome.counters["out_frames"] == len(FRAMES)
    assert outcome.scalars[0] == sum(4 + len(f) for f in FRAMES)
    cells = rig.segment.w[TABLE : TABLE + CELLS]
    assert list(cells) == [sum((4 + len(f)) % CELLS == i for f in FRAMES) for i in range(CELLS)]


def test_a_stage_with_tables_killed_at_any_store_is_as_if_it_had_not_been() -> None:
    """Frames, counters, scalars and tables after a kill at any store are those of an undisturbed run."""
    assert kill_at_every_store(_rig, _feed, check=_check) > 80


@pytest.mark.skipif(hot.JIT, reason="kills recover() itself between Python stores; run with NUMBA_DISABLE_JIT=1")
def test_a_recovery_that_is_killed_too_is_done_again() -> None:
    """kill -9 in the middle of a burst, then at any store of the recovery: the next recovery still sets all right."""
    with _rig() as rig:
        _feed(rig)
        expected = finish(rig)
        _check(rig, expected)

    def crash(rig: Rig, at: int, *, recovering: bool) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                fuse = Fuse(at)
                u8, w = Fused(rig.stage.u8, fuse), Fused(rig.stage.w, fuse)
                if recovering:
                    ledger.recover(u8, w, 0)
                else:
                    while rig.stage.kernel.tally_burst(u8, w, harness.NOW):
                        pass
            finally:
                os._exit(99)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    longest = 0
    for first in range(1, 90, 4):
        second = 1
        while True:
            with _rig() as rig:
                _feed(rig)
                if crash(rig, first, recovering=False) != -signal.SIGKILL:
                    assert first > 80
                    break
                ended = crash(rig, second, recovering=True)
                rig.restart()
                outcome = finish(rig)
                assert outcome == expected, (first, second)
            if ended == 99:
                break
            second += 1
        longest = max(longest, second)
    assert longest > 6


@pytest.mark.parametrize("burst", [1, 2])
def test_rolling_back_restores_words_put_twice(burst: int) -> None:
    """A word that a burst changed several times gets back the value from before the burst, not one in between."""
    with _rig() as rig:
        rig.feed("in", *FRAMES[:burst])
        rig.run(1)
        w = rig.stage.w
        before = bytes(w[TABLE : TABLE + CELLS + 1])
        ledger.begin(w)
        for value in (7, 8, 9):
            ledger.put(w, TABLE, value)
        ledger.put(w, TABLE + 1, -1)
        assert int(w[layout.UNDO_N]) == 4
        assert ledger.recover(rig.stage.u8, w, 0) == 4
        assert bytes(w[TABLE : TABLE + CELLS + 1]) == before
        assert ledger.recover(rig.stage.u8, w, 0) == 0


def test_a_crash_leaves_no_false_latency_sample() -> None:
    """A recovery that publishes a burst adds nothing to the histogram and stamps nothing: its time is another."""
    with _rig() as rig:
        rig.feed("in", b"frame")
        w = rig.stage.w
        source, target = int(w[layout.INPUTS]), int(w[layout.OUTPUTS])
        w[source + layout.SAMPLE_POS], w[source + layout.SAMPLE_NS] = 9, 1000
        row = ledger.begin(w)
        w[row + layout.ROW_HEADS] = w[row + layout.ROW_TAILS] = 9
        w[layout.COMMITTED] += 1  # the commit point; then the process dies, before it published
        rig.restart()
        w = rig.stage.w
        assert int(w[source + layout.HEAD]) == int(w[target + layout.TAIL]) == 9
        assert int(rig.segment.histogram(0).sum()) == 0
        assert int(w[target + layout.SAMPLE_NS]) == 0


def test_a_port_without_a_ring_is_not_dozed_on() -> None:
    """Going to sleep with a full port that has no ring touches no word of the stage's own segment."""
    with Rig("tally", ports=("in",)) as rig:
        w = rig.stage.w
        ledger.blocked(w, 0)
        busy = int(w[layout.P_ASLEEP])
        ledger.doze(rig.stage.u8, w, 0)
        assert int(w[layout.P_ASLEEP]) == busy
        assert int(w[int(w[layout.INPUTS]) + layout.C_ASLEEP]) == 1
        ledger.wake(rig.stage.u8, w, 0)
        assert int(w[int(w[layout.INPUTS]) + layout.C_ASLEEP]) == 0


def test_the_tracer_sees_stores_one_by_one_and_in_order() -> None:
    """In compiled code the commit point comes after the last undo entry and before any cursor of a ring."""
    if not hot.JIT:
        pytest.skip("steps through compiled code; run without NUMBA_DISABLE_JIT")
    if not stepper.can_trace():
        pytest.skip("this machine does not let a process trace its child")
    with _rig() as rig:
        rig.feed("in", *FRAMES[:2])
        rig.stage.do_work(harness.NOW)
        rig.feed("in", *FRAMES[2:4])
        w = rig.stage.w
        tail, head = (int(w[layout.OUTPUTS]) + layout.TAIL, int(w[layout.INPUTS]) + layout.HEAD)
        seen: list[str] = []
        words = {layout.UNDO_N: "undo", layout.COMMITTED: "commit", tail: "tail", head: "head", TABLE + CELLS: "table"}
        before = {i: int(w[i]) for i in words}
        watch = stepper.Watch([w[i : i + 1] for i in words])
        for _ in stepper.step_through(lambda: rig.stage.do_work(harness.NOW), watch, 20_000_000):
            for i, name in words.items():
                if int(w[i]) != before[i]:
                    seen.append(name)
                    before[i] = int(w[i])
        assert seen[-3:] == ["commit", "tail", "head"]
        changes = seen[:-3]
        assert changes[0] == "undo"  # begin empties the log
        assert changes.count("undo") == 1 + 2 * 3
        assert changes.count("table") >= 2
        assert all(before == "undo" for before, now in pairwise(changes) if now == "table")
