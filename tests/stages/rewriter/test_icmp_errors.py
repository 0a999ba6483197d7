"""filter-rewriter: ICMP errors about the guest's segments quote the primary's numbers, the guest knows its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring import layout
from tests.packets import (
    ACK,
    MOD,
    P_TCP,
    RST,
    SYN,
    checksum_faults,
    fragments,
    hop_by_hop,
    icmp_error,
    icmp_frame,
    ones_sum,
    opt_timestamp,
    packed,
    pseudo,
    read,
    udp_frame,
    vnet_header,
)
from tests.rig import Rig
from tests.stages.rewriter.rewriting import OFFSET, PRIMARY, V4, V6, Flow, check_balances

ROUTER = {4: "192.0.2.1", 6: "2001:db8:1::1"}
TOO_BIG = {4: (3, 4), 6: (2, 0)}  # fragmentation needed, packet too big


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig("filter-rewriter", {"max_connections": 64}) as r:
        yield r
        check_balances(r)


def error(about: bytes, kind: tuple[int, int] | None = None, quote: int = 1000) -> bytes:
    """What a router says of a frame; without ``kind`` that it is too big."""
    version = read(about).version
    return icmp_error(ROUTER[version], about, kind or TOO_BIG[version], quote=quote)


def told(flow: Flow, about: bytes, **how) -> tuple[bytes, bytes]:
    """What the router says of a frame that the peer's side saw, and what of it reaches the guest."""
    frame = error(about, **how)
    after = flow.send(frame)
    assert checksum_faults(after) == icmp_faults(after) == []
    return frame, after


def icmp_faults(frame: bytes) -> list[str]:
    """A wrong checksum of an ICMPv4 message (`checksum_faults` looks at what has a pseudo-header)."""
    p = read(frame)
    head = pseudo(packed(p.src), packed(p.dst), p.proto, len(p.body)) if p.version == 6 else b""
    return [] if ones_sum(head + p.body) == 0xFFFF else ["ICMP"]


def quoted(frame: bytes) -> bytes:
    """The IP packet that an ICMP error quotes."""
    return read(frame).body[8:]


