"""What the parser finds inside of tunnels, against the builders of `tests.tunnels`, and against garbage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.hot import JIT
from stages.packets.kernels.parse import has_key, parse, reverse_key
from stages.packets.kernels.tunnels import is_partial, read_packet
from stages.packets.layout import networks, parsed, transports
from tests.packets import (
    IPV4,
    arp_frame,
    ether,
    fragments,
    hop_by_hop,
    icmp_frame,
    in_pppoe,
    ip_frame,
    long_frame,
    tcp_frame,
    udp,
    udp_frame,
    vnet_header,
)
from tests.stages.packets.test_parse import AT, V4, V6, Guarded
from tests.tunnels import ENDS, ENDS6, geneve, gre, ip_in_ip, opened, read_inside, vxlan

Wrap = Callable[[bytes], bytes]
Scan = tuple[int, Any]

FRAMES: dict[str, Wrap] = {
    "vxlan": lambda f: vxlan(f, vni=42),
    "vxlan of old Linux": lambda f: vxlan(f, vni=42, dport=8472),
    "vxlan with a group policy": lambda f: vxlan(f, vni=42, head=0x88481234),
    "vxlan over IPv6": lambda f: vxlan(f, vni=42, ends=ENDS6, extensions=[hop_by_hop()]),
    "vxlan on a VLAN": lambda f: vxlan(f, vni=42, vlans=(5,)),
    "geneve": lambda f: geneve(f, vni=0xFFFFFF),
    "geneve with options": lambda f: geneve(f, vni=42, options=bytes(12)),
    "gre": gre,
    "gre with all": lambda f: gre(f, key=0xAB123456, summed=True, number=7),
    "gre over IPv6": lambda f: gre(f, key=0, ends=ENDS6),
    "gre in pppoe": lambda f: in_pppoe(gre(f, key=9), 3),
}
PACKETS: dict[str, Wrap] = {
    "geneve of a packet": lambda f: geneve(f, kind=int.from_bytes(f[12:14], "big")),
    "gre of a packet": lambda f: gre(f, kind=int.from_bytes(f[12:14], "big")),
    "ip in ip": ip_in_ip,
    "ip in IPv6": lambda f: ip_in_ip(f, ends=ENDS6, extensions=[(60, b"\0\0\4\1\4\1\1\0")]),  # the encapsulation limit
}
EVERY = FRAMES | PACKETS
KINDS = {"vxlan": networks.VXLAN, "geneve": networks.GENEVE, "gre": networks.GRE, "ip": networks.IP}


def scan(frame: bytes, policy: int = networks.INNER) -> Scan:
    """Verdict and scratch words of a frame; what lies around it is 0xFF."""
    u8: Any = np.full(AT + len(frame) + 64, 0xFF, np.uint8)
    u8[AT : AT + len(frame)] = np.frombuffer(frame, np.uint8)
    w = np.full(parsed.SCRATCH, -7, np.int64)
    seen = u8 if JIT else Guarded(u8, AT, AT + len(frame))
    return int(read_packet(seen, w, AT, len(frame), 0, policy)), w


def key(frame: bytes, back: bool = False) -> tuple[int, ...]:
    """The key of a frame's packet; ``back``: that of the other direction."""
    transport, w = scan(frame)
    assert has_key(transport)
    if back:
        reverse_key(w, 0)
    return tuple(map(int, w[: parsed.KEY_WORDS]))


