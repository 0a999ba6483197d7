"""Frames that are almost right: seeds of every kind that the kernels read, broken in the ways that break parsers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from stages.capture import reader as captures
from tests import packets as p
from tests import tunnels as t
from tests.packets import ACK, FIN, PSH, RST, SYN

SAMPLES: Final = Path(__file__).resolve().parents[2] / "samples"
SERVER, CLIENT, SERVER6, CLIENT6 = "10.0.0.2", "10.0.0.1", "fd00::2", "fd00::1"
EDGES: Final = (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 19, 20, 21, 39, 40, 41, 60, 127, 128, 255)
WORDS: Final = (
    0, 1, 7, 8, 0x1FFF, 0x2000, 0x3FFF, 0x7FFF, 0x8000, 0x8100, 0x86DD, 0x88A8, 0x0800, 0xFFF8, 0xFFFF,
    0x8864, 0x8847, 0x6558, 4789, 6081, 8472,
)  # fmt: skip
NUMBERS: Final = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def seeds() -> list[bytes]:
    """Good frames: TCP with every flag and option, UDP, ICMP with errors, IPv6, tags, fragments, ARP, tunnels."""
    options = p.opt_mss() + p.opt_sack_permitted() + p.opt_timestamp(7, 9)
    sack = p.opt_timestamp(1, 2) + p.opt_sack((10, 20), (30, 40), (50, 60))
    made = []
    for src, dst in ((SERVER, CLIENT), (CLIENT, SERVER), (SERVER6, CLIENT6), (CLIENT6, SERVER6)):
        for flags in (SYN, SYN | ACK, ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, 0):
            for vlans in ((), (5,), (5, 6)):
                data = b"payload" * (flags & (ACK | PSH) == ACK | PSH)
                made.append(
                    p.tcp_frame(src, dst, 80, 4000, seq=1000, ack=5000, flags=flags, payload=data, vlans=vlans,
                                options=options if flags & SYN else sack)
                )  # fmt: skip
        too_big = (2, 0) if ":" in src else (3, 4)
        made.append(p.icmp_error(dst, p.tcp_frame(src, dst, 80, 4000, seq=1000, ack=5000, options=sack), too_big))
        made.append(p.udp_frame(src, dst, 53, 4000, b"answer" * 9))
        made.append(p.icmp_frame(src, dst, data=b"ping" * 5))
    extended = [p.hop_by_hop(), p.destination_options(16)]
    body = p.tcp(SERVER6, CLIENT6, 80, 4000, seq=1000, ack=5000, payload=b"behind headers")
    made.append(p.ether(p.ipv6(SERVER6, CLIENT6, p.P_TCP, body, extensions=extended), p.IPV6))
    for src, dst in ((SERVER, CLIENT), (SERVER6, CLIENT6)):
        made += p.fragments(src, dst, p.P_UDP, p.udp(src, dst, 53, 4000, bytes(2000)), 800)
    inside = [p.tcp_frame(SERVER, CLIENT, 80, 4000, seq=1000, ack=5000, payload=b"inside" * 9, options=sack),
              p.tcp_frame(SERVER6, CLIENT6, 80, 4000, seq=1000, ack=5000, flags=SYN | ACK, options=options),
              *p.fragments(SERVER, CLIENT, p.P_UDP, p.udp(SERVER, CLIENT, 53, 4000, bytes(300)), 200)]  # fmt: skip
    for frame in inside:
        made += [t.vxlan(frame), t.geneve(frame, options=bytes(8)), t.gre(frame, key=1, summed=True), t.ip_in_ip(frame)]
        made += [
            p.in_pppoe(frame, 7),
            p.in_pppoe(frame, 7, short=True),
            p.long_frame(frame),
            t.vxlan(p.long_frame(frame)),
        ]
    made += [
        p.tcp_frame(SERVER, CLIENT, 80, 4000, seq=1000, ack=5000, vlans=vlans) for vlans in ((1, 2, 3), (1, 2, 3, 4))
    ]
    made += [p.arp_frame(SERVER, CLIENT), bytes(14), bytes(60), b""]
    return made


def recorded(limit: int = 400) -> list[bytes]:
    """Frames of the session in samples/, real stacks' frames."""
    found: list[bytes] = []
    for name in ("primary", "secondary", "client"):
        path = str(SAMPLES / f"{name}.pcapng")
        data = captures.load(path)
        spans = list(captures.walk(data, path))
        found += [data[s.start : s.start + s.length] for s in spans[:: max(1, len(spans) // limit)]]
    return found


class Mutator:
    """An endless stream of frames from ``seeds``, the same for the same ``seed``."""

    def __init__(self, seed: int, frames: list[bytes]) -> None:
        self._random, self._frames = random.Random(seed), frames

    def burst(self, count: int) -> list[bytes]:
        """``count`` frames: picked anywhere, or a piece of a conversation in its order with a few broken frames."""
        rnd = self._random
        if rnd.random() < 0.5:
            return [self.one() for _ in range(count)]
        at = rnd.randrange(len(self._frames))
        piece = [self._frames[(at + i) % len(self._frames)] for i in range(count)]
        for i in range(count):
            if rnd.random() < 0.1:
                frame = bytearray(piece[i])
                self._break(frame, rnd)
                piece[i] = bytes(frame)
        return piece

    def one(self) -> bytes:
        """The next frame: one in eight is as good as its seed."""
        rnd = self._random
        frame = bytearray(rnd.choice(self._frames))
        for _ in range(rnd.choice((0, 1, 1, 1, 2, 2, 3, 6))):
            self._break(frame, rnd)
        return bytes(frame)

    def _break(self, frame: bytearray, rnd: random.Random) -> None:
        kind = rnd.randrange(8)
        size = len(frame)
        if kind == 0:
            del frame[rnd.randrange(size + 1) :]
        elif kind == 1:
            frame += bytes(rnd.choice(EDGES))
        elif kind == 2 and size:
            other = rnd.choice(self._frames)
            at = rnd.randrange(size)
            frame[at:] = other[at:]
        elif kind == 3 and size:
            frame[rnd.randrange(size)] ^= 1 << rnd.randrange(8)
        elif kind == 4 and size:
            frame[rnd.randrange(min(size, 80))] = rnd.choice(EDGES)
        elif kind == 5 and size > 2:
            at = rnd.randrange(min(size - 1, 80))
            frame[at : at + 2] = rnd.choice(WORDS).to_bytes(2, "big")
        elif kind == 6 and size > 50:
            at = rnd.randrange(34, min(size - 3, 60))
            frame[at : at + 4] = rnd.choice(NUMBERS).to_bytes(4, "big")
        elif kind == 7 and size > 42:  # among a few flows, so that they meet
            frame[min(37, size - 1)] = rnd.randrange(4)
