"""Random scenes for the compare: what two replicas send, cut, repeated and shuffled in different ways."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import strategies as st

from tests.packets import ACK, FIN, MOD, PSH, RST, SYN, tcp_frame, udp_frame

SERVER, CLIENT = "10.0.0.2", "10.0.0.1"
ISNS = st.sampled_from([0, 1, 0x7FFFFFF0, 0x7FFFFFFF, 0x80000000, MOD - 1, MOD - 2, MOD - 20]) | st.integers(0, MOD - 1)


@dataclass(frozen=True)
class Flow:
    """What both sides send for one flow, in their order; ``bad`` is the position that differs (or -1)."""

    primary: tuple[bytes, ...]
    secondary: tuple[bytes, ...]
    data: bytes = b""
    isn: int = 0
    bad: int = -1
    port: int = 0


@dataclass
class Scene:
    """Flows, and in which order their packets come: True takes the primary's next."""

    flows: list[Flow]
    order: list[tuple[int, bool]] = field(default_factory=list)

    def arrivals(self) -> list[tuple[str, bytes]]:
        """(port, frame), each side of each flow in its own order."""
        ways = {(i, True): iter(f.primary) for i, f in enumerate(self.flows)}
        ways |= {(i, False): iter(f.secondary) for i, f in enumerate(self.flows)}
        return [("primary_in" if first else "secondary_in", next(ways[i, first])) for i, first in self.order]


def segment(port: int, seq: int, ack: int, data: bytes = b"", flags: int = ACK) -> bytes:
    """A segment from the server."""
    return tcp_frame(SERVER, CLIENT, 80, port, seq=seq % MOD, ack=ack % MOD, flags=flags, payload=data)


@st.composite
def _cuts(draw: st.DrawFn, size: int) -> list[tuple[int, int]]:
    marks = sorted({0, size, *draw(st.lists(st.integers(0, size), max_size=6))})
    return list(pairwise(marks))


def _repeat_and_shuffle(draw: st.DrawFn, parts: list[tuple[int, int]], size: int, reach: int) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    done = 0
    for part in parts:
        out.append(part)
        done = max(done, part[1])
        if done and draw(st.integers(0, 3)) == 0:  # sent again, cut anew
            first = draw(st.integers(0, done - 1))
            out.append((first, draw(st.integers(first + 1, done))))
    ranks = [i + draw(st.integers(0, reach)) for i in range(len(out))]
    return [part for _, part in sorted(zip(ranks, out, strict=True), key=lambda both: both[0])]


@st.composite
def tcp_flow(draw: st.DrawFn, port: int, differs: bool, ends: bool = True) -> Flow:
    """A connection's server side, from SYN+ACK on."""
    size = draw(st.integers(1, 40))
    data = bytes((7 * i + port) % 251 for i in range(size))
    isn, other, client = draw(ISNS), draw(ISNS), draw(ISNS)
    bad = draw(st.integers(0, size - 1)) if differs else -1
    fin = ends and not differs and draw(st.booleans())
    reset = ends and not differs and not fin and draw(st.integers(0, 4)) == 0
    asked = draw(st.integers(0, 50))  # bytes of the client that both acknowledge in the end

    def side(first: int, content: bytes, reach: int) -> tuple[bytes, ...]:
        frames = [segment(port, first, client + 1, flags=SYN | ACK)]
        if draw(st.integers(0, 5)) == 0:
            frames.append(frames[0])
        parts = _repeat_and_shuffle(draw, draw(_cuts(size)), size, reach)
        acks = sorted(draw(st.integers(0, asked)) for _ in parts)
        for (a, b), ack in zip(parts, acks, strict=True):
            last = FIN if fin and b == size and draw(st.booleans()) else 0
            frames.append(segment(port, isn + 1 + a, client + 1 + ack, content[a:b], ACK | PSH | last))
            kind = draw(st.integers(0, 7))
            if kind == 0:
                frames.append(segment(port, isn + 1 + b, client + 1 + ack))
            elif kind == 1:
                frames.append(segment(port, isn + a, client + 1 + ack))  # a keepalive, one byte back
        if fin:
            frames.append(segment(port, isn + 1 + size, client + 1 + asked, flags=FIN | ACK))
        if reset:
            frames.append(segment(port, isn + 1 + size, client + 1 + asked, flags=RST | ACK))
        frames.append(segment(port, isn + 1 + size + fin, client + 1 + asked))
        return tuple(frames)

    wrong = data if bad < 0 else data[:bad] + bytes([data[bad] ^ 0x55]) + data[bad + 1 :]
    return Flow(side(isn, data, 0), side(other, wrong, 3), data, isn, bad, port)


@st.composite
def udp_flow(draw: st.DrawFn, port: int) -> Flow:
    """Datagrams that the secondary sends in another order; some are equal, some are empty."""
    bodies = draw(st.lists(st.sampled_from([b"", b"a", b"b", b"aa", b"longer than that"]), min_size=1, max_size=8))
    mine = [udp_frame(SERVER, CLIENT, 53, port, body, ident=i) for i, body in enumerate(bodies)]
    theirs = [udp_frame(SERVER, CLIENT, 53, port, body, ttl=9) for body in draw(st.permutations(bodies))]
    return Flow(tuple(mine), tuple(theirs), port=port)


@st.composite
def scenes(draw: st.DrawFn, differs: bool = False, udp: bool = True) -> Scene:
    """One to three flows, of which the first is TCP and differs if that is asked for."""
    flows = [draw(tcp_flow(4000, differs))]
    for i in range(draw(st.integers(0, 2))):
        kind = draw(st.booleans()) and udp
        flows.append(draw(udp_flow(5000 + i)) if kind else draw(tcp_flow(5000 + i, False)))
    tickets = [(i, True) for i, f in enumerate(flows) for _ in f.primary]
    tickets += [(i, False) for i, f in enumerate(flows) for _ in f.secondary]
    return Scene(flows, draw(st.permutations(tickets)))
