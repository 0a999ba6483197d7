"""filter-rewriter, one fact at a time: connections that the guest opens, alone or at once with the peer; fragments."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ring import layout
from tests.packets import (
    ACK,
    FIN,
    MOD,
    P_TCP,
    PSH,
    RST,
    SYN,
    checksum_faults,
    fragments,
    ones_sum,
    opt_sack,
    opt_timestamp,
    packed,
    pseudo,
    read,
    tcp,
)
from tests.rig import Rig
from tests.stages.rewriter.rewriting import CLIENT, OFFSET, PRIMARY, SECONDARY, V4, V6, Flow, check_balances


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig("filter-rewriter", {"max_connections": 64}) as r:
        yield r
        check_balances(r)


# --- the guest opens -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("hosts", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    "isns", [(CLIENT, PRIMARY, SECONDARY), (0, 0, MOD - 1), (MOD - 1, MOD - 1, 0), (5, MOD // 2, 1)], ids=str
)
def test_a_connection_that_the_guest_opens_is_rewritten(
    rig: Rig, isns: tuple[int, int, int], hosts: tuple[str, str]
) -> None:
    """The guest's SYN passes; the peer's SYN+ACK, which acknowledges the primary's, is the first to be moved."""
    flow = Flow(rig, isns=isns, hosts=hosts)
    before, after = flow.outbound(SYN, 0)
    assert after == before
    before, after = flow.inbound(SYN | ACK, 0, 1)
    assert (read(after).ack, read(after).seq) == ((flow.secondary + 1) % MOD, read(before).seq)
    assert checksum_faults(after) == []
    _, after = flow.outbound(ACK | PSH, 1, 1, b"GET / HTTP/1.0")
    assert (read(after).seq, read(after).payload) == ((flow.primary + 1) % MOD, b"GET / HTTP/1.0")
    assert checksum_faults(after) == []
    _, after = flow.inbound(ACK | PSH, 1, 15, b"200 OK", options=opt_sack((flow.primary + 20, flow.primary + 30)))
    assert read(after).ack == (flow.secondary + 15) % MOD
    assert read(after).options[5] == opt_sack((flow.secondary + 20, flow.secondary + 30))[2:]
    assert checksum_faults(after) == []
    counters = rig.counters()
    assert (counters["connections_opened"], counters["rewritten_in"], counters["rewritten_out"]) == (1, 2, 1)


def test_timestamps_of_a_connection_that_the_guest_opens(rig: Rig) -> None:
    """The SYN+ACK echoes the primary's clock: Linux would reset what echoes a time that its SYN never had."""
    flow, ours, theirs = Flow(rig), MOD - 3, 900_000
    flow.outbound(SYN, 0, options=opt_timestamp(ours, 0))
    _, after = flow.inbound(SYN | ACK, 0, 1, options=opt_timestamp(77, theirs))
    assert read(after).options[8] == opt_timestamp(77, ours)[2:]
    assert checksum_faults(after) == []
    _, after = flow.outbound(ACK, 1, 1, options=b"\1\1" + opt_timestamp(ours + 9, 77))
    assert read(after).options[8] == opt_timestamp(theirs + 9, 77)[2:]
    assert checksum_faults(after) == []


def test_a_refusal_reaches_the_guest(rig: Rig) -> None:
    """RST+ACK to a SYN: unless its ack is the guest's, the guest goes on asking while the primary gives up."""
    flow = Flow(rig)
    flow.outbound(SYN, 0)
    _, after = flow.inbound(RST | ACK, 0, 1)
    assert read(after).ack == SECONDARY + 1
    assert checksum_faults(after) == []
    counters = rig.counters()
    assert (counters["connections"], counters["connections_reset"]) == (0, 1)
    again = Flow(rig, isns=(9, 8_000, 3_000)).guest_open()
    assert again.offset_in() == (3_000 - 8_000) % MOD


def test_what_answers_something_older_does_not_end_an_attempt(rig: Rig) -> None:
    """A challenge ACK, the guest's RST to it, a RST without ACK: as they are; then the attempt succeeds (RFC 9293)."""
    flow = Flow(rig)
    flow.outbound(SYN, 0)
    for before, after in (flow.inbound(ACK, 9, 77), flow.outbound(RST, 78), flow.inbound(RST, 9)):
        assert after == before
    assert flow.guest_open().offset_in() == OFFSET
    assert rig.counters()["connections_opened"] == 1


def test_the_guests_syn_sent_again(rig: Rig) -> None:
    """The last ISN before the answer counts; after it the same SYN changes nothing, another one opens anew."""
    flow = Flow(rig)
    flow.outbound(SYN, 0, isn=4711)
    flow.outbound(SYN, 0)
    flow.guest_open()
    flow.outbound(SYN, 0)
    before, after = flow.inbound(SYN | ACK, 0, 1)
    assert read(after).ack - read(before).ack == OFFSET
    assert flow.offset_in() == OFFSET
    assert rig.counters()["connections_opened"] == 1
    assert Flow(rig, isns=(1, 2, 30)).guest_open().offset_in() == 28
    counters = rig.counters()
    assert (counters["connections_opened"], counters["connections_replaced"]) == (2, 1)


