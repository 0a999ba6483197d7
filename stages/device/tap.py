"""netdev-tap: a TAP device (Linux, Documentation/networking/tuntap.rst) as one side of a netdev.

A device that is made here outlives its stage and its supervisor, also where they are killed.  With it stay its MAC
address, the addresses that were set on it, and its place in a bridge.  `stages.device.ours` says whose it is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

from stages.device import bridge, links, ours
from stages.device.device import Device
from stages.device.netns import DeviceError, check_ifname, in_netns, ip_in

_TUN = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOFFLOAD, _TUNSETVNETHDRSZ = 0x400454CA, 0x400454CB, 0x400454D0, 0x400454D8
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_UP = 0x0002, 0x1000, 0x4000, 0x1
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914


def _bring_up(ifname: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH22x", ifname.encode(), 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
        if not flags & _IFF_UP:
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", ifname.encode(), flags | _IFF_UP))


def open_tap(ifname: str, netns: str | None = None, header: int = 0, *, mark: str = "", into: str | None = None) -> int:
    """A descriptor of TAP device ``ifname``, created where missing, its link up, non-blocking, without offloads.

    ``header``: bytes of virtio-net header before each frame (0, 10 or 12).  ``mark``: a device that is created bears
    it, and outlives the descriptor; empty: it goes with it.  ``into``: a bridge to put it into.  Raises `DeviceError`.
    """
    check_ifname(ifname)
    if header not in (0, 10, 12):
        raise DeviceError(f"vnet_hdr_len = {header}: virtio-net headers have 10 or 12 bytes")
    with in_netns(netns):
        if into:
            bridge.look(into, netns)  # before anything is made
        try:
            fd = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            how = "modprobe tun; mkdir -p /dev/net; mknod /dev/net/tun c 10 200"
            if error.errno == errno.EACCES:
                how = "run as root, or give this user the device"
            raise DeviceError(f"{_TUN}: {error.strerror}; {how}") from None
        try:
            _attach(fd, ifname, header, mark)
            if into:
                bridge.join(ifname, into, netns)
            _bring_up(ifname)
        except OSError as error:
            os.close(fd)
            raise DeviceError(f"TAP device {ifname}{f' in {netns}' if netns else ''}: {_why(error, ifname)}") from None
        except DeviceError:
            os.close(fd)
            raise
    return fd


def _attach(fd: int, ifname: str, header: int, mark: str) -> None:
    there = links.find(ifname)
    flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if header else 0)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", ifname.encode(), flags))
    if header:
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", header))
    fcntl.ioctl(fd, _TUNSETOFFLOAD, 0)  # a device that stayed may have another program's
    made = links.find(ifname) if mark and there is None else None
    if made is not None:
        links.set_alias(made.number, mark)  # first: killed between both we leave no device that nobody owns
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)


def _why(error: OSError, ifname: str) -> str:
    if error.errno == errno.EPERM:
        return (
            "not permitted; run as root, or have root make it: "
            f"ip tuntap add dev {ifname} mode tap user $USER; ip link set {ifname} up"
        )
    if error.errno == errno.EBUSY:
        return ours.held(ifname)
    if error.errno == errno.EINVAL:
        return (
            f"there is an interface {ifname} that is no TAP device: choose another ifname, or ip link delete {ifname}"
        )
    return str(error.strerror)


class Tap(Device):
    """Frames of send go to the device; what the host sends into the device comes out of receive.

    Params besides those of `Device`: ``vnet_hdr`` with ``vnet_hdr_len`` (10 or 12); ``bridge``: the one to put it into;
    ``pipeline``: whose mark a device bears that is made here, empty: it bears none and goes with the stage.
    """

    def header(self) -> int:
        """What the params say."""
        return int(self.params["vnet_hdr_len"]) if self.params["vnet_hdr"] else 0

    def open(self) -> int:
        """The device, created where missing, in its bridge.  Raises `DeviceError`."""
        ifname, netns, into = str(self.params["ifname"]), self.params["netns"], self.params["bridge"]
        mark = ours.mark(self.params["pipeline"]) if self.params["pipeline"] else ""
        fd = open_tap(ifname, netns, self.header(), mark=mark, into=into)
        if into and not self._bridge_up(into, netns):
            self.log.warning(
                "the bridge is down: nothing passes it", bridge=into, mend=f"{ip_in(netns)} link set {into} up"
            )
        return fd

    @staticmethod
    def _bridge_up(name: str, netns: str | None) -> bool:
        with in_netns(netns):
            return bridge.look(name, netns).up
