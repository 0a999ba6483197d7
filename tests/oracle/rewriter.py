"""filter-rewriter in slow, plain Python: a dict of connections, frames built anew, checksums summed from scratch.

Written from behaviour.md, section 4, and RFC 9293; no code, number or layout is shared with the kernel.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

from tests.packets import ACK, FIN, MOD, P_TCP, RST, SYN, Packet, checksum, ones_sum, packed, pseudo, read
from tests.tunnels import read_inside

Key = tuple[object, ...]


def serial(a: int, b: int) -> int:
    """Signed distance from ``b`` to ``a`` on the circle of 2^32 (RFC 1982)."""
    ahead = (a - b) % MOD
    return ahead if ahead < MOD // 2 else ahead - MOD


@dataclass
class Connection:
    """What is known of one connection.  ``fin_in`` and ``fin_out`` are numbers as the outside peer sees them.

    ``guest_syn``: the ISN with which the guest opens; ``asking``: without an answer yet; ``wire_isn``: the
    primary's ISN; ``ack_out``: the guest's last ack; ``alone_isn``: of its SYN with data.
    """

    secondary_isn: int | None = None
    client_next: int | None = None
    seq_offset: int | None = None
    over: bool = False
    ts_local: int | None = None
    ts_offset: int = 0
    fin_in: int | None = None
    fin_out: int | None = None
    fin_in_acked: bool = False
    fin_out_acked: bool = False
    guest_syn: int | None = None
    asking: bool = False
    wire_isn: int | None = None
    ack_out: int | None = None
    alone_isn: int | None = None


@dataclass
class Rewriter:
    """Feed it frames with `inbound` and `outbound`; each returns the frame that goes on."""

    on: bool = True
    tunnels: str = "inner"
    alone: bool = False
    connections: dict[Key, Connection] = field(default_factory=dict)
    opened: int = 0
    closed: int = 0
    reset: int = 0
    replaced: int = 0
    untracked: int = 0
    rewritten_in: int = 0
    rewritten_out: int = 0

    @property
    def open_now(self) -> int:
        """Connections that are neither closed nor reset."""
        return sum(not c.over for c in self.connections.values())

    def checkpoint(self) -> None:
        """The secondary is now a copy of the primary: same numbers on both, in connections and in half-open ones."""
        if self.alone:
            return
        for c in self.connections.values():
            if c.seq_offset is not None or c.secondary_isn is not None:
                c.seq_offset = c.ts_offset = 0

    def failover(self) -> None:
        """The primary is gone."""
        self.alone = True

    def inbound(self, frame: bytes, *, partial: bool = False) -> bytes:
        """A frame towards the guest; ``partial``: its TCP checksum covers the pseudo-header only."""
        p = read_inside(frame) if self.tunnels == "inner" else read(frame)
        if p.fragment:
            p = beginning(frame, p)
        if not self.on or p.proto != P_TCP or not p.sport:
            return frame
        key = (p.network, p.vlans, p.src, p.sport, p.dst, p.dport)
        c = self.connections.get(key)
        if p.flags & SYN:
            if p.flags & (FIN | RST):
                return frame
            if p.flags & ACK:
                if c is None or not self._accepted(c, p):
                    return frame
                return self._moved_in(frame, p, c, partial)
            if c is None and not self.alone:
                self.connections[key] = Connection()
                self.opened += 1
            return frame
        if c is None:
            return frame
        refused = False
        if c.asking:
            if p.flags & (ACK | RST) != ACK | RST:
                return frame
            self._learn(c, p)  # refused: the guest must be able to see it
            refused = True
        elif p.flags & ACK and c.secondary_isn is not None and not self._established(c):
            assert c.client_next is not None
            if 0 <= serial(p.seq, c.client_next) <= 65535:  # what a window of the handshake can hold
                self._learn(c, p)
        if self._established(c):
            if p.flags & FIN:
                c.fin_in = (p.seq + len(p.payload) + 1) % MOD
            if p.flags & ACK and c.fin_out is not None and p.ack == c.fin_out:
                c.fin_out_acked = True
        near = c.ack_out is not None and 0 <= serial(p.seq, c.ack_out) <= 1_048_576  # else late, or forged
        self._ended(c, reset=bool(p.flags & RST) and (refused or near))
        if self._established(c) and p.flags & ACK:
            return self._moved_in(frame, p, c, partial)
        return frame

    def _accepted(self, c: Connection, p: Packet) -> bool:
        """A SYN+ACK from the peer; whether it is rewritten."""
        if c.guest_syn is None:
            return False
        if c.asking or (not self._established(c) and c.client_next == (p.seq + 1) % MOD):
            if c.asking:
                c.ack_out = (p.seq + 1) % MOD
            c.client_next = (p.seq + 1) % MOD
            self._learn(c, p)
        return self._established(c)

    @staticmethod
    def _learn(c: Connection, p: Packet) -> None:
        """``p`` acknowledges the primary's SYN."""
        assert c.secondary_isn is not None
        c.wire_isn = (p.ack - 1) % MOD
        if c.seq_offset is None:
            c.seq_offset = (c.secondary_isn - c.wire_isn) % MOD
            if c.ts_local is not None and (found := clock(p)):
                c.ts_offset = (c.ts_local - found[1]) % MOD
        c.secondary_isn, c.asking = None, False

    def _moved_in(self, frame: bytes, p: Packet, c: Connection, partial: bool) -> bytes:
        if not (c.seq_offset or c.ts_offset):
            return frame
        self.rewritten_in += 1
        assert c.seq_offset is not None
        options = moved_options(p.body, sack=c.seq_offset, tsval=0, tsecr=c.ts_offset)
        return renumber(frame, p, p.seq, (p.ack + c.seq_offset) % MOD, options, partial)

    def outbound(self, frame: bytes, *, partial: bool = False) -> bytes:
        """A frame from the guest."""
        p = read_inside(frame) if self.tunnels == "inner" else read(frame)
        if p.fragment:
            p = beginning(frame, p)
        if not self.on or p.proto != P_TCP or not p.sport:
            return frame
        key = (p.network, p.vlans, p.dst, p.dport, p.src, p.sport)
        c = self.connections.get(key)
        if p.flags & SYN:
            if p.flags & (FIN | RST):
                return frame
            if p.flags & ACK:
                self._answered(key, c, p)
            else:
                self._asked(key, c, p)
            return frame
        if c is None or c.asking:
            return frame
        if p.flags & ACK and c.ack_out is not None:
            c.ack_out = p.ack
        refusal = c.over and p.flags & (RST | ACK) == RST | ACK and p.seq == 0  # of a SYN, so it has no number
        seq = (p.seq - (c.seq_offset or 0)) % MOD
        if self._established(c):
            if p.flags & FIN:
                c.fin_out = (seq + len(p.payload) + 1) % MOD
            if p.flags & ACK and c.fin_in is not None and p.ack == c.fin_in:
                c.fin_in_acked = True
        self._ended(c, reset=bool(p.flags & RST))
        if self._established(c) and p.flags & (ACK | RST) and (c.seq_offset or c.ts_offset) and not refusal:
            self.rewritten_out += 1
            options = moved_options(p.body, sack=0, tsval=-c.ts_offset, tsecr=0)
            return renumber(frame, p, seq, p.ack, options, partial)
        return frame

    @staticmethod
    def _established(c: Connection) -> bool:
        return c.seq_offset is not None and c.secondary_isn is None

    def _ended(self, c: Connection, *, reset: bool) -> None:
        if c.over:
            return
        if c.fin_in_acked and c.fin_out_acked:
            c.over = True
            self.closed += 1
        elif reset:
            c.over = True
            self.reset += 1

    def _fresh(self, key: Key, c: Connection | None) -> Connection | None:
        """The guest has a new connection there; None: it is left alone."""
        if c is not None and not c.over:
            self.replaced += 1
        if self.alone:
            self.connections.pop(key, None)
            return None
        self.opened += 1
        made = self.connections[key] = Connection()
        return made

    def _asked(self, key: Key, c: Connection | None, p: Packet) -> None:
        """The guest's own SYN."""
        if c is not None and c.alone_isn == p.seq:
            return  # the same attempt, perhaps without its data now
        if p.payload:  # whether the answer acknowledges it cannot be told: never tracked
            if c is not None or not self.alone:
                self.untracked += 1
                self.replaced += c is not None and not c.over
                self.connections[key] = Connection(over=True, alone_isn=p.seq)
            return
        if c is not None and self._established(c) and not c.over:
            assert c.seq_offset is not None
            if (p.seq - c.seq_offset) % MOD == c.wire_isn:
                return  # sent again
            c = self._fresh(key, c)
        elif c is None or c.over:
            c = self._fresh(key, c)
        if c is not None:
            c.guest_syn, c.asking, c.client_next, c.ack_out = p.seq, True, None, None
            self._told(key, c, p)

    def _told(self, key: Key, c: Connection, p: Packet) -> None:
        """The guest's SYN or SYN+ACK shows its ISN and clock."""
        c.secondary_isn, c.seq_offset = p.seq, None
        found = clock(p)
        c.ts_local, c.ts_offset = found[0] if found else None, 0
        self._answer[key] = p.seq

    def _answered(self, key: Key, c: Connection | None, p: Packet) -> None:
        if c is not None and self._established(c):
            same = c.client_next == p.ack
            if same and (not c.over or self._answer[key] == p.seq):
                return
        if c is None or c.over or (not c.asking and c.client_next is not None and c.client_next != p.ack):
            c = self._fresh(key, c)
            if c is None:
                return
        if c.guest_syn is not None and self._answer.get(key) != p.seq:
            c.guest_syn = None
        c.client_next, c.ack_out, c.asking = p.ack, p.ack, False
        self._told(key, c, p)

    _answer: dict[Key, int] = field(default_factory=dict)


