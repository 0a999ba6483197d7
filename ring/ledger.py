"""A stage's segment from outside: made, commanded and read by the supervisor, without Numba.

The kernels' side is `ring.kernels.ledger`; where every word lives is `ring.layout`.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from ring import errors, headers, layout, segment
from ring.memory_fence import fence


class StageSegment:
    """A stage's segment, seen by another process: ``w`` are its words."""

    def __init__(self, name: str, seg: segment.Segment) -> None:
        self.name, self._seg = name, seg
        self._arena = segment.Arena(seg.nbytes)
        self._arena.map_plain(seg)
        self.w: Any = self._arena.w
        # Slices made once: the shorter the copy takes, the less likely it is to be repeated.
        self._rows = tuple(self.w[at : at + layout.ROW_WORDS] for at in (layout.ROWS, layout.ROWS + layout.ROW_WORDS))

    @classmethod
    def create(cls, name: str, words: int, digest: int = 0, *, kind: str = "") -> StageSegment:
        """Make the segment of a stage whose ``kind`` needs ``words`` words; this process owns it."""
        if words < layout.UNDO:
            raise errors.BadSize(f"a stage segment of {words:,} words: its fixed part alone has {layout.UNDO:,}")
        seg = segment.Segment.create(name, words * 8)
        try:
            made = cls(name, seg)
        except BaseException:
            seg.close()
            segment.unlink(name)
            raise
        w, owner = made.w, os.getpid()
        w[layout.VERSION] = layout.LAYOUT_VERSION
        w[layout.STAGE_WORDS] = words
        w[layout.OWNER_PID] = owner
        w[layout.OWNER_START] = segment.process_start(owner)
        w[layout.DIGEST] = digest
        padded = kind.encode()[: layout.NAME_BYTES - 1].ljust(layout.NAME_BYTES, b"\0")
        w[layout.KIND_NAME : layout.KIND_NAME + layout.NAME_BYTES // 8] = np.frombuffer(padded, np.int64)
        w[layout.CMD_STATUS] = 1
        fence()
        w[layout.MAGIC] = layout.STAGE_MAGIC  # last: a segment without it is not ready
        return made

    @classmethod
    def attach(cls, name: str) -> StageSegment:
        """Open an existing one.  Raises `SegmentMissing`, `LayoutMismatch`."""
        seg = segment.Segment.attach(name)
        try:
            if seg.nbytes < layout.UNDO * 8:
                raise errors.LayoutMismatch(
                    f"/dev/shm/{name} is no stage's segment: {seg.nbytes:,} bytes long, or half made"
                )
            found = cls(name, seg)
        except BaseException:
            seg.close()
            raise
        try:
            headers.check_header(name, found.w, seg.nbytes, layout.STAGE_MAGIC)
            if int(found.w[layout.STAGE_WORDS]) * 8 > seg.nbytes:
                words = int(found.w[layout.STAGE_WORDS])
                raise errors.LayoutMismatch(
                    f"/dev/shm/{name} is {seg.nbytes:,} bytes long, its header says {words:,} words"
                )
        except BaseException:
            found.close()
            raise
        return found

    @property
    def segment(self) -> segment.Segment:
        """The segment, whose descriptor this one keeps."""
        return self._seg

    def kind_name(self) -> str:
        """The kind of the stage that the segment was made for; empty where its maker did not say."""
        return bytes(self.w[layout.KIND_NAME : layout.KIND_NAME + layout.NAME_BYTES // 8]).rstrip(b"\0").decode()

    def say_where(self, control: str, config: str) -> None:
        """Write where its supervisor listens, and the config that it runs; what is too long is left out."""
        for text, at, size in (
            (control, layout.CONTROL, layout.CONTROL_BYTES),
            (config, layout.CONFIG, layout.CONFIG_BYTES),
        ):
            data = os.fsencode(text)
            padded = (data if len(data) < size else b"").ljust(size, b"\0")
            self.w[at : at + size // 8] = np.frombuffer(padded, np.int64)

    def row(self) -> Any:
        """A copy of the committed row (heads, tails, scalars, counters), torn by no commit."""
        w = self.w
        while True:
            burst = int(w[layout.COMMITTED])
            fence()
            row = self._rows[burst & 1].copy()
            fence()
            # The copy is whole unless the burst after the next one began meanwhile and took this row as its scratch.
            if int(w[layout.COMMITTED]) == burst:
                return row

    def counters(self) -> list[int]:
        """Committed counters by index."""
        return [int(x) for x in self.row()[layout.ROW_COUNTERS :]]

    def scalars(self) -> list[int]:
        """Committed scalars by index."""
        return [int(x) for x in self.row()[layout.ROW_SCALARS : layout.ROW_COUNTERS]]

    def histogram(self, i: int) -> Any:
        """A copy of the latency histogram of input ``i``: counts by bucket (`bucket_floor` gives nanoseconds)."""
        at = layout.HISTOGRAMS + i * layout.BUCKETS
        return np.array(self.w[at : at + layout.BUCKETS])

    def close(self) -> None:
        """Detach; the segment stays."""
        self._seg.close()
        self.w, self._rows = None, ()
        self._arena.close()


def bucket_floor(i: int) -> int:
    """Smallest duration in nanoseconds that falls into histogram bucket ``i``."""
    return i if i < 8 else (i % 4 + 4) << (i // 4 - 1)


def percentile(histogram: Any, q: float) -> int:
    """Lower bound in nanoseconds of the bucket that the share ``q`` of a histogram's samples reaches; 0: no sample."""
    total = int(histogram.sum())
    if total == 0:
        return 0
    rank = min(max(1, math.ceil(q * total)), total)
    return bucket_floor(int(np.searchsorted(np.cumsum(histogram), rank)))
