"""The same frames to QEMU's filter and to ours, and what comes out of each, step by step.

`Theirs` is a filter of Debian's QEMU between the stream netdevs ``net`` and ``guest``; `Ours` is a stage on a `Rig`.
Both have the inputs ``net``, ``guest``, ``indev`` and the outputs ``guest``, ``net``, ``outdev``.  `Both` feeds a frame
to each and compares every output, byte for byte and in order.

That nothing more comes is never found out by waiting.  QEMU works on one thread and takes an input in order, so behind
each step goes a barrier, a frame of a kind that every filter passes on: once it is seen at any output, all that the
step made has been written.
"""

from __future__ import annotations

import itertools
import select
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest

from ring import layout
from tests.packets import ether
from tests.rig import Rig
from tools import qemu

needs_qemu = pytest.mark.skipif(not qemu.available(), reason=f"needs Debian's package {qemu.PACKAGE}")

Outputs = dict[str, list[bytes]]
_PATIENCE_S: Final = 120.0
_KIND: Final = 0x88B6  # IEEE 802: local experimental
_TURNS: Final = 3
_INPUTS: Final = {"net": "tx_in", "guest": "rx_in", "indev": "indev"}
_OUTPUTS: Final = {"tx_out": "guest", "rx_out": "net", "outdev": "outdev"}
_marks = itertools.count(1)


class Tally:
    """What was fed to QEMU in this run; as a plugin it says so at the end."""

    def __init__(self) -> None:
        self.scenarios = self.frames = 0
        self.rows: dict[str, int] = {}

    def note(self, row: str, frames: int = 1) -> None:
        """Frames in whose output QEMU and ours differ on purpose."""
        self.rows[row] = self.rows.get(row, 0) + frames

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """One line, and one for the rows of behaviour.md in which QEMU's output was another one."""
        if self.frames:
            terminalreporter.write_line(
                f"interop filters: {self.scenarios} scenarios, {self.frames:,} frames against QEMU {qemu.version()}"
            )
        for row, count in sorted(self.rows.items()):
            terminalreporter.write_line(f"  {count:6,} frames where QEMU's output is another: {row}")


TALLY = Tally()


@pytest.fixture(autouse=True)
def scenario(request: pytest.FixtureRequest) -> None:
    """Count a test, and have the sum said at the end of the run."""
    TALLY.scenarios += 1
    manager = request.config.pluginmanager
    if not manager.is_registered(TALLY):
        manager.register(TALLY, "interop-filters")


def barrier() -> bytes:
    """A frame like no other that is neither IP nor VLAN."""
    return ether(b"barrier %012d" % next(_marks), _KIND, pad=True)


def is_barrier(frame: bytes) -> bool:
    """Whether `barrier` made it."""
    return frame[12:14] == _KIND.to_bytes(2, "big") and frame[14:22] == b"barrier "


def marked(way: str, number: int, size: int = 60) -> bytes:
    """A frame that says where it came in; neither IP nor VLAN."""
    return ether(b"%-6s%08d" % (way.encode(), number), 0x88B5).ljust(size, b".")


def plain(outputs: Mapping[str, Iterable[bytes]]) -> Outputs:
    """The outputs that are not empty, without barriers."""
    clean = {name: [f for f in frames if not is_barrier(f)] for name, frames in outputs.items()}
    return {name: frames for name, frames in clean.items() if frames}


def patient(link: qemu.Link) -> qemu.Link:
    """The link, with an end to a write that nobody reads."""
    link.sock.settimeout(_PATIENCE_S)
    return link


