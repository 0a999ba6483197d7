"""Why the first bytes of a connection cannot be what this end expects, and which key to change."""

from __future__ import annotations

from typing import Final

from ring import layout

ENOUGH: Final = 64
"""Bytes after which more would say nothing new."""

# IPv4, ARP, IPv6, VLAN tags, LLDP, 802.1X, MPLS, PPPoE, RARP, slow protocols, PTP, wake-on-LAN, experimental, loopback.
_KNOWN: Final = "0800 0806 86dd 8100 88a8 9100 88cc 888e 8847 8848 8863 8864 8035 8809 88f7 0842 88b5 88b6 9000"
_ETHERTYPES: Final = frozenset(bytes.fromhex(kind) for kind in _KNOWN.split())
_MESSAGES: Final = (b"COLO_", b"DO_CHECKPOINT")  # what goes over a notify_dev, QEMU's and Xen's
_VNET: Final = (
    "the peer sends frames {has} virtio-net header lengths: set vnet_hdr_support to the same on both ends ({how})"
)
_VNET_LENGTHS: Final = (0, 10, 12, 20)  # 20: with the hash report


def _ethernet(data: bytes, at: int, length: int) -> bool:
    """Whether a frame of ``length`` bytes that starts at ``at`` has a type or an 802.3 length as Ethernet has them."""
    kind = data[at + 12 : at + 14]
    return len(kind) == 2 and (kind in _ETHERTYPES or 0 < int.from_bytes(kind, "big") <= min(1500, length - 14))


def _with_vnet(data: bytes, length: int) -> bool:
    """Whether a second length word V and a virtio-net header explain the bytes."""
    v = int.from_bytes(data[4:8], "big")
    return v in _VNET_LENGTHS and _ethernet(data, 8 + v, length - v)


def unread(first_bytes: bytes, writer: str, readers: str) -> str:
    """What is wrong with a link that only we write, whose peer sends ``first_bytes``, and which addresses to look at.

    ``writer``: the key that gives this link its frames; ``readers``: chardevs of the same pipeline that are read, with
    their keys, empty: there is none.
    """
    length = int.from_bytes(first_bytes[:4], "big")
    frames = _ethernet(first_bytes, 4, length) or _with_vnet(first_bytes, length)
    what = "frames" if frames else "bytes"
    said = f"its peer sends {what}, and nothing here reads them: this link is {writer}"
    if not frames:
        return f"{said}; look at which port the peer belongs to"
    if not readers:
        return f"{said}, so the peer's other end has to be an indev or an input of a compare"
    return f"{said}; its address and that of {readers} may be exchanged, here or on the peer's host"


def diagnose(first_bytes: bytes, vnet: bool) -> str | None:
    """What is wrong with a connection of packets that begins with ``first_bytes``, or None where that looks right.

    ``vnet`` says whether this end expects V.  Give it 64 bytes where there are as many; with fewer it knows less.
    """
    if len(first_bytes) < 4:
        return None
    length = int.from_bytes(first_bytes[:4], "big")
    hint = None
    if first_bytes[4:].startswith(_MESSAGES) or first_bytes[8:].startswith(_MESSAGES):
        text = first_bytes[4:].lstrip(b"\0")[:24].decode("ascii", "replace")
        hint = (
            f"the peer sends the message {text!r} where packets belong: its other end is a notify_dev; "
            "give this chardev to notify_dev, or exchange the two ports"
        )
    elif length > layout.MAX_FRAME:
        if all(32 <= c < 127 or c in b"\r\n\t" for c in first_bytes):
            hint = f"the peer speaks another protocol ({first_bytes[:16]!r}): look at the addresses on both ends"
    elif vnet and _ethernet(first_bytes, 4, length) and not _with_vnet(first_bytes, length):
        hint = _VNET.format(has="without", how="off here, or on there")
    elif not vnet and _with_vnet(first_bytes, length) and not _ethernet(first_bytes, 4, length):
        hint = _VNET.format(has="with", how="on here, or off there")
    elif length < 14:
        hint = f"the first frame has {length} bytes, too few for Ethernet: look at which port the peer belongs to"
    return hint
