"""The scripted client of a chain, and the scenarios that it plays.

A flow is a generator: it yields the frames that it sends, gets the next frame of its own, and returns its last frames.
Flows run side by side; what one does depends on its own frames alone, so its output is the same however the flows are
interleaved.  Each flow checks what it gets (content, numbers, checksums); the test compares it with the reference, byte
for byte.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.interop.chain_guest import ADDRESS, ADDRESS6, PORT, WHO, Replica, answer
from tests.packets import ACK, FIN, MOD, PSH, SYN, Packet, arp_frame, checksum_faults, icmp_frame, read, tcp_frame
from tests.packets import udp_frame as udp

Key = tuple[object, ...]
Flow = Generator[list[bytes], bytes, list[bytes]]
CLIENT: Final = "10.0.0.9"
AT_ONCE: Final = 4
_TOP: Final = MOD - 1


@dataclass(frozen=True)
class Numbers:
    """Initial sequence numbers of one connection."""

    client: int
    primary: int
    secondary: int


EDGES: Final = (
    Numbers(1_000, 5_000, 900_000),
    Numbers(2_000, _TOP - 15, 10),  # the primary's numbers wrap within an answer
    Numbers(3_000, 10, _TOP - 700),  # the secondary's do
    Numbers(4_000, _TOP, 0x7FFF_FFFF),  # the primary's first byte is number 0
    Numbers(5_000, 0, _TOP),
    Numbers(6_000, 0x8000_0000, 0),
    Numbers(7_000, 77_777, 77_777),  # the same by chance: seq_offset is 0
    Numbers(8_000, _TOP - 3_000, 123),  # an answer of 3,000 bytes ends with the last number
    Numbers(_TOP, 0x7FFF_FFFF, 0x8000_0000),  # the client's first byte is number 0
    Numbers(_TOP - 1, 1, _TOP - 1),
    Numbers(_TOP - 20, 0xDEAD_BEEF, 0x1234_5678),  # the client's wrap within the requests
)
TALKS: Final = (40_000, 41_000, 42_000)  # the first port of each of the three talks
DIVERGING: Final = 49_000
NUMBERS: Final = {
    **{first + i: numbers for first in TALKS for i, numbers in enumerate(EDGES)},
    DIVERGING: Numbers(9_000, _TOP - 40, 3_000_000_000),
}
PRIMARY: Final = Replica("primary", {p: n.primary for p, n in NUMBERS.items()}, (1000, 700), 0xFFF0, 64, 64_240)
SECONDARY: Final = Replica("secondary", {p: n.secondary for p, n in NUMBERS.items()}, (600, 1300), 0x100, 128, 65_160)


def flow_of(frame: bytes) -> Key:
    """By what a client tells its flows apart: seen from either end it is the same."""
    p = read(frame)
    if p.version == 0:
        return (int.from_bytes(frame[12:14], "big"),)
    return (p.vlans, p.proto, *sorted([(p.src, p.sport), (p.dst, p.dport)]))


def whole(frame: bytes) -> Packet:
    """A frame taken apart, after a look at its checksums."""
    assert checksum_faults(frame) == []
    return read(frame)


@dataclass
class Tcp:
    """One connection of the client: numbers, and what it sends."""

    port: int
    seq: int
    ack: int = 0
    ident: int = 0

    def send(self, flags: int, payload: bytes = b"") -> bytes:
        """The next segment."""
        self.ident += 1
        seq, self.seq = self.seq, (self.seq + len(payload) + (flags & (SYN | FIN) != 0)) % MOD
        return tcp_frame(
            CLIENT, ADDRESS, self.port, PORT, seq=seq, ack=self.ack, flags=flags, payload=payload, ident=self.ident
        )

    def take(self, frame: bytes) -> Packet:
        """A segment that is the next of the stream and acknowledges everything sent."""
        p = whole(frame)
        assert (p.seq, p.ack) == (self.ack, self.seq), f"port {self.port}"
        self.ack = (self.ack + len(p.payload) + (p.flags & (SYN | FIN) != 0)) % MOD
        return p


def tcp_flow(port: int, numbers: Numbers, requests: Sequence[bytes]) -> Flow:
    """Open, ask, close: a request with a blank is cut there into two segments, and the first one's ACK awaited."""
    c = Tcp(port, numbers.client)
    frame = yield [c.send(SYN)]
    c.ack = read(frame).seq
    assert c.take(frame).flags == SYN | ACK
    out, closed = [c.send(ACK)], False
    for request in requests:
        head, blank, tail = request.partition(b" ")
        if blank:
            assert c.take((yield [*out, c.send(ACK | PSH, head + blank)])).flags == ACK
            out = []
        out.append(c.send(ACK | PSH, tail or head))
        said, closed = answer(request, PRIMARY.name)
        got = b""
        while len(got) < len(said):
            p = c.take((yield out))
            got, out = got + p.payload, [c.send(ACK)]
        assert got == said
        assert bool(p.flags & FIN) == closed
    assert c.take((yield [*out, c.send(FIN | ACK)])).flags == (ACK if closed else FIN | ACK)
    return [] if closed else [c.send(ACK)]


