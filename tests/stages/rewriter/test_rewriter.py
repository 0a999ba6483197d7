"""filter-rewriter, one fact at a time: numbers, options, handshakes, ends of connections."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ring import layout
from stages.rewriter.layout import conns
from tests.packets import (
    ACK,
    FIN,
    MOD,
    PSH,
    RST,
    SYN,
    arp_frame,
    checksum_faults,
    fragments,
    hop_by_hop,
    icmp_frame,
    opt_sack,
    opt_timestamp,
    read,
    tcp_frame,
    udp,
    udp_frame,
    vnet_header,
)
from tests.rig import Rig
from tests.stages.rewriter.rewriting import CLIENT, OFFSET, PRIMARY, SECONDARY, V4, V6, Flow, check_balances


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig("filter-rewriter", {"max_connections": 64}) as r:
        yield r
        check_balances(r)


# --- numbers ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", [{}, {"vlans": (7,)}, {"vlans": (7, 9)}, {"pad": True}], ids=str)
@pytest.mark.parametrize("hosts", [V4, V6], ids=["IPv4", "IPv6"])
def test_handshake_then_both_directions_are_rewritten(rig: Rig, hosts: tuple[str, str], how: dict[str, object]) -> None:
    """SYN and SYN+ACK pass as they are; from the first ACK on ack += offset inbound, seq -= offset outbound."""
    flow = Flow(rig, hosts=hosts, **how)
    for before, after in (flow.inbound(SYN, 0), flow.outbound(SYN | ACK, 0, 1)):
        assert after == before
    before, after = flow.inbound(ACK, 1, 1)
    assert read(after).ack == SECONDARY + 1
    assert read(after).seq == read(before).seq
    before, after = flow.inbound(ACK | PSH, 1, 1, b"GET / HTTP/1.0")
    assert (read(after).ack, read(after).payload) == (SECONDARY + 1, b"GET / HTTP/1.0")
    assert checksum_faults(after) == []
    before, after = flow.outbound(ACK | PSH, 1, 15, b"200 OK")
    assert (read(after).seq, read(after).ack, read(after).payload) == (PRIMARY + 1, CLIENT + 15, b"200 OK")
    assert checksum_faults(after) == []
    counters = rig.counters()
    assert (counters["rewritten_in"], counters["rewritten_out"], counters["connections"]) == (2, 1, 1)


@pytest.mark.parametrize("primary", [0, 1, MOD - 1, MOD - 2, MOD // 2])
@pytest.mark.parametrize("secondary", [0, MOD - 1, MOD // 2 - 1])
@pytest.mark.parametrize("client", [0, MOD - 1])
def test_every_wrap_and_isn_0(rig: Rig, client: int, primary: int, secondary: int) -> None:
    """ISN 0 and the wrap of 2^32, on any of the three sides, are nothing special."""
    flow = Flow(rig, isns=(client, primary, secondary)).open()
    for n in (1, 2, 3, 70_000):
        _, after = flow.inbound(ACK, n, n, b"x")
        assert read(after).ack == (secondary + n) % MOD
        assert checksum_faults(after) == []
        _, after = flow.outbound(ACK, n, n, b"y")
        assert read(after).seq == (primary + n) % MOD
        assert checksum_faults(after) == []


def test_equal_isns_change_nothing(rig: Rig) -> None:
    """Offset 0: every byte stays."""
    flow = Flow(rig, isns=(9, 77, 77)).open()
    before, after = flow.outbound(ACK, 1, 1, b"data")
    assert after == before
    assert rig.counters()["passed_aligned"] == 2


def test_extension_headers_are_passed_over(rig: Rig) -> None:
    """TCP behind a hop-by-hop header is still TCP."""
    flow = Flow(rig, hosts=V6, extensions=[hop_by_hop(16)]).open()
    _, after = flow.outbound(ACK, 1, 1, b"data")
    assert read(after).seq == PRIMARY + 1
    assert checksum_faults(after) == []


def test_a_partial_checksum_is_left_as_it_is() -> None:
    """With NEEDS_CSUM the field holds the pseudo-header's sum, which no number of TCP is part of."""
    with Rig("filter-rewriter", {"max_connections": 8}, vnet=("tx_in", "tx_out", "rx_in", "rx_out")) as rig:
        flow = Flow(rig)
        for port, frame in (("tx", flow.tx(SYN, 0)), ("rx", flow.rx(SYN | ACK, 0, 1)), ("tx", flow.tx(ACK, 1, 1))):
            rig.feed(f"{port}_in", vnet_header(needs_csum=False) + frame, vnet_hdr_len=10)
            rig.run(now=1)
            rig.take(f"{port}_out")
        for needs, size in ((True, 10), (True, 12), (False, 10), (False, 12)):
            head = vnet_header(needs_csum=needs, csum_start=34, size=size)
            rig.feed("rx_in", head + flow.rx(ACK, 1, 1, b"data", partial=needs), vnet_hdr_len=size)
            rig.feed("tx_in", head + flow.tx(ACK, 1, 1, b"data", partial=needs), vnet_hdr_len=size)
            rig.run(now=1)
            for out, field, value in (("rx", "seq", PRIMARY + 1), ("tx", "ack", SECONDARY + 1)):
                (record,) = rig.take(f"{out}_out")
                assert record[:size] == head
                assert getattr(read(record[size:]), field) == value
                assert checksum_faults(record[size:], partial=needs) == []


