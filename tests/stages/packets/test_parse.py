"""The packet parser against the builders and the reader of `tests.packets`, and against garbage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.hot import JIT
from stages.packets.kernels.parse import has_key, parse, reverse_key
from stages.packets.layout import networks, parsed, transports
from tests.packets import (
    MOD,
    P_FRAGMENT,
    SYN,
    arp_frame,
    destination_options,
    ether,
    fragment_header,
    fragments,
    hop_by_hop,
    icmp_frame,
    in_pppoe,
    ip_frame,
    ipv4,
    ipv6,
    long_frame,
    opt_timestamp,
    packed,
    read,
    tcp,
    tcp_frame,
    udp,
    udp_frame,
)

AT = 24  # where frames lie in the array
V4 = ("10.1.2.3", "192.168.200.250")
V6 = ("fd00::1", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff")
TRANSPORTS = {6: transports.TCP, 17: transports.UDP, 1: transports.ICMP, 58: transports.ICMP}


class Guarded:
    """Bytes that fail on any access outside the frame; plain Python only."""

    def __init__(self, u8: Any, start: int, end: int) -> None:
        self.u8, self.start, self.end = u8, start, end

    def __getitem__(self, i: Any) -> Any:
        first, last = (i.start, i.stop - 1) if isinstance(i, slice) else (i, i)
        assert self.start <= first <= last < self.end, f"read of byte {i} of [{self.start}, {self.end})"
        return self.u8[i]


def scan(frame: bytes) -> tuple[int, Any]:
    """Verdict and scratch words of a frame; what lies around it is 0xFF."""
    u8: Any = np.full(AT + len(frame) + 64, 0xFF, np.uint8)
    u8[AT : AT + len(frame)] = np.frombuffer(frame, np.uint8)
    w = np.full(parsed.SCRATCH, -7, np.int64)
    seen = u8 if JIT else Guarded(u8, AT, AT + len(frame))
    return int(parse(seen, w, AT, len(frame), 0)), w


def halves(address: str) -> list[int]:
    """The two key words of an address."""
    raw = packed(address).rjust(16, b"\0")
    return [int.from_bytes(raw[i : i + 8], "big", signed=True) for i in (0, 8)]


hosts = st.sampled_from([V4, V4[::-1], V6, V6[::-1]])
ports = st.integers(0, 65535)
tags = st.lists(st.integers(0, 4095), max_size=2)
numbers = st.integers(0, MOD - 1)
extensions = st.lists(st.sampled_from([hop_by_hop(8), hop_by_hop(24), destination_options(16)]), max_size=3)


@given(
    hosts, ports, ports, numbers, numbers, st.integers(0, 255), st.binary(max_size=40), tags, extensions, st.booleans()
)
def test_tcp_fields(
    pair: tuple[str, str], sport: int, dport: int, seq: int, ack: int, flags: int, payload: bytes, vlans: list[int],
    chain: list[tuple[int, bytes]], pad: bool,
) -> None:  # fmt: skip
    """Key, numbers, flags, and where the payload lies, under any tags and headers; padding is no payload."""
    more = {"extensions": chain} if ":" in pair[0] else {"ip_options": b"\1" * 8}
    frame = tcp_frame(
        *pair, sport, dport, seq=seq, ack=ack, flags=flags, payload=payload, options=opt_timestamp(1, 2), vlans=vlans,
        window=4321, pad=pad, **more,
    )  # fmt: skip
    transport, w = scan(frame)
    assert transport == transports.TCP
    assert list(w[parsed.SRC : parsed.SRC + 4]) == halves(pair[0]) + halves(pair[1])
    assert w[parsed.PORTS] == 6 << 32 | sport << 16 | dport
    version = 6 if ":" in pair[0] else 4
    outer, inner = (vlans[0], vlans[1]) if len(vlans) == 2 else (0, vlans[0] if vlans else 0)
    assert w[parsed.VLAN] == version << 32 | outer << 16 | inner
    assert (w[parsed.SEQ], w[parsed.ACK], w[parsed.FLAGS], w[parsed.WINDOW]) == (seq, ack, flags, 4321)
    assert (w[parsed.IPV], w[parsed.PROTO], w[parsed.L3]) == (version, 6, 14 + 4 * len(vlans))
    found = read(frame)
    assert w[parsed.L4] == found.body_at
    assert frame[w[parsed.DATA] : w[parsed.DATA] + w[parsed.DATA_LEN]] == payload == found.payload
    assert w[parsed.END] == w[parsed.DATA] + w[parsed.DATA_LEN]


@given(hosts, ports, ports, st.binary(max_size=40), tags, st.booleans())
def test_udp_fields(pair: tuple[str, str], sport: int, dport: int, data: bytes, vlans: list[int], pad: bool) -> None:
    """Ports and payload of a datagram."""
    frame = udp_frame(*pair, sport, dport, data, vlans=vlans, pad=pad)
    transport, w = scan(frame)
    assert transport == transports.UDP
    assert w[parsed.PORTS] == 17 << 32 | sport << 16 | dport
    assert frame[w[parsed.DATA] : w[parsed.DATA] + w[parsed.DATA_LEN]] == data


@pytest.mark.parametrize("pair", [V4, V6], ids=["IPv4", "IPv6"])
def test_other_protocols(pair: tuple[str, str]) -> None:
    """ICMP and what else runs over IP have a key by address and protocol."""
    assert scan(icmp_frame(*pair))[0] == transports.ICMP
    transport, w = scan(ip_frame(*pair, 47, b"gre?"))
    assert (transport, w[parsed.PORTS], w[parsed.DATA_LEN]) == (transports.IP, 47 << 32, 4)
    assert scan(ip_frame(*pair, 59, b""))[0] == transports.IP


def test_what_has_no_key() -> None:
    """ARP, unknown types, runts, wrong versions; PPPoE before its session is there; 802.3 frames."""
    frame = tcp_frame(*V4, 1, 2)
    for other in (
        b"", b"\0" * 13, arp_frame(*V4), ether(b"x" * 50, 0x88CC), ether(b"x" * 50, 0x8863),
        ether(b"\x42\x42\3" + bytes(47), 38), ether(b"\xaa\xaa\3\0\0\0\x88\xcc" + bytes(42), 50),
        frame[:14] + b"\x65" + frame[15:], frame[:14] + b"\x44" + frame[15:], ether(b"", 0x8100),
        ether(b"\0" * 4, 0x8100),
    ):  # fmt: skip
        assert scan(other)[0] == transports.OTHER


# --- lengths that are not there --------------------------------------------------------------------------------------
@pytest.mark.parametrize("pair", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("how", [{}, {"vlans": (7,)}, {"vlans": (1, 2, 3)}], ids=str)
def test_a_length_of_0_is_taken_from_the_frame(pair: tuple[str, str], how: dict[str, Any]) -> None:
    """TSO of some drivers, BIG TCP: what is behind the headers is data, to the frame's end."""
    data = bytes(range(200)) * 5
    frame = long_frame(tcp_frame(*pair, 1, 2, seq=9, payload=data, **how))
    transport, w = scan(frame)
    assert (transport, w[parsed.SEQ], w[parsed.END]) == (transports.TCP, 9, len(frame))
    assert frame[w[parsed.DATA] : w[parsed.DATA] + w[parsed.DATA_LEN]] == data
    assert scan(long_frame(udp_frame(*pair, 1, 2, data)))[0] == transports.UDP


