"""filter-rewriter: whose an address is, and what the guest is answered before a failover."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ring import layout
from stages.rewriter.layout import addresses
from tests.oracle.addresses import Addresses
from tests.packets import (
    ACK,
    arp_packet,
    discovery,
    ether,
    icmpv6,
    ip_frame,
    link_option,
    neighbour_advertisement,
    packed,
    read,
    tcp_frame,
    udp,
    vnet_header,
)
from tests.rig import Rig
from tests.stages.rewriter.rewriting import check_balances
from tests.stages.rewriter.talking import (
    EVERYBODY,
    GUEST,
    GUEST_4,
    GUEST_6,
    NOW,
    OTHER,
    OTHER_4,
    OTHER_6,
    PEER,
    PEER_4,
    PEER_6,
    SECOND,
    arp,
    router_advertisement,
    rows_of,
    said,
    solicitation,
)

AGE = 100


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig("filter-rewriter", {"max_connections": 16, "max_addresses": 32, "address_age": AGE}) as r:
        yield r
        check_balances(r)


# --- against the oracle ------------------------------------------------------------------------------------------
MACS = st.sampled_from([GUEST, PEER, OTHER, bytes.fromhex("0a0000000004"), b"\x01" + bytes(5), bytes(6)])
V4 = st.sampled_from([GUEST_4, PEER_4, OTHER_4, "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"])
V6 = st.sampled_from([GUEST_6, PEER_6, OTHER_6, "::", "::1", "ff02::5"])
TAGS = st.sampled_from([(), (), (7,), (8,), (9, 7)])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Something said of addresses, right or not."""
    mac, tags = draw(MACS), draw(TAGS)
    what = draw(st.integers(0, 6))
    source, cut = draw(st.sampled_from([mac, mac, mac, GUEST])), 0
    if what <= 1:
        frame = ether(
            arp_packet(draw(st.sampled_from([1, 1, 2, 3])), mac, draw(V4), draw(MACS), draw(V4)), 0x0806, tags,
            src=source, dst=draw(st.sampled_from([EVERYBODY, PEER])), pad=True,
        )  # fmt: skip
    elif what <= 3:
        sender, target = draw(V6), draw(V6)
        frame = solicitation(mac, sender, target, link=draw(st.booleans()), vlans=tags)
        frame = frame[:6] + source + frame[12:]
    elif what == 4:
        frame = neighbour_advertisement(
            draw(V6), mac, "ff02::1", EVERYBODY, router=draw(st.booleans()), override=draw(st.booleans()),
            link=draw(st.booleans()), vlans=tags,
        )  # fmt: skip
        frame = frame[:6] + source + frame[12:]
    elif what == 5:
        frame = router_advertisement(mac, draw(V6), vlans=tags)
    else:
        frame = udp_said(mac, tags)
    if draw(st.integers(0, 7)) == 0:
        at = draw(st.integers(12, len(frame) - 1))
        frame = frame[:at] + bytes([draw(st.integers(0, 255))]) + frame[at + 1 :]
    if draw(st.integers(0, 9)) == 0:
        cut = draw(st.integers(0, len(frame)))
        frame = frame[:cut]
    return frame


def udp_said(mac: bytes, tags: tuple[int, ...]) -> bytes:
    """An IP packet, which proves nothing but its MAC address."""
    body = udp(GUEST_4, PEER_4, 5353, 5353, b"hello")
    return (
        ip_frame(GUEST_4, PEER_4, 17, body, vlans=tags)[:6] + mac + ip_frame(GUEST_4, PEER_4, 17, body, vlans=tags)[12:]
    )


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.booleans(), frames(), st.integers(0, 60)), max_size=40), st.integers(0, 40))
def test_answers_and_announcements_are_the_oracles(told: list[tuple[bool, bytes, int]], failover: int) -> None:
    """Whatever is said, cut or damaged: what the guest is answered, and what is announced of it in the end."""
    params = {"max_connections": 16, "max_addresses": 256, "address_age": AGE, "announce_rounds": 1}
    with Rig("filter-rewriter", params) as rig:
        oracle, now = Addresses(AGE * SECOND), NOW
        for i, (inbound, frame, later) in enumerate(told):
            now += later * SECOND
            if i == failover:
                oracle.alone = True
                rig.command(layout.CMD_FAILOVER, 1)
                rig.run(now)
                assert set(rig.take("rx_out")) == oracle.announcement()
            expected = (oracle.inbound if inbound else oracle.outbound)(frame, now)
            assert said(rig, "tx" if inbound else "rx", frame, now=now) == (expected, [])
        rig.command(layout.CMD_FAILOVER, 2)
        rig.run(now)
        announced = rig.take("rx_out")
        assert len(announced) == len(set(announced))
        assert set(announced) == oracle.announcement()
        check_balances(rig)


