"""The benchmarks' streams are frames that a real stack would take, and the judge sees every fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.bench.traffic import handshakes, judge, make
from tests.packets import ACK, SYN, checksum_faults, read

STREAM = make("tcp", 4, 64, 100)


@pytest.mark.parametrize(
    ("protocol", "flows", "payload"), [("tcp", 3, 64), ("udp", 3, 63), ("udp", 1, 1400), ("tcp", 1, 1)]
)
def test_checksums_are_right(protocol: str, flows: int, payload: int) -> None:
    stream = make(protocol, flows, payload, 12)
    for i in range(stream.frames):
        assert checksum_faults(stream.frame(i)) == []
        assert len(read(stream.frame(i)).payload) == payload


def test_sequence_numbers_advance_within_each_flow() -> None:
    first, second = (read(STREAM.frame(i)) for i in (1, 5))
    assert (first.dport, second.dport) == (20_001, 20_001)
    assert (second.seq - first.seq) % 2**32 == 64


def test_alike_repeats_the_payload_within_a_flow() -> None:
    stream = make("udp", 2, 64, 6, alike=True)
    payloads = [read(stream.frame(i)).payload for i in range(6)]
    assert payloads[0] == payloads[2] == payloads[4] != payloads[1]
    assert len({stream.frame(i) for i in range(6)}) == 6, "and still no two frames are equal"


def test_a_handshake_opens_each_flow_where_its_data_starts() -> None:
    opening = handshakes(STREAM, offset=1000)
    for flow in range(4):
        syn, syn_ack, ack = (read(bytes(rows[flow, 4:])) for rows in (opening.syn, opening.syn_ack, opening.ack))
        data = read(STREAM.frame(flow))
        assert (syn.flags, syn_ack.flags, ack.flags) == (SYN, SYN | ACK, ACK)
        assert (syn_ack.seq + 1) % 2**32 == data.seq
        assert (ack.ack + 1000) % 2**32 == data.seq, "the client knows the other replica's number"
        assert (syn.sport, syn.dport, syn_ack.sport) == (data.dport, data.sport, data.sport)
        assert checksum_faults(bytes(opening.ack[flow, 4:])) == []


def verdict(change: Any) -> tuple[int, int, bool, bool]:
    rows = STREAM.records.copy()
    rows = change(rows)
    v = judge(STREAM, np.ascontiguousarray(rows).reshape(-1))
    return v.lost, v.strange, v.exact, v.flows_in_order


def swap(rows: Any, a: int, b: int) -> Any:
    rows[[a, b]] = rows[[b, a]]
    return rows


def damage(rows: Any) -> Any:
    rows[5, 100] ^= 1
    return rows


def double(rows: Any) -> Any:
    rows[5] = rows[6]
    return rows


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: rows, (0, 0, True, True)),
        (lambda rows: rows[:90], (10, 0, False, True)),
        (lambda rows: swap(rows, 0, 1), (0, 0, False, True)),
        (lambda rows: swap(rows, 0, 4), (0, 0, False, False)),
        (damage, (1, 122, False, True)),
        (double, (1, 122, False, False)),
    ],
    ids=["equal", "lost", "flows swapped", "a flow reordered", "a byte changed", "a frame twice"],
)
def test_the_judge_sees(change: Any, expected: tuple[int, int, bool, bool]) -> None:
    assert verdict(change) == expected
