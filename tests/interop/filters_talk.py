"""TCP conversations with a secondary behind a rewriter: each segment as it is sent, and as it has to come out.

What is right needs no model of a rewriter.  The client speaks with the primary's numbers, the guest with the
secondary's; behind the rewriter stands the segment that would have been built with the other's numbers.  Where QEMU
7.2 is known to give something else, the segment carries the name of the row of behaviour.md that says so.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, Final

from tests.packets import (
    ACK,
    FIN,
    MOD,
    PSH,
    RST,
    SYN,
    destination_options,
    hop_by_hop,
    opt_mss,
    opt_sack,
    opt_sack_permitted,
    opt_timestamp,
    tcp_frame,
)

_flows = itertools.count()
_GUEST: Final = {4: "10.0.0.1", 6: "2001:db8::1"}

IPV6: Final = "rewriter: IPv6"
TAGGED: Final = "rewriter: VLAN"
IP_OPTIONS: Final = "rewriter: IP options (checksum)"
SACK: Final = "rewriter: SACK blocks"
TIMESTAMPS: Final = "rewriter: timestamps"
BARE_RESET: Final = "rewriter: RST without ACK"
EARLY: Final = "rewriter: guest's segment before seq_offset is known"
SYN_AGAIN: Final = "rewriter: SYN sent again on a live connection"
GUEST_OPENED: Final = "rewriter: guest-opened connections"
SYN_UNSEEN: Final = "rewriter: SYN not seen"


@dataclass(frozen=True)
class Style:
    """How a conversation's frames look; ``row``: why QEMU does not rewrite them (or not rightly)."""

    name: str
    version: int = 4
    how: tuple[tuple[str, Any], ...] = ()
    sack: bool = False
    clocks: bool = False
    row: str | None = None


STYLES: Final = (
    Style("plain"),
    Style("padded", how=(("pad", True),)),
    Style("tos", how=(("tos", 0xB8), ("ttl", 1), ("ident", 0xFFFF))),
    Style("qinq", how=(("vlans", (5, 6)),)),
    Style("vlan", how=(("vlans", (5,)),), row=TAGGED),
    Style("ip options", how=(("ip_options", b"\x94\4\0\0"),), row=IP_OPTIONS),
    Style("ipv6", 6, row=IPV6),
    Style("ipv6 extended", 6, (("extensions", (hop_by_hop(), destination_options(16))),), row=IPV6),
    Style("sack", sack=True),
    Style("timestamps", clocks=True),
    Style("sack and timestamps", sack=True, clocks=True),
)
BY_NAME: Final = {style.name: style for style in STYLES}


@dataclass(frozen=True)
class Segment:
    """A frame that enters at ``port`` and has to leave as ``right``; ``row``: QEMU's leaves otherwise."""

    port: str
    sent: bytes
    right: bytes
    row: str | None = None

    @property
    def out(self) -> str:
        """Where it leaves."""
        return "guest" if self.port == "net" else "net"


