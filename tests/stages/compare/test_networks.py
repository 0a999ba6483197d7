"""colo-compare: what IP is inside of: tags, PPPoE, tunnels; and lengths that are not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.packets import (
    ACK,
    PSH,
    SYN,
    arp_frame,
    checksum_faults,
    ether,
    icmpv6,
    in_pppoe,
    ip_frame,
    long_frame,
    opt_timestamp,
    read,
    tcp_frame,
    udp_frame,
    vnet_header,
)
from tests.rig import Rig
from tests.stages.compare.fragment_scenes import cut
from tests.stages.compare.scenes import Scene, scenes
from tests.stages.compare.test_compare import ASK, CLIENT, DONE, MS, PARAMS, SERVER, check, handshake, rig, seg
from tests.stages.compare.test_oracle import follow, settings_here
from tests.tunnels import ENDS6, geneve, gre, ip_in_ip, opened, read_inside, vxlan

Wrap = Callable[..., bytes]


def tagged(frame: bytes, *ids: int) -> bytes:
    """A frame with tags before its own."""
    return frame[:12] + b"".join(b"\x88\xa8" + vid.to_bytes(2, "big") for vid in ids) + frame[12:]


def long(frame: bytes) -> bytes:
    """IP length 0 where that can be told from padding: above 46 bytes of IP, here behind at most two tags."""
    return long_frame(frame) if len(frame) > 22 + 46 else frame


# By name: a frame of the primary or the secondary (side 0 or 1), each of which chooses for itself what it may.
IN: dict[str, Wrap] = {
    "plain": lambda f, side: f,
    "length 0": lambda f, side: long(f) if side else f,
    "both of length 0": lambda f, side: long(f),
    "three tags": lambda f, side: tagged(f, 1, 2, 3),
    "four tags": lambda f, side: tagged(f, 1, 2, 3, 4),
    "pppoe": lambda f, side: in_pppoe(f, 7, short=bool(side), pad=True),
    "pppoe, length 0": lambda f, side: in_pppoe(long(tagged(f, 9)), 7),
    "vxlan": lambda f, side: vxlan(long(f) if side else f, vni=1, sport=50_000 + side, ident=side),
    "vxlan, another": lambda f, side: vxlan(f, vni=2, sport=50_000 + side),
    "vxlan in three tags": lambda f, side: tagged(vxlan(f, vni=2, sport=50_000 + side), 1, 2, 3),
    "geneve": lambda f, side: geneve(f, vni=1, sport=50_000 + side, options=bytes(4 * side)),
    "gre": lambda f, side: gre(f, key=1, number=9 * side, summed=bool(side)),
    "gre over IPv6": lambda f, side: gre(f, key=1, ends=ENDS6),
    "ip in ip": lambda f, side: ip_in_ip(f, ident=side),
}
TUNNELS = [name for name in IN if name.partition(",")[0].partition(" ")[0] in ("vxlan", "geneve", "gre", "ip")]


def arrivals(scene: Scene, names: list[str]) -> list[tuple[str, bytes]]:
    """What comes in, each flow in a network of its own."""
    sides: dict[tuple[str, bytes], bytes] = {}
    for i, flow in enumerate(scene.flows):
        for side, frames in enumerate((flow.primary, flow.secondary)):
            sides |= {(("primary_in", "secondary_in")[side], f): IN[names[i]](f, side) for f in frames}
    return [(port, sides[port, frame]) for port, frame in scene.arrivals()]


networks_of_flows = st.lists(st.sampled_from(sorted(IN)), min_size=3, max_size=3)


@given(
    scenes(), networks_of_flows, st.sampled_from(["strict", "relaxed"]), st.frozensets(st.integers(0, 60), max_size=2)
)
@settings_here
def test_equal_streams_in_any_network_leave_as_the_oracle_says(
    scene: Scene, names: list[str], policy: str, restarts: frozenset[int]
) -> None:
    """Each packet leaves as the primary sent it, whatever the two have around it."""
    follow(arrivals(scene, names), policy, restarts)


@given(scenes(differs=True), networks_of_flows, st.frozensets(st.integers(0, 60), max_size=2))
@settings_here
def test_a_difference_in_any_network_is_found_where_the_oracle_finds_it(
    scene: Scene, names: list[str], restarts: frozenset[int]
) -> None:
    """And nothing else is one."""
    follow(arrivals(scene, names), "strict", restarts, settle=True)


@given(scenes(udp=False), st.sampled_from(TUNNELS))
@settings_here
def test_tunnels_that_are_to_pass(scene: Scene, name: str) -> None:
    """`pass`: released as it comes, the secondary's dropped, each counted."""
    them = [*arrivals(scene, [name] * 3), *arrivals(scene, ["plain"] * 3)]
    c = follow(them, "strict", tunnels="pass")
    assert c["uncompared_tunnel"] == len(them) // 2 == c["released_uncompared"] + c["dropped_uncompared"]


