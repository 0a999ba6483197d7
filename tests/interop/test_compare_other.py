"""Everything but TCP, and what is no packet at all: QEMU's colo-compare and ours, one frame at a time."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.interop.compare_pair import SERVER, Ours, Reference, Scenario
from tests.interop.compare_rows import Row
from tests.packets import ACK, SYN, arp_frame, ether, icmp_frame, ip_frame, vnet_header
from tools import qemu

pytest_plugins = ("tests.interop.compare_plugin",)
pytestmark = pytest.mark.skipif(not qemu.available(), reason=f"needs Debian's package {qemu.PACKAGE}")
Make = Callable[..., Scenario]
MAX = qemu.MAX_FRAME


@pytest.mark.parametrize("first", ["primary", "secondary"])
@pytest.mark.parametrize("data", [b"", b"x", b"y" * 1_472, b"z" * 60_000])
def test_an_equal_datagram_leaves_with_the_second(scenario: Make, data: bytes, first: str) -> None:
    """The IP header is ignored: identification, TTL and TOS of the secondary's are others."""
    with scenario() as s:
        mine, theirs = s.datagram(data), s.datagram(data, ident=77, ttl=3, tos=4)
        if first == "primary":
            assert s.primary(mine).out == ([], [])
            assert s.secondary(theirs).out == ([mine], [mine])
        else:
            assert s.secondary(theirs).out == ([], [])
            assert s.primary(mine).out == ([mine], [mine])
        assert s.asked == [0, 0]


@pytest.mark.parametrize("at", [0, 1, 99])
def test_a_datagram_that_differs_is_asked_for(scenario: Make, at: int) -> None:
    """By one byte, wherever."""
    data = bytes(100)
    with scenario() as s:
        s.primary(s.datagram(data))
        assert s.secondary(s.datagram(data[:at] + b"!" + data[at + 1 :])).asks == (1, 0)
        assert s.wait(60_000_000).asks == (0, 1)


def test_icmp_from_many_hosts(scenario: Make) -> None:
    """Echo replies to fifty hosts, answered in another order of hosts: each is a conversation of its own."""
    with scenario() as s:
        replies = [icmp_frame(SERVER, s.client(i), reply=True, number=i) for i in range(1, 51)]
        s.primary(*replies)
        for reply in reversed(replies):
            assert s.secondary(reply).out == ([reply], [reply])
        assert s.asked == [0, 0]


def test_icmp_that_differs(scenario: Make) -> None:
    """Another sequence number is another payload."""
    with scenario() as s:
        s.primary(icmp_frame(SERVER, s.client(), reply=True, number=1))
        assert s.secondary(icmp_frame(SERVER, s.client(), reply=True, number=2)).asks == (1, 0)
        assert s.wait(60_000_000).asks == (0, 1)


def test_row_igmp_qemu_compares_it_ours_lets_it_leave(scenario: Make) -> None:
    """QEMU waits for the other replica's report, which comes by a timer of its own, and asks where it differs."""
    with scenario() as s:
        mine, other = (ip_frame(SERVER, "239.3.1.106", 2, bytes([0x16, 0, 0, n, 239, 3, 1, 106])) for n in (1, 2))
        assert s.primary(mine).out == ([], [mine])
        assert s.secondary(mine).out == ([mine], [])
        assert s.primary(mine).out == ([], [mine])
        assert s.secondary(other).asks == (1, 0)
        assert s.wait(60_000_000).asks == (0, 0)


@pytest.mark.parametrize("proto", [33, 47, 50, 51, 89, 132, 136, 253])
def test_other_protocols_whole_frame_against_whole_frame(scenario: Make, proto: int) -> None:
    """DCCP, GRE, ESP, AH, OSPF, SCTP, UDP-Lite, an unassigned one: equal frames leave, others are asked for."""
    with scenario() as s:
        body = bytes(range(1, 33))
        mine = ip_frame(SERVER, s.client(), proto, body)
        s.primary(mine)
        assert s.secondary(mine).out == ([mine], [mine])
        s.primary(mine)
        assert s.secondary(ip_frame(SERVER, s.client(), proto, body[:-1] + b"!")).asks == (1, 0)
        assert s.wait(60_000_000).asks == (0, 1)


