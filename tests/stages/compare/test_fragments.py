"""colo-compare: IP fragments are put together per side, the datagrams are compared, the fragments leave."""

from __future__ import annotations

import pytest

from stages.compare.kernels.fragments import MOST
from tests.packets import (
    ACK,
    P_ICMP,
    P_ICMPV6,
    P_TCP,
    P_UDP,
    destination_options,
    fragment_header,
    hop_by_hop,
    icmp_echo,
    ip_frame,
    tcp,
    udp_frame,
    vnet_header,
)
from tests.rig import Rig
from tests.stages.compare.audit import audit
from tests.stages.compare.fragment_scenes import (
    V4,
    V6,
    body,
    cut,
    even,
    never_whole,
    piece,
    primary,
    secondary,
    settled,
)
from tests.stages.compare.test_compare import ASK, DONE, MS, PARAMS, check, handshake, rig, seg

BOTH = pytest.mark.parametrize("pair", [V4, V6], ids=["v4", "v6"])


# --- put together -------------------------------------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("vlans", [(), (5,), (5, 6)])
def test_fragments_leave_in_order_of_arrival_when_both_datagrams_are_whole(
    pair: tuple[str, str], vlans: tuple[int, ...]
) -> None:
    """Reversed, cut otherwise, under another identification: the same datagram."""
    whole = body(3000, pair=pair)
    mine = even(pair, whole, 1400, vlans=vlans)[::-1]
    theirs = even(pair, whole, 800, 99, vlans=vlans)
    with rig() as g:
        assert primary(g, *mine) == []
        assert secondary(g, *theirs) == mine
        assert settled(g, 3, 4)["fragments"] == 7
    with rig() as g:
        assert secondary(g, *theirs) == []
        assert primary(g, *mine) == mine
        assert settled(g, 3, 4)["fragments"] == 7


@BOTH
def test_one_replica_fragments_and_the_other_does_not(pair: tuple[str, str]) -> None:
    """In either direction, whichever comes first."""
    whole = body(1400, pair=pair)
    frame = ip_frame(*pair, P_UDP, whole)
    pieces = even(pair, whole, 704)
    with rig() as g:
        assert primary(g, *pieces) == []
        assert secondary(g, frame) == pieces
        assert secondary(g, frame) == []
        assert primary(g, *pieces) == pieces
        assert primary(g, frame) == []
        assert secondary(g, *pieces) == [frame]
        assert secondary(g, *pieces) == []
        assert primary(g, frame) == [frame]
        settled(g, 6, 6)


@BOTH
def test_interleaved_datagrams_do_not_mix(pair: tuple[str, str]) -> None:
    """Several identifications at once, one conversation."""
    wholes = [body(2500 + i, 9 + i, pair, seed=i) for i in range(4)]
    mine = [even(pair, whole, 1000, 20 + i) for i, whole in enumerate(wholes)]
    theirs = [even(pair, whole, 504, 70 - i) for i, whole in enumerate(wholes)]
    with rig() as g:
        out = primary(g, *[group[k] for k in range(3) for group in mine])
        out += secondary(g, *[group[k] for k in (4, 0, 2, 1, 3) for group in theirs])
        assert sorted(out) == sorted(f for group in mine for f in group)
        for group in mine:
            assert [f for f in out if f in group] == group
        settled(g, 12, 20)


@BOTH
def test_a_byte_in_a_later_fragment_differs(pair: tuple[str, str]) -> None:
    """A difference of the datagrams, at its place; the checkpoint releases the primary's fragments."""
    whole = body(3000, pair=pair)
    other = whole[:2100] + b"\xff" + whole[2101:]
    mine = even(pair, whole, 1000)
    with rig() as g:
        assert primary(g, *mine) == secondary(g, *even(pair, other, 1000)) == []
        g.run(now=60 * MS)
        c = check(g)
        assert (c["diverged_order"], c["divergences"], c["held"]) == (1, 1, 6)
        assert g.take("notify_out") == [ASK]
        g.feed("notify_in", DONE)
        g.run(now=61 * MS)
        assert g.take("outdev") == mine
        c = check(g)
        assert (c["released_at_checkpoint"], c["dropped_at_checkpoint"], c["held"]) == (3, 3, 0)
        audit(g)


