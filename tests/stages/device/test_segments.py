"""Cutting frames that were put together: the kernel against its oracle, and against headers that lie."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.device.kernels.segments import next_length, plan, waiting, write_segment
from stages.device.layout import segmentation
from tests import packets
from tests.oracle.segmentation import ECN, TCPV4, TCPV6, UDP_L4, Cut, segments
from tests.packets import ACK, FIN, PSH, RST, SYN, checksum_faults, read, vnet_header

_HEADER, _FRAME, _OUT = 1000, 2048, 200_003  # bytes of the bench
_URG, _ECE, _CWR = 32, 64, 128
_MOST = 69_632


class Bench:
    """The kernel's memory: its words from word 0 on, a header, a frame, and room for segments."""

    def __init__(self) -> None:
        self.u8 = np.zeros(400_000, np.uint8)
        self.w = self.u8.view(np.int64)

    def cut(self, header: bytes, frame: bytes, most: int = _MOST) -> tuple[int, list[bytes]]:
        """What `plan` says, and the segments."""
        u8, w = self.u8, self.w
        u8[_HEADER : _HEADER + len(header)] = np.frombuffer(header, np.uint8)
        u8[_FRAME : _FRAME + len(frame)] = np.frombuffer(frame, np.uint8)
        why = int(plan(u8, w, 0, _HEADER, _FRAME, len(frame), most))
        made = []
        while waiting(w, 0) > 0:
            length = int(next_length(w, 0))
            u8[_OUT - 8 : _OUT + length + 8] = 0xA5
            assert write_segment(u8, w, 0, _OUT) == length <= most
            made.append(u8[_OUT : _OUT + length].tobytes())
            around = u8[_OUT - 8 : _OUT].tobytes() + u8[_OUT + length : _OUT + length + 8].tobytes()
            assert around == b"\xa5" * 16
        return why, made


@pytest.fixture(scope="module")
def bench() -> Bench:
    """One for all: what an earlier frame left in it must not matter."""
    return Bench()


@dataclass(frozen=True)
class Case:
    """A frame, the header that came with it, and what the header says."""

    frame: bytes
    header: bytes
    cut: Cut


def routing(final: str) -> tuple[int, bytes]:
    """A routing header (type 2, RFC 6275) with one segment left, which leads to ``final``."""
    return 43, bytes([0, 2, 2, 1, 0, 0, 0, 0]) + packets.packed(final)


def tunnelled(kind: str, version: int, datagram: bytes, summed: bool) -> tuple[int, bytes]:
    """(EtherType, datagram) around an IP datagram of that version."""
    ether_type = packets.IPV4 if version == 4 else packets.IPV6
    inside = packets.ether(datagram, ether_type)
    if kind == "none":
        return ether_type, datagram
    proto = 17
    if kind == "ip":
        proto, body = (4 if version == 4 else 41), datagram
    elif kind == "gre":
        proto, body = 47, struct.pack("!HH", 0, ether_type) + datagram
    elif kind == "gre key":
        proto, body = 47, struct.pack("!HHI", 0x2000, 0x6558, 7) + inside
    elif kind == "vxlan":
        body = struct.pack("!HHHHII", 1, 4789, 16 + len(inside), 0, 8 << 24, 77 << 8) + inside
    else:
        body = struct.pack("!HHHHBBHII", 1, 6081, 20 + len(inside), 0, 1, 0, 0x6558, 0, 9) + inside
    if proto == 17 and summed:  # as Linux leaves it: the sum of the pseudo header
        sum_ = packets.ones_sum(packets.pseudo(packets.packed("192.0.2.1"), packets.packed("192.0.2.2"), 17, len(body)))
        body = body[:6] + sum_.to_bytes(2, "big") + body[8:]
    return packets.IPV4, packets.ipv4("192.0.2.1", "192.0.2.2", proto, body, ident=0xFFFF)


