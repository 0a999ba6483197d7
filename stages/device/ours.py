"""Whose a TAP device is: one that a pipeline has made bears its mark, and is the pipeline's to remove.

The mark is the interface's alias, which ``ip link`` shows.  Needs no Numba.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from stages.device import links
from stages.device.netns import DeviceError, in_netns, ip_in

_MARK: Final = "colo-proxy "
_TUN: Final = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x400454CB, 0x0002, 0x1000  # linux/if_tun.h


def mark(pipeline: str) -> str:
    """What a device bears that this pipeline has made."""
    return f"{_MARK}{pipeline}"


def maker(ifname: str) -> str:
    """The pipeline that has made a device of the present namespace, empty: none, or there is no such device."""
    try:
        link = links.find(ifname)
    except OSError:
        return ""
    return link.alias.removeprefix(_MARK) if link is not None and link.alias.startswith(_MARK) else ""


def held(ifname: str) -> str:
    """What to say of a device that somebody else holds."""
    made_by = maker(ifname)
    who = f"another process holds it{f' (pipeline {made_by} has made it)' if made_by else ''}"
    return f"{who}: stop that one, or choose another ifname"


def _let_go(ifname: str) -> None:
    """Undo the persistence, so that the device goes with our descriptor.  Raises OSError, EBUSY where it is held."""
    fd = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", ifname.encode(), _IFF_TAP | _IFF_NO_PI))
        fcntl.ioctl(fd, _TUNSETPERSIST, 0)
    finally:
        os.close(fd)


def remove(params: Mapping[str, Any]) -> Iterator[str]:
    """At a pipeline's end: remove the device of a stage, if the pipeline made it and it is not to stay.

    Yields a line where it cannot be removed.
    """
    ifname, netns = str(params["ifname"]), params["netns"]
    if params["persist"] or not params["pipeline"]:
        return
    try:
        with in_netns(netns):
            link = links.find(ifname)
            if link is not None and link.kind == "tun" and link.alias == mark(params["pipeline"]):
                _let_go(ifname)
    except DeviceError:
        return  # the namespace is gone, and so is the device
    except OSError as error:
        yield f"TAP device {ifname} stays: {os.strerror(error.errno or 0)}; {ip_in(netns)} link delete {ifname}"
