"""filter-dump: the file around the kernels.  What cannot be written costs the dump, never a packet."""

from __future__ import annotations

import os
from typing import Final

from ring import layout
from stages.base import Stage
from stages.capture.reader import CaptureError
from stages.capture.recorder import BYTES, INBOUND, OUTBOUND, Recorder
from stages.dump import layout as own
from stages.dump.files import Files

_AGAIN_NS: Final = 5_000_000_000  # after a failure: the disk may have room again


class Dump(Stage):
    """Records what passes, both ways, as the netdev sees it: what goes to the guest is inbound."""

    _recorder: Recorder | None = None
    _length = 0  # bytes of the present file that count, the open burst's left out
    _retry_ns = 0

    def extra_bytes(self) -> int:
        """The recorder's buffer."""
        return BYTES

    def on_start(self) -> None:
        """Go on with the file where the commits end, or begin one."""
        self._files = Files(self.params["file"], self.params["files"])
        self._number, self._length = self.scalar(own.NUMBER), self.scalar(own.LENGTH)
        try:
            if self._number == 0:  # nothing was ever committed
                self._number = max(self._files.numbers(), default=0) + 1
                older = self.spec.epoch == 1 and os.path.exists(self._files.path)
                if older and os.path.getsize(self._files.path):  # of an older run: a killed process left no packet
                    self._next_file()
            elif os.path.exists(self._files.aside(self._number)):  # killed while the file was changed
                self._next_file()
            self._open()
        except (OSError, CaptureError) as error:
            self._fail(error, 0)

    def _open(self) -> None:
        path, longest = self._files.path, self.params["maxlen"]
        self._recorder = Recorder(self, self.extra, path, self._length, longest)

    def _next_file(self) -> None:
        if os.path.exists(self._files.path):
            self._files.put_aside(self._number)
        self._number, self._length = self._number + 1, 0

    def _fail(self, error: Exception, now: int) -> None:
        if self._recorder is not None:
            self._recorder.abandon(self._length)
            self._recorder = None
        self._retry_ns = now + _AGAIN_NS
        self.log.warning("the dump cannot be written: packets pass without it", file=self._files.path, why=str(error))

    def do_work(self, now: int) -> int:
        """One burst; what is recorded of it is in the file before it counts."""
        w = self.w
        moved = int(self.kernel.dump_open(self.u8, w, now))
        if not moved:
            return 0
        row = int(w[own.ROW])
        if w[layout.CMD_STATUS] == 1 and not self._written(now):
            w[row + layout.ROW_COUNTERS + own.RECORDED] -= moved
            w[row + layout.ROW_COUNTERS + own.UNRECORDED] += moved
        if self._recorder is not None:
            self._length = self._recorder.length
            w[row + layout.ROW_SCALARS + own.LENGTH] = self._length
            w[row + layout.ROW_SCALARS + own.NUMBER] = self._number
        return int(self.kernel.dump_commit(self.u8, w, now))

    def _written(self, now: int) -> bool:
        """Whether the open burst is in the file."""
        if self._recorder is None and now < self._retry_ns:
            return False
        try:
            if self._recorder is None:
                self._open()
                self.log.info("the dump is written again", file=self._files.path)
            elif self._recorder.length >= self.params["file_size"]:
                self._recorder.close()
                self._recorder = None
                self._next_file()
                self._open()
            assert self._recorder is not None
            for way, direction in ((own.TX, INBOUND), (own.RX, OUTBOUND)):
                source = int(self.w[layout.INPUTS + way])
                start, end = int(self.w[own.FROM + way]), int(self.w[own.TO + way])
                self._recorder.span(source, start, end, direction, now)
            self._recorder.flush()
        except (OSError, CaptureError) as error:
            self._fail(error, now)
            return False
        return True

    def on_close(self) -> None:
        """Close the file."""
        if self._recorder is not None:
            self._recorder.close()
