"""Events and records as the compare's kernel writes them, made by hand: words for `stages.compare.finding`."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stages.compare.finding import build
from stages.compare.layout import events, history, kept, reasons, records
from stages.packets.layout import parsed, transports
from tests.packets import P_TCP, P_UDP, PSH, SYN, Packet, read, tcp_frame, udp_frame

SERVER, CLIENT = "10.0.0.2", "10.0.0.1"
NOW = 5_000_000_000  # monotonic ns of the difference
MS = 1_000_000
WALL = 1_795_000_000_000_000_000  # what monotonic time 0 is, in ns since 1970


@dataclass
class Held:
    """A packet of a record; ``before_ms`` is how long before the difference it came."""

    frame: bytes
    side: int
    before_ms: float = 1.0
    held: bool = True
    at: int = -1


@dataclass
class Found:
    """A difference: what the kernel says, and what it kept."""

    reason: int
    packets: list[Held]
    position: int = 0
    windows: tuple[bytes, bytes] = (b"", b"")
    offset: int = 0
    lengths: tuple[int, int] | None = None
    number: int = 17
    left_out: int = 0
    of: Packet | None = field(default=None)  # the frame whose flow it is; default: the first packet's

    def event(self) -> Any:
        """The words of events.REASON and the rest."""
        e = np.zeros(events.WORDS, np.int64)
        e[events.REASON], e[events.POSITION], e[events.OFFSET] = self.reason, self.position, self.offset
        e[events.PRIMARY_LEN], e[events.SECONDARY_LEN] = self.lengths or tuple(len(x) for x in self.windows)
        e[events.TIME], e[events.RECORD] = NOW, 1
        for first, window in zip((events.PRIMARY_BYTES, events.SECONDARY_BYTES), self.windows, strict=True):
            cut = window[: events.SHOWN]
            e[first : first + 4].view(np.uint8)[: len(cut)] = list(cut)
        if flow := self.of or (read(self.packets[0].frame) if self.packets else None):
            e[events.CONN] = 4711
            kinds = {P_TCP: transports.TCP, P_UDP: transports.UDP, 1: transports.ICMP, 58: transports.ICMP}
            e[events.TRANSPORT] = transports.FRAGMENT if flow.fragment else kinds.get(flow.proto, transports.IP)
            e[events.KEY : events.KEY + parsed.KEY_WORDS] = key(flow)
        return e

    def record(self) -> Any:
        """The words of R_EVENT and the rest, as much as is in use."""
        body: list[Any] = []
        for p in self.packets:
            limit = kept.MOST_BYTES if p.held else history.KEPT_BYTES
            cut = p.frame[:limit]
            head = np.zeros(kept.HEADER, np.int64)
            head[kept.TIME], head[kept.SIDE] = NOW - int(p.before_ms * MS), p.side
            head[kept.KIND] = kept.HELD if p.held else kept.PASSED
            head[kept.LENGTH], head[kept.BYTES], head[kept.AT] = len(p.frame), len(cut), p.at
            body += [head, np.frombuffer(cut.ljust(-(-len(cut) // 8) * 8, b"\0"), np.int64)]
        head = np.zeros(records.HEADER, np.int64)
        whole = np.concatenate([head, *body])
        whole[records.EVENT], whole[records.PACKETS] = self.number, len(self.packets)
        whole[records.USED], whole[records.LEFT_OUT] = len(whole), self.left_out
        return whole


def content(found: Found) -> bytes:
    """The file that the compare would write."""
    return b"".join(build(found.event(), found.record(), WALL, compare_id="comp0", number=17))


def write(found: Found, path: Path) -> Path:
    """Write it; its path."""
    path.write_bytes(content(found))
    return path


def key(p: Packet) -> Any:
    """The six key words of a packet's flow."""
    words = np.zeros(parsed.KEY_WORDS, np.uint64)
    for first, text in ((parsed.SRC, p.src), (parsed.DST, p.dst)):
        number = int(ipaddress.ip_address(text))
        words[first], words[first + 1] = number >> 64, number & 0xFFFFFFFFFFFFFFFF
    words[parsed.PORTS] = p.proto << 32 | p.sport << 16 | p.dport
    words[parsed.VLAN] = p.version << 32
    return words.view(np.int64)


