"""colo-compare in slow, plain Python: streams are dicts of bytes by position, everything held is in lists.

Written from behaviour.md, section 5; no code, number or layout is shared with the kernel.  Time is not modelled: a
test that needs deadlines asks the kernel for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from tests.oracle.fragments import Gather
from tests.packets import ACK, FIN, MOD, P_ICMP, P_ICMPV6, P_IGMP, P_PIM, P_TCP, P_UDP, RST, SYN, Packet, read
from tests.tunnels import opened, read_inside

Key = tuple[object, ...]
_OF_THE_LINK = {  # by IP version and protocol: types of ICMP that are routers', neighbours' and listeners'
    (4, P_ICMP): (9, 10),
    (6, P_ICMPV6): (*range(130, 138), 143, 151, 152, 153),
}
END = -1  # stands in a stream where a FIN is


def distance(a: int, b: int) -> int:
    """Signed distance from ``b`` to ``a`` on the circle of 2^32 (RFC 1982)."""
    ahead = (a - b) % MOD
    return ahead if ahead < MOD // 2 else ahead - MOD


@dataclass
class Held:
    """A packet of the primary that waits; ``start`` and ``end`` count from the primary's SYN."""

    frame: bytes
    packet: Packet
    start: int
    end: int
    number: int


@dataclass
class Stream:
    """One TCP connection.  Positions count from the primary's SYN, which is at 0; its first byte is at 1."""

    isn: int | None = None
    base: int = 0
    both_syn: bool = False
    secondary_syn: bool = False
    mine: dict[int, int] = field(default_factory=dict)
    theirs: dict[int, int] = field(default_factory=dict)
    compared: int = 1
    primary_end: int = 1
    primary_ack: int | None = None
    secondary_ack: int | None = None
    secondary_reset: bool = False
    diverged: bool = False
    ordered: list[Held] = field(default_factory=list)
    passive: list[Held] = field(default_factory=list)
    early: list[Packet] = field(default_factory=list)

    def position(self, number: int) -> int:
        """Position of a sequence number."""
        return self.compared + distance(number, (self.base + self.compared) % MOD)