@pytest.mark.parametrize("vlans", [(), (7,), (7, 9)], ids=str)
@pytest.mark.parametrize("hosts", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("payload", [b"", b"d" * 699], ids=len)
def test_the_guest_is_told_of_its_own_segment(
    rig: Rig, hosts: tuple[str, str], vlans: tuple[int, ...], payload: bytes
) -> None:
    """Byte for byte, with number, timestamp and TCP checksum; before a failover and after it."""
    flow = Flow(rig, hosts=hosts, vlans=vlans)
    flow.inbound(SYN, 0)
    flow.outbound(SYN | ACK, 0, 1, options=opt_timestamp(7_000, 11))
    flow.inbound(ACK, 1, 1, options=opt_timestamp(12, 900_000))
    for _ in range(2):
        before, after = flow.outbound(ACK, 1, 1, payload, options=b"\1" + opt_timestamp(7_050, 12))
        assert before != after
        _, reached = told(flow, after)
        assert quoted(reached) == before[14 + 4 * len(vlans) :]
        rig.command(layout.CMD_FAILOVER, 1)
    counters = rig.counters()
    assert (counters["rewritten_errors"], counters["passed_not_tcp"]) == (2, 0)


@pytest.mark.parametrize("hosts", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("tcp_bytes", [8, 9, 16, 17, 18, 19, 20, 31, 32])
def test_however_little_is_quoted_the_number_moves(rig: Rig, hosts: tuple[str, str], tcp_bytes: int) -> None:
    """RFC 792 asks for 8 bytes of TCP; what is not there is not written."""
    flow = Flow(rig, hosts=hosts)
    flow.inbound(SYN, 0)
    flow.outbound(SYN | ACK, 0, 1, options=opt_timestamp(7_000, 11))
    flow.inbound(ACK, 1, 1, options=opt_timestamp(12, 900_000))
    before, after = flow.outbound(ACK, 1, 1, b"data", options=b"\1\1" + opt_timestamp(7_050, 12))
    size = (20 if ":" not in hosts[0] else 40) + tcp_bytes
    frame, reached = told(flow, after, quote=size)
    want = bytearray(before[14:][:size])
    if tcp_bytes < 32:  # the timestamp stays, so the checksum has moved with the number alone
        want[size - tcp_bytes + 16 :] = quoted(reached)[size - tcp_bytes + 16 :]
    assert quoted(reached) == bytes(want)
    assert len(reached) == len(frame)


@pytest.mark.parametrize("hosts", [V4, V6], ids=["IPv4", "IPv6"])
def test_less_than_a_number_quoted_passes(rig: Rig, hosts: tuple[str, str]) -> None:
    """Cut off anywhere before it, down to nothing."""
    flow = Flow(rig, hosts=hosts).open()
    _, after = flow.outbound(ACK, 1, 1, b"data")
    for quote in range(28 if ":" not in hosts[0] else 48):
        frame, reached = told(flow, after, quote=quote)
        assert reached == frame
    assert rig.counters()["rewritten_errors"] == 0


@pytest.mark.parametrize("primary", [0, MOD - 1, MOD - 2, 0xFFFE0000, 5])
@pytest.mark.parametrize("secondary", [0, MOD - 1, 0x1FFFF, 70_000])
@pytest.mark.parametrize("hosts", [V4, V6], ids=["IPv4", "IPv6"])
def test_every_wrap(rig: Rig, hosts: tuple[str, str], primary: int, secondary: int) -> None:
    """ISN 0 and numbers around 2^32."""
    flow = Flow(rig, hosts=hosts, isns=(9, primary, secondary)).open()
    for n in (1, 2, 3, 70_000):
        before, after = flow.outbound(ACK, n, 1, b"x")
        for quote in (1000, len(after) - 14 - 13):
            _, reached = told(flow, after, quote=quote)
            assert quoted(reached) == before[14:][:quote]


@pytest.mark.parametrize("kind", [(3, 0), (3, 1), (3, 4), (3, 13), (4, 0), (5, 1), (11, 0), (12, 0)], ids=str)
def test_every_error_of_icmp_is_one(rig: Rig, kind: tuple[int, int]) -> None:
    """Unreachable, source quench, redirect, time exceeded, parameter problem."""
    flow = Flow(rig).open()
    before, after = flow.outbound(ACK, 1, 1, b"x")
    assert quoted(told(flow, after, kind=kind)[1]) == before[14:]


@pytest.mark.parametrize("kind", [(1, 0), (2, 0), (3, 0), (4, 1)], ids=str)
def test_every_error_of_icmpv6_is_one(rig: Rig, kind: tuple[int, int]) -> None:
    """Unreachable, too big, time exceeded, parameter problem; the quote may have extension headers."""
    flow = Flow(rig, hosts=V6, extensions=[hop_by_hop(16)]).open()
    before, after = flow.outbound(ACK, 1, 1, b"x")
    assert quoted(told(flow, after, kind=kind)[1]) == before[14:]


@pytest.mark.parametrize("hosts", [V4, V6], ids=["IPv4", "IPv6"])
def test_what_is_no_error_about_a_known_segment_passes(rig: Rig, hosts: tuple[str, str]) -> None:
    """Echoes with a segment inside, errors about UDP, about other connections, about later fragments, broken quotes."""
    flow = Flow(rig, hosts=hosts).open()
    _, segment = flow.outbound(ACK, 1, 1, b"d" * 100)
    peer, guest = hosts
    frames = [
        icmp_frame(peer, guest, data=segment[14:]),
        error(udp_frame(guest, peer, 80, 40_000, b"d")),
        error(Flow(rig, 40_001, hosts=hosts).rx(ACK, 1, 1)),
        error(flow.rx(ACK, 1, 1, vlans=(5,))),
        error(flow.tx(ACK, 1, 1)),
        error(fragments(guest, peer, P_TCP, read(segment).body, 64)[1]),
        error(segment[:14] + b"\0" + segment[15:]),
        *fragments(ROUTER[read(segment).version], guest, read(error(segment)).proto, read(error(segment)).body, 64),
    ]
    for frame in frames:
        assert flow.send(frame) == frame
    assert flow.send(error(segment), "rx") == error(segment)
    assert rig.counters()["rewritten_errors"] == 0


def test_the_first_fragment_may_be_quoted(rig: Rig) -> None:
    """A datagram cut by a router on the way, or by the guest."""
    for hosts in (V4, V6):
        flow = Flow(rig, hosts=hosts).open()
        before, after = flow.outbound(ACK, 1, 1, b"d" * 100)
        piece = fragments(*hosts[::-1], P_TCP, read(after).body, 64)[0]
        want = fragments(*hosts[::-1], P_TCP, read(before).body, 64)[0]
        assert quoted(told(flow, piece)[1]) == want[14:]


def test_an_error_about_an_attempt_reaches_the_guest(rig: Rig) -> None:
    """A host that cannot be reached ends connect() on both replicas; both handshakes have but one number."""
    for hosts in (V4, V6):
        asked, answered = Flow(rig, 40_001, hosts=hosts), Flow(rig, hosts=hosts)
        asked.outbound(SYN, 0)
        answered.inbound(SYN, 0)
        before, after = told(answered, answered.rx(SYN | ACK, 0, 1, isn=PRIMARY))
        assert after == before  # the guest has not sent anything yet
        answered.outbound(SYN | ACK, 0, 1)
        for flow, flags, ack in ((asked, SYN, 0), (answered, SYN | ACK, 1)):
            _, reached = told(flow, flow.rx(flags, 0, ack, isn=PRIMARY))
            assert quoted(reached) == flow.rx(flags, 0, ack)[14:]
        rig.command(layout.CMD_CHECKPOINT, rig.segment.w[layout.CMD_CHECKPOINT] + 1)
        for flow, flags, ack in ((asked, SYN, 0), (answered, SYN | ACK, 1)):
            before, after = told(flow, flow.rx(flags, 0, ack, isn=PRIMARY))
            assert after == before


def test_after_a_checkpoint_the_numbers_are_the_guests(rig: Rig) -> None:
    """And so they are where both replicas had chosen the same."""
    flow = Flow(rig).open()
    _, after = flow.outbound(ACK, 1, 1, b"x")
    rig.command(layout.CMD_CHECKPOINT, 1)
    for frame in (error(after), error(Flow(rig, 40_001, isns=(5, 5, 5)).open().rx(ACK, 1, 1))):
        assert flow.send(frame) == frame
    assert rig.counters()["rewritten_errors"] == 0


def test_an_error_teaches_nothing_and_ends_nothing(rig: Rig) -> None:
    """Whatever number it quotes: anybody can send one."""
    flow, asked = Flow(rig).open(), Flow(rig, 40_001)
    asked.outbound(SYN, 0)
    for about in (flow.rx(RST, 9), flow.rx(SYN | ACK, 77, 1), asked.rx(SYN, 0, isn=4711), asked.rx(RST | ACK, 1, 1)):
        told(flow, about, kind=(3, 3))
    assert flow.offset_in() == OFFSET
    asked.inbound(SYN | ACK, 0, 1)
    assert asked.offset_in() == OFFSET
    counters = rig.counters()
    assert (counters["connections"], counters["connections_opened"]) == (2, 2)


def test_a_wrong_or_a_partial_checksum_stays_what_it_is() -> None:
    """Damage is not covered up; a sum of the pseudo-header has no number in it."""
    with Rig("filter-rewriter", {"max_connections": 8}, vnet=("tx_in", "tx_out")) as rig:
        flow = Flow(rig).open()
        _, after = flow.outbound(ACK, 1, 1, b"data")
        frame = bytearray(error(after))
        frame[36] ^= 1
        assert icmp_faults(flow.send(bytes(frame))) == ["ICMP"]
        rig.feed("tx_in", vnet_header(needs_csum=True) + bytes(frame), vnet_hdr_len=10)
        rig.run(now=1)
        (record,) = rig.take("tx_out")
        assert read(record[10:]).body[2:4] == frame[36:38]
        assert rig.counters()["rewritten_errors"] == 2


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_in_a_quote_are_survived(data: st.DataObject) -> None:
    """Nothing but number, timestamp and checksums is written, and nothing beyond the packet."""
    with Rig("filter-rewriter", {"max_connections": 4}) as rig:
        hosts = data.draw(st.sampled_from([V4, V6]))
        flow = Flow(rig, hosts=hosts).open()
        _, after = flow.outbound(ACK, 1, 1, b"data", options=opt_timestamp(5, 6))
        frame = bytearray(error(after, quote=data.draw(st.integers(0, 90))))
        at = len(frame) - len(read(bytes(frame)).body)
        for _ in range(data.draw(st.integers(0, 4))):
            frame[data.draw(st.integers(at, len(frame) - 1))] = data.draw(st.integers(0, 255))
        tail = data.draw(st.binary(max_size=8))
        got = flow.send(bytes(frame) + tail)
        assert len(got) == len(frame) + len(tail)
        assert got[len(frame) :] == tail
        changed = [i for i, (a, b) in enumerate(zip(frame, got, strict=False)) if a != b]
        assert len(changed) <= 2 + 4 + 4 + 2
        assert ones_sum(got[at : len(frame)]) % 0xFFFF == ones_sum(bytes(frame[at:])) % 0xFFFF
        check_balances(rig)
