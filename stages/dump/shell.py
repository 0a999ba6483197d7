"""filter-dump: the file around the kernels.  What cannot be written costs the dump, never a packet."""

from __future__ import annotations

import os
import time
from typing import Final

from ring import layout
from stages.base import Stage
from stages.capture.reader import CaptureError
from stages.capture.recorder import BYTES, INBOUND, OUTBOUND, Recorder
from stages.dump import layout as own
from stages.dump.files import Files

_AGAIN_NS: Final = 5_000_000_000  # after a failure: the disk may have room again


def new_run() -> int:
    """A number of 32 bits, not 0, that no other run of a dump has."""
    return int.from_bytes(os.urandom(4), "big") or 1


class Dump(Stage):
    """Records what passes, both ways, as the netdev sees it: what goes to the guest is inbound."""

    _recorder: Recorder | None = None
    _serial = _length = 0  # the file that the recorder writes, and its bytes that count, the open burst's left out
    _retry_ns = 0
    _failing = False
    _stuck: frozenset[str] = frozenset()  # files that could not be removed

    def extra_bytes(self) -> int:
        """The recorder's buffer."""
        return BYTES

    def on_start(self) -> None:
        """Go on with the file where the commits end, or begin one."""
        self._files = Files(self.params["file"], self.params["files"])
        run = self.kind.tables_at + own.RUN
        if self.w[run] == 0:
            self.w[run] = new_run()  # before there is a file of it: a killed process's file is known by it
        self._run = int(self.w[run])
        try:
            self._prepare()
        except (OSError, CaptureError) as error:
            self._fail(error, time.monotonic_ns())

    def _beginning(self, serial: int) -> bytes:
        return self._files.beginning(self.spec.id, self._run, serial)

    def _prepare(self, *, begin: bool = False) -> None:
        """Open the file that counts where the commits end, or ``begin`` the next one.  Raises OSError, CaptureError.

        What is to be done, what was committed and what lies there say, nothing else: so it is right after a kill and
        after a failure, and may be done again and again.  A file of another beginning is somebody else's.  One that
        begins as the next one does is ours, and what is in it was never committed.
        """
        serial, length, beginning = self.scalar(own.SERIAL), self.scalar(own.LENGTH), self._beginning
        following = beginning(serial + 1)
        present, size = self._files.look(max(len(beginning(serial)), len(following)))
        ours = serial > 0 and present.startswith(beginning(serial)) and size >= length
        if begin or not ours or self._files.is_aside():
            if not following.startswith(present[: len(following)]):
                self._files.put_aside()
            if serial and length < self.params["file_size"] and self._serial <= serial:
                path = self._files.path
                self.log.warning("the dump's file was cut, removed or replaced: a new one begins", file=path)
            serial, length = serial + 1, 0
        self._serial, self._length = serial, length
        self._clean_up()
        self._recorder = Recorder(
            self, self.extra, self._files.path, length, self.params["maxlen"], beginning=beginning(serial)
        )

    def _clean_up(self) -> None:
        failed = {str(error.filename): error for error in self._files.clean_up()}
        for file, error in failed.items():
            if file not in self._stuck:
                self.log.warning("an old file of the dump cannot be removed", file=file, why=str(error.strerror))
        self._stuck = frozenset(failed)

    def _fail(self, error: Exception, now: int) -> None:
        if self._recorder is not None:
            self._recorder.abandon(self._length)
            self._recorder = None
        self._retry_ns = now + _AGAIN_NS
        if not self._failing:
            path = self._files.path
            self.log.warning("the dump cannot be written: packets pass without it", file=path, why=str(error))
        self._failing = True

    def do_work(self, now: int) -> int:
        """One burst; what is recorded of it is in the file before it counts."""
        w = self.w
        moved = int(self.kernel.dump_open(self.u8, w, now))
        if not moved:
            return 0
        row = int(w[own.ROW])
        if w[own.RECORDING] and not self._written(now):
            w[row + layout.ROW_COUNTERS + own.RECORDED] -= moved
            w[row + layout.ROW_COUNTERS + own.UNRECORDED] += moved
        if self._recorder is not None:
            self._length = self._recorder.length
            w[row + layout.ROW_SCALARS + own.LENGTH] = self._length
            w[row + layout.ROW_SCALARS + own.SERIAL] = self._serial
        return int(self.kernel.dump_commit(self.u8, w, now))

    def _written(self, now: int) -> bool:
        """Whether the open burst is in the file."""
        if self._recorder is None and now < self._retry_ns:
            return False
        try:
            if self._recorder is None:
                self._prepare()
            assert self._recorder is not None
            if self._length >= self.params["file_size"]:
                self._recorder.close()
                self._recorder = None
                self._prepare(begin=True)
            assert self._recorder is not None
            for way, direction in ((own.TX, INBOUND), (own.RX, OUTBOUND)):
                source = int(self.w[layout.INPUTS + way])
                start, end = int(self.w[own.FROM + way]), int(self.w[own.TO + way])
                self._recorder.span(source, start, end, direction, now)
            self._recorder.flush()
        except (OSError, CaptureError) as error:
            self._fail(error, now)
            return False
        if self._failing:
            self._failing = False
            self.log.info("the dump is written again", file=self._files.path)
        return True

    def on_close(self) -> None:
        """Close the file."""
        if self._recorder is not None:
            self._recorder.close()
