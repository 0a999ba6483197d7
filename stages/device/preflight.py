"""What keeps a TAP device or an interface from being had and cannot get better by itself: looked at before the start.

What a stage would do is tried as far as that changes nothing: a TAP device that is not there is not made.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from stages.device import bridge, ours
from stages.device.netns import DeviceError, in_netns, ip_in

_TUN: Final = "/dev/net/tun"
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x400454CA, 0x0002, 0x1000, 0x4000
_SIOCGIFFLAGS, _IFF_UP = 0x8913, 0x1
_CAP_NET_ADMIN, _CAP_NET_RAW = 12, 13  # capabilities(7)


def tap(params: Mapping[str, Any]) -> Iterator[str]:
    """/dev/net/tun, the namespace, the bridge; of a device that is there, whether it is a TAP one that nobody holds."""
    try:
        fd = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        mend = "run as root, or give this user the device"
        if error.errno != errno.EACCES:
            mend = "modprobe tun; mkdir -p /dev/net; mknod /dev/net/tun c 10 200"
        yield f"{_TUN}: {error.strerror}; {mend}"
        return
    os.close(fd)
    ifname = str(params["ifname"])
    try:
        with in_netns(params["netns"]):
            why = _try_tap(ifname, bool(params["vnet_hdr"])) if ifname in _interfaces() else _may_make()
            if params["bridge"]:
                bridge.look(params["bridge"], params["netns"])
    except DeviceError as error:
        why = str(error)
    if why:
        yield why


def packet(params: Mapping[str, Any]) -> Iterator[str]:
    """The namespace, the permission, and the interface: there, and up."""
    if not _capable(_CAP_NET_RAW):
        yield "a packet socket is not permitted; run as root (CAP_NET_RAW)"
        return
    ifname, netns = str(params["ifname"]), params["netns"]
    try:
        with in_netns(netns):
            known = _interfaces()
            up = ifname in known and _is_up(ifname)
    except DeviceError as error:
        yield str(error)
        return
    if ifname not in known:
        yield f"there is no interface {ifname}; there are: {', '.join(known)}"
    elif not up:
        yield f"interface {ifname} is down; {ip_in(netns)} link set {ifname} up"


def _interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def _is_up(ifname: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16s24x", ifname.encode()))
    return bool(struct.unpack_from("H", flags, 16)[0] & _IFF_UP)


def _try_tap(ifname: str, header: bool) -> str:
    fd = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if header else 0)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", ifname.encode(), flags))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return f"TAP device {ifname}: {ours.held(ifname)}"
        if error.errno == errno.EINVAL:
            return f"interface {ifname} is no TAP device: choose another ifname, or ip link delete {ifname}"
        return f"TAP device {ifname}: {error.strerror}; run as root, or have root make it for this user"
    finally:
        os.close(fd)
    return ""


def _may_make() -> str:
    mend = "run as root, or have root make it for this user"
    return "" if _capable(_CAP_NET_ADMIN) else f"a TAP device may not be made (CAP_NET_ADMIN); {mend}"


def _capable(capability: int) -> bool:
    with open("/proc/self/status") as status:
        effective = next(line for line in status if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> capability & 1)