# --- scenes -------------------------------------------------------------------------------------------------------
ISN, ASKED = 0xFFFFFF00, 9_000  # the stream's numbers wrap
OPTIONS = b"\1\1\x08\x0a\0\0\0\1\0\0\0\2"
PAGE = (
    "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 07:34:{second}\x20GMT\r\nContent-Type: text/html\r\n"
    "Content-Length: 512\r\nConnection: keep-alive\r\n\r\n<!doctype html>\n<title>one of two replicas</title>\n"
)


def segment(at: int, data: bytes = b"", flags: int = PSH | 16, ack: int = 120, isn: int = ISN) -> bytes:
    """A segment from the server whose data begins at position ``at`` of its stream."""
    seq = isn if flags & SYN else isn + 1 + at
    return tcp_frame(
        SERVER, CLIENT, 80, 4711, seq=seq, ack=ASKED + ack, flags=flags, payload=data, options=OPTIONS
    )  # fmt: skip


def data_at(frame: bytes, offset: int = 0) -> int:
    """Offset in ``frame`` of byte ``offset`` of its payload."""
    return len(frame) - len(read(frame).payload) + offset


def tcp_difference(first: bytes, second: bytes, before: int = 300, cut: int = 0) -> Found:
    """Two answers that differ behind ``before`` bytes; the secondary sends ``cut`` of them in a segment of its own."""
    at = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    old = bytes(i % 251 for i in range(before))
    mine, theirs = segment(before, first), segment(before + cut, second[cut:])
    packets = [
        Held(segment(0, flags=SYN | 16, ack=1), 0, 31.5, held=False),
        Held(segment(0, flags=SYN | 16, ack=1, isn=77), 1, 31.25, held=False),
        Held(segment(0, ack=120, flags=16), 0, 28.5, held=False),
        Held(segment(0, old, ack=120), 0, 28.0, held=False),
        Held(segment(0, old[:200], ack=120), 1, 27.25, held=False),
        Held(segment(200, old[200:], ack=120), 1, 27.2, held=False),
        Held(mine, 0, 0.75, at=data_at(mine, at)),
        Held(theirs, 1, 0.0, at=data_at(theirs, at - cut)),
        Held(segment(before + len(first), flags=16, ack=240), 0, 0.25),
    ]
    if cut:
        packets.insert(-1, Held(segment(before, second[:cut]), 1, 0.1, held=False))
    start = max(at - 8, 0)
    windows = first[start:], second[start:]
    return Found(reasons.PAYLOAD, packets, before + at, windows, at - start)


def date() -> Found:
    """Two pages whose Date header is a second apart."""
    return tcp_difference(PAGE.format(second="31").encode(), PAGE.format(second="32").encode(), cut=17)


def flags() -> Found:
    """The primary ends the connection where the secondary goes on."""
    mine, theirs = segment(300, flags=17), segment(300, b"one more line\n")
    packets = [Held(mine, 0, 2.5, at=len(mine)), Held(theirs, 1, 0.0, at=data_at(theirs))]
    return Found(reasons.FLAGS, packets, 300, (b"", b"one more line\n"))


def order() -> Found:
    """Datagrams without an equal."""
    bodies = b"id 1 answer 10.9.8.7", b"id 1 answer 10.9.8.6"
    frames = [udp_frame(SERVER, CLIENT, 53, 4711, body) for body in bodies]
    packets = [
        Held(udp_frame(SERVER, CLIENT, 53, 4711, b"id 0 answer 10.9.8.1"), side, 90 - side, held=False)
        for side in range(2)
    ]
    packets += [Held(f, side, 50.5 - side, at=data_at(f, 19)) for side, f in enumerate(frames)]
    payload = [read(f).body for f in frames]
    return Found(reasons.ORDER, packets, 27, (payload[0][19:], payload[1][19:]), 8)


def timeout(marked: bool = True) -> Found:
    """A packet of the primary that the secondary never sends."""
    mine = segment(300, b"said by one only")
    packets = [Held(segment(0, bytes(300)), side, 4000 - side, held=False) for side in range(2)]
    packets.append(Held(mine, 0, 3000.5, at=data_at(mine) if marked else -1))
    return Found(reasons.TIMEOUT, packets, -1, lengths=(len(mine), 0))


def stuck() -> Found:
    """Both inputs blocked: no connection, no packets."""
    return Found(reasons.STUCK, [])


def everything() -> Sequence[Found]:
    """One of each."""
    return [date(), flags(), order(), timeout(), stuck()]
