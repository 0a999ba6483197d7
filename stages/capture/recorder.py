"""What went through a stage, both ways, as a capture.

A stage asks for `BYTES` in `Stage.extra_bytes`, makes a `Recorder` in ``on_start``, and calls `Recorder.span` with
ring positions and then `Recorder.flush`: for frames that came from outside after they are in the ring, for frames that
left before the ring's head moves on.  No Python sees a frame; the file gets one write a burst.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any, Final

from ring.layout import MAX_FRAME
from stages.base import Stage
from stages.capture import reader as captures
from stages.capture.kernels.pcap_blocks import record_span
from stages.capture.layout import recording
from stages.capture.writer import Writer

BYTES: Final = recording.BYTES
INBOUND: Final = recording.INBOUND  # from the outside into the pipeline
OUTBOUND: Final = recording.OUTBOUND


class Recorder:
    """Writes frames of ``stage`` to ``path``; ``at`` is the first word of its `BYTES` of private memory.

    ``keep``: bytes of the file that are true (what the ledger committed); None: a live recording, which in a stage's
    first process begins a new file and in a later one goes on after the last whole record.  ``longest``: bytes kept of
    a frame.  ``beginning``: see `Writer`.
    """

    def __init__(
        self, stage: Stage, at: int, path: str, keep: int | None = None, longest: int = MAX_FRAME, *,
        beginning: bytes = b"",
    ) -> None:  # fmt: skip
        self._u8, self._w, self._bytes, self._at = stage.u8, stage.w, stage.arena.bytes, at
        if keep is None:
            keep = captures.whole_length(path) if stage.spec.epoch > 1 and os.path.exists(path) else 0
        self._writer = Writer(path, [stage.spec.id], keep, beginning=beginning)
        if self._writer.lost:
            stage.log.warning("the capture was cut or removed while it was written: it begins again", path=path)
        self._wall = time.time_ns() - time.monotonic_ns()
        self._kernel: Callable[[Any, Any, int], int] = record_span
        stage.w[recording.RECORDER] = at
        stage.w[at + recording.CLASSIC], stage.w[at + recording.LONGEST] = int(self._writer.classic), longest
        stage.w[at + recording.USED] = 0

    @property
    def length(self) -> int:
        """Bytes of the file so far."""
        return self._writer.length

    def stamp(self, now: int, offset: int | None = None) -> None:
        """Set the time of the frames to come: monotonic ``now`` plus ``offset`` (default: to the wall clock), in ns."""
        self._w[self._at + recording.STAMP] = now + (self._wall if offset is None else offset)

    def span(self, ring: int, start: int, end: int, direction: int, now: int) -> None:
        """Record the frames in [start, end) of the ring whose header is at word ``ring``, at monotonic time ``now``."""
        if start == end:
            return
        w, at = self._w, self._at
        w[at + recording.SOURCE], w[at + recording.DIRECTION] = ring, direction
        w[at + recording.START], w[at + recording.END] = start, end
        self.stamp(now)
        while True:
            self._kernel(self._u8, w, now)
            if w[at + recording.START] >= end:
                return
            self.flush()

    def flush(self) -> None:
        """Write what is in the buffer.  Raises `CaptureError` (a full disk)."""
        used = int(self._w[self._at + recording.USED])
        if used:
            start = (self._at + recording.WORDS) * 8
            self._writer.append(self._bytes[start : start + used])
            self._w[self._at + recording.USED] = 0

    def abandon(self, length: int) -> None:
        """Close the file with so many of its bytes, which `length` once said; what is in the buffer is not written."""
        self._w[self._at + recording.USED] = 0
        with contextlib.suppress(OSError):
            self._writer.truncate(length)
        with contextlib.suppress(OSError):
            self._writer.close()

    def close(self) -> None:
        """Write the rest and close the file."""
        self.flush()
        self._writer.close()
