"""filter-rewriter: after a failover the network is told where the guest is."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from ring import layout
from tests.packets import ARP, arp_packet, checksum, ether, neighbour_advertisement, pseudo, vnet_header
from tests.rig import Rig
from tests.stages.rewriter.rewriting import check_balances
from tests.stages.rewriter.talking import (
    EVERYBODY,
    GUEST,
    GUEST_4,
    GUEST_6,
    NOW,
    OTHER,
    PEER,
    PEER_4,
    PEER_6,
    arp,
    router_advertisement,
    said,
    solicitation,
)

MS = 1_000_000
TIMES = {"announce_rounds": 10, "announce_initial": 50, "announce_step": 100, "announce_max": 550}
RARP_FRAME = ether(arp_packet(3, GUEST, "0.0.0.0", GUEST, "0.0.0.0"), 0x8035, src=GUEST, dst=EVERYBODY, pad=True)
ARP_FRAME = ether(arp_packet(1, GUEST, GUEST_4, bytes(6), GUEST_4), ARP, src=GUEST, dst=EVERYBODY, pad=True)
ADVERTISEMENT = neighbour_advertisement(GUEST_6, GUEST, "ff02::1", bytes.fromhex("333300000001"))


def _rig(**params: Any) -> Rig:
    """A guest that has told its addresses."""
    rig = Rig("filter-rewriter", {"max_connections": 16, "max_addresses": 64, **TIMES, **params})
    said(rig, "rx", arp(1, GUEST, GUEST_4, PEER_4), solicitation(GUEST, GUEST_6, PEER_6))
    return rig


def _rounds(rig: Rig, now: int = NOW) -> list[tuple[int, list[bytes]]]:
    """Turn duty cycles at the deadlines that the stage tells, until it tells none: ms since ``now``, and the frames."""
    at, found = now, []
    while at:
        rig.run(at)
        found.append(((at - now) // MS, rig.take("rx_out")))
        at = rig.stage.next_deadline(at)  # type: ignore[attr-defined]
    return found


def test_the_guest_is_announced_several_times_over_some_seconds() -> None:
    """RARP as QEMU sends it at every round, an ARP announcement and an unsolicited advertisement at three of them."""
    with _rig() as rig:
        assert rig.stage.next_deadline(NOW) == 0  # type: ignore[attr-defined]
        rig.command(layout.CMD_FAILOVER, 1)
        rounds = _rounds(rig)
        assert [ms for ms, _ in rounds] == [0, 50, 200, 450, 800, 1250, 1800, 2350, 2900, 3450]
        everything, alone = [RARP_FRAME, ARP_FRAME, ADVERTISEMENT], [RARP_FRAME]
        with_ip = {0, 1250, 2350}  # RFC 4861, 7.2.6: at most three, a second apart
        assert [frames for _, frames in rounds] == [everything if ms in with_ip else alone for ms, _ in rounds]
        assert rig.counters()["announced"] == 10 + 3 + 3
        check_balances(rig)


def test_what_is_announced_can_be_read_by_anybody() -> None:
    """Lengths, addresses and the checksum, byte by byte, as the RFCs have them."""
    assert len(RARP_FRAME) == len(ARP_FRAME) == 60
    assert RARP_FRAME[:22] == EVERYBODY + GUEST + bytes.fromhex("8035 0001 0800 06 04 0003")
    assert RARP_FRAME[22:] == GUEST + bytes(4) + GUEST + bytes(4 + 18)
    assert ADVERTISEMENT[:14] == bytes.fromhex("333300000001") + GUEST + b"\x86\xdd"
    ip, message = ADVERTISEMENT[14:54], ADVERTISEMENT[54:]
    assert (ip[:8], ip[24:]) == (bytes.fromhex("60000000 0020 3a ff"), bytes.fromhex(f"ff02{'00' * 13}01"))
    assert checksum(pseudo(ip[8:24], ip[24:], 58, 32) + message) == 0
    assert message[4:8] == bytes.fromhex("20000000")  # override, not solicited


@pytest.mark.parametrize(
    "said_before",
    [
        pytest.param([("tx", arp(1, PEER, PEER_4, GUEST_4))], id="a neighbour's"),
        pytest.param([("rx", arp(2, OTHER, PEER_4, GUEST_4, source=GUEST))], id="a proxy's"),
        pytest.param([("rx", solicitation(GUEST, "::", PEER_6, link=False))], id="one it only asks for"),
        pytest.param([("rx", arp(1, GUEST, "0.0.0.0", PEER_4))], id="the same by ARP"),
        pytest.param(
            [("rx", arp(1, GUEST, PEER_4, PEER_4)), ("tx", arp(1, OTHER, PEER_4, PEER_4))], id="one that has moved away"
        ),
    ],
)
def test_an_address_that_is_not_the_guests_is_not_announced(said_before: list[tuple[str, bytes]]) -> None:
    """It would be taken from whoever has it."""
    with _rig() as rig:
        for port, frame in said_before:
            said(rig, port, frame)
        rig.command(layout.CMD_FAILOVER, 1)
        rig.run(NOW)
        assert rig.take("rx_out") == [RARP_FRAME, ARP_FRAME, ADVERTISEMENT]


def test_what_the_primarys_guest_says_takes_no_address_away() -> None:
    """It has the same addresses and MAC: its broadcasts arrive here, too, before the failover."""
    with _rig() as rig:
        said(rig, "tx", ARP_FRAME, ADVERTISEMENT, RARP_FRAME, arp(2, GUEST, GUEST_4, PEER_4))
        rig.command(layout.CMD_FAILOVER, 1)
        rig.run(NOW)
        assert rig.take("rx_out") == [RARP_FRAME, ARP_FRAME, ADVERTISEMENT]


def test_every_vlan_and_every_mac_of_the_guest() -> None:
    """In its own tags; a router says that it is one."""
    with _rig() as rig:
        said(rig, "rx", arp(1, GUEST, "10.5.0.1", "10.5.0.2", vlans=(100, 5)))
        said(rig, "rx", router_advertisement(OTHER, "fe80::3", vlans=(6,)))
        rig.command(layout.CMD_FAILOVER, 1)
        rig.run(NOW)
        got = rig.take("rx_out")
        assert got[3:] == [
            ether(RARP_FRAME[14:42], 0x8035, (100, 5), src=GUEST, dst=EVERYBODY, pad=True),
            ether(arp_packet(1, GUEST, "10.5.0.1", bytes(6), "10.5.0.1"), ARP, (100, 5), src=GUEST, dst=EVERYBODY,
                  pad=True),
            ether(arp_packet(3, OTHER, "0.0.0.0", OTHER, "0.0.0.0"), 0x8035, (6,), src=OTHER, dst=EVERYBODY, pad=True),
            neighbour_advertisement(
                "fe80::3", OTHER, "ff02::1", bytes.fromhex("333300000001"), router=True, vlans=(6,)
            ),
        ]  # fmt: skip


def test_nothing_is_announced_before_a_failover() -> None:
    """Also where it is asked for: nothing of a secondary's guest leaves."""
    with _rig() as rig:
        rig.command(layout.CMD_ANNOUNCE, 1)
        rig.run(NOW)
        assert rig.take("rx_out") == []
        assert rig.stage.next_deadline(NOW) == 0  # type: ignore[attr-defined]


