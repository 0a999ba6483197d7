"""The runner: duty cycles, commands, readiness, sleeping; one real stage in this process."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.idle import STRATEGIES
from pipeline.runner import LEFT, SUPERSEDED, Runner, Watch
from ring import layout
from tests.pipeline.running import PATIENCE_S
from tests.rig import Rig


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A mirror on a bench."""
    with Rig("filter-mirror") as made:
        yield made


@pytest.fixture
def watch() -> Iterator[Watch]:
    """An epoll set."""
    made = Watch()
    yield made
    made.close()


def runner(rig: Rig, watch: Watch, idle: str = "backoff", **more: object) -> Runner:
    """A runner over the rig's stage."""
    return Runner([rig.stage], STRATEGIES[idle], watch, rig.bell, **more)  # type: ignore[arg-type]


def release(made: Runner) -> None:
    """Let go of the memory, so that the rig can unmap it."""
    made.close()
    made.stages.clear()


def stop(rig: Rig) -> None:
    """What the supervisor does: the word, then the doorbell."""
    rig.command(layout.CMD_STOP, rig.epoch)
    os.write(rig.bell._write, b"!")


@pytest.mark.parametrize("idle", list(STRATEGIES))
def test_it_carries_frames_until_it_is_told_to_stop(rig: Rig, watch: Watch, idle: str):
    """Every idle strategy moves frames that come while it waits, and leaves when its epoch is told to stop."""
    made, verdicts = runner(rig, watch, idle), []
    thread = threading.Thread(target=lambda: verdicts.append(made.run()))
    thread.start()
    got: list[bytes] = []
    try:
        for i in range(20):
            rig.feed("tx_in", b"%d" % i)
            limit = time.monotonic() + PATIENCE_S
            while len(got) <= i and time.monotonic() < limit:
                got += rig._consumers["tx_out"].recv_many(timeout=0.1)
    finally:
        stop(rig)
        thread.join(PATIENCE_S)
        release(made)
    assert got == [b"%d" % i for i in range(20)]
    assert verdicts == [LEFT]
    assert rig.segment.w[layout.LIFE_CYCLES] > 0
    assert rig.segment.w[layout.LIFE_BUSY_NS] > 0
    assert rig.segment.w[layout.LIFE_HEARTBEAT] > 0


def test_a_newer_incarnation_makes_the_older_one_leave(rig: Rig, watch: Watch):
    """Two processes must never be the same end of a ring."""
    made = runner(rig, watch)
    rig.segment.w[layout.STAGE_EPOCH] = rig.epoch + 1
    assert made.run() == SUPERSEDED
    release(made)


def test_it_is_ready_when_its_stage_is_and_says_so_once(rig: Rig, watch: Watch):
    """LIFE_READY is written when ready() is true for the first time, and the supervisor is woken."""
    told: list[int] = []
    answers = iter([False, False, True])
    rig.stage.ready = lambda: next(answers)  # type: ignore[method-assign]
    made = runner(rig, watch, tell=lambda: told.append(1))
    seen = []
    for now in range(1, 6):
        assert made.chores(now) is None
        seen.append(int(rig.segment.w[layout.LIFE_READY]))
    assert seen == [0, 0, 1, 1, 1]
    assert told == [1]
    release(made)


def test_a_stop_for_another_epoch_is_not_for_us(rig: Rig, watch: Watch):
    """CMD_STOP names the epoch that has to leave: a word left from before a crash stops nobody."""
    made = runner(rig, watch)
    rig.command(layout.CMD_STOP, rig.epoch - 1)
    assert made.chores(1) is None
    rig.command(layout.CMD_STOP, rig.epoch)
    assert made.chores(2) == LEFT
    release(made)


