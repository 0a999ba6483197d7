"""colo-compare: frames that no two replicas send alike, or that cannot be read."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracle.compare import Compare as Oracle
from tests.packets import (
    ACK,
    IPV4,
    P_ICMP,
    P_ICMPV6,
    P_IGMP,
    P_PIM,
    arp_frame,
    checksum,
    ether,
    icmpv6,
    ip_frame,
    ipv4,
    tcp_frame,
    udp_frame,
)
from tests.stages.compare.fragment_scenes import cut
from tests.stages.compare.test_compare import ASK, CLIENT, DONE, MS, SERVER, check, rig

V6 = ("fe80::2", "ff02::1:ff00:1")
ROUTER_ALERT = b"\x94\4\0\0"  # RFC 2113, which IGMP has
HOP_BY_HOP = ((0, bytes.fromhex("0000050200000100")),)  # router alert, which MLD has (RFC 2710)


@pytest.mark.parametrize(
    "frame",
    [arp_frame(SERVER, CLIENT), b"short", b"", bytes(60), tcp_frame(SERVER, CLIENT, 80, 9, seq=1, flags=ACK)[:40]],
)
def test_what_has_no_key_is_not_compared(frame: bytes) -> None:
    """ARP, runts and truncated headers: the primary's leave at once, the secondary's are dropped."""
    with rig() as g:
        g.feed("primary_in", frame)
        g.feed("secondary_in", frame)
        g.run(now=1)
        assert g.take("outdev") == [frame]
        c = check(g)
        assert (c["released_uncompared"], c["dropped_uncompared"]) == (1, 1)


def igmp(kind: int, group: str = "239.3.1.106", vlans: Sequence[int] = ()) -> bytes:
    """An IGMP message (RFC 2236) to a group."""
    body = struct.pack("!BBH", kind, 0, 0) + bytes(map(int, group.split(".")))
    body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    return ip_frame(SERVER, group, P_IGMP, body, ttl=1, ip_options=ROUTER_ALERT, vlans=vlans)


def is_left_alone(*frames: bytes) -> None:
    """The primary's leave at once, in whatever state the other side is; the secondary's are dropped."""
    with rig() as g:
        for number, frame in enumerate(frames, 1):
            g.feed("primary_in", frame)
            g.run(now=1)
            assert g.take("outdev") == [frame]
            g.feed("secondary_in", frame, frame[:-1] + b"\1")
            g.run(now=2)
            c = check(g)
            seen = (c["released_uncompared"], c["dropped_uncompared"], c["held"], c["connections"])
            assert seen == (number, 2 * number, 0, 0)


@pytest.mark.parametrize("vlans", [(), (7,), (7, 8)], ids=["plain", "VLAN", "QinQ"])
def test_igmp_is_not_compared(vlans: tuple[int, ...]) -> None:
    """Queries, reports of all versions, leaves, multicast router discovery: whatever the type; also in fragments."""
    is_left_alone(*(igmp(kind, vlans=vlans) for kind in (0x11, 0x12, 0x16, 0x17, 0x22, 0x30, 0xFF)))
    report = bytes([0x22]) + bytes(63)
    is_left_alone(*cut((SERVER, "224.0.0.22"), report, [16, 32], proto=P_IGMP, vlans=vlans))


def test_protocol_number_2_means_nothing_in_ipv6() -> None:
    with rig() as g:
        g.feed("primary_in", ip_frame(*V6, P_IGMP, bytes(8)))
        g.run(now=1)
        assert check(g)["held"] == 1


@pytest.mark.parametrize("pair", [(SERVER, "224.0.0.13"), ("fe80::2", "ff02::d")], ids=["v4", "v6"])
def test_pim_to_the_routers_of_the_link_is_not_compared_but_what_it_carries_is(pair: tuple[str, str]) -> None:
    """A register message is for one router, and has a datagram of somebody's inside."""
    is_left_alone(*(ip_frame(*pair, P_PIM, bytes([0x20 | kind, 0, 0, 0])) for kind in (0, 3, 5)))
    one = CLIENT if pair[0] == SERVER else "ff02::1:d"
    with rig() as g:
        g.feed("primary_in", ip_frame(pair[0], one, P_PIM, b"\x21\0\0\0" + bytes(40)))
        g.run(now=1)
        assert check(g)["held"] == 1