class Theirs:
    """QEMU with filters; chardevs are named as their port: ``indev``, ``outdev``."""

    def __init__(self, objects: Sequence[str], chardevs: Sequence[str] = (), vnet: bool = False) -> None:
        self.vnet = vnet
        self.q = qemu.filters(objects, chardevs, chardevs if vnet else ())
        self.links = self.q.links
        for link in self.links.values():
            patient(link)

    def step(self, port: str, *frames: bytes, v: int = 0) -> Outputs:
        """Feed frames; everything that comes out because of them."""
        mark = barrier()
        self.links[port].send(*frames, vnet_hdr_len=v)
        self.links[port].send(mark)
        got: Outputs = {name: [] for name in self.links}
        deadline = time.monotonic() + _PATIENCE_S
        while not any(mark in many for many in got.values()):
            assert time.monotonic() < deadline, f"nothing passes from {port}; QEMU said: {self.q.said()}"
            self.q.check()
            self._read(got, 1.0)
        self._read(got, 0)
        TALLY.frames += len(frames)
        return plain(got)

    def silent(self, port: str, *frames: bytes, v: int = 0) -> Outputs:
        """Feed frames from which no barrier would come out either; see `turned`."""
        self.links[port].send(*frames, vnet_hdr_len=v)
        TALLY.frames += len(frames)
        return self.turned()

    def turned(self) -> Outputs:
        """What has come out once QEMU has looked at everything that was sent before.

        Its main loop answers the monitor and reads the links.  An answer may be of the turn that was under way when
        we sent; the next but one cannot be.
        """
        for _ in range(_TURNS):
            self.q.qmp.run("query-status")
        got: Outputs = {name: [] for name in self.links}
        self._read(got, 0)
        return plain(got)

    def _read(self, got: Outputs, wait: float) -> None:
        """Read every link as far as there is something; wait for the first."""
        select.select([link.sock for link in self.links.values()], [], [], wait)
        for name, link in self.links.items():
            got[name] += link.take(quiet=1e-9)

    def status(self, on: bool, name: str = "f0") -> None:
        """Switch a filter; it is switched when this returns."""
        self.q.qmp.run("qom-set", path=f"/objects/{name}", property="status", value="on" if on else "off")

    def drop(self, port: str) -> None:
        """The peer of a chardev leaves; returns when QEMU has noticed."""
        self.links.pop(port).close()
        self._until(port, "disconnected")

    def join(self, port: str) -> None:
        """A peer comes to a chardev; returns when QEMU has accepted it."""
        self.links[port] = patient(qemu.connect(port, Path(self.q._folder.name) / port, vnet=self.vnet))
        self._until(port, "unix")

    def _until(self, port: str, start: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not self._chardev(port).startswith(start):
            assert time.monotonic() < deadline, f"{port}: {self._chardev(port)}"

    def _chardev(self, port: str) -> str:
        return next(str(c["filename"]) for c in self.q.qmp.run("query-chardev") if c["label"] == port)

    def close(self) -> None:
        """End QEMU; it must be alive until here."""
        try:
            self.q.check()
        finally:
            self.q.close()


class Ours:
    """A filter of ours on a `Rig`; ``queue`` wires it into tx, rx or both, as pipeline.graph does."""

    def __init__(
        self, kind: str, queue: str = "all", chardevs: Sequence[str] = (), vnet: bool = False,
        params: Mapping[str, Any] | None = None, ring_size: int = 1 << 20,
    ) -> None:  # fmt: skip
        ways = ("tx", "rx") if queue == "all" else (queue,)
        ports = tuple(f"{way}_{end}" for way in ways for end in ("in", "out")) + tuple(chardevs)
        self.rig = Rig(kind, params, ports, tuple(chardevs) if vnet else (), ring_size)
        self.ports = ports
        self.now = 1

    def step(self, port: str, *frames: bytes, v: int = 0) -> Outputs:
        """Feed frames one at a time; everything that comes out because of them."""
        got: Outputs = {name: [] for name in _OUTPUTS.values()}
        if _INPUTS[port] not in self.ports:  # not wired: the chain goes past the filter
            got["guest" if port == "net" else "net"] += frames
            return plain(got)
        for frame in frames:
            self.rig.feed(_INPUTS[port], frame, vnet_hdr_len=v)
            self.turned(got)
        return plain(got)

    def turned(self, got: Outputs | None = None) -> Outputs:
        """Run until there is nothing to do; what came out."""
        got = {name: [] for name in _OUTPUTS.values()} if got is None else got
        self.now += 1_000_000  # of a clock of its own: which connection is silent longest depends on it
        self.rig.run(now=self.now)
        for own, name in _OUTPUTS.items():
            if own in self.ports:
                got[name] += self.rig.take(own)
        return plain(got)

    def status(self, on: bool) -> None:
        """Switch the filter."""
        self.rig.command(layout.CMD_STATUS, int(on))

    def drop(self, port: str) -> None:
        """The peer behind outdev leaves."""
        self._link(port, up=False)

    def join(self, port: str) -> None:
        """A peer comes to outdev."""
        self._link(port, up=True)

    def _link(self, port: str, *, up: bool) -> None:
        word = layout.C_LINK if port == "outdev" else layout.P_LINK
        words = self.rig.rings[port].w
        words[word] += (int(words[word]) & 1) != up

    def close(self) -> None:
        """Its laws of counters hold, and it goes."""
        counters = self.rig.counters()
        try:
            for law in self.rig.kind.balances:
                assert sum(counters[n] for n in law.left) == sum(counters[n] for n in law.right), law.label
        finally:
            self.rig.close()


class Both:
    """QEMU's filter and ours."""

    def __init__(self, theirs: Theirs, ours: Ours) -> None:
        self.theirs, self.ours = theirs, ours

    def step(self, port: str, *frames: bytes, v: int = 0) -> Outputs:
        """The same frames to both; the outputs, which have to be the same."""
        ours, theirs = self.ours.step(port, *frames, v=v), self.theirs.step(port, *frames, v=v)
        assert ours == theirs
        return ours

    def apart(self, port: str, *frames: bytes, v: int = 0) -> tuple[Outputs, Outputs]:
        """The same frames to both; QEMU's outputs and ours."""
        return self.theirs.step(port, *frames, v=v), self.ours.step(port, *frames, v=v)

    def status(self, on: bool) -> None:
        """Switch both."""
        self.theirs.status(on)
        self.ours.status(on)

    def drop(self, port: str) -> None:
        """The peer of a chardev leaves both."""
        self.theirs.drop(port)
        self.ours.drop(port)

    def join(self, port: str) -> None:
        """A peer comes to both."""
        self.theirs.join(port)
        self.ours.join(port)

    def close(self) -> None:
        """End both."""
        try:
            self.ours.close()
        finally:
            self.theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def both(kind: str, queue: str = "all", chardevs: Sequence[str] = (), *, vnet: bool = False) -> Both:
    """A filter of QEMU's, ``f0``, and the same of ours."""
    ports = "".join(f",{port}={port}" for port in chardevs)
    theirs = Theirs([f"{kind},id=f0,queue={queue}{ports}{',vnet_hdr_support=on' * vnet}"], chardevs, vnet)
    try:
        return Both(theirs, Ours(kind, queue, chardevs, vnet))
    except BaseException:
        theirs.close()
        raise


# --- at full speed ----------------------------------------------------------------------------------------------
@contextmanager
def sending(links: Mapping[str, qemu.Link], frames: Mapping[str, Sequence[bytes]], v: int = 0) -> Iterator[None]:
    """While the block runs, all inputs are written at once, each by a thread that blocks where its peer does."""

    def write(link: qemu.Link, many: Sequence[bytes]) -> None:
        for at in range(0, len(many), 64):
            link.send(*many[at : at + 64], vnet_hdr_len=v)

    TALLY.frames += sum(map(len, frames.values()))
    threads = [threading.Thread(target=write, args=(links[name], many), daemon=True) for name, many in frames.items()]
    for thread in threads:
        thread.start()
    yield  # after a failure in the block nobody waits for them: their sockets are about to be closed
    for thread in threads:
        thread.join(_PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads), "an input is not read any more"


def receive(links: Mapping[str, qemu.Link], counts: Mapping[str, int]) -> Outputs:
    """Read so many frames of each link, whatever the order in which links get theirs."""
    got: Outputs = {name: [] for name in counts}
    deadline = time.monotonic() + _PATIENCE_S
    while short := [name for name, count in counts.items() if len(got[name]) < count]:
        assert time.monotonic() < deadline, {name: (len(got[name]), counts[name]) for name in short}
        select.select([links[name].sock for name in short], [], [], 1.0)
        for name in short:
            got[name] += links[name].take(quiet=1e-9)
    return got


def by_origin(frames: Iterable[bytes]) -> Outputs:
    """`marked` frames by the input they came in at: the order between two inputs is nobody's promise."""
    found: Outputs = {}
    for frame in frames:
        found.setdefault(frame[14:20].decode().strip(), []).append(frame)
    return found
