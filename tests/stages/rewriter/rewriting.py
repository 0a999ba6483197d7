"""A connection's segments through the rewriter, for its tests."""

from __future__ import annotations

from collections.abc import Callable

from tests.packets import ACK, MOD, SYN, tcp_frame
from tests.rig import Rig
from tests.tunnels import read_inside

V4 = ("198.51.100.9", "10.0.0.1")
V6 = ("2001:db8::9", "2001:db8::1")
CLIENT, PRIMARY, SECONDARY = 1_000, 5_000, 70_000
OFFSET = SECONDARY - PRIMARY


class Flow:
    """A client's connection through the rewriter: numbers are given as offsets from the ISNs.

    ``wrap``: what every frame is put into.
    """

    def __init__(
        self,
        rig: Rig,
        port: int = 40_000,
        hosts: tuple[str, str] = V4,
        isns: tuple[int, int, int] | None = None,
        wrap: Callable[[bytes], bytes] = bytes,
        **how,
    ) -> None:
        self.rig, self.hosts, self.how, self.port, self.wrap = rig, hosts, how, port, wrap
        self.client, self.primary, self.secondary = isns or (CLIENT, PRIMARY, SECONDARY)

    def tx(self, flags: int, seq: int, ack: int = 0, payload: bytes = b"", **how) -> bytes:
        """What the client sends; ``ack`` counts from the primary's ISN."""
        numbers_ = {"seq": self.client + seq, "ack": self.primary + ack if flags & ACK else 0}
        how = {**self.how, **how}
        return self.wrap(tcp_frame(*self.hosts, self.port, 80, flags=flags, payload=payload, **numbers_, **how))

    def rx(self, flags: int, seq: int, ack: int = 0, payload: bytes = b"", isn: int | None = None, **how) -> bytes:
        """What the guest sends; ``seq`` counts from ``isn`` (the secondary's)."""
        start = self.secondary if isn is None else isn
        numbers_ = {"seq": start + seq, "ack": self.client + ack if flags & ACK else 0}
        hosts, how = self.hosts[::-1], {**self.how, **how}
        return self.wrap(tcp_frame(*hosts, 80, self.port, flags=flags, payload=payload, **numbers_, **how))

    def send(self, frame: bytes, port: str = "tx") -> bytes:
        """Pass one frame; what comes out."""
        self.rig.feed(f"{port}_in", frame)
        self.rig.run(now=1)
        (out,) = self.rig.take(f"{port}_out")
        return out

    def inbound(self, flags: int, seq: int, ack: int = 0, payload: bytes = b"", **how) -> tuple[bytes, bytes]:
        """Pass a client's segment: (before, after)."""
        frame = self.tx(flags, seq, ack, payload, **how)
        return frame, self.send(frame, "tx")

    def outbound(self, flags: int, seq: int, ack: int = 0, payload: bytes = b"", **how) -> tuple[bytes, bytes]:
        """Pass a guest's segment: (before, after)."""
        frame = self.rx(flags, seq, ack, payload, **how)
        return frame, self.send(frame, "rx")

    def open(self) -> Flow:
        """The three-way handshake."""
        self.inbound(SYN, 0)
        self.outbound(SYN | ACK, 0, 1)
        self.inbound(ACK, 1, 1)
        return self

    def guest_open(self) -> Flow:
        """The three-way handshake of a connection that the guest opens."""
        self.outbound(SYN, 0)
        self.inbound(SYN | ACK, 0, 1)
        self.outbound(ACK, 1, 1)
        return self

    def offset_in(self) -> int:
        """How far an inbound ACK is moved now."""
        before, after = self.inbound(ACK, 1, 1)
        return (read_inside(after).ack - read_inside(before).ack) % MOD


def check_balances(r: Rig) -> None:
    """Every conservation law of the kind holds."""
    counters = r.counters()
    for law in r.kind.balances:
        assert sum(counters[n] for n in law.left) == sum(counters[n] for n in law.right), law.label
