"""netdev-packet without vnet_hdr: frames that the system had put together leave as those that it was made of."""

from __future__ import annotations

import select
import struct
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from ring import hot, layout
from tests.crash.harness import NOW, kill_and_look
from tests.namespaces import PATIENCE_S, gather, inside, ip, root, until
from tests.oracle.segmentation import ECN, TCPV4, UDP_L4, Cut, segments
from tests.packets import ACK, FIN, PSH, SYN, checksum_faults, read, tcp_frame, udp_frame, vnet_header
from tests.rig import Rig
from tests.stages.device.test_packet_socket_frames import TAGS
from tests.stages.device.veth import INSIDE, OUTSIDE, Wire, packet, transmit, veth

_CWR = 128
SEND_CUT = """
import socket
s = socket.socket(socket.{family}, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_UDP, 103, 1000)  # UDP_SEGMENT
s.sendto(b"".join(bytes([n]) * 1000 for n in range(5)), ("{to}", 443))
s.sendto(b"x" * 1000 + b"the end", ("{to}", 443))
s.sendto(b"one alone", ("{to}", 443))
"""
OUTSIDE6, INSIDE6 = "fd00:9::1", "fd00:9::2"


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A veth pair between two namespaces."""
    with veth() as made:
        yield made


def put_together(
    size: int, *, kind: int = TCPV4, flags: int = ACK | PSH, tag: bytes = b""
) -> tuple[bytes, list[bytes]]:
    """What a test sends, virtio-net header in front, of ``size`` bytes of payload; and the frames that have to come."""
    data = bytes(range(251)) * (size // 251 + 1)
    if kind & ~ECN == UDP_L4:
        frame = udp_frame(OUTSIDE, INSIDE, 1, 2, data[:size], ident=0xFFFE, partial=True)
    else:
        frame = tcp_frame(OUTSIDE, INSIDE, 1, 2, seq=2**32 - 99, flags=flags, payload=data[:size], partial=True)
    frame = frame[:12] + tag + frame[12:]
    offset, start = (6 if kind == UDP_L4 else 16), 34 + len(tag)
    header = vnet_header(needs_csum=True, csum_start=start, csum_offset=offset, gso=kind, gso_size=1400)
    return header + frame, segments(frame, Cut(kind & ~ECN, 1400, bool(kind & ECN), start))


@root
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_datagrams_of_one_call_come_as_the_sender_meant_them(wire: Wire, family: str) -> None:
    """UDP_SEGMENT: five datagrams of 1,000 bytes, one of 1,000 with its short end, one alone; checksums and all."""
    to = INSIDE
    if family == "AF_INET6":
        to = INSIDE6
        with inside(wire.there, "open('/proc/sys/net/ipv6/conf/v1/disable_ipv6', 'w').write('0')"):
            pass
        ip("-n", wire.there, "addr", "add", f"{OUTSIDE6}/64", "dev", "v1", "nodad")
        ip("-n", wire.there, "neigh", "add", to, "lladdr", "02:00:00:00:00:99", "dev", "v1")
    with packet(wire) as rig:
        got: list[bytes] = []

        def all_came() -> bool:
            got.extend(frame for frame in rig.take("receive") if read(frame).dport == 443)  # IPv6 has its own as well
            return len(got) >= 8

        with inside(wire.there, SEND_CUT.format(family=family, to=to)):
            until(rig, all_came)
        payloads = [bytes([n]) * 1000 for n in range(5)] + [b"x" * 1000, b"the end", b"one alone"]
        assert [read(frame).payload for frame in got] == payloads
        assert [checksum_faults(frame) for frame in got] == [[]] * 8
        if family == "AF_INET":
            numbers = [int.from_bytes(frame[18:20], "big") for frame in got[:5]]
            assert numbers == [(numbers[0] + n) % 65536 for n in range(5)]
        counters = rig.counters()
        assert (counters["frames_cut"], counters["segments_made"], counters["received_over_mtu"]) == (2, 7, 1)


@root
@pytest.mark.parametrize("tag", TAGS)
def test_each_segment_has_the_tags_of_the_frame(wire: Wire, tag: bytes) -> None:
    """The tag that the system took out of the frame stands in every segment."""
    sent, expected = put_together(6000, tag=tag)
    with packet(wire) as rig:
        transmit(wire.there, "v1", sent, header=True)
        assert gather(rig, len(expected)) == expected


@root
@pytest.mark.parametrize("kind", [TCPV4, TCPV4 | ECN, UDP_L4])
def test_a_frame_over_the_mtu_is_cut(wire: Wire, kind: int) -> None:
    """TCP and UDP of tens of KiB, and the frames around them: all in order, byte for byte, and no warning."""
    sent, expected = put_together(60_000, kind=kind, flags=ACK | PSH | FIN | _CWR)
    small = udp_frame(OUTSIDE, INSIDE, 1, 2, b"small")
    with capture_logs() as logs, packet(wire) as rig:
        transmit(wire.there, "v1", bytes(10) + small, sent, bytes(10) + small, sent, header=True)
        assert gather(rig, 2 + 2 * len(expected)) == [small, *expected, small, *expected]
        counters = rig.counters()
        assert (counters["frames_cut"], counters["received_over_mtu"]) == (2, 2)
        assert counters["segments_made"] == 2 * len(expected)
    assert [e for e in logs if e["log_level"] == "warning"] == []


@root
def test_with_the_header_it_stays_whole(wire: Wire) -> None:
    """With ``vnet_hdr`` whoever takes the frame cuts it, as its header says."""
    sent, _ = put_together(30_000)
    with packet(wire, vnet_hdr=True) as rig:
        transmit(wire.there, "v1", sent, header=True)
        (got,) = gather(rig, 1)
        assert got[10:] == sent[10:]
        assert (got[1], struct.unpack_from("<H", got, 4)) == (TCPV4, (1400,))
        assert (rig.counters()["frames_cut"], rig.counters()["received_over_mtu"]) == (0, 1)


@root
def test_segments_wait_for_room(wire: Wire) -> None:
    """A ring with room for some of them: the others wait, the interface is left alone meanwhile, nothing is lost."""
    sent, expected = put_together(40_000)
    with packet(wire, ring_size=1 << 14) as rig:
        transmit(wire.there, "v1", sent, sent, header=True)
        got = until(rig, lambda: rig.take("receive", 3))
        rig.run()
        assert rig.segment.w[layout.BLOCKED] == 1
        assert rig.watched == {}
        got += gather(rig, 2 * len(expected) - len(got))
        assert got == expected * 2


@root
@pytest.mark.parametrize("deleted", [False, True])
def test_a_drain_takes_the_rest_of_a_frame(wire: Wire, deleted: bool) -> None:
    """What was taken from the interface goes out, and only then has the source finished; no more is taken.

    So it is where the interface has gone meanwhile.
    """
    sent, expected = put_together(40_000)
    with packet(wire, ring_size=1 << 14) as rig:
        transmit(wire.there, "v1", sent, sent, header=True)
        got = until(rig, lambda: rig.take("receive", 3))
        rig.run()
        if deleted:
            ip("-n", wire.here, "link", "delete", "v0")
            rig.feed("send", bytes(60))  # so it is noticed
            rig.run()
            assert not rig.stage.ready()
        rig.command(layout.CMD_DRAIN, 1)
        rig.run()
        assert rig.segment.w[layout.LIFE_FINISHED] == 0
        got += gather(rig, len(expected) - len(got))
        rig.run()
        assert got + rig.take("receive") == expected
        assert rig.segment.w[layout.LIFE_FINISHED] == 1


@root
def test_what_cannot_be_cut_is_dropped_and_told(wire: Wire) -> None:
    """Counted, and one warning with the reason and what to do; the next frame comes."""
    wrong, _ = put_together(6000, flags=SYN)
    small = udp_frame(OUTSIDE, INSIDE, 1, 2, b"small")
    with capture_logs() as logs, packet(wire) as rig:
        transmit(wire.there, "v1", wrong, wrong, bytes(10) + small, header=True)
        assert gather(rig, 1) == [small]
        assert rig.counters()["dropped_uncut"] == 2

        def warnings() -> list[str]:
            return [e["mend"] for e in logs if "cannot be cut" in e["event"]]

        (mend,) = until(rig, warnings)
        assert "ethtool -K v0 gro off" in mend


@root
def test_killed_at_any_store_while_it_cuts(wire: Wire) -> None:
    """What is out is whole segments in order, counted; the rest is lost with the socket; what comes next comes."""
    sent, expected = put_together(14_000)
    small = udp_frame(OUTSIDE, INSIDE, 1, 2, b"small")
    seen: set[int] = set()

    def feed(rig: Rig) -> None:
        transmit(wire.there, "v1", sent, header=True)
        assert select.select([rig.stage._fd], [], [], PATIENCE_S)[0]  # type: ignore[attr-defined]

    def two_bursts(rig: Rig) -> None:
        rig.run(NOW)
        rig.rings["receive"].w[layout.HEAD] += sum(4 + len(one) for one in expected[:3])  # three are taken
        rig.run(NOW)

    def look(rig: Rig, where: str) -> None:
        out = rig.take("receive")  # published before the kill
        rig.stage.close()  # type: ignore[attr-defined]
        rig.restart()
        out += rig.take("receive")  # committed before the kill, published by the new incarnation
        counters = rig.counters()
        made = counters["segments_made"]
        seen.add(made)
        assert made == counters["receive_frames"], where
        assert out == expected[made - len(out) : made], where
        assert len(out) in (made, made - 3), where
        transmit(wire.there, "v1", bytes(10) + small, header=True)
        assert gather(rig, 1) == [small], where

    kills = kill_and_look(
        lambda: packet(wire, ring_size=1 << 13),
        feed,
        two_bursts,
        look,
        stride=9 if hot.JIT else 3,
    )
    assert kills > 20
    assert len(seen) == 3
