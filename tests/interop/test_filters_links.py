"""Filters as whole processes: full speed, slow readers, reconnects, both roles, unix and TCP, and bad input.

QEMU's filters and a pipeline of ours get the same bytes on the same kinds of sockets.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.filters_feed import TALLY, Outputs, Theirs, marked, needs_qemu, receive, scenario, sending
from tests.interop.filters_pipeline import Piped, chardev, filter_table, free_port, qemu_filters
from tests.interop.filters_talk import Talk
from tests.packets import ACK
from tests.pipeline.running import until
from tools import qemu

__all__ = ["scenario"]
pytestmark = needs_qemu
PLAIN = {"net": False, "guest": False}


@pytest.fixture(scope="module")
def mirrors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Theirs, Piped]]:
    """A mirror of both directions, QEMU's and ours."""
    tables = [chardev("outdev"), filter_table("m0", "filter-mirror", outdev='"outdev"', stall_timeout="0")]
    theirs = Theirs(["filter-mirror,id=f0,outdev=outdev"], ["outdev"])
    try:
        with Piped(tmp_path_factory.mktemp("mirrors"), tables, {**PLAIN, "outdev": False}) as ours:
            yield theirs, ours
    finally:
        theirs.close()


@pytest.fixture(scope="module")
def redirectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Theirs, Piped]]:
    """tx: indev and outdev with vnet_hdr_support, QEMU's and ours."""
    both = {"indev": '"indev"', "outdev": '"outdev"', "queue": '"tx"', "vnet_hdr_support": "true"}
    tables = [chardev("indev"), chardev("outdev"), filter_table("r0", "filter-redirector", **both)]
    theirs = Theirs([DEAF], ["indev", "outdev"], vnet=True)
    try:
        with Piped(tmp_path_factory.mktemp("redir"), tables, {**PLAIN, "indev": True, "outdev": True}) as ours:
            yield theirs, ours
    finally:
        theirs.close()


DEAF = "filter-redirector,id=f0,queue=tx,indev=indev,outdev=outdev,vnet_hdr_support=on"


def read_up_to(link: qemu.Link, last: bytes) -> list[bytes]:
    """Everything until ``last`` has come."""
    came: list[bytes] = []
    until(lambda: came.extend(link.take(quiet=0.001)) or last in came, "the last frame")
    return came


def at_full_speed(links: dict[str, qemu.Link], frames: Outputs, counts: dict[str, int]) -> Outputs:
    """All inputs at once, all outputs."""
    with sending(links, frames):
        return receive(links, counts)


def test_a_mirror_at_full_speed_gives_the_same_three_streams(mirrors: tuple[Theirs, Piped]) -> None:
    sizes = [60, 1, 1514, 9000, 300, 69_632]
    frames = {port: [marked(port, i, sizes[i % 6])[: sizes[i % 6]] for i in range(400)] for port in ("net", "guest")}
    counts = {"net": 400, "guest": 400, "outdev": 800}
    theirs, ours = (at_full_speed(one.links, frames, counts) for one in mirrors)
    for got in (theirs, ours):
        assert got["guest"] == frames["net"]
        assert got["net"] == frames["guest"]
        assert sorted(got["outdev"]) == sorted(frames["net"] + frames["guest"])
        of_net = [f for f in got["outdev"] if b"net" in f[14:20]]
        assert of_net == [f for f in frames["net"] if b"net" in f[14:20]]


def test_a_slow_reader_of_the_copies_holds_the_chain_and_loses_nothing(mirrors: tuple[Theirs, Piped]) -> None:
    """4 MB go in, far more than sockets and rings hold, while outdev is not read."""
    frames = {"net": [marked("net", i, 1400) for i in range(3000)]}
    for one in mirrors:
        with sending(one.links, frames):
            got = receive(one.links, {"guest": 50})["guest"]
            assert len(got) < 3000
            rest = receive(one.links, {"guest": 3000 - len(got), "outdev": 3000})
        assert got + rest["guest"] == rest["outdev"] == frames["net"]


def test_a_peer_of_outdev_that_comes_back_begins_with_a_whole_frame(mirrors: tuple[Theirs, Piped]) -> None:
    """The reader leaves in the middle of a large frame; what the next one reads are whole frames, in order."""
    big = [marked("net", i, 60_000) for i in range(6)]
    for one in mirrors:
        with sending(one.links, {"net": big}):
            got = receive(one.links, {"guest": 3})["guest"]  # the socket behind outdev holds three of them and a piece
            assert one.links["outdev"].sock.recv(1000)
            one.drop("outdev")
            one.join("outdev")
            assert got + receive(one.links, {"guest": 6 - len(got)})["guest"] == big
        last = marked("net", 20)
        one.links["net"].send(last)
        assert receive(one.links, {"guest": 1})["guest"] == [last]
        came = read_up_to(one.links["outdev"], last)
        assert [f for f in [*big, last] if f in came] == came