def test_a_jumbo_payload_with_its_option() -> None:
    """RFC 2675: payload length 0, and 66,000 bytes of payload behind a hop-by-hop option that says so."""
    size = 66_000
    option = (0, b"\0\0\xc2\4" + size.to_bytes(4, "big"))
    segment = tcp(*V6, 1, 2, payload=bytes(size - 8 - 20))
    frame = long_frame(ether(ipv6(*V6, 6, b"", extensions=[option]), 0x86DD)) + segment
    transport, w = scan(frame)
    assert (transport, w[parsed.DATA_LEN], w[parsed.END]) == (transports.TCP, size - 28, len(frame))


@pytest.mark.parametrize("size", range(41, 47))
def test_where_padding_may_be_a_length_of_0_says_nothing(size: int) -> None:
    """At most 46 bytes behind Ethernet header and tags: IPv4 is not read, IPv6 has no payload; one more, and it is."""
    for vlans in ((), (5,)):
        for extra, four, six in ((0, transports.OTHER, 0), (47 - size, transports.UDP, 7)):
            body = udp(*V4, 5, 6, bytes(size + extra - 28))
            assert scan(long_frame(ip_frame(*V4, 17, body, vlans=vlans)))[0] == four
            transport, w = scan(long_frame(ip_frame(*V6, 59, bytes(size + extra - 40), vlans=vlans)))
            assert (transport, w[parsed.DATA_LEN]) == (transports.IP, six)


