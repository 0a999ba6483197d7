"""filter-mirror with strip_mptcp: what opens a connection with the guest has no MPTCP, in both outputs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import parse
from ring import layout
from stages.mirror.kind import Mirror
from stages.schema import ConfigError
from tests.oracle.mirror import MirrorOracle, without_mptcp
from tests.packets import (
    ACK,
    IPV4,
    IPV6,
    P_TCP,
    PSH,
    SYN,
    checksum_faults,
    destination_options,
    ether,
    fragment_header,
    hop_by_hop,
    ipv4,
    ipv6,
    opt_mptcp,
    opt_mss,
    opt_sack_permitted,
    opt_timestamp,
    read,
    tcp,
    tcp_frame,
    vnet_header,
)
from tests.rig import Rig
from tests.stages.mirror.test_mirror import MS, link

V4, V6 = ("10.0.0.9", "10.0.0.1"), ("fd00::9", "fd00::1")
BOTH = pytest.mark.parametrize("pair", [V4, V6], ids=["v4", "v6"])
CAPABLE = opt_mss() + opt_sack_permitted() + opt_timestamp(7) + b"\1\3\3\7" + opt_mptcp(0, 12)
KINDS = (
    opt_mss(), opt_sack_permitted(), opt_timestamp(1, 2), b"\1", b"\3\3\7", opt_mptcp(0, 4), opt_mptcp(0, 12),
    opt_mptcp(0, 20), opt_mptcp(1, 12), opt_mptcp(1, 16), opt_mptcp(3, 8), bytes([31, 5, 30, 12, 0]),
)  # fmt: skip


def mirror(vnet: tuple[str, ...] = (), strip_mptcp: bool = True) -> Rig:
    return Rig("filter-mirror", {"strip_mptcp": strip_mptcp}, vnet=vnet)


def syn(pair: tuple[str, str] = V4, flags: int = SYN, options: bytes = CAPABLE, **more: Any) -> bytes:
    """A segment from the client that opens a connection, or answers a guest that does."""
    return tcp_frame(*pair, 40000, 80, seq=5, ack=9, flags=flags, options=options, **more)


@st.composite
def segments(draw: st.DrawFn) -> bytes:
    pair = draw(st.sampled_from([V4, V6]))
    options = b""
    for option in draw(st.lists(st.sampled_from(KINDS), max_size=6)):
        options += option if len(options + option) <= 40 else b""
    if draw(st.integers(0, 3)) == 0 and len(options) < 40:
        options = (options + b"\0").ljust(40, b"\x1e")  # what stands behind the end of the list is no option
    more: dict[str, Any] = {"vlans": draw(st.sampled_from([(), (7,), (7, 8)]))}
    if pair == V6:
        more["extensions"] = draw(st.lists(st.sampled_from([hop_by_hop(), destination_options(16)]), max_size=2))
    else:
        more["ip_options"] = draw(st.sampled_from([b"", b"\x94\4\0\0"]))
    flags = draw(st.sampled_from([SYN, SYN | ACK, SYN | PSH | 0x40, ACK, ACK | PSH]))
    return syn(pair, flags, options, payload=draw(st.binary(max_size=3)), pad=draw(st.booleans()), **more)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(["tx_in", "rx_in"]), segments()), min_size=1, max_size=4), st.booleans())
def test_what_opens_a_connection_with_the_guest_has_no_mptcp(frames: list[tuple[str, bytes]], status: bool) -> None:
    """Both outputs and the counters are the oracle's: SYN and SYN+ACK towards the guest, nothing else is changed."""
    oracle = MirrorOracle(strip_mptcp=True)
    oracle.status = status
    with mirror() as rig:
        rig.command(layout.CMD_STATUS, int(status))
        for port, frame in frames:
            oracle.packet(port, frame)
            rig.feed(port, frame)
            rig.run()
        for port in ("tx_out", "rx_out", "outdev"):
            got = rig.take(port)
            assert got == oracle.out[port]
            assert [fault for frame in got for fault in checksum_faults(frame)] == []
        assert all(30 not in read(f).options for f in oracle.out["tx_out"] if read(f).flags & SYN)
        assert rig.counters() == {**dict.fromkeys(rig.counters(), 0), **oracle.counters}


@BOTH
def test_both_ends_may_have_opened_it(pair: tuple[str, str]) -> None:
    """The client's SYN, the answer to the guest's, an attempt to join: all lose it, and keep their other options."""
    join = opt_mss() + opt_mptcp(1, 12)
    for flags, options in ((SYN, CAPABLE), (SYN | ACK, CAPABLE), (SYN, join), (SYN | ACK, opt_mptcp(1, 16))):
        frame = syn(pair, flags, options)
        with mirror() as rig:
            rig.feed("tx_in", frame)
            rig.run()
            (out,) = rig.take("tx_out")
            assert rig.take("outdev") == [out] and len(out) == len(frame)
            before, after = read(frame), read(out)
            assert {k: v for k, v in before.options.items() if k != 30} == after.options
            assert (after.seq, after.ack, after.flags) == (before.seq, before.ack, before.flags)
            assert checksum_faults(out) == [] and rig.counters()["mptcp_taken_out"] == 1


@pytest.mark.parametrize("state", ["status off", "no peer", "outdev stalled", "not asked for"])
def test_the_guest_gets_none_whatever_becomes_of_the_copy(state: str) -> None:
    """A connection that begins now may be mirrored later, and be alive at a failover."""
    frame, filler = syn(), bytes(1500)
    with mirror(strip_mptcp=state != "not asked for") as rig:
        if state == "status off":
            rig.command(layout.CMD_STATUS, 0)
        elif state == "no peer":
            link(rig, "outdev", False)
        elif state == "outdev stalled":
            for at in range(500):
                rig.feed("tx_in", filler)
                rig.run(now=(1 + 40 * at) * MS)
                rig.take("tx_out")
            assert rig.counters()["dropped_stalled"] > 0
        rig.feed("tx_in", frame)
        rig.run(now=20_001 * MS)
        assert rig.take("tx_out")[-1] == (frame if state == "not asked for" else without_mptcp(frame))
        assert rig.counters()["mptcp_taken_out"] == (state != "not asked for")


