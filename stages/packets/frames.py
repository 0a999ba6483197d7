"""Where the transport begins in a frame that was kept, of which perhaps only the beginning is there.  Plain Python.

It finds what the packet parser (`stages.packets.kernels`) has found when the frame passed: for files that explain, and
for who reads them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_TAGS: Final = (0x8100, 0x88A8, 0x9100)
_PPP: Final = {0x0021: 0x0800, 0x0057: 0x86DD}
_EXTENSIONS: Final = (0, 43, 44, 51, 60, 135, 139, 140)
_FRAME: Final = 0x6558  # EtherType of a whole frame, in a tunnel


class Transport(NamedTuple):
    """Protocol, start and end of the IP payload; the end may lie behind what is there."""

    proto: int
    start: int
    end: int
    fragment: bool


def transport(data: bytes, *, tunnel: bool = False, length: int = 0) -> Transport | None:
    """Where the transport is in a frame of ``length`` bytes (0: all are here); None where there is no IP.

    ``tunnel``: of the packet inside of the tunnel.
    """
    found = _frame(data, 0, length or len(data))
    if found is None or not tunnel or found.fragment:
        return found
    start, kind = _tunnel(data, found)
    return _frame(data, start, found.end) if kind == _FRAME else _packet(data, start, kind, found.end)


def _number(data: bytes, at: int, size: int = 2) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _frame(data: bytes, at: int, end: int) -> Transport | None:
    at += 14
    for _ in range(4):
        if _number(data, at - 2) in _TAGS:
            at += 4
    kind = _number(data, at - 2)
    if kind == 0x8864:
        end, kind, at = at + 6 + _number(data, at + 4), _number(data, at + 6, 1), at + 7
        if not kind & 1:
            kind, at = _number(data, at - 1), at + 1
        kind = _PPP.get(kind, 0)
    return _packet(data, at, kind, end)


def _packet(data: bytes, at: int, kind: int, end: int) -> Transport | None:
    """The transport of the IP packet at ``at``; one that does not say its length fills what is around it."""
    if kind == 0x0800 and len(data) >= at + 20:
        end = at + _number(data, at + 2) if _number(data, at + 2) else end
        return Transport(data[at + 9], at + (data[at] & 15) * 4, end, _number(data, at + 6) & 0x3FFF != 0)
    if kind != 0x86DD or len(data) < at + 40:
        return None
    proto, l4, size = data[at + 6], at + 40, _number(data, at + 4)
    end = at + 40 + size if size or end <= at + 46 else end
    while proto in _EXTENSIONS:
        if len(data) < l4 + 8:
            return None
        if proto == 44 and _number(data, l4 + 2) & 0xFFF9:
            return Transport(data[l4], l4 + 8, end, True)
        words = data[l4 + 1]
        proto, l4 = data[l4], l4 + (8 if proto == 44 else 8 + words * (4 if proto == 51 else 8))
    return Transport(proto, l4, end, False)


def _tunnel(data: bytes, outer: Transport) -> tuple[int, int]:
    """Where the packet inside of a tunnel's begins, and its EtherType; 0: it is none."""
    at = outer.start
    if outer.proto == 17:
        head = at + 8
        if _number(data, at + 2) == 6081:
            return head + 8 + (_number(data, head, 1) & 63) * 4, _number(data, head + 2)
        return head + 8, _FRAME
    if outer.proto == 47:
        flags = _number(data, at)
        return at + 4 + 4 * ((flags >> 15) + (flags >> 13 & 1) + (flags >> 12 & 1)), _number(data, at + 2)
    return at, {4: 0x0800, 41: 0x86DD}.get(outer.proto, 0)