def test_no_fragment_has_a_length_of_0() -> None:
    """A segment that is too long for the field is never in fragments."""
    for pair in (V4, V6):
        for frame in fragments(*pair, 17, udp(*pair, 5, 6, bytes(300)), 200):
            assert scan(frame)[0] == transports.FRAGMENT
            assert scan(long_frame(frame))[0] == transports.OTHER


# --- what an IP packet is inside of ----------------------------------------------------------------------------------
@pytest.mark.parametrize("pair", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("vlans", [(1, 2, 3), (1, 2, 3, 4), (4095, 4095, 4095, 4095), (0, 0, 0)])
def test_three_and_four_tags(pair: tuple[str, str], vlans: tuple[int, ...]) -> None:
    """Each of them is in the key."""
    frame = tcp_frame(*pair, 5, 6, payload=b"data", vlans=vlans)
    transport, w = scan(frame)
    assert (transport, w[parsed.L3], w[parsed.PORTS]) == (transports.TCP, 14 + 4 * len(vlans), 6 << 32 | 5 << 16 | 6)
    further = vlans[2] << 12 | (vlans[3] if len(vlans) == 4 else 0)
    word = int(w[parsed.VLAN])
    assert word & 0xFFFFFFFF == vlans[0] << 16 | vlans[1]
    assert word >> networks.VERSION_AT & networks.VERSION == (6 if pair == V6 else 4)
    assert (word >> networks.KIND_AT & networks.KIND, word >> networks.ID_AT) == (networks.TAGS, further)


@pytest.mark.parametrize("pair", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("vlans", [(), (9,), (8, 9)])
def test_pppoe_sessions(pair: tuple[str, str], short: bool, vlans: tuple[int, ...]) -> None:
    """RFC 2516, also with a protocol of one byte (RFC 1661, 6.5); the session is in the key, padding is not read."""
    frame = in_pppoe(tcp_frame(*pair, 5, 6, payload=b"", vlans=vlans), 0xABCD, short=short, pad=True)
    transport, w = scan(frame)
    _, plain = scan(tcp_frame(*pair, 5, 6, payload=b"", vlans=vlans))
    assert (transport, w[parsed.L3]) == (transports.TCP, 14 + 4 * len(vlans) + (7 if short else 8))
    word = int(w[parsed.VLAN])
    assert (word >> networks.KIND_AT & networks.KIND, word >> networks.ID_AT) == (networks.PPPOE, 0xABCD)
    assert word & 0xFFFFFFFFF == plain[parsed.VLAN] and list(w[:5]) == list(plain[:5])
    assert w[parsed.DATA_LEN] == 0


SOME = tcp_frame(*V4, 1, 2, payload=b"abc")
PPP = in_pppoe(SOME, 7)


@pytest.mark.parametrize(
    "frame",
    [
        tcp_frame(*V4, 1, 2, vlans=(1, 2, 3, 4, 5)),
        in_pppoe(tcp_frame(*V4, 1, 2, vlans=(1, 2, 3)), 7),
        PPP[:20] + b"\xc0\x21" + PPP[22:],  # LCP
        PPP[:14] + b"\x21" + PPP[15:],  # version 2
        PPP[:15] + b"\x09" + PPP[16:],  # a code of discovery
        *(ether(SOME[14:], kind) for kind in (0x8847, 0x8848, 0x88E7, 0x88E5, 0x894F, 0x22F3, 0x892F, 0x9200, 0x9300)),
        ether(b"\xaa\xaa\3\0\0\0\x08\0" + SOME[14:], 8 + len(SOME) - 14),
        ether(b"\xaa\xaa\3\0\0\0\x86\xdd" + SOME[14:], 8 + len(SOME) - 14, vlans=(7,)),
    ],
    ids=lambda frame: frame[12:22].hex(),
)
def test_what_may_have_ip_in_it_is_called_so(frame: bytes) -> None:
    """Behind headers that are not read: it has no key, and whoever does not compare it can say why."""
    assert scan(frame)[0] == transports.ENCAPSULATED


def test_a_pppoe_length_that_lies_is_other() -> None:
    """Longer than the frame, or too short for a protocol."""
    for size in (0, 1, len(PPP) - 19, 0xFFFF):
        assert scan(PPP[:18] + size.to_bytes(2, "big") + PPP[20:])[0] == transports.OTHER


@pytest.mark.parametrize("pair", [V4, V6], ids=["IPv4", "IPv6"])
def test_fragments(pair: tuple[str, str]) -> None:
    """Every fragment is one, with identification, offset and `more`; they share a key without ports."""
    body = udp(*pair, 5, 6, bytes(range(200)))
    keys = set()
    frames = fragments(*pair, 17, body, 64, ident=0x1234, vlans=(9,))
    for i, frame in enumerate(frames):
        transport, w = scan(frame)
        assert transport == transports.FRAGMENT
        assert (w[parsed.IP_ID], w[parsed.FRAG]) == (0x1234, 64 * i << 1 | (i < len(frames) - 1))
        assert frame[w[parsed.L4] : w[parsed.END]] == body[64 * i : 64 * i + 64]
        assert w[parsed.DATA_LEN] == len(body[64 * i : 64 * i + 64])
        keys.add(tuple(w[: parsed.KEY_WORDS]))
    assert len(keys) == 1
    assert keys.pop()[parsed.PORTS] == 17 << 32


def test_an_atomic_fragment_is_a_whole_datagram() -> None:
    """RFC 6946: offset 0, no more to come."""
    frame = udp_frame(*V6, 5, 6, b"whole", extensions=[hop_by_hop(), fragment_header(0, False, 3)])
    transport, w = scan(frame)
    assert (transport, w[parsed.PORTS]) == (transports.UDP, 17 << 32 | 5 << 16 | 6)
    assert P_FRAGMENT in frame[14 + 40 : 14 + 48]


@pytest.mark.parametrize(
    "frame",
    [
        tcp_frame(*V4, 1, 2, payload=b"abc", options=opt_timestamp(1), vlans=(3, 4), ip_options=b"\1" * 4),
        tcp_frame(*V6, 1, 2, payload=b"abc", extensions=[hop_by_hop(16), destination_options()]),
        udp_frame(*V4, 1, 2, b"abc"),
        udp_frame(*V6, 1, 2, b"abc", vlans=(3,)),
        udp_frame(*V4, 1, 2, b"abc", vlans=(3, 4, 5, 6)),
        in_pppoe(tcp_frame(*V4, 1, 2, payload=b"abc", vlans=(3,)), 7),
        in_pppoe(udp_frame(*V6, 1, 2, b"abc"), 7, short=True),
    ],
)
def test_cut_anywhere_it_is_other(frame: bytes) -> None:
    """A frame shorter than its headers or its IP length say is never read beyond its end."""
    assert scan(frame)[0] != transports.OTHER
    for size in range(len(frame)):
        assert scan(frame[:size])[0] == transports.OTHER


@pytest.mark.parametrize("total", range(1, 60))
def test_an_ip_length_that_cuts_the_tcp_header_is_other(total: int) -> None:
    """The frame is long enough, the datagram is not."""
    frame = bytearray(ether(ipv4(*V4, 6, tcp(*V4, 1, 2, options=b"\1" * 20)), 0x0800))
    frame[16:18] = total.to_bytes(2, "big")
    assert scan(bytes(frame))[0] == transports.OTHER


KINDS = [b"\x08\x00", b"\x86\xdd", b"\x81\x00\0\5\x08\x00", b"\x88\xa8", b"\x81\x00\0\5" * 3, b"\x88\x64\x11\0", b""]


@given(st.binary(max_size=120), st.sampled_from(KINDS))
def test_garbage_is_read_within_its_bounds(data: bytes, kind: bytes) -> None:
    """Any bytes: a transport, and every offset inside the frame."""
    garbage(b"\2" * 12 + kind + data if kind else data)


@given(st.data())
def test_damaged_frames_are_read_within_their_bounds(data: st.DataObject) -> None:
    """A few bytes of a good frame are others."""
    frame = bytearray(
        data.draw(
            st.sampled_from(
                [
                    tcp_frame(*V4, 1, 2, payload=b"abc", options=opt_timestamp(1), vlans=(3,)),
                    tcp_frame(*V6, 1, 2, payload=b"abc", flags=SYN, extensions=[hop_by_hop(16), destination_options()]),
                    fragments(*V6, 17, bytes(100), 64)[0],
                    in_pppoe(tcp_frame(*V4, 1, 2, payload=b"abc", vlans=(3,)), 7),
                    long_frame(tcp_frame(*V6, 1, 2, payload=b"abc" * 20, vlans=(3, 4, 5))),
                ]
            )
        )
    )
    for at, value in data.draw(st.lists(st.tuples(st.integers(12, len(frame) - 1), st.integers(0, 255)), max_size=4)):
        frame[at] = value
    garbage(bytes(frame))


def garbage(frame: bytes) -> None:
    """Whatever the transport, what it says lies inside the frame."""
    transport, w = scan(frame)
    assert transport in (
        transports.OTHER,
        transports.ENCAPSULATED,
        transports.TCP,
        transports.UDP,
        transports.ICMP,
        transports.IP,
        transports.FRAGMENT,
    )
    assert has_key(transport) == (transport not in (transports.OTHER, transports.ENCAPSULATED))
    if not has_key(transport):
        return
    assert 14 <= w[parsed.L3] < w[parsed.L4] <= w[parsed.DATA] <= w[parsed.END] <= len(frame)
    assert w[parsed.DATA] + w[parsed.DATA_LEN] == w[parsed.END]
    if transport != transports.FRAGMENT:
        assert TRANSPORTS.get(int(w[parsed.PROTO]), transports.IP) == transport


@given(hosts, ports, ports)
def test_reverse_key_is_the_other_direction(pair: tuple[str, str], sport: int, dport: int) -> None:
    """The key of the answer, reversed, is the key of the question; twice is nothing."""
    _, there = scan(tcp_frame(*pair, sport, dport, vlans=(7,)))
    _, back = scan(tcp_frame(*pair[::-1], dport, sport, vlans=(7,)))
    before = list(back[: parsed.KEY_WORDS])
    reverse_key(back, 0)
    assert list(back[: parsed.KEY_WORDS]) == list(there[: parsed.KEY_WORDS])
    reverse_key(back, 0)
    assert list(back[: parsed.KEY_WORDS]) == before
