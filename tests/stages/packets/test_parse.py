"""The packet parser against the builders and the reader of `tests.packets`, and against garbage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.hot import JIT
from stages.packets.kernels.parse import parse, reverse_key
from stages.packets.layout import parsed, transports
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
    ip_frame,
    ipv4,
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
    """ARP, unknown types, runts, three tags, wrong versions."""
    frame = tcp_frame(*V4, 1, 2)
    for other in (
        b"", b"\0" * 13, arp_frame(*V4), ether(b"x" * 50, 0x88CC), tcp_frame(*V4, 1, 2, vlans=(1, 2, 3)),
        frame[:14] + b"\x65" + frame[15:], frame[:14] + b"\x44" + frame[15:], ether(b"", 0x8100),
        ether(b"\0" * 4, 0x8100),
    ):  # fmt: skip
        assert scan(other)[0] == transports.OTHER


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
    ],
)
def test_cut_anywhere_it_is_other(frame: bytes) -> None:
    """A frame shorter than its headers or its IP length say is never read beyond its end."""
    assert scan(frame)[0] != transports.OTHER
    for size in range(len(frame)):
        assert scan(frame[:size])[0] == transports.OTHER


@pytest.mark.parametrize("total", range(60))
def test_an_ip_length_that_cuts_the_tcp_header_is_other(total: int) -> None:
    """The frame is long enough, the datagram is not."""
    frame = bytearray(ether(ipv4(*V4, 6, tcp(*V4, 1, 2, options=b"\1" * 20)), 0x0800))
    frame[16:18] = total.to_bytes(2, "big")
    assert scan(bytes(frame))[0] == transports.OTHER


@given(st.binary(max_size=120), st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x81\x00\0\5\x08\x00", b"\x88\xa8", b""]))
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
        transports.TCP,
        transports.UDP,
        transports.ICMP,
        transports.IP,
        transports.FRAGMENT,
    )
    if transport == transports.OTHER:
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