def test_a_syn_ack_that_nobody_asked_for_passes_and_is_counted(rig: Rig) -> None:
    """Without a SYN of the guest there is nothing to learn, on a new connection and on one that the peer opened."""
    fresh, known = Flow(rig, 40_001), Flow(rig).open()
    for before, after in (fresh.inbound(SYN | ACK, 0, 1), known.inbound(SYN | ACK, 0, 1)):
        assert after == before
    assert known.offset_in() == OFFSET
    counters = rig.counters()
    assert (counters["passed_unasked"], counters["connections_opened"]) == (2, 1)


def test_a_syn_with_data_is_left_alone(rig: Rig) -> None:
    """TCP Fast Open: the answer acknowledges the data or not, so it does not tell the primary's ISN (RFC 7413)."""
    ports = (40_000, 40_001, 40_002, 40_003)
    for port in ports[2:]:
        Flow(rig, port).open()
    for port in ports:
        Flow(rig, port).outbound(SYN, 0, payload=b"early")
    for port in ports[1::2]:  # sent again without its data after a timeout, or with it
        Flow(rig, port).outbound(SYN, 0)
        Flow(rig, port).outbound(SYN, 0, payload=b"early")
    for port in ports:
        for before, after in (Flow(rig, port).inbound(SYN | ACK, 0, 6), Flow(rig, port).outbound(ACK, 6, 1, b"more")):
            assert after == before
        assert Flow(rig, port).offset_in() == 0
    counters = rig.counters()
    assert (counters["connections_untracked"], counters["connections_replaced"]) == (4, 2)
    assert (counters["connections"], counters["connections_opened"]) == (0, 2)
    for port in ports:  # a SYN with another ISN is a new connection
        assert Flow(rig, port, isns=(CLIENT, PRIMARY, SECONDARY + 9)).guest_open().offset_in() == OFFSET + 9


def test_a_guests_connection_closes_and_counts_as_closed(rig: Rig) -> None:
    """From the first FIN to the last ACK in both numbers."""
    flow = Flow(rig).guest_open()
    flow.outbound(FIN | ACK, 1, 1)
    flow.inbound(FIN | ACK, 1, 2)
    _, after = flow.outbound(ACK, 2, 2)
    assert read(after).seq == PRIMARY + 2
    assert rig.counters()["connections_closed"] == 1


# --- events within the handshake --------------------------------------------------------------------------------
def test_a_checkpoint_between_the_guests_syn_and_its_answer(rig: Rig) -> None:
    """The guest is a copy of the primary then: the answer is right as it is, and the SYN sent again is no new one."""
    flow = Flow(rig)
    flow.outbound(SYN, 0)
    rig.command(layout.CMD_CHECKPOINT, 1)
    before, after = flow.inbound(SYN | ACK, 0, 1)
    assert after == before
    flow.outbound(SYN, 0, isn=PRIMARY)
    assert flow.offset_in() == 0
    assert rig.counters()["connections_opened"] == 1


def test_after_a_failover_the_guests_own_connections_are_left_alone(rig: Rig) -> None:
    """New ones; what was asked for before is learnt from the answer, and ports used again are a new connection."""
    asked = Flow(rig, 40_001)
    asked.outbound(SYN, 0)
    known = Flow(rig, 40_002).guest_open()
    rig.command(layout.CMD_FAILOVER, 1)
    asked.inbound(SYN | ACK, 0, 1)
    assert (asked.offset_in(), known.offset_in()) == (OFFSET, OFFSET)
    assert Flow(rig).guest_open().offset_in() == 0
    assert Flow(rig, 40_002, isns=(1, 2, 3)).guest_open().offset_in() == 0