def test_framing_may_differ_between_input_and_output() -> None:
    """A ring with V feeding one without: the header goes away, the segment is rewritten all the same."""
    with Rig("filter-rewriter", {"max_connections": 8}, vnet=("tx_in", "rx_out")) as rig:
        flow = Flow(rig).open()
        _, after = flow.inbound(ACK, 1, 1, b"data")
        assert read(after).ack == SECONDARY + 1
        assert checksum_faults(after) == []


def test_a_wrong_checksum_stays_wrong(rig: Rig) -> None:
    """Damage is not covered up."""
    flow = Flow(rig).open()
    frame = bytearray(flow.rx(ACK, 1, 1, b"data"))
    frame[-1] ^= 1
    assert checksum_faults(flow.send(bytes(frame), "rx")) == ["transport"]


# --- options ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lead", [b"", b"\1", b"\1\1", b"\1\1\1"], ids=len)
def test_sack_blocks_move_with_the_ack(rig: Rig, lead: bytes) -> None:
    """Inbound blocks are in the guest's numbers (D-SACK too); outbound ones in the client's. At odd places as well."""
    flow = Flow(rig, isns=(CLIENT, MOD - 10, SECONDARY)).open()
    blocks = [(flow.primary + 5, flow.primary + 20), (flow.primary + 40, flow.primary + 60)]
    before, after = flow.inbound(ACK, 1, 30, options=lead + opt_sack(*blocks))
    moved = opt_sack(*((SECONDARY + left, SECONDARY + right) for left, right in ((5, 20), (40, 60))))
    assert read(after).options == {5: moved[2:]}
    assert checksum_faults(after) == []
    before, after = flow.outbound(ACK, 1, 1, options=lead + opt_sack((CLIENT, CLIENT + 9)))
    assert read(after).options == read(before).options
    assert checksum_faults(after) == []


@pytest.mark.parametrize("isns", [(CLIENT, PRIMARY, SECONDARY), (1, 5, 5)], ids=["other ISN", "same ISN"])
def test_timestamps_of_both_replicas_look_like_the_primarys(rig: Rig, isns: tuple[int, int, int]) -> None:
    """The guest is echoed the clock that its SYN+ACK showed; the client sees the primary's go on (RFC 7323)."""
    flow = Flow(rig, isns=isns)
    ours, theirs = MOD - 3, 900_000
    flow.inbound(SYN, 0, options=opt_timestamp(11, 0))
    before, after = flow.outbound(SYN | ACK, 0, 1, options=opt_timestamp(ours, 11))
    assert after == before
    _, after = flow.inbound(ACK, 1, 1, options=opt_timestamp(12, theirs))
    assert read(after).options[8] == opt_timestamp(12, ours)[2:]
    _, after = flow.outbound(ACK, 1, 1, b"data", options=b"\1" + opt_timestamp(ours + 50, 12))
    assert read(after).options[8] == opt_timestamp(theirs + 50, 12)[2:]
    assert checksum_faults(after) == []
    _, after = flow.inbound(ACK, 1, 5, options=b"\1\1" + opt_timestamp(13, theirs + 50))
    assert read(after).options[8] == opt_timestamp(13, ours + 50)[2:]
    assert checksum_faults(after) == []
    rig.command(layout.CMD_CHECKPOINT, 1)
    before, after = flow.outbound(ACK, 5, 1, options=opt_timestamp(theirs + 60, 13), isn=flow.primary)
    assert after == before


