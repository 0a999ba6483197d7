"""Rings from plain Python: create, attach, send, receive.

The data path of the pipeline does not come here: its kernels work on the same words in compiled code.
"""

from __future__ import annotations

import fcntl
import os
import select
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from ring import doorbell, errors, layout, segment
from ring.kernels import frames

_UNITS = {"": 1, "B": 1, "KIB": 1024, "MIB": 1024**2, "GIB": 1024**3}
_NAP_S = 0.010  # the longest sleep: a lost ring is a delay of that much at most
_SPINS = 50


def parse_size(size: int | str) -> int:
    """Bytes of ``"4MiB"``, ``"64 KiB"`` or ``65536``."""
    if isinstance(size, int):
        return size
    text = size.strip()
    digits = text.rstrip("BbGgIiKkMm ")
    unit = text[len(digits) :].strip().upper()
    if not digits.isdecimal() or unit not in _UNITS:
        raise errors.BadSize(f'{size!r} is no size: write bytes or "64KiB", "4MiB", "1GiB"')
    return int(digits) * _UNITS[unit]


def check_size(size: int | str) -> int:
    """``size`` in bytes if a ring can have it."""
    n = parse_size(size)
    if n < layout.PAGE or n & (n - 1):
        above = max(layout.PAGE, 1 << max(n - 1, 1).bit_length())
        raise errors.BadSize(f"a ring of {n:,} bytes: it must be a power of two from {layout.PAGE:,} on, say {above:,}")
    return n


def format_header(w: Any, size: int, *, vnet: bool, owner: int, digest: int = 0) -> None:
    """Write the header of a new ring; ``w`` is the int64 view of its segment, all zeros."""
    w[layout.VERSION] = layout.LAYOUT_VERSION
    w[layout.SIZE] = size
    w[layout.VNET] = int(vnet)
    w[layout.STATE] = layout.RING_OPEN
    w[layout.OWNER_PID] = owner
    w[layout.OWNER_START] = segment.process_start(owner)
    w[layout.DIGEST] = digest
    w[layout.P_LINK] = w[layout.C_LINK] = 1
    w[layout.MAGIC] = layout.RING_MAGIC  # last: a segment without it is not ready


def check_header(name: str, w: Any, nbytes: int, magic: int) -> None:
    """Raise `LayoutMismatch` unless ``w`` starts a segment of this layout version."""
    if nbytes < layout.PAGE or int(w[layout.MAGIC]) != magic:
        raise errors.LayoutMismatch(f"/dev/shm/{name} is not one of our segments: another program's, or half made")
    version = int(w[layout.VERSION])
    if version != layout.LAYOUT_VERSION:
        raise errors.LayoutMismatch(
            f"/dev/shm/{name} has layout version {version}, this program speaks {layout.LAYOUT_VERSION}: "
            f"stop the old program, then ring.unlink({name!r})"
        )


class Ring:
    """One ring: made by `create` or opened by `attach`.

    As a context manager it closes at the end, and its creator removes the segment.
    """

    def __init__(self, name: str, seg: segment.Segment, *, owner: bool) -> None:
        self.name, self._owner, self._seg = name, owner, seg
        self.size = seg.nbytes - layout.PAGE
        self._ends: list[_End] = []
        self._arena: segment.Arena | None = segment.Arena(segment.ring_span(self.size))
        self._arena.map_ring(seg)

    @property
    def w(self) -> Any:
        """Int64 words of the arena; the ring's header starts at word 0."""
        return self._live().w

    @property
    def u8(self) -> Any:
        """Bytes of the arena."""
        return self._live().u8

    @property
    def used(self) -> int:
        """Bytes between head and tail."""
        return int(self.w[layout.TAIL] - self.w[layout.HEAD])

    @property
    def vnet(self) -> bool:
        """Whether frames carry a virtio-net header length."""
        return bool(self.w[layout.VNET])

    def _live(self) -> segment.Arena:
        if self._arena is None:
            raise errors.RingClosed(f"ring {self.name} was closed here: create or attach it again")
        return self._arena

    def producer(self, label: str = "") -> Producer:
        """Become the ring's one producer."""
        return Producer(self, label)

    def consumer(self, label: str = "") -> Consumer:
        """Become the ring's one consumer."""
        return Consumer(self, label)

    def close(self) -> None:
        """Detach; the creator also closes the ring for both ends and removes its name."""
        if self._arena is None:
            return
        for end in list(self._ends):
            end.close()
        if self._owner:
            self.w[layout.STATE] = layout.RING_CLOSED
            segment.unlink(self.name)
        self._seg.close()
        self._arena.close()
        self._arena = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._arena is None else f"{self.used:,} of {self.size:,} bytes used"
        return f"<ring {self.name}: {state}>"