# --- both open at once -----------------------------------------------------------------------------------------
ORDERS = {
    "the guest's SYN first": ["rx SYN", "tx SYN", "rx SYN+ACK", "tx SYN+ACK"],
    "the peer's SYN first": ["tx SYN", "rx SYN", "rx SYN+ACK", "tx SYN+ACK"],
    "the peer's answer first": ["rx SYN", "tx SYN", "tx SYN+ACK", "rx SYN+ACK"],
    "the peer answers with ACK": ["rx SYN", "tx SYN", "rx SYN+ACK", "tx ACK"],
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_simultaneous_open_is_rewritten(rig: Rig, order: list[str]) -> None:
    """Both SYNs cross, then both SYN+ACKs (RFC 9293, figure 7): the peer's is the first segment to be moved."""
    flow = Flow(rig)
    for one in order:
        way, _, name = one.partition(" ")
        flags = (SYN if "SYN" in name else 0) | (ACK if "ACK" in name else 0)
        place = 0 if flags & SYN else 1
        before, after = (flow.inbound if way == "tx" else flow.outbound)(flags, place, 1)
        if way == "tx" and flags & ACK:
            assert read(after).ack == SECONDARY + 1
            assert checksum_faults(after) == []
        else:
            assert after == before
    assert flow.offset_in() == OFFSET
    _, after = flow.outbound(ACK | PSH, 1, 1, b"data")
    assert read(after).seq == PRIMARY + 1
    assert rig.counters()["connections_opened"] == 1


def test_in_a_simultaneous_open_only_the_peers_own_syn_ack_teaches(rig: Rig) -> None:
    """Once the guest has answered the peer's SYN, a SYN+ACK with another number is of another connection."""
    flow = Flow(rig)
    flow.outbound(SYN, 0)
    flow.inbound(SYN, 0)
    flow.outbound(SYN | ACK, 0, 1)
    before, after = flow.inbound(SYN | ACK, 55, 12_345)
    assert after == before
    flow.inbound(SYN | ACK, 0, 1)
    assert flow.offset_in() == OFFSET


def test_a_guest_that_gives_up_its_own_attempt_and_accepts_the_peers(rig: Rig) -> None:
    """Its SYN+ACK has another ISN than its SYN: what counts is the last, and the first ACK teaches as ever."""
    flow = Flow(rig)
    flow.outbound(SYN, 0, isn=4711)
    flow.inbound(SYN, 0)
    flow.outbound(SYN | ACK, 0, 1)
    before, after = flow.inbound(SYN | ACK, 0, 1)
    assert after == before
    assert flow.offset_in() == OFFSET


def test_ports_that_the_guest_had_opened_and_the_peer_opens_now(rig: Rig) -> None:
    """With the same ISN of the guest, as it happens: the peer's SYN+ACK is unasked again."""
    Flow(rig).guest_open()
    again = Flow(rig, isns=(77_777, 1_234, SECONDARY))
    again.inbound(SYN, 0)
    again.outbound(SYN | ACK, 0, 1)
    before, after = again.inbound(SYN | ACK, 0, 1)
    assert after == before
    assert again.offset_in() == SECONDARY - 1_234
    assert rig.counters()["passed_unasked"] == 1


# --- fragments -------------------------------------------------------------------------------------------------
def whole(pieces: list[bytes]) -> bytes:
    """The TCP segment that the fragments make, which must have a right checksum."""
    first = read(pieces[0])
    body = b"".join(read(piece).body for piece in pieces)
    assert ones_sum(pseudo(packed(first.src), packed(first.dst), P_TCP, len(body)) + body) == 0xFFFF
    return body


@pytest.mark.parametrize("hosts", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("size", [24, 64])
def test_the_first_fragment_is_rewritten(rig: Rig, hosts: tuple[str, str], size: int) -> None:
    """It has the numbers and the checksum, which is updated by the difference; the others pass as they are."""
    Flow(rig, hosts=hosts).open()
    body = tcp(*hosts, 40_000, 80, seq=CLIENT + 1, ack=PRIMARY + 1, flags=ACK | FIN, payload=b"x" * 99)
    pieces = fragments(*hosts, P_TCP, body, size)
    rig.feed("tx_in", *pieces)
    rig.run(now=1)
    got = rig.take("tx_out")[-len(pieces) :]
    assert int.from_bytes(whole(got)[8:12], "big") == SECONDARY + 1
    assert whole(got)[20:] == body[20:]
    body = tcp(*hosts[::-1], 80, 40_000, seq=SECONDARY + 1, ack=CLIENT + 1, payload=b"y" * 99)
    rig.feed("rx_in", *fragments(*hosts[::-1], P_TCP, body, size))
    rig.run(now=1)
    assert int.from_bytes(whole(rig.take("rx_out")[-len(pieces) :])[4:8], "big") == PRIMARY + 1
    counters = rig.counters()
    assert counters["passed_fragment"] == 2 * (len(pieces) - 1)
    assert (counters["rewritten_in"], counters["rewritten_out"]) == (2, 1)


def test_a_fin_in_fragments_closes_nothing(rig: Rig) -> None:
    """Its number is behind all of the data, of which the first fragment has a part: rather open too long."""
    flow = Flow(rig).open()
    body = tcp(*V4, 40_000, 80, seq=CLIENT + 1, ack=PRIMARY + 1, flags=ACK | FIN, payload=b"x" * 99)
    rig.feed("tx_in", *fragments(*V4, P_TCP, body, 24))
    rig.run(now=1)
    rig.take("tx_out")
    flow.outbound(FIN | ACK, 1, 1 + 50)
    flow.inbound(ACK, 101, 2)
    assert rig.counters()["connections"] == 1


@pytest.mark.parametrize("flags", [SYN, ACK], ids=["SYN", "a header cut in two"])
def test_fragments_that_tell_too_little_pass(rig: Rig, flags: int) -> None:
    """A SYN cut into fragments is none that a TCP sends; 16 bytes are no TCP header."""
    Flow(rig).open()
    pieces = fragments(*V4, P_TCP, tcp(*V4, 40_000, 80, seq=1, ack=PRIMARY, flags=flags, payload=b"z" * 40), 16)
    if flags == SYN:
        pieces = fragments(*V4, P_TCP, tcp(*V4, 40_000, 80, seq=1, flags=SYN, payload=b"z" * 40), 24)
    rig.feed("tx_in", *pieces)
    rig.run(now=1)
    assert rig.take("tx_out")[-len(pieces) :] == pieces
    assert rig.counters()["passed_fragment"] == len(pieces)
