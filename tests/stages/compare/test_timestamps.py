"""colo-compare and TCP timestamps: what overtakes held segments does not make the client drop them as old (PAWS)."""

from __future__ import annotations

import pytest

from tests.packets import ACK, checksum_faults, opt_timestamp, read, vnet_header
from tests.rig import Rig
from tests.stages.compare.test_compare import DONE, PARAMS, check, handshake, rig, seg


def stamped(seq: int, data: bytes, stamp: int, nops: bytes = b"\1\1") -> bytes:
    return seg(seq, data, options=nops + opt_timestamp(stamp, 7))


def stamps(frames: list[bytes]) -> list[int]:
    assert all(not checksum_faults(frame) for frame in frames)
    return [int.from_bytes(read(frame).options[8][:4], "big") for frame in frames]


def compared(g: Rig, seq: int, data: bytes, stamp: int) -> None:
    """A segment that both have sent, and that has left."""
    g.feed("primary_in", stamped(seq, data, stamp))
    g.feed("secondary_in", stamped(seq, data, stamp + 1000))
    g.run(now=2)
    assert stamps(g.take("outdev")) == [stamp]


@pytest.mark.parametrize("nops", [b"", b"\1", b"\1\1", b"\1\1\1"])
@pytest.mark.parametrize("old", [10, 0xFFFFFFF0])
def test_held_segments_look_no_older_than_what_was_sent_again(old: int, nops: bytes) -> None:
    """Wherever the option lies, across the wrap of the clock; bytes and checksums are right."""
    again = (old + 50) & 0xFFFFFFFF
    with rig() as g:
        handshake(g)
        compared(g, 1001, b"lost on the way", old)
        g.feed("primary_in", stamped(1016, b"held", (old + 1) & 0xFFFFFFFF, nops))
        g.run(now=3)
        assert g.take("outdev") == []
        g.feed("primary_in", stamped(1001, b"lost on the way", again))
        g.run(now=4)
        assert stamps(g.take("outdev")) == [again]
        g.feed("secondary_in", stamped(1016, b"held", 2000))
        g.run(now=5)
        out = g.take("outdev")
        assert stamps(out) == [again] and read(out[0]).payload == b"held" and read(out[0]).options[8][4:] == b"\0\0\0\7"
        g.feed("primary_in", stamped(1020, b"next", (again + 1) & 0xFFFFFFFF))
        g.feed("secondary_in", stamped(1020, b"next", 3000))
        g.run(now=6)
        assert stamps(g.take("outdev")) == [(again + 1) & 0xFFFFFFFF]
        check(g)


def test_what_was_not_overtaken_keeps_its_stamp() -> None:
    """An acknowledgement leaves before held data, but comes behind them in the stream: its stamp is not noted."""
    with rig() as g:
        handshake(g)
        compared(g, 1001, b"x", 10)
        g.feed("primary_in", stamped(1002, b"held", 11), stamped(1006, b"", 90))
        g.run(now=3)
        assert stamps(g.take("outdev")) == [90]
        g.feed("secondary_in", stamped(1002, b"held", 12))
        g.run(now=4)
        assert stamps(g.take("outdev")) == [11]


def test_a_checkpoint_lets_them_go_with_the_same_care() -> None:
    with rig() as g:
        handshake(g)
        compared(g, 1001, b"x", 10)
        g.feed("primary_in", stamped(1002, b"held", 11), stamped(1001, b"x", 60))
        g.run(now=3)
        g.feed("notify_in", DONE)
        g.run(now=4)
        assert stamps(g.take("outdev")) == [60, 60]


def test_a_retransmission_that_was_held_for_its_acknowledgement_overtakes_too() -> None:
    """ack_policy = strict: it waits for the secondary's acknowledgement, and then leaves before older data."""
    with rig() as g:
        handshake(g)
        compared(g, 1001, b"x", 10)
        late = seg(1001, b"x", ack=5001, options=opt_timestamp(60, 7))
        g.feed("primary_in", stamped(1002, b"held", 11), late)
        g.run(now=3)
        assert g.take("outdev") == []
        g.feed("secondary_in", seg(1002, b"", ack=5001))
        g.run(now=4)
        assert stamps(g.take("outdev")) == [60]
        g.feed("secondary_in", stamped(1002, b"held", 12))
        g.run(now=5)
        assert stamps(g.take("outdev")) == [60]


def test_a_partial_checksum_stays_partial() -> None:
    """virtio-net NEEDS_CSUM: the field holds the pseudo-header's sum, whatever the options say."""
    header = vnet_header(needs_csum=True, csum_start=34)
    ports = ("primary_in", "secondary_in", "outdev")
    with Rig("colo-compare", PARAMS | {"vnet_hdr_support": True}, vnet=ports) as g:
        g.run(now=1)

        def both(port: str, frame: bytes) -> None:
            g.feed(port, header + frame, vnet_hdr_len=len(header))
            g.run(now=2)

        def partial(seq: int, data: bytes, stamp: int) -> bytes:
            return seg(seq, data, flags=ACK, options=opt_timestamp(stamp, 7), partial=True)

        both("primary_in", partial(1001, b"x", 10))
        both("secondary_in", partial(1001, b"x", 9))
        both("primary_in", partial(1002, b"held", 11))
        both("primary_in", partial(1001, b"x", 60))
        both("secondary_in", partial(1002, b"held", 9))
        out = [frame[len(header) :] for frame in g.take("outdev")]
        assert [read(f).options[8][:4] for f in out] == [n.to_bytes(4, "big") for n in (10, 60, 60)]
        assert all(not checksum_faults(frame, partial=True) for frame in out)