@pytest.mark.parametrize("vnet", [("tx_in", "tx_out"), ("tx_in",), ("tx_in", "outdev"), ("outdev",), ("tx_out",)])
@pytest.mark.parametrize("partial", [False, True])
def test_rings_with_a_vnet_header(vnet: tuple[str, ...], partial: bool) -> None:
    """A partial checksum, of the pseudo-header alone, stays as it is; an output without V has that header, too."""
    size = 12 if "tx_in" in vnet else 0
    partial = partial and size > 0
    head = vnet_header(needs_csum=partial, csum_start=34, size=12)[:size]
    plain = tcp_frame(*V4, 1, 80, seq=1)
    with mirror(vnet) as rig:
        rig.feed("tx_in", head + plain, head + syn(partial=partial), head + plain, vnet_hdr_len=size)
        rig.run()
        for port in ("tx_out", "outdev"):
            first, second, third = rig.take(port)
            assert first == third == head + plain
            assert second[:size] == head and 30 not in read(second[size:]).options
            assert checksum_faults(second[size:], partial=partial) == []


@BOTH
def test_the_first_fragment_of_a_syn_loses_it_too(pair: tuple[str, str]) -> None:
    """The sum is changed by the difference, so the other fragments are not needed; a later one is no header."""
    whole = tcp(*pair, 40000, 80, seq=1, flags=SYN, options=CAPABLE, payload=bytes(range(200)))
    parts = [(whole[:104], 0), (whole[104:], 104)]
    if pair == V4:
        frames = [ether(ipv4(*pair, P_TCP, data, frag=at, more=at == 0), IPV4) for data, at in parts]
        head, lie = 34, ether(ipv4(*pair, P_TCP, whole, frag=8), IPV4)
    else:
        frames = [ether(ipv6(*pair, P_TCP, d, extensions=[fragment_header(at, at == 0, 1)]), IPV6) for d, at in parts]
        head, lie = 62, ether(ipv6(*pair, P_TCP, whole, extensions=[fragment_header(8, False, 1)]), IPV6)
    with mirror() as rig:
        rig.feed("tx_in", *frames, lie)
        rig.run()
        first, rest, third = rig.take("tx_out")
        assert (rest, third) == (frames[1], lie)
        stripped = without_mptcp(tcp_frame(*pair, 40000, 80, seq=1, flags=SYN, options=CAPABLE, payload=whole[-200:]))
        assert first[head:] + rest[head:] == read(stripped).body
        assert rig.counters()["mptcp_taken_out"] == 1


@pytest.mark.parametrize("tail", [b"\x1e", b"\x1e\0", b"\x1e\1", b"\x1e\x28", b"\2\0\x1e\4", b"\0\x1e\4\0"])
@pytest.mark.parametrize("before", [b"", opt_mptcp(0, 4)], ids=["", "a good one before it"])
def test_a_list_of_options_that_cannot_be_read_on_is_left(tail: bytes, before: bytes) -> None:
    """Whatever length it claims; what stands before it is taken out."""
    frame = syn(options=before + b"\1" * (8 - len(before + tail)) + tail)
    with mirror() as rig:
        rig.feed("tx_in", frame)
        rig.run()
        (out,) = rig.take("tx_out")
        behind = 54 + len(before)
        assert out[54:behind] == b"\1" * len(before) and out[behind:] == frame[behind:]
        assert rig.counters()["mptcp_taken_out"] == bool(before) and checksum_faults(out) == []


def test_a_wrong_checksum_stays_wrong() -> None:
    frame = bytearray(syn())
    frame[50] ^= 0x55
    with mirror() as rig:
        rig.feed("tx_in", bytes(frame))
        rig.run()
        (out,) = rig.take("tx_out")
        assert 30 not in read(out).options and checksum_faults(out) == ["transport"]


@given(
    st.sampled_from([b"", b"\x08\x00\x45", b"\x08\x00\x4f", b"\x86\xdd\x60", b"\x81\x00", b"\x88\xa8"]),
    st.binary(max_size=120),
)
def test_no_frame_breaks_it(start: bytes, data: bytes) -> None:
    """Whatever it is, it comes out as long as it went in, and as it was unless it is counted."""
    frame = bytes(12) + start + data if start else data
    with mirror() as rig:
        rig.feed("tx_in", frame, syn())
        rig.run()
        got, last = rig.take("tx_out")
        assert rig.take("outdev") == [got, last]
        assert len(got) == len(frame) and last == without_mptcp(syn())
        assert got == frame or rig.counters()["mptcp_taken_out"] == 2


def test_it_is_refused_where_nothing_to_the_guest_passes() -> None:
    config = """
    [pipeline]
    name = "it"
    [chardev.c]
    backend = "socket"
    path = "/tmp/it"
    [netdev.hn0]
    network = { backend = "null" }
    guest = { backend = "null" }
    [filter.m0]
    type = "filter-mirror"
    netdev = "hn0"
    queue = "WAY"
    outdev = "c"
    strip_mptcp = true
    """
    (m0,) = parse(config.replace("WAY", "tx")).filters.values()
    assert isinstance(m0, Mirror) and m0.strip_mptcp
    with pytest.raises(ConfigError, match="strip_mptcp"):
        parse(config.replace("WAY", "rx"))