# --- one fact at a time ------------------------------------------------------------------------------------------
def test_an_arp_request_of_the_guest_is_answered_and_goes_on(rig: Rig) -> None:
    """What a neighbour has said on its way to the guest is answer enough; also to a request sent to it alone."""
    said(rig, "tx", arp(1, PEER, PEER_4, "10.0.0.77"))
    for to in (EVERYBODY, PEER):
        (answer,), _ = said(rig, "rx", arp(1, GUEST, GUEST_4, PEER_4, to=to))
        assert answer == ether(arp_packet(2, PEER, PEER_4, GUEST, GUEST_4), 0x0806, src=PEER, dst=GUEST, pad=True)
    assert rig.counters()["answered_arp"] == 2


def test_a_solicitation_of_the_guest_is_answered_and_goes_on(rig: Rig) -> None:
    """To the address it came from, solicited; to all nodes' group as well as to the neighbour itself."""
    said(rig, "tx", neighbour_advertisement(PEER_6, PEER, GUEST_6, GUEST))
    for to in ("", PEER_6):
        (answer,), _ = said(rig, "rx", solicitation(GUEST, GUEST_6, PEER_6, to=to))
        assert answer == neighbour_advertisement(PEER_6, PEER, GUEST_6, GUEST, solicited=True)
    assert rig.counters()["answered_nd"] == 2


def test_a_router_stays_a_router(rig: Rig) -> None:
    """An answer without the flag would take it off the guest's list of default routers (RFC 4861, 7.2.5)."""
    said(rig, "tx", router_advertisement(PEER, "fe80::2"))
    said(rig, "tx", solicitation(PEER, "fe80::2", GUEST_6))
    (answer,), _ = said(rig, "rx", solicitation(GUEST, GUEST_6, "fe80::2"))
    assert answer == neighbour_advertisement("fe80::2", PEER, GUEST_6, GUEST, solicited=True, router=True)
    said(rig, "tx", neighbour_advertisement("fe80::2", PEER, GUEST_6, GUEST))  # it is none any more
    (answer,), _ = said(rig, "rx", solicitation(GUEST, GUEST_6, "fe80::2"))
    assert answer == neighbour_advertisement("fe80::2", PEER, GUEST_6, GUEST, solicited=True)


def test_what_was_never_heard_of_stays_unanswered(rig: Rig) -> None:
    """No neighbour is made up."""
    assert said(rig, "rx", arp(1, GUEST, GUEST_4, PEER_4), solicitation(GUEST, GUEST_6, PEER_6)) == ([], [])


def test_an_address_is_good_for_as_long_as_the_config_says(rig: Rig) -> None:
    """And longer, if it was heard of again."""
    said(rig, "tx", arp(1, PEER, PEER_4, GUEST_4), now=NOW)
    ask = arp(1, GUEST, GUEST_4, PEER_4)
    assert said(rig, "rx", ask, now=NOW + AGE * SECOND)[0]
    assert not said(rig, "rx", ask, now=NOW + AGE * SECOND + 1)[0]
    said(rig, "tx", arp(2, PEER, PEER_4, GUEST_4), now=NOW + AGE * SECOND)
    assert said(rig, "rx", ask, now=NOW + 2 * AGE * SECOND)[0]


