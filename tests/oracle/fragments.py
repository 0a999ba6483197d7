"""IP fragments gathered to datagrams, in slow, plain Python: every byte of a datagram has its own entry.

Written from RFC 791, RFC 8200 (4.5) and behaviour.md; no code or number is shared with the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.packets import Packet, ip_frame, read

Conversation = tuple[object, ...]


@dataclass
class Group:
    """The fragments of one datagram of one side, in order of arrival; ``broken``: it can never be whole."""

    number: int
    frames: list[bytes] = field(default_factory=list)
    pieces: list[tuple[int, bool, bytes]] = field(default_factory=list)
    data: dict[int, int] = field(default_factory=dict)
    end: int | None = None
    proto: int = 0
    broken: bool = False

    def add(self, frame: bytes, proto: int, at: int, more: bool, data: bytes) -> bool:
        """Take a fragment; whether the datagram is whole now."""
        self.frames.append(frame)
        if at == 0:
            self.proto = proto
        if (at, more, data) in self.pieces:
            return self._whole()
        self.pieces.append((at, more, data))
        if not data or at + len(data) > 65_535 or (more and len(data) % 8):
            self.broken = True
        for i, byte in enumerate(data):
            if at + i in self.data:
                self.broken = True
            self.data[at + i] = byte
        if not more:
            if self.end is not None:
                self.broken = True
            self.end = at + len(data)
        return self._whole()

    def says(self) -> object:
        """What a receiver has of it: its bytes and its end; where pieces contradict each other, those pieces."""
        if self.broken:
            return frozenset(self.pieces), self.proto
        return frozenset(self.data.items()), self.end, self.proto

    def _whole(self) -> bool:
        return not self.broken and self.end is not None and sorted(self.data) == list(range(self.end))


@dataclass
class Gather:
    """Feed it the fragments of both sides."""

    number: Callable[[], int]
    groups: dict[tuple[bool, Conversation, int], Group] = field(default_factory=dict)
    settled: dict[tuple[bool, Conversation], int] = field(default_factory=dict)
    gathered: int = 0

    def held(self, primary: bool) -> int:
        """Frames of a side that wait for the rest of their datagram."""
        return sum(len(g.frames) for (side, _, _), g in self.groups.items() if side == primary)

    def checkpoint(self) -> list[tuple[int, list[bytes]]]:
        """Everything leaves or is dropped; what the primary had, with its number in the order of arrival."""
        found = []
        for (primary, conversation, ident), group in sorted(self.groups.items(), key=lambda item: item[1].number):
            self.settled[primary, conversation] = ident
            if primary:
                found.append((group.number, group.frames))
        self.groups.clear()
        return found

    def expire(self) -> tuple[int, int]:
        """Nothing comes any more: frames of what both sides have sent of a datagram alike, and groups that differ."""
        alike = differ = 0
        waiting = sorted(self.groups.items(), key=lambda item: item[1].number)
        while waiting:
            (primary, conversation, _), group = waiting.pop(0)
            for i, ((side, other, _), candidate) in enumerate(waiting):
                if side != primary and other == conversation and group.says() == candidate.says():
                    alike += len(group.frames) + len(candidate.frames)
                    del waiting[i]
                    break
            else:
                differ += 1
        self.groups.clear()
        return alike, differ

    def take(self, frame: bytes, p: Packet, primary: bool) -> tuple[Packet, list[bytes], bytes] | bool:
        """The whole datagram, its frames and its bytes; True: it follows what was settled; False: it waits."""
        ident, at, more = _place(frame, p)
        conversation = (p.network, p.vlans, p.src, p.dst, p.proto if p.version == 4 else None)
        group = self.groups.get((primary, conversation, ident))
        if group is None and at > 0:
            sides = (True,) if primary else (True, False)
            if any(self.settled.get((side, conversation)) == ident for side in sides):
                return True
        if group is None:
            group = self.groups[primary, conversation, ident] = Group(self.number())
        if not group.add(frame, p.proto, at, more, p.body):
            return False
        del self.groups[primary, conversation, ident]
        self.gathered += len(group.frames)
        body = bytes(group.data[i] for i in range(len(group.data)))
        whole = read(ip_frame(p.src, p.dst, group.proto, body, vlans=p.vlans))
        return replace(whole, network=p.network), group.frames, body


def _place(frame: bytes, p: Packet) -> tuple[int, int, bool]:
    """Identification, offset in bytes, whether more follow."""
    if p.version == 4:
        ip = p.ip_at
        bits = int.from_bytes(frame[ip + 6 : ip + 8], "big")
        return int.from_bytes(frame[ip + 4 : ip + 6], "big"), (bits & 0x1FFF) * 8, bool(bits & 0x2000)
    header = frame[p.body_at - 8 : p.body_at]
    bits = int.from_bytes(header[2:4], "big")
    return int.from_bytes(header[4:], "big"), bits & 0xFFF8, bool(bits & 1)
