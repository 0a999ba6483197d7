"""Stages under fire: whole bursts of frames in, and after each one everything that must hold."""

from __future__ import annotations

import random
from typing import Any, Final

from ring import layout
from ring.kernels.frames import scan
from tests.fuzz.mutate import CLIENT, CLIENT6, SERVER, SERVER6, Mutator
from tests.packets import ACK, SYN, icmp_error, opt_sack, opt_timestamp, tcp_frame, vnet_header
from tests.rig import Rig
from tests.stages.compare.audit import audit

_MS: Final = 1_000_000
_OPTIONS: Final = opt_timestamp(123, 4_000_000_000) + opt_sack((10, 20), (30, 40))
COMPARE: Final = {
    "compare_timeout": 300,
    "silence_timeout": 5_000,
    "expired_scan_cycle": 1000,
    "max_queue_size": 64,
    "ack_policy": "strict",
    "checkpoint": "frame",
    "max_connections": 256,
    "reorder_grace_ms": 5,
    "hold_memory": 2 << 20,
    "vnet_hdr_support": False,
    "checkpoint_interval_ms": 1,
    "divergences": "/dev/null/no",  # packets are kept, files cannot be written
}


class Bench:
    """A stage on a rig that is fed with records and must stay sound."""

    def __init__(self, kind: str, params: dict[str, Any], seed: int, vnet: tuple[str, ...] = ()) -> None:
        self.rig = Rig(kind, params, vnet=vnet, ring_size=1 << 20)
        self.random, self.now, self.frames = random.Random(seed), 1, 0
        self.vnet = bool(vnet)

    def write(self, port: str, frames: list[bytes]) -> None:
        """Put records into an input ring, as a peer on a socket would, as many as there is room for."""
        ring = self.rig.rings[port]
        lead = b""
        records = []
        room = ring.size - int(ring.w[layout.TAIL]) + int(ring.w[layout.HEAD])
        for frame in frames:
            body = frame
            if self.vnet:
                header = vnet_header(needs_csum=self.random.random() < 0.3, size=self.random.choice((10, 12, 10)))
                header = header[: self.random.choice((len(header),) * 8 + (0, 3))]
                lead, body = len(header).to_bytes(4, "big"), header + frame
            room -= 8 + len(body)
            if room < 0:
                break
            records.append(len(body).to_bytes(4, "big") + lead + body)
            self.frames += 1
        blob = b"".join(records)
        at = layout.PAGE + (int(ring.w[layout.TAIL]) & ring.size - 1)
        ring._live().bytes[at : at + len(blob)] = blob
        ring.w[layout.TAIL] += len(blob)

    def drain(self, port: str) -> None:
        """Take all that came out; whole, possible records only."""
        ring = self.rig.rings[port]
        live, head, tail = ring._live(), int(ring.w[layout.HEAD]), int(ring.w[layout.TAIL])
        position, _, bad = scan(live.bytes, ring.w, 0, head, tail, 1 << 30)
        assert position == tail and bad == -1, (port, head, position, tail, bad)
        ring.w[layout.HEAD] = tail

    def turn(self) -> None:
        """Run until nothing can be done, take what comes out, and check the books."""
        self.rig.run(now=self.now, cycles=10_000)
        for port in self.rig.kind.outputs:
            self.drain(port)
        counters = self.rig.counters()
        for balance in self.rig.kind.balances:
            left, right = (sum(counters[n] for n in side) for side in (balance.left, balance.right))
            assert left == right, (balance.label, counters)

    def check(self) -> None:
        """What is too slow to be checked at each turn."""

    def reached(self) -> None:
        """The frames have reached what they are for: asked at the end of a campaign."""

    def fire(self, frames: list[bytes]) -> None:
        """One round."""
        raise NotImplementedError


