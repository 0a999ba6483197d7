"""filter-rewriter, killed anywhere."""

from __future__ import annotations

import pytest

from ring import layout
from tests.crash.harness import NOW, Outcome, kill_at_every_store
from tests.packets import ACK, FIN, PSH, RST, SYN, checksum_faults, read
from tests.rig import Rig
from tests.stages.rewriter.rewriting import PRIMARY, SECONDARY, Flow, check_balances
from tests.stages.rewriter.talking import GUEST, GUEST_4, GUEST_6, OTHER, PEER, PEER_4, PEER_6, arp, solicitation

ROWS = 4


def _rig() -> Rig:
    """Four open connections, and one that the guest has asked for, on a table of six rows."""
    rig = Rig("filter-rewriter", {"max_connections": ROWS + 2}, ring_size=8192)
    for i in range(ROWS):
        _handshake(rig, Flow(rig, 40_000 + i))
    rig.feed("rx_in", _asked(rig).rx(SYN, 0))
    rig.run(NOW)
    return rig


def _asked(rig: Rig) -> Flow:
    return Flow(rig, 45_000)


def _handshake(rig: Rig, flow: Flow) -> None:
    for port, frame in (("tx", flow.tx(SYN, 0)), ("rx", flow.rx(SYN | ACK, 0, 1)), ("tx", flow.tx(ACK, 1, 1))):
        rig.feed(f"{port}_in", frame)
        rig.run(NOW)


def _feed(rig: Rig) -> None:
    """Data, the ends of two connections, new ones that need rows, one in a live one's place, answers of both sides."""
    old = [Flow(rig, 40_000 + i) for i in range(ROWS)]
    new = [Flow(rig, 50_000 + i) for i in range(2)]
    rig.feed(
        "tx_in",
        _asked(rig).tx(SYN | ACK, 0, 1),
        old[0].tx(ACK | PSH, 1, 1, b"question"), old[1].tx(FIN | ACK, 1, 1), old[2].tx(RST | ACK, 1, 1),
        new[0].tx(SYN, 0), old[3].tx(ACK, 1, 1), new[1].tx(SYN, 0), old[1].tx(ACK, 2, 2),
    )  # fmt: skip
    rig.feed(
        "rx_in",
        old[0].rx(ACK | PSH, 1, 9, b"answer"), old[1].rx(FIN | ACK, 1, 2), new[1].rx(SYN | ACK, 0, 1),
        old[3].rx(ACK, 1, 1, b"more"), old[3].rx(SYN, 9_000), _asked(rig).rx(ACK, 1, 1),
    )  # fmt: skip


def _feed_with_checkpoint(rig: Rig) -> None:
    rig.command(layout.CMD_CHECKPOINT, 1)
    _feed(rig)


def _check(rig: Rig, outcome: Outcome) -> None:
    """Every frame is there once, with a right checksum, and every counter is accounted for."""
    frames = outcome.frames
    assert [len(frames["tx_out"]), len(frames["rx_out"])] == [2 * ROWS + 8, ROWS + 1 + 6]
    assert not any(checksum_faults(f) for out in frames.values() for f in out)
    question = next(read(f) for f in frames["tx_out"] if read(f).payload == b"question")
    assert question.ack == (PRIMARY if outcome.counters["checkpoints"] else SECONDARY) + 1
    assert outcome.counters["connections_opened"] == ROWS + 1 + 4  # one of them loses its row and gets another
    answer = next(read(f) for f in frames["tx_out"] if read(f).dport == 80 and read(f).flags == SYN | ACK)
    assert answer.ack == (PRIMARY if outcome.counters["checkpoints"] else SECONDARY) + 1
    check_balances(rig)


@pytest.mark.parametrize("feed", [_feed, _feed_with_checkpoint])
def test_a_rewriter_killed_at_any_store_forgets_and_repeats_nothing(feed: object) -> None:
    """Frames, offsets, rows and counters are those of a run that nobody disturbed."""
    kills = kill_at_every_store(_rig, feed, check=_check, stride=5)  # type: ignore[arg-type]
    assert kills > 20


def _talking() -> Rig:
    """A table of addresses that is full: the guest's and of a few neighbours."""
    rig = Rig("filter-rewriter", {"max_connections": ROWS, "max_addresses": 16, "announce_rounds": 2}, ring_size=8192)
    rig.feed("rx_in", arp(1, GUEST, GUEST_4, PEER_4), solicitation(GUEST, GUEST_6, PEER_6))
    rig.feed("tx_in", arp(1, PEER, PEER_4, GUEST_4), solicitation(PEER, PEER_6, GUEST_6))
    rig.feed("tx_in", *(arp(1, b"\x02\1\0\0\0" + bytes([i]), f"10.1.0.{i + 1}", GUEST_4) for i in range(11)))
    rig.run(NOW)
    for port in ("tx_out", "rx_out"):
        rig.take(port)
    return rig


def _talk(rig: Rig) -> None:
    """Questions of the guest, a neighbour that is new, one with a new card, an address that the guest takes."""
    rig.feed(
        "rx_in", arp(1, GUEST, GUEST_4, PEER_4), solicitation(GUEST, GUEST_6, PEER_6), arp(1, GUEST, "10.1.0.3", PEER_4)
    )
    rig.feed("tx_in", arp(1, OTHER, "10.1.9.9", GUEST_4), arp(1, OTHER, PEER_4, GUEST_4))


def _fail_over(rig: Rig) -> None:
    _talk(rig)
    rig.command(layout.CMD_FAILOVER, 1)


def _answered(rig: Rig, outcome: Outcome) -> None:
    """Every question has an answer, before a failover; after it everything of the guest was announced once."""
    after = outcome.counters["failovers"]
    assert (len(outcome.frames["tx_out"]), len(outcome.frames["rx_out"])) == (
        2 + (0 if after else 3),
        3 + outcome.counters["announced"],
    )
    assert outcome.counters["announced"] >= (3 if after else 0)
    assert outcome.counters["addresses"] == 16
    check_balances(rig)


@pytest.mark.parametrize("feed", [_talk, _fail_over])
def test_a_rewriter_killed_at_any_store_knows_every_address_and_answers_once(feed: object) -> None:
    """Rows, answers, announcements and counters are those of a run that nobody disturbed."""
    kills = kill_at_every_store(_talking, feed, check=_answered, stride=3)  # type: ignore[arg-type]
    assert kills > 20


def test_a_rewriter_may_be_replaced_between_any_two_bursts() -> None:
    """A new incarnation after every frame of a whole connection changes not a byte."""
    outputs = []
    for restarts in (False, True):
        with Rig("filter-rewriter", {"max_connections": ROWS}, ring_size=8192) as rig:
            flow = Flow(rig)
            for port, frame in (
                ("tx", flow.tx(SYN, 0)), ("rx", flow.rx(SYN | ACK, 0, 1)), ("tx", flow.tx(ACK, 1, 1)),
                ("tx", flow.tx(ACK | PSH, 1, 1, b"q")), ("rx", flow.rx(ACK | PSH, 1, 2, b"answer")),
                ("rx", flow.rx(FIN | ACK, 7, 2)), ("tx", flow.tx(FIN | ACK, 2, 8)), ("rx", flow.rx(ACK, 8, 3)),
            ):  # fmt: skip
                rig.feed(f"{port}_in", frame)
                if restarts:
                    rig.restart()
                rig.run(NOW)
                if restarts:
                    rig.restart()
            outputs.append((rig.take("tx_out"), rig.take("rx_out"), rig.counters()))
    assert outputs[0] == outputs[1]
    assert outputs[0][2]["connections_closed"] == 1
