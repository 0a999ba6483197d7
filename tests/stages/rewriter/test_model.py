"""filter-rewriter against its oracle frame by frame, and against two servers and a client."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ring import layout
from stages.packets.layout import rows, table
from stages.rewriter.layout import conns, tables
from tests.oracle.rewriter import Rewriter as Oracle
from tests.oracle.rewriter import serial
from tests.packets import (
    ACK,
    FIN,
    MOD,
    PSH,
    RST,
    SYN,
    Packet,
    checksum_faults,
    fragments,
    in_pppoe,
    opt_sack,
    opt_timestamp,
    read,
    tcp_frame,
)
from tests.rig import Rig
from tests.stages.rewriter.rewriting import V4, V6, check_balances
from tests.tunnels import ENDS, ENDS6, geneve, gre, inner_faults, ip_in_ip, vxlan

isns = st.sampled_from([0, 1, 2, MOD - 1, MOD - 2, MOD - 40, MOD // 2, MOD // 2 - 1]) | st.integers(0, MOD - 1)

# --- random segments, frame by frame against the oracle -----------------------------------------------------------
HOSTS = (V4, V6, (V4[0], "10.0.0.2"))
FLAGS = (SYN, SYN | ACK, ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, SYN | FIN, SYN | RST, FIN, 0)
USUAL = (SYN, SYN | ACK, ACK, ACK, ACK | PSH, FIN | ACK)

# Few values, so that a new connection often has an ISN of the one before.
flow_numbers = st.tuples(
    st.sampled_from([0, MOD - 1, 800_000]),
    st.sampled_from([0, 9, MOD - 3]) | isns,
    st.sampled_from([0, MOD - 2]) | isns,
)
places = st.sampled_from([0, 1, 1, 1, 2, 3, 11, 12, 70_000, -1])
lone = st.tuples(
    st.just("segment"), st.booleans(), st.sampled_from(USUAL) | st.sampled_from(FLAGS), places, places,
    st.sampled_from([0, 0, 1, 10]),
)  # fmt: skip
# RSTs and FINs with any number, and at both ends of what counts (the guest has acknowledged up to 1, as a rule).
wild = st.tuples(
    st.just("segment"), st.sampled_from([True, True, False]), st.sampled_from([RST, RST | ACK, FIN | ACK]),
    st.sampled_from([0, 1, (1 << 20) + 1, (1 << 20) + 2, MOD // 2]) | st.integers(0, MOD - 1),
    places | st.integers(0, MOD - 1), st.just(0),
)  # fmt: skip
event = st.tuples(st.sampled_from(["checkpoint", "checkpoint", "failover", "off", "on", "restart", "isn", "isn"]))


def step(inbound: bool, flags: int, seq: int, ack: int, size: int = 0) -> tuple[object, ...]:
    """A segment; seq and ack count from the ISNs."""
    return ("segment", inbound, flags, seq, ack, size)


START = [step(True, SYN, 0, 0), step(False, SYN | ACK, 0, 1), step(True, ACK, 1, 1)]
DATA = [step(True, ACK | PSH, 1, 1, 10), step(False, ACK | PSH, 1, 11, 10)]
END = [step(True, FIN | ACK, 11, 11), step(False, FIN | ACK, 11, 12), step(True, ACK, 12, 12)]
ABORT = [step(False, RST, 1, 0)]
GUEST = [step(False, SYN, 0, 0), step(True, SYN | ACK, 0, 1), step(False, ACK, 1, 1)]
BOTH = [step(False, SYN, 0, 0), step(True, SYN, 0, 0), step(False, SYN | ACK, 0, 1), step(True, SYN | ACK, 0, 1)]
LATE = [BOTH[1], BOTH[0], BOTH[3], BOTH[2]]
REFUSED = [step(False, SYN, 0, 0), step(True, RST | ACK, 0, 1)]
STALE = [step(False, SYN, 0, 0), step(True, ACK, 7, 9), step(False, RST, 8, 0)]
EARLY = [step(False, SYN, 0, 0, 10), step(False, SYN, 0, 0), step(True, SYN | ACK, 0, 11), step(False, ACK, 11, 1)]
BLIND = [step(True, RST, (1 << 20) + 2, 0), step(True, FIN | ACK, MOD - 70_000, 11)]
NEW: list[tuple[object, ...]] = [("isn",)]
scripts = st.sampled_from(
    [START, START + DATA, START + DATA + END, END, DATA, ABORT, START[:2], START[:1] + ABORT, START[:2] + ABORT + START,
     NEW + START,
     NEW + START[1:] + DATA, NEW + START[:2], START + NEW + START + DATA, START + END + NEW + START + DATA,
     GUEST, GUEST[:1], GUEST[:2], GUEST + DATA, GUEST + DATA + END, BOTH, LATE, BOTH + DATA + END, LATE + DATA,
     REFUSED + NEW + GUEST, STALE + GUEST, NEW + GUEST + DATA, START + NEW + GUEST + DATA, GUEST + NEW + START + DATA,
     GUEST + END + NEW + GUEST + DATA, START + DATA + BLIND + END, START[:2] + BLIND + START[2:] + DATA, EARLY,
     EARLY[:1] + START, START + EARLY, EARLY + NEW + GUEST, EARLY[:1] + NEW + EARLY]
)  # fmt: skip


def of_flow(many: list[tuple[object, ...]]) -> st.SearchStrategy[list[tuple[int, tuple[object, ...]]]]:
    """The same flow, and the same kind of TCP options, for all of a script."""
    flows = st.sampled_from([0, 0, 0, 1, 2, 3])
    return st.tuples(flows, st.integers(0, 5)).map(lambda both: [(both[0], (*one, both[1])) for one in many])


def options(style: int, value: int, echo: int, edge: int) -> bytes:
    """TCP options: none, timestamps at an even or an odd place, SACK blocks, both, a list that cannot be read on."""
    ts, blocks = opt_timestamp(value, echo), opt_sack((edge, edge + 5), (edge + 9, edge + 30))
    return (b"", b"\1\1" + ts, b"\1" + ts, b"\1\1\1" + blocks, ts + blocks, ts + b"\5\x20\1\2")[style]


single = st.one_of(lone, wild, event).map(lambda one: [one])
steps = st.lists(st.one_of(single, single, scripts).flatmap(of_flow), max_size=15).map(
    lambda many: [one for some in many for one in some]
)


def build(flow: int, numbers: tuple[int, int, int], way: bool, *step: int, network: int = 1) -> bytes:
    """The frame of a segment step; flow 3 shares hosts with flow 0 but is in another network, of so many kinds."""
    client, primary, secondary = numbers
    flags, seq, ack, size, style = step
    guest, peer = HOSTS[flow % 3][1], HOSTS[flow % 3][0]
    how = {
        "flags": flags,
        "payload": b"p" * size,
        "vlans": ((), (5,), (5, 6, 7))[network] if flow == 3 and network < 3 else (),
    }
    # The replicas' clocks: some wrap, and those of equal ISNs differ.
    clocks = (primary + 77_000, secondary - 3 + seq % 2)
    how["options"] = (
        options(style, 55, clocks[0] + ack, primary + 100) if way else options(style, clocks[1], 55, client)
    )
    if way:
        return tcp_frame(peer, guest, 40_000, 80, seq=client + seq, ack=primary + ack if flags & ACK else 0, **how)
    return tcp_frame(guest, peer, 80, 40_000, seq=secondary + seq, ack=client + ack if flags & ACK else 0, **how)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(flow_numbers, min_size=4, max_size=4),
    st.lists(flow_numbers, min_size=1, max_size=6),
    steps,
    st.booleans(),
    st.sampled_from([0, 0, 0, 24, 40]),
    st.integers(1, 8),
)
def test_frame_by_frame_as_the_oracle(
    flows: list[tuple[int, int, int]], spare: list[tuple[int, int, int]], todo: list[tuple[int, tuple[object, ...]]],
    singly: bool, cut: int, network: int,
) -> None:  # fmt: skip
    """Any interleaving of segments, events and new incarnations: the same bytes, the same counts, right checksums.

    ``singly``: a burst for each segment, after which states have moved only as they may.  ``cut``: segments come as
    IP fragments of so many bytes.  ``network``: what one of the flows is inside of.
    """
    oracle, flows, spare = Oracle(), list(flows), list(spare)
    with Rig("filter-rewriter", {"max_connections": 16}) as rig:
        batch: list[tuple[bool, bytes]] = []
        moved = states(rig)

        def flush() -> None:
            nonlocal moved
            for way, frame in batch:
                rig.feed("tx_in" if way else "rx_in", frame)
            rig.run(now=1)
            got = rig.take("tx_out") + rig.take("rx_out")
            expected = [oracle.inbound(f) if way else oracle.outbound(f) for way, f in batch]
            assert got == expected
            assert not any(checksum_faults(f) + inner_faults(f) for f in got)
            before, moved = moved, states(rig)
            if singly:
                moves = {(before[key], state) for key, state in moved.items() if before.get(key, state) != state}
                assert moves <= set(conns.STATE_MOVES)
            batch.clear()

        for flow, (kind, *rest) in todo:
            if kind == "segment":
                way = bool(rest[0])
                if batch and batch[-1][0] != way:
                    flush()  # a burst takes inbound first: one direction a burst keeps the oracle's order
                frame = build(flow, flows[flow], way, *rest[1:], network=network)  # type: ignore[arg-type]
                pieces = in_fragments(frame, cut) if cut else [frame]
                batch += [(way, wrapped(piece, way, network) if flow == 3 else piece) for piece in pieces]
                if singly:
                    flush()
                continue
            flush()
            apply(rig, oracle, str(kind))
            if kind == "isn":
                spare.append(flows[flow])
                flows[flow] = spare.pop(0)
        flush()
        counters = rig.counters()
        for name, value in (
            ("rewritten_in", oracle.rewritten_in), ("rewritten_out", oracle.rewritten_out),
            ("connections", oracle.open_now), ("connections_opened", oracle.opened),
            ("connections_closed", oracle.closed), ("connections_reset", oracle.reset),
            ("connections_replaced", oracle.replaced),
        ):  # fmt: skip
            assert counters[name] == value, name
        if not oracle.alone:  # else the row of a connection left alone is not in the oracle
            assert counters["connections_untracked"] == oracle.untracked
        check_balances(rig)


def wrapped(frame: bytes, way: bool, network: int) -> bytes:
    """The frame in the network of flow 3."""
    ends = ENDS if way else ENDS[::-1]
    match network:
        case 3:
            return in_pppoe(frame, 7, short=way)
        case 4:
            return vxlan(frame, ends=ends, sport=50_000 + way)
        case 5:
            return geneve(frame, ends=ends, options=bytes(4 * way))
        case 6:
            return gre(frame, key=9, summed=True, ends=ends)
        case 7:
            return ip_in_ip(frame, ends=ends)
        case 8:
            return in_pppoe(vxlan(frame, ends=ENDS6 if way else ENDS6[::-1]), 7)
    return frame


def states(rig: Rig) -> dict[tuple[int, ...], int]:
    """The state of each row, by its key."""
    w, at, found = rig.segment.w, tables.TABLE_AT, {}
    for row in range(int(w[at + table.ROWS]), int(w[at + table.ROWS]) + 16 * conns.WORDS, conns.WORDS):
        if w[row + rows.LIVE]:
            found[tuple(w[row : row + 6].tolist())] = int(w[row + conns.STATE])
    return found


def in_fragments(frame: bytes, size: int) -> list[bytes]:
    """The frame's datagram in fragments of ``size`` bytes."""
    p = read(frame)
    return fragments(p.src, p.dst, p.proto, p.body, size, vlans=p.vlans)