@st.composite
def cases(draw: Any) -> Case:
    """Any frame that a local sender or GRO makes: both transports, both families, tags, options, tunnels."""
    version, is_tcp = draw(st.sampled_from((4, 6))), draw(st.booleans())
    src, dst = ("10.0.0.1", "10.0.0.2") if version == 4 else ("fd00::1", "fd00::2")
    data = bytes(draw(st.randoms()).randbytes(draw(st.integers(0, 3000))))
    size = draw(st.one_of(st.integers(1, 1500), st.integers(900, 1500)))
    data = data[: 200 * size]
    tunnel = draw(st.sampled_from(("none", "none", "vxlan", "geneve", "gre", "gre key", "ip")))
    partial = tunnel != "none" or draw(st.booleans())
    extensions = []
    final = dst
    if version == 6:
        known = (packets.hop_by_hop(), packets.destination_options(16))
        extensions = draw(st.lists(st.sampled_from(known), max_size=2))
        if partial and draw(st.booleans()):
            final = "fd00::99"
            extensions.append(routing(final))
    if is_tcp:
        flags = draw(st.sampled_from((ACK, ACK | PSH, ACK | FIN | PSH, ACK | _CWR | PSH, ACK | _ECE, ACK | _URG)))
        body = packets.tcp(
            src, final, 1, 2, seq=draw(st.sampled_from((1, 2**32 - 700))), ack=3, flags=flags, payload=data,
            options=draw(st.sampled_from((b"", packets.opt_timestamp(5, 6), bytes([1]) * 40))), partial=True,
        )  # fmt: skip
        if flags & _URG:
            body = body[:18] + draw(st.integers(1, 3000)).to_bytes(2, "big") + body[20:]
    else:
        body = packets.udp(src, final, 1, 2, data, partial=True)
        if not partial and version == 4 and draw(st.booleans()):
            body = body[:6] + b"\0\0" + body[8:]
    proto = 6 if is_tcp else 17
    if not partial and body[6:8] != b"\0\0":
        # GRO of a card that had seen to the checksum: nobody has made it for the whole.
        at = 16 if is_tcp else 6
        body = body[:at] + b"\xbe\xef" + body[at + 2 :]
    if version == 4:
        options = draw(st.sampled_from((b"", b"\1" * 8)))
        ident = draw(st.sampled_from((0, 7, 0xFFFE)))
        datagram = packets.ipv4(src, dst, proto, body, ident=ident, tos=2, options=options)
    else:
        datagram = packets.ipv6(src, dst, proto, body, extensions=extensions)
    head = len(datagram) - len(body)
    kind, whole = tunnelled(tunnel, version, datagram, draw(st.booleans()))
    tags = draw(st.lists(st.sampled_from((0x81000007, 0x88A8F001, 0x91000001)), max_size=3))
    frame = packets.MAC_B + packets.MAC_A + b"".join(t.to_bytes(4, "big") for t in tags)
    frame += kind.to_bytes(2, "big") + whole
    start = len(frame) - len(datagram) + head
    frame += bytes(draw(st.integers(0, 6)))  # padding of a short frame
    gso = (TCPV4 if version == 4 else TCPV6) if is_tcp else UDP_L4
    ecn = draw(st.booleans())
    header = vnet_header(
        needs_csum=partial, csum_start=start if partial else 0, csum_offset=(16 if is_tcp else 6) if partial else 0,
        gso=gso | (ECN if ecn else 0), gso_size=size,
    )  # fmt: skip
    return Case(frame, header, Cut(gso, size, ecn, start if partial else None))


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_segments_are_those_of_the_oracle(bench: Bench, case: Case) -> None:
    """Byte for byte: lengths, sequence numbers, flags, identifications, checksums, in tags and tunnels as well."""
    why, made = bench.cut(case.header, case.frame)
    assert why == 0
    assert made == segments(case.frame, case.cut)


