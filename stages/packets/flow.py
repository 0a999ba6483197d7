"""Who talks to whom, as text: the key of a connection, which the packet parser writes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

from stages.packets.layout import parsed

PROTOCOLS: Final = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6"}


def describe_flow(key: Iterable[int]) -> str:
    """``tcp 10.0.0.2:80 > 10.0.0.1:4711`` from the six key words of a connection (see stages.packets.layout.parsed)."""
    numbers = [int(x) & 0xFFFFFFFFFFFFFFFF for x in key]
    ends: list[str] = []
    six = numbers[parsed.VLAN] >> 32 == 6
    for first in (parsed.SRC, parsed.DST):
        if six:
            ends.append(f"[{ipaddress.IPv6Address(numbers[first] << 64 | numbers[first + 1])}]")
        else:
            ends.append(str(ipaddress.IPv4Address(numbers[first + 1] & 0xFFFFFFFF)))
    ports = numbers[parsed.PORTS]
    proto = ports >> 32 & 0xFF
    name = PROTOCOLS.get(proto, f"protocol {proto}")
    if ports >> 40:  # a mark of stages.compare.kernels.fragments
        return f"{name} in fragments {ends[0]} > {ends[1]}"
    if proto in (6, 17):
        return f"{name} {ends[0]}:{ports >> 16 & 0xFFFF} > {ends[1]}:{ports & 0xFFFF}"
    return f"{name} {ends[0]} > {ends[1]}"


def describe_key(key: Sequence[int]) -> str:
    """The flow, with its VLAN tags behind it: ``udp 10.0.0.2:53 > 10.0.0.1:4711 vlan 5``; ``-`` where all are 0."""
    if not any(key):
        return "-"
    tags = [tag for shift in (16, 0) if (tag := key[parsed.VLAN] >> shift & 0xFFFF)]
    return describe_flow(key) + (f" vlan {'/'.join(map(str, tags))}" if tags else "")