def beginning(frame: bytes, p: Packet) -> Packet:
    """A fragment read like a segment if it holds a whole TCP header and no SYN; its FIN does not count.

    Ports of 0 where it cannot be read.
    """
    at = p.ip_at + 6 if p.version == 4 else p.body_at - 6
    offset = int.from_bytes(frame[at : at + 2], "big") & (0x1FFF if p.version == 4 else 0xFFF8)
    if offset or p.proto != P_TCP or len(p.body) < 20:
        return p
    sport, dport, seq, ack, size, flags = struct.unpack("!HHIIBB", p.body[:14])
    if not 20 <= (size >> 4) * 4 <= len(p.body) or flags & SYN:
        return p
    return replace(p, sport=sport, dport=dport, seq=seq, ack=ack, flags=flags & ~FIN)


def clock(p: Packet) -> tuple[int, int] | None:
    """TSval and TSecr of a segment (RFC 7323)."""
    for kind, at, size in each_option(p.body):
        if kind == 8 and size == 10:
            return int.from_bytes(p.body[at + 2 : at + 6], "big"), int.from_bytes(p.body[at + 6 : at + 10], "big")
    return None


def each_option(body: bytes) -> list[tuple[int, int, int]]:
    """(kind, place, length) of the options that have a length, as far as the list can be read."""
    found, at, end = [], 20, (body[12] >> 4) * 4
    while at < end and body[at] != 0:
        if body[at] == 1:
            at += 1
            continue
        if at + 1 == end or body[at + 1] < 2 or at + body[at + 1] > end:
            break
        found.append((body[at], at, body[at + 1]))
        at += body[at + 1]
    return found


