"""netdev-pcap on the bench: pace, causal waits, restarts, and the file that it writes."""

from __future__ import annotations

import itertools
import os
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ring import layout
from stages.capture import reader as captures
from stages.capture.kind import KIND
from stages.capture.reader import INBOUND, OUTBOUND, UNKNOWN, CaptureError
from stages.capture.writer import Writer
from tests.packets import arp_frame, fragments, icmp_frame, ipv4, tcp_frame, udp_frame
from tests.rig import Rig

T0 = 1_700_000_000_000_000_000
CLOCK = 1_000_000_000_000
MS = 1_000_000

Script = Sequence[tuple[int, int, bytes]]


def capture(path: Path, script: Script) -> Path:
    """Write (ms, direction, frame) lines as a capture that starts at T0."""
    with Writer(path) as out:
        for at, direction, frame in script:
            out.write(frame, T0 + at * MS, direction)
    return path


def udp(flow: int, n: int, back: bool = False, size: int = 20) -> bytes:
    """The n-th datagram of a flow, to the server or back."""
    ends = ("10.0.0.9", "10.0.0.1", 1000 + flow, 53)
    if back:
        ends = (ends[1], ends[0], ends[3], ends[2])
    return udp_frame(*ends, f"{flow} {n} {back}".encode().ljust(size, b"."))


class Bench(Rig):
    """A rig for captures whose clock is started at CLOCK."""

    def __init__(self, *, start: bool = True, **params: Any) -> None:
        options = {k: params.pop(k) for k in ("ring_size", "vnet", "ports") if k in params}
        super().__init__("netdev-pcap", {k: str(v) if isinstance(v, Path) else v for k, v in params.items()}, **options)
        if start:
            self.command(layout.CMD_CLOCK, CLOCK)

    def at(self, ms: float, cycles: int = 1000) -> list[bytes]:
        """Run at ``ms`` after the clock's start; what came out."""
        self.run(CLOCK + int(ms * MS), cycles)
        return self.take("receive")

    @property
    def finished(self) -> bool:
        return bool(self.segment.w[layout.LIFE_FINISHED])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "in.pcapng"


def test_recorded_pace(path: Path) -> None:
    """Each frame comes out when its time has come, not before, and the stage then says that it has finished."""
    frames = [udp(0, n) for n in range(4)]
    capture(path, [(n * 10, INBOUND, f) for n, f in enumerate(frames)])
    with Bench(read=path) as b:
        assert b.at(-1) == []
        assert b.at(0) == frames[:1]
        assert b.at(9.999) == []
        assert b.at(25) == frames[1:3]
        assert not b.finished
        assert b.at(30) == frames[3:]
        assert b.finished


def test_speed_and_base(path: Path) -> None:
    """``speed`` divides the times; ``clock_base_ns`` is the capture's time that the clock means."""
    capture(path, [(100, INBOUND, udp(0, 1)), (300, INBOUND, udp(0, 2))])
    with Bench(read=path, speed=2.0, clock_base_ns=T0) as b:
        assert b.at(49) == []
        assert b.at(50) == [udp(0, 1)]
        assert b.at(149) == []
        assert b.at(150) == [udp(0, 2)]


