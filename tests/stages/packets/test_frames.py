"""Frames that were kept: the transport is found where the packet parser has found it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.packets.frames import transport
from stages.packets.kernels.parse import has_key
from stages.packets.layout import networks, parsed, transports
from tests.packets import (
    arp_frame,
    destination_options,
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
)
from tests.stages.packets.test_parse import V4, V6
from tests.stages.packets.test_tunnels import EVERY, FRAMES, scan

PLAIN = [
    frame
    for pair in (V4, V6)
    for frame in (
        tcp_frame(*pair, 1, 2, payload=b"some data"), udp_frame(*pair, 1, 2, b"x", pad=True), icmp_frame(*pair),
        long_frame(tcp_frame(*pair, 1, 2, payload=b"x" * 99)), ip_frame(*pair, 47, b"gre?"),
        *fragments(*pair, 17, udp(*pair, 5, 6, bytes(100)), 64),
    )
]  # fmt: skip
PLAIN += [tcp_frame(*V6, 1, 2, extensions=[hop_by_hop(16), destination_options()]), ip_frame(*V6, 59, b"")]
WRAPPED = [
    frame
    for pair in (V4, V6)
    for frame in (
        tcp_frame(*pair, 1, 2, vlans=(1, 2, 3, 4)),
        in_pppoe(tcp_frame(*pair, 1, 2, vlans=(5,)), 7, short=True, pad=True),
        in_pppoe(long_frame(udp_frame(*pair, 1, 2, b"x" * 99)), 7), tcp_frame(*pair, 1, 2, vlans=(7, 8)),
    )
]  # fmt: skip
CASES = [*(("", frame) for frame in PLAIN + WRAPPED), *((name, frame) for name in EVERY for frame in PLAIN)]
CASES += [(name, tcp_frame(*V4, 1, 2, vlans=(7, 8))) for name in FRAMES]


@pytest.mark.parametrize(("name", "frame"), CASES)
def test_it_is_where_the_parser_has_found_it(name: str, frame: bytes) -> None:
    """In every network; also of a frame of which only the headers are there."""
    whole = EVERY[name](frame) if name else frame
    kind, w = scan(whole)
    assert has_key(kind)
    where = (int(w[parsed.PROTO]), int(w[parsed.L4]), int(w[parsed.END]), kind == transports.FRAGMENT)
    assert transport(whole, tunnel=bool(name)) == where
    cut = whole[: where[1] + 8]
    assert transport(cut, tunnel=bool(name), length=len(whole)) == where
    if name:
        _, outer = scan(whole, networks.OUTER)
        assert transport(whole) == (outer[parsed.PROTO], outer[parsed.L4], outer[parsed.END], False)


def test_where_there_is_no_ip_there_is_none() -> None:
    """ARP, runts, MPLS, a session's control packets."""
    lcp = bytearray(in_pppoe(tcp_frame(*V4, 1, 2), 7))
    lcp[20:22] = b"\xc0\x21"
    for frame in (b"", bytes(13), arp_frame(*V4), ether(bytes(60), 0x8847), bytes(lcp)):
        assert transport(frame) is None


@given(st.sampled_from(PLAIN + WRAPPED), st.sampled_from(sorted(EVERY)), st.integers(0, 200), st.booleans(), st.data())
def test_no_frame_is_too_broken_to_be_looked_at(
    frame: bytes, name: str, size: int, tunnel: bool, data: st.DataObject
) -> None:
    """Cut anywhere, changed anywhere: places behind the Ethernet header or None, no error."""
    whole = bytearray(EVERY[name](frame) if tunnel else frame)
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, 139), st.integers(0, 255)), max_size=4)):
        whole[at % len(whole)] = value
    found = transport(bytes(whole[:size]), tunnel=tunnel)
    assert found is None or (found.start >= 14 and 0 <= found.proto <= 255)
