"""chardev socket and netdev stream, with real sockets at the far end."""

from __future__ import annotations

import itertools
import select
import socket
import struct
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ring import layout
from stages.kind import Look
from stages.socket import shell as link
from stages.socket.layout import options
from tests.peers import ETHERNET, collect, die, join, links, read, server, turn, until, up, wire
from tests.rig import Rig

# --- bytes to frames and back -----------------------------------------------------------------------------------


def test_frames_go_both_ways(tmp_path):
    with server(tmp_path / "s") as (rig, connect):
        assert rig.stage.ready()
        peer = connect()
        peer.sendall(wire(b"one", b"two" * 400))
        assert collect(rig, 2) == [b"one", b"two" * 400]
        rig.feed("send", b"three", b"")
        assert read(rig, peer, 13) == wire(b"three", b"")
        counters = rig.counters()
        assert (counters["receive_frames"], counters["send_frames"]) == (2, 2)
        assert (counters["received_bytes"], counters["sent_bytes"]) == (3 + 1200 + 8, 13)


def test_one_byte_at_a_time_gives_the_same_frames_and_none_early(tmp_path):
    with server(tmp_path / "s") as (rig, connect):
        peer = connect()
        frames = [b"a", b"", b"bc" * 9]
        data, ends = wire(*frames), [5, 9, 31]
        for i in range(len(data)):
            peer.send(data[i : i + 1])
            until(rig, lambda i=i: rig.stage.w[options.FILLED] == i + 1)
            assert rig.counters()["receive_frames"] == sum(end <= i + 1 for end in ends)
        assert collect(rig, 3) == frames


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_split_of_the_stream_gives_the_same_frames(tmp_path_factory, data):
    v = data.draw(st.sampled_from((None, 0, 10)))
    sizes = st.integers(0 if v is None else v, 300)
    frames = [bytes([i % 251]) * n for i, n in enumerate(data.draw(st.lists(sizes, min_size=1, max_size=20)))]
    stream = wire(*frames, v=v)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    path = tmp_path_factory.mktemp("any") / "s"
    vnet = {} if v is None else {"vnet": ("send", "receive")}
    with server(path, ring_size=1 << 13, **vnet) as (rig, connect):
        peer, got = connect(), []
        for start, stop in itertools.pairwise([0, *cuts, len(stream)]):
            peer.sendall(stream[start:stop])
            rig.run()
            got += rig.take("receive")
        got += collect(rig, len(frames) - len(got))
        assert got == frames
        assert rig.stage.w[options.FILLED] == rig.rings["receive"].w[layout.TAIL]


def test_a_burst_larger_than_the_ring_waits_in_the_socket(tmp_path):
    frames = [bytes([i % 251]) * (i % 1400) for i in range(400)]
    with server(tmp_path / "s", ring_size=1 << 14) as (rig, connect):
        peer, data = join(rig, connect()), wire(*frames)
        peer.setblocking(False)
        while data:  # as much as the socket takes while nobody reads the ring
            try:
                data = data[peer.send(data) :]
            except BlockingIOError:
                break
            rig.run()
        rig.run()
        assert rig.segment.w[layout.BLOCKED] == 1
        assert rig.rings["receive"].size - 1404 < rig.rings["receive"].used <= rig.rings["receive"].size
        got: list[bytes] = []

        def more() -> bool:
            nonlocal data
            got.extend(rig.take("receive"))
            if data:
                with suppress(BlockingIOError):
                    data = data[peer.send(data) :]
            return len(got) == len(frames)

        until(rig, more)
        assert got == frames


def test_a_slow_reader_gets_everything_in_order(tmp_path):
    frames = [bytes([i % 251]) * 1400 for i in range(3000)]
    with server(tmp_path / "s", ring_size=1 << 16) as (rig, connect):
        peer = join(rig, connect())
        peer.setblocking(False)
        rig.stage._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        left, got, short = list(frames), bytearray(), False
        expected = wire(*frames)
        while len(got) < len(expected):
            while left and rig._producers["send"].try_send(left[0]):
                left.pop(0)
            moved = rig.run()
            fd = rig.stage._sock.fileno()
            waiting = bool(rig.watched[fd][0] & select.EPOLLOUT)
            short = short or waiting
            if not moved:  # only when the stage can go no further does the reader take a little
                assert waiting or not left
                got += peer.recv(70_001)
        assert short
        assert got == expected
        until(rig, lambda: not rig.watched[rig.stage._sock.fileno()][0] & select.EPOLLOUT)


# --- connections ------------------------------------------------------------------------------------------------


def test_link_words_count_both_edges(tmp_path):
    with server(tmp_path / "s") as (rig, connect):
        before = links(rig)
        assert all(word % 2 == 0 for word in before)
        join(rig, connect()).close()
        until(rig, lambda: rig.counters()["disconnects"] == 1)
        assert links(rig) == [word + 2 for word in before]
        join(rig, connect())
        assert links(rig) == [word + 3 for word in before]
        die(rig)
        rig.restart()
        assert links(rig) == [word + 4 for word in before]


