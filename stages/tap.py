"""netdev-tap: a TAP device (Linux, Documentation/networking/tuntap.rst) as one side of a netdev."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from ring import layout
from stages.base import Stage
from stages.layout import tap
from stages.recorder import BYTES, INBOUND, OUTBOUND, Recorder

_TUN = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOFFLOAD, _TUNSETVNETHDRSZ = 0x400454CA, 0x400454CB, 0x400454D0, 0x400454D8
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_UP = 0x0002, 0x1000, 0x4000, 0x1
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_CLONE_NEWNET = 0x40000000
_NETNS = Path("/run/netns")
_libc = ctypes.CDLL(None, use_errno=True)


class TapError(Exception):
    """A TAP device that cannot be had; the message says what to do."""


@contextlib.contextmanager
def in_netns(name: str | None) -> Iterator[None]:
    """Do something in another network namespace: a name under /run/netns, or a path; None: here.  Raises TapError."""
    if not name:
        yield
        return
    path = Path(name) if "/" in name else _NETNS / name
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        known = ", ".join(sorted(p.name for p in _NETNS.iterdir())) if _NETNS.is_dir() else ""
        raise TapError(
            f"network namespace {path}: {error.strerror}; there are: {known or 'none'} (ip netns add {path.name})"
        ) from None
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(there, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise TapError(f"network namespace {path}: {os.strerror(number)}; entering one needs root")
        try:
            yield
        finally:
            if _libc.setns(here, _CLONE_NEWNET):  # a process in the wrong namespace must not go on
                os.abort()
    finally:
        os.close(there)
        os.close(here)


def _bring_up(ifname: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH22x", ifname.encode(), 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
        if not flags & _IFF_UP:
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", ifname.encode(), flags | _IFF_UP))


def open_tap(ifname: str, netns: str | None = None, header: int = 0, *, persist: bool = False) -> int:
    """A descriptor of TAP device ``ifname``, created where missing, its link up, non-blocking, without offloads.

    ``header``: bytes of virtio-net header before each frame (0, 10 or 12).  ``persist``: the device stays when the
    process ends.  Raises `TapError`.
    """
    if not 0 < len(ifname.encode()) < 16:
        raise TapError(f"ifname {ifname!r}: a name has 1 to 15 bytes")
    if header not in (0, 10, 12):
        raise TapError(f"vnet_hdr_len = {header}: virtio-net headers have 10 or 12 bytes")
    with in_netns(netns):
        try:
            fd = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            how = "modprobe tun; mkdir -p /dev/net; mknod /dev/net/tun c 10 200"
            if error.errno == errno.EACCES:
                how = "run as root, or give this user the device"
            raise TapError(f"{_TUN}: {error.strerror}; {how}") from None
        try:
            flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if header else 0)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", ifname.encode(), flags))
            if header:
                fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", header))
            fcntl.ioctl(fd, _TUNSETOFFLOAD, 0)  # a device that stayed may have another program's
            if persist:
                fcntl.ioctl(fd, _TUNSETPERSIST, 1)
            _bring_up(ifname)
        except OSError as error:
            os.close(fd)
            raise TapError(f"TAP device {ifname}{f' in {netns}' if netns else ''}: {_why(error, ifname)}") from None
    return fd


def _why(error: OSError, ifname: str) -> str:
    if error.errno == errno.EPERM:
        return (
            "not permitted; run as root, or have root make it: "
            f"ip tuntap add dev {ifname} mode tap user $USER; ip link set {ifname} up"
        )
    if error.errno == errno.EBUSY:
        return "another process holds it: stop that one, or choose another ifname"
    if error.errno == errno.EINVAL:
        return (
            f"there is an interface {ifname} that is no TAP device: choose another ifname, or ip link delete {ifname}"
        )
    return str(error.strerror)


class Tap(Stage):
    """Frames of send go to the device; what the host sends into the device comes out of receive.

    Params: ``ifname``; ``netns``; ``vnet_hdr`` with ``vnet_hdr_len`` (10 or 12); ``persist``: the device outlives the
    stage, and so keeps its MAC address and the addresses that were set on it over a restart (without it a restart makes
    a new device); ``record``: a capture of both directions.
    """

    KIND = tap.KIND
    _fd = -1
    _events = 0
    _recorder: Recorder | None = None

    def extra_bytes(self) -> int:
        """One frame, and the recorder's buffer."""
        return self._recorder_at + (BYTES if self.params.get("record") else 0)

    @property
    def _recorder_at(self) -> int:
        return -(-tap.BYTES // 8) * 8

    def options(self) -> dict[int, int]:
        """Where the private memory is, and the header that the device speaks."""
        header = int(self.params.get("vnet_hdr_len", 10)) if self.params.get("vnet_hdr") else 0
        if header and "receive" in self.rings and not self.w[self.rings["receive"] + layout.VNET]:
            raise TapError("vnet_hdr = true needs rings whose frames carry the header's length")
        return {tap.P_FD: -1, tap.P_HEADER: header, tap.P_MEMORY: self.extra}

    def on_start(self) -> None:
        """Open the device.  Raises `TapError`."""
        self._fd = open_tap(
            str(self.params["ifname"]),
            self.params.get("netns"),
            int(self.w[tap.P_HEADER]),
            persist=bool(self.params.get("persist")),
        )
        self.w[tap.P_FD] = self._fd
        if self.params.get("record"):
            self._recorder = Recorder(self, self.extra + self._recorder_at // 8, self.params["record"])
        self._link(up=True)
        self.w[layout.LIFE_FINISHED] = self.w[layout.LIFE_FLUSHED] = 0
        self._watch(select.EPOLLIN)
        self.log.info("TAP device open", ifname=self.params["ifname"], netns=self.params.get("netns"))

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
        """One burst of each direction.  Raises `TapError` when the device is gone."""
        w, memory = self.w, self.extra
        if self._recorder is None:
            result = int(self.kernel.tap_burst(self.u8, w, now))
        else:
            result = int(self.kernel.tap_open(self.u8, w, now))
            if result:
                self._record(self._recorder, now)
                result = int(self.kernel.tap_commit(self.u8, w, now))
        if w[memory + tap.X_ERROR]:
            why = os.strerror(int(w[memory + tap.X_ERROR]))
            raise TapError(f"TAP device {self.params['ifname']} is gone ({why}): somebody deleted it")
        draining = bool(w[layout.CMD_DRAIN])
        if draining:
            w[layout.LIFE_FINISHED] = 1
        # Not asked for while there is no room (or no wish): a level-triggered event would wake us without end.
        reading = not draining and not w[layout.BLOCKED]
        waiting = bool(w[memory + tap.X_WANTS_OUT])
        self._watch((select.EPOLLIN if reading else 0) | (select.EPOLLOUT if waiting else 0))
        w[layout.LIFE_FLUSHED] = int(not result and not waiting)
        return result

    def _record(self, recorder: Recorder, now: int) -> None:
        w = self.w
        row = int(w[self.extra + tap.X_ROW])
        for port, cursor, published, direction in (
            ("send", layout.R_HEADS, layout.HEAD, OUTBOUND),
            ("receive", layout.R_TAILS, layout.TAIL, INBOUND),
        ):
            if port in self.rings:
                at = self.rings[port]
                recorder.span(at, int(w[at + published]), int(w[row + cursor]), direction, now)
        recorder.flush()

    def on_close(self) -> None:
        """Close the device: without ``persist`` it goes away."""
        if self._fd >= 0:
            self._watch(0)
            self._link(up=False)
            os.close(self._fd)
            self._fd = -1
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None