def test_a_doze_sets_asleep_and_clears_it(rig: Rig, watch: Watch):
    """While it sleeps its inputs' rings say so; afterwards they do not."""
    made, asleep = runner(rig, watch), []
    ring = rig.rings["tx_in"]
    watch.poll = lambda seconds: asleep.append((int(ring.w[layout.C_ASLEEP]), seconds)) or 0  # type: ignore
    made.doze(0)
    assert asleep == [(1, 0.01)]
    assert ring.w[layout.C_ASLEEP] == 0
    assert rig.segment.w[layout.LIFE_SLEEPS] == 1
    release(made)


def test_work_found_at_the_last_look_replaces_the_sleep(rig: Rig, watch: Watch):
    """A frame that came between the idle cycle and `asleep` is carried, not slept over."""
    made = runner(rig, watch)
    rig.feed("tx_in", b"late")
    assert made.doze(time.monotonic_ns()) == 1
    assert rig.segment.w[layout.LIFE_SLEEPS] == 0
    release(made)


def test_a_stage_may_ask_to_be_woken_sooner(rig: Rig, watch: Watch):
    """next_deadline(now) bounds the sleep; 0 means nothing is due; a deadline in the past does not sleep."""
    waits: list[float] = []
    due = {"at": 0}
    rig.stage.next_deadline = lambda now: due["at"]  # type: ignore[attr-defined]
    made = runner(rig, watch)
    watch.poll = lambda seconds: waits.append(seconds) or 0  # type: ignore
    for due["at"] in (0, 3_000_000, 500_000_000, -5):
        made.doze(1_000_000)
    assert waits == [0.01, 0.002, 0.01, 0.0]
    release(made)


def test_watch_calls_back_with_the_events_and_forgets_what_it_is_told_to(watch: Watch):
    """Events go to the callback of their descriptor; a descriptor may come back under the same number."""
    seen: list[int] = []
    read, write = os.pipe()
    watch.watch(read, select.EPOLLIN, seen.append)
    os.write(write, b"x")
    assert watch.poll(1) == 1
    assert seen == [select.EPOLLIN]
    watch.watch(read, 0, None)
    assert watch.poll(0) == 0
    os.close(read)
    watch.watch(read, 0, None)  # closed and taken out before: nothing to complain about
    again, other = os.pipe()
    assert again == read
    watch.watch(again, select.EPOLLIN, seen.append)
    os.write(other, b"x")
    assert watch.poll(1) == 1
    for fd in (write, again, other):
        os.close(fd)


def test_a_descriptor_closed_without_a_word_can_be_watched_anew(watch: Watch):
    """The kernel drops a closed descriptor from the set by itself; the number's next owner is registered."""
    read, write = os.pipe()
    watch.watch(read, select.EPOLLIN, lambda events: None)
    os.close(read)
    again, other = os.pipe()
    assert again == read
    seen: list[int] = []
    watch.watch(again, select.EPOLLIN, seen.append)
    os.write(other, b"x")
    assert watch.poll(1) == 1
    assert seen
    for fd in (write, again, other):
        os.close(fd)


def test_the_runner_tells_of_time_in_which_it_did_not_run(rig: Rig, watch: Watch, monkeypatch: pytest.MonkeyPatch):
    """A clock that jumps between two duty cycles, once: each stage hears it, with how long it was."""
    made, heard, ahead = runner(rig, watch), [], [0]
    clock, work = time.monotonic_ns, rig.stage.do_work
    monkeypatch.setattr(time, "monotonic_ns", lambda: clock() + ahead[0])

    def jumping(now: int) -> int:
        if len(cycles) == 3:
            ahead[0] += 3_600_000_000_000
        if len(cycles) == 10:
            rig.command(layout.CMD_STOP, rig.epoch)
        cycles.append(now)
        return work(now)

    cycles: list[int] = []
    rig.stage.do_work = jumping  # type: ignore[method-assign]
    rig.stage.went_on = lambda now, after: heard.append((now, after))  # type: ignore[method-assign]
    assert made.run() == LEFT
    hours = [after // 3_600_000_000_000 for _, after in heard if after > 3_000_000_000_000]
    assert hours == [1]
    release(made)
