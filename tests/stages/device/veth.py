"""A veth pair for tests: one end is a netdev-packet stage's, the other one is in a namespace of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stages.device.netns import in_netns
from tests.namespaces import PATIENCE_S, ip, namespace
from tests.rig import Rig

OUTSIDE, INSIDE = "10.9.0.1", "10.9.0.2"
SOL_PACKET, AUXDATA, VNET_HDR, IGNORE_OUTGOING, ETH_P_ALL = 263, 8, 15, 23, 3


@dataclass(frozen=True)
class Wire:
    """``v0`` in ``here`` is the stage's; ``v1`` in ``there`` has an address."""

    here: str
    there: str


@contextmanager
def veth() -> Iterator[Wire]:
    """A veth pair between two namespaces."""
    with namespace() as here, namespace() as there:
        ip("-n", here, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", there)
        ip("-n", here, "link", "set", "v0", "up")
        ip("-n", there, "link", "set", "v1", "up")
        ip("-n", there, "addr", "add", f"{OUTSIDE}/24", "dev", "v1")
        ip("-n", there, "neigh", "add", INSIDE, "lladdr", "02:00:00:00:00:99", "dev", "v1")
        yield Wire(here, there)


def packet(wire: Wire, ring_size: int = 1 << 20, **params: Any) -> Rig:
    """A stage on ``v0``."""
    vnet = ("send", "receive") if params.get("vnet_hdr") else ()
    return Rig("netdev-packet", {"ifname": "v0", "netns": wire.here, **params}, vnet=vnet, ring_size=ring_size)


def raw(netns: str, ifname: str, *, header: bool = False) -> socket.socket:
    """A packet socket of a test: frames go out as they are, with a virtio-net header before them where asked."""
    with in_netns(netns):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        if header:
            sock.setsockopt(SOL_PACKET, VNET_HDR, 1)
        sock.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
        sock.bind((ifname, ETH_P_ALL))
    sock.settimeout(PATIENCE_S)
    return sock


def transmit(netns: str, ifname: str, *frames: bytes, header: bool = False) -> None:
    """Send frames through an interface."""
    with raw(netns, ifname, header=header) as sock:
        for frame in frames:
            sock.send(frame)


def mac(netns: str, ifname: str) -> bytes:
    """An interface's MAC address."""
    text = ip("-n", netns, "-o", "link", "show", ifname)
    return bytes.fromhex(text.split("link/ether ")[1].split()[0].replace(":", ""))
