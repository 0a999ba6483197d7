"""The rows of behaviour.md (section 5) in which ours is better than QEMU, and a witness who can tell which one it was.

The witness has heard the secondary.  Where QEMU has released a packet that ours holds, it says what the secondary has
not said yet: then ours is right to hold it.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

import pytest

from tests.oracle.compare import distance
from tests.packets import ACK, FIN, IPV4, IPV6, MOD, P_TCP, QINQ, RST, SYN, VLAN, Packet, read

Key = tuple[object, ...]


class Row(Enum):
    """The first column of the table, and what this suite has found beyond it."""

    OUT_OF_ORDER = "secondary's TCP segments out of order"
    RETRANSMIT = "primary retransmits what was compared"
    ACKS = "acknowledgements"
    FLAGS = "SYN, FIN, RST and flags"
    SERIAL = "sequence and ack arithmetic"
    UDP_ORDER = "several packets waiting in one UDP flow"
    AHEAD = "one flow ahead of the other by more than 1,024 packets"
    SLOW = "slow reader on outdev"
    TABLE = "16,385th connection"
    ONE_REQUEST = "the same divergence"
    TAGS = "IPv6 with extension headers, VLAN, QinQ"
    FRAGMENTS = "IP fragments"
    UNSAID = "beyond the table: bytes that the secondary has not sent at that place"
    OVERLAP = "beyond the table: segments that overlap"
    PADDING = "beyond the table: Ethernet padding"
    OTHER_IP = "beyond the table: IP header of other protocols"
    TRUNCATED = "beyond the table: headers cut off"
    EMPTY = "beyond the table: an empty frame"


def row(which: Row) -> pytest.MarkDecorator:
    """Name the row in a test's id."""
    return pytest.mark.parametrize("row", [which], ids=[which.value])


@dataclass
class _Flow:
    said: dict[int, set[int]] = field(default_factory=dict)
    syn: bool = False
    rst: bool = False
    fins: set[int] = field(default_factory=set)
    ack: int | None = None
    primary_said: dict[int, set[int]] = field(default_factory=dict)
    primary_fins: set[int] = field(default_factory=set)
    primary_rst: bool = False
    primary_ack: int | None = None


@dataclass
class Witness:
    """Hears every frame; `excuse` names the row because of which a frame may still be held."""

    strict: bool = True
    flows: dict[Key, _Flow] = field(default_factory=dict)
    datagrams: Counter[tuple[Key, bytes]] = field(default_factory=Counter)  # the primary's minus the secondary's

    def hears(self, side: str, frame: bytes) -> None:
        """A frame of either side."""
        p = _read(frame)
        if p is None:
            return
        first = side == "primary_in"
        if p.proto != P_TCP or p.fragment:
            self.datagrams[_key(p), p.body] += 1 if first else -1
            return
        flow = self.flows.setdefault(_key(p), _Flow())
        end = (p.seq + len(p.payload)) % MOD
        said = flow.primary_said if first else flow.said
        if not p.flags & (SYN | RST):
            for i, byte in enumerate(p.payload):
                said.setdefault((p.seq + i) % MOD, set()).add(byte)
        if first:
            flow.primary_rst |= bool(p.flags & RST)
            flow.primary_fins |= {end} if p.flags & FIN else set()
            flow.primary_ack = _later(flow.primary_ack, p)
        else:
            flow.syn |= bool(p.flags & SYN)
            flow.rst |= bool(p.flags & RST)
            flow.fins |= {end} if p.flags & FIN else set()
            flow.ack = _later(flow.ack, p)

    def checkpoint(self) -> None:
        """From now on the secondary is a copy of the primary: it has said and acknowledged the same."""
        self.datagrams.clear()
        for flow in self.flows.values():
            flow.said = {position: set(values) for position, values in flow.primary_said.items()}
            flow.syn, flow.fins, flow.ack = True, set(flow.primary_fins), flow.primary_ack
            flow.rst = flow.primary_rst = False

    @property
    def flags_differ(self) -> bool:
        """Whether a FIN or a RST has come from one side only, so far."""
        return any(flow.primary_fins != flow.fins or flow.primary_rst != flow.rst for flow in self.flows.values())

    def excuse(self, frame: bytes, held: list[bytes]) -> Row | None:
        """Why ours may hold ``frame``, one of ``held`` (in the order of arrival); None: it must not.

        A segment may stand behind another of its connection: one before it in the stream, or an acknowledgement that
        came before it.
        """
        p = _read(frame)
        if p is None:
            return None
        why = self._lacks(p)
        if why is None and p.proto == P_TCP:
            at = held.index(frame)
            for i, q in enumerate(map(_read, held)):
                if q is None or _key(q) != _key(p):
                    continue
                lack, apart = self._lacks(q), distance(q.seq, p.seq)
                if apart < 0 or (i < at and (apart == 0 or lack is Row.ACKS)):
                    why = why or lack
        return Row.TAGS if why is not None and (p.version == 6 or p.vlans) else why

    @staticmethod
    def meanings(frames: list[bytes]) -> Counter[tuple[Key, bytes]]:
        """What the client gets by datagrams: equal ones of one flow are one and the same."""
        packets = (p for p in map(_read, frames) if p is not None and (p.proto != P_TCP or p.fragment))
        return Counter((_key(p), p.body) for p in packets)

    def _lacks(self, p: Packet) -> Row | None:
        """What the secondary has not said of a packet of the primary."""
        if p.fragment:  # the datagram is compared when it is whole
            same = (n for (key, _), n in self.datagrams.items() if key == _key(p))
            return Row.FRAGMENTS if any(n > 0 for n in same) else None
        if p.proto != P_TCP:
            return Row.UDP_ORDER if self.datagrams[_key(p), p.body] > 0 else None
        flow = self.flows[_key(p)]
        missing = {SYN: not flow.syn, RST: not flow.rst, FIN: (p.seq + len(p.payload)) % MOD not in flow.fins}
        if any(p.flags & flag and absent for flag, absent in missing.items()):
            return Row.FLAGS
        unsaid = (byte not in flow.said.get((p.seq + i) % MOD, ()) for i, byte in enumerate(p.payload))
        if not p.flags & (SYN | RST) and any(unsaid):
            return Row.UNSAID
        if self.strict and p.flags & ACK and (flow.ack is None or distance(flow.ack, p.ack) < 0):
            return Row.ACKS
        return None


def _read(frame: bytes) -> Packet | None:
    """A packet that is whole from Ethernet to its last byte; None: one that is not compared."""
    try:
        p = read(frame)
    except (ValueError, IndexError, struct.error):
        return None
    kind, at = int.from_bytes(frame[12:14], "big"), 14
    while kind in (VLAN, QINQ):
        kind, at = int.from_bytes(frame[at + 2 : at + 4], "big"), at + 4
    if kind == IPV4:
        whole = frame[at] & 15 >= 5 and len(frame) >= at + int.from_bytes(frame[at + 2 : at + 4], "big")
    else:
        whole = kind == IPV6 and len(frame) >= at + 40 + int.from_bytes(frame[at + 4 : at + 6], "big")
    return p if whole else None


def _later(ack: int | None, p: Packet) -> int | None:
    newer = p.flags & ACK and (ack is None or distance(p.ack, ack) > 0)
    return p.ack if newer else ack


def _key(p: Packet) -> Key:
    return (p.vlans, p.src, p.dst, p.proto, p.fragment, p.sport, p.dport)
