"""What a full queue does: QEMU's colo-compare loses or turns round what ours keeps."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

import pytest

from tests.interop.compare_pair import DONE, MS, SERVER, Ours, Reference, unread
from tests.interop.compare_rows import Row, row
from tests.packets import arp_frame, ether, udp_frame
from tools import qemu

pytestmark = pytest.mark.skipif(not qemu.available(), reason=f"needs Debian's package {qemu.PACKAGE}")


@row(Row.AHEAD)
def test_one_flow_far_ahead(row: Row) -> None:
    """1,300 datagrams before the secondary says anything: QEMU keeps 1,025, the client never gets the others."""
    frames = [udp_frame(SERVER, "10.0.0.1", 53, 5000, b"%d" % i) for i in range(1_300)]
    with closing(Reference()) as reference, closing(Ours()) as ours:
        for side in (reference, ours):
            side.feed("primary_in", *frames)
        assert reference.settle().out == [] and ours.settle().out == []
        assert Counter(reference.checkpoint().out) == Counter(frames[:1_025])
        assert ours.books()["held_primary"] == 1_024  # the others wait in the ring: back-pressure
        out = ours.checkpoint().out
        assert ours.books()["held_primary"] == 1_300 - 1_024
        assert out + ours.checkpoint().out == frames


@row(Row.TABLE)
def test_one_connection_more_than_the_table_holds(row: Row) -> None:
    """QEMU forgets them all and frees what it holds unsent; ours forgets an idle one and keeps what it holds."""
    waiting = udp_frame(SERVER, "10.0.0.1", 53, 5000, b"held since before")
    others = [udp_frame(SERVER, f"10.9.{i >> 8}.{i & 255}", 53, 5000, b"x") for i in range(16_500)]
    with closing(Reference()) as reference, closing(Ours(max_connections=16_384, hold_memory=16 << 20)) as ours:
        shown = []
        for one in (reference, ours):
            one.feed("primary_in", waiting)
            got = one.settle().out
            for i in range(0, len(others), 100):
                for side in ("primary_in", "secondary_in"):
                    one.feed(side, *others[i : i + 100])
                got += one.drain().out if one is reference else one.settle().out
            shown.append((len(Counter(others) - Counter(got)), one.checkpoint().out))
        lost, flushed = shown[0]
        assert 0 < lost <= 100, "QEMU has lost those that were held when it wiped its table"
        assert flushed == []
        assert shown[1] == (0, [waiting])
        assert ours.books()["connections_evicted"] > 0


@row(Row.SLOW)
def test_a_slow_reader_on_outdev(row: Row) -> None:
    """Nobody reads while 600 frames pass: QEMU's come out newest first, ours in their order."""
    frames = [ether(i.to_bytes(4, "big") + bytes(1_000), 0x0806) for i in range(600)]
    with closing(Reference()) as reference, closing(Ours(ring_size=1 << 16)) as ours:
        link = reference.qemu.links["primary_in"]
        link.send(*frames)
        unread(link)  # QEMU has read them all, and nobody has read QEMU
        got = reference.qemu.links["outdev"].take(len(frames))
        first = next(i for i, (a, b) in enumerate(zip(got, frames, strict=True)) if a != b)
        assert 0 < first < 590
        assert got == frames[:first] + frames[first:][::-1]

        out: list[bytes] = []
        left = list(frames)
        while len(out) < len(frames):
            while left and ours.rig._producers["primary_in"].try_send(left[0]):
                del left[0]
            ours.rig.run(now=ours.now)  # until outdev is full
            out += ours.rig._consumers["outdev"].recv_many(7, timeout=0)
        assert out == frames


@row(Row.SLOW)
def test_a_slow_reader_when_a_checkpoint_flushes(row: Row) -> None:
    """What a checkpoint releases leaves ours in the order in which it came, too."""
    frames = [udp_frame(SERVER, "10.0.0.1", 53, 5000 + i % 7, bytes(1_000) + b"%d" % i) for i in range(600)]
    with closing(Reference()) as reference, closing(Ours(ring_size=1 << 20)) as ours:
        reference.feed("primary_in", *frames)
        reference.settle()
        got = reference.checkpoint().out
        assert Counter(got) == Counter(frames) and got != frames
        ours.feed("primary_in", *frames)
        ours.settle()
        ours.rig.feed("notify_in", DONE)
        assert ours.settle().out == frames


@row(Row.ONE_REQUEST)
def test_a_storm_of_requests(row: Row) -> None:
    """A hundred packets behind one divergence: a hundred requests of QEMU's, one of ours."""
    with closing(Reference()) as reference, closing(Ours()) as ours:
        for one, asks in ((reference, 101), (ours, 1)):
            one.feed("primary_in", udp_frame(SERVER, "10.0.0.1", 53, 5000, b"mine"))
            one.settle()
            one.feed("secondary_in", udp_frame(SERVER, "10.0.0.1", 53, 5000, b"hers"))
            seen = one.settle().asks
            if one is ours:
                seen += ours.settle(60 * MS).asks
            for i in range(100):
                one.feed("secondary_in", udp_frame(SERVER, "10.0.0.1", 53, 5000, b"%d" % i))
                seen += one.settle().asks
            assert seen == asks


def test_a_timeout_asks_both() -> None:
    """A packet whose counterpart does not come: each asks when ``compare_timeout`` is over, ours once."""
    frame = udp_frame(SERVER, "10.0.0.1", 53, 5000, b"nobody answers")
    hasty = Reference(compare_timeout=50, expired_scan_cycle=20)
    with closing(hasty) as reference, closing(Ours(compare_timeout=50)) as ours:
        reference.feed("primary_in", frame)
        # QEMU asks again at each look at its queues, so that there may be several by now.
        assert set(reference.qemu.links["notify"].take(1)) == {b"DO_CHECKPOINT"}
        ours.feed("primary_in", frame)
        assert ours.settle().asks == 0
        assert ours.settle(49 * MS).asks == 0
        assert ours.settle(2 * MS).asks == 1
        reference.tell(DONE)
        assert reference.qemu.links["outdev"].take(1) == [frame]
        assert ours.checkpoint().out == [frame]


def test_nothing_is_compared_with_what_a_checkpoint_dropped() -> None:
    """The secondary's packets from before a checkpoint are dropped in both."""
    old = udp_frame(SERVER, "10.0.0.1", 53, 5000, b"of the old epoch")
    arp = arp_frame(SERVER, "10.0.0.1")
    with closing(Reference()) as reference, closing(Ours()) as ours:
        for one in (reference, ours):
            one.feed("secondary_in", old)
            assert one.settle().out == []
            assert one.checkpoint().out == []
            one.feed("primary_in", old, arp)
            assert one.settle().out == [arp]
            assert one.checkpoint().out == [old]
