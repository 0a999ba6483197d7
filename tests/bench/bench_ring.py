"""The ring between two processes against multiprocessing.Queue and Pipe, and a C++ queue between two threads.

All in one run: only the ratios count.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ring
from ring import hot, layout
from tests.bench.kernels import rings

_MESSAGE = b"x" * 64
_fork = multiprocessing.get_context("fork")


def _pair() -> tuple[int, int]:
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[0], cpus[-1]


def _in_child(work: Callable[[], None]) -> int:
    """Fork a process that does ``work`` and leaves; its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def _join(pid: int) -> None:
    assert os.waitpid(pid, 0)[1] == 0, "the producing process failed"


@pytest.fixture
def pinned() -> Iterator[tuple[int, int]]:
    """This process (the consumer) on the last core, the producer to be pinned to the first."""
    before, pair = os.sched_getaffinity(0), _pair()
    os.sched_setaffinity(0, {pair[1]})
    yield pair
    os.sched_setaffinity(0, before)


def _spin(step: Callable[[], int], goal: int) -> None:
    done = idle = 0
    while done < goal:
        n = step()
        done += n
        idle = 0 if n else idle + 1
        if idle > 100:  # one core for both, or the other is not there yet
            os.sched_yield()


def ring_rate(payload: int, burst: int, records: int, cpus: tuple[int, int]) -> float:
    """Records a second from one process to another; each is copied in, copied out and checked."""
    hot.warm()  # before the fork: both sides find compiled code
    with ring.create(f"bench-{os.getpid()}", "1MiB") as made:
        u8, w = made.u8, made.w
        w[rings.PAYLOAD], w[rings.BURST], w[rings.LEFT] = payload, burst, records

        def producer() -> None:
            os.sched_setaffinity(0, {cpus[0]})
            _spin(lambda: rings.produce(u8, w, 0), records)

        child = _in_child(producer)
        while w[layout.TAIL] == 0:
            os.sched_yield()
        began = time.perf_counter()
        _spin(lambda: rings.consume(u8, w, 0), records)
        took = time.perf_counter() - began
        _join(child)
        assert w[rings.TAKEN] == records
        assert w[rings.WRONG] == 0
        return records / took


def queue_rate(messages: int, cpus: tuple[int, int]) -> float:
    """Messages a second through multiprocessing.Queue."""
    queue: Any = _fork.Queue()

    def producer() -> None:
        os.sched_setaffinity(0, {cpus[0]})
        for _ in range(messages):
            queue.put(_MESSAGE)
        queue.close()
        queue.join_thread()

    return _count(producer, queue.get, messages)


def pipe_rate(messages: int, cpus: tuple[int, int]) -> float:
    """Messages a second through multiprocessing.Pipe."""
    reader, writer = _fork.Pipe(duplex=False)

    def producer() -> None:
        os.sched_setaffinity(0, {cpus[0]})
        for _ in range(messages):
            writer.send_bytes(_MESSAGE)

    try:
        return _count(producer, reader.recv_bytes, messages)
    finally:
        reader.close()
        writer.close()


def _count(producer: Callable[[], None], take: Callable[[], bytes], messages: int) -> float:
    child = _in_child(producer)
    first = take()
    began = time.perf_counter()
    for _ in range(messages - 1):
        take()
    took = time.perf_counter() - began
    _join(child)
    assert first == _MESSAGE
    return (messages - 1) / took


def cpp_rate(folder: Path, messages: int, cpus: tuple[int, int]) -> float | None:
    """Messages a second through the C++ queue of spsc.cpp between two threads; None without a compiler."""
    if shutil.which("g++") is None:
        return None
    program = folder / "spsc"
    if not program.exists():
        source = Path(__file__).with_name("spsc.cpp")
        subprocess.run(["g++", "-O3", "-march=native", "-pthread", str(source), "-o", str(program)], check=True)
    os.sched_setaffinity(0, set(cpus))  # the fixture pinned us; the program pins its threads itself
    command = [str(program), str(messages), *map(str, cpus if cpus[0] != cpus[1] else ())]
    rate = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    os.sched_setaffinity(0, {cpus[1]})
    return rate


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The peers' rates, each the best of three, measured once in this run."""
    before, cpus = os.sched_getaffinity(0), _pair()
    os.sched_setaffinity(0, {cpus[1]})
    folder = tmp_path_factory.mktemp("spsc")
    rates = {
        "multiprocessing.Queue": max(queue_rate(30_000, cpus) for _ in range(3)),
        "multiprocessing.Pipe": max(pipe_rate(100_000, cpus) for _ in range(3)),
    }
    compiled = [cpp_rate(folder, 10_000_000, cpus) for _ in range(3)]
    rates |= {"C++ queue, two threads": max(rate for rate in compiled if rate)} if compiled[0] else {}
    os.sched_setaffinity(0, before)
    return rates


_RECORDS = {16: 16_000_000, 64: 8_000_000, 1500: 1_000_000}


@pytest.mark.parametrize(("payload", "burst"), [(64, 64), (64, 256), (16, 256), (1500, 64)])
def bench_ring(benchmark: Any, peers: dict[str, float], pinned: tuple[int, int], payload: int, burst: int) -> None:
    """Frames of a size in bursts; 64 bytes is what the peers carry."""
    records = _RECORDS[payload]
    rates: list[float] = []
    benchmark.pedantic(lambda: rates.append(ring_rate(payload, burst, records, pinned)), rounds=5, warmup_rounds=1)
    rate = max(rates[1:])
    benchmark.extra_info["figures"] = {"frames/s": rate, "MB/s": rate * payload / 1e6}
    if payload == 64:
        benchmark.extra_info["peers"] = peers
        benchmark.extra_info["ratios"] = {f"over {name}": rate / other for name, other in peers.items()}