def test_frames_wait_while_nobody_is_connected(tmp_path):
    with server(tmp_path / "s") as (rig, connect):
        rig.feed("send", b"early")
        rig.run()
        assert rig.rings["send"].used == 9
        assert read(rig, connect(), 9) == wire(b"early")


def test_a_second_peer_waits_in_the_backlog(tmp_path):
    with server(tmp_path / "s") as (rig, connect):
        first, second = connect(), connect(wait=False)
        second.sendall(wire(b"second"))
        first.sendall(wire(b"first"))
        assert collect(rig, 1) == [b"first"]
        turn(rig)
        assert rig.counters()["connects"] == 1
        first.close()
        assert collect(rig, 1) == [b"second"]


def test_what_the_peer_sent_before_it_closed_is_not_lost(tmp_path):
    frames = [b"x" * 1000] * 60
    with server(tmp_path / "s", ring_size=1 << 12) as (rig, connect):
        peer = connect()
        peer.sendall(wire(*frames) + b"\0\0\0\5pa")
        peer.close()
        rig.feed("send", b"answer")  # fails: there is nobody any more
        assert collect(rig, 60) == frames
        until(rig, lambda: rig.counters()["disconnects"] == 1)
        assert rig.counters()["partial_bytes"] == 6


def test_a_frame_cut_off_by_the_peers_death_is_sent_again_from_its_start(tmp_path):
    frames = [bytes([i]) * 60_000 for i in range(4)]
    with server(tmp_path / "s", ring_size=1 << 18) as (rig, connect):
        peer = join(rig, connect())
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        rig.stage._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        rig.feed("send", *frames)
        rig.run()
        sent, head = int(rig.stage.w[options.SENT]), int(rig.rings["send"].w[layout.HEAD])
        assert head < sent
        whole = rig.counters()["send_frames"]
        peer.close()
        until(rig, lambda: rig.counters()["disconnects"] == 1)
        rest = wire(*frames[whole:])
        assert read(rig, connect(), len(rest)) == rest
        assert rig.counters()["resent_bytes"] == sent - head


def test_a_frame_cut_off_while_received_is_dropped_whole(tmp_path):
    with server(tmp_path / "s") as (rig, connect):
        peer = connect()
        peer.sendall(wire(b"good", b"cut off")[:-2])
        assert collect(rig, 1) == [b"good"]
        peer.close()
        until(rig, lambda: rig.counters()["disconnects"] == 1)
        connect().sendall(wire(b"next"))
        assert collect(rig, 1) == [b"next"]
        assert rig.counters()["partial_bytes"] == 9


def test_a_new_incarnation_goes_on_at_a_frame_boundary_both_ways(tmp_path):
    with server(tmp_path / "s") as (rig, connect):
        peer = connect()
        peer.sendall(wire(b"before", b"half")[:-2])
        until(rig, lambda: rig.stage.w[options.FILLED] == 16)
        rig.feed("send", b"kept")
        die(rig)
        rig.restart()
        assert not up(rig)
        peer = connect()
        peer.sendall(wire(b"after"))
        assert collect(rig, 2) == [b"before", b"after"]
        assert read(rig, peer, 8) == wire(b"kept")
        assert rig.counters()["connects"] == 2


@pytest.mark.parametrize("ports", [("send",), ("receive",)])
def test_either_port_may_be_missing(tmp_path, ports):
    with server(tmp_path / "s", ports=ports) as (rig, connect):
        peer = connect()
        peer.sendall(wire(ETHERNET))
        if ports == ("send",):
            rig.feed("send", b"out")
            assert read(rig, peer, 7) == wire(b"out")
            until(rig, lambda: rig.counters()["unread_bytes"] == len(ETHERNET) + 4)
        else:
            assert collect(rig, 1) == [ETHERNET]
        peer.close()
        until(rig, lambda: rig.counters()["disconnects"] == 1)


def _shown(rig: Rig) -> str:
    """What the live view says of the stage."""
    return rig.kind.shows(Look(rig.params, rig.counters(), rig.segment.scalars(), 0)).short


def test_bytes_that_nobody_reads_are_told_once_and_seen_until_their_peer_goes(tmp_path):
    used = {"writer": "filter.m0.outdev", "readers": "c1 (compare.comp0.secondary_in)"}
    with structlog.testing.capture_logs() as logs, server(tmp_path / "s", ports=("send",), **used) as (rig, connect):
        for first, said in (
            (wire(ETHERNET), "its peer sends frames, and nothing here reads them: this link is filter.m0.outdev; its"),
            (b"hello", "its peer sends bytes, and nothing here reads them: this link is filter.m0.outdev; look at"),
        ):
            logs.clear()
            assert rig.counters()["unread_peer"] == 0
            peer = connect()
            before = rig.counters()["unread_bytes"]
            for sent in range(1, 4):  # the later ones are nothing new
                peer.sendall(first)
                want = before + sent * len(first)
                until(rig, lambda want=want: rig.counters()["unread_bytes"] == want)
            (line,) = [line for line in logs if line["log_level"] == "warning"]
            assert line["event"] == "bytes arrive on a link that nothing here reads"
            assert line["hint"].startswith(said)
            assert rig.counters()["unread_peer"] == 1
            assert _shown(rig) == "unread bytes"
            peer.close()
            until(rig, lambda: not up(rig))
        assert _shown(rig) == ""


