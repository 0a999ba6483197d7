"""A stage on a bench: its segments, its rings, and hands at the far ends.

The stage runs in this process, one duty cycle at a time, so that a test says exactly what it has seen.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Mapping
from importlib import import_module
from types import TracebackType
from typing import Any, Self

import structlog

import ring
from ring import layout, ledger
from ring.doorbell import Doorbell, Ringer
from stages import catalog
from stages.base import Context, Port, Stage, StageSpec
from stages.kind import Derived, Kind

_serial = itertools.count()


def defaults(kind: Kind, vnet: bool) -> dict[str, Any]:
    """The parameters of a stage whose table says no more than it must, as `stages.kind.Kind.params` gives them."""
    keys = [f for f in dataclasses.fields(kind.config) if not f.metadata["required"]]
    found = {f.name: list(f.default) if isinstance(f.default, tuple) else f.default for f in keys}
    found |= kind.derive(kind.config(), Derived(vnet, False, "/nowhere", 0))
    # A rig writes no files and makes no frames that its test did not ask for.
    quiet = {"divergences": "", "announce_rounds": 0}
    return found | {name: value for name, value in quiet.items() if name in found}


class Rig:
    """Build a stage of ``kind`` with a ring on every port in ``ports`` (default: all).

    ``vnet`` names the ports whose rings carry V.  ``feed`` writes frames into an input, ``run`` turns duty cycles until
    one does no work, ``take`` reads an output.  ``restart`` makes a new incarnation over the same segments.
    """

    def __init__(
        self,
        kind: str,
        params: Mapping[str, Any] | None = None,
        ports: tuple[str, ...] | None = None,
        vnet: tuple[str, ...] = (),
        ring_size: int = 1 << 18,
    ) -> None:
        self.kind = catalog.kind(kind)
        self.prefix = f"rig-{os.getpid()}-{next(_serial)}"
        self.params = {**defaults(self.kind, bool(vnet)), **(params or {})}
        names = self.kind.inputs + self.kind.outputs if ports is None else ports
        self.rings = {name: ring.create(f"{self.prefix}.r.{name}", ring_size, vnet=name in vnet) for name in names}
        self.segment = ledger.StageSegment.create(f"{self.prefix}.s", self.kind.words(self.params))
        self._producers = {n: r.producer("test") for n, r in self.rings.items() if n in self.kind.inputs}
        self._consumers = {n: r.consumer("test") for n, r in self.rings.items() if n in self.kind.outputs}
        self.epoch = 0
        self.bell, self.ringer = Doorbell(), Ringer()
        self.watched: dict[int, tuple[int, Any]] = {}
        self.stage: Stage = self._start()

    def _start(self) -> Stage:
        self.epoch += 1
        self.segment.w[layout.STAGE_EPOCH] = self.epoch
        ports = tuple(Port(n, r.name, n in self.kind.outputs) for n, r in self.rings.items())
        spec = StageSpec("it", self.kind.name, f"{self.prefix}.s", self.epoch, ports, self.params)
        module, _, name = self.kind.shell.partition(":")
        context = Context(structlog.get_logger(), self.bell, self.ringer, self._watch)
        stage: Stage = getattr(import_module(module), name)(spec, context)
        stage.on_start()
        return stage

    def _watch(self, fd: int, events: int, callback: Any) -> None:
        if events:
            self.watched[fd] = (events, callback)
        else:
            self.watched.pop(fd, None)

    def restart(self) -> None:
        """Forget the stage object, as a kill would, and attach a new incarnation."""
        self.stage.detach()
        self.stage = self._start()

    def feed(self, port: str, *frames: bytes, vnet_hdr_len: int = 0) -> None:
        """Write frames into an input ring; they must fit."""
        for frame in frames:
            if not self._producers[port].try_send(frame, vnet_hdr_len):
                raise BufferError(f"ring {port} is full")

    def run(self, now: int | None = None, cycles: int = 1000) -> int:
        """Turn duty cycles until one does no work (at most ``cycles``); the work done.  ``now`` in nanoseconds."""
        total = 0
        for _ in range(cycles):
            work = self.stage.do_work(time.monotonic_ns() if now is None else now) & 0xFFFFFFFF
            total += work
            if not work:
                break
        return total

    def take(self, port: str, most: int = 1 << 30) -> list[bytes]:
        """Everything published in an output ring, or so many frames of it."""
        return self._consumers[port].recv_many(most, timeout=0)

    def counters(self) -> dict[str, int]:
        """Committed counters by name."""
        values = self.segment.counters()
        return {c.name: values[i] for i, c in enumerate(self.kind.all_counters) if c is not None}

    def command(self, word: int, value: int) -> None:
        """Write a command word (layout.CMD_...), as the supervisor would."""
        self.segment.w[word] = value

    def close(self) -> None:
        """Take everything apart and remove it."""
        self.stage.on_close()
        self.stage.detach()
        self.segment.close()
        ring.unlink(f"{self.prefix}.s")
        for r in self.rings.values():
            r.close()
        self.bell.close()
        self.ringer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
