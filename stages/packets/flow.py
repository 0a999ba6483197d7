"""Who talks to whom, as text: the key of a connection, which the packet parser writes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

from stages.packets.layout import networks, parsed

PROTOCOLS: Final = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6"}


def describe_flow(key: Iterable[int]) -> str:
    """``tcp 10.0.0.2:80 > 10.0.0.1:4711`` from the six key words of a connection (see stages.packets.layout.parsed).

    What it is inside of stands behind it: ``in vxlan 42``, ``in pppoe 7``.
    """
    numbers = [int(x) & 0xFFFFFFFFFFFFFFFF for x in key]
    network = _network(numbers)
    return _flow(numbers) + (f" in {network}" if network else "")


def describe_tunnel(key: Iterable[int]) -> str:
    """``vxlan 42``: the tunnel that the packets of a connection are inside of; empty: none."""
    numbers = [int(x) for x in key]
    return _network(numbers) if _kind(numbers) >= networks.VXLAN else ""


def describe_key(key: Sequence[int]) -> str:
    """The flow, with its VLAN tags behind it: ``udp 10.0.0.2:53 > 10.0.0.1:4711 vlan 5``; ``-`` where all are 0.

    Of a tunnel also the digest of where it runs, by which it is told from others, if there is one: ``via 4711``.
    """
    if not any(key):
        return "-"
    numbers = [int(x) & 0xFFFFFFFFFFFFFFFF for x in key]
    tags, network, via = _tags(numbers), _network(numbers), (numbers[parsed.PORTS] & networks.VIA) >> networks.VIA_AT
    text = _flow(numbers) + (f" vlan {'/'.join(map(str, tags))}" if tags else "")
    return text + (f" in {network}" if network else "") + (f" via {via}" if via else "")


def _flow(numbers: Sequence[int]) -> str:
    ends: list[str] = []
    six = numbers[parsed.VLAN] >> networks.VERSION_AT & networks.VERSION == 6
    for first in (parsed.SRC, parsed.DST):
        if six:
            ends.append(f"[{ipaddress.IPv6Address(numbers[first] << 64 | numbers[first + 1])}]")
        else:
            ends.append(str(ipaddress.IPv4Address(numbers[first + 1] & 0xFFFFFFFF)))
    ports = numbers[parsed.PORTS]
    proto = ports >> 32 & 0xFF
    name = PROTOCOLS.get(proto, f"protocol {proto}")
    if (ports & ~networks.VIA) >> 40:  # a mark of stages.compare.kernels.fragments
        return f"{name} in fragments {ends[0]} > {ends[1]}"
    if proto in (6, 17):
        return f"{name} {ends[0]}:{ports >> 16 & 0xFFFF} > {ends[1]}:{ports & 0xFFFF}"
    return f"{name} {ends[0]} > {ends[1]}"


def _kind(numbers: Sequence[int]) -> int:
    return numbers[parsed.VLAN] >> networks.KIND_AT & networks.KIND


def _network(numbers: Sequence[int]) -> str:
    """``vxlan 42``, ``pppoe 7``, ``gre``; empty where there is nothing but VLAN tags."""
    kind, number = _kind(numbers), numbers[parsed.VLAN] >> networks.ID_AT & networks.ID
    if kind in (networks.PLAIN, networks.TAGS) or kind >= len(networks.NAMES):
        return ""
    keyless = kind == networks.IP or (kind == networks.GRE and not number)
    return networks.NAMES[kind] + ("" if keyless else f" {number}")


def _tags(numbers: Sequence[int]) -> list[int]:
    """VLAN ids from outside in."""
    word = numbers[parsed.VLAN]
    tags = [tag for shift in (16, 0) if (tag := word >> shift & 0xFFFF)]
    if _kind(numbers) == networks.TAGS:
        further = word >> networks.ID_AT & networks.ID
        tags = [word >> 16 & 0xFFFF, word & 0xFFFF, further >> 12] + ([further & 0xFFF] if further & 0xFFF else [])
    return tags
