"""filter-rewriter: what TCP is inside of: tags, PPPoE, tunnels; and lengths that are not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.packets import (
    ACK,
    PSH,
    SYN,
    checksum,
    checksum_faults,
    ether,
    icmp_error,
    in_pppoe,
    long_frame,
    ones_sum,
    opt_sack,
    opt_timestamp,
    packed,
    pseudo,
    read,
    udp_frame,
    vnet_header,
)
from tests.rig import Rig
from tests.stages.rewriter.rewriting import CLIENT, OFFSET, PRIMARY, SECONDARY, V4, V6, Flow, check_balances
from tests.tunnels import ENDS6, geneve, gre, inner_faults, ip_in_ip, opened, read_inside, vxlan

Wrap = Callable[[bytes], bytes]
IN: dict[str, Wrap] = {
    "length 0": lambda f: long_frame(f) if len(f) > 60 else f,
    "pppoe": lambda f: in_pppoe(f, 7),
    "pppoe, short": lambda f: in_pppoe(f, 7, short=True, pad=True),
    "vxlan": vxlan,
    "vxlan over IPv6": lambda f: vxlan(f, ends=ENDS6),
    "geneve": lambda f: geneve(f, options=bytes(8)),
    "geneve of a packet": lambda f: geneve(f, kind=int.from_bytes(f[12:14], "big")),
    "gre": gre,
    "gre with all": lambda f: gre(f, key=7, number=3, summed=True),
    "ip in ip": ip_in_ip,
}
TUNNELS = ["vxlan", "vxlan over IPv6", "geneve", "geneve of a packet", "gre", "gre with all", "ip in ip"]


def faults(frame: bytes) -> list[str]:
    """What is wrong with the checksums of a frame, around a tunnel and inside of it."""
    return checksum_faults(frame) + inner_faults(frame)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig("filter-rewriter", {"max_connections": 64}) as r:
        yield r
        check_balances(r)


@pytest.mark.parametrize("hosts", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("name", IN)
def test_both_directions_are_rewritten(rig: Rig, name: str, hosts: tuple[str, str]) -> None:
    """Numbers, SACK blocks, timestamps; every checksum is right after it, those around a tunnel without a touch."""
    flow = Flow(rig, hosts=hosts, wrap=IN[name])
    flow.inbound(SYN, 0)
    flow.outbound(SYN | ACK, 0, 1, options=opt_timestamp(7_000, 11))
    for n in range(1, 300, 37):
        options = b"\1" + opt_timestamp(12, 900_000) + opt_sack((PRIMARY + 5, PRIMARY + 9))
        before, after = flow.inbound(ACK | PSH, n, n, b"x" * n, options=options)
        p = read_inside(after)
        assert (p.ack, p.options[5][:4]) == (SECONDARY + n, (SECONDARY + 5).to_bytes(4, "big"))
        assert faults(before) == faults(after) == []
        before, after = flow.outbound(ACK | PSH, n, n, b"y" * n, options=b"\1\1" + opt_timestamp(7_050, 12))
        assert (read_inside(after).seq, read_inside(after).ack) == (PRIMARY + n, CLIENT + n)
        assert faults(before) == faults(after) == []
        changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        inner = read_inside(before)
        assert inner.body_at <= changed[0] <= changed[-1] < inner.body_at + 20 + 12  # nothing but the TCP header


def test_the_same_ports_in_many_networks_are_as_many_connections(rig: Rig) -> None:
    """Each has an offset of its own."""
    wraps: list[Wrap] = [bytes, *(IN[n] for n in IN if n not in ("length 0", "pppoe, short"))]
    wraps += [lambda f: vxlan(f, vni=2), lambda f: gre(f, key=8), lambda f: in_pppoe(vxlan(f), 7)]
    wraps.remove(IN["geneve of a packet"])  # the same network as that of frames
    wraps.remove(IN["vxlan over IPv6"])  # a VNI is one network, wherever its ends are
    flows = [Flow(rig, wrap=w, isns=(CLIENT, PRIMARY, SECONDARY + 10 * i)) for i, w in enumerate(wraps)]
    for flow in flows:
        flow.open()
    assert [flow.offset_in() for flow in flows] == [OFFSET + 10 * i for i in range(len(flows))]
    assert rig.counters()["connections"] == len(flows)


@pytest.mark.parametrize("name", TUNNELS)
def test_the_guest_is_told_of_its_own_segment_in_a_tunnel(rig: Rig, name: str) -> None:
    """An ICMP error of a router inside of the overlay quotes what the peer's side saw."""
    wrap = IN[name]
    flow = Flow(rig, wrap=wrap).open()
    before, after = flow.outbound(ACK, 1, 1, b"data")
    found = opened(after)
    assert found is not None and before != after
    frame = wrap(icmp_error("192.0.2.1", found.frame, (3, 4)))
    rig.feed("tx_in", frame)
    rig.run(now=1)
    (out,) = rig.take("tx_out")
    quoted = read_inside(out).body[8:]
    assert quoted[20:] == read_inside(before).body
    assert faults(out) == [] and rig.counters()["rewritten_errors"] == 1


