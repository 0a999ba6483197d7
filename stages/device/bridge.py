"""The bridge that a TAP device is put into.  Needs no Numba, so a look before the start may use it, too."""

from __future__ import annotations

import os
import socket

from stages.device import links
from stages.device.netns import DeviceError, ip_in


def look(name: str, netns: str | None) -> links.Link:
    """The bridge of that name in the present namespace, which is called ``netns``.  Raises `DeviceError`."""
    where = f"{name}{f' in {netns}' if netns else ''}"
    try:
        found = links.find(name)
        if found is not None and found.kind == "bridge":
            return found
        known = ", ".join(link.name for link in _bridges()) or "none"
    except OSError as error:
        raise DeviceError(f"bridge {where}: {os.strerror(error.errno or 0)}") from None
    ip = ip_in(netns)
    if found is not None:
        raise DeviceError(f"interface {where} is no bridge of the system's; there are: {known}")
    mend = f"{ip} link add {name} type bridge; {ip} link set {name} up"
    raise DeviceError(f"there is no bridge {where}; there are: {known} ({mend})")


def join(ifname: str, name: str, netns: str | None) -> links.Link:
    """Put an interface into the bridge, out of another one in which it may be; the bridge.  Raises `DeviceError`."""
    into = look(name, netns)
    try:
        link = links.find(ifname)
        if link is not None and link.master != into.number:
            links.set_master(link.number, into.number)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        mend = f"{ip_in(netns)} link set {ifname} master {name}, as root"
        raise DeviceError(f"{ifname} cannot be put into bridge {name}: {why}; {mend}") from None
    return into


def _bridges() -> list[links.Link]:
    found = [links.find(name) for _, name in socket.if_nameindex()]
    return [link for link in found if link is not None and link.kind == "bridge"]
