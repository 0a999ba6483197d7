"""colo-compare: frames that no two replicas send alike, or that cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from tests.packets import ACK, P_ICMP, P_ICMPV6, arp_frame, icmpv6, ip_frame, tcp_frame, udp_frame
from tests.stages.compare.test_compare import ASK, CLIENT, DONE, MS, SERVER, check, rig

V6 = ("fe80::2", "ff02::1:ff00:1")
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


@pytest.mark.parametrize("kind", [130, 131, 132, 133, 134, 135, 136, 137, 143])
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
