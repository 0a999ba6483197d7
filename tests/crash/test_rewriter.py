"""filter-rewriter, killed anywhere."""

from __future__ import annotations

import pytest

from ring import layout
from tests.crash.harness import NOW, Outcome, kill_at_every_store
from tests.packets import ACK, FIN, PSH, RST, SYN, checksum_faults, read
from tests.rig import Rig
from tests.stages.rewriter.rewriting import PRIMARY, SECONDARY, Flow, check_balances

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