@pytest.mark.parametrize("kind", [0x0806, 0x8035, 0x88CC, 0x05DC, 0x0000, 0xFFFF, 0x8847])
def test_what_is_not_ip_leaves_at_once(scenario: Make, kind: int) -> None:
    """ARP, RARP, LLDP, 802.3 lengths, MPLS: the primary's leaves, the secondary's is dropped."""
    with scenario() as s:
        frame = arp_frame(SERVER, s.client()) if kind == 0x0806 else ether(bytes(46), kind)
        assert s.secondary(frame).out == ([], [])
        assert s.primary(frame).out == ([frame], [frame])
        assert s.secondary(frame).out == ([], [])
        assert s.primary(frame).out == ([frame], [frame])
        assert s.asked == [0, 0]


def test_qinq_is_compared(scenario: Make) -> None:
    """802.1ad with an 802.1Q tag inside: QEMU reads past these two (one 802.1Q tag it does not)."""
    with scenario() as s:
        for frame in (s.datagram(b"tagged", vlans=[5, 6]), s.seg(1_000, b"tagged", vlans=[5, 6])):
            assert s.primary(frame).out == ([], [])
            assert s.secondary(frame).out == ([frame], [frame])
        assert s.asked == [0, 0]


@pytest.mark.parametrize("fill", ["zeros", "ones", "a datagram cut off"])
def test_runts(scenario: Make, fill: str) -> None:
    """1 to 60 bytes that are no whole packet: never held for ever, never asked for; ours lets them out at once."""
    with scenario() as s:
        whole = s.datagram(b"x" * 100)
        for size in range(1, 61):
            frame = {"zeros": bytes(size), "ones": b"\xff" * size}.get(fill, whole[:size])
            step = s.primary(frame)
            assert step.out[1] == [frame]
            if size < 34 or fill != "a datagram cut off":
                assert step.out[0] == [frame]
            s.secondary(frame)
        assert s.asked[1] == 0
        assert s.ours.books()["held"] == 0


@pytest.mark.parametrize("layer", ["IPv4", "UDP", "TCP"])
def test_headers_cut_off_at_every_length(reference: Reference, layer: str) -> None:
    """A packet that is shorter than its headers leaves ours at once.

    QEMU checks the IP header alone; behind it, it reads what lies in its memory.  So what it does is not asserted (it
    may even die of it), only that ours has released all that it has.
    """
    proto = {"IPv4": 253, "UDP": 17, "TCP": 6}[layer]
    with closing(Reference(vnet=reference.vnet)) as fragile:
        scenario = Scenario(fragile)
        try:
            whole = {17: scenario.datagram(b"x" * 60), 6: scenario.seg(1_000, b"x" * 60)}.get(
                proto, ip_frame(SERVER, scenario.client(), proto, b"x" * 60)
            )
            for size in range(14, len(whole)):
                assert scenario.primary(whole[:size]).out[1] == [whole[:size]], Row.TRUNCATED.value
                assert scenario.secondary(whole[:size]).out[1] == []
            assert scenario.asked[1] == 0
        except (qemu.QemuError, OSError):  # OSError: it died while we wrote
            assert fragile.qemu.process.wait(60) < 0, "QEMU has not died, and does not answer"
        finally:
            scenario.ours.close()