def apply(rig: Rig, oracle: Oracle, kind: str) -> None:
    """An event on both sides; it is taken before the next segment."""
    if kind == "checkpoint":
        rig.command(layout.CMD_CHECKPOINT, int(rig.segment.w[layout.CMD_CHECKPOINT]) + 1)
        oracle.checkpoint()
    elif kind == "failover":
        rig.command(layout.CMD_FAILOVER, int(rig.segment.w[layout.CMD_FAILOVER]) + 1)
        oracle.failover()
    elif kind in ("on", "off"):
        rig.command(layout.CMD_STATUS, int(kind == "on"))
        oracle.on = kind == "on"
    elif kind == "restart":
        rig.restart()
    rig.run(now=1)


# --- two servers and a client -------------------------------------------------------------------------------------
@dataclass
class Server:
    """A guest's TCP, strict: what does not fit its own numbers is a fault.  Every byte in makes three bytes out."""

    isn: int
    mss: int
    client_isn: int = 0
    got: bytes = b""
    made: bytes = b""
    sent: int = 0
    acked: int = 0
    fin_in: bool = False
    fin_sent: bool = False
    faults: list[str] = field(default_factory=list)

    def next_in(self) -> int:
        """The client's number that comes next."""
        return (self.client_isn + 1 + len(self.got) + self.fin_in) % MOD

    def segment(self, flags: int, at: int, payload: bytes = b"") -> bytes:
        """A segment of its own, ``at`` counted from its ISN."""
        return tcp_frame(V4[1], V4[0], 80, 40_000, seq=self.isn + at, ack=self.next_in(), flags=flags, payload=payload)

    def ask(self) -> bytes:
        """Its own SYN."""
        return tcp_frame(V4[1], V4[0], 80, 40_000, seq=self.isn, flags=SYN)

    def receive(self, frame: bytes) -> list[bytes]:
        """Take a client's segment; what it sends in answer."""
        p = read(frame)
        if checksum_faults(frame):
            self.faults.append("checksum")
        if p.flags & SYN:
            self.client_isn = p.seq
            if not p.flags & ACK:
                return [self.segment(SYN | ACK, 0)]
            if p.ack != (self.isn + 1) % MOD:
                self.faults.append("SYN+ACK for another ISN")
            return [self.segment(ACK, 1)]
        taken = serial(p.ack, self.isn)
        if not 1 <= taken <= 1 + self.sent + self.fin_sent:
            self.faults.append(f"ack {taken} of {self.sent} sent")
        self.acked = max(self.acked, taken)
        if p.seq == self.next_in() and not self.fin_in:
            self.got += p.payload
            self.made += bytes((b * 7 + i) & 0xFF for b in p.payload for i in range(3))
            self.fin_in = bool(p.flags & FIN)
        return self.push(bool(p.payload or p.flags & FIN))

    def push(self, answer: bool) -> list[bytes]:
        """Everything made and not sent yet, in segments of its mss."""
        out = []
        while self.sent < len(self.made):
            piece = self.made[self.sent : self.sent + self.mss]
            out.append(self.segment(ACK | PSH, 1 + self.sent, piece))
            self.sent += len(piece)
        if self.fin_in and not self.fin_sent:
            out.append(self.segment(FIN | ACK, 1 + self.sent))
            self.fin_sent = True
        return out or ([self.segment(ACK, 1 + self.sent + self.fin_sent)] if answer else [])

    def again(self) -> list[bytes]:
        """Send everything once more."""
        out = [self.segment(ACK, 1 + i, self.made[i : i + self.mss]) for i in range(0, self.sent, self.mss)]
        return out + ([self.segment(FIN | ACK, 1 + self.sent)] if self.fin_sent else [])