def moved_options(body: bytes, *, sack: int, tsval: int, tsecr: int) -> bytes:
    """The options with every SACK edge, and the numbers of the first timestamps option, moved by so much."""
    moves: list[tuple[int, int]] = []
    clocks = 0
    for kind, at, size in each_option(body):
        if kind == 5:
            moves += [(at + 2 + 4 * i, sack) for i in range((size - 2) // 4)]
        if kind == 8 and size == 10 and not clocks:
            clocks = 1
            moves += [(at + 2, tsval), (at + 6, tsecr)]
    for at, by in moves:
        number = (int.from_bytes(body[at : at + 4], "big") + by) % MOD
        body = body[:at] + number.to_bytes(4, "big") + body[at + 4 :]
    return body[20 : (body[12] >> 4) * 4]


def renumber(frame: bytes, p: Packet, seq: int, ack: int, options: bytes, partial: bool) -> bytes:
    """The frame with other numbers and its TCP checksum summed anew, or left as it is where it is partial.

    Of a fragment only these bytes are here; its checksum is what makes the sum of all come out as before.
    """
    body = p.body[:4] + seq.to_bytes(4, "big") + ack.to_bytes(4, "big") + p.body[12:20] + options
    body += p.body[20 + len(options) :]
    if not partial:
        head = pseudo(packed(p.src), packed(p.dst), P_TCP, 0 if p.fragment else len(body))
        before = ones_sum(head + p.body)
        rest = 0xFFFF - before  # the other fragments' share, as the whole sums up to 0xFFFF
        fresh = checksum(head + body[:16] + b"\0\0" + body[18:] + bytes(len(body) % 2) + rest.to_bytes(2, "big"))
        # A checksum that was wrong has to stay wrong; the tests here give only right ones to this oracle.
        assert p.fragment or before == 0xFFFF
        body = body[:16] + fresh.to_bytes(2, "big") + body[18:]
    return frame[: p.body_at] + body + frame[p.body_at + len(body) :]