def test_icmp_options_and_extension_headers() -> None:
    """What precedes the fragment header is the first fragment's; what follows is part of the datagram."""
    for pair, proto in ((V4, P_ICMP), (V6, P_ICMPV6)):
        echo = icmp_echo(*pair, reply=True, data=bytes(range(250)) * 4)
        with rig() as g:
            mine = cut(pair, echo, [400, 800], proto=proto)
            assert primary(g, *mine) == []
            assert secondary(g, ip_frame(*pair, proto, echo)) == mine
            settled(g, 3, 1)
    whole = body(1000)
    with rig() as g:
        mine = [piece(V4, whole[:504], 0, True, options=b"\x94\4\0\0"), piece(V4, whole[504:], 504, False)]
        assert primary(g, *mine) == []
        assert secondary(g, ip_frame(*V4, P_UDP, whole)) == mine
        settled(g, 2, 1)
    authentication = (51, bytes([0, 4]) + bytes(22))  # RFC 4302: its length counts words of four bytes
    whole = body(1000, pair=V6)
    with rig() as g:
        mine = [
            piece(V6, whole[:504], 0, True, extensions=[authentication, hop_by_hop()]),
            piece(V6, whole[504:], 504, False, extensions=[authentication]),
        ]
        assert primary(g, *mine) == []
        assert secondary(g, ip_frame(*V6, P_UDP, whole)) == mine
        settled(g, 2, 1)
    chain = [hop_by_hop(16), destination_options(), fragment_header(0, False, 1)]
    inner = destination_options(16)[1]
    inner = bytes([P_UDP]) + inner[1:] + whole
    with rig() as g:
        mine = [
            piece(V6, inner[:504], 0, True, proto=60, extensions=chain),
            piece(V6, inner[504:], 504, False, proto=99),  # only the first fragment's next header counts
        ]
        assert primary(g, *mine) == []
        assert secondary(g, ip_frame(*V6, P_UDP, whole)) == mine
        settled(g, 2, 1)


@BOTH
def test_the_largest_datagram(pair: tuple[str, str]) -> None:
    """65,535 bytes at an MTU of 576 and of 1500; one byte more is never whole."""
    size = 65_535 - (20 if pair == V4 else 0)
    whole = body(size, pair=pair)
    with rig(ring_size=1 << 20) as g:
        mine, theirs = even(pair, whole, 552), even(pair, whole, 1480)
        assert len(mine) <= MOST
        assert primary(g, *mine) == []
        assert secondary(g, *theirs) == mine
        assert secondary(g, *theirs) == []
        assert primary(g, *mine) == mine
        settled(g, 2 * len(mine), 2 * len(theirs))
        mine = even(pair, whole, 1480)[:-1]
        last = len(mine) * 1480
        assert primary(g, *mine, piece(pair, whole[last:] + b"x", last, False)) == []
        c = check(g)
        assert c["held"] == len(mine) + 1 and c["fragments"] == 2 * (119 + 45)


def test_tcp_and_what_cannot_be_read_are_compared_as_datagrams() -> None:
    """In a row of their own, by all their bytes; a stream with the same ports goes on."""
    segment = tcp(*V4, 80, 4000, seq=5, ack=6, flags=ACK, payload=bytes(600))
    for whole, proto in ((segment, P_TCP), (bytes(64), P_TCP), (bytes(range(12)), P_UDP)):
        with rig() as g:
            mine = cut(V4, whole, [8], proto=proto)
            assert primary(g, *mine) == []
            assert secondary(g, *cut(V4, whole, [8], 3, proto)) == mine
            settled(g, 2, 2)
    with rig() as g:
        handshake(g)
        mine = cut(V4, segment, [8], proto=P_TCP)
        assert primary(g, *mine, seg(1001, b"stream")) == []
        assert secondary(g, *mine) == mine
        assert secondary(g, seg(1001, b"stream")) == [seg(1001, b"stream")]
        settled(g, 4, 4)
    nested = bytes([P_UDP, 0, 0, 1, 0, 0, 0, 9]) + bytes(32)  # a fragment header inside of what was fragmented
    with rig() as g:
        mine = cut(V6, nested, [16], proto=44)
        assert primary(g, *mine) == []
        assert secondary(g, *cut(V6, nested, [24], 3, 44)) == mine
        settled(g, 2, 2)