class CompareBench(Bench):
    """The compare, whose two inputs get the same frames, other frames, or the same in another order."""

    def __init__(self, seed: int, vnet: bool = False, **params: Any) -> None:
        ports = ("primary_in", "secondary_in", "outdev") if vnet else ()
        super().__init__("colo-compare", COMPARE | params, seed, ports)
        self.rig.run(now=self.now)  # the link is up before the first packet

    def fire(self, frames: list[bytes]) -> None:
        """Both replicas send; now and then time passes, a checkpoint comes, the link goes, the stage is restarted."""
        rnd = self.random
        theirs = list(frames)
        how = rnd.randrange(4)
        if how == 1:
            rnd.shuffle(theirs)
        elif how == 2:
            theirs = theirs[len(theirs) // 3 :]
        self.write("primary_in", frames)
        self.write("secondary_in", theirs if how < 3 else [])
        self.now += rnd.choice((0, 1, 1, 6, 50, 400)) * _MS
        event = rnd.randrange(40)
        if event < 4:
            self.rig.feed("notify_in", b"COLO_CHECKPOINT")
        elif event == 5:
            self.rig.feed("notify_in", bytes(rnd.randrange(256) for _ in range(rnd.randrange(40))))
        elif event == 6:
            self.rig.rings["secondary_in"].w[layout.P_LINK] += rnd.choice((1, 2))
        elif event == 7:
            self.rig.restart()
        words = self.rig.rings["secondary_in"].w
        if int(words[layout.P_LINK]) & 1 == 0 and event & 1:
            words[layout.P_LINK] += 1
            self.rig.feed("notify_in", b"COLO_CHECKPOINT")
        self.turn()
        if self.rig.counters()["held"] > 500:
            self.rig.feed("notify_in", b"COLO_CHECKPOINT")
            self.turn()

    def check(self) -> None:
        """Every list, cursor and free slot of the tables."""
        audit(self.rig)


class FilterBench(Bench):
    """The rewriter or the mirror: each frame comes out as long as it went in."""

    def __init__(self, kind: str, seed: int, vnet: bool = False) -> None:
        params: dict[str, Any] = {"max_connections": 64, "queue": "all", "vnet_hdr_support": vnet}
        if kind == "filter-rewriter":
            params["address_age"] = 0  # an answer would be a frame that did not go in
        ports = ("tx_in", "rx_in", "tx_out", "rx_out") if vnet else ()
        super().__init__(kind, params, seed, ports)
        self.rig.command(layout.CMD_STATUS, 1)
        self._opens = kind == "filter-rewriter"
        self._talk = Mutator(seed, [*_talk("tx_in"), *_talk("rx_in")])

    def _open(self) -> None:
        """Connections with an offset: without one hardly a frame would be rewritten."""
        ours, theirs = (self.random.getrandbits(32) for _ in range(2))
        for port, flags, seq, ack in (
            ("tx_in", SYN, -1, 0), ("rx_in", SYN | ACK, ours, 0), ("tx_in", ACK, 0, theirs),
        ):  # fmt: skip
            self.write(port, [tcp_frame(*ends, seq=seq, ack=ack, flags=flags, **how) for ends, how in _flows(port)])
            self.turn()

    def fire(self, frames: list[bytes]) -> None:
        """Half of the frames go each way; now and then an event."""
        if self._opens:
            self._open()
            frames = [*frames, *self._talk.burst(len(frames) // 2)]
            self.random.shuffle(frames)
        half = len(frames) // 2
        lengths = []
        for port, part in (("tx_in", frames[:half]), ("rx_in", frames[half:])):
            before = int(self.rig.rings[port].w[layout.TAIL])
            self.write(port, part)
            lengths.append(int(self.rig.rings[port].w[layout.TAIL]) - before)
        self.now += self.random.choice((0, 1, 1000)) * _MS
        if self.random.randrange(40) == 0:
            word = layout.CMD_CHECKPOINT
            self.rig.command(word, int(self.rig.segment.w[word]) + 1)
        out = [int(self.rig.rings[port].w[layout.TAIL]) for port in ("tx_out", "rx_out")]
        self.turn()
        after = [int(self.rig.rings[port].w[layout.TAIL]) for port in ("tx_out", "rx_out")]
        assert [b - a for a, b in zip(out, after, strict=True)] == lengths

    def reached(self) -> None:
        """Some of them were rewritten, each way, and ICMP errors."""
        counters = self.rig.counters()
        names = ("rewritten_in", "rewritten_out", "rewritten_errors") if self._opens else ()
        assert all(counters[name] > 0 for name in names), counters


def _flows(port: str) -> list[tuple[tuple[str, str, int, int], dict[str, Any]]]:
    """Ends and looks of a few connections, as their frames come in at ``port`` of a rewriter."""
    found: list[tuple[tuple[str, str, int, int], dict[str, Any]]] = []
    for guest, peer in ((SERVER, CLIENT), (SERVER6, CLIENT6)):
        ends = (peer, guest, 4000, 80) if port == "tx_in" else (guest, peer, 80, 4000)
        found += [(ends, {"vlans": vlans, "options": _OPTIONS}) for vlans in ((), (5,), (5, 6))]
    return found


def _talk(port: str) -> list[bytes]:
    """Segments of those connections, and ICMP errors about them."""
    frames = []
    for ends, how in _flows(port):
        frames.append(tcp_frame(*ends, seq=7, ack=9, payload=b"payload", **how))
        if port == "rx_in":
            frames.append(icmp_error(ends[1], frames[-1], (2, 0) if ":" in ends[0] else (3, 4)))
    return frames


BENCHES: Final = {
    "compare": CompareBench,
    "compare-local": lambda seed: CompareBench(seed, checkpoint="local", ack_policy="relaxed"),
    "compare-vnet": lambda seed: CompareBench(seed, vnet=True),
    "rewriter": lambda seed: FilterBench("filter-rewriter", seed),
    "rewriter-vnet": lambda seed: FilterBench("filter-rewriter", seed, vnet=True),
}


def campaign(name: str, frames: list[bytes], count: int, seed: int, burst: int = 250, audits: int = 20) -> int:
    """Fire ``count`` mutated frames at a bench; how many were written.  Raises AssertionError where it is not sound."""
    bench = BENCHES[name](seed)
    mutator = Mutator(seed, frames)
    rounds = 0
    with bench.rig:
        while bench.frames < count:
            bench.fire(mutator.burst(min(burst, max(1, count - bench.frames))))
            rounds += 1
            if rounds % audits == 0:
                bench.check()
        bench.check()
        bench.reached()
    return bench.frames