@dataclass
class Compare:
    """Feed it frames with `primary` and `secondary`; each returns what is released because of it."""

    strict: bool = True
    tunnels: str = "inner"
    asked: int = 0
    divergences: int = 0
    streams: dict[Key, Stream] = field(default_factory=dict)
    pairs: dict[Key, tuple[list[tuple[int, list[bytes], bytes]], list[bytes]]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)
    gather: Gather = field(init=False)

    def __post_init__(self) -> None:
        """Fragments are numbered like everything that arrives."""
        self.gather = Gather(lambda: next(self._numbers))

    @property
    def held_primary(self) -> int:
        """Primary packets that wait."""
        streams = sum(len(s.ordered) + len(s.passive) for s in self.streams.values())
        datagrams = sum(len(frames) for mine, _ in self.pairs.values() for _, frames, _ in mine)
        return streams + datagrams + self.gather.held(True)

    def checkpoint(self) -> list[bytes]:
        """Everything held of the primary leaves in the order in which it came; the secondary is a copy from now on."""
        waiting = self.gather.checkpoint()
        for s in self.streams.values():
            waiting += [(h.number, [h.frame]) for h in s.ordered + s.passive]
            s.ordered, s.passive, s.theirs = [], [], {}
            s.compared, s.secondary_ack, s.diverged, s.secondary_reset = s.primary_end, s.primary_ack, False, False
            s.both_syn, s.secondary_syn = s.isn is not None, False
        for mine, theirs in self.pairs.values():
            waiting += [(number, frames) for number, frames, _ in mine]
            mine.clear()
            theirs.clear()
        self.asked = 0
        return [frame for _, frames in sorted(waiting) for frame in frames]

    def primary(self, frame: bytes) -> list[bytes]:
        """A frame of the primary."""
        p = self._read(frame)
        if p is None:
            return [frame]
        if p.fragment:
            return self._fragment(p, frame, primary=True)
        if p.proto != P_TCP:
            return self._datagram(p, [frame], p.body, primary=True)
        s = self.streams.setdefault(key(p), Stream())
        if p.flags & SYN:
            if s.isn is None:
                s.isn, s.base = p.seq, p.seq
                s.both_syn = s.secondary_syn
                for other in s.early:
                    self._hear(s, other)
        elif s.isn is None and p.payload:
            raise NotImplementedError("a connection picked up in the middle")
        start = s.position(p.seq)
        end = start + len(p.payload) + bool(p.flags & FIN) + bool(p.flags & SYN)
        held = Held(frame, p, start, end, next(self._numbers))
        if p.flags & ACK and (s.primary_ack is None or distance(p.ack, s.primary_ack) > 0):
            s.primary_ack = p.ack
        if p.flags & RST:
            s.passive.append(held)
            return self._go_on(s)
        s.primary_end = max(s.primary_end, end)
        first = start + bool(p.flags & SYN)
        for i, byte in enumerate([*p.payload, *([END] if p.flags & FIN else [])]):
            s.mine.setdefault(first + i, byte)
        if end > start and (end > s.compared or p.flags & SYN):
            s.ordered.append(held)
            s.ordered.sort(key=lambda h: h.start)
        else:
            s.passive.append(held)
        return self._go_on(s)

    def secondary(self, frame: bytes) -> list[bytes]:
        """A frame of the secondary."""
        p = self._read(frame)
        if p is None:
            return []
        if p.fragment:
            return self._fragment(p, frame, primary=False)
        if p.proto != P_TCP:
            return self._datagram(p, [frame], p.body, primary=False)
        s = self.streams.setdefault(key(p), Stream())
        if p.flags & ACK and (s.secondary_ack is None or distance(p.ack, s.secondary_ack) > 0):
            s.secondary_ack = p.ack
        if p.flags & SYN:
            s.secondary_syn = True
            s.both_syn = s.isn is not None
        elif p.flags & RST:
            s.secondary_reset = True
        elif s.isn is None:
            s.early.append(p)
        else:
            self._hear(s, p)
        return self._go_on(s)

    @staticmethod
    def _hear(s: Stream, p: Packet) -> None:
        start = s.position(p.seq)
        for i, byte in enumerate([*p.payload, *([END] if p.flags & FIN else [])]):
            s.theirs.setdefault(start + i, byte)

    def _read(self, frame: bytes) -> Packet | None:
        p = read(frame)
        if self.tunnels != "outer" and opened(frame) is not None:
            if self.tunnels == "pass":
                return None
            p = read_inside(frame)
        cut = p.proto == P_UDP and not p.fragment and len(p.body) < 8  # shorter than its header: not compared
        return p if p.version and not cut and not _about_the_link(p) else None

    def _fragment(self, p: Packet, frame: bytes, *, primary: bool) -> list[bytes]:
        found = self.gather.take(frame, p, primary)
        if isinstance(found, bool):
            return [frame] if found and primary else []
        whole, frames, body = found
        return self._datagram(whole, frames, body, primary=primary)

    def _datagram(self, p: Packet, frames: list[bytes], body: bytes, *, primary: bool) -> list[bytes]:
        where = key(p) if p.proto != P_TCP else (*key(p), "put together")
        mine, theirs = self.pairs.setdefault(where, ([], []))
        if primary:
            if body in theirs:
                theirs.remove(body)
                return frames
            mine.append((next(self._numbers), frames, body))
            return []
        for i, (_, held, theirs_too) in enumerate(mine):
            if theirs_too == body:
                del mine[i]
                return held
        theirs.append(body)
        return []

    def _go_on(self, s: Stream) -> list[bytes]:
        while s.both_syn and not s.diverged and s.compared in s.mine and s.compared in s.theirs:
            if s.mine[s.compared] != s.theirs[s.compared]:
                s.diverged = True
                self.divergences += 1
                self.asked = 1
                break
            s.compared += 1
        released: list[bytes] = []
        while (
            s.ordered and s.both_syn and s.ordered[0].end <= s.compared and self._acknowledged(s, s.ordered[0].packet)
        ):
            released.append(s.ordered.pop(0).frame)
        while s.passive and self._acknowledged(s, s.passive[0].packet):
            if s.passive[0].packet.flags & RST and (not s.secondary_reset or s.ordered):
                break
            released.append(s.passive.pop(0).frame)
        return released

    def _acknowledged(self, s: Stream, p: Packet) -> bool:
        if not self.strict or not p.flags & ACK:
            return True
        return s.secondary_ack is not None and distance(s.secondary_ack, p.ack) >= 0


def _about_the_link(p: Packet) -> bool:
    """ICMP of the types above, IGMP, and PIM to the group of all PIM routers."""
    if p.proto == P_IGMP:
        return p.version == 4
    if p.proto == P_PIM:
        return p.dst in ("224.0.0.13", "ff02::d")
    return not p.fragment and p.body[:1] in {bytes([kind]) for kind in _OF_THE_LINK.get((p.version, p.proto), ())}


def key(p: Packet) -> Key:
    """What makes packets one conversation."""
    return (p.network, p.vlans, p.src, p.dst, p.proto, p.sport, p.dport)
