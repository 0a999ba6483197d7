"""The two ends of a ring, for plain Python: claim, wait, send, receive."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ring import doorbell, errors, forks, layout, segment
from ring.atomics import load_acquire
from ring.kernels import frames
from ring.memory_fence import fence

if TYPE_CHECKING:
    from ring.channel import Ring

_NAP_S = 0.010  # the longest sleep: a lost ring is a delay of that much at most
_SPINS = 50


class _End:
    """What both ends share: the claim on the ring, the doorbell, waiting."""

    _PID: int
    _PEER_PID: int
    _ASLEEP: int
    _PEER_ASLEEP: int
    _WORD: str

    def __init__(self, ring: Ring, label: str) -> None:
        self._ring, self._forks = ring, forks.count
        w, name_at = ring.w, layout.NAMES_BYTE + (layout.NAME_BYTES if self._WORD == "consumer" else 0)
        self._bell = doorbell.Doorbell()
        try:
            with self._claiming():
                pid, start = int(w[self._PID]), int(w[self._PID + 1])
                if segment.alive(pid, start):
                    raise errors.EndTaken(
                        f"ring {ring.name} has a {self._WORD} already: pid {pid}; a ring takes one of each"
                    )
                self._bell.announce(w, self._ASLEEP)
                text = label.encode()[: layout.NAME_BYTES - 1].ljust(layout.NAME_BYTES, b"\0")
                ring._live().bytes[name_at : name_at + layout.NAME_BYTES] = text
                w[self._PID + 1] = segment.process_start(os.getpid())
                fence()  # whoever sees the pid sees its doorbell
                w[self._PID] = os.getpid()
        except BaseException:
            self._bell.close()
            raise
        ring._hold.bells[self._PID] = self._bell, forks.count
        self._ringer = doorbell.Ringer()
        self._poll = select.poll()
        self._poll.register(self._bell.fd, select.POLLIN)

    @contextlib.contextmanager
    def _claiming(self) -> Iterator[None]:
        # A descriptor of our own: a lock belongs to the open file, and a forked child or a thread shares the ring's.
        fd = os.open(f"/proc/self/fd/{self._ring._hold.seg.fd}", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def _check(self) -> None:
        """Raise unless this end is still ours."""
        if self._forks != forks.count:
            raise errors.EndTaken(
                f"this {self._WORD} of ring {self._ring.name} is the parent process's: make one after the fork"
            )
        if self._bell.fd < 0:
            raise errors.RingClosed(f"this {self._WORD} of ring {self._ring.name} was closed")

    def _closed(self) -> bool:
        return load_acquire(self._ring.w, layout.STATE) == layout.RING_CLOSED  # partner: `headers.move_state`

    def _wake_peer(self) -> None:
        w = self._ring.w
        self._ringer.ring(int(w[self._PEER_PID]), int(w[self._PEER_ASLEEP + 1]), int(w[self._PEER_ASLEEP + 2]))

    def _ready(self) -> bool:
        raise RuntimeError("an end knows when it is ready")

    def _wait(self, timeout: float | None) -> bool:
        """Wait until `_ready`, at most ``timeout`` seconds (None: for ever); whether it is."""
        self._check()
        for _ in range(_SPINS):
            if self._ready():
                return True
            if timeout == 0:
                return False
            os.sched_yield()
        deadline = None if timeout is None else time.monotonic() + timeout
        w = self._ring.w
        frames.doze(w, self._ASLEEP)
        try:
            while not self._ready():
                left = _NAP_S if deadline is None else min(_NAP_S, deadline - time.monotonic())
                if left <= 0:
                    return False
                if self._poll.poll(math.ceil(left * 1000)):
                    self._bell.drain()
            return True
        finally:
            w[self._ASLEEP] = 0

    def close(self) -> None:
        """Leave the ring; another process may take this end."""
        if self._bell.fd >= 0:
            self._ring._hold.leave(self._PID)
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
        if self._closed():
            raise errors.RingClosed(f"ring {self._ring.name} was closed by its owner")
        return bool(frames.claim(self._ring.w, 0, self._need) >= 0)

    def _record(self, frame: bytes, vnet_hdr_len: int) -> bytes:
        try:
            frame = bytes(memoryview(frame))  # of whatever items: a frame is their bytes
        except TypeError:
            raise errors.BadFrame(f"{frame!r} is no frame: give bytes, bytearray or a memoryview") from None
        n = len(frame)
        lead = 8 if self._ring.vnet else 4
        if n > layout.MAX_FRAME:
            raise errors.FrameTooLarge(f"a frame of {n:,} bytes: the largest is {layout.MAX_FRAME:,}")
        if lead + n > self._ring.size:
            raise errors.FrameTooLarge(
                f"a frame of {n:,} bytes: ring {self._ring.name} holds {self._ring.size:,} in all"
            )
        if not 0 <= vnet_hdr_len <= n or (vnet_hdr_len and lead == 4):
            raise errors.BadFrame(f"a virtio-net header of {vnet_hdr_len} bytes in a frame of {n} (vnet={lead == 8})")
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
        return self.send(frame, 0, vnet_hdr_len)

    def send_many(self, many: Iterable[bytes], timeout: float | None = None) -> int:
        """Write frames in bursts; how many went in before ``timeout`` seconds without room."""
        batch: list[bytes] = []
        sent = size = waiting = 0
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
    """The end that reads.  Iteration yields frames until the ring is closed and empty."""

    _PID, _PEER_PID = layout.C_PID, layout.P_PID
    _ASLEEP, _PEER_ASLEEP = layout.C_ASLEEP, layout.P_ASLEEP
    _WORD = "consumer"

    def _ready(self) -> bool:
        w = self._ring.w
        if frames.poll(w, 0) > 0:
            return True
        if not self._closed():
            return False
        if frames.poll(w, 0) > 0:  # once more: the last frames came before the close, perhaps after the first look
            return True
        raise errors.RingClosed(f"ring {self._ring.name} was closed by its owner")

    def recv(self, timeout: float | None = None) -> bytes | None:
        """The next frame (with its virtio-net header, where it has one); None after ``timeout`` seconds without."""
        got = self.recv_many(1, timeout)
        return got[0] if got else None

    def recv_many(self, limit: int = 256, timeout: float | None = None) -> list[bytes]:
        """At least one and at most ``limit`` frames; an empty list after ``timeout`` seconds without any."""
        if not self._wait(timeout):
            return []
        ring = self._ring
        got: list[bytes] = []
        w, data = ring.w, ring._live().bytes
        head, lead = int(w[layout.HEAD]), 8 if ring.vnet else 4
        position, end = head, head + int(frames.poll(w, 0))
        while position < end and len(got) < limit:
            at = layout.PAGE + (position & (ring.size - 1))
            n = int.from_bytes(data[at : at + 4], "big")
            if n > layout.MAX_FRAME or position + lead + n > end:
                raise errors.BadRecord(
                    f"ring {ring.name}: a frame of {n:,} bytes at position {position:,}, published up to {end:,}"
                )
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