@pytest.mark.parametrize("version", [4, 6])
def test_segments_of_tcp_are_a_stream(bench: Bench, version: int) -> None:
    """The payloads, in order of their numbers, are the frame's; FIN and PSH are the last one's, CWR the first one's."""
    ends = ("10.0.0.1", "10.0.0.2") if version == 4 else ("fd00::1", "fd00::2")
    data = bytes(range(251)) * 20
    seq = 2**32 - 2000
    frame = packets.tcp_frame(
        *ends, 1, 2, seq=seq, flags=ACK | FIN | PSH | _CWR, payload=data, partial=True, vlans=(5,), ident=0xFFFF
    )
    at = 38 if version == 4 else 58
    header = vnet_header(
        needs_csum=True, csum_start=at, csum_offset=16, gso=(TCPV4 if version == 4 else TCPV6) | ECN, gso_size=1000
    )
    _, made = bench.cut(header, frame)
    seen = [read(one) for one in made]
    assert [p.seq for p in seen] == [(seq + 1000 * n) % 2**32 for n in range(6)]
    assert b"".join(p.payload for p in seen) == data
    assert [p.flags for p in seen] == [ACK | _CWR, ACK, ACK, ACK, ACK, ACK | FIN | PSH]
    assert [checksum_faults(one) for one in made] == [[]] * 6
    assert {p.vlans for p in seen} == {(5,)}
    if version == 4:
        assert [int.from_bytes(one[22:24], "big") for one in made] == [0xFFFF, 0, 1, 2, 3, 4]


def test_a_length_that_its_field_cannot_say(bench: Bench) -> None:
    """Over 65,535 bytes (BIG TCP) the IP header's length is 0: the frame has it."""
    data = bytes(range(256)) * 264
    body = packets.tcp("10.0.0.1", "10.0.0.2", 1, 2, payload=data[:1000], partial=True)[:20]
    length = struct.pack("!II", 6, 20 + len(data))
    sum_ = packets.ones_sum(packets.packed("10.0.0.1") + packets.packed("10.0.0.2") + length)
    body = body[:16] + sum_.to_bytes(2, "big") + body[18:] + data
    datagram = packets.ipv4("10.0.0.1", "10.0.0.2", 6, b"")
    datagram = datagram[:2] + b"\0\0" + datagram[4:10] + b"\0\0" + datagram[12:]
    datagram = datagram[:10] + packets.checksum(datagram).to_bytes(2, "big") + datagram[12:]
    frame = packets.ether(datagram + body, packets.IPV4)
    header = vnet_header(needs_csum=True, csum_start=34, csum_offset=16, gso=TCPV4, gso_size=1448)
    why, made = bench.cut(header, frame)
    assert why == 0
    assert b"".join(read(one).payload for one in made) == data
    assert [checksum_faults(one) for one in made] == [[]] * len(made)


_TCP_HEADER = vnet_header(needs_csum=True, csum_start=34, csum_offset=16, gso=TCPV4, gso_size=100)
_UDP_HEADER = vnet_header(needs_csum=True, csum_start=34, csum_offset=6, gso=UDP_L4, gso_size=100)
_ENDS = ("10.0.0.1", "10.0.0.2", 1, 2)
_TCP_FRAME = packets.tcp_frame(*_ENDS, payload=bytes(900), partial=True)
_UDP_FRAME = packets.udp_frame(*_ENDS, bytes(900), partial=True)


