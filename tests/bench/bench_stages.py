"""Frames a CPU second through each stage's kernels: whole rings in, whole rings out, one compiled call a burst.

The peer is `relay` on the same rings: a stage that only copies each frame.  A ratio of 1 means as fast as that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pipeline.config import parse
from pipeline.graph import plan
from ring import hot, layout
from tests.bench import traffic
from tests.bench.kernels import rings
from tests.rig import Rig

_RING = 1 << 22
_SMALL, _LARGE = 200_000, 40_000

CONFIG = """
[pipeline]
name = "bench"
[chardev.c0]
backend = "socket"
path = "c0"
[chardev.c1]
backend = "socket"
path = "c1"
[chardev.c2]
backend = "socket"
path = "c2"
[chardev.c3]
backend = "socket"
path = "c3"
[netdev.hn0]
network = { backend = "null" }
guest = { backend = "null" }
[filter.m0]
type = "filter-mirror"
netdev = "hn0"
queue = "tx"
outdev = "c3"
[filter.rd0]
type = "filter-redirector"
netdev = "hn0"
queue = "rx"
outdev = "@"
[filter.rew0]
type = "filter-rewriter"
netdev = "hn0"
queue = "all"
[compare.comp0]
primary_in = "c0"
secondary_in = "c1"
outdev = "c2"
"""


def params(stage: str) -> Mapping[str, Any]:
    """A stage's parameters with all defaults, as the graph gives them."""
    chardev = '[chardev.c4]\nbackend = "socket"\npath = "c4"\n'
    return plan(parse(CONFIG.replace("@", "c4") + chardev)).by_id[stage].params


def fill(ring: Any, data: Any) -> None:
    """Publish ``data`` (whole records, a uint8 array) in an empty ring at once, without a producer."""
    w, tail = ring.w, int(ring.w[layout.TAIL])
    at = layout.PAGE + (tail & (int(w[layout.SIZE]) - 1))
    ring.u8[at : at + len(data)] = data
    w[layout.TAIL] = tail + len(data)


def through(rig: Rig, inputs: Mapping[str, Any], outputs: tuple[str, ...], step: Callable[[int], int]) -> float:
    """CPU seconds that ``step`` needs for all records of ``inputs`` (port: rows), a ring full at a time.

    Filling the inputs and emptying the outputs are not counted.
    """
    rows = next(iter(inputs.values()))
    chunk = _RING // 2 // rows.shape[1]
    took = 0.0
    for at in range(0, len(rows), chunk):
        for port, records in inputs.items():
            fill(rig.rings[port], records[at : at + chunk].reshape(-1))
        began = time.thread_time()
        while step(time.monotonic_ns()) & 0xFFFFFFFF:
            pass
        took += time.thread_time() - began
        for port in inputs:
            assert rig.rings[port].used == 0, f"{port} was not read to its end"
        for port in outputs:
            rig.rings[port].w[layout.HEAD] = rig.rings[port].w[layout.TAIL]
    return took


_STREAMS = {
    "udp-64x64": ("udp", 64, 64, _SMALL),
    "tcp-64x64": ("tcp", 64, 64, _SMALL),
    "tcp-1000x64": ("tcp", 1000, 64, _SMALL),
    "tcp-1x1400": ("tcp", 1, 1400, _LARGE),
    "tcp-64x1400": ("tcp", 64, 1400, _LARGE),
}


@pytest.fixture(scope="module", params=list(_STREAMS))
def stream(request: pytest.FixtureRequest) -> traffic.Stream:
    """One kind of traffic for all benchmarks of this module."""
    return traffic.make(*_STREAMS[request.param])


@pytest.fixture(scope="module")
def relayed(stream: traffic.Stream) -> float:
    """Frames a CPU second of the relay over the same stream."""
    hot.warm()
    with Rig("filter-mirror", ports=("tx_in", "tx_out"), ring_size=_RING) as rig:
        stage = rig.stage
        rate = _best(
            rig, {"tx_in": stream.records}, ("tx_out",), lambda now: int(rings.relay(stage.u8, stage.w, now)), 4
        )
        assert rig.counters()["tx_out_frames"] == 4 * stream.frames
    return rate


