"""What every stage has: attachment to its segments, one kernel call a duty cycle, and seven hooks.

A shell is cold code around kernels: it opens sockets and files, reacts to events and reads options.  `do_work` makes
one compiled call a burst and looks at no packet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

from ring import channel, layout, segment
from ring.doorbell import Doorbell, Ringer
from ring.kernels import ledger
from stages import catalog


@dataclass(frozen=True)
class Port:
    """One ring of a stage: the port's name, the segment, and which end the stage is."""

    name: str
    segment: str
    output: bool


@dataclass(frozen=True)
class StageSpec:
    """What a worker needs to run one stage; it comes from the supervisor as plain data.

    ``params`` are the keys of the stage's table in config.toml, defaults filled in (plus what the graph derived).
    """

    id: str
    kind: str
    segment: str
    epoch: int
    ports: tuple[Port, ...]
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Context:
    """What the runner lends a stage.

    ``watch(fd, events, callback)`` puts a descriptor into the process's one epoll set (events 0 takes it out); the
    callback gets the events.  ``log`` is a bound structlog logger, for state changes only.  ``attach(name)`` opens a
    segment: in a pipeline by the supervisor's descriptor, so that nothing depends on names in /dev/shm.
    """

    log: Any
    bell: Doorbell
    ringer: Ringer
    watch: Callable[[int, int, Callable[[int], None] | None], None]
    attach: Callable[[str], segment.Segment] = segment.Segment.attach


class Stage:
    """One stage in a process.  A kind with a shell of its own subclasses it and overrides hooks.

    The hooks: `extra_bytes`, `options`, `on_start`, `ready`, `do_work`, `on_close`, `went_on`; and, of a stage that
    time alone gives work, ``next_deadline(now)`` (monotonic ns, 0: none): the process that sleeps is awake by then.
    """

    extra = 0

    def __init__(self, spec: StageSpec, context: Context) -> None:
        self.spec, self.context, self.log = spec, context, context.log
        self.kind, self.params = catalog.kind(spec.kind), spec.params
        self.kernel: ModuleType = import_module(self.kind.kernels[0])
        if self.kind.burst:
            self._burst: Callable[..., int] = getattr(self.kernel, self.kind.burst)
        self._segments: list[segment.Segment] = []
        self._attach()

    @property
    def role_name(self) -> str:
        """``filter-mirror m0``: what logs and ring headers show."""
        return f"{self.kind.type} {self.spec.id}"

    def _attach(self) -> None:
        opened = [self.context.attach(name) for name in (self.spec.segment, *(p.segment for p in self.spec.ports))]
        self._segments = opened
        spans = opened[0].nbytes + layout.PAGE
        spans += sum(segment.ring_span(s.nbytes - layout.PAGE) for s in opened[1:])
        extra = self.extra_bytes()
        spans += -(-extra // layout.PAGE) * layout.PAGE
        self.arena = segment.Arena(spans)
        self.u8, self.w = self.arena.u8, self.arena.w
        self.arena.map_plain(opened[0])  # at word 0: indices in the undo log hold for every incarnation
        channel.check_header(self.spec.segment, self.w, opened[0].nbytes, layout.STAGE_MAGIC)
        self.w[layout.INPUTS : layout.OPTIONS + layout.OPTION_WORDS] = 0
        self.w[layout.UNDO_CAPACITY] = self.kind.undo_entries
        self.w[layout.BLOCKED] = 0
        self.rings: dict[str, int] = {}
        for port, opened_ring in zip(self.spec.ports, opened[1:], strict=True):
            at = self.arena.map_ring(opened_ring)
            channel.check_header(port.segment, self.w[at:], opened_ring.nbytes, layout.RING_MAGIC)
            self.rings[port.name] = at
            if port.output:
                self.w[layout.OUTPUTS + self.kind.outputs.index(port.name)] = at
            else:
                self.w[layout.INPUTS + self.kind.inputs.index(port.name)] = at
            self._take_end(at, output=port.output)
        if extra:
            self.extra = self._map_extra(extra)
        for i, value in self.options().items():
            self.w[i] = value
        undone = ledger.recover(self.u8, self.w, 0)
        if undone:
            self.log.info("rolled back an unfinished burst", words=undone)

    def _take_end(self, at: int, *, output: bool) -> None:
        pid, asleep = (layout.P_PID, layout.P_ASLEEP) if output else (layout.C_PID, layout.C_ASLEEP)
        self.context.bell.announce(self.w[at:], asleep)
        self.w[at + pid + 1] = segment.process_start(os.getpid())
        self.w[at + pid] = os.getpid()

    def _map_extra(self, nbytes: int) -> int:
        # A memfd and not /dev/shm: nobody else sees it, it ends with the process, and no mount limits its size.
        private = segment.Segment("private", os.memfd_create("colo-private"), nbytes)
        os.ftruncate(private.fd, nbytes)
        self._segments.append(private)
        return self.arena.map_plain(private)

    def extra_bytes(self) -> int:
        """Bytes of private memory (zeros at each start) that the kernels reach; its first word is ``self.extra``."""
        return 0

    def options(self) -> dict[int, int]:
        """Words of the parameter area (layout.OPTIONS and up) that the kernels read, from ``self.params``."""
        return dict(self.kind.options(self.params))

    def on_start(self) -> None:
        """Open what the stage needs outside its rings; raise to fail the start."""

    def ready(self) -> bool:
        """Whether the stage is attached *and* connected, as far as its config asks for that."""
        return True

    def do_work(self, now: int) -> int:
        """One duty cycle: the kind's burst; the kernel's ``work | bells << 32``."""
        return int(self._burst(self.u8, self.w, now))

    def went_on(self, now: int, after: int) -> None:
        """The process has not run for ``after`` ns: it, or all of the machine, was stopped or had no processor."""

    def on_close(self) -> None:
        """Flush and close what `on_start` opened."""

    def ring_bells(self, bells: int) -> None:
        """Wake the neighbours whose bits are set (see `ring.kernels.ledger.publish`)."""
        w = self.w
        for i in range(layout.PORTS):
            if bells >> i & 1:
                at = int(w[layout.OUTPUTS + i])
                self.context.ringer.ring(
                    int(w[at + layout.C_PID]), int(w[at + layout.C_BELL_FD]), int(w[at + layout.C_BELL_INO])
                )
            if bells >> i & 256:
                at = int(w[layout.INPUTS + i])
                self.context.ringer.ring(
                    int(w[at + layout.P_PID]), int(w[at + layout.P_BELL_FD]), int(w[at + layout.P_BELL_INO])
                )

    def counter(self, index: int) -> int:
        """Committed value of a counter."""
        return int(self.w[layout.true_row(self.w) + layout.ROW_COUNTERS + index])

    def scalar(self, index: int) -> int:
        """Committed value of a scalar."""
        return int(self.w[layout.true_row(self.w) + layout.ROW_SCALARS + index])

    def detach(self) -> None:
        """Leave all segments."""
        for seg in self._segments:
            seg.close()
        del self.u8, self.w
        self.arena.close()