def test_an_announcement_can_be_asked_for_at_any_time_after_it() -> None:
    """It begins anew; with announce_rounds = 0 it is one round, and the failover alone announces nothing."""
    with _rig(announce_rounds=0) as rig:
        rig.command(layout.CMD_FAILOVER, 1)
        assert _rounds(rig) == [(0, [])]
        rig.command(layout.CMD_ANNOUNCE, 1)
        assert _rounds(rig) == [(0, [RARP_FRAME, ARP_FRAME, ADVERTISEMENT])]
    with _rig() as rig:
        rig.command(layout.CMD_FAILOVER, 1)
        rig.run(NOW)
        rig.run(NOW + 50 * MS)
        rig.take("rx_out")
        rig.command(layout.CMD_ANNOUNCE, 1)
        assert len(_rounds(rig, NOW + 60 * MS)) == 10


def test_a_filter_that_is_off_announces_when_it_is_on_again() -> None:
    """Off it is transparent: it makes no frames."""
    with _rig(announce_rounds=1) as rig:
        rig.command(layout.CMD_STATUS, 0)
        rig.command(layout.CMD_FAILOVER, 1)
        rig.run(NOW)
        assert rig.take("rx_out") == []
        rig.command(layout.CMD_STATUS, 1)
        rig.run(NOW + MS)
        assert rig.take("rx_out") == [RARP_FRAME, ARP_FRAME, ADVERTISEMENT]