def test_router_discovery_of_ipv4_is_not_compared() -> None:
    """RFC 1256; other ICMP is, and a piece of a datagram is no ICMP message."""
    is_left_alone(*(ip_frame(SERVER, "224.0.0.2", P_ICMP, bytes([kind, 0, 0, 0, 0, 0, 0, 0])) for kind in (9, 10)))
    others = [ip_frame(SERVER, CLIENT, P_ICMP, bytes([kind, 0, 0, 0])) for kind in (0, 3, 8, 11, 13, 130)]
    piece = ether(ipv4(SERVER, CLIENT, P_ICMP, bytes([9] * 16), frag=8, more=True), IPV4)
    with rig() as g:
        g.feed("primary_in", *others, piece)
        g.run(now=1)
        assert check(g)["held"] == len(others) + 1


@given(
    st.sampled_from([(SERVER, "224.0.0.13"), (SERVER, CLIENT), ("fe80::2", "ff02::d"), ("fe80::2", "fe80::1")]),
    st.sampled_from([1, 2, 58, 103, 112]),
    st.integers(0, 255),
    st.lists(st.integers(1, 9), max_size=2),
    st.booleans(),
)
def test_what_is_never_compared_is_what_the_oracle_says(
    pair: tuple[str, str], proto: int, kind: int, vlans: list[int], cut_up: bool
) -> None:
    body = bytes([kind]) + bytes(23)
    frames = cut(pair, body, [8], proto=proto, vlans=vlans) if cut_up else [ip_frame(*pair, proto, body, vlans=vlans)]
    oracle = Oracle()
    with rig() as g:
        for frame in frames:
            g.feed("primary_in", frame)
            g.run(now=1)
            assert g.take("outdev") == oracle.primary(frame)
            g.feed("secondary_in", frame)
            g.run(now=2)
            assert g.take("outdev") == oracle.secondary(frame)
        check(g)


@pytest.mark.parametrize("kind", [130, 131, 132, 133, 134, 135, 136, 137, 143, 151, 152, 153])
@pytest.mark.parametrize("more", [{}, {"extensions": HOP_BY_HOP}, {"vlans": (7,)}], ids=["plain", "options", "VLAN"])
def test_what_ipv6_has_in_place_of_arp_is_not_compared(kind: int, more: dict[str, Any]) -> None:
    """Neighbour discovery and MLD come when timers of each stack's own say so; the rest of ICMPv6 is compared."""
    frame = icmpv6(*V6, kind, **more)
    with rig() as g:
        g.feed("primary_in", frame)
        g.run(now=1)
        assert g.take("outdev") == [frame]
        g.feed("secondary_in", frame, icmpv6(*V6, kind, b"another"))
        g.run(now=2)
        c = check(g)
        assert (c["released_uncompared"], c["dropped_uncompared"], c["held"]) == (1, 2, 0)


@pytest.mark.parametrize("kind", [0, 1, 2, 128, 129, 138, 142, 144, 255])
def test_other_icmpv6_is_compared(kind: int) -> None:
    frame = icmpv6(*V6, kind)
    with rig() as g:
        g.feed("primary_in", frame)
        g.run(now=1)
        assert g.take("outdev") == []
        g.feed("secondary_in", frame)
        g.run(now=2)
        assert g.take("outdev") == [frame]
        assert check(g)["matched"] == 1


def test_icmp_of_ipv4_with_those_numbers_is_compared() -> None:
    """Whatever its protocol number; and one that is no more than an IP header is no ICMP message."""
    four = [ip_frame(SERVER, CLIENT, proto, bytes([135, 0, 0, 0])) for proto in (P_ICMP, P_ICMPV6)]
    empty = ip_frame(*V6, P_ICMPV6, b"")
    with rig() as g:
        g.feed("primary_in", *four, empty)
        g.run(now=1)
        assert g.take("outdev") == []
        assert check(g)["held"] == 3


def test_a_checkpoint_calls_what_it_finds_in_the_ring_by_the_same_name() -> None:
    """Packets that back-pressure kept in the input leave with the checkpoint, each under its own counter."""
    mine = [udp_frame(SERVER, CLIENT, 53, 9, b"p%03d" % i) for i in range(8)]
    never = [arp_frame(SERVER, CLIENT), icmpv6(*V6, 135)]
    with rig(max_queue_size=4) as g:
        g.feed("primary_in", *mine, *never)
        g.feed("secondary_in", udp_frame(SERVER, CLIENT, 53, 9, b"other"))
        g.run(now=2)
        g.run(now=60 * MS)
        assert g.take("notify_out") == [ASK]
        g.feed("notify_in", DONE)
        g.run(now=70 * MS)
        assert g.take("outdev") == mine + never
        c = check(g)
        assert (c["released_at_checkpoint"], c["released_uncompared"]) == (8, 2)