@dataclass
class Client:
    """The outside peer: it knows one server's numbers and keeps what it is sent by position."""

    isn: int
    server_isn: int | None = None
    sent: int = 0
    stream: dict[int, int] = field(default_factory=dict)
    end: int | None = None
    faults: list[str] = field(default_factory=list)

    def ack(self) -> int:
        """Number after the last byte that came in order."""
        assert self.server_isn is not None
        n = 1
        while n in self.stream:
            n += 1
        return (self.server_isn + n + (n == self.end)) % MOD

    def segment(self, flags: int, payload: bytes = b"") -> bytes:
        """The next segment."""
        ack = self.ack() if flags & ACK else 0
        frame = tcp_frame(*V4, 40_000, 80, seq=self.isn + self.sent, ack=ack, flags=flags, payload=payload)
        self.sent += len(payload) + bool(flags & (SYN | FIN))
        return frame

    def receive(self, frame: bytes) -> None:
        """Take what the servers' side lets out."""
        p = read(frame)
        if checksum_faults(frame):
            self.faults.append("checksum")
        if p.flags & SYN:
            self.server_isn = p.seq
            return
        assert self.server_isn is not None
        if serial(p.ack, (self.isn + self.sent) % MOD) > 0:
            self.faults.append("acknowledges what was never sent")
        note(self.stream, p, self.server_isn, self.faults)
        if p.flags & FIN:
            self.end = serial(p.seq, self.server_isn) + len(p.payload)