@pytest.mark.parametrize("port", ["net", "guest"])
def test_a_netdevs_peer_cut_off_in_a_frame_comes_back_and_goes_on(mirrors: tuple[Theirs, Piped], port: str) -> None:
    """Half a frame is dropped with its connection, in QEMU as in ours; the next connection starts with a frame."""
    theirs, ours = mirrors
    other = "guest" if port == "net" else "net"
    whole, later = marked(port, 1), marked(port, 2)
    half = (500).to_bytes(4, "big") + whole
    before = ours.counter(ours.stage(port), "partial_bytes")
    theirs.links[port].send(whole)
    theirs.links[port].sock.sendall(half)
    assert receive(theirs.links, {other: 1, "outdev": 1}) == {other: [whole], "outdev": [whole]}
    theirs.links.pop(port).close()
    theirs.q.qmp.wait_events("NETDEV_STREAM_DISCONNECTED", 1 + (port == "guest"))
    theirs.links[port] = qemu.connect(port, Path(theirs.q._folder.name) / port)
    ours.links[port].send(whole)
    ours.links[port].sock.sendall(half)
    assert receive(ours.links, {other: 1, "outdev": 1}) == {other: [whole], "outdev": [whole]}
    ours.drop(port)
    ours.join(port)
    assert ours.counter(ours.stage(port), "partial_bytes") == before + len(half)
    for one in mirrors:
        one.links[port].send(later)
        assert receive(one.links, {other: 1, "outdev": 1}) == {other: [later], "outdev": [later]}


def test_the_bytes_on_outdev_are_qemus_the_length_words_included(redirectors: tuple[Theirs, Piped]) -> None:
    """With vnet_hdr_support a frame without a virtio-net header has V = 0."""
    frame, raw = marked("net", 7), []
    for one in redirectors:
        one.links["net"].send(frame)
        data = b""
        while len(data) < 8 + len(frame):
            more = one.links["outdev"].sock.recv(8 + len(frame) - len(data))
            assert more
            data += more
        raw.append(data)
    assert raw == [len(frame).to_bytes(4, "big") + bytes(4) + frame] * 2


def test_row_half_a_frame_on_indev_qemu_reads_no_more_ours_goes_on(redirectors: tuple[Theirs, Piped]) -> None:
    """Row: links, "cut off in the middle of a frame"."""
    theirs, ours = redirectors
    half = (500).to_bytes(4, "big") + bytes(4) + b"half"
    frame = marked("indev", 1)
    for one in redirectors:
        one.links["indev"].sock.sendall(half)
        one.drop("indev")
        one.join("indev")
    assert theirs.silent("indev", frame) == {}
    ours.links["indev"].send(frame)
    assert receive(ours.links, {"guest": 1}) == {"guest": [frame]}
    assert ours.counter("indev", "partial_bytes") >= len(half)
    TALLY.note("redirector: indev whose peer came back")


# --- bad input --------------------------------------------------------------------------------------------------
BAD: list[tuple[str, bytes, int]] = [
    ("L over 69,632", (69_633).to_bytes(4, "big") + bytes(4), 69_633),
    ("L of 4 GiB", b"\xff\xff\xff\xff" + bytes(4), 0xFFFF_FFFF),
    ("V over L", (20).to_bytes(4, "big") + (21).to_bytes(4, "big"), 20),
    ("V of 4 GiB", (20).to_bytes(4, "big") + b"\xff\xff\xff\xff", 20),
]


@pytest.mark.parametrize(("name", "head", "length"), BAD, ids=[name for name, _, _ in BAD])
def test_row_an_impossible_length_on_indev_is_one_line_and_a_new_connection(
    redirectors: tuple[Theirs, Piped], name: str, head: bytes, length: int
) -> None:
    """Row: links, "a length over 69,632, or one that V contradicts": named, dropped, tried again, counted."""
    _, ours = redirectors
    good = [marked("indev", i) for i in range(3)]
    bad = ours.counter("indev", "bad_frames")
    ours.drop("indev")
    ours.join("indev")
    ours.links["indev"].send(*good)
    ours.links["indev"].sock.sendall(head + bytes(20))
    assert receive(ours.links, {"guest": 3}) == {"guest": good}
    until(lambda: ours.counter("indev", "bad_frames") == bad + 1, "the bad frame is counted")
    until(lambda: len(ours.lines("impossible frame length, connection dropped")) > bad, "its line is in the log")
    line: dict[str, Any] = ours.lines("impossible frame length, connection dropped")[-1]
    assert (line["link"], line["length"], line["level"]) == ("indev", length, "error")
    assert line["position"] == sum(len(f) + 8 for f in good)
    assert bytes.fromhex(line["first_bytes"]).startswith(head)
    assert len(ours.lines("impossible frame length, connection dropped")) == bad + 1
    ours.links.pop("indev").close()
    ours.join("indev")
    ours.links["indev"].send(*good)
    assert receive(ours.links, {"guest": 3}) == {"guest": good}
    TALLY.note(f"links: {name}")