def test_nothing_is_answered_where_the_config_says_so() -> None:
    """An age of 0: the table is kept for announcements."""
    with Rig("filter-rewriter", {"max_connections": 16, "address_age": 0}) as rig:
        said(rig, "tx", arp(1, PEER, PEER_4, GUEST_4))
        assert said(rig, "rx", arp(1, GUEST, GUEST_4, PEER_4)) == ([], [])
        assert rig.counters()["addresses"] == 3


def test_who_asks_whether_an_address_is_free_is_not_answered(rig: Rig) -> None:
    """Neither by ARP (RFC 5227) nor by neighbour discovery (RFC 4862): the guest would give its own address up."""
    said(rig, "tx", arp(1, PEER, PEER_4, OTHER_4), solicitation(PEER, PEER_6, OTHER_6))
    probes = arp(1, GUEST, "0.0.0.0", PEER_4), solicitation(GUEST, "::", PEER_6, link=False)
    assert said(rig, "rx", *probes) == ([], [])
    assert {row["side"] for row in rows_of(rig) if row["network"] >> 32 != addresses.MAC_FAMILY} == {
        addresses.NEIGHBOUR
    }


def test_the_guests_own_addresses_are_never_answered(rig: Rig) -> None:
    """Not although the primary's guest, which has the same MAC address, says on the network that they are there."""
    said(rig, "rx", arp(1, GUEST, GUEST_4, PEER_4), solicitation(GUEST, GUEST_6, PEER_6))
    said(rig, "tx", arp(1, GUEST, GUEST_4, GUEST_4), neighbour_advertisement(GUEST_6, GUEST, "ff02::1", EVERYBODY))
    asks = arp(1, GUEST, "10.0.0.9", GUEST_4), solicitation(GUEST, OTHER_6, GUEST_6)
    assert said(rig, "rx", *asks) == ([], [])


def test_after_a_failover_the_network_answers(rig: Rig) -> None:
    """Nothing is answered here any more."""
    said(rig, "tx", arp(1, PEER, PEER_4, GUEST_4), solicitation(PEER, PEER_6, GUEST_6))
    rig.command(layout.CMD_FAILOVER, 1)
    assert said(rig, "rx", arp(1, GUEST, GUEST_4, PEER_4), solicitation(GUEST, GUEST_6, PEER_6)) == ([], [])


def test_status_off_answers_and_learns_nothing(rig: Rig) -> None:
    """A filter that is off is transparent."""
    said(rig, "tx", arp(1, PEER, PEER_4, GUEST_4))
    rig.command(layout.CMD_STATUS, 0)
    said(rig, "tx", arp(1, OTHER, OTHER_4, GUEST_4))
    assert said(rig, "rx", arp(1, GUEST, GUEST_4, PEER_4)) == ([], [])
    rig.command(layout.CMD_STATUS, 1)
    assert len(rows_of(rig)) == 1


def test_vlans_are_kept_apart_and_answered_in_their_own(rig: Rig) -> None:
    """One address in two VLANs is two neighbours."""
    said(rig, "tx", arp(1, PEER, PEER_4, GUEST_4, vlans=(5,)), arp(1, OTHER, PEER_4, GUEST_4, vlans=(100, 5)))
    for tags, mac in (((), None), ((5,), PEER), ((100, 5), OTHER), ((101, 5), None)):
        answers, _ = said(rig, "rx", arp(1, GUEST, GUEST_4, PEER_4, vlans=tags))
        reply = mac and arp(2, mac, PEER_4, GUEST_4, target_mac=GUEST, to=GUEST, vlans=tags)
        assert answers == ([reply] if reply else [])