# --- one fact at a time -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", IN)
def test_a_byte_that_differs_is_a_difference(name: str) -> None:
    """In every network; and the event says in which."""
    with rig() as g:
        for side, port in enumerate(("primary_in", "secondary_in")):
            g.feed(port, IN[name](seg(1000 + side, flags=SYN | ACK), side))
            g.feed(port, IN[name](seg(1001, (b"primary!", b"second!!")[side]), side))
        g.run(now=2)
        assert [read_inside(f).seq for f in g.take("outdev")] == [1000]
        c = check(g)
        assert (c["divergences"], c["diverged_payload"]) == (1, 1)


def test_the_same_ports_in_many_networks_are_as_many_connections() -> None:
    """None of them is compared with another."""
    names = [name for name in IN if name not in ("length 0", "both of length 0")]
    with rig() as g:
        for i, name in enumerate(names):
            for side, port in enumerate(("primary_in", "secondary_in")):
                g.feed(port, IN[name](seg(1000 + i, flags=SYN | ACK), side))
                g.feed(port, IN[name](seg(1001 + i, b"data %d" % i), side))
        g.run(now=2)
        c = check(g)
        assert (c["connections"], c["divergences"], c["held"], c["released"]) == (len(names), 0, 0, 2 * len(names))


@pytest.mark.parametrize("name", TUNNELS)
@pytest.mark.parametrize("size", [8, 40])
def test_fragments_inside_of_a_tunnel_are_put_together(name: str, size: int) -> None:
    """The secondary sends the datagram whole; what leaves are the primary's own packets."""
    for pair in ((SERVER, CLIENT), ("fd00::2", "fd00::1")):
        whole = udp_frame(*pair, 53, 9, bytes(range(100)))
        pieces = [IN[name](f, 0) for f in cut(pair, read(whole).body, range(0, 108, size), 77)]
        other = IN[name](udp_frame(*pair, 53, 9, bytes(range(99)) + b"!"), 1)
        with rig() as g:
            g.feed("secondary_in", other, IN[name](whole, 1))
            g.feed("primary_in", *pieces)
            g.run(now=2)
            assert g.take("outdev") == pieces
            c = check(g)
            assert (c["released"], c["matched"], c["fragments"]) == (len(pieces), 1, len(pieces))


def test_a_datagram_that_fits_no_place_with_its_tunnels_headers_is_never_whole() -> None:
    """65,535 bytes in fragments, the first behind 6 KiB of headers: a held packet has 68 KiB at most."""
    inside = cut((SERVER, CLIENT), bytes(65_515), range(0, 65_515, 32_768), 77)
    padding = [(60, bytes([0, 255]) + bytes(2046))] * 3
    pieces = [ip_in_ip(f, ends=ENDS6, extensions=padding if i == 0 else ()) for i, f in enumerate(inside)]
    with rig(hold_memory=64 << 20, ring_size=1 << 20) as g:
        g.feed("primary_in", *pieces)
        g.feed("secondary_in", *pieces)
        g.run(now=2)
        assert (g.take("outdev"), check(g)["fragments"]) == ([], 0)
        g.run(now=3100 * MS)
        assert g.take("outdev") == pieces
        c = check(g)
        assert (c["divergences"], c["held"], c["fragments_unfinished"]) == (0, 0, 2 * len(pieces))


