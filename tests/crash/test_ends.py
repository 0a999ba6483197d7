"""A plain ring operation, killed at each of its steps."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

import ring
from ring import hot
from ring.channel import Ring
from tests.crash.stores import Fuse, Fused
from tests.ring.names import fresh

pytestmark = pytest.mark.skipif(hot.JIT, reason="kills between stores of plain Python; run with NUMBA_DISABLE_JIT=1")

FRAMES = [b"one", b"", b"three" * 300]


def _die_at(at: int, name: str, life: Callable[[Ring], object]) -> bool:
    """Live ``life`` in a child that is killed at its store ``at``; False where it came to its end before."""
    pid = os.fork()
    if pid == 0:
        try:
            r = ring.attach(name)
            arena, fuse = r._live(), Fuse(at)
            arena.w, arena.u8, arena.bytes = (Fused(a, fuse) for a in (arena.w, arena.u8, arena.bytes))
            life(r)
        finally:
            os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (-signal.SIGKILL, 99)
    return code == -signal.SIGKILL


def _produce(mine: Ring) -> None:
    with mine.producer("dying") as p:
        p.send(FRAMES[0])
    mine.producer("again").send_many(FRAMES[1:])


def test_a_producer_killed_at_any_store_leaves_whole_frames_only() -> None:
    """Between claim and commit, half-way through a frame or through taking its end: a successor goes on cleanly."""
    lengths = set()
    at = 1
    while True:
        with ring.create(fresh(), 4096) as r, r.consumer() as c:
            killed = _die_at(at, r.name, _produce)
            seen = c.recv_many(10, 0)
            lengths.add(len(seen))
            assert seen == FRAMES[: len(seen)]
            with r.producer("successor") as p:
                p.send_many(FRAMES)
            assert c.recv_many(10, 0) == FRAMES
        if not killed:
            break
        at += 1
    assert lengths == {0, 1, 3}
    assert at > 10


def _consume(mine: Ring) -> None:
    c = mine.consumer()
    c.recv()
    c.recv_many(9)


def test_a_consumer_killed_at_any_store_loses_no_frame() -> None:
    """What it had not released comes to its successor: each frame once, or once more, never not at all."""
    at = 1
    rests = set()
    while True:
        with ring.create(fresh(), 4096) as r, r.producer() as p:
            p.send_many(FRAMES)
            killed = _die_at(at, r.name, _consume)
            with r.consumer() as c:
                rest = c.recv_many(10, 0)
            assert rest == FRAMES[len(FRAMES) - len(rest) :]
            rests.add(len(rest))
            assert p.send(b"x" * 4000, 0) is True
        if not killed:
            break
        at += 1
    assert rests == {3, 2, 0}
