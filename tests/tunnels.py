"""Tunnels for tests, in plain Python: frames put into one, and taken out again.  No code is shared with the kernels.

frame = vxlan(tcp_frame("10.244.0.2", "10.244.1.2", 80, 40000, flags=SYN), vni=7)
assert opened(frame).frame == tcp_frame("10.244.0.2", "10.244.1.2", 80, 40000, flags=SYN)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

from tests.packets import (
    IPV4,
    IPV6,
    MAC_A,
    MAC_B,
    P_UDP,
    Packet,
    checksum_faults,
    ip_frame,
    ones_sum,
    read,
    udp_frame,
)

ENDS = ("192.0.2.2", "192.0.2.1")
ENDS6 = ("2001:db8:1::2", "2001:db8:1::1")
P_IPIP, P_IPV6, P_GRE, FRAME = 4, 41, 47, 0x6558


# --- in ---------------------------------------------------------------------------------------------------------
def vxlan(
    frame: bytes, *, vni: int = 1, sport: int = 55555, dport: int = 4789, ends: tuple[str, str] = ENDS,
    head: int = 0x08000000, **more: Any,
) -> bytes:  # fmt: skip
    """A frame in VXLAN, with a right outer UDP checksum; ``more`` goes to `udp_frame`."""
    return udp_frame(*ends, sport, dport, struct.pack("!II", head, vni << 8) + frame, **more)


def geneve(
    frame: bytes, *, vni: int = 1, sport: int = 55555, ends: tuple[str, str] = ENDS, kind: int = FRAME,
    options: bytes = b"", **more: Any,
) -> bytes:  # fmt: skip
    """The same in GENEVE; ``options`` of whole 4 bytes; ``kind`` other than FRAME: the packet alone."""
    body = frame if kind == FRAME else frame[14:]
    head = struct.pack("!BBHI", len(options) // 4, 0, kind, vni << 8)
    return udp_frame(*ends, sport, 6081, head + options + body, **more)


def gre(
    frame: bytes, *, key: int | None = None, summed: bool = False, number: int | None = None, kind: int = FRAME,
    ends: tuple[str, str] = ENDS, **more: Any,
) -> bytes:  # fmt: skip
    """The same in GRE, with or without key, checksum and sequence number; ``more`` goes to `ip_frame`."""
    body = frame if kind == FRAME else frame[14:]
    flags = summed << 15 | (key is not None) << 13 | (number is not None) << 12
    rest = b"".join(struct.pack("!I", x) for x in (key, number) if x is not None)
    made = struct.pack("!HH", flags, kind) + (bytes(4) if summed else b"") + rest + body
    if summed:
        made = made[:4] + (ones_sum(made) ^ 0xFFFF).to_bytes(2, "big") + made[6:]
    return ip_frame(*ends, P_GRE, made, **more)


def ip_in_ip(frame: bytes, *, ends: tuple[str, str] = ENDS, **more: Any) -> bytes:
    """The packet of an untagged frame in another one."""
    proto = P_IPIP if frame[12:14] == IPV4.to_bytes(2, "big") else P_IPV6
    return ip_frame(*ends, proto, frame[14:], **more)


# --- out --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Opened:
    """What was in a tunnel: a frame (of a packet alone, with an Ethernet header made up), and where it was.

    ``start``: where ``frame[skip:]`` begins in the outer frame; ``network``: which tunnel it was.
    """

    frame: bytes
    start: int
    skip: int
    network: tuple[object, ...]


def opened(frame: bytes) -> Opened | None:
    """What is in a well-formed frame of a tunnel; None: it is of none."""
    p = read(frame)
    if p.fragment or not p.version:
        return None
    around = (p.vlans, p.network)
    if p.proto == P_UDP and p.dport in (4789, 8472) and p.payload[0] & 8:
        vni = int.from_bytes(p.payload[4:7], "big")
        return Opened(p.payload[8:], p.body_at + 16, 0, ("vxlan", vni, around))
    if p.proto == P_UDP and p.dport == 6081:
        vni, size = int.from_bytes(p.payload[4:7], "big"), 8 + (p.payload[0] & 63) * 4
        return _made(p.payload[2:4], p.payload[size:], p.body_at + 8 + size, ("geneve", vni, around))
    if p.proto == P_GRE:
        flags, at, key = p.body[0], 4, None
        at += 4 if flags & 0x80 else 0
        if flags & 0x20:
            key, at = p.body[at : at + 4], at + 4
        at += 4 if flags & 0x10 else 0
        where = ("gre", key, frozenset((p.src, p.dst)), around)
        return _made(p.body[2:4], p.body[at:], p.body_at + at, where)
    if p.proto in (P_IPIP, P_IPV6):
        kind = IPV4 if p.proto == P_IPIP else IPV6
        return _made(kind.to_bytes(2, "big"), p.body, p.body_at, ("ip", frozenset((p.src, p.dst)), around))
    return None


def _made(kind: bytes, body: bytes, start: int, network: tuple[object, ...]) -> Opened:
    if kind == FRAME.to_bytes(2, "big"):
        return Opened(body, start, 0, network)
    return Opened(MAC_B + MAC_A + kind + body, start, 14, network)


def read_inside(frame: bytes) -> Packet:
    """`read` the packet inside where a frame is a tunnel's, with the tunnel as its network; else the frame itself.

    Offsets count from the start of ``frame`` in any case.
    """
    found = opened(frame)
    if found is None:
        return read(frame)
    p, moved = read(found.frame), found.start - found.skip
    return replace(p, network=found.network, ip_at=p.ip_at + moved, body_at=p.body_at + moved)


def inner_faults(frame: bytes, *, partial: bool = False) -> list[str]:
    """What is wrong with the checksums inside of a tunnel, and with GRE's own, which covers them; empty: nothing."""
    found = opened(frame)
    if found is None:
        return []
    p = read(frame)
    wrong = p.proto == P_GRE and p.body[0] & 0x80 and ones_sum(p.body) != 0xFFFF and not partial
    return checksum_faults(found.frame, partial=partial) + (["GRE"] if wrong else [])
