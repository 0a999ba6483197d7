"""netdev-pcap: one side of a netdev that is a capture: frames are read from it, and written to another."""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import Final

import numpy as np

from ring import layout
from stages.base import Stage
from stages.capture import reader as captures
from stages.capture.layout import columns as column_words
from stages.capture.layout import flows, memory, options, recording, scalars
from stages.capture.reader import CaptureError
from stages.capture.recorder import Recorder
from stages.packets.kernels.table import make_secret

_LONG_NS: Final = 60_000_000_000
_NEVER: Final = 1 << 62  # ns: slower than the years of a capture with one wrong time may be


class Pcap(Stage):
    """Emits the frames of ``read`` into receive; writes the frames of send to ``write``, or swallows them.

    Params: ``read``, ``write`` (paths), ``pace`` ("recorded" or "asap"), ``speed`` (2.0: twice as fast),
    ``clock_base_ns`` (time in the capture that CMD_CLOCK means; default its first), ``patience_ms`` (5000: how long a
    frame waits for the frames that it answers), ``record`` ("sent" or "both": whether what is emitted is written, too).
    """

    _spans: list[captures.Span]
    _left: captures.Left
    _data = b""

    def extra_bytes(self) -> int:
        """The capture, its columns, its index, and the recorder."""
        path = self.params["read"]
        self._data, spans, self._left = captures.taken(path) if path else captures.Taken(b"", [], captures.Left())
        # Causes stand before effects in the file; a stable sort keeps that where times are equal.
        self._spans = sorted(spans, key=lambda span: span.ns)
        self._slots = 1 << (2 * len(self._spans) + 1).bit_length()
        words = memory.HEADER + column_words.COLUMNS * len(self._spans) + self._slots
        return words * 8 + recording.BYTES + len(self._data)

    def options(self) -> dict[int, int]:
        """Where the capture lies, and how it is replayed."""
        return {
            options.BASE: self.extra,
            options.PACKETS: len(self._spans),
            options.MASK: self._slots - 1,
            options.FLOWS: self.kind.tables_at + flows.STATES,
            options.PATIENCE: int(self.params["patience_ms"]) * 1_000_000,
            options.ASAP: int(self.params["pace"] == "asap"),
            options.BOTH: int(self.params["record"] == "both"),
        }

    def on_start(self) -> None:
        """Load the capture and open the file to write.  Raises `CaptureError`."""
        self._recorder_at = self.extra + memory.HEADER + column_words.COLUMNS * len(self._spans) + self._slots
        self._base = int(self.params["clock_base_ns"] or (self._spans[0].ns if self._spans else 0))
        self._speed = float(self.params["speed"])
        self._say_what_is_left_out()
        self._load()
        self._data = b""
        self._spans = []
        self._recorder: Recorder | None = None
        if self.params["write"]:
            self._recorder = Recorder(self, self._recorder_at, self.params["write"], self.scalar(scalars.FILE_LENGTH))
            self.w[options.WRITE] = self._recorder_at
        self._finished = False
        self.w[layout.LIFE_FINISHED] = 0
        self._see_the_end()

    def _say_what_is_left_out(self) -> None:
        path, left = self.params["read"], self._left
        if left.end >= 0:
            self.log.warning(
                "the capture ends too early: what is whole is replayed",
                path=path, offset=left.end, reason=left.why, packets=len(self._spans),
            )  # fmt: skip
        if left.frames:
            self.log.warning(
                "frames of interfaces that are not Ethernet are left out",
                path=path, interfaces=", ".join(left.interfaces), frames=left.frames,
            )  # fmt: skip

    def _load(self) -> None:
        spans, w, n = self._spans, self.w, len(self._spans)
        if not spans:
            return
        path = self.params["read"]
        self._check_fingerprint(path)
        at = self._recorder_at * 8 + recording.BYTES
        self.arena.bytes[at : at + len(self._data)] = self._data
        if "receive" in self.rings:
            r = self.rings["receive"]
            largest = max(spans, key=lambda span: span.length)
            if largest.length + 8 > int(w[r + layout.SIZE]):
                found = (
                    f"a frame of {largest.length:,} bytes, but the ring receive has {int(w[r + layout.SIZE]):,} in all"
                )
                raise CaptureError(path, largest.start, found + ": make ring_size larger")
        asap = bool(w[options.ASAP])
        make_secret(self.w, self.extra + memory.SECRET)
        first = self.extra + memory.HEADER
        columns = {
            column_words.TIME: [0 if asap else self._due(s.ns) for s in spans],
            column_words.AT: [at + s.start for s in spans],
            column_words.LENGTH: [s.length for s in spans],
            column_words.NEED: [-1 if s.direction == captures.OUTBOUND else 0 for s in spans],
        }
        for column, values in columns.items():
            w[first + column * n : first + (column + 1) * n] = np.array(values, np.int64)
        waiting = int(self.kernel.replay_index(self.u8, w, 0))
        self.log.info("capture loaded", path=path, packets=n, flows=waiting)
        if not asap:
            self._say_where_it_rests()

    def _say_where_it_rests(self) -> None:
        """A time stamp that is wrong by years, or joined recordings of several days, look like a replay that hangs."""
        due = sorted(self._due(s.ns) for s in self._spans if s.direction != captures.OUTBOUND)
        longest, after = max(((to - at, at) for at, to in pairwise([0, *due])), default=(0, 0))
        if longest > _LONG_NS:
            self.log.warning(
                "the capture has a long pause: it is replayed with it",
                path=self.params["read"], after_s=round(after / 1e9, 1), pause_s=round(longest / 1e9),
                mend='a larger speed, or pace = "asap"',
            )  # fmt: skip

    def _due(self, ns: int) -> int:
        """When a frame of the capture's time ``ns`` is due, in ns of the pipeline's clock."""
        return int(max(-_NEVER, min(_NEVER, (ns - self._base) / self._speed)))

    def _check_fingerprint(self, path: str) -> None:
        """The positions in the segment belong to one capture: refuse another that came under its name."""
        at, mark = self.kind.tables_at + flows.FINGERPRINT, zlib.crc32(self._data) + 1
        found = int(self.w[at])
        if found not in (0, mark):
            raise CaptureError(
                path, 0, "the capture was changed while it was replayed: stop the pipeline and start it anew"
            )
        self.w[at] = mark

    def _see_the_end(self) -> None:
        w = self.w
        left = int(w[options.PACKETS]) - self.scalar(scalars.CURSOR) + int(w[self.extra + memory.PARKED])
        if left == 0 or "receive" not in self.rings or w[layout.CMD_DRAIN]:
            self._finished = True
            w[layout.LIFE_FINISHED] = 1

    def _offset(self, now: int) -> int | None:
        # Frames are stamped in the capture's time while it is replayed, else with the wall clock's.
        clock = int(self.w[layout.CMD_CLOCK])
        if not clock or not self._base:
            return None
        return self._base + int((now - clock) * self._speed) - now

    def do_work(self, now: int) -> int:
        """One burst; what it records is in the file before it counts."""
        w, recorder = self.w, self._recorder
        if recorder is None:
            result = int(self.kernel.replay_burst(self.u8, w, now))
        else:
            recorder.stamp(now, self._offset(now))
            result = int(self.kernel.replay_open(self.u8, w, now))
            if result:
                recorder.flush()
                w[w[self.extra + memory.ROW] + layout.ROW_SCALARS + scalars.FILE_LENGTH] = recorder.length
                result = int(self.kernel.replay_commit(self.u8, w, now))
        if not self._finished and (result or w[layout.CMD_DRAIN]):
            self._see_the_end()
        return result

    def on_close(self) -> None:
        """Close the file."""
        if self._recorder is not None:
            self._recorder.close()