def test_wait_makes_readiness_wait_for_a_peer(tmp_path):
    with server(tmp_path / "s", wait=True) as (rig, connect):
        assert not rig.stage.ready()
        connect()
        assert rig.stage.ready()


def test_ring_framing_must_be_the_wires(tmp_path):
    rig = object.__new__(Rig)
    with pytest.raises(ValueError, match="ring receive has VNET=1"):
        rig.__init__(
            "chardev-socket", {"path": str(tmp_path / "s"), "vnet": False}, ports=("receive",), vnet=("receive",)
        )
    rig.stage = type("None_", (), {"on_close": lambda self: None, "detach": lambda self: None})()
    rig.close()


# --- impossible bytes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "vnet", "length"),
    [
        (struct.pack(">I", layout.MAX_FRAME + 1), False, layout.MAX_FRAME + 1),
        (b"\xff\xff\xff\xff1234", False, 0xFFFFFFFF),
        (struct.pack(">II", 60, 61), True, 60),
        (struct.pack(">I", 60_000), False, 60_000),  # more than this ring can ever hold
    ],
)
def test_an_impossible_frame_drops_the_connection_after_the_good_ones(tmp_path, data, vnet, length):
    more = {"vnet": ("send", "receive")} if vnet else {}
    good = wire(ETHERNET, v=0 if vnet else None)
    with structlog.testing.capture_logs() as logs, server(tmp_path / "s", ring_size=1 << 14, **more) as (rig, connect):
        peer = connect()
        peer.sendall(good + data)
        assert collect(rig, 1) == [ETHERNET]
        until(rig, lambda: rig.counters()["bad_frames"] == 1)
        assert peer.recv(1) == b""
        connect().sendall(good)
        assert collect(rig, 1) == [ETHERNET]
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert (line["link"], line["length"], line["position"]) == ("it", length, len(good))
    assert line["first_bytes"] == data.hex(" ")


def first_warning(path: Path, data: bytes, **more: Any) -> str | None:
    with structlog.testing.capture_logs() as logs, server(path, ports=("receive",), **more) as (rig, connect):
        before = rig.stage.w[options.FILLED]
        connect().sendall(data)
        until(rig, lambda: rig.stage.w[options.FILLED] >= before + len(data) or rig.counters()["bad_frames"])
    hints = [line["hint"] for line in logs if "hint" in line]
    assert len(hints) <= 1
    return hints[0] if hints else None


def test_the_first_frame_is_looked_at_and_explained_once(tmp_path):
    assert first_warning(tmp_path / "a", wire(ETHERNET, ETHERNET)) is None
    assert "vnet_hdr_support" in (first_warning(tmp_path / "b", wire(b"\0" * 12 + ETHERNET, v=12)) or "")
    assert "vnet_hdr_support" in (first_warning(tmp_path / "c", wire(ETHERNET), vnet=("receive",)) or "")
    assert "notify_dev" in (first_warning(tmp_path / "d", wire(b"COLO_CHECKPOINT")) or "")
    assert first_warning(tmp_path / "e", wire(b"COLO_CHECKPOINT"), text=True) is None


# --- drain ------------------------------------------------------------------------------------------------------


def test_drain_takes_no_more_and_sends_all_that_came(tmp_path):
    with server(tmp_path / "s") as (rig, connect):
        peer = connect()
        rig.command(layout.CMD_DRAIN, 1)
        rig.feed("send", b"last")
        peer.sendall(wire(b"too late"))
        until(rig, lambda: rig.rings["send"].used == 0)
        assert read(rig, peer, 8) == wire(b"last")
        assert rig.take("receive") == []


def test_drain_without_a_peer_keeps_what_waits(tmp_path):
    with server(tmp_path / "s") as (rig, _connect):
        rig.command(layout.CMD_DRAIN, 1)
        rig.feed("send", b"kept")
        rig.run()
        assert rig.rings["send"].used > 0


@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_closing_hands_over_what_is_left(tmp_path, monkeypatch, family):
    for limit in ("_FLUSH_S", "_LINGER_S"):  # of a stage that must not hold the end of its pipeline up
        monkeypatch.setattr(link, limit, 60.0)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    where = {"path": str(tmp_path / "s")} if family == "unix" else {"host": "127.0.0.1", "port": port}
    rig = Rig("chardev-socket", {**where, "server": True})
    with closing(socket.socket(socket.AF_UNIX if family == "unix" else socket.AF_INET)) as peer:
        turn(rig)
        peer.connect(where.get("path") or ("127.0.0.1", port))
        peer.sendall(b"\0\0\0\x50unread")
        until(rig, lambda: up(rig))
        frames = [bytes([i]) * 1000 for i in range(100)]
        rig.feed("send", *frames)
        rig.close()
        got = bytearray()
        while more := peer.recv(1 << 20):
            got += more
        assert got == wire(*frames)