def test_without_timestamps_on_either_side_there_is_no_ts_offset(rig: Rig) -> None:
    """Offered by the guest alone, or sent by the client alone: left as they are."""
    for port, guest, client in ((40_000, opt_timestamp(7, 1), b""), (40_001, b"", opt_timestamp(1, 9))):
        flow = Flow(rig, port)
        flow.inbound(SYN, 0)
        flow.outbound(SYN | ACK, 0, 1, options=guest)
        flow.inbound(ACK, 1, 1, options=client)
        before, after = flow.outbound(ACK, 1, 1, options=opt_timestamp(70, 1))
        assert read(after).options == read(before).options


@pytest.mark.parametrize("bad", [b"\5\x14\0\0", b"\5\0\1\1", b"\x08\1\1\1", b"\1\1\1\5", b"\5\4\0\0", b"\5\2\5\3"])
def test_options_that_cannot_be_read_stay(rig: Rig, bad: bytes) -> None:
    """Lengths of 0 or 1, beyond the header, not of whole blocks: the numbers of the header move, the options do not."""
    flow = Flow(rig).open()
    before, after = flow.inbound(ACK, 1, 1, b"data", options=bad)
    assert after[54:] == before[54:]
    assert read(after).ack == SECONDARY + 1
    assert checksum_faults(after) == []


# --- what is left alone ----------------------------------------------------------------------------------------
def test_everything_else_passes_untouched(rig: Rig) -> None:
    """ARP, UDP, ICMP, fragments, runts, unknown TCP: byte for byte, counted by reason."""
    a, b = V4
    frames = [
        arp_frame(a, b), udp_frame(a, b, 40_000, 80, b"x"), icmp_frame(a, b), icmp_frame(*V6), b"", b"\0" * 13,
        tcp_frame(a, b, 1, 2, seq=1, ack=1)[:40], *fragments(a, b, 17, udp(a, b, 1, 2, b"z" * 80), 64),
        tcp_frame(a, b, 1, 2, seq=1, ack=1), tcp_frame(a, b, 1, 2, flags=RST), tcp_frame(a, b, 1, 2, flags=SYN | FIN),
    ]  # fmt: skip
    for port in ("tx", "rx"):
        rig.feed(f"{port}_in", *frames)
        rig.run(now=1)
        assert rig.take(f"{port}_out") == frames
    counters = rig.counters()
    assert (counters["passed_not_tcp"], counters["passed_fragment"], counters["passed_unknown"]) == (14, 4, 6)
    assert counters["connections_opened"] == 0


def test_before_the_offset_is_known_nothing_is_touched(rig: Rig) -> None:
    """An ACK before the secondary's SYN+ACK, a SYN+ACK sent again, data of the guest before the first ACK."""
    flow = Flow(rig)
    flow.inbound(SYN, 0)
    for before, after in (
        flow.inbound(ACK, 1, 1), flow.outbound(SYN | ACK, 0, 1), flow.outbound(SYN | ACK, 0, 1),
        flow.outbound(ACK, 1, 1, b"early"), flow.inbound(SYN, 0),
    ):  # fmt: skip
        assert after == before
    assert flow.offset_in() == OFFSET