def test_a_full_output_is_waited_for() -> None:
    """Every frame goes out once, in order, and the stage asks to be woken when there is room."""
    with Rig("filter-rewriter", {"max_connections": 16, "max_addresses": 256, **TIMES}, ring_size=4096) as rig:
        told = [arp(1, GUEST, f"10.0.1.{i + 1}", PEER_4) for i in range(100)]
        for frame in told:
            said(rig, "rx", frame)
        rig.command(layout.CMD_FAILOVER, 1)
        got: list[bytes] = []
        rig.run(NOW)
        assert rig.segment.w[layout.BLOCKED] == 1 << rig.kind.outputs.index("rx_out")
        assert rig.stage.next_deadline(NOW) == 0  # type: ignore[attr-defined]
        while len(got) < 101:
            more = rig.take("rx_out")
            assert more
            got += more
            rig.run(NOW)
        assert got == [RARP_FRAME] + [
            ether(arp_packet(1, GUEST, f"10.0.1.{i + 1}", bytes(6), f"10.0.1.{i + 1}"), ARP, src=GUEST, dst=EVERYBODY,
                  pad=True)
            for i in range(100)
        ]  # fmt: skip
        assert rig.stage.next_deadline(NOW) == NOW + 50 * MS  # type: ignore[attr-defined]
        check_balances(rig)


def test_frames_with_a_virtio_net_header_and_without() -> None:
    """Zeros, as many as the guest's frames have."""
    ports = ("tx_in", "rx_in", "tx_out", "rx_out")
    with Rig("filter-rewriter", {"max_connections": 16, **TIMES}, vnet=ports) as rig:
        rig.feed("rx_in", vnet_header() + arp(1, GUEST, GUEST_4, PEER_4), vnet_hdr_len=10)
        rig.run(NOW)
        rig.take("rx_out")
        rig.command(layout.CMD_FAILOVER, 1)
        rig.run(NOW)
        assert rig.take("rx_out") == [bytes(10) + RARP_FRAME, bytes(10) + ARP_FRAME]
        check_balances(rig)


def test_a_new_incarnation_goes_on_with_the_announcement() -> None:
    """Nothing lives in the process, the times neither."""
    with _rig() as rig:
        rig.command(layout.CMD_FAILOVER, 1)
        rig.run(NOW)
        rig.take("rx_out")
        rig.restart()
        assert rig.stage.next_deadline(NOW) == NOW + 50 * MS  # type: ignore[attr-defined]
        assert [ms for ms, _ in _rounds(rig)][1:] == [50, 200, 450, 800, 1250, 1800, 2350, 2900, 3450]
        assert rig.counters()["announced"] == 16


def test_the_log_says_once_what_was_announced() -> None:
    """How much of it, and how often it comes again; and where there was nothing to announce, that."""
    with structlog.testing.capture_logs() as lines:
        with _rig() as rig:
            rig.command(layout.CMD_FAILOVER, 1)
            _rounds(rig)
        with Rig("filter-rewriter", {"max_connections": 16, **TIMES}) as rig:
            rig.command(layout.CMD_FAILOVER, 1)
            _rounds(rig)
    assert [
        (line["log_level"], line["event"], line.get("macs"), line.get("addresses"), line.get("again")) for line in lines
    ] == [
        ("info", "guest announced to the network", 1, 2, 9),
        ("warning", "nothing to announce to the network: the guest has not sent a frame yet", None, None, None),
    ]
