"""The kernels of frames against a model in plain Python: a deque of frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import ring
from ring import layout, segment
from ring.channel import Ring
from ring.kernels import frames
from tests.ring.names import fresh

SIZE = 4096
# Frame sizes around what matters for a ring of 4,096: nothing, small, almost and exactly the rest of a ring.
LENGTHS = st.one_of(
    st.sampled_from([0, 1, 59, 1364, 2040, 2044, 4080, 4084, 4088, 4092]), st.integers(0, 300), st.integers(0, 4092)
)


class Model(RuleBasedStateMachine):
    """Claims, writes, commits, polls and releases in any order; the deque says what must be seen."""

    @initialize(vnet=st.booleans(), start=st.integers(0, 1 << 40))
    def make(self, vnet: bool, start: int) -> None:
        """A ring, both framings, at any position: cursors only grow, so a long life is a large start."""
        self.ring: Ring = ring.create(fresh(), SIZE, vnet=vnet)
        self.lead = 8 if vnet else 4
        self.ring.w[layout.HEAD] = self.ring.w[layout.TAIL] = start
        self.claimed: list[bytes] = []  # written behind the tail, not yet committed
        self.published: deque[bytes] = deque()
        self.polled: list[bytes] = []  # read, not yet released
        self.count = 0

    def _used(self) -> int:
        waiting = (*self.claimed, *self.published, *self.polled)
        return sum(self.lead + len(frame) for frame in waiting)

    @rule(length=LENGTHS)
    def claim_and_write(self, length: int) -> None:
        """There is room exactly when the model says so; the claim may follow others that are not committed."""
        self.count += 1
        frame = (self.count % 251).to_bytes(1, "big") * length
        record = len(frame).to_bytes(4, "big") + bytes(self.lead - 4) + frame
        before = sum(self.lead + len(f) for f in self.claimed)
        at = int(frames.claim(self.ring.w, 0, before + len(record)))
        if self._used() + len(record) > SIZE:
            assert at == -1
            return
        assert at >= layout.PAGE
        at += before
        self.ring._live().bytes[at : at + len(record)] = record
        self.claimed.append(frame)

    @precondition(lambda self: self.claimed)
    @rule()
    def commit(self) -> None:
        """All that was written is published at once."""
        assert frames.commit(self.ring.w, 0, sum(self.lead + len(f) for f in self.claimed)) == 0
        self.published.extend(self.claimed)
        self.claimed = []

    @rule(limit=st.integers(1, 4))
    def poll(self, limit: int) -> None:
        """What is published is seen whole and in order, ``limit`` frames of it at most; what is only claimed is not."""
        w, u8 = self.ring.w, self.ring.u8
        head = int(w[layout.HEAD])
        start = head + sum(self.lead + len(f) for f in self.polled)
        end = head + int(frames.poll(w, 0))
        position, seen, bad = (int(x) for x in frames.scan(u8, w, 0, start, end, limit))
        assert (seen, bad) == (min(limit, len(self.published)), -1)
        assert int(frames.whole(u8, w, 0, start, end, limit)) == position
        for _ in range(seen):
            frame = self.published.popleft()
            size = int(frames.record_size(u8, w, 0, start))
            at = int(frames.index(w, 0, start))
            assert size == self.lead + len(frame)
            assert u8[at + self.lead : at + size].tobytes() == frame
            self.polled.append(frame)
            start += size
        assert start == position

    @precondition(lambda self: self.polled)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Some or all of what was read makes room again."""
        n = data.draw(st.integers(1, len(self.polled)))
        assert frames.release(self.ring.w, 0, sum(self.lead + len(f) for f in self.polled[:n])) == 0
        del self.polled[:n]

    @invariant()
    def books_balance(self) -> None:
        """Head, tail and the model agree at every moment."""
        if hasattr(self, "ring"):
            assert self.ring.used == self._used() - sum(self.lead + len(f) for f in self.claimed)
            assert 0 <= self.ring.used <= SIZE

    def teardown(self) -> None:
        if hasattr(self, "ring"):
            self.ring.close()


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class TestModel(Model.TestCase):  # type: ignore[misc, valid-type]
    """The ring does what a deque does, for random sequences of steps."""


@contextmanager
def _ring(vnet: bool = False, start: int = 0) -> Iterator[Ring]:
    with ring.create(fresh(), SIZE, vnet=vnet) as r:
        r.w[layout.HEAD] = r.w[layout.TAIL] = start
        yield r


