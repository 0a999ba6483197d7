"""QEMU's colo-compare and ours, side by side: each frame goes to both, and after each step it is known what each has
released and how often each has asked for a checkpoint.

**Nothing here sleeps.**  QEMU's compare reads its chardevs in one thread, handles a frame as soon as it is whole, and
writes what follows from it (frames to outdev, requests to notify) before it reads on.  So a *mark* behind a step is a
barrier: a datagram of a flow of its own, sent on primary_in and then on secondary_in.  It comes out of outdev after
both copies were read, each of which came behind everything that was sent before on its socket.  By then all
consequences of the step are written; a unix socket has them readable as soon as they are written.  This rests on two
things: outdev and notify are not full (a step is one frame, and both are read after each), and no timer speaks in
between (``compare_timeout`` is an hour).  A checkpoint comes on a third socket; its barrier is the answer to
``COLO_USERSPACE_PROXY_INIT`` sent behind it.

A *burst* may fill outdev.  QEMU then queues, and what comes last leaves first, marks too.  So two marks are sent in one
piece: where they come out in their order, the queue was empty when the first was handled; else two more are sent.
"""

from __future__ import annotations

import fcntl
import select
import sys
import termios
import time
from collections import Counter
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Final, Self

from stages.compare.config import Compare
from tests.interop.compare_rows import Row, Witness
from tests.packets import ACK, tcp_frame, udp_frame, vnet_header
from tests.rig import Rig
from tools import qemu

ASK, DONE = b"DO_CHECKPOINT", b"COLO_CHECKPOINT"
HELLO, INIT = b"COLO_USERSPACE_PROXY_INIT", b"COLO_COMPARE_GET_XEN_INIT"
SERVER: Final = "10.0.0.2"
MS: Final = 1_000_000
S: Final = 1_000 * MS
HOUR_MS: Final = 3_600_000
_QEMUS_TABLE: Final = 16_384  # connections that QEMU knows before it wipes them all
_PATIENCE_S: Final = 120.0
PARAMS: Final[dict[str, Any]] = {
    **{f.name: f.default for f in fields(Compare) if f.default is not MISSING},
    "compare_timeout": HOUR_MS,
    "max_connections": 1024,
    "hold_memory": 8 << 20,
}


class Tally:
    """What a run has fed, for its last line."""

    scenarios = frames = starts = 0
    rows: ClassVar[Counter[Row]] = Counter()


@dataclass
class Seen:
    """What one compare has shown: frames from outdev in their order, and requests for a checkpoint."""

    out: list[bytes] = field(default_factory=list)
    asks: int = 0


class Reference:
    """QEMU's colo-compare.  ``feed`` frames, then ``settle``: everything that follows from them."""

    def __init__(self, *, vnet: bool = False, **options: Any) -> None:
        self.vnet, self.flows, self._marks = vnet, 0, 0
        self.qemu = qemu.compare(vnet=vnet, **({"compare_timeout": HOUR_MS} | options))
        Tally.starts += 1

    @property
    def worn(self) -> bool:
        """Whether it has to be replaced: it has left, or its table is nearly full."""
        return self.qemu.process.poll() is not None or self.flows > _QEMUS_TABLE - 4096

    def feed(self, side: str, *frames: bytes, v: int = 0) -> None:
        """Write frames to an input; does not wait."""
        self.qemu.links[side].send(*frames, vnet_hdr_len=v)

    def settle(self) -> Seen:
        """Wait until everything fed was handled; what came out since the last time.

        Only for steps that cannot fill outdev.
        """
        mark = self._mark(1)[0]
        got = self._until("outdev", mark)
        if got[-1] != mark:
            raise qemu.QemuError("something came behind the barrier")
        return Seen(got[:-1], self._asks())

    def drain(self) -> Seen:
        """As `settle`, after any number of frames."""
        mark = self._mark(1)[0]
        got = self._until("outdev", mark)
        got.remove(mark)
        while True:
            first, second = self._mark(2)
            new = self._until("outdev", second)
            if first not in new:
                new += self._until("outdev", first)
            ordered = new.index(first) < new.index(second)
            got += [frame for frame in new if frame not in (first, second)]
            if ordered:
                return Seen(got, self._asks())

    def _mark(self, count: int) -> list[bytes]:
        """Send marks, each of a flow of its own: of one flow QEMU would release the newest first."""
        self._marks += 1
        text = b"mark %d" % self._marks
        marks = [udp_frame("192.0.2.1", "192.0.2.2", 7, 1 + i, text) for i in range(count)]
        for side in ("primary_in", "secondary_in"):
            self.qemu.links[side].send(*marks)
        return marks

    def checkpoint(self) -> Seen:
        """Say COLO_CHECKPOINT; what is flushed."""
        self.tell(DONE)
        self.tell(HELLO)
        said = self._until("notify", INIT)
        seen = self.drain()
        seen.asks += said.count(ASK)
        return seen

    def tell(self, message: bytes) -> None:
        """A message on notify.  QEMU expects V there where vnet_hdr_support is on (and sends none)."""
        v = bytes(4) if self.vnet else b""
        self.qemu.links["notify"].sock.sendall(len(message).to_bytes(4, "big") + v + message)

    def _until(self, link: str, last: bytes) -> list[bytes]:
        got: list[bytes] = []
        deadline = time.monotonic() + _PATIENCE_S
        while last not in got:
            # In pieces, so that a QEMU that has left is noticed.
            got += self.qemu.links[link].take(1, timeout=1.0)
            if last not in got:
                self.qemu.check()
            if time.monotonic() > deadline:
                raise qemu.QemuError(f"{last!r} did not come out of {link}; QEMU said: {self.qemu.said()!r}")
        return got

    def _asks(self) -> int:
        link, asks = self.qemu.links["notify"], 0
        while select.select([link.sock], [], [], 0)[0]:
            got = link.take(1, timeout=1.0)
            if not got:
                self.qemu.check()
                raise qemu.QemuError("notify was closed")
            assert set(got) == {ASK}, got
            asks += len(got)
        return asks

    def close(self) -> None:
        """End QEMU."""
        self.qemu.close()


