"""The loop of a stage process: duty cycles, heartbeat, commands, idling.

One process runs one stage or several in turn.  A duty cycle makes one compiled call a stage and nothing else; what is
not urgent (heartbeat, commands) is done in *chores*, once a millisecond and before each sleep.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from pipeline.idle import Idle
from ring import layout
from ring.doorbell import Doorbell
from ring.kernels import ledger

NAP_NS: Final = 10_000_000  # the longest sleep: a lost ring is a delay of that much at most
STOPPED_NS: Final = 100_000_000  # between two duty cycles: the process was stopped, or had no processor
CHORES_NS: Final = 1_000_000
POLL_NS: Final = 50_000  # how long a busy process may leave its descriptors unwatched

LEFT, SUPERSEDED = range(2)


class Watch:
    """The process's one epoll set; ``watch`` is what a stage gets in its context."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}

    def watch(self, fd: int, events: int, callback: Callable[[int], None] | None) -> None:
        """Call ``callback(events)`` when ``fd`` has any of ``events``; 0 takes it out, also if it was closed before."""
        if not events:
            if self._callbacks.pop(fd, None) is not None:
                with contextlib.suppress(OSError, ValueError):
                    self._epoll.unregister(fd)
            return
        if callback is None:
            raise ValueError(f"descriptor {fd}: events without a callback")
        known = fd in self._callbacks
        self._callbacks[fd] = callback
        try:
            (self._epoll.modify if known else self._epoll.register)(fd, events)
        except FileNotFoundError:
            self._epoll.register(fd, events)  # closed and opened again under the same number
        except FileExistsError:
            self._epoll.modify(fd, events)

    def poll(self, seconds: float) -> int:
        """Wait at most that long and call back; how many descriptors had something."""
        events = self._epoll.poll(seconds)
        for fd, flags in events:
            callback = self._callbacks.get(fd)
            if callback is not None:  # else: an earlier callback of this round took it out
                callback(flags)
        return len(events)

    def close(self) -> None:
        """Close the epoll set."""
        self._epoll.close()


class Runner:
    """Runs ``stages`` until each was told to stop.  ``tell`` wakes the supervisor: something it waits for changed."""

    def __init__(
        self,
        stages: Sequence[Any],
        idle: Idle,
        watch: Watch,
        bell: Doorbell,
        *,
        tell: Callable[[], object] = lambda: None,
    ) -> None:
        self.stages, self.idle, self._watch, self._bell = list(stages), idle, watch, bell
        self._tell = tell
        # A memoryview of words: a third of the price of indexing the array from Python.
        self._words = [stage.arena.bytes.cast("q") for stage in self.stages]
        self._pairs = list(zip(self.stages, self._words, strict=True))
        self._deadlines = [stage.next_deadline for stage in self.stages if hasattr(stage, "next_deadline")]
        self._ready = [False] * len(self.stages)
        self._finished = [0] * len(self.stages)
        watch.watch(bell.fd, select.EPOLLIN, self._hear)

    def _hear(self, _events: int) -> None:
        self._bell.drain()

    def run(self) -> int:
        """Turn duty cycles; LEFT when all stages were told to stop, SUPERSEDED when a newer incarnation exists."""
        idle, clock = 0, time.monotonic_ns
        spins, yields = self.idle
        chores_at = poll_at = 0
        now = clock()
        for stage, words in self._pairs:  # the time since another incarnation of it died
            if (beat := words[layout.LIFE_HEARTBEAT]) and now - beat > STOPPED_NS:
                stage.went_on(now, now - beat)
        while True:
            before, now = now, clock()
            if now - before > STOPPED_NS:
                for stage in self.stages:
                    stage.went_on(now, now - before)
            idle = 0 if self.cycle(now) else idle + 1
            if idle > spins and idle > yields:
                # Chores before each sleep, not after it: a frame that wakes us does not wait for them.
                why = self.chores(now)
                if why is not None:
                    return why
                if self.doze(now):
                    idle = 0
                chores_at = now + CHORES_NS
                continue
            if idle > spins:
                os.sched_yield()
            elif now >= poll_at:
                poll_at = now + POLL_NS
                self._watch.poll(0)
            if now >= chores_at:
                chores_at = now + CHORES_NS
                why = self.chores(now)
                if why is not None:
                    return why

    def cycle(self, now: int) -> int:
        """One duty cycle of each stage; the work done."""
        total = 0
        for stage, words in self._pairs:
            result = stage.do_work(now)
            if result >> 32:
                stage.ring_bells(result >> 32)
            work = result & 0xFFFFFFFF
            if work:
                total += work
                then, now = now, time.monotonic_ns()
                words[layout.LIFE_BUSY_NS] += now - then
                words[layout.LIFE_CYCLES] += 1
        return total

    def doze(self, now: int) -> int:
        """Sleep until something may have changed: the doorbell, a descriptor, a deadline, 10 ms.

        Returns the work of the last look, which replaced the sleep if there was any.
        """
        for stage in self.stages:
            ledger.doze(stage.u8, stage.w, 0)
        # The last look: who published before it saw `asleep` did not ring.
        work = self.cycle(now)
        if not work:
            wait = NAP_NS
            for deadline in self._deadlines:
                at = deadline(now)
                if at:
                    wait = min(wait, max(at - now, 0))
            for words in self._words:
                words[layout.LIFE_SLEEPS] += 1
            self._watch.poll(wait / 1e9)
        for stage in self.stages:
            ledger.wake(stage.u8, stage.w, 0)
        return work

    def chores(self, now: int) -> int | None:
        """Heartbeat, readiness, commands; why it is time to leave, None while it is not."""
        asked = 0
        for i, (stage, words) in enumerate(self._pairs):
            epoch = stage.spec.epoch
            words[layout.LIFE_HEARTBEAT] = now
            if words[layout.STAGE_EPOCH] != epoch:
                return SUPERSEDED
            if not self._ready[i] and stage.ready():
                self._ready[i] = True
                words[layout.LIFE_READY] = epoch
                self._tell()
            if words[layout.LIFE_FINISHED] != self._finished[i]:
                self._finished[i] = words[layout.LIFE_FINISHED]
                self._tell()
            asked += words[layout.CMD_STOP] == epoch
        return LEFT if asked == len(self.stages) else None

    def close(self) -> None:
        """Flush and close every stage, and let go of the memory."""
        for stage in self.stages:
            stage.on_close()
        self._pairs.clear()
        for words in self._words:
            words.release()
        self._words.clear()