def test_an_ack_that_cannot_be_the_first_teaches_nothing(rig: Rig) -> None:
    """A late segment of an older connection on the same ports must not set the offset."""
    flow = Flow(rig)
    flow.inbound(SYN, 0)
    flow.outbound(SYN | ACK, 0, 1)
    for stray in (-5, 0, 70_000, MOD // 2):
        before, after = flow.inbound(ACK, stray, 12_345)
        assert after == before
    assert flow.offset_in() == OFFSET


def test_the_first_ack_may_carry_data_and_come_out_of_order(rig: Rig) -> None:
    """The handshake's own ACK was lost: data beyond the first byte teaches the same."""
    flow = Flow(rig)
    flow.inbound(SYN, 0)
    flow.outbound(SYN | ACK, 0, 1)
    _, after = flow.inbound(ACK | PSH, 1461, 1, b"second")
    assert read(after).ack == SECONDARY + 1


def test_status_off_is_transparent_and_on_goes_on(rig: Rig) -> None:
    """Off: nothing is read. On again: the known offset is used."""
    flow = Flow(rig).open()
    rig.command(layout.CMD_STATUS, 0)
    before, after = flow.inbound(ACK, 1, 1)
    assert after == before
    assert rig.counters()["passed_off"] == 1
    rig.command(layout.CMD_STATUS, 1)
    assert flow.offset_in() == OFFSET


# --- SYN again -------------------------------------------------------------------------------------------------
def test_a_syn_sent_again_does_not_wreck_a_live_connection(rig: Rig) -> None:
    """Late, duplicated or forged, with the same ISN or another: only the guest's SYN+ACK starts a connection anew."""
    flow = Flow(rig).open()
    flow.inbound(SYN, 0)
    assert flow.offset_in() == OFFSET
    flow.inbound(SYN, 4711)
    assert flow.offset_in() == OFFSET
    flow.outbound(SYN | ACK, 0, 1)
    assert flow.offset_in() == OFFSET
    assert rig.counters()["connections_opened"] == 1


def test_a_new_connection_on_the_same_ports_starts_anew(rig: Rig) -> None:
    """The guest answers another client ISN: what the row knew is over, live or closed."""
    Flow(rig).open()
    again = Flow(rig, isns=(900_000, 8_000, 3_000))
    again.open()
    assert again.offset_in() == (3_000 - 8_000) % MOD
    again.inbound(RST, 1)
    third = Flow(rig, isns=(50, 60, 70)).open()
    assert third.offset_in() == 10
    counters = rig.counters()
    assert (counters["connections_opened"], counters["connections_replaced"], counters["connections_reset"]) == (
        3,
        1,
        1,
    )
    assert counters["connections"] == 1


def test_a_half_open_connection_takes_the_last_isns(rig: Rig) -> None:
    """A new SYN with another ISN before the first ACK, and a SYN+ACK with another ISN (SYN cookies)."""
    Flow(rig).inbound(SYN, 0)
    Flow(rig).outbound(SYN | ACK, 0, 1)
    flow = Flow(rig, isns=(222_222, 333_333, 444_444))
    flow.inbound(SYN, 0)
    flow.outbound(SYN | ACK, 0, 1, isn=111)
    flow.outbound(SYN | ACK, 0, 1)
    assert flow.offset_in() == 444_444 - 333_333


def test_a_refused_handshake_that_is_tried_again_is_open_again(rig: Rig) -> None:
    """A RST ended the first try; the guest's SYN+ACK to the same client ISN starts another, counted as one."""
    flow = Flow(rig)
    flow.inbound(SYN, 0)
    flow.outbound(SYN | ACK, 0, 1)
    flow.outbound(RST, 1)
    assert rig.counters()["connections"] == 0
    assert flow.open().offset_in() == OFFSET
    counters = rig.counters()
    assert (counters["connections"], counters["connections_opened"], counters["connections_reset"]) == (1, 2, 1)


def test_a_syn_ack_alone_starts_a_connection(rig: Rig) -> None:
    """The SYN came before this stage did, or its row was evicted: the answer tells all that is needed."""
    flow = Flow(rig)
    flow.outbound(SYN | ACK, 0, 1)
    assert flow.offset_in() == OFFSET


# --- the end of a connection -----------------------------------------------------------------------------------
def closing(flow: Flow, order: str) -> None:
    """FINs and their acknowledgements, of the client first, of the guest first, or of both at once."""
    if order == "client":
        flow.inbound(FIN | ACK, 1, 1)
        flow.outbound(ACK, 1, 2)
        flow.outbound(FIN | ACK, 1, 2)
        flow.inbound(ACK, 2, 2)
    elif order == "guest":
        flow.outbound(FIN | ACK, 1, 1, b"bye")
        flow.inbound(ACK, 1, 5)
        flow.inbound(FIN | ACK, 1, 5)
        flow.outbound(ACK, 5, 2)
    else:
        flow.inbound(FIN | ACK, 1, 1)
        flow.outbound(FIN | ACK, 1, 1)
        flow.inbound(ACK, 2, 2)
        flow.outbound(ACK, 2, 2)


@pytest.mark.parametrize("isns", [(CLIENT, PRIMARY, SECONDARY), (MOD - 2, MOD - 2, 5), (0, 0, MOD - 2)], ids=str)
@pytest.mark.parametrize("order", ["client", "guest", "both"])
def test_both_fins_acknowledged_is_closed(rig: Rig, order: str, isns: tuple[int, int, int]) -> None:
    """Whoever closes first, also at once; what is sent again later is still rewritten."""
    flow = Flow(rig, isns=isns).open()
    closing(flow, order)
    counters = rig.counters()
    assert (counters["connections"], counters["connections_closed"]) == (0, 1)
    _, after = flow.outbound(FIN | ACK, 1, 2)
    assert read(after).seq == (flow.primary + 1) % MOD
    assert rig.counters()["connections_closed"] == 1


def test_one_fin_is_half_closed(rig: Rig) -> None:
    """A FIN that nobody has acknowledged, or an acknowledgement short of it, closes nothing."""
    flow = Flow(rig).open()
    flow.inbound(FIN | ACK, 1, 1, b"last words")
    flow.outbound(FIN | ACK, 1, 11)
    flow.inbound(ACK, 12, 2)
    assert rig.counters()["connections"] == 1
    flow.outbound(ACK, 2, 12)
    assert rig.counters()["connections"] == 0


def test_a_fin_before_a_checkpoint_is_acknowledged_after_it(rig: Rig) -> None:
    """The guest's numbers change at a checkpoint, the client's view of its FIN does not."""
    flow = Flow(rig).open()
    flow.outbound(FIN | ACK, 1, 1)
    rig.command(layout.CMD_CHECKPOINT, 1)
    flow.inbound(FIN | ACK, 1, 2)
    flow.outbound(ACK, 2, 2, isn=PRIMARY)
    assert rig.counters()["connections_closed"] == 1


@pytest.mark.parametrize("way", ["inbound", "outbound"])
def test_a_reset_ends_it_and_late_segments_are_still_rewritten(rig: Rig, way: str) -> None:
    """RST of either side; the row stays until its place is needed."""
    flow = Flow(rig).open()
    getattr(flow, way)(RST | ACK, 1, 1)
    counters = rig.counters()
    assert (counters["connections"], counters["connections_reset"]) == (0, 1)
    assert flow.offset_in() == OFFSET


@pytest.mark.parametrize("flags", [RST, RST | ACK], ids=["RST", "RST+ACK"])
def test_a_reset_outside_the_window_ends_nothing(rig: Rig, flags: int) -> None:
    """The guest does not take it (RFC 5961), so it is late or forged; the window starts at the guest's last ack."""
    established, answered = Flow(rig).open(), Flow(rig, 40_001)
    answered.inbound(SYN, 0)
    answered.inbound(flags, 1)  # before the guest has answered there is no window at all
    answered.outbound(SYN | ACK, 0, 1)
    established.outbound(ACK, 1, 501)
    for flow, first in ((established, 501), (answered, 1)):
        for place in (first - 1, first + conns.RESET_WINDOW + 1, MOD // 2, 123_456_789):
            flow.inbound(flags, place, 1)
    counters = rig.counters()
    assert (counters["connections"], counters["connections_reset"]) == (2, 0)
    established.inbound(flags, 501 + conns.RESET_WINDOW, 1)
    answered.inbound(flags, 1, 1)
    counters = rig.counters()
    assert (counters["connections"], counters["connections_reset"]) == (0, 2)


@pytest.mark.parametrize("place", [1, 10])
def test_the_window_of_a_reset_wraps_and_follows_a_connection_that_the_guest_opened(rig: Rig, place: int) -> None:
    """It starts at the peer's ISN + 1 before the guest has sent its first ACK."""
    flow = Flow(rig, isns=(MOD - 3, PRIMARY, SECONDARY))
    flow.outbound(SYN, 0)
    flow.inbound(SYN | ACK, 0, 1)
    flow.inbound(RST, 0)
    assert rig.counters()["connections"] == 1
    flow.inbound(RST, place)
    assert rig.counters()["connections_reset"] == 1


def test_a_forged_fin_closes_nothing(rig: Rig) -> None:
    """What the guest acknowledges later lies behind its number, but is no acknowledgement of it."""
    flow = Flow(rig).open()
    flow.outbound(FIN | ACK, 1, 1)
    flow.inbound(ACK, 1, 2)  # half closed: the client goes on sending
    for place in (-100_000, -1, MOD // 2 + 1):
        flow.inbound(FIN | ACK, place, 2)
        flow.outbound(ACK, 2, 1)
        flow.outbound(ACK, 2, 51)
    assert rig.counters()["connections"] == 1
    flow.inbound(FIN | ACK, 51, 2)
    flow.outbound(ACK, 2, 52)
    assert rig.counters()["connections_closed"] == 1


def test_a_forged_ack_does_not_acknowledge_the_guests_fin(rig: Rig) -> None:
    """Only the number after the FIN does, from either side."""
    flow = Flow(rig).open()
    flow.inbound(FIN | ACK, 1, 1)
    flow.outbound(FIN | ACK, 1, 2)
    flow.inbound(ACK, 2, 70_000)
    assert rig.counters()["connections"] == 1
    flow.inbound(ACK, 2, 2)
    assert rig.counters()["connections_closed"] == 1


def test_a_reset_without_ack_from_the_guest_is_rewritten(rig: Rig) -> None:
    """Its seq is the ack of what it answers, which was moved on the way in."""
    flow = Flow(rig).open()
    _, after = flow.outbound(RST, 1)
    assert read(after).seq == PRIMARY + 1
    assert checksum_faults(after) == []


@pytest.mark.parametrize("way", ["closed", "reset"])
def test_the_refusal_of_a_syn_on_ports_used_before_has_no_number(rig: Rig, way: str) -> None:
    """The server is gone, the client comes back from the same port: RST+ACK with seq 0 (RFC 9293, 3.10.7.1)."""
    flow = Flow(rig).open()
    if way == "closed":
        closing(flow, "client")
    else:
        flow.inbound(RST, 1)
    again = Flow(rig, isns=(900_000, 0, 0))
    again.inbound(SYN, 0)
    before, after = again.outbound(RST | ACK, 0, 1)
    assert after == before
    _, moved = flow.outbound(RST | ACK, 1, 1)
    assert read(moved).seq == PRIMARY + 1
    assert rig.counters()["passed_no_number"] == 1 + (way == "reset")


def test_a_reset_at_number_0_of_a_live_connection_is_rewritten(rig: Rig) -> None:
    """0 is an ordinary number there."""
    flow = Flow(rig, isns=(CLIENT, PRIMARY, MOD - 1)).open()
    _, after = flow.outbound(RST | ACK, 1, 1)
    assert read(after).seq == PRIMARY + 1
    assert rig.counters()["connections_reset"] == 1


def test_a_reset_without_ack_from_the_client_passes(rig: Rig) -> None:
    """It carries only the client's own number."""
    flow = Flow(rig).open()
    before, after = flow.inbound(RST, 1)
    assert after == before
    assert rig.counters()["passed_no_number"] == 1
