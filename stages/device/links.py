"""Interfaces of the present network namespace, by rtnetlink(7): what they are, whose mark they bear, their bridge.

Not by /sys, which shows the namespace in which it was mounted.  Needs no Numba.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

_NEWLINK, _GETLINK, _ERROR = 16, 18, 2  # linux/rtnetlink.h, linux/netlink.h
_REQUEST, _ACK = 0x1, 0x4
_IFNAME, _MASTER, _LINKINFO, _IFALIAS, _INFO_KIND = 3, 10, 18, 20, 1  # linux/if_link.h
_TYPE_MASK: Final = 0x3FFF  # the upper bits of an attribute's type are flags
_IFF_UP: Final = 0x1
_ANSWER: Final = 1 << 16


class Link(NamedTuple):
    """An interface: ``number`` is its index, ``master`` that of its bridge, 0: none; ``kind``: ``tun`` ..."""

    number: int
    name: str
    up: bool
    master: int
    alias: str
    kind: str


def find(name: str) -> Link | None:
    """The interface of that name, None where there is none."""
    try:
        answer = _talk(_GETLINK, 0, _attribute(_IFNAME, name.encode() + b"\0"))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return _link(answer)


def set_alias(number: int, text: str) -> None:
    """Let an interface bear a text that people see in ``ip link``.  Raises OSError."""
    _talk(_NEWLINK, number, _attribute(_IFALIAS, text.encode()))


def set_master(number: int, master: int) -> None:
    """Put an interface into a bridge, out of that in which it is.  Raises OSError."""
    _talk(_NEWLINK, number, _attribute(_MASTER, struct.pack("I", master)))


def _attribute(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("HH", size, kind) + value + bytes(-size % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("HH", data, at)
        if size < 4:
            return
        yield kind & _TYPE_MASK, data[at + 4 : at + size]
        at += -(-size // 4) * 4


def _talk(kind: int, number: int, attributes: bytes) -> bytes:
    """Ask the kernel once; its answer behind the header, empty for a bare acknowledgement.  Raises OSError."""
    body = struct.pack("BxHiII", socket.AF_UNSPEC, 0, number, 0, 0) + attributes
    flags = _REQUEST | (0 if kind == _GETLINK else _ACK)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.sendto(struct.pack("IHHII", 16 + len(body), kind, flags, 1, 0) + body, (0, 0))
        answer = sock.recv(_ANSWER)
    size, answered = struct.unpack_from("IH", answer)
    if answered == _ERROR:
        (code,) = struct.unpack_from("i", answer, 16)
        if code:
            raise OSError(-code, os.strerror(-code))
        return b""
    return answer[16:size]


def _link(answer: bytes) -> Link:
    number, flags = struct.unpack_from("iI", answer, 4)
    found = dict(_attributes(answer[16:]))
    kind = dict(_attributes(found.get(_LINKINFO, b""))).get(_INFO_KIND, b"")
    (master,) = struct.unpack("I", found.get(_MASTER, bytes(4)))
    name, alias, what = (_text(value) for value in (found.get(_IFNAME, b""), found.get(_IFALIAS, b""), kind))
    return Link(number, name, bool(flags & _IFF_UP), master, alias, what)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")