def test_the_last_who_claims_an_address_has_it(rig: Rig) -> None:
    """A neighbour with a new card; an address that moves to the guest, and away from it."""
    ask = arp(1, GUEST, GUEST_4, PEER_4)
    said(rig, "tx", arp(1, PEER, PEER_4, PEER_4))
    said(rig, "tx", arp(1, OTHER, PEER_4, PEER_4))
    (answer,), _ = said(rig, "rx", ask)
    assert answer[6:12] == OTHER
    said(rig, "rx", arp(1, GUEST, PEER_4, PEER_4))
    assert said(rig, "rx", ask) == ([], [])
    said(rig, "tx", arp(1, OTHER, PEER_4, PEER_4))
    assert len(said(rig, "rx", ask)[0]) == 1


def test_an_advertisement_that_may_not_override_overrides_nothing(rig: Rig) -> None:
    """RFC 4861, 7.2.5; and of the guest it teaches nothing, as it speaks for others, too."""
    said(rig, "tx", neighbour_advertisement(PEER_6, PEER, "ff02::1", EVERYBODY))
    said(rig, "tx", neighbour_advertisement(PEER_6, OTHER, "ff02::1", EVERYBODY, override=False))
    said(rig, "rx", neighbour_advertisement(OTHER_6, GUEST, "ff02::1", EVERYBODY, override=False))
    (answer,), _ = said(rig, "rx", solicitation(GUEST, GUEST_6, PEER_6))
    assert answer[6:12] == PEER
    assert said(rig, "rx", solicitation(GUEST, GUEST_6, OTHER_6)) == ([], [])


def test_what_was_forwarded_damaged_or_cut_teaches_nothing(rig: Rig) -> None:
    """RFC 4861, 7.1: hop limit 255, a right checksum, whole options."""
    right = solicitation(PEER, PEER_6, GUEST_6)
    said(rig, "tx", right[:21] + b"\xfe" + right[22:], right[:-1] + b"\x77", right[:-2])
    odd = bytes(4) + packed(GUEST_6)
    for options in (b"\1\0" + PEER, b"\1\2" + PEER, b"\1"):
        said(rig, "tx", discovery(PEER_6, GUEST_6, 135, odd + options, mac=PEER, to=GUEST))
    assert rows_of(rig) == []
    said(
        rig,
        "tx",
        discovery(PEER_6, GUEST_6, 135, odd + b"\x0e\1" + bytes(6) + link_option(1, PEER), mac=PEER, to=GUEST),
    )
    assert len(rows_of(rig)) == 1


def test_ip_packets_prove_no_address(rig: Rig) -> None:
    """A guest may be a router, and a client behind one has the router's MAC address: only the guest's MAC is learnt."""
    packets = [
        tcp_frame(GUEST_4, PEER_4, 80, 40_000, flags=ACK),
        tcp_frame(GUEST_4, PEER_4, 80, 40_000, flags=ACK, ttl=255),
        icmpv6("fe80::9", "ff02::16", 143),
        icmpv6("fe80::9", "ff02::1", 128),
    ]
    said(rig, "tx", *packets)
    assert rows_of(rig) == []
    said(rig, "rx", *packets)
    ((row, *others),) = [rows_of(rig)]
    assert not others
    assert (row["network"] >> 32, row["side"]) == (addresses.MAC_FAMILY, addresses.GUEST)


def test_what_the_guest_says_for_another_mac_is_not_its_own(rig: Rig) -> None:
    """A proxy's words: the MAC address in the packet is not the one that it sends from."""
    said(rig, "rx", arp(2, OTHER, OTHER_4, PEER_4, source=GUEST))
    assert [row["network"] >> 32 for row in rows_of(rig)] == [addresses.MAC_FAMILY]


# --- room --------------------------------------------------------------------------------------------------------
def test_a_flood_of_neighbours_drives_out_none_of_the_guests_addresses(rig: Rig) -> None:
    """The one heard of longest ago makes room; the guest's stay, and of the others those that speak."""
    said(rig, "rx", arp(1, GUEST, GUEST_4, PEER_4))
    for i in range(200):
        said(rig, "tx", arp(1, b"\x02\1" + i.to_bytes(4, "big"), f"10.1.0.{i}", GUEST_4), now=NOW + i)
        said(rig, "tx", arp(1, PEER, PEER_4, GUEST_4), now=NOW + i)
    counters = rig.counters()
    assert counters["addresses"] == len(rows_of(rig)) == 32
    assert counters["addresses_evicted"] == 203 - 32
    assert sum(row["side"] == addresses.GUEST for row in rows_of(rig)) == 2
    assert len(said(rig, "rx", arp(1, GUEST, GUEST_4, PEER_4), now=NOW + 200)[0]) == 1