@pytest.mark.parametrize("name", ["three tags", "pppoe", "vxlan"])
def test_halves_of_another_protocol_differ_in_any_network(name: str) -> None:
    """Of IPv6 the first fragment alone says what the datagram is."""
    pair = ("fd00::2", "fd00::1")
    ours, theirs = (IN[name](cut(pair, bytes(100), [80], proto=proto)[0], 0) for proto in (17, 132))
    for other, found in ((ours, 0), (theirs, 1)):
        with rig() as g:
            g.feed("primary_in", ours)
            g.feed("secondary_in", other)
            g.run(now=2)
            g.run(now=3100 * MS)
            assert (g.take("outdev"), check(g)["divergences"]) == ([ours] * (not found), found)


@pytest.mark.parametrize("name", ["vxlan", "geneve", "gre"])
def test_what_is_never_compared_is_not_in_a_tunnel_either(name: str) -> None:
    """ARP and neighbour discovery inside: uncompared, as outside."""
    for frame in (arp_frame(SERVER, CLIENT), icmpv6("fe80::2", "ff02::1", 135)):
        with rig() as g:
            g.feed("primary_in", IN[name](frame, 0))
            g.feed("secondary_in", IN[name](frame, 1), IN[name](frame, 1))
            g.run(now=2)
            assert g.take("outdev") == [IN[name](frame, 0)]
            c = check(g)
            assert (c["released_uncompared"], c["dropped_uncompared"], c["uncompared_encapsulated"]) == (1, 2, 0)


def test_outer_compares_the_datagrams_around() -> None:
    """Those of two source ports have no equal, though what is inside is the same."""
    with rig(tunnels="outer", checkpoint="local", compare_timeout=3000) as g:
        for side, port in enumerate(("primary_in", "secondary_in")):
            g.feed(port, IN["vxlan"](seg(1000, flags=SYN | ACK), side))
        g.run(now=2)
        assert g.take("outdev") == []
        g.feed("secondary_in", IN["vxlan"](seg(1000, flags=SYN | ACK), 0))
        g.run(now=3)
        assert g.take("outdev") == [IN["vxlan"](seg(1000, flags=SYN | ACK), 0)]


HIDDEN = [ether(tcp_frame(SERVER, CLIENT, 80, 9)[14:], 0x8847), tagged(seg(1), 1, 2, 3, 4, 5)]


def test_what_cannot_be_read_for_what_it_is_inside_of_is_counted() -> None:
    """MPLS, a fifth tag, also in a tunnel: uncompared, and a person is told."""
    frames = [*HIDDEN, *(vxlan(f) for f in HIDDEN)]
    with rig() as g:
        g.feed("primary_in", *frames)
        g.feed("secondary_in", *frames[:3])
        g.run(now=2)
        assert g.take("outdev") == frames
        c = check(g)
        assert (c["uncompared_encapsulated"], c["released_uncompared"], c["dropped_uncompared"]) == (7, 4, 3)


def test_a_checkpoint_counts_them_in_the_ring_as_well() -> None:
    """What back-pressure kept in the input leaves under the same names."""
    mine = [udp_frame(SERVER, CLIENT, 53, 9, b"p%03d" % i) for i in range(8)]
    never = [HIDDEN[0], vxlan(seg(1))]
    with rig(max_queue_size=4, tunnels="pass") as g:
        g.feed("primary_in", *mine, *never)
        g.feed("secondary_in", udp_frame(SERVER, CLIENT, 53, 9, b"other"))
        g.run(now=2)
        g.run(now=60 * MS)
        assert g.take("notify_out") == [ASK]
        g.feed("notify_in", DONE)
        g.run(now=70 * MS)
        assert g.take("outdev") == mine + never
        c = check(g)
        assert (c["released_at_checkpoint"], c["uncompared_encapsulated"], c["uncompared_tunnel"]) == (8, 1, 1)