def note(stream: dict[int, int], p: Packet, isn: int, faults: list[str]) -> None:
    """Put a segment's bytes at their positions; another byte at the same position is a fault."""
    at = serial(p.seq, isn)
    for i, byte in enumerate(p.payload):
        if stream.setdefault(at + i, byte) != byte:
            faults.append(f"another byte at {at + i}")


@dataclass
class Pair:
    """Primary, and secondary behind the rewriter, both fed what the client sends."""

    rig: Rig
    primary: Server
    secondary: Server
    client: Client
    failed_over: bool = False
    primary_stream: dict[int, int] = field(default_factory=dict)
    secondary_stream: dict[int, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def outbound(self, frames: list[bytes]) -> list[bytes]:
        """What the secondary sends, after the rewriter."""
        self.rig.feed("rx_in", *frames)
        self.rig.run(now=1)
        out = self.rig.take("rx_out")
        for p in map(read, out):
            if not p.flags & SYN:
                note(self.secondary_stream, p, self.primary.isn, self.faults)
        return out

    def offer(self, frame: bytes, times: int = 1, *, lost: bool = False) -> None:
        """A client's segment to both replicas ``times`` times; the client gets what the active side answers.

        ``lost``: the answer does not arrive (or the primary dies before it goes out).
        """
        for _ in range(times):
            answers = [] if self.failed_over else self.primary.receive(frame)
            self.rig.feed("tx_in", frame)
            self.rig.run(now=1)
            (inward,) = self.rig.take("tx_out")
            theirs = self.outbound(self.secondary.receive(inward))
            for p in map(read, answers):
                if not p.flags & SYN:
                    note(self.primary_stream, p, self.primary.isn, self.faults)
            for out in () if lost else theirs if self.failed_over else answers:
                self.client.receive(out)

    def open(self, opener: str, checkpoint: bool) -> None:
        """The handshake, opened by the peer, by the guest, or by both at once; perhaps with a checkpoint within."""
        if opener != "peer":
            self.outbound([self.secondary.ask()])
            self.client.receive(self.primary.ask())
        if opener != "guest":
            self.offer(self.client.segment(SYN))
        if checkpoint:
            self.checkpoint()
        if opener == "peer":
            self.offer(self.client.segment(ACK))
        else:
            self.client.sent = 0
            self.offer(self.client.segment(SYN | ACK))

    def resend(self) -> None:
        """The active side sends everything once more."""
        for out in self.outbound(self.secondary.again()) if self.failed_over else self.primary.again():
            self.client.receive(out)

    def checkpoint(self) -> None:
        """The secondary becomes a copy of the primary."""
        if not self.failed_over:
            mss, self.secondary = self.secondary.mss, copy.deepcopy(self.primary)
            self.secondary.mss = mss
            self.rig.command(layout.CMD_CHECKPOINT, int(self.rig.segment.w[layout.CMD_CHECKPOINT]) + 1)

    def failover(self) -> None:
        """The primary is gone; what it had not got out comes from the secondary."""
        self.failed_over = True
        self.rig.command(layout.CMD_FAILOVER, 1)
        self.resend()


actions = st.tuples(
    st.sampled_from(["data", "data", "lost", "ack", "twice", "checkpoint", "again", "restart"]), st.integers(0, 60)
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(isns, isns, isns, st.integers(1, 40), st.integers(1, 40), st.lists(actions, max_size=14), st.integers(0, 30),
       st.sampled_from(["peer", "guest", "both"]))  # fmt: skip
def test_the_secondary_lives_the_primarys_connection(
    client_isn: int, primary_isn: int, secondary_isn: int, mss: int, other_mss: int,
    todo: list[tuple[str, int]], failover_at: int, opener: str,
) -> None:  # fmt: skip
    """Each replica sees a flawless connection in its own numbers; the secondary's output is the primary's, byte for
    byte in the primary's numbers; after a failover the client goes on with the secondary and gets every byte once.
    """
    with Rig("filter-rewriter", {"max_connections": 4}) as rig:
        pair = Pair(rig, Server(primary_isn, mss), Server(secondary_isn, other_mss), Client(client_isn))
        client = pair.client
        pair.open(opener, checkpoint=failover_at % 3 == 0)
        for i, (what, n) in enumerate(todo):
            if i == failover_at:
                pair.failover()
            if what in ("data", "twice"):
                pair.offer(client.segment(ACK | PSH, bytes((i + k) & 0xFF for k in range(n))), 1 + (what == "twice"))
            elif what == "lost":
                pair.offer(client.segment(ACK | PSH, bytes((i + k) & 0xFF for k in range(n))), lost=True)
            elif what == "ack":
                pair.offer(client.segment(ACK))
            elif what == "checkpoint":
                pair.checkpoint()
            elif what == "again":
                pair.outbound(pair.secondary.again())
            else:
                rig.restart()
        pair.resend()
        pair.offer(client.segment(FIN | ACK))
        pair.offer(client.segment(ACK))
        servers = (pair.secondary,) if pair.failed_over else (pair.primary, pair.secondary)
        assert [s.faults for s in servers] == [[]] * len(servers)
        assert (client.faults, pair.faults) == ([], [])
        made = dict(enumerate(pair.secondary.made, 1))
        assert client.stream == made
        if not pair.failed_over:
            assert (pair.primary.got, pair.primary.made) == (pair.secondary.got, pair.secondary.made)
            assert pair.primary_stream == made
        assert {k: v for k, v in made.items() if k in pair.secondary_stream} == pair.secondary_stream
        assert rig.counters()["connections_closed"] == 1
        check_balances(rig)