class Ours:
    """Our colo-compare on a bench, with the same hands."""

    def __init__(self, *, vnet: bool = False, ring_size: int = 1 << 18, **options: Any) -> None:
        wide = ("primary_in", "secondary_in", "outdev") if vnet else ()
        self.rig = Rig("colo-compare", PARAMS | {"vnet_hdr_support": vnet} | options, vnet=wide, ring_size=ring_size)
        self.now = 10 * S
        self.rig.run(now=self.now)  # it looks at its links once

    def feed(self, side: str, *frames: bytes, v: int = 0) -> None:
        """Write frames into an input's ring."""
        self.rig.feed(side, *frames, vnet_hdr_len=v)

    def settle(self, later: int = 1000) -> Seen:
        """Let ``later`` nanoseconds pass and turn until nothing is left to do; what came out."""
        self.now += later
        self.rig.run(now=self.now)
        said = self.rig.take("notify_out")
        assert set(said) <= {ASK}, said
        return Seen(self.rig.take("outdev"), len(said))

    def checkpoint(self) -> Seen:
        """Say COLO_CHECKPOINT; what is flushed.  A second passes: requests have a minimum interval."""
        self.rig.feed("notify_in", DONE)
        seen = self.settle()
        self.now += S
        return seen

    def books(self) -> dict[str, int]:
        """The counters, after every balance was checked."""
        c = self.rig.counters()
        for balance in self.rig.kind.balances:
            assert sum(c[n] for n in balance.left) == sum(c[n] for n in balance.right), (balance.label, c)
        return c

    def close(self) -> None:
        """Take the bench apart."""
        self.rig.close()


@dataclass
class Step:
    """What one step brought: (QEMU, ours)."""

    out: tuple[list[bytes], list[bytes]]
    asks: tuple[int, int]