@pytest.mark.parametrize("size", [0, 10, 12])
def test_rings_with_a_vnet_header(size: int) -> None:
    """V is no part of the datagram; it leaves with the primary's fragments."""
    ports = ("primary_in", "secondary_in", "outdev")
    whole = body(2000)
    mine = [vnet_header(size=12)[:size] + f for f in even(V4, whole, 1000)]
    theirs = [b"\xee" * size + f for f in even(V4, whole, 504)]
    with Rig("colo-compare", PARAMS, ports=ports, vnet=ports) as g:
        g.run(now=1)
        g.feed("primary_in", *mine, vnet_hdr_len=size)
        g.feed("secondary_in", *theirs, vnet_hdr_len=size)
        g.run(now=1)
        assert g.take("outdev") == mine
        audit(g)
        settled(g, len(mine), len(theirs))


# --- duplicates and overlaps ----------------------------------------------------------------------------------------
@BOTH
def test_an_exact_duplicate_is_tolerated(pair: tuple[str, str]) -> None:
    """It leaves with its datagram."""
    whole = body(2000, pair=pair)
    a, b, c = even(pair, whole, 800)
    with rig() as g:
        assert primary(g, a, a, c, c, b) == []
        assert secondary(g, c, b, c, b, a) == [a, a, c, c, b]
        settled(g, 5, 5)


@pytest.mark.parametrize("kind", never_whole(V4))
@BOTH
def test_what_can_never_be_whole_waits_for_its_deadline(pair: tuple[str, str], kind: str) -> None:
    """One difference; the checkpoint settles it, and what follows is compared again."""
    frames = never_whole(pair)[kind]
    with rig() as g:
        assert primary(g, *frames) == []
        assert check(g)["held_primary"] == len(frames) and check(g)["fragments"] == 0
        g.run(now=3001 * MS)
        assert check(g)["diverged_timeout"] == check(g)["divergences"] == 1
        assert g.take("notify_out") == [ASK]
        g.feed("notify_in", DONE)
        g.run(now=3002 * MS)
        assert g.take("outdev") == frames and check(g)["released_at_checkpoint"] == len(frames)
        audit(g)
        whole = body(2400, pair=pair)
        mine = even(pair, whole, 800)
        assert primary(g, *mine, now=3003 * MS) == [] and secondary(g, *mine, now=3003 * MS) == mine


def test_more_than_most_frames_are_never_whole_and_block_nothing() -> None:
    """Those beyond begin another group, that is never whole either; the other conversations go on."""
    whole = body(8 * (MOST + 40))
    mine = even(V4, whole, 8)
    with rig(ring_size=1 << 18) as g:
        assert primary(g, *mine) == []
        c = check(g)
        assert (c["held_primary"], c["fragments"], c["backpressure"]) == (len(mine), 0, 0)
        other = udp_frame(*V4, 1, 2, b"x")
        assert primary(g, other) == [] and secondary(g, other) == [other]
        g.run(now=3001 * MS)
        assert check(g)["divergences"] == 1
        g.feed("notify_in", DONE)
        g.run(now=3002 * MS)
        assert g.take("outdev") == mine
        audit(g)
    whole = body(8 * MOST)
    mine = even(V4, whole, 8)
    with rig() as g:
        assert primary(g, *mine) == [] and secondary(g, ip_frame(*V4, P_UDP, whole)) == mine


def test_a_datagram_that_outdev_could_never_take_at_once_is_never_whole() -> None:
    """It would wait for room for ever."""
    whole = body(40_000)
    mine = even(V4, whole, 1480)
    with rig(ring_size=1 << 15) as g:
        for frame in mine:
            g.feed("primary_in", frame)
            g.run(now=1)
        audit(g)
        assert check(g)["fragments"] == 0
        g.run(now=3001 * MS)
        g.feed("notify_in", DONE)
        out: list[bytes] = []
        for _ in range(5):
            g.run(now=3002 * MS)
            out += g.take("outdev")
        assert out == mine and check(g)["held"] == 0