def _best(
    rig: Rig, inputs: Mapping[str, Any], outputs: tuple[str, ...], step: Callable[[int], int], rounds: int
) -> float:
    frames = sum(len(rows) for rows in inputs.values())
    return frames / min(through(rig, inputs, outputs, step) for _ in range(rounds))


def _report(benchmark: Any, relayed: float, frames: int, seconds: list[float]) -> None:
    rate = frames / min(seconds)
    benchmark.extra_info["figures"] = {"frames/CPU s": rate}
    benchmark.extra_info["peers"] = {"relay": relayed}
    benchmark.extra_info["ratios"] = {"over relay": rate / relayed}


def _measure(benchmark: Any, relayed: float, rig: Rig, inputs: Mapping[str, Any], outputs: tuple[str, ...]) -> None:
    seconds: list[float] = []
    benchmark.pedantic(lambda: seconds.append(through(rig, inputs, outputs, rig.stage.do_work)), rounds=4)
    _report(benchmark, relayed, sum(len(rows) for rows in inputs.values()), seconds)


def bench_mirror(benchmark: Any, stream: traffic.Stream, relayed: float) -> None:
    """filter-mirror: on, and a copy to outdev."""
    with Rig("filter-mirror", params("m0"), ports=("tx_in", "tx_out", "outdev"), ring_size=_RING) as rig:
        _measure(benchmark, relayed, rig, {"tx_in": stream.records}, ("tx_out", "outdev"))
        assert rig.counters()["outdev_frames"] == 4 * stream.frames


def bench_redirector(benchmark: Any, stream: traffic.Stream, relayed: float) -> None:
    """filter-redirector: out of the chain, to outdev."""
    with Rig("filter-redirector", params("rd0"), ports=("rx_in", "rx_out", "outdev"), ring_size=_RING) as rig:
        _measure(benchmark, relayed, rig, {"rx_in": stream.records}, ("rx_out", "outdev"))
        assert rig.counters()["outdev_frames"] == 4 * stream.frames


def bench_rewriter(benchmark: Any, stream: traffic.Stream, relayed: float) -> None:
    """filter-rewriter: what the secondary sends, its connections opened before with another initial number."""
    ports = ("tx_in", "rx_in", "tx_out", "rx_out")
    with Rig("filter-rewriter", params("rew0"), ports=ports, ring_size=_RING) as rig:
        if stream.label.startswith("tcp"):
            opening = traffic.handshakes(stream, offset=987_654_321)
            for port, rows in (("tx_in", opening.syn), ("rx_in", opening.syn_ack), ("tx_in", opening.ack)):
                through(rig, {port: rows}, ("tx_out", "rx_out"), rig.stage.do_work)
        _measure(benchmark, relayed, rig, {"rx_in": stream.records}, ("rx_out",))
        counters = rig.counters()
        if stream.label.startswith("tcp"):
            assert counters["rewritten_out"] == 4 * stream.frames
        else:
            assert counters["passed_not_tcp"] == 4 * stream.frames


def bench_compare(benchmark: Any, stream: traffic.Stream, relayed: float) -> None:
    """colo-compare: the same stream on both sides, both counted.  One round: a stream is new only once."""
    ports = ("primary_in", "secondary_in", "outdev")
    inputs = {"primary_in": stream.records, "secondary_in": stream.records.copy()}
    seconds: list[float] = []

    def fresh() -> tuple[tuple[Any, ...], dict[str, Any]]:
        rig = Rig("colo-compare", params("comp0"), ports=ports, ring_size=_RING)
        return (rig,), {}

    def once(rig: Rig) -> None:
        with rig:
            seconds.append(through(rig, inputs, ("outdev",), rig.stage.do_work))
            counters = rig.counters()
            assert counters["released"] == counters["matched"] == stream.frames, counters

    benchmark.pedantic(once, setup=fresh, rounds=4)
    _report(benchmark, relayed, 2 * stream.frames, seconds)
