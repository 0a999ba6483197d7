"""``kill -9`` at every store of a stage's kernels changes nothing.

`kill_at_every_store` runs a stage once undisturbed, then again for each store with a kill there, recovers with a new
incarnation and compares: frames of every output, counters, scalars and tables.  Without JIT a forked child really kills
itself; with JIT the child is stepped through by the instruction, and every state of shared memory that it passes
through is the scene of a crash (`tests.crash.stepper`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from ring import hot, layout
from stages.compare.layout import memory, rules
from tests.crash import stepper
from tests.crash.stores import Fuse, Fused
from tests.rig import Rig

NOW = 1_000_000_000_000  # every duty cycle has the same time, so that undisturbed and killed runs are equal


@dataclass
class Outcome:
    """What a run made true; runs are compared by it."""

    frames: Mapping[str, list[bytes]]
    counters: Mapping[str, int]
    scalars: list[int]
    tables: bytes


def finish(rig: Rig, now: int = NOW, tables: bool = True) -> Outcome:
    """Run the stage and read its outputs until neither has more."""
    frames: dict[str, list[bytes]] = {port: [] for port in rig.kind.outputs if port in rig.rings}
    while True:
        work = rig.run(now)
        taken = {port: rig.take(port) for port in frames}
        for port, more in taken.items():
            frames[port] += more
        if not work and not any(taken.values()):
            break
    words = rig.segment.w[rig.kind.tables_at :].tobytes() if tables else b""
    return Outcome(frames, rig.counters(), rig.segment.scalars(), words)


def _neighbours_go_on(rig: Rig) -> dict[str, list[bytes]]:
    """What neighbours may do between the crash and the recovery: take what is published, overwrite what was released.

    So a cursor that was published before its burst counted is a frame repeated or a frame lost, and is found out.
    """
    for port, r in rig.rings.items():
        if port in rig.kind.inputs:
            tail, free = int(r.w[layout.TAIL]), r.size - r.used
            at = layout.PAGE + (tail & (r.size - 1))
            r.u8[at : at + free] = 0xA5
    return {port: rig.take(port) for port in rig.kind.outputs if port in rig.rings}


def _burst(rig: Rig) -> None:
    rig.run(NOW)


def kill_at_every_store(
    make_rig: Callable[[], Rig],
    feed: Callable[[Rig], None],
    steps: Callable[[Rig], object] = _burst,
    check: Callable[[Rig, Outcome], None] | None = None,
    stride: int = 1,
    tables: bool = True,
) -> int:
    """Kill a stage at every ``stride``-th store of ``steps(rig)`` and see that nothing changed: how many kills.

    ``feed`` writes the same frames each time; ``check(rig, outcome)`` asserts more about the undisturbed and every
    killed run, for instance that counters balance.  ``tables=False`` where table words may differ (plain stamps).
    """
    with make_rig() as rig:
        feed(rig)
        steps(rig)
        expected = finish(rig, tables=tables)
        if check:
            check(rig, expected)

    def recovered(rig: Rig, where: str) -> None:
        early = _neighbours_go_on(rig)
        rig.restart()
        outcome = finish(rig, tables=tables)
        for port, frames in early.items():
            outcome.frames[port][:0] = frames
        for port, frames in expected.frames.items():
            assert outcome.frames[port] == frames, f"{port}, killed at {where}"
        assert outcome == expected, f"killed at {where}"
        if check:
            check(rig, outcome)

    return kill_and_look(make_rig, feed, steps, recovered, stride)


def kill_and_look(
    make_rig: Callable[[], Rig],
    feed: Callable[[Rig], None],
    steps: Callable[[Rig], object],
    recovered: Callable[[Rig, str], None],
    stride: int = 1,
) -> int:
    """Kill a stage at every ``stride``-th store of ``steps(rig)``, and call ``recovered(rig, where)``: how many kills.

    That starts the new incarnation, and sees that all is as it should be; by itself nothing is compared.
    """
    kills = _kill_compiled if hot.JIT else _kill_python
    return kills(make_rig, feed, steps, recovered, stride)


def _kill_python(
    make_rig: Callable[[], Rig],
    feed: Callable[[Rig], None],
    steps: Callable[[Rig], object],
    recovered: Callable[[Rig, str], None],
    stride: int,
) -> int:
    with make_rig() as rig:
        feed(rig)
        fuse = Fuse()
        _fuse(rig, fuse)
        steps(rig)
        stores = fuse.stores  # a stage that is closed stores more
    kills = 0
    for at in range(1, stores + 1, stride):
        with make_rig() as rig:
            feed(rig)
            pid = os.fork()
            if pid == 0:
                try:
                    _fuse(rig, Fuse(at))
                    steps(rig)
                finally:
                    os._exit(99)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert code == -signal.SIGKILL, f"store {at} of {stores}: the child left with {code}"
            recovered(rig, f"store {at} of {stores}")
        kills += 1
    return kills


def _fuse(rig: Rig, fuse: Fuse) -> None:
    stage = rig.stage
    stage.u8, stage.w = Fused(stage.u8, fuse), Fused(stage.w, fuse)


def _kill_compiled(
    make_rig: Callable[[], Rig],
    feed: Callable[[Rig], None],
    steps: Callable[[Rig], object],
    recovered: Callable[[Rig, str], None],
    stride: int,
) -> int:
    if not stepper.can_trace():
        pytest.skip("this machine does not let a process trace its child; run with NUMBA_DISABLE_JIT=1 as well")
    scenes: list[tuple[int, list[bytes]]] = []
    kills = seen = 0
    with make_rig() as rig:
        feed(rig)
        watch = stepper.Watch(_pieces(rig))
        for count in stepper.step_through(lambda: steps(rig), watch, 20_000_000):
            if seen % stride == 0:
                scenes.append((count, watch.image()))
            seen += 1
        for count, image in scenes:
            watch.restore(image)
            recovered(rig, f"instruction {count:,}")
            kills += 1
    return kills


def _pieces(rig: Rig) -> list[Any]:
    """The shared words whose state makes a crash: the stage's segment and the rings.

    Of the compare not what a crash may leave in any state: the copies of rules, which are the supervisor's, and the
    history and records, which are hints.
    """
    w = rig.segment.w
    parts = [w]
    if rig.kind.name == "colo-compare":
        at = memory.places(rig.params, rig.kind.tables_at)
        parts = [w[: at["rules"] + rules.COPIES], w[at["recycle"] :]]
    return parts + [r.w[: (layout.PAGE + r.size) // 8] for r in rig.rings.values()]