@pytest.mark.parametrize("vnet", [False, True])
def test_every_interleaving_of_two_short_programs_gives_the_same_frames(vnet: bool) -> None:
    """Two bursts each way, all 70 orders of the steps of producer and consumer, across the wrap: a queue, always."""
    lead = 8 if vnet else 4
    sizes = (1300, 0, 1500, 900)
    orders = [order for order in product("pc", repeat=8) if order.count("p") == 4]
    assert len(orders) == 70
    with _ring(vnet) as r:
        for number, order in enumerate(orders):
            w, u8 = r.w, r.u8
            w[layout.HEAD] = w[layout.TAIL] = number * 1_000_003
            sent: list[bytes] = []
            got: list[bytes] = []
            pending: list[bytes] = []
            seen = 0
            producing = iter(("write", "commit", "write", "commit"))
            consuming = iter(("poll", "release", "poll", "release"))
            for turn in order:
                step = next(producing if turn == "p" else consuming)
                if step == "write":
                    for size in sizes[:2] if not sent else sizes[2:]:
                        frame = bytes([len(sent) + len(pending) + 1]) * size
                        before = sum(lead + len(f) for f in pending)
                        at = int(frames.claim(w, 0, before + lead + size))
                        if at < 0:
                            break
                        record = size.to_bytes(4, "big") + bytes(lead - 4) + frame
                        r._live().bytes[at + before : at + before + len(record)] = record
                        pending.append(frame)
                elif step == "commit":
                    frames.commit(w, 0, sum(lead + len(f) for f in pending))
                    sent += pending
                    pending = []
                elif step == "poll":
                    head = int(w[layout.HEAD])
                    seen = head
                    end = head + int(frames.poll(w, 0))
                    while seen < end:
                        size = int(frames.record_size(u8, w, 0, seen))
                        at = int(frames.index(w, 0, seen))
                        got.append(u8[at + lead : at + size].tobytes())
                        seen += size
                else:
                    frames.release(w, 0, seen - int(w[layout.HEAD]))
            assert got == sent[: len(got)], order
            assert len(sent) >= 2
            assert r.used == sum(lead + len(f) for f in sent[len(got) :])


def scan_oracle(data: bytes, vnet: bool, limit: int) -> tuple[int, int, int]:
    """`frames.scan`, the slow and obvious way: (bytes of whole frames, frames, the impossible L or -1)."""
    lead = 8 if vnet else 4
    at = count = 0
    while count < limit:
        if len(data) - at < lead:
            break
        length = int.from_bytes(data[at : at + 4], "big")
        if length > 69_632:
            return at, count, length
        if vnet and int.from_bytes(data[at + 4 : at + 8], "big") > length:
            return at, count, length
        if len(data) - at - lead < length:
            break
        at += lead + length
        count += 1
    return at, count, -1


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bool]:
    """A byte stream of records, cut anywhere, with some bytes changed."""
    vnet = draw(st.booleans())
    stream = b""
    for length in draw(st.lists(st.integers(0, 200), max_size=12)):
        v = draw(st.integers(0, length + 1)) if vnet else 0
        stream += length.to_bytes(4, "big") + (v.to_bytes(4, "big") if vnet else b"") + bytes(length)
    data = bytearray(stream[: draw(st.integers(0, len(stream)))])
    for _ in range(draw(st.integers(0, 3)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data), vnet


@pytest.fixture
def both_framings() -> Iterator[dict[bool, Ring]]:
    """A ring without and one with V."""
    with _ring(False) as plain, _ring(True) as vnet:
        yield {False: plain, True: vnet}


def test_scan_agrees_with_its_oracle_on_any_bytes(both_framings: dict[bool, Ring]) -> None:
    """Over mutated and cut streams, at any position of the ring, scan finds what the slow oracle finds."""

    @given(streams(), st.integers(0, 2 * SIZE), st.integers(0, 14))
    @settings(max_examples=400)
    def compare(stream: tuple[bytes, bool], start: int, limit: int) -> None:
        data, vnet = stream
        r = both_framings[vnet]
        at = layout.PAGE + (start & (SIZE - 1))
        r._live().bytes[at : at + len(data)] = data
        position, count, bad = frames.scan(r.u8, r.w, 0, start, start + len(data), limit)
        assert (int(position) - start, int(count), int(bad)) == scan_oracle(data, vnet, limit)

    compare()


@given(st.lists(st.binary(max_size=300), max_size=10), st.booleans(), st.booleans(), st.integers(0, 1 << 30))
@settings(max_examples=60)
def test_copying_records_between_framings_keeps_the_frames(
    many: list[bytes], source_vnet: bool, target_vnet: bool, start: int
) -> None:
    """copy_record adds V = 0 or drops V, and says beforehand (copied_size) how long the copy is."""
    names = fresh("a"), fresh("b")
    lead, new_lead = 4 + 4 * source_vnet, 4 + 4 * target_vnet
    segments = [ring.create(name, SIZE, vnet=v) for name, v in zip(names, (source_vnet, target_vnet), strict=True)]
    arena = segment.Arena(2 * segment.ring_span(SIZE))
    source, target = (arena.map_ring(r._hold.seg) for r in segments)
    u8, w = arena.u8, arena.w
    with segments[0] as a, segments[1] as b:
        a.w[layout.HEAD] = a.w[layout.TAIL] = start
        with a.producer() as p:
            p.send_many(many)
        position, tail = start, start * 3
        for frame in many:
            size = int(frames.copied_size(u8, w, source, position, target))
            assert size == new_lead + len(frame)
            assert int(frames.copy_record(u8, w, source, position, target, tail)) == size
            at = layout.PAGE + (tail & (SIZE - 1))
            record = len(frame).to_bytes(4, "big") + bytes(4 * target_vnet) + frame
            assert bytes(b._live().bytes[at : at + size]) == record
            position += lead + len(frame)
            tail += size
    del u8, w
    arena.close()