def test_row_an_impossible_length_on_a_netdev_is_dropped_by_both_and_named_by_ours(
    redirectors: tuple[Theirs, Piped],
) -> None:
    """Row: links.  A stream netdev of QEMU drops the connection, too, and takes the next one."""
    bad, good = (69_633).to_bytes(4, "big") + bytes(69_633), marked("guest", 1)
    with qemu.filters([]) as q:
        q.links["guest"].sock.sendall(bad)
        q.qmp.wait_events("NETDEV_STREAM_DISCONNECTED", 1)
        assert "oversized packet" in q.said()
        q.links["guest"].close()
        q.links["guest"] = qemu.connect("guest", Path(q._folder.name) / "guest")
        q.links["guest"].send(good)
        assert receive(q.links, {"net": 1}) == {"net": [good]}
    _, ours = redirectors
    ours.links["guest"].sock.sendall(bad[:100])
    until(lambda: ours.counter("hn0.guest", "bad_frames") == 1, "the bad frame is counted")
    assert ours.lines("impossible frame length, connection dropped")[-1]["link"] == "hn0.guest"
    ours.links.pop("guest").close()
    ours.join("guest")
    ours.links["guest"].send(good)
    assert receive(ours.links, {"net": 1}) == {"net": [good]}


def test_row_an_oversized_frame_on_indev_qemu_says_so_and_reads_it_no_more() -> None:
    """What QEMU does of the rows above: it notices once more than 69,632 bytes came, and stays deaf for ever."""
    theirs = Theirs([DEAF], ["indev", "outdev"], vnet=True)
    try:
        theirs.links["indev"].sock.sendall((69_633).to_bytes(4, "big") + bytes(4 + 69_633))
        theirs.turned()
        until(lambda: theirs.turned() == {} and "oversized packet" in theirs.q.said(), "QEMU complains")
        theirs.drop("indev")
        theirs.join("indev")
        assert theirs.silent("indev", marked("indev", 1)) == {}
        assert theirs.step("net", marked("net", 1)) == {"outdev": [marked("net", 1)]}
    finally:
        theirs.close()


@pytest.mark.parametrize("v", [21, 10_000, 0xFFFF_FFFF])
def test_row_v_over_l_qemu_takes_no_notice(v: int) -> None:
    """What QEMU does of the rows above: V is not looked at, the frame enters the chain whole."""
    theirs = Theirs([DEAF], ["indev", "outdev"], vnet=True)
    try:
        assert theirs.step("indev", b"twenty bytes of frame", v=v) == {"guest": [b"twenty bytes of frame"]}
    finally:
        theirs.close()


def test_row_an_empty_frame_stops_qemus_chain_for_ever_and_passes_ours(redirectors: tuple[Theirs, Piped]) -> None:
    """Row: bad packets.  L = 0 comes out of both; nothing comes out behind it of QEMU."""
    theirs, after = Theirs(["filter-redirector,id=f0,queue=tx,indev=indev"], ["indev"]), marked("indev", 1)
    try:
        theirs.links["indev"].send(b"", after)
        assert receive(theirs.links, {"guest": 1}) == {"guest": [b""]}
        assert theirs.silent("indev", after) == {}
        assert theirs.silent("net", after) == {}
        assert theirs.step("guest", after) == {"net": [after]}
    finally:
        theirs.close()
    _, ours = redirectors
    ours.links["indev"].send(b"", after, b"", after)
    assert receive(ours.links, {"guest": 4}) == {"guest": [b"", after, b"", after]}
    TALLY.note("links: an empty frame")


