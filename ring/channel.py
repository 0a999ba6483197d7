"""Rings from plain Python: create, attach, send, receive.

The data path of the pipeline does not come here: its kernels work on the same words in compiled code.
"""

from __future__ import annotations

import os
import warnings
import weakref
from types import TracebackType
from typing import Any, Self

from ring import doorbell, errors, forks, layout, segment
from ring.atomics import load_acquire
from ring.ends import Consumer, Producer
from ring.headers import check_header, format_header, move_state
from ring.memory_fence import fence
from ring.sizes import check_size, parse_size

__all__ = [
    "Consumer",
    "Producer",
    "Ring",
    "attach",
    "check_header",
    "check_size",
    "create",
    "format_header",
    "move_state",
    "parse_size",
    "unlink",
]


class _Hold:
    """What a `Ring` holds of its segment; let go once: by `Ring.close`, by the garbage collector, or at exit."""

    def __init__(self, name: str, seg: segment.Segment, *, owner: bool) -> None:
        self.name, self.seg, self.owner, self.forks = name, seg, owner, forks.count
        self.arena: segment.Arena | None = segment.Arena(segment.ring_span(seg.nbytes - layout.PAGE))
        self.arena.map_ring(seg)
        # By the pid word of each end that is claimed here: its doorbell, and in which process.
        self.bells: dict[int, tuple[doorbell.Doorbell, int]] = {}

    def leave(self, pid_word: int) -> None:
        """Give an end back, unless a fork has made this a copy: the end is the parent's then."""
        bell, claimed_in = self.bells.pop(pid_word, (None, 0))
        if bell is not None and self.arena is not None:
            if claimed_in == forks.count:
                fence()
                self.arena.w[pid_word] = 0
            bell.close()

    def let_go(self) -> None:
        """Detach; the owner also closes the ring for both ends, wakes them and removes the name."""
        if self.arena is None:
            return
        for pid_word in list(self.bells):
            self.leave(pid_word)
        if self.owner and self.forks == forks.count:
            if int(self.arena.w[layout.STATE]) != layout.RING_CLOSED:
                move_state(self.arena.w, layout.RING_CLOSED)
            _wake_all(self.arena.w)
            segment.unlink(self.name)
        self.seg.close()
        self.arena.close()
        self.arena = None


def _wake_all(w: Any) -> None:
    """Ring at both ends: a sleeper has to see that the ring was closed."""
    ringer = doorbell.Ringer()
    for pid, bell in ((layout.P_PID, layout.P_BELL_FD), (layout.C_PID, layout.C_BELL_FD)):
        ringer.ring(int(w[pid]), int(w[bell]), int(w[bell + 1]))
    ringer.close()


def _abandon(hold: _Hold) -> None:
    hold.let_go()
    if hold.forks == forks.count:
        warnings.warn(f"ring {hold.name} was never closed", ResourceWarning, stacklevel=2)


class Ring:
    """One ring: made by `create` or opened by `attach`.

    As a context manager it closes at the end, and its creator removes the segment.  After a fork the child's copy is an
    attached one: it may take an end that is free, but the parent's ends and the segment's name stay the parent's.
    """

    def __init__(self, name: str, seg: segment.Segment, *, owner: bool) -> None:
        self.name, self.size = name, seg.nbytes - layout.PAGE
        self._hold = _Hold(name, seg, owner=owner)
        self._at_end = weakref.finalize(self, _abandon, self._hold)

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
        head = load_acquire(self.w, layout.HEAD)  # before the tail, else both may have moved past it
        return int(load_acquire(self.w, layout.TAIL) - head)

    @property
    def vnet(self) -> bool:
        """Whether frames carry a virtio-net header length."""
        return bool(self.w[layout.VNET])

    def _live(self) -> segment.Arena:
        if self._hold.arena is None:
            raise errors.RingClosed(f"ring {self.name} was closed here: create or attach it again")
        return self._hold.arena

    def producer(self, label: str = "") -> Producer:
        """Become the ring's one producer.  Raises `EndTaken`."""
        return Producer(self, label)

    def consumer(self, label: str = "") -> Consumer:
        """Become the ring's one consumer.  Raises `EndTaken`."""
        return Consumer(self, label)

    def close(self) -> None:
        """Detach; the creator also closes the ring for both ends, wakes them and removes its name."""
        self._at_end.detach()
        self._hold.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._hold.arena is None else f"{self.used:,} of {self.size:,} bytes used"
        return f"<ring {self.name}: {state}>"


def create(name: str, size: int | str = "1MiB", *, vnet: bool = False) -> Ring:
    """Make a ring of ``size`` bytes (a power of two) and own it: its end removes the segment.

    Raises `BadName`, `BadSize`, `SegmentExists`, `NoSpace`.
    """
    n = check_size(size)
    seg = segment.Segment.create(name, layout.PAGE + n)
    try:
        made = Ring(name, seg, owner=True)
    except BaseException:
        seg.close()
        segment.unlink(name)
        raise
    format_header(made.w, n, vnet=vnet, owner=os.getpid())
    return made


def attach(name: str) -> Ring:
    """Open a ring that another process made.  Raises `SegmentMissing`, `LayoutMismatch`."""
    seg = segment.Segment.attach(name)
    try:
        if seg.nbytes <= layout.PAGE:
            raise errors.LayoutMismatch(f"/dev/shm/{name} is no ring: {seg.nbytes:,} bytes long, or half made")
        header = segment.Arena(seg.nbytes)
        header.map_plain(seg)
        check_header(name, header.w, seg.nbytes, layout.RING_MAGIC)
        size = int(header.w[layout.SIZE])
        header.close()
        if seg.nbytes != layout.PAGE + size or size & (size - 1):
            raise errors.LayoutMismatch(
                f"/dev/shm/{name} is {seg.nbytes:,} bytes long, its header says {size:,} of data"
            )
        return Ring(name, seg, owner=False)
    except BaseException:
        seg.close()
        raise


unlink = segment.unlink