@pytest.mark.parametrize("field", ["IHL", "total length", "TCP offset", "UDP length"])
def test_lengths_that_lie(reference: Reference, field: str) -> None:
    """Every value of a length field: ours never holds for ever nor asks; what QEMU has released ours has."""
    with closing(Reference(vnet=reference.vnet)) as fragile:
        scenario = Scenario(fragile)
        try:
            for value in range(16 if field in ("IHL", "TCP offset") else 80):
                port = 6000 + value
                tcp, udp = scenario.seg(1_000, port=port), scenario.datagram(b"", port=port)
                frame = bytearray((tcp if field == "TCP offset" else udp) + bytes(40))
                if field == "IHL":
                    frame[14] = 0x40 | value
                elif field == "total length":
                    frame[16:18] = struct.pack("!H", value)
                elif field == "TCP offset":
                    frame[46] = value << 4
                else:
                    frame[38:40] = struct.pack("!H", value)
                scenario.primary(bytes(frame))
                scenario.secondary(bytes(frame))
            assert scenario.asked[1] == 0
            assert scenario.ours.books()["held_primary"] == 0
        except (qemu.QemuError, OSError):  # OSError: it died while we wrote
            assert fragile.qemu.process.wait(60) < 0, "QEMU has not died, and does not answer"
        finally:
            scenario.ours.close()


@pytest.mark.parametrize("row", [Row.EMPTY], ids=[Row.EMPTY.value])
def test_an_empty_frame(row: Row) -> None:
    """A frame of length 0 ends QEMU by an assertion, and the guest with it; ours passes it on."""
    with closing(Reference()) as fragile, closing(Ours()) as ours:
        fragile.feed("primary_in", b"")
        with pytest.raises((qemu.QemuError, OSError)):
            fragile.settle()
        assert fragile.qemu.process.wait(60) != 0
        ours.feed("primary_in", b"")
        ours.feed("secondary_in", b"")
        assert ours.settle().out == [b""]
        assert ours.books()["released_uncompared"] == 1


@pytest.mark.parametrize("size", [1_514, 9_014, 65_549, MAX - 1, MAX])
def test_frames_up_to_the_largest(scenario: Make, size: int) -> None:
    """L of 69,632 is the largest; such frames (here ARP and a datagram in a long frame) pass both."""
    with scenario() as s:
        size -= len(s.header)
        long = ether(bytes(size - 14), 0x0806)
        assert s.primary(long).out == ([long], [long])
        padded = s.datagram(b"in front").ljust(size, b"\0")
        s.primary(padded)
        assert s.secondary(padded).out == ([padded], [padded])
        assert s.asked == [0, 0]


@pytest.mark.parametrize("v", [0, 10, 12, 20])
def test_virtio_net_headers_of_any_length(v: int) -> None:
    """V counts header bytes in front; they may differ (checksum offload), and the primary's go out."""
    with closing(Reference(vnet=True)) as reference:
        for use in ("udp", "tcp"):
            s = Scenario(reference)
            with closing(s.ours):
                mine, theirs = bytes(v), vnet_header(needs_csum=True, csum_start=34, size=v) if v else b""
                syn = [("primary_in", s.seg(1_000, flags=SYN | ACK)), ("secondary_in", s.seg(9, flags=SYN | ACK))]
                frame = s.datagram(b"hello") if use == "udp" else s.seg(1_001, b"hello")
                both = [("primary_in", frame), ("secondary_in", frame)]
                for side, packet in (syn if use == "tcp" else []) + both:
                    head = mine if side == "primary_in" else theirs
                    shown = []
                    for one in (reference, s.ours):
                        one.feed(side, head + packet, v=v)
                        shown.append(one.settle())
                    assert shown[0] == shown[1]
                assert shown[1].out == [mine + frame]
                reference.checkpoint()


def test_several_protocols_at_full_speed(scenario: Make) -> None:
    """ARP, ICMP and datagrams of forty hosts, all at once: the same frames leave both."""
    with scenario() as s:
        arrivals = []
        for i in range(1, 41):
            frames = [
                icmp_frame(SERVER, s.client(i), reply=True, number=i),
                s.datagram(b"to %d" % i, port=7000 + i),
                arp_frame(SERVER, s.client(i)),
            ]
            arrivals += [(side, f) for side, f in itertools.product(("primary_in", "secondary_in"), frames)]
        s.burst(arrivals)
        assert sorted(s.all[0]) == sorted(s.all[1]) == sorted(s.fed)
        assert s.asked == [0, 0]