def test_a_guest_of_many_addresses_leaves_half_of_the_room(rig: Rig) -> None:
    """What is too much is counted and not learnt."""
    said(rig, "tx", arp(1, PEER, PEER_4, GUEST_4))
    for i in range(100):
        said(rig, "rx", arp(1, GUEST, f"10.2.0.{i + 1}", PEER_4), now=NOW + 1)
    counters = rig.counters()
    assert sum(row["side"] == addresses.GUEST for row in rows_of(rig)) == 16
    assert counters["addresses_untracked"] == 100 - 15
    assert counters["answered_arp"] == 100


def test_no_room_towards_the_guest_costs_an_answer_and_no_frame() -> None:
    """The guest asks again; what it sends, and what is sent to it, goes on."""
    with Rig("filter-rewriter", {"max_connections": 16, "max_addresses": 16}, ring_size=4096) as rig:
        said(rig, "tx", arp(1, PEER, PEER_4, GUEST_4))
        filler = ether(b"\0" * 494, 0x88B5)  # 512 bytes with its length
        rig.feed("tx_in", *[filler] * 8)
        rig.run(NOW)
        rig.feed("tx_in", *[filler] * 2)
        rig.run(NOW)
        assert rig.rings["tx_in"].used
        ask = arp(1, GUEST, GUEST_4, PEER_4)
        rig.feed("rx_in", ask)
        rig.run(NOW)
        assert rig.take("rx_out") == [ask]
        assert rig.counters()["unanswered_full"] == 1
        got = rig.take("tx_out")
        rig.run(NOW)
        assert got + rig.take("tx_out") == [filler] * 10
        assert len(said(rig, "rx", ask)[0]) == 1
        check_balances(rig)


def test_many_who_speak_at_once_keep_within_the_undo_log() -> None:
    """Every frame is an address that is new and takes another's place; bursts end where the log is full."""
    with Rig("filter-rewriter", {"max_connections": 16, "max_addresses": 16}, ring_size=1 << 16) as rig:
        told = [arp(1, b"\x02\1" + i.to_bytes(4, "big"), f"10.1.{i >> 7}.{i & 127}", GUEST_4) for i in range(500)]
        rig.feed("tx_in", *told)
        rig.run(NOW)
        assert rig.take("tx_out") == told
        assert rig.counters()["addresses_evicted"] == 500 - 16
        check_balances(rig)


# --- frames with a virtio-net header -----------------------------------------------------------------------------
def test_answers_have_the_header_of_the_frames_around_them() -> None:
    """Of zeros, as long as theirs; a checksum that is still to be made is no reason not to answer."""
    ports: Any = ("tx_in", "rx_in", "tx_out", "rx_out")
    with Rig("filter-rewriter", {"max_connections": 16}, vnet=ports) as rig:
        plain = vnet_header(size=12)
        rig.feed("tx_in", plain + neighbour_advertisement(PEER_6, PEER, GUEST_6, GUEST), vnet_hdr_len=12)
        ask = bytearray(solicitation(GUEST, GUEST_6, PEER_6))
        ask[56:58] = b"\x12\x34"
        rig.feed("rx_in", vnet_header(needs_csum=True, size=12) + ask, vnet_hdr_len=12)
        rig.run(NOW)
        assert rig.take("tx_out")[1] == bytes(12) + neighbour_advertisement(
            PEER_6, PEER, GUEST_6, GUEST, solicited=True
        )
        assert read(rig.take("rx_out")[0][12:]).src == GUEST_6
        check_balances(rig)
