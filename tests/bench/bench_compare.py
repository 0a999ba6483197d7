"""colo-compare through unix sockets: the real pipeline against Debian's QEMU, side by side in one run.

Equal streams into both inputs; the clock runs from the first byte written to the last byte read.  Ours and QEMU take
turns, each time a fresh process with no connections known; a figure is the median of the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.bench import traffic
from tests.bench.load import Flow, lateness, ping, push
from tests.bench.ours import Ours
from tools import qemu

pytestmark = pytest.mark.skipif(not qemu.available(), reason=f"needs Debian's package {qemu.PACKAGE}")

_ROUNDS = 3
_TIMEOUT_MS = 100
_PROMISED_MS = 10
_CASES = {
    "udp-64x64": ("udp", 64, 64, 300_000),
    "udp-1000x1400": ("udp", 1000, 1400, 60_000),
    "tcp-64x64": ("tcp", 64, 64, 300_000),
    "tcp-1000x64": ("tcp", 1000, 64, 300_000),
    "tcp-64x1400": ("tcp", 64, 1400, 60_000),
    "tcp-1x1400": ("tcp", 1, 1400, 60_000),
}


def _run(peer: Callable[[], AbstractContextManager[Any]], stream: traffic.Stream) -> Flow:
    with peer() as p:
        flow = push(p.links, stream, p.pid)
        if isinstance(p, Ours):
            assert p.compared() == stream.frames, "not every packet was compared"
        return flow


def _median(flows: list[Flow]) -> Flow:
    return sorted(flows, key=lambda flow: flow.kpps)[len(flows) // 2]


def _compared(benchmark: Any, stream: traffic.Stream) -> tuple[list[Flow], list[Flow]]:
    """Rounds of ours and of QEMU in turns, and what they say as extra_info."""
    ours: list[Flow] = []
    theirs: list[Flow] = []

    def both() -> None:
        theirs.append(_run(qemu.compare, stream))
        ours.append(_run(Ours, stream))

    benchmark.pedantic(both, rounds=_ROUNDS)
    a, b = _median(ours), _median(theirs)
    print(f"\n{stream.label}\n  ours {a}\n  QEMU {b}\n  ratio {a.kpps / b.kpps:.1f}")
    benchmark.extra_info["figures"] = {"kpps": a.kpps, "CPU µs a packet": a.cpu_us, "frames lost": a.verdict.lost}
    benchmark.extra_info["peers"] = {
        "QEMU kpps": b.kpps,
        "QEMU CPU µs a packet": b.cpu_us,
        "QEMU frames lost": b.verdict.lost,
        "QEMU notify frames": b.notified,
    }
    return ours, theirs


@pytest.mark.parametrize("case", list(_CASES))
def bench_throughput(benchmark: Any, case: str) -> None:
    """Ours must give back every byte in order; what QEMU loses is reported."""
    protocol, flows, payload, count = _CASES[case]
    stream = traffic.make(protocol, flows, payload, count, alike=protocol == "udp")
    ours, theirs = _compared(benchmark, stream)
    rate = statistics.median(f.kpps for f in ours) / statistics.median(f.kpps for f in theirs)
    cpu = statistics.median(f.cpu_us for f in theirs) / statistics.median(f.cpu_us for f in ours)
    benchmark.extra_info["ratios"] = {"kpps over QEMU": rate, "QEMU's CPU over ours": cpu}
    for flow in ours:
        assert flow.verdict.exact, f"{stream.label}: {flow}"
        assert flow.notified == 0, "equal streams asked for a checkpoint"


def bench_different_payloads(benchmark: Any) -> None:
    """UDP with a new payload in each packet: QEMU takes its own backlog for differences; no ratio can be told."""
    stream = traffic.make("udp", 64, 64, 100_000)
    ours, _ = _compared(benchmark, stream)
    for flow in ours:
        assert flow.verdict.exact, f"{stream.label}: {flow}"


@pytest.mark.parametrize("placement", ["dedicated", "shared"])
def bench_latency(benchmark: Any, placement: str) -> None:
    """One packet at a time: both sides written, the output read."""
    stream = traffic.make("udp", 64, 64, 3000)
    found: list[Any] = []

    def both() -> None:
        with qemu.compare() as q, Ours(placement) as o:
            found.append((ping(o.links, stream), ping(q.links, stream)))

    benchmark.pedantic(both, rounds=_ROUNDS)
    ours, theirs = sorted(found, key=lambda pair: pair[0].p50 / pair[1].p50)[_ROUNDS // 2]
    print(f"\nlatency, {placement}\n  ours p50 {ours.p50:.0f} µs, p99 {ours.p99:.0f} µs")
    print(f"  QEMU p50 {theirs.p50:.0f} µs, p99 {theirs.p99:.0f} µs")
    benchmark.extra_info["figures"] = {"p50 µs": ours.p50, "p99 µs": ours.p99}
    benchmark.extra_info["peers"] = {"QEMU p50 µs": theirs.p50, "QEMU p99 µs": theirs.p99}
    benchmark.extra_info["ratios"] = {"QEMU's p50 over ours": theirs.p50 / ours.p50}


def bench_timeout_notice(benchmark: Any) -> None:
    """How late a held packet's timeout is noticed: a packet of one side only, until the request for a checkpoint.

    QEMU looks every ``expired_scan_cycle`` ms, 1000 by default; it gets 10, what ours promises.
    """
    stream = traffic.make("udp", 20, 64, 20)
    found: list[tuple[list[float], list[float]]] = []

    def both() -> None:
        with (
            qemu.compare(compare_timeout=_TIMEOUT_MS, expired_scan_cycle=10) as q,
            Ours(compare_timeout=_TIMEOUT_MS, storm_checkpoints=0, silence_timeout=0) as o,
        ):
            found.append((lateness(o.links, stream, _TIMEOUT_MS), lateness(q.links, stream, _TIMEOUT_MS)))

    benchmark.pedantic(both, rounds=_ROUNDS)
    ours, theirs = ([x for pair in found for x in pair[i]] for i in (0, 1))
    print(f"\ntimeout noticed, ms late\n  ours {_late(ours)}\n  QEMU {_late(theirs)}")
    benchmark.extra_info["figures"] = {"median ms late": statistics.median(ours), "most ms late": max(ours)}
    benchmark.extra_info["peers"] = {"QEMU median ms": statistics.median(theirs), "QEMU most ms": max(theirs)}
    assert min(ours) >= 0, "asked before the timeout"
    assert statistics.median(ours) <= _PROMISED_MS


def _late(values: list[float]) -> str:
    return f"median {statistics.median(values):.2f}, least {min(values):.2f}, most {max(values):.2f} of {len(values)}"
