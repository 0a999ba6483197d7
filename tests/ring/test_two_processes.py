"""One producer and one consumer, each a process of its own."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator

import pytest

import ring
from ring import ends, hot, layout
from ring.channel import Ring
from tests.ring.children import PATIENCE_S, Child, until
from tests.ring.kernels import flow
from tests.ring.names import fresh

MANY = 1_000_000 if hot.JIT else 10_000
SIZE = 4096


@pytest.fixture
def r() -> Iterator[Ring]:
    """A ring as small as it can be: it wraps thousands of times."""
    with ring.create(fresh(), SIZE) as made:
        flow.check(made.u8, made.w, 0)  # compiled before the fork
        yield made


def _frame(n: int) -> bytes:
    return struct.pack("=q", n) + bytes([n & 0xFF]) * (n % 37)


def test_a_million_frames_between_spinning_kernels(r: Ring) -> None:
    """Compiled producer and consumer that only spin: every frame arrives once, whole, in order."""

    def produce() -> None:
        n = 0
        while n < MANY:
            n = flow.pump(r.u8, r.w, n)
            os.sched_yield()

    with Child(produce):
        n, before, limit = 0, -1, 0.0
        while n < MANY:
            n = int(flow.check(r.u8, r.w, n))
            assert n >= 0, f"frame {-1 - n:,} is wrong"
            if n > before:  # where both share a processor with others a ringful takes some milliseconds
                before, limit = n, time.monotonic() + PATIENCE_S
            assert time.monotonic() < limit, f"stuck at frame {n:,}"
            os.sched_yield()
    assert int(r.w[layout.HEAD]) > 1000 * SIZE or not hot.JIT


def test_a_million_frames_between_ends_that_sleep(r: Ring) -> None:
    """Producer and Consumer, which sleep on their doorbells: every frame arrives once, whole, in order."""

    def produce() -> None:
        with ring.attach(r.name) as mine, mine.producer() as p:
            assert p.send_many(map(_frame, range(MANY))) == MANY

    with r.consumer() as c, Child(produce):
        n = 0
        while n < MANY:
            got = c.recv_many(1000, PATIENCE_S)
            assert got, f"stuck at frame {n:,}"
            assert got == [_frame(n + i) for i in range(len(got))]
            n += len(got)
        assert c.recv(0) is None


def test_a_producer_killed_and_replaced_in_mid_stream_tears_no_frame(r: Ring) -> None:
    """Of each incarnation the consumer sees its first frames, whole and in order, then the next incarnation's."""

    def produce(incarnation: int) -> None:
        with ring.attach(r.name) as mine, mine.producer() as p:
            n = 0
            while True:
                p.send(struct.pack("=ii", incarnation, n) * (1 + n % 50))
                n += 1

    with r.consumer() as c:
        expected = (0, 0)
        for incarnation in range(8):
            with Child(produce, incarnation) as child:
                seen = 0
                while seen < 300 + 41 * incarnation:
                    frame = c.recv(PATIENCE_S)
                    assert frame is not None
                    who, n = struct.unpack_from("=ii", frame)
                    assert (who, n) in (expected, (incarnation, 0))
                    assert frame == struct.pack("=ii", who, n) * (1 + n % 50)
                    expected = who, n + 1
                    seen += who == incarnation
                child.kill()
        for frame in c.recv_many(1000, 0):
            assert struct.unpack_from("=ii", frame) == expected
            expected = expected[0], expected[1] + 1
        assert r.used == 0


def test_a_consumer_killed_and_replaced_sees_what_was_not_released(r: Ring) -> None:
    """Frames that a killed consumer had not released come again to the next one: none is lost."""

    def consume_some() -> None:
        mine = ring.attach(r.name).consumer()
        assert mine.recv_many(7, PATIENCE_S)
        until(lambda: False, "the end")

    with r.producer() as p:
        p.send_many(map(_frame, range(20)))
        with Child(consume_some) as child:
            until(lambda: r.used <= sum(4 + len(_frame(n)) for n in range(7, 20)), "seven frames taken")
            child.kill()
        with r.consumer() as c:
            assert c.recv_many(100, 0) == [_frame(n) for n in range(7, 20)]


def test_a_slow_consumer_stalls_its_producer_and_loses_nothing(r: Ring) -> None:
    """A consumer that takes one frame whenever the producer has fallen asleep over a full ring gets all of them."""

    def produce() -> None:
        ends._NAP_S = 3600  # only the doorbell wakes it
        with ring.attach(r.name) as mine, mine.producer() as p:
            for n in range(30):
                assert p.send(bytes([n]) * 1000)

    with r.consumer() as c, Child(produce) as child:
        for n in range(30):
            until(lambda: r.w[layout.P_ASLEEP] == 1 or child.ended(), "a producer without room")
            assert c.recv(PATIENCE_S) == bytes([n]) * 1000
        assert child.wait() == 0


def test_a_consumer_asleep_gets_the_frame(r: Ring) -> None:
    """A consumer that sleeps for ever, but for its doorbell, is woken by a frame."""

    def consume() -> None:
        ends._NAP_S = 3600
        with ring.attach(r.name) as mine, mine.consumer() as c:
            assert c.recv() == b"wake up"

    with r.producer() as p, Child(consume) as child:
        until(lambda: r.w[layout.C_ASLEEP] == 1, "a sleeper")
        p.send(b"wake up")
        assert child.wait() == 0
    assert r.w[layout.C_ASLEEP] == 0


def test_no_wake_up_is_lost_in_many_rounds(r: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that play ping-pong, never spin and never nap: one lost ring, and they would sleep for ever."""
    rounds = 5_000
    monkeypatch.setattr(ends, "_NAP_S", 3600)
    monkeypatch.setattr(ends, "_SPINS", 0)
    with ring.create(fresh(), SIZE) as back:

        def answer() -> None:
            there, here = ring.attach(r.name), ring.attach(back.name)
            with there, here, there.consumer() as c, here.producer() as p:
                for n in range(rounds):
                    assert c.recv(PATIENCE_S) == b"%d" % n
                    p.send(b"%d" % -n, PATIENCE_S)

        with r.producer() as p, back.consumer() as c, Child(answer) as child:
            for n in range(rounds):
                p.send(b"%d" % n, PATIENCE_S)
                assert c.recv(PATIENCE_S) == b"%d" % -n, f"round {n}"
            assert child.wait() == 0