def test_a_frame_of_another_century_waits_at_any_speed(path: Path) -> None:
    """One packet with a wrong time does not stop the others, and its due time is still a number of 64 bits."""
    century = 100 * 365 * 86_400 * 1000
    capture(path, [(0, INBOUND, udp(0, 1)), (century - T0 // MS, INBOUND, udp(0, 2))])
    with Bench(read=path, speed=0.001) as b:
        assert b.at(0) == [udp(0, 1)]
        assert not b.finished


@pytest.mark.parametrize(
    ("seconds", "more", "told"),
    [
        ((0, 1, 50), {}, None),
        ((0, 1, 65_536), {}, (1.0, 65_535)),
        ((0, 200, 100_000), {"pace": "asap"}, None),
        ((0, 100), {"speed": 2.0}, None),
        ((0, 40_000_000, 39_999_990), {"speed": 10.0}, (0.0, 3_999_999)),
    ],
)
def test_a_long_pause_is_told(path: Path, seconds: tuple[int, ...], more: dict[str, Any], told: Any) -> None:
    """A replay that waits for hours looks like one that hangs; it goes by the time in which it is replayed."""
    capture(path, [(at * 1000, INBOUND, udp(0, n)) for n, at in enumerate(seconds)])
    with capture_logs() as logs, Bench(read=path, **more):
        pass
    said = [(e["after_s"], e["pause_s"]) for e in logs if "long pause" in e["event"]]
    assert said == ([told] if told else [])


def test_no_clock_no_frames(path: Path) -> None:
    """Before the supervisor starts the clock nothing is emitted, at any pace."""
    capture(path, [(0, INBOUND, udp(0, 1))])
    with Bench(read=path, pace="asap", start=False) as b:
        assert b.at(1000) == []
        assert not b.finished
        b.command(layout.CMD_CLOCK, CLOCK)
        assert b.at(0) == [udp(0, 1)]
        assert b.finished


def test_no_directions_in_order_of_time(path: Path) -> None:
    """A capture without directions is emitted whole, by time, and waits for nothing."""
    capture(
        path,
        [(5, UNKNOWN, udp(0, 1)), (3, UNKNOWN, udp(0, 2, back=True)), (9, UNKNOWN, arp_frame("10.0.0.1", "10.0.0.2"))],
    )
    with Bench(read=path, pace="asap") as b:
        assert b.at(0) == [udp(0, 2, back=True), udp(0, 1), arp_frame("10.0.0.1", "10.0.0.2")]
        assert b.finished


def test_a_flow_waits_and_holds_back_no_other(path: Path) -> None:
    """A frame waits for the frames of its flow before it; other flows and frames without a key go on."""
    arp = arp_frame("10.0.0.1", "10.0.0.2")
    capture(path, [
        (0, INBOUND, udp(0, 1)), (1, OUTBOUND, udp(0, 2, True)), (2, OUTBOUND, udp(0, 3, True)),
        (3, INBOUND, udp(0, 4)),
        (4, INBOUND, udp(1, 1)), (5, OUTBOUND, arp), (6, INBOUND, arp), (7, INBOUND, udp(0, 5)),
    ])  # fmt: skip
    with Bench(read=path) as b:
        assert b.at(10) == [udp(0, 1), udp(1, 1), arp]
        b.feed("send", udp(0, 2, True), udp(7, 7), arp)
        assert b.at(11) == []
        assert not b.finished
        b.feed("send", udp(0, 3, True))
        assert b.at(12) == [udp(0, 4), udp(0, 5)]
        assert b.finished
        counters = b.counters()
        assert (counters["awaited"], counters["stray"], counters["swallowed"], counters["unmet"]) == (2, 2, 4, 0)


def test_answers_that_are_early(path: Path) -> None:
    """Frames that arrive before their time count: the next one goes out at its recorded time."""
    capture(path, [(0, OUTBOUND, udp(0, 1)), (50, INBOUND, udp(0, 2, True))])
    with Bench(read=path) as b:
        b.feed("send", udp(0, 1))
        assert b.at(49) == []
        assert b.at(50) == [udp(0, 2, True)]


def conversation(kind: str) -> tuple[bytes, bytes]:
    """A question and its answer."""
    if kind == "tcp6":
        return tcp_frame("fd00::1", "fd00::2", 4000, 80), tcp_frame("fd00::2", "fd00::1", 80, 4000)
    if kind == "same port":
        return udp_frame("10.0.0.1", "10.0.0.2", 500, 500, b"q"), udp_frame("10.0.0.2", "10.0.0.1", 500, 500, b"a")
    if kind == "same host":
        return udp_frame("10.0.0.1", "10.0.0.1", 7, 8, b"q"), udp_frame("10.0.0.1", "10.0.0.1", 8, 7, b"a")
    return icmp_frame("10.0.0.1", "10.0.0.2"), icmp_frame("10.0.0.2", "10.0.0.1")


@pytest.mark.parametrize("kind", ["tcp6", "same port", "same host", "icmp"])
def test_both_ways_are_one_flow(path: Path, kind: str) -> None:
    """The two directions of a conversation are one flow, whatever its protocol."""
    question, answer = conversation(kind)
    capture(path, [(0, OUTBOUND, question), (0, INBOUND, answer)])
    with Bench(read=path, pace="asap") as b:
        assert b.at(0) == []
        b.feed("send", question)
        assert b.at(1) == [answer]


def test_patience(path: Path) -> None:
    """Frames that never come cost their flow patience_ms once; what comes after them is waited for again."""
    capture(path, [
        (0, OUTBOUND, udp(0, 1)), (0, OUTBOUND, udp(0, 2)), (0, INBOUND, udp(0, 3, True)),
        (0, INBOUND, udp(0, 4, True)),
        (0, OUTBOUND, udp(0, 5)), (0, INBOUND, udp(0, 6, True)),
    ])  # fmt: skip
    with Bench(read=path, patience_ms=1000) as b:
        assert b.at(0) == []
        b.feed("send", udp(0, 1))
        assert b.at(500) == []
        assert b.at(1499) == []
        assert b.at(1550) == [udp(0, 3, True), udp(0, 4, True)]
        assert b.counters()["unmet"] == 1
        assert b.at(2000) == []
        b.feed("send", udp(0, 5))
        assert b.at(2001) == [udp(0, 6, True)]
        assert b.counters()["unmet"] == 1
        assert b.finished


def test_patience_at_once(path: Path) -> None:
    """At pace asap patience begins when the whole side has come to a stop, not when a frame would have been due."""
    capture(
        path,
        [
            (0, OUTBOUND, udp(0, 1)),
            (0, INBOUND, udp(0, 2, True)),
            (0, OUTBOUND, udp(1, 1)),
            (0, INBOUND, udp(1, 2, True)),
        ],
    )
    with Bench(read=path, pace="asap", patience_ms=1000) as b:
        assert b.at(0) == []
        b.feed("send", udp(0, 1))
        assert b.at(900) == [udp(0, 2, True)]
        assert b.at(1800) == []
        assert b.at(1900) == [udp(1, 2, True)]


def test_drain(path: Path) -> None:
    """A drained source emits no more, has finished, and still takes what is sent to it."""
    capture(path, [(0, INBOUND, udp(0, 1)), (10, INBOUND, udp(0, 2))])
    with Bench(read=path) as b:
        assert b.at(0) == [udp(0, 1)]
        b.command(layout.CMD_DRAIN, 1)
        b.feed("send", udp(3, 3))
        assert b.at(100) == []
        assert b.finished
        assert b.counters()["swallowed"] == 1


def test_little_room(path: Path) -> None:
    """A ring much smaller than the capture: everything comes, in order, as the reader makes room."""
    frames = [udp(n % 5, n, size=900) for n in range(60)]
    capture(path, [(0, INBOUND, f) for f in frames])
    with Bench(read=path, pace="asap", ring_size=4096) as b:
        got = list(itertools.chain.from_iterable(iter(lambda: b.at(0), [])))
        assert got == frames
        assert b.finished


def test_frames_with_virtio_header(path: Path) -> None:
    """On rings with V the header is neither part of the key nor written; emitted frames have none."""
    capture(path, [(0, OUTBOUND, udp(0, 1)), (0, INBOUND, udp(0, 2, True))])
    out = path.with_name("out.pcapng")
    with Bench(read=path, pace="asap", write=out, vnet=("send", "receive")) as b:
        b.feed("send", b"\0" * 10 + udp(0, 1), vnet_hdr_len=10)
        assert b.at(0) == [udp(0, 2, True)]
    assert [p.data for p in captures.read(out)] == [udp(0, 1)]


def dialogue(seed: int, flows: int, frames: int) -> list[tuple[int, int, bytes]]:
    """A random capture: every flow speaks in turns of one to three frames; some frames have no key."""
    rng = random.Random(seed)
    script = []
    for n in range(frames):
        f = rng.randrange(flows + 1)
        out = rng.random() < 0.5
        if f == flows:
            script.append((n, OUTBOUND if out else INBOUND, arp_frame("10.0.0.1", f"10.0.{n >> 8}.{n & 255}")))
        else:
            script.append((n, OUTBOUND if out else INBOUND, udp(f, n, out)))
    return script


def flow_of(frame: bytes) -> bytes:
    ends = sorted([frame[26:30] + frame[34:36], frame[30:34] + frame[36:38]])
    return b"".join(ends) if frame[12:14] == b"\x08\0" else b"arp"


def play(b: Bench, script: Script, seed: int, restart: int) -> dict[bytes, list[bytes]]:
    """Answer a replay in random bursts, restarting every ``restart`` cycles; what came out by flow.

    The outside mirrors the capture: it sends an awaited frame once all emitted frames of its flow before it came.
    """
    rng = random.Random(seed)
    came: dict[bytes, list[bytes]] = defaultdict(list)
    todo: dict[bytes, list[tuple[int, bytes]]] = defaultdict(list)
    before: dict[bytes, int] = defaultdict(int)
    for _, direction, frame in script:
        if direction == OUTBOUND:
            todo[flow_of(frame)].append((before[flow_of(frame)], frame))
        else:
            before[flow_of(frame)] += 1
    for cycle in range(100_000):
        for frame in b.at(cycle * 3, cycles=1):
            came[flow_of(frame)].append(frame)
        for flow in list(todo):
            while todo[flow] and todo[flow][0][0] <= len(came[flow]) and rng.random() < 0.7:
                b.feed("send", todo[flow].pop(0)[1])
        if restart and cycle % restart == restart - 1:
            b.restart()
        if b.finished and not any(todo.values()) and not b.run(CLOCK + cycle * 3 * MS):
            return came
    raise AssertionError("the replay did not end")


@pytest.mark.parametrize("pace", ["recorded", "asap"])
@pytest.mark.parametrize("restart", [0, 1, 2, 3, 5, 7])
def test_the_same_frames_whatever_happens(tmp_path: Path, path: Path, pace: str, restart: int) -> None:
    """Scheduling and restarts change nothing: each flow's frames, in order, and a file that holds each frame once."""
    script = dialogue(1, 12, 400)
    capture(path, script)
    expected: dict[bytes, list[bytes]] = defaultdict(list)
    for _, direction, frame in script:
        if direction == INBOUND:
            expected[flow_of(frame)].append(frame)
    out = tmp_path / "out.pcapng"
    with Bench(read=path, write=out, pace=pace, record="both") as b:
        assert play(b, script, restart, restart) == expected
        counters = b.counters()
    assert counters["unmet"] == 0
    assert counters["written"] == sum(d == OUTBOUND for _, d, _ in script)
    written = captures.read(out)
    assert sorted((p.direction, p.data) for p in written) == sorted((d, f) for _, d, f in script)
    assert {p.interface for p in written} == {"it"}
    assert all(a.ns <= b.ns for a, b in itertools.pairwise(written))
    again: dict[bytes, list[bytes]] = defaultdict(list)
    for p in written:
        if p.direction == INBOUND:
            again[flow_of(p.data)].append(p.data)
    assert again == expected


def test_a_replay_of_what_a_replay_wrote(tmp_path: Path, path: Path) -> None:
    """What was recorded in both directions is itself a capture that replays the same."""
    script = dialogue(2, 4, 120)
    capture(path, script)
    out = tmp_path / "out.pcapng"
    with Bench(read=path, write=out, record="both") as b:
        first = play(b, script, 3, 0)
    recorded = [((p.ns - T0) // MS, p.direction, p.data) for p in captures.read(out)]
    with Bench(read=out, clock_base_ns=T0) as b:
        assert play(b, recorded, 4, 2) == first
        assert b.counters()["unmet"] == 0


def test_a_capture_that_changed(path: Path) -> None:
    """Positions belong to one capture: another file under its name is refused at a restart."""
    capture(path, [(0, INBOUND, udp(0, 1)), (10, INBOUND, udp(0, 2))])
    with Bench(read=path) as b:
        b.at(0)
        capture(path, [(0, INBOUND, udp(0, 9)), (10, INBOUND, udp(0, 2))])
        old = b.stage
        with pytest.raises(CaptureError, match="was changed"):
            b._start()
        b.stage = old


def test_fragments_and_other_protocols(path: Path) -> None:
    """Fragments and protocols without ports have flows by address and protocol."""
    sent = fragments("10.0.0.1", "10.0.0.9", 17, bytes(3000), 1400)
    other = [ipv4("10.0.0.1", "10.0.0.9", 47, b"gre"), ipv4("10.0.0.9", "10.0.0.1", 47, b"back")]
    mac = bytes.fromhex("0200000000010200000000020800")
    capture(
        path,
        [(0, OUTBOUND, f) for f in sent]
        + [(0, OUTBOUND, mac + other[0]), (0, INBOUND, mac + other[1]), (0, INBOUND, sent[0])],
    )
    with Bench(read=path, pace="asap") as b:
        b.feed("send", mac + other[0])
        assert b.at(0) == [mac + other[1]]
        b.feed("send", *sent)
        assert b.at(0) == [sent[0]]


def test_the_supervisor_s_part(path: Path) -> None:
    """The kind's numbers come from the file alone: words of tables, and the first time."""
    capture(path, dialogue(5, 7, 200))
    assert captures.first_timestamp(path) == T0
    directions = [p.direction for p in captures.read(path)]
    most = min(directions.count(INBOUND), directions.count(OUTBOUND))
    assert KIND.words({"read": str(path)}) == KIND.tables_at + 1 + 3 * most
    assert KIND.words({"read": None}) == KIND.tables_at + 1


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    assert not list(Path("/dev/shm").glob(f"rig-{os.getpid()}-*"))