def test_replicas_in_step_in_a_tunnel_take_the_short_way() -> None:
    """Where even the outer source port is the same: no slot is taken."""
    with rig() as g:
        for port in ("primary_in", "secondary_in"):
            g.feed(port, vxlan(seg(1000, flags=SYN | ACK)))
        g.run(now=2)
        frames = [vxlan(seg(1001 + 4 * i, b"data", PSH | ACK)) for i in range(20)]
        for port in ("primary_in", "secondary_in"):
            g.feed(port, *frames)
        g.run(now=3)
        assert g.take("outdev")[1:] == frames
        assert check(g)["released"] == 21


@pytest.mark.parametrize(("start", "partial"), [("inner", True), ("outer", False), ("inner", False)])
def test_held_segments_in_a_tunnel_look_no_older_and_their_checksums_are_right(start: str, partial: bool) -> None:
    """A raised TSval changes the inner checksum, unless that is still to be made; never the one around it."""
    names = ("primary_in", "secondary_in", "outdev")

    def segment(seq: int, data: bytes, stamp: int, whole: bool = False, **more: Any) -> bytes:
        frame = seg(seq, data, options=b"\1\1" + opt_timestamp(stamp, 5), partial=partial and not whole, **more)
        return vxlan(frame)

    with Rig("colo-compare", PARAMS, vnet=names) as g:
        g.run(now=1)

        def feed(port: str, frame: bytes) -> None:
            at = {"inner": read_inside(frame).body_at, "outer": read(frame).body_at}[start]
            head = vnet_header(needs_csum=partial or start == "outer", csum_start=at)
            g.feed(port, head + frame, vnet_hdr_len=len(head))

        feed("primary_in", segment(1000, b"", 1, flags=SYN | ACK))
        feed("secondary_in", segment(1000, b"", 1, flags=SYN | ACK))
        first = segment(1001, b"first", 10)
        for port in ("primary_in", "secondary_in"):
            feed(port, first)
        feed("primary_in", segment(1006, b"second", 11))
        g.run(now=2)
        g.take("outdev")
        feed("primary_in", segment(1001, b"first", 20))  # sent again: it leaves at once
        g.run(now=3)
        assert len(g.take("outdev")) == 1
        feed("secondary_in", segment(1006, b"second", 11))
        g.run(now=4)
        (record,) = g.take("outdev")
        inner = opened(record[10:])
        assert inner is not None
        assert read(inner.frame).options[8][:4] == (20).to_bytes(4, "big")
        assert checksum_faults(inner.frame, partial=partial) == []
        if not partial:
            assert checksum_faults(record[10:]) == []


def test_a_tunnel_with_nothing_to_read_inside_is_compared_as_it_is() -> None:
    """GRE of another protocol, VXLAN with reserved bits: datagrams like others."""
    with rig() as g:
        for frame in (ip_frame(SERVER, CLIENT, 47, b"\0\0\x88\x0b data"), vxlan(seg(1), head=0x0C000000)):
            g.feed("primary_in", frame)
            g.run(now=2)
            assert g.take("outdev") == []
            g.feed("secondary_in", frame)
            g.run(now=3)
            assert g.take("outdev") == [frame]
        assert check(g)["matched"] == 2


def test_a_plain_connection_beside_it_is_another_one() -> None:
    """The compare's own handshake, outside of any tunnel, has nothing to do with the one inside."""
    with rig() as g:
        handshake(g)
        g.feed("primary_in", vxlan(seg(1001, b"data")))
        g.run(now=2)
        assert g.take("outdev") == [] and check(g)["connections"] == 2