@pytest.mark.parametrize(
    ("header", "frame", "why"),
    [
        (_UDP_HEADER[:1] + b"\3" + _UDP_HEADER[2:], _UDP_FRAME, segmentation.UNKNOWN),  # fragments, before Linux 4.14
        (_UDP_HEADER[:1] + b"\7" + _UDP_HEADER[2:], _UDP_FRAME, segmentation.UNKNOWN),
        (_TCP_HEADER[:4] + b"\0\0" + _TCP_HEADER[6:], _TCP_FRAME, segmentation.NO_SIZE),
        (_UDP_HEADER, _TCP_FRAME, segmentation.NO_MATCH),
        (_TCP_HEADER[:1] + b"\4" + _TCP_HEADER[2:], _TCP_FRAME, segmentation.NO_MATCH),  # IPv6, it says
        (_TCP_HEADER[:6] + b"\x23" + _TCP_HEADER[7:], _TCP_FRAME, segmentation.NO_MATCH),
        (_TCP_HEADER[:8] + b"\6" + _TCP_HEADER[9:], _TCP_FRAME, segmentation.NO_MATCH),
        (_TCP_HEADER, _TCP_FRAME[:60], segmentation.NO_MATCH),  # cut off
        (_TCP_HEADER, _TCP_FRAME[:46] + b"\x40" + _TCP_FRAME[47:], segmentation.NO_MATCH),  # a header of 16 bytes
        (_TCP_HEADER, packets.tcp_frame(*_ENDS, flags=SYN, payload=bytes(900), partial=True), segmentation.NO_MATCH),
        (_TCP_HEADER, packets.tcp_frame(*_ENDS, flags=RST, payload=bytes(900), partial=True), segmentation.NO_MATCH),
        (_TCP_HEADER, packets.fragments(*_ENDS[:2], 6, bytes(960), 480)[0], segmentation.NO_MATCH),
        (_UDP_HEADER, _UDP_FRAME[:38] + b"\0\x20" + _UDP_FRAME[40:], segmentation.NO_MATCH),  # UDP's length
        (_TCP_HEADER, packets.arp_frame(*_ENDS[:2]), segmentation.NO_MATCH),
        (_TCP_HEADER, b"short", segmentation.NO_MATCH),
    ],
)
def test_what_cannot_be_cut_is_told_from_what_can(bench: Bench, header: bytes, frame: bytes, why: int) -> None:
    """Unknown kinds, no size, headers that are not what the virtio-net header says: a reason, and no segment."""
    assert bench.cut(header, frame) == (why, [])
    assert bench.cut(_TCP_HEADER, _TCP_FRAME)[0] == 0


def test_a_segment_that_is_longer_than_the_room_for_one(bench: Bench) -> None:
    """A segment that would never fit is no reason to wait for ever."""
    assert bench.cut(_TCP_HEADER, _TCP_FRAME, most=153) == (segmentation.NO_SIZE, [])
    assert bench.cut(_TCP_HEADER, _TCP_FRAME, most=154)[0] == 0


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases(), data=st.data())
def test_nothing_that_a_frame_says_leads_out_of_it(bench: Bench, case: Case, data: Any) -> None:
    """With bytes of header and frame changed, and the frame cut off: a reason, or segments of bytes that it has."""
    frame, header = bytearray(case.frame), bytearray(case.header)
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, min(len(frame), 160) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        header[data.draw(st.integers(0, 9))] = data.draw(st.integers(0, 255))
    frame = frame[: data.draw(st.integers(14, len(frame)))]
    why, made = bench.cut(bytes(header), bytes(frame))
    assert 0 <= why < len(segmentation.WHY)
    assert bool(made) == (why == 0)
    headers = int(bench.w[segmentation.HEADERS])
    assert sum(len(one) - headers for one in made) <= len(frame)


def test_the_oracle_agrees_with_what_was_put_together() -> None:
    """Datagrams put together by hand come apart as the same datagrams."""
    data = [bytes([n]) * 300 for n in range(3)] + [b"end"]
    frame = packets.udp_frame(*_ENDS, b"".join(data), partial=True, ident=4)
    cut = Cut(UDP_L4, 300, start=34)
    assert segments(frame, cut) == [packets.udp_frame(*_ENDS, one, ident=4 + n) for n, one in enumerate(data)]
    assert segments(frame, replace(cut, size=903)) == [packets.udp_frame(*_ENDS, b"".join(data), ident=4)]