def test_outer_leaves_what_is_inside() -> None:
    """None of it is TCP then."""
    with Rig("filter-rewriter", {"max_connections": 8, "tunnels": "outer"}) as rig:
        flow = Flow(rig, wrap=vxlan)
        for before, after in (flow.inbound(SYN, 0), flow.outbound(SYN | ACK, 0, 1), flow.inbound(ACK, 1, 1)):
            assert before == after
        assert rig.counters()["passed_not_tcp"] == 3
        check_balances(rig)


def test_what_cannot_be_read_for_what_it_is_inside_of_is_counted(rig: Rig) -> None:
    """Its numbers stay those of the secondary, and a person should know."""
    flow = Flow(rig)
    for frame in (ether(flow.rx(ACK, 1, 1)[14:], 0x8847), in_pppoe(Flow(rig, vlans=(1, 2, 3)).rx(ACK, 1, 1), 7)):
        assert flow.send(frame, "rx") == frame
    assert flow.send(udp_frame(*V4, 1, 2, b"x")) == udp_frame(*V4, 1, 2, b"x")
    counters = rig.counters()
    assert (counters["passed_encapsulated"], counters["passed_not_tcp"]) == (2, 1)


@pytest.mark.parametrize("name", ["vxlan", "vxlan over IPv6", "geneve"])
@pytest.mark.parametrize("start", ["inner", "outer", "none"])
def test_partial_checksums_of_tunnels(name: str, start: str) -> None:
    """csum_start says which of the two is still to be made: the other is right before, and after.

    A sender that leaves the inner one to the card has already made the outer one for what will come out.
    """
    ports = ("tx_in", "tx_out", "rx_in", "rx_out")
    with Rig("filter-rewriter", {"max_connections": 8}, vnet=ports) as rig:
        flow = Flow(rig, wrap=IN[name])

        def through(port: str, frame: bytes) -> bytes:
            at = {"inner": read_inside(frame).body_at, "outer": read(frame).body_at, "none": 0}[start]
            head = vnet_header(needs_csum=start != "none", csum_start=at)
            rig.feed(f"{port}_in", head + frame, vnet_hdr_len=len(head))
            rig.run(now=1)
            (out,) = rig.take(f"{port}_out")
            assert out[: len(head)] == head
            return out[len(head) :]

        partial = start == "inner"
        for port, frame in (("tx", flow.tx(SYN, 0)), ("rx", flow.rx(SYN | ACK, 0, 1)), ("tx", flow.tx(ACK, 1, 1))):
            through(port, frame)
        for port, frame, value in (
            ("tx", flow.tx(ACK, 1, 1, b"data", partial=partial), SECONDARY + 1),
            ("rx", flow.rx(ACK, 1, 1, b"data", partial=partial), PRIMARY + 1),
        ):
            after = through(port, frame)
            p = read_inside(after)
            assert (p.ack if port == "tx" else p.seq) == value
            assert inner_faults(after, partial=partial) == []
            if not partial:
                assert checksum_faults(after) == []
            else:  # what the card makes of it is right with the outer checksum of what it would have made before
                assert outer_sum(finished(after)) == outer_sum(finished(frame))


def finished(frame: bytes) -> bytes:
    """A frame whose inner TCP checksum a card has made."""
    p = read_inside(frame)
    body = p.body[:16] + b"\0\0" + p.body[18:]
    value = checksum(pseudo(packed(p.src), packed(p.dst), p.proto, len(body)) + body)
    return frame[: p.body_at + 16] + value.to_bytes(2, "big") + frame[p.body_at + 18 :]


def outer_sum(frame: bytes) -> int:
    """One's complement sum of the outer datagram, which its checksum is made of."""
    return ones_sum(read(frame).body)
