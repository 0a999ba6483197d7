"""The links of colo-compare: QEMU's, and our whole pipeline with real sockets.

The bytes on the wire, links cut in the middle of a frame, frames that are too large, messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.interop.compare_pair import ASK, DONE, HELLO, INIT, SERVER, Ours, Reference, unread
from tests.packets import ACK, SYN, arp_frame, ether, tcp_frame, udp_frame, vnet_header
from tests.pipeline.running import Running, until
from tools import qemu

pytestmark = pytest.mark.skipif(not qemu.available(), reason=f"needs Debian's package {qemu.PACKAGE}")
PORTS = ("primary_in", "secondary_in", "outdev", "notify")
CLIENT = "10.0.0.1"
CONFIG = """
[pipeline]
name = "{name}"
runtime_dir = "{folder}"
ring_size = "256KiB"
[supervisor]
{supervisor}
[chardev.primary_in]
backend = "socket"
path = "{folder}/primary_in"
server = true
[chardev.secondary_in]
backend = "socket"
path = "{folder}/secondary_in"
server = true
[chardev.outdev]
backend = "socket"
path = "{folder}/outdev"
server = true
[chardev.notify]
backend = "socket"
path = "{folder}/notify"
server = true
[compare.c0]
primary_in = "primary_in"
secondary_in = "secondary_in"
outdev = "outdev"
notify_dev = "notify"
compare_timeout = 3600000
checkpoint_overdue = "wait"
{more}
"""


class Pipeline:
    """Our compare as a user runs it, with the links that QEMU's has."""

    def __init__(self, folder: Path, vnet: bool) -> None:
        more = "vnet_hdr_support = true" if vnet else ""
        self.running = Running(folder, config=CONFIG, more=more)
        self.vnet = vnet
        self.links: dict[str, qemu.Link] = {}

    def connect(self, name: str) -> qemu.Link:
        """Connect to a chardev anew, and wait until it is the chardev's peer."""
        sock = self.running.connect(name)
        self.links[name] = qemu.Link(name, sock, vnet=self.vnet and name != "notify")
        until(lambda: not self.running.stage(name)["link"], f"{name} connected")
        return self.links[name]

    def counter(self, stage: str, name: str) -> int:
        """A counter of a stage."""
        counters: dict[str, dict[str, int]] = self.running.status()["counters"]
        return counters[stage][name]

    def tell(self, message: bytes) -> None:
        """A message on notify: never with V."""
        self.links["notify"].send(message)

    def __enter__(self) -> Self:
        self.running.start()
        try:
            self.running.running()
            for name in PORTS:
                self.connect(name)
        except BaseException as problem:
            self.__exit__(type(problem), problem, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for link in self.links.values():
            link.close()
        self.running.__exit__(kind, value, tb)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "vnet"])
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Our pipeline, with and without V."""
    with Pipeline(tmp_path_factory.mktemp("pipeline"), request.param) as made:
        yield made


@pytest.fixture
def vnet(pipeline: Pipeline) -> bool:
    """Whether the links carry V."""
    return pipeline.vnet


@pytest.fixture
def pair(pipeline: Pipeline) -> Iterator[tuple[Reference, Pipeline]]:
    """QEMU and our pipeline; the test leaves the latter with nothing asked for."""
    reference = Reference(vnet=pipeline.vnet)
    yield reference, pipeline
    reference.close()
    before = pipeline.counter("c0", "checkpoints")
    pipeline.tell(DONE)
    until(lambda: pipeline.counter("c0", "checkpoints") > before, "the checkpoint")


def wire(frame: bytes, vnet: bool, v: int = 0) -> bytes:
    """A frame as the links carry it."""
    return len(frame).to_bytes(4, "big") + (v.to_bytes(4, "big") if vnet else b"") + frame


def exactly(link: qemu.Link, count: int) -> bytes:
    """The next ``count`` bytes of a link."""
    link.sock.settimeout(60)
    got = b""
    while len(got) < count:
        more = link.sock.recv(count - len(got))
        assert more, f"{link.name} was closed after {len(got)} bytes"
        got += more
    return got


def test_the_same_bytes_on_every_wire(pair: tuple[Reference, Pipeline], vnet: bool) -> None:
    """Frames, V and both notify messages, byte for byte."""
    v = 12 if vnet else 0
    head = vnet_header(needs_csum=True, csum_start=34, size=v) if vnet else b""
    arp = arp_frame(SERVER, CLIENT)
    syn, data, other = (
        tcp_frame(SERVER, CLIENT, 80, 4000, seq=seq, ack=5, flags=flags, payload=payload)
        for seq, flags, payload in ((1_000, SYN | ACK, b""), (1_001, ACK, b"hello"), (1_001, ACK, b"HELLO"))
    )
    reference, ours = pair
    for side, links in ((reference, reference.qemu.links), (ours, ours.links)):
        links["primary_in"].sock.sendall(wire(head + arp, vnet, v))
        assert exactly(links["outdev"], len(wire(head + arp, vnet))) == wire(head + arp, vnet, v)
        for frame in (syn, data):
            links["primary_in"].sock.sendall(wire(head + frame, vnet, v))
            links["secondary_in"].sock.sendall(wire(head + (frame if frame is syn else other), vnet, v))
        assert exactly(links["outdev"], len(wire(head + syn, vnet))) == wire(head + syn, vnet, v)
        assert exactly(links["notify"], 4 + len(ASK)) == wire(ASK, False)
        side.tell(DONE)
        assert exactly(links["outdev"], len(wire(head + data, vnet))) == wire(head + data, vnet, v)
        side.tell(HELLO)
        assert exactly(links["notify"], 4 + len(INIT)) == wire(INIT, False)


def test_a_link_cut_in_the_middle_of_a_frame(pair: tuple[Reference, Pipeline], vnet: bool) -> None:
    """What comes after the reconnect: QEMU takes its first bytes for the rest of the old frame; ours starts afresh.

    Packets were lost with the link, so ours asks for a checkpoint, and QEMU does not.
    """
    reference, ours = pair
    lost, received = ours.counter("c0", "links_lost"), ours.counter("primary_in", "received_bytes")
    one, two = (ether(byte * 60, 0x0806) for byte in (b"1", b"2"))
    half = wire(one, vnet)[: len(wire(one, vnet)) // 2]

    link = reference.qemu.links["primary_in"]
    link.sock.sendall(wire(one, vnet) + half)
    assert reference.qemu.links["outdev"].take(1) == [one]
    unread(link)
    link.close()
    path = Path(reference.qemu._folder.name) / "primary_in"
    again = reference.qemu.links["primary_in"] = qemu.connect("primary_in", path, vnet=vnet)
    again.sock.sendall(wire(two, vnet))
    mixed = (half + wire(two, vnet))[: len(wire(one, vnet))]
    assert wire(reference.qemu.links["outdev"].take(1)[0], vnet) == mixed

    ours.links["primary_in"].sock.sendall(wire(one, vnet) + half)
    assert ours.links["outdev"].take(1) == [one]
    received += len(wire(one, vnet))
    until(
        lambda: ours.counter("primary_in", "received_bytes") == received,
        "the whole frame is taken",
    )
    ours.links["primary_in"].close()
    ours.connect("primary_in").send(two)
    assert ours.links["outdev"].take(1) == [two]
    assert ours.links["notify"].take(1) == [ASK]
    assert ours.counter("primary_in", "partial_bytes") in (0, len(half))  # 0: cut off before it was read
    assert ours.counter("c0", "links_lost") == lost + 1


def test_a_frame_over_the_largest(pair: tuple[Reference, Pipeline], vnet: bool) -> None:
    """L of 69,633: QEMU reads that input no more, ever; ours drops the connection, and takes the next one."""
    reference, ours = pair
    good, bad = arp_frame(SERVER, CLIENT), bytes(qemu.MAX_FRAME + 1)
    link = reference.qemu.links["primary_in"]
    link.send(good)
    assert reference.qemu.links["outdev"].take(1) == [good]
    link.sock.sendall(wire(bad, vnet))  # QEMU looks when its buffer is full
    until(lambda: "primary_in error" in reference.qemu.said(), "QEMU's complaint")
    assert "oversized" in reference.qemu.said()
    link.send(good)
    assert reference.qemu.links["outdev"].take(quiet=0.3) == []

    ours.links["primary_in"].send(good)
    assert ours.links["outdev"].take(1) == [good]
    ours.links["primary_in"].sock.sendall(wire(bad, vnet)[:4_096])
    until(lambda: ours.counter("primary_in", "bad_frames") == 1, "ours counts it")
    ours.links["primary_in"].close()
    ours.connect("primary_in").send(good)
    assert ours.links["outdev"].take(1) == [good]
    assert ours.links["notify"].take(1) == [ASK]
    assert "impossible frame length" in ours.running.text()


def test_frames_in_pieces(pair: tuple[Reference, Pipeline], vnet: bool) -> None:
    """Whatever the pieces in which a stream arrives: one byte at a time, the same frames."""
    reference, ours = pair
    frames = [udp_frame(SERVER, CLIENT, 53, 5000 + i, bytes(i)) for i in range(3)]
    stream = b"".join(wire(frame, vnet) for frame in frames)
    for links in (reference.qemu.links, ours.links):
        for side in ("primary_in", "secondary_in"):
            for i in range(len(stream)):
                links[side].sock.sendall(stream[i : i + 1])
        assert sorted(links["outdev"].take(3)) == sorted(frames)


@pytest.mark.parametrize("message", [b"COLO_CHECKPOINT\0", b"colo_checkpoint", b"DO_CHECKPOINT", b"X" * 2_000])
@pytest.mark.parametrize("vnet", [False, True], ids=["plain", "vnet"])
def test_a_message_that_means_nothing(vnet: bool, message: bytes) -> None:
    """It changes nothing in either; ours counts it."""
    reference, ours = Reference(vnet=vnet), Ours(vnet=vnet)
    try:
        frame = udp_frame(SERVER, CLIENT, 53, 5000, b"held")
        for one in (reference, ours):
            one.feed("primary_in", frame)
            assert one.settle().out == []
        reference.tell(message)
        ours.rig.feed("notify_in", message)
        reference.tell(HELLO)  # an answer says that what came before it was read
        assert reference.qemu.links["notify"].take(1) == [INIT]
        assert (reference.settle().out, ours.settle().out) == ([], [])
        assert ours.books()["notify_unknown"] == 1
        assert reference.checkpoint().out == ours.checkpoint().out == [frame]
    finally:
        reference.close()
        ours.close()