@pytest.mark.parametrize("pair", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("name", EVERY)
def test_the_fields_are_those_of_the_packet_inside(name: str, pair: tuple[str, str]) -> None:
    """TCP, UDP, ICMP, what else runs over IP, and fragments: as without the tunnel, behind its headers."""
    whole = [
        tcp_frame(*pair, 5, 6, seq=77, payload=b"hello"), udp_frame(*pair, 5, 6, b"x"), icmp_frame(*pair),
        ip_frame(*pair, 47, b"gre?"), udp_frame(*pair, 5, 4789, b"again"),
        long_frame(tcp_frame(*pair, 5, 6, payload=b"x" * 99)),
        *fragments(*pair, 17, udp(*pair, 5, 6, bytes(100)), 64),
    ]  # fmt: skip
    for frame in whole:
        outer = EVERY[name](frame)
        found = opened(outer)
        assert found is not None
        transport, w = scan(outer)
        alone, plain = scan(frame, networks.OUTER)
        assert transport == alone
        for word in (parsed.L3, parsed.L4, parsed.END, parsed.DATA):
            assert w[word] == plain[word] + found.start - found.skip, word
        for word in (*range(4), parsed.DATA_LEN, parsed.IPV, parsed.PROTO, parsed.IP_ID, parsed.FRAG):
            assert w[word] == plain[word], word
        assert int(w[parsed.PORTS]) & ~networks.VIA == plain[parsed.PORTS]
        vlan = int(w[parsed.VLAN])
        assert vlan & 0xFFFFFFFFF == plain[parsed.VLAN]
        assert vlan >> networks.KIND_AT & networks.KIND == KINDS[str(found.network[0])]


@pytest.mark.parametrize("name", FRAMES)
def test_tags_inside_are_those_of_the_key(name: str) -> None:
    """Up to two; there is no room for more, nor for a PPPoE session inside of a tunnel."""
    _, w = scan(FRAMES[name](tcp_frame(*V4, 5, 6, vlans=(7, 9))))
    assert w[parsed.VLAN] & 0xFFFFFFFF == 7 << 16 | 9
    for frame in (tcp_frame(*V4, 5, 6, vlans=(7, 8, 9)), in_pppoe(tcp_frame(*V4, 5, 6), 3), ether(bytes(50), 0x8847)):
        assert scan(FRAMES[name](frame))[0] == transports.ENCAPSULATED
    for frame in (arp_frame(*V4), ether(arp_frame(*V4)[14:], 0x0806, (5,)), ether(bytes(50), 0x88CC)):
        assert scan(FRAMES[name](frame))[0] == transports.OTHER


# --- which network --------------------------------------------------------------------------------------------------
SEGMENT, ANSWER = tcp_frame(*V4, 5, 6), tcp_frame(*V4[::-1], 6, 5)
THIRD = ("192.0.2.2", "192.0.2.3")
NETWORKS: dict[str, Callable[..., bytes]] = {
    "none": lambda f, **_: f,
    "a VLAN": lambda f, **_: f[:12] + b"\x81\0\0\5" + f[12:],
    "pppoe": lambda f, **_: in_pppoe(f, 5),
    "vxlan 1": lambda f, **_: vxlan(f, vni=1),
    "vxlan 2": lambda f, **_: vxlan(f, vni=2),
    "vxlan 1 on another VLAN": lambda f, **_: vxlan(f, vni=1, vlans=(5,)),
    "vxlan 1 in a session": lambda f, **_: in_pppoe(vxlan(f, vni=1), 5),
    "geneve 1": lambda f, **_: geneve(f, vni=1),
    "gre": lambda f, ends=ENDS: gre(f, ends=ends),
    "gre between others": lambda f, ends=None: gre(f, ends=THIRD[::-1] if ends else THIRD),
    "gre over IPv6": lambda f, ends=None: gre(f, ends=ENDS6[::-1] if ends else ENDS6),
    "gre 0": lambda f, ends=ENDS: gre(f, key=0, ends=ends),
    "gre 1": lambda f, ends=ENDS: gre(f, key=1, ends=ends),
    "gre 2^24 + 1": lambda f, ends=ENDS: gre(f, key=1 + (1 << 24), ends=ends),
    "ip": lambda f, ends=ENDS: ip_in_ip(f, ends=ends),
    "ip between others": lambda f, ends=None: ip_in_ip(f, ends=THIRD[::-1] if ends else THIRD),
    "ip over IPv6": lambda f, ends=None: ip_in_ip(f, ends=ENDS6[::-1] if ends else ENDS6),
}  # fmt: skip


def test_the_same_addresses_in_another_network_are_another_connection() -> None:
    """Keys differ by tunnel, its id, and where it runs."""
    assert len({key(wrap(SEGMENT)) for wrap in NETWORKS.values()}) == len(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_both_directions_have_one_key(name: str) -> None:
    """Reversed, the key of an answer is that of its question, whose tunnel has the same two ends."""
    wrap = NETWORKS[name]
    assert key(wrap(ANSWER, ends=ENDS[::-1]), back=True) == key(wrap(SEGMENT))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (vxlan(SEGMENT, sport=1), vxlan(SEGMENT, sport=2)),  # a hash with a secret of each boot
        (vxlan(SEGMENT), vxlan(SEGMENT, ends=THIRD)),  # the other end has moved
        (vxlan(SEGMENT), vxlan(SEGMENT, dport=8472)),
        (geneve(SEGMENT, sport=1), geneve(SEGMENT, sport=2, options=bytes(8))),
        (geneve(SEGMENT), geneve(SEGMENT, kind=IPV4)),
        (gre(SEGMENT, number=1), gre(SEGMENT, number=2, summed=True)),
        (gre(SEGMENT, ident=1), gre(SEGMENT, ident=2, ttl=9)),
        (ip_in_ip(SEGMENT, ident=1), ip_in_ip(SEGMENT, ident=2)),
    ],
)
def test_what_replicas_choose_for_themselves_is_not_in_the_key(one: bytes, other: bytes) -> None:
    """Source ports, numbers, the length of headers."""
    assert key(one) == key(other)