class Scenario:
    """One story told to both, on flows that neither has seen, with the relation held after every step.

    ``rows`` are the rows of the table in behaviour.md (section 5) that may explain why QEMU has released a frame that
    ours still holds, or that ours has asked where QEMU has not; ``used`` are those that did.  Without rows: everything
    that QEMU has released so far ours has released, and ours asks only where QEMU did.
    """

    def __init__(self, reference: Reference, rows: frozenset[Row] | set[Row] = frozenset(), **options: Any) -> None:
        Tally.scenarios += 1
        self.number = Tally.scenarios
        self.reference = reference
        self.ours = Ours(vnet=reference.vnet, **options)
        self.witness = Witness(strict=self.ours.rig.params["ack_policy"] == "strict")
        self.rows, self.used = frozenset(rows), Counter[Row]()
        self.header = vnet_header(size=10 + 2 * (self.number & 1)) if reference.vnet else b""
        self.fed: list[bytes] = []
        self.all: tuple[list[bytes], list[bytes]] = ([], [])
        self.asked = [0, 0]
        self._keys: set[bytes] = set()

    # --- frames of this scenario -------------------------------------------------------------------------------------
    def client(self, i: int = 1) -> str:
        """Address of the scenario's ``i``-th client (1 to 255)."""
        return f"10.{1 + (self.number >> 8) % 250}.{self.number & 255}.{i}"

    def seg(self, seq: int, data: bytes = b"", flags: int = ACK, ack: int = 5000, **more: Any) -> bytes:
        """A segment from the server to the first client."""
        port = more.pop("port", 4000)
        return tcp_frame(SERVER, self.client(), 80, port, seq=seq, ack=ack, flags=flags, payload=data, **more)

    def datagram(self, data: bytes, **more: Any) -> bytes:
        """A datagram from the server to the first client."""
        return udp_frame(SERVER, self.client(), 53, more.pop("port", 5000), data, **more)

    # --- steps -------------------------------------------------------------------------------------------------------
    def primary(self, *frames: bytes, later: int = 1000) -> Step:
        """The primary sends; each frame is a step of its own.  The result is that of all of them."""
        return self._steps([("primary_in", frame) for frame in frames], later)

    def secondary(self, *frames: bytes, later: int = 1000) -> Step:
        """The secondary sends."""
        return self._steps([("secondary_in", frame) for frame in frames], later)

    def play(self, arrivals: list[tuple[str, bytes]]) -> Step:
        """(side, frame), one step each."""
        return self._steps(arrivals, 1000)

    def wait(self, ns: int) -> Step:
        """Let time pass for ours (QEMU's timers are out of reach)."""
        return self._see(Seen(), self.ours.settle(ns))

    def checkpoint(self) -> Step:
        """A checkpoint, on both; ends the count of requests."""
        theirs, ours = self.reference.checkpoint(), self.ours.checkpoint()
        self.witness.checkpoint()
        step = self._see(theirs, ours)
        self.asked = [0, 0]
        return step

    def burst(self, arrivals: list[tuple[str, bytes]]) -> Step:
        """Everything at once: written to both sockets without waiting, and one burst in ours."""
        for side in ("primary_in", "secondary_in"):
            frames = [self._note(side, frame) for s, frame in arrivals if s == side]
            self.reference.feed(side, *frames, v=len(self.header))
            self.ours.feed(side, *frames, v=len(self.header))
        return self._see(self.reference.drain(), self.ours.settle())

    def _steps(self, arrivals: list[tuple[str, bytes]], later: int) -> Step:
        whole = Step(([], []), (0, 0))
        for side, frame in arrivals:
            full, v = self._note(side, frame), len(self.header)
            self.reference.feed(side, full, v=v)
            self.ours.feed(side, full, v=v)
            step = self._see(self.reference.settle(), self.ours.settle(later))
            for collected, new in zip(whole.out, step.out, strict=True):
                collected.extend(new)
            whole.asks = (whole.asks[0] + step.asks[0], whole.asks[1] + step.asks[1])
        return whole

    def _note(self, side: str, frame: bytes) -> bytes:
        Tally.frames += 1
        self._keys.add(frame[23:24] + frame[26:38])
        self.witness.hears(side, frame)
        if side == "primary_in":
            self.fed.append(frame)
        return self.header + frame

    def _see(self, *both: Seen) -> Step:
        step = Step(([], []), (both[0].asks, both[1].asks))
        for i, seen in enumerate(both):
            for frame in seen.out:
                assert frame.startswith(self.header), f"the virtio-net header was lost: {frame[:16].hex()}"
                step.out[i].append(frame[len(self.header) :])
            self.all[i].extend(step.out[i])
            self.asked[i] += seen.asks
        self._hold_relation(bool(step.asks[1]))
        return step

    def _hold_relation(self, asked_now: bool) -> None:
        ours = Counter(self.all[1])
        invented = ours - Counter(self.fed)
        assert not invented, f"ours has released what was never sent: {[f.hex() for f in invented]}"
        held = _without(self.fed, self.all[1])
        for frame in (Counter(self.all[0]) - ours).elements():
            why = self.witness.excuse(frame, held)
            assert why is not None, f"QEMU has released it, ours has not, and nothing excuses that: {frame.hex()}"
            assert why in self.rows, f"row {why.value!r}: QEMU has released it, ours has not: {frame.hex()}"
            self._use(why)
        if self.used[Row.UDP_ORDER]:
            theirs, mine = map(Witness.meanings, self.all)
            assert not theirs - mine, "QEMU has released a datagram, and ours no equal one instead"
        if asked_now and not self.asked[0]:
            assert Row.FLAGS in self.rows and self.witness.flags_differ, "ours asks for a checkpoint, QEMU does not"
            self._use(Row.FLAGS)

    def _use(self, row: Row) -> None:
        Tally.rows[row] += not self.used[row]
        self.used[row] += 1

    def finish(self) -> None:
        """A checkpoint: then both have released exactly what the primary sent, and the books balance."""
        self.checkpoint()
        for name, out in zip(("QEMU", "ours"), self.all, strict=True):
            missing, invented = Counter(self.fed) - Counter(out), Counter(out) - Counter(self.fed)
            assert not missing and not invented, (name, [f.hex() for f in missing], [f.hex() for f in invented])
        assert self.ours.books()["held"] == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: Any) -> None:
        try:
            if kind is None:
                self.finish()
            elif self.reference.qemu.process.poll() is None:
                self.reference.checkpoint()  # the next scenario finds empty queues
        finally:
            self.reference.flows += len(self._keys)
            self.ours.close()


def _without(frames: list[bytes], gone: list[bytes]) -> list[bytes]:
    """``frames`` in their order, but for one of each of ``gone``; of equal ones the first goes."""
    left, rest = Counter(gone), []
    for frame in frames:
        if left[frame]:
            left[frame] -= 1
        else:
            rest.append(frame)
    return rest


def unread(link: qemu.Link) -> None:
    """Wait until the peer has read everything that was sent to it."""
    deadline = time.monotonic() + _PATIENCE_S
    while int.from_bytes(fcntl.ioctl(link.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder):
        if time.monotonic() > deadline:
            raise qemu.QemuError(f"nobody reads {link.name}")
        time.sleep(0.001)