# --- QEMU's filter at the other end of our link -----------------------------------------------------------------
@pytest.mark.parametrize("transport", ["unix", "tcp"])
@pytest.mark.parametrize(("qemu_serves", "vnet"), [(True, False), (False, True)])
def test_our_mirror_feeds_qemus_redirector_and_qemus_mirror_feeds_ours(
    tmp_path: Path, transport: str, qemu_serves: bool, vnet: bool
) -> None:
    """Both roles and both transports, in both directions at once, at full speed; frames of every size."""
    where = {}
    for name in ("there", "back"):
        port, path = free_port(), tmp_path / name
        ends = (f'path = "{path}"', f"path={path}") if transport == "unix" else (
            f'host = "127.0.0.1"\nport = {port}', f"host=127.0.0.1,port={port}"
        )  # fmt: skip
        where[name] = (ends[0], ends[1] + (",server=on,wait=off" if qemu_serves else ",reconnect=1"))
    flag, theirs_flag = {"vnet_hdr_support": str(vnet).lower()}, ",vnet_hdr_support=on" * vnet
    tables = [
        *(chardev(name, where[name][0], server=not qemu_serves) for name in where),
        filter_table("m0", "filter-mirror", queue='"tx"', outdev='"there"', **flag),
        filter_table("r0", "filter-redirector", queue='"rx"', indev='"back"', **flag),
    ]
    objects = [
        f"filter-redirector,id=r0,queue=rx,indev=there{theirs_flag}",
        f"filter-mirror,id=m0,queue=tx,outdev=back{theirs_flag}",
    ]
    sizes = [60, 1514, 1, 300, 69_632]
    frames = [marked("net", i, sizes[i % 5])[: sizes[i % 5]] for i in range(200)]
    with (
        Piped(tmp_path, tables, PLAIN) as ours,
        qemu_filters(objects, {name: ends[1] for name, ends in where.items()}) as theirs,
    ):
        for name in where:
            until(lambda name=name: not ours.run.stage(name)["link"], name)
        for source, links in (("ours", ours.links), ("theirs", theirs.links)):
            other = theirs.links if source == "ours" else ours.links
            with sending(links, {"net": frames}):
                both = {"guest": links["guest"], "net": other["net"]}
                assert receive(both, {"guest": 200, "net": 200}) == {"guest": frames, "net": frames}


def test_a_rewriter_as_a_process_gives_what_qemus_gives(tmp_path: Path) -> None:
    """Connections one after the other through the whole pipeline; then all their data at full speed."""
    talks = [Talk((i, i * 1_000_003, i * 77_777_777)) for i in range(5)]
    up = [t.up(ACK, 1 + i, 1 + i, bytes(i)) for i in range(40) for t in talks]
    down = [t.down(ACK, 1 + i, 1 + i, bytes(i)) for i in range(40) for t in talks]
    theirs = Theirs(["filter-rewriter,id=f0,queue=all"])
    try:
        with Piped(tmp_path, [filter_table("w0", "filter-rewriter")], PLAIN) as ours:
            for one in (theirs, ours):
                for t in talks:
                    for s in t.handshake():
                        one.links[s.port].send(s.sent)
                        assert receive(one.links, {s.out: 1}) == {s.out: [s.right]}
                frames = {"net": [s.sent for s in up], "guest": [s.sent for s in down]}
                got = at_full_speed(one.links, frames, {"guest": 200, "net": 200})
                assert got == {"guest": [s.right for s in up], "net": [s.right for s in down]}
            assert ours.counter("w0", "connections") == 5
    finally:
        theirs.close()


def test_clients_are_served_while_a_secondary_reads_nothing(tmp_path: Path) -> None:
    """A QEMU in -incoming reads no netdev: what the socket and the rings take is all that waits for it."""
    tables = [chardev("outdev"), filter_table("m0", "filter-mirror", outdev='"outdev"', stall_timeout="100")]
    many = [marked("net", i, 1500) for i in range(8000)]  # more than twice what is on the way at most
    with Piped(tmp_path, tables, {**PLAIN, "outdev": False}) as ours:
        assert at_full_speed_to_guest(ours, many) == many
        dropped = ours.counter("m0", "dropped_stalled")
        assert dropped > 0
        copies = receive(ours.links, {"outdev": len(many) - dropped})["outdev"]
        assert copies == sorted(set(copies), key=many.index)
        last = marked("net", 8000, 1500)
        ours.links["net"].send(last)
        assert receive(ours.links, {"guest": 1, "outdev": 1}) == {"guest": [last], "outdev": [last]}
        until(lambda: ours.lines("outdev takes copies again"), "the line")
        assert len(ours.lines("outdev takes nothing: copies are dropped until it does")) == 1


def at_full_speed_to_guest(ours: Piped, frames: list[bytes]) -> list[bytes]:
    """What the guest gets; nobody reads the copies."""
    with sending(ours.links, {"net": frames}):
        return receive(ours.links, {"guest": len(frames)})["guest"]