# --- what is no tunnel ----------------------------------------------------------------------------------------------
def changed(frame: bytes, at: int, to: str) -> bytes:
    """A frame with other bytes at an offset."""
    return frame[:at] + bytes.fromhex(to) + frame[at + len(to) // 2 :]


VX, GV, GR, IN = vxlan(SEGMENT), geneve(SEGMENT), gre(SEGMENT, key=1), ip_in_ip(SEGMENT)


@pytest.mark.parametrize(
    "frame",
    [
        udp_frame(*ENDS, 4789, 53, VX[42:]),  # an answer of a server at that port
        changed(VX, 42, "00"), changed(VX, 42, "0c"), changed(VX, 43, "01"), changed(VX, 49, "01"),
        udp_frame(*ENDS, 1, 4789, b"\x08"), udp_frame(*ENDS, 1, 4789, VX[42:50] + b"short"),
        changed(GV, 42, "40"), changed(GV, 43, "80"), changed(GV, 43, "01"), changed(GV, 44, "8847"),
        changed(GV, 42, "3f"), changed(GV, 49, "01"), changed(GR, 34, "6000"), changed(GR, 34, "2001"),
        changed(GR, 34, "3080"), changed(GR, 36, "880b"), changed(GR, 36, "88be"), ip_frame(*ENDS, 47, b"\x20\0\x08"),
        ip_frame(*ENDS, 47, b"\x20\0\x08\0\0"), ip_frame(*ENDS, 4, b""), changed(IN, 34, "65"),
        vxlan(SEGMENT[:30]), gre(SEGMENT[:30]), vxlan(ether(b"\0", 0x8100)), geneve(SEGMENT[:40], kind=IPV4),
        vxlan(long_frame(SEGMENT)[:60]), vxlan(SEGMENT[:53]),
        *fragments(*ENDS, 17, VX[34:], 64),
    ],
    ids=lambda frame: frame[23:].hex()[:50],
)  # fmt: skip
def test_what_is_no_tunnel_is_the_packet_that_it_is(frame: bytes) -> None:
    """Reserved bits, other versions and payloads, cut packets inside, fragments: every word as without tunnels."""
    transport, w = scan(frame)
    alone, plain = scan(frame, networks.OUTER)
    assert transport == alone and has_key(alone)
    used = [
        *range(parsed.KEY_WORDS),
        parsed.L3,
        parsed.L4,
        parsed.END,
        parsed.DATA,
        parsed.DATA_LEN,
        parsed.IPV,
        parsed.PROTO,
    ]
    assert [w[i] for i in used] == [plain[i] for i in used]


@pytest.mark.parametrize("name", EVERY)
def test_the_other_policies(name: str) -> None:
    """`outer`: as the parser alone; `pass`: a tunnel's packet, whatever is in it."""
    for frame in (SEGMENT, udp_frame(*V6, 5, 6, b"x")):
        outer = EVERY[name](frame)
        transport, w = scan(outer, networks.OUTER)
        u8, plain = np.frombuffer(outer, np.uint8), np.full(parsed.SCRATCH, -7, np.int64)
        assert (transport, list(w)) == (parse(u8, plain, 0, len(outer), 0), list(plain))
        assert scan(outer, networks.PASS)[0] == transports.TUNNEL
    assert scan(SEGMENT, networks.PASS)[0] == transports.TCP
    assert scan(udp_frame(*V4, 4789, 9, b"x"), networks.PASS)[0] == transports.UDP


# --- garbage ----------------------------------------------------------------------------------------------------------
@given(
    st.sampled_from(sorted(EVERY)), st.sampled_from([V4, V6]), st.sampled_from([networks.INNER, networks.PASS]),
    st.lists(st.tuples(st.integers(12, 140), st.integers(0, 255)), max_size=4), st.integers(0, 200),
)  # fmt: skip
def test_damaged_tunnels_are_read_within_their_bounds(
    name: str, pair: tuple[str, str], policy: int, changes: list[tuple[int, int]], size: int
) -> None:
    """A few bytes are others, or the end is missing: every offset lies inside the frame."""
    frame = bytearray(EVERY[name](tcp_frame(*pair, 5, 6, payload=b"some data")))
    for at, value in changes:
        frame[at % len(frame)] = value
    data = bytes(frame[: max(14, len(frame) - size)])
    transport, w = scan(data, policy)
    if has_key(transport):
        assert 14 <= w[parsed.L3] < w[parsed.L4] <= w[parsed.DATA] <= w[parsed.END] <= len(data)
        assert w[parsed.DATA] + w[parsed.DATA_LEN] == w[parsed.END]
        assert w[parsed.VLAN] >= 0 and w[parsed.PORTS] >= 0


# --- checksums that are still to be made ------------------------------------------------------------------------------
def test_a_partial_checksum_in_a_tunnel_is_the_one_that_the_header_names() -> None:
    """csum_start says which of the two; without a tunnel there is but one."""
    outer, plain = vxlan(SEGMENT), SEGMENT
    inner = read_inside(outer).body_at
    for frame, start, needs, partial in (
        (outer, inner, True, True), (outer, 34, True, False), (outer, inner, False, False),
        (plain, 34, True, True), (plain, 0, True, True), (plain, 34, False, False),
    ):  # fmt: skip
        head = vnet_header(needs_csum=needs, csum_start=start)
        u8, w = np.frombuffer(head + frame, np.uint8), np.zeros(parsed.SCRATCH, np.int64)
        read_packet(u8, w, len(head), len(frame), 0, networks.INNER)
        assert is_partial(u8, w, 0, len(head), len(head)) == partial
        assert not is_partial(u8, w, 0, len(head), 0)