def create(name: str, size: int | str = "1MiB", *, vnet: bool = False) -> Ring:
    """Make a ring of ``size`` bytes (a power of two) and own it: its end removes the segment.

    Raises `BadName`, `BadSize`, `SegmentExists`, `NoSpace`.
    """
    n = check_size(size)
    seg = segment.Segment.create(name, layout.PAGE + n)
    try:
        made = Ring(name, seg, owner=True)
        format_header(made.w, n, vnet=vnet, owner=os.getpid())
    except BaseException:
        segment.unlink(name)
        raise
    return made


def attach(name: str) -> Ring:
    """Open a ring that another process made.  Raises `SegmentMissing`, `LayoutMismatch`."""
    seg = segment.Segment.attach(name)
    words = segment.Arena(seg.nbytes)
    try:
        if seg.nbytes:
            words.map_plain(seg)
        check_header(name, words.w, seg.nbytes, layout.RING_MAGIC)
        size = int(words.w[layout.SIZE])
        if seg.nbytes != layout.PAGE + size or size & (size - 1):
            raise errors.LayoutMismatch(f"/dev/shm/{name} is {seg.nbytes:,} bytes long, its header says {size:,} of data")
    except BaseException:
        seg.close()
        raise
    finally:
        words.close()
    return Ring(name, seg, owner=False)


unlink = segment.unlink


class _End:
    """What both ends share: the claim on the ring, the doorbell, waiting."""

    _PID: int
    _PEER_PID: int
    _ASLEEP: int
    _PEER_ASLEEP: int
    _WORD: str

    def __init__(self, ring: Ring, label: str) -> None:
        self._ring = ring
        w = ring.w
        fcntl.flock(ring._seg.fd, fcntl.LOCK_EX)
        try:
            pid, start = int(w[self._PID]), int(w[self._PID + 1])
            if segment.alive(pid, start):
                raise errors.EndTaken(f"ring {ring.name} has a {self._WORD} already: pid {pid}; a ring takes one of each")
            self._bell = doorbell.Doorbell()
            self._bell.announce(w, self._ASLEEP)
            w[self._PID + 1] = segment.process_start(os.getpid())
            w[self._PID] = os.getpid()
        finally:
            fcntl.flock(ring._seg.fd, fcntl.LOCK_UN)
        at = layout.NAMES_BYTE + (64 if self._WORD == "consumer" else 0)
        ring.u8[at : at + 64] = list(label.encode()[:63].ljust(64, b"\0"))
        self._ringer = doorbell.Ringer()
        ring._ends.append(self)

    def _wake_peer(self) -> None:
        w = self._ring.w
        self._ringer.ring(int(w[self._PEER_PID]), int(w[self._PEER_ASLEEP + 1]), int(w[self._PEER_ASLEEP + 2]))

    def _ready(self) -> bool:
        raise RuntimeError("an end knows when it is ready")

    def _wait(self, timeout: float | None) -> bool:
        """Wait until `_ready`, at most ``timeout`` seconds (None: for ever); whether it is."""
        for _ in range(_SPINS):
            if self._ready():
                return True
            os.sched_yield()
        deadline = None if timeout is None else time.monotonic() + timeout
        w = self._ring.w
        w[self._ASLEEP] = 1
        try:
            while True:
                # The kernel call in `_ready` is a full fence's worth of instructions away from the store above, but
                # not a fence; a ring missed here is a nap of _NAP_S.
                if self._ready():
                    return True
                left = _NAP_S if deadline is None else min(_NAP_S, deadline - time.monotonic())
                if left <= 0:
                    return False
                if select.select([self._bell.fd], [], [], left)[0]:
                    self._bell.drain()
        finally:
            w[self._ASLEEP] = 0

    def close(self) -> None:
        """Leave the ring; another process may take this end."""
        if self in self._ring._ends:
            self._ring._ends.remove(self)
            self._ring.w[self._PID] = 0
            self._bell.close()
            self._ringer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Producer(_End):
    """The end that writes.  ``send`` waits for room; ``try_send`` does not."""

    _PID, _PEER_PID = layout.P_PID, layout.C_PID
    _ASLEEP, _PEER_ASLEEP = layout.P_ASLEEP, layout.C_ASLEEP
    _WORD = "producer"
    _need = 0

    def _ready(self) -> bool:
        ring = self._ring
        if int(ring.w[layout.STATE]) == layout.RING_CLOSED:
            raise errors.RingClosed(f"ring {ring.name} was closed by its owner")
        return bool(frames.claim(ring.w, 0, self._need) >= 0)

    def _record(self, frame: bytes, vnet_hdr_len: int) -> bytes:
        n = len(frame)
        lead = 8 if self._ring.vnet else 4
        if n > layout.MAX_FRAME:
            raise errors.FrameTooLarge(f"a frame of {n:,} bytes: the largest is {layout.MAX_FRAME:,}")
        if lead + n > self._ring.size:
            raise errors.FrameTooLarge(f"a frame of {n:,} bytes: ring {self._ring.name} holds {self._ring.size:,} in all")
        if vnet_hdr_len > n or (vnet_hdr_len and lead == 4):
            raise errors.FrameTooLarge(f"a virtio-net header of {vnet_hdr_len} bytes in a frame of {n} (vnet={lead == 8})")
        return n.to_bytes(4, "big") + (vnet_hdr_len.to_bytes(4, "big") if lead == 8 else b"") + frame

    def _put(self, record: bytes) -> None:
        ring = self._ring
        at = frames.claim(ring.w, 0, len(record))
        ring._live().bytes[at : at + len(record)] = record
        if frames.commit(ring.w, 0, len(record)):
            self._wake_peer()

    def send(self, frame: bytes, timeout: float | None = None, vnet_hdr_len: int = 0) -> bool:
        """Write one frame; False when there was no room for ``timeout`` seconds (None: wait for ever)."""
        record = self._record(frame, vnet_hdr_len)
        self._need = len(record)
        if not self._wait(timeout):
            return False
        self._put(record)
        return True

    def try_send(self, frame: bytes, vnet_hdr_len: int = 0) -> bool:
        """Write one frame if there is room now."""
        record = self._record(frame, vnet_hdr_len)
        self._need = len(record)
        if not self._ready():
            return False
        self._put(record)
        return True

    def send_many(self, many: Iterable[bytes], timeout: float | None = None) -> int:
        """Write frames in bursts; how many went in before ``timeout`` seconds without room."""
        sent, batch, size, waiting = 0, [], 0, 0
        limit = self._ring.size // 2
        for frame in many:
            record = self._record(frame, 0)
            if batch and size + len(record) > limit:
                self._need = size
                if not self._wait(timeout):
                    return sent
                self._put(b"".join(batch))
                sent, batch, size, waiting = sent + waiting, [], 0, 0
            batch.append(record)
            size += len(record)
            waiting += 1
        if batch:
            self._need = size
            if not self._wait(timeout):
                return sent
            self._put(b"".join(batch))
        return sent + waiting