def udp_flow(port: int, payloads: Sequence[bytes], *, vlans: Sequence[int] = (), v6: bool = False) -> Flow:
    """Datagrams, one after the other, each echoed in reverse (`WHO`: with the primary's name)."""
    here, there = ("fd00::9", ADDRESS6) if v6 else (CLIENT, ADDRESS)
    for i, payload in enumerate(payloads):
        p = whole((yield [udp(here, there, port, 7, payload, vlans=vlans, ident=i)]))
        expected = PRIMARY.name.ljust(64, ".").encode() if payload == WHO else payload[::-1]
        assert (p.payload, p.vlans) == (expected, tuple(vlans))
    return []


def ping_flow(here: str, count: int) -> Flow:
    """Pings, one after the other."""
    there = ADDRESS6 if ":" in here else ADDRESS
    for i in range(count):
        data = b"%d." % i * (1 + 30 * i)
        p = whole((yield [icmp_frame(here, there, ident=9, number=i, data=data)]))
        assert p.body[0] == (129 if ":" in here else 0)
        assert p.body[6:] == i.to_bytes(2, "big") + data
    return []


def arp_flow() -> Flow:
    """Who has the guest's address?"""
    frame = yield [arp_frame(CLIENT, ADDRESS)]
    assert frame[20:22] == b"\0\2"
    return []


def talk(first: int) -> Iterator[Flow]:
    """A bit of everything: TCP at the edges of 2^32, both ways to close; UDP, ICMP, IPv6, a VLAN, ARP."""
    asks = [b"get 3000\n", b"get 1\n", b"get 4321\n"]
    for port, numbers in enumerate(EDGES, first):
        yield tcp_flow(port, numbers, [*asks, b"bye 1500\n"] if port % 2 else asks)
    yield udp_flow(first, [bytes([i]) * size for i, size in enumerate((1, 17, 512, 1472))])
    yield udp_flow(first + 1, [bytes(range(256)) * 20, b"", b"odd"])
    yield udp_flow(first + 2, [b"in a VLAN", b"still"], vlans=(42,))
    yield udp_flow(first + 3, [b"six", b"and again"], v6=True)
    yield from (ping_flow(here, 4) for here in (CLIENT, "10.0.0.10", "10.0.0.11", "fd00::9"))
    yield arp_flow()


def diverging_tcp() -> Iterator[Flow]:
    """The replicas answer `WHO` differently; what follows on the connection is compared again."""
    yield tcp_flow(DIVERGING, NUMBERS[DIVERGING], [b"get 2000\n", WHO, b"get 2500\n"])


def diverging_udp() -> Iterator[Flow]:
    """The same with a datagram."""
    yield udp_flow(DIVERGING, [b"before", WHO, b"after"])


def farewell() -> Iterator[Flow]:
    """One echo: whatever came too often before has come out when this has."""
    yield udp_flow(DIVERGING + 1, [b"the last one"])


@dataclass
class Client:
    """Plays flows, a few side by side.  `start` and `take` return frames to send; AssertionError on a stray frame.

    A few, because QEMU's compare turns the order round of what its outdev does not take at once (50 to 60 segments fill
    a unix socket whose reader has no processor): then its output is nothing to compare with.
    """

    flows: Iterator[Flow]
    received: dict[Key, list[bytes]] = field(default_factory=dict)
    sent: int = 0
    _open: dict[Key, Flow] = field(default_factory=dict)

    def start(self) -> list[bytes]:
        """The first frames of the first flows."""
        first = [frame for flow in itertools.islice(self.flows, AT_ONCE) for frame in self._begin(flow)]
        self.sent += len(first)
        return first

    def _begin(self, flow: Flow) -> list[bytes]:
        frames = next(flow)
        self._open[flow_of(frames[0])] = flow
        return frames

    def take(self, frame: bytes) -> list[bytes]:
        """One frame from the network."""
        key = flow_of(frame)
        assert key in self._open, f"the client has no such flow: {key}"
        self.received.setdefault(key, []).append(frame)
        try:
            frames = self._open[key].send(frame)
        except StopIteration as end:
            del self._open[key]
            frames = [*end.value, *(frame for flow in itertools.islice(self.flows, 1) for frame in self._begin(flow))]
        self.sent += len(frames)
        return frames

    @property
    def waiting(self) -> list[Key]:
        """Flows that are not at their end."""
        return list(self._open)
