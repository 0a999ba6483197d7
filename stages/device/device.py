"""What a TAP device and an interface have in common: a descriptor in some namespace, one frame a system call."""

from __future__ import annotations

import os
import select
import time
from typing import Final

from ring import layout
from stages.base import Stage
from stages.capture.recorder import BYTES, INBOUND, OUTBOUND, Recorder
from stages.device.layout import memory, options, segmentation
from stages.device.netns import DeviceError, NotThere

_AGAIN_NS: Final = 200_000_000  # between two looks for a device that is not there


class Device(Stage):
    """Frames of send go to the device; what comes from it comes out of receive.

    Params: ``ifname``; ``netns``; ``record``: a capture of both directions.  A shell says what the device is: `open`,
    `close`, `header`, `given`, and what to do about an error (`failed`).

    A device that is not there (`NotThere`) is waited for, as a socket waits for its peer: who unplugs it, or makes the
    virtual machine anew to which it belongs, takes as long as it takes.  What is sent meanwhile is refused, as by one
    that is down.
    """

    _fd = -1
    _again_at = 0
    _told = ""
    _events = 0
    _recorder: Recorder | None = None

    @property
    def memory(self) -> int:
        """Word at which the private memory starts (`stages.device.layout.memory`)."""
        return self.extra

    @property
    def where(self) -> str:
        """The device as messages name it: ``eth0 in NETNS``."""
        netns = self.params["netns"]
        return f"{self.params['ifname']}{f' in {netns}' if netns else ''}"

    def header(self) -> int:
        """Bytes of virtio-net header that the device speaks: 0, 10 or 12."""
        raise NotImplementedError

    def given(self) -> int:
        """Bytes of it that stay on the frames in the ring."""
        return self.header()

    def open(self) -> int:
        """The device's descriptor, non-blocking.  Raises `DeviceError`, and `NotThere` where it is worth waiting."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what `open` opened."""
        os.close(self._fd)

    def look(self, now: int) -> None:
        """Before each burst: cold work of the kind."""

    def failed(self, number: int) -> None:
        """The device gave error ``number``: raise `DeviceError`, or return where it may come back (`lost`)."""
        raise DeviceError(f"device {self.params['ifname']} is gone ({os.strerror(number)}): somebody deleted it")

    def lost(self, why: str) -> None:
        """The device is gone, and the next one of that name is waited for."""
        self._let_go()
        self.log.warning("device is gone: waiting for it", device=self.where, reason=why)

    def extra_bytes(self) -> int:
        """Two frames, the message, and the recorder's buffer."""
        return memory.BYTES + (BYTES if self.params["record"] else 0)

    def options(self) -> dict[int, int]:
        """Where the private memory is, and the header that the device speaks."""
        given = self.given()
        if given and "receive" in self.rings and not self.w[self.rings["receive"] + layout.VNET]:
            raise DeviceError("vnet_hdr = true needs rings whose frames carry the header's length")
        if not self.header() and "send" in self.rings and self.w[self.rings["send"] + layout.VNET]:
            raise DeviceError("vnet_hdr = false needs a ring without virtio-net headers: nobody would do what they ask")
        return {
            options.FD: -1,
            options.HEADER: self.header(),
            options.GIVEN: given,
            options.MEMORY: self.memory,
            options.GATED: int(self.params["gated"]),
        }

    def on_start(self) -> None:
        """Open the device, or begin to wait for it.  Raises `DeviceError`."""
        if self.params["record"]:
            self._recorder = Recorder(self, self.memory + memory.BYTES // 8, self.params["record"])
        self.w[layout.LIFE_FINISHED] = 0
        self._try_open(time.monotonic_ns())

    def _try_open(self, now: int) -> None:
        self._again_at = now + _AGAIN_NS
        try:
            self._fd = self.open()
        except NotThere as error:
            if str(error) != self._told:
                self._told = str(error)
                self.log.warning("device is not there: waiting for it", device=self.where, reason=self._told)
            return
        self._told = ""
        self.w[options.FD] = self._fd
        self._link(up=True)
        self._watch(select.EPOLLIN)
        self.log.info("device open", ifname=self.params["ifname"], netns=self.params["netns"])

    def _let_go(self) -> None:
        self._watch(0)
        self._link(up=False)
        self.close()
        self._fd = self.w[options.FD] = -1

    def _link(self, *, up: bool) -> None:
        for port, at in self.rings.items():
            word = at + (layout.P_LINK if port == "receive" else layout.C_LINK)
            odd = int(self.w[word]) & 1
            if up:  # still odd: the last incarnation died with its link up, so this is a new one
                self.w[word] += 2 if odd else 1
            elif odd:
                self.w[word] += 1

    def _watch(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self.context.watch(self._fd, events, self._woken if events else None)

    def _woken(self, events: int) -> None:
        """The runner turns a duty cycle anyway."""

    def ready(self) -> bool:
        """Whether the device is open."""
        return self._fd >= 0

    def do_work(self, now: int) -> int:
        """One burst of each direction.  Raises `DeviceError` when the device is gone."""
        w, x = self.w, self.memory
        c = x + memory.SEGMENTATION
        if self._fd < 0 and now >= self._again_at and not w[layout.CMD_DRAIN]:
            self._try_open(now)
        if self._fd >= 0:
            self.look(now)
        if self._recorder is None:
            result = int(self.kernel.device_burst(self.u8, w, now))
        else:
            result = int(self.kernel.device_open(self.u8, w, now))
            if result:
                self._record(self._recorder, now)
                result = int(self.kernel.device_commit(self.u8, w, now))
        if w[x + memory.ERROR]:
            number = int(w[x + memory.ERROR])
            w[x + memory.ERROR] = 0
            self.failed(number)
        draining = bool(w[layout.CMD_DRAIN])
        if draining and w[c + segmentation.NEXT] >= w[c + segmentation.SEGMENTS]:
            w[layout.LIFE_FINISHED] = 1
        if self._fd < 0:
            return result
        # Not asked for while there is no room (or no wish): a level-triggered event would wake us without end.
        reading = not draining and not w[layout.BLOCKED]
        waiting = bool(w[x + memory.WANTS_OUT])
        self._watch((select.EPOLLIN if reading else 0) | (select.EPOLLOUT if waiting else 0))
        return result

    def _record(self, recorder: Recorder, now: int) -> None:
        w = self.w
        row = int(w[self.memory + memory.ROW])
        for port, cursor, published, direction in (
            ("send", layout.ROW_HEADS, layout.HEAD, OUTBOUND),
            ("receive", layout.ROW_TAILS, layout.TAIL, INBOUND),
        ):
            if port in self.rings:
                at = self.rings[port]
                recorder.span(at, int(w[at + published]), int(w[row + cursor]), direction, now)
        recorder.flush()

    def on_close(self) -> None:
        """Close the device."""
        if self._fd >= 0:
            self._let_go()
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None
