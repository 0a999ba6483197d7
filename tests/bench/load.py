"""Load through a compare's sockets: a writer thread for each input, a reader for the output, big sends and receives.

The threads spend their time in system calls without the interpreter's lock, and nothing is looked at before the clock
has stopped, so that the generator is not what is measured.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import psutil

from tests.bench.traffic import Stream, Verdict, judge
from tools.qemu import Link

_CHUNK: Final = 1 << 20
_STALL_S: Final = 3.0  # this long without a byte: the rest will not come


@dataclass(frozen=True)
class Flow:
    """One run: packets a second and CPU a packet over what came out, and what the output looked like."""

    label: str
    seconds: float
    frames: int
    cpu_s: float
    verdict: Verdict
    notified: int

    @property
    def kpps(self) -> float:
        """Thousand frames released a second."""
        return self.frames / self.seconds / 1000 if self.frames else 0.0

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of the peer's processes for each frame released."""
        return self.cpu_s / self.frames * 1e6 if self.frames else float("inf")

    def __str__(self) -> str:
        v = self.verdict
        order = "byte-exact" if v.exact else "flows in order" if v.flows_in_order else "reordered within a flow"
        lost = f", {v.lost:,} frames lost" if v.lost else ""
        return (
            f"{self.kpps:8,.0f} kpps {self.cpu_us:6.2f} µs CPU a packet  ({order}{lost}, {self.notified} notify frames)"
        )


@dataclass(frozen=True)
class Latency:
    """One packet at a time, both sides written, the output read: microseconds."""

    p50: float
    p99: float


def cpu_seconds(pid: int) -> float:
    """User and system time so far of a process and all its descendants."""
    total = 0.0
    top = psutil.Process(pid)
    for process in (top, *top.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _write(sock: socket.socket, data: memoryview, start: threading.Event) -> None:
    start.wait()
    try:
        for at in range(0, len(data), _CHUNK):
            sock.sendall(data[at : at + _CHUNK])
    except OSError:
        return  # shut down after a stall: the reader reports what is missing


def push(links: Mapping[str, Link], stream: Stream, pid: int) -> Flow:
    """Send the same stream into both inputs and read the output until all is there or nothing comes any more."""
    out = np.zeros(len(stream.data) + _CHUNK, np.uint8)
    view, start = out.data, threading.Event()
    writers = [
        threading.Thread(target=_write, args=(links[name].sock, stream.data, start), daemon=True)
        for name in ("primary_in", "secondary_in")
    ]
    for thread in writers:
        thread.start()
    sink = links["outdev"].sock
    got, want = 0, len(stream.data)
    sink.settimeout(_STALL_S)
    cpu = cpu_seconds(pid)
    began = last = time.perf_counter()
    start.set()
    while got < want:
        try:
            n = sink.recv_into(view[got:], _CHUNK)
        except TimeoutError:
            break
        if n == 0:
            break
        got, last = got + n, time.perf_counter()
    cpu = cpu_seconds(pid) - cpu
    sink.settimeout(None)
    for thread in writers:
        thread.join(0.2)
    verdict = judge(stream, out[:got])
    notified = len(links["notify"].take(quiet=0.05)) if "notify" in links else 0
    return Flow(stream.label, last - began, got // stream.record_bytes, cpu, verdict, notified)


def ping(links: Mapping[str, Link], stream: Stream) -> Latency:
    """Latency of ``stream``'s frames sent one at a time.  Raises `TimeoutError` where one does not come out."""
    primary, secondary, sink = (links[name].sock for name in ("primary_in", "secondary_in", "outdev"))
    size, took = stream.record_bytes, []
    buffer = bytearray(size)
    for row in stream.records:
        record = row.tobytes()
        began = time.perf_counter_ns()
        primary.sendall(record)
        secondary.sendall(record)
        _read_exactly(sink, buffer)
        took.append(time.perf_counter_ns() - began)
        if buffer != record:
            raise ValueError(f"{stream.label}: another frame came out than went in")
    return Latency(float(np.percentile(took, 50)) / 1000, float(np.percentile(took, 99)) / 1000)


def lateness(links: Mapping[str, Link], stream: Stream, timeout_ms: int) -> list[float]:
    """Milliseconds past ``timeout_ms`` at which a checkpoint is asked for, for each frame that only one side sent.

    Each request is answered, and the frame that it lets go is waited for, before the next frame is sent.
    """
    late = []
    for row in stream.records:
        began = time.perf_counter()
        links["primary_in"].sock.sendall(row.tobytes())
        if links["notify"].take(1, timeout=_STALL_S + timeout_ms / 1000) != [b"DO_CHECKPOINT"]:
            raise TimeoutError(f"{stream.label}: no checkpoint was asked for")
        late.append((time.perf_counter() - began) * 1000 - timeout_ms)
        links["notify"].send(b"COLO_CHECKPOINT")
        if len(links["outdev"].take(1, timeout=_STALL_S)) != 1:
            raise TimeoutError(f"{stream.label}: the checkpoint did not let the frame go")
    return late


def _read_exactly(sock: socket.socket, buffer: bytearray) -> None:
    view, got = memoryview(buffer), 0
    while got < len(buffer):
        if not select.select([sock], [], [], _STALL_S)[0]:
            raise TimeoutError(f"{len(buffer) - got} of {len(buffer)} bytes did not come out in {_STALL_S:g} s")
        n = sock.recv_into(view[got:])
        if n == 0:
            raise ConnectionError("the output was closed")
        got += n


_ARP: Final = bytes.fromhex("ffffffffffff525400000001") + b"\x08\x06" + bytes(46)


def wait_through(links: Mapping[str, Link], check: Callable[[], Any], timeout: float = 30.0) -> None:
    """Send a frame that is never compared until it comes out: everything behind the sockets is connected.

    ``check`` is called between tries and raises where waiting is in vain.  Raises `TimeoutError`.
    """
    deadline = time.monotonic() + timeout
    while True:
        for name in ("primary_in", "secondary_in"):
            links[name].send(_ARP)
        if links["outdev"].take(1, timeout=0.2):
            break
        check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"no frame came through in {timeout:g} s")
    links["outdev"].take(quiet=0.3)