class Talk:
    """One connection's frames: seq and ack count from the ISNs, ``numbers`` = client's, primary's, secondary's."""

    def __init__(
        self, numbers: tuple[int, int, int] = (1_000, 5_000, 70_000), style: Style = STYLES[0],
        clocks: tuple[int, int] = (900, 4_000_000_000),
    ) -> None:  # fmt: skip
        n = next(_flows)
        self.style, self.how, self.clocks = style, dict(style.how), clocks
        self.port = 1024 + n % 60_000
        high, low = divmod(n // 60_000, 250)
        self.host = f"198.18.{high}.{low + 1}" if style.version == 4 else f"2001:db8:1:{high}::{low + 1:x}"
        self.guest = _GUEST[style.version]
        self.client, self.primary, self.secondary = numbers
        self.spoilt: str | None = None
        self.tick = 0

    def up(
        self, flags: int, seq: int, ack: int = 0, payload: bytes = b"", *, edges: tuple[tuple[int, int], ...] = (),
        answer: bool = False, row: str | None = None, **how: Any,
    ) -> Segment:  # fmt: skip
        """What the client sends; ``edges`` are SACK blocks, counted as ``ack`` is; ``answer``: to the guest's SYN."""
        moved = flags & ACK and (answer or not flags & SYN)

        def build(isn: int, clock: int) -> bytes:
            options = self._options(flags, 77 + self.tick, clock + self.tick if flags & ACK else 0)
            if edges and self.style.sack:
                options += b"\1\1" + opt_sack(*((isn + left, isn + right) for left, right in edges))
            return tcp_frame(
                self.host, self.guest, self.port, 80, seq=self.client + seq, ack=isn + ack if flags & ACK else 0,
                flags=flags, payload=payload, options=options, **self.how | how,
            )  # fmt: skip

        sent = build(self.primary, self.clocks[0])
        right = build(self.secondary, self.clocks[1]) if moved else sent
        if edges and self.style.sack:
            row = row or SACK
        return self._segment("net", sent, right, row)

    def down(
        self, flags: int, seq: int, ack: int = 0, payload: bytes = b"", *, row: str | None = None,
        known: bool = True, **how: Any,
    ) -> Segment:  # fmt: skip
        """What the guest sends; ``known``: seq_offset is known, so that the peer sees the primary's numbers."""
        moved = flags & (ACK | RST) and not flags & SYN and known

        def build(isn: int, clock: int) -> bytes:
            options = self._options(flags, clock + self.tick, 77 + self.tick if flags & ACK else 0)
            return tcp_frame(
                self.guest, self.host, 80, self.port, seq=isn + seq, ack=self.client + ack if flags & ACK else 0,
                flags=flags, payload=payload, options=options, **self.how | how,
            )  # fmt: skip

        sent = build(self.secondary, self.clocks[1])
        right = build(self.primary, self.clocks[0]) if moved else sent
        if flags & RST and not flags & ACK:
            row = row or BARE_RESET
        return self._segment("guest", sent, right, row)

    def _options(self, flags: int, value: int, echo: int) -> bytes:
        options = opt_mss() if flags & SYN else b""
        if flags & SYN and self.style.sack:
            options += opt_sack_permitted() + b"\1\1"
        if self.style.clocks:
            options += b"\1\1" + opt_timestamp(value, echo)
        return options

    def _segment(self, port: str, sent: bytes, right: bytes, row: str | None) -> Segment:
        if self.spoilt or (row == EARLY and self.style.row in (None, IP_OPTIONS)):
            return Segment(port, sent, right, self.spoilt or row)
        if sent == right:
            return Segment(port, sent, right)
        if self.style.clocks and self.clocks[0] != self.clocks[1]:
            row = row or TIMESTAMPS
        return Segment(port, sent, right, self.style.row or row)

    def handshake(self) -> list[Segment]:
        """SYN, SYN+ACK, ACK."""
        return [self.up(SYN, 0), self.down(SYN | ACK, 0, 1), self.up(ACK, 1, 1)]


@dataclass
class Play:
    """A connection that is played step by step: what each side has sent, and what is over."""

    talk: Talk
    sent_up: int = 0
    sent_down: int = 0
    fins: int = 0
    is_open: bool = False
    over: bool = False

    OPS = (
        "up", "up", "down", "down", "ack up", "ack down", "again up", "again down", "both at once", "fin up",
        "fin down", "fins cross", "late", "reset up", "reset down", "bare reset up", "bare reset down",
        "answer again", "sack", "keepalive", "syn again", "reopen", "urgent", "crossed acks",
    )  # fmt: skip

    def do(self, op: str, size: int, numbers: tuple[int, int, int]) -> list[Segment]:
        """The segments of one step; the handshake first where there is no connection yet."""
        self.talk.tick += 1
        start = [] if self.is_open else self._open(size)
        at_up, at_down = self.sent_up + 1, self.sent_down + 1
        data = bytes((size * 31 + i) & 0xFF for i in range(size))
        t = self.talk
        if self.over and op != "reopen":
            op = "late"
        match op:
            case "up":
                self.sent_up += size
                return [*start, t.up(ACK | PSH, at_up, at_down, data)]
            case "down":
                self.sent_down += size
                return [*start, t.down(ACK | PSH, at_down, at_up, data)]
            case "both at once":
                self.sent_up, self.sent_down = self.sent_up + size, self.sent_down + size
                return [*start, t.up(ACK, at_up, at_down, data), t.down(ACK, at_down, at_up, data)]
            case "again up":
                return [*start, t.up(ACK, max(1, at_up - size), at_down, data)]
            case "again down":
                return [*start, t.down(ACK, max(1, at_down - size), at_up, data)]
            case "ack down":
                return [*start, t.down(ACK, at_down, at_up)]
            case "keepalive":
                return [*start, t.up(ACK, at_up - 1, at_down), t.down(ACK, at_down - 1, at_up)]
            case "urgent":
                return [*start, t.up(ACK | 32, at_up, at_down, data), t.down(ACK | 0xC0, at_down, at_up)]
            case "crossed acks":
                return [*start, t.up(ACK, at_up, max(1, at_down - size)), t.down(ACK, at_down, max(1, at_up - size))]
            case "sack":
                edges = ((at_down + 5, at_down + 9), (at_down + 20, at_down + 20 + size))
                return [*start, t.up(ACK, at_up, at_down, edges=edges)]
            case "answer again":
                return [*start, t.down(SYN | ACK, 0, 1), t.up(ACK, at_up, at_down)]
            case "fin up" if not self.fins & 1:
                return [*start, *self._fin_up()]
            case "fin down" if not self.fins & 2:
                return [*start, *self._fin_down()]
            case "fins cross" if not self.fins:
                self.fins, self.over = 3, True
                cross = [t.up(FIN | ACK, at_up, at_down), t.down(FIN | ACK, at_down, at_up)]
                self.sent_up, self.sent_down = self.sent_up + 1, self.sent_down + 1
                return [*start, *cross, t.down(ACK, at_down + 1, at_up + 1), t.up(ACK, at_up + 1, at_down + 1)]
            case "reset up" | "bare reset up":
                self.over = True
                return [*start, t.up(RST if "bare" in op else RST | ACK, at_up, at_down)]
            case "reset down" | "bare reset down":
                self.over = True
                return [*start, t.down(RST if "bare" in op else RST | ACK, at_down, at_up)]
            case "late":
                return [*start, t.up(ACK, at_up, at_down), t.down(ACK, at_down, at_up, data)]
            case "syn again":
                again = t.up(SYN, 0)
                if t.style.row is None or t.style.row == IP_OPTIONS:
                    t.spoilt = SYN_AGAIN
                return [*start, again, t.up(ACK, at_up, at_down), t.down(ACK, at_down, at_up)]
            case "reopen" if self.over:
                fresh = Play(replace_numbers(t, numbers))
                self.__dict__.update(fresh.__dict__)
                return self._open(size)
        return [*start, t.up(ACK, at_up, at_down)]

    def _fin_up(self) -> list[Segment]:
        fin = self.talk.up(FIN | ACK, self.sent_up + 1, self.sent_down + 1)
        self.sent_up, self.fins = self.sent_up + 1, self.fins | 1
        self.over = self.fins == 3
        return [fin, self.talk.down(ACK, self.sent_down + 1, self.sent_up + 1)]

    def _fin_down(self) -> list[Segment]:
        fin = self.talk.down(FIN | ACK, self.sent_down + 1, self.sent_up + 1)
        self.sent_down, self.fins = self.sent_down + 1, self.fins | 2
        self.over = self.fins == 3
        return [fin, self.talk.up(ACK, self.sent_up + 1, self.sent_down + 1)]

    def _open(self, variant: int) -> list[Segment]:
        """The handshake in its forms: plain, each part sent again, another ISN of the guest, early data, no SYN."""
        self.is_open, t = True, self.talk
        syn, answer = t.up(SYN, 0), t.down(SYN | ACK, 0, 1)
        match variant % 12:
            case 1:
                return [syn, syn, answer, t.up(ACK, 1, 1)]
            case 2:
                return [syn, answer, answer, t.up(ACK, 1, 1)]
            case 3:
                t.secondary = (t.secondary + 64_001) % MOD
                return [syn, answer, syn, t.down(SYN | ACK, 0, 1), t.up(ACK, 1, 1)]
            case 4:  # the ACK was lost on the way: the first data carry it
                self.sent_up = 5
                return [syn, answer, t.up(ACK | PSH, 1, 1, b"first")]
            case 5:
                early = t.down(ACK, 1, 1, b"early", row=EARLY, known=False)
                return [syn, answer, early, t.up(ACK, 1, 1)]
            case 6:
                if t.style.row is None or t.style.row == IP_OPTIONS:
                    t.spoilt = SYN_UNSEEN
                return [answer, t.up(ACK, 1, 1)]
        return [syn, answer, t.up(ACK, 1, 1)]


def replace_numbers(old: Talk, numbers: tuple[int, int, int]) -> Talk:
    """The next connection on the same addresses: no number is that of the one before."""
    before = (old.client, old.primary, old.secondary)
    fresh = Talk(tuple((n + 11) % MOD if n == b else n for n, b in zip(numbers, before, strict=True)), old.style)
    fresh.host, fresh.port, fresh.clocks = old.host, old.port, old.clocks
    return fresh


def untouched(port: str, frame: bytes) -> Segment:
    """A frame that a rewriter has nothing to do with."""
    return replace(Segment(port, frame, frame))
