"""Addresses of the rewriter's table as text, for `tools.inspect`."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from stages.packets.layout import parsed
from stages.rewriter.layout import addresses


def _mac(value: int) -> str:
    return value.to_bytes(6, "big").hex(":")


def mac(_w: Any, words: Sequence[int]) -> str:
    """``52:a4:00:12:78:66``; ``-``: none."""
    return _mac(int(words[0])) if words[0] else "-"


def tpids(_w: Any, words: Sequence[int]) -> str:
    """``88a8 8100``; ``-``: no tags."""
    return " ".join(f"{tpid:04x}" for shift in (16, 0) if (tpid := int(words[0]) >> shift & 0xFFFF)) or "-"


def address(_w: Any, words: Sequence[int]) -> str:
    """``10.0.0.1``, ``fe80::1 vlan 5``, or a MAC address; ``-``: a row that was never used."""
    network = int(words[addresses.NETWORK])
    high, low = (int(words[parsed.SRC + i]) & 0xFFFFFFFFFFFFFFFF for i in range(2))
    match network >> 32:
        case 4:
            text = str(ipaddress.IPv4Address(low))
        case 6:
            text = str(ipaddress.IPv6Address(high << 64 | low))
        case addresses.MAC_FAMILY:
            text = _mac(low)
        case _:
            return "-"
    tags = [str(tag) for shift in (16, 0) if (tag := network >> shift & 0xFFFF)]
    return text + (f" vlan {'/'.join(tags)}" if tags else "")
