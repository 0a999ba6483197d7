"""A scripted guest at the end of a chain: ARP, echo over ICMP and UDP, and a small TCP server.

It answers frames and nothing else: no timer, no threads, so its output depends only on the frames it is given, and on
each flow alone.  Both replicas run the same service; a `Replica` says in what they differ, as two running kernels do:
initial sequence numbers, segment size, IP identification, TTL, window.

Its TCP is strict, as a real stack is: a segment with a wrong checksum, a sequence number that is not the next, or an
acknowledgement of what was never sent is dropped (RFC 9293, 3.10.7.4), and stands in `Guest.ignored`.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.packets import (
    ACK,
    ARP,
    FIN,
    MAC_A,
    MAC_B,
    MOD,
    P_ICMP,
    P_ICMPV6,
    P_TCP,
    P_UDP,
    PSH,
    RST,
    SYN,
    Packet,
    checksum_faults,
    ether,
    icmp_frame,
    opt_mss,
    packed,
    read,
    tcp_frame,
    udp_frame,
)

ADDRESS, ADDRESS6 = "10.0.0.1", "fd00::1"
PORT: Final = 80
WHO: Final = b"who\n"  # the one request that the replicas answer differently


@dataclass(frozen=True)
class Replica:
    """In what one replica differs from the other.

    ``isns`` are by the client's port; ``segments`` are the sizes into which answers to even and odd ports are cut.
    """

    name: str
    isns: Mapping[int, int]
    segments: tuple[int, int]
    ident: int
    ttl: int
    window: int


def pattern(size: int) -> bytes:
    """The service's answer of ``size`` bytes: no two stretches of 8 are alike near each other."""
    return b"".join(b"%07d\n" % i for i in range(-(-size // 8)))[:size]


def answer(request: bytes, who: str) -> tuple[bytes, bool]:
    """What the service says to a request line, and whether it closes then: ``get N``, ``bye N``, ``who``."""
    if request == WHO:
        return who.ljust(64, ".").encode(), False
    word, size = request.split()
    return pattern(int(size)), word == b"bye"


@dataclass
class Connection:
    """One TCP connection: what was acknowledged, what comes next on both ways, and the request so far."""

    una: int
    nxt: int
    rcv: int
    ident: int
    established: bool = False
    closing: bool = False
    request: bytes = b""


@dataclass
class Guest:
    """Give it each frame with `take`; it returns the frames that it sends."""

    replica: Replica
    received: list[bytes] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    requests: defaultdict[int, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    _connections: dict[tuple[str, int], Connection] = field(default_factory=dict)
    _sent: defaultdict[tuple[object, ...], int] = field(default_factory=lambda: defaultdict(int))

    def take(self, frame: bytes) -> list[bytes]:
        """One frame from the network."""
        self.received.append(frame)
        if int.from_bytes(frame[12:14], "big") == ARP:
            return self._arp(frame)
        if faults := checksum_faults(frame):
            return self._ignore(f"wrong checksum: {faults}")
        p = read(frame)
        answers: dict[int, Callable[[Packet], list[bytes]]] = {
            P_TCP: self._tcp,
            P_UDP: self._udp,
            P_ICMP: self._ping,
            P_ICMPV6: self._ping,
        }
        return answers[p.proto](p) if p.proto in answers else self._ignore(f"protocol {p.proto}")

    def _ignore(self, why: str) -> list[bytes]:
        self.ignored.append(why)
        return []

    def _ident(self, *flow: object) -> int:
        self._sent[flow] += 1
        return (self.replica.ident + self._sent[flow]) & 0xFFFF

    def _arp(self, frame: bytes) -> list[bytes]:
        asked = packed(ADDRESS)
        if frame[38:42] != asked:
            return self._ignore("ARP for another")
        # RFC 826: the reply says whose the address is.
        return [ether(frame[14:20] + b"\0\2" + MAC_B + asked + frame[22:32], ARP, src=MAC_B, dst=MAC_A, pad=True)]

    def _udp(self, p: Packet) -> list[bytes]:
        said = self.replica.name.ljust(64, ".").encode() if p.payload == WHO else p.payload[::-1]
        ident = self._ident(p.src, p.sport)
        ports = p.dst, p.src, p.dport, p.sport
        return [udp_frame(*ports, said, vlans=p.vlans, ident=ident, ttl=self.replica.ttl)]

    def _ping(self, p: Packet) -> list[bytes]:
        ident, number = struct.unpack("!HH", p.body[4:8])
        return [
            icmp_frame(
                p.dst, p.src, reply=True, ident=ident, number=number, data=p.body[8:], ip_ident=self._ident(p.src),
                ttl=self.replica.ttl,
            )
        ]  # fmt: skip

    # --- TCP ----------------------------------------------------------------------------------------------------

    def _tcp(self, p: Packet) -> list[bytes]:
        key = p.src, p.sport
        if p.flags == SYN and p.dport == PORT:
            isn = self.replica.isns[p.sport]
            c = self._connections[key] = Connection(isn, isn, (p.seq + 1) % MOD, self.replica.ident)
            return [self._segment(c, p, SYN | ACK)]
        where = f"port {p.sport}, seq {p.seq}, ack {p.ack}"
        if key not in self._connections:
            return self._ignore(f"no connection: {where}")
        c = self._connections[key]
        if p.flags & RST or not p.flags & ACK:
            return self._ignore(f"flags {p.flags:#x}: {where}")
        if p.seq != c.rcv:
            return self._ignore(f"not the next, {c.rcv}: {where}")
        # A SYN+ACK is acknowledged by the handshake's ACK and nothing else opens the connection.
        if (p.ack - c.una) % MOD > (c.nxt - c.una) % MOD or (not c.established and p.ack != c.nxt):
            return self._ignore(f"acknowledges what was not sent, {c.una} to {c.nxt}: {where}")
        c.una, c.established = p.ack, True
        return self._accepted(c, p)

    def _accepted(self, c: Connection, p: Packet) -> list[bytes]:
        """Data and FIN of a segment that is the next one."""
        if not p.payload and not p.flags & FIN:
            return []
        c.rcv = (c.rcv + len(p.payload)) % MOD
        c.request += p.payload
        if p.flags & FIN:
            c.rcv = (c.rcv + 1) % MOD
            last = ACK if c.closing else FIN | ACK
            c.closing = True
            return [self._segment(c, p, last)]
        if not c.request.endswith(b"\n"):
            return [self._segment(c, p, ACK)]
        request, c.request = c.request, b""
        self.requests[p.sport].append(request)
        said, c.closing = answer(request, self.replica.name)
        size = self.replica.segments[p.sport % 2]
        pieces = [said[i : i + size] for i in range(0, len(said), size)]
        last = FIN | ACK | PSH if c.closing else ACK | PSH
        flags = [ACK] * (len(pieces) - 1) + [last]
        return [self._segment(c, p, f, piece) for f, piece in zip(flags, pieces, strict=True)]

    def _segment(self, c: Connection, p: Packet, flags: int, payload: bytes = b"") -> bytes:
        c.ident = (c.ident + 1) & 0xFFFF
        seq, c.nxt = c.nxt, (c.nxt + len(payload) + (flags & (SYN | FIN) != 0)) % MOD
        options = opt_mss(max(self.replica.segments)) if flags & SYN else b""
        return tcp_frame(
            p.dst, p.src, p.dport, p.sport, seq=seq, ack=c.rcv, flags=flags, payload=payload, options=options,
            window=self.replica.window, ident=c.ident, ttl=self.replica.ttl, vlans=p.vlans,
        )  # fmt: skip