class Consumer(_End):
    """The end that reads.  Iteration yields frames until the ring is closed."""

    _PID, _PEER_PID = layout.C_PID, layout.P_PID
    _ASLEEP, _PEER_ASLEEP = layout.C_ASLEEP, layout.P_ASLEEP
    _WORD = "consumer"

    def _ready(self) -> bool:
        ring = self._ring
        if frames.poll(ring.w, 0) > 0:
            return True
        if int(ring.w[layout.STATE]) == layout.RING_CLOSED:
            raise errors.RingClosed(f"ring {ring.name} was closed by its owner")
        return False

    def recv(self, timeout: float | None = None) -> bytes | None:
        """The next frame (with its virtio-net header, where it has one); None after ``timeout`` seconds without."""
        got = self.recv_many(1, timeout)
        return got[0] if got else None

    def recv_many(self, limit: int = 256, timeout: float | None = None) -> list[bytes]:
        """At least one and at most ``limit`` frames; an empty list after ``timeout`` seconds without any."""
        if not self._wait(timeout):
            return []
        ring, got = self._ring, []
        w, data = ring.w, ring._live().bytes
        head, lead = int(w[layout.HEAD]), 8 if ring.vnet else 4
        position, end = head, head + int(frames.poll(w, 0))
        while position < end and len(got) < limit:
            at = layout.PAGE + (position & (ring.size - 1))
            n = int.from_bytes(data[at : at + 4], "big")
            got.append(bytes(data[at + lead : at + lead + n]))
            position += lead + n
        if frames.release(w, 0, position - head):
            self._wake_peer()
        return got

    def __iter__(self) -> Iterator[bytes]:
        try:
            while True:
                yield from self.recv_many()
        except errors.RingClosed:
            return


