"""The supervisor: ``python -m pipeline.supervisor config.toml``.

One thread, one selector; another thread writes log lines (`pipeline.lines`).  It has the fork server make the stage
processes, restarts what dies or hangs, and takes everything down in order.  It never imports Numba, touches no frame.

    STARTING ──► RUNNING ──► DRAINING ──► STOPPING ──► STOPPED      signal, `stop`, or the end of finite input
        └───────────┴────────────┴──────► STOPPING ──► FAILED       a stage was given up
"""

from __future__ import annotations

from pipeline import signals

if __name__ == "__main__":
    signals.caught()  # the imports below take a while

import contextlib
import os
import selectors
import signal
import socket
import time
from collections.abc import Collection
from typing import Any, Final

from pipeline import annexes, children, control_server, forkserver, handlers, messages, segments, spawner, status
from pipeline.children import Ask, ChildSpec, Family, GiveUp, Kill, Policy, Spawn, State
from pipeline.end_of_run import LOOK_NS, EndOfRun
from pipeline.graph import Graph
from pipeline.lines import Lines
from pipeline.shm_names import Names
from ring import layout
from ring.doorbell import Doorbell, Ringer

TICK_NS: Final = 100_000_000
CLOCK_LEAD_NS: Final = 50_000_000
ORPHANS_NS: Final = 1_000_000_000
_MS: Final = 1_000_000


class Supervisor:
    """A running pipeline over segments that are open already; `pipeline.launch` makes it."""

    def __init__(
        self, graph: Graph, opened: segments.Segments, hello: dict[str, Any], logger: Any, lines: Lines
    ) -> None:
        self.graph, self.segments, self.log, self.lines = graph, opened, logger, lines
        self.name = graph.config.pipeline.name
        self.state = "STARTING"
        self.failure = ""
        self.ran = False  # whether all stages were ready at some time, or a frame was moved
        self.ended = ""  # why, where nothing went wrong
        self.unbalanced = 0  # equations of the account at the end that do not hold
        self.undelivered: dict[str, int] = {}
        self._waited: list[str] = []
        self.selector = selectors.DefaultSelector()
        self.processes = graph.processes
        specs = [ChildSpec(name, tuple(s.id for s in stages)) for name, stages in self.processes.items()]
        self.family = Family(specs, Policy.of(graph.config.supervisor))
        self.looker = status.Looker(self.name, graph, opened, self.family.children)
        self.started = time.monotonic_ns()
        self._bell = Doorbell()
        self._reasons, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._reasons.setblocking(False)
        self._theirs = theirs
        self.last_words: dict[int, str] = {}
        self._pidfds: dict[str, int] = {}
        self._hello = hello
        self._forks: list[int] = []
        self._end = EndOfRun(graph, opened)
        self._names = Names(opened.kept, logger)
        self.annexes = annexes.live(graph, opened, logger)
        self._deadline = self._orphans_at = 0
        self._stop_order: list[str] = []
        self._ends = _ends(graph)
        self.view: Any = None
        self.control: control_server.Server | None = None

    # --- the loop -------------------------------------------------------------------------------------------------
    def run(self, control_socket: str) -> int:
        """Run to the end; the exit status.  Raises OSError where the control socket cannot be made."""
        self._wire(control_socket)
        try:
            now = time.monotonic_ns()
            self._start_forkserver()
            self.act(self.family.start_all(now))
            while self.state not in ("STOPPED", "FAILED"):
                for key, mask in self.selector.select(self._timeout()):
                    key.data(mask)
                self.step(time.monotonic_ns())
        finally:
            self._unwire()
        self.ran = self.ran or any(any(stage.counters()) for stage in self.segments.stages.values())
        if self.failure or self.undelivered:
            self.undelivered = self._left() or self.undelivered
            return 1
        return 0 if self.ran or self.called_off else 1

    @property
    def called_off(self) -> bool:
        """Whether it was asked to stop before every stage was ready, and had no input of its own to get through.

        For a service manager that is a stop like any other; whoever has a capture replayed must not take it for done.
        """
        return not self.ran and bool(self.ended) and not self.graph.finite

    def step(self, now: int) -> None:
        """One turn: what became ready, what is due, what follows for the pipeline as a whole."""
        for child in self.family.children.values():
            if child.state is State.STARTING and child.pid and self._is_ready(child.spec):
                self.family.ready(child.spec.id, now)
                took = round((now - child.started_ns) / 1e6, 1)
                shown = {"stage": child.spec.id, "pid": child.pid, "restarts": child.restarts, "took_ms": took}
                if child.starts > 1:
                    self.log.info("ready again", **shown)
                else:
                    self.log.debug("ready", **shown)  # all together: "running"
        self.act(self.family.tick(now, {name: self._heartbeat(c.spec) for name, c in self.family.children.items()}))
        if why := self.spawner.stuck(now):
            self.log.error(f"the fork server {why}: killed", pid=self.spawner.pid)
            self.spawner.kill()
        if self.spawner.slow(now):
            self.log.warning("still compiling kernels", pid=self.spawner.pid)
        self.spawner.flush(now)
        self.looker.keep(now)
        self._names.look(now)
        self._reap_orphans(now)
        if self.state == "STARTING" and all(c.state is State.RUNNING for c in self.family.children.values()):
            self._all_ready(now)
        if self.state == "RUNNING" and self.graph.finite:
            self._look_for_end(now)
        if self.state == "DRAINING" and (now >= self._deadline or self._end.look(now)):
            self._end_drain(now)
        if self.state == "STOPPING":
            self._stop_next(now)
        if self.control:
            self.control.tick(now)
        if self.view:
            self.view.refresh()

    def _timeout(self) -> float:
        if self.control and self.control.busy:
            return 0
        now = time.monotonic_ns()
        due = now + TICK_NS
        if self.state in ("DRAINING", "STOPPING") or (self._end.near and self.state == "RUNNING"):
            due = now + LOOK_NS
        return max(min(due, self.family.next_deadline() or due) - now, 0) / 1e9

    def _wire(self, control_socket: str) -> None:
        select = self.selector
        self.control = control_server.Server(control_socket, select, handlers.handlers(self), self.log)
        self._signals = signals.caught()
        select.register(self._signals.sock, selectors.EVENT_READ, self._signalled)
        select.register(self._bell.fd, selectors.EVENT_READ, lambda _mask: self._bell.drain())
        select.register(self._reasons, selectors.EVENT_READ, self._hear_reasons)
        forkserver.become_subreaper()
        self.lines.whose = self._whose
        select.register(self.lines, selectors.EVENT_READ, lambda _mask: self.lines.pump())
        self.spawner = spawner.Spawner(
            self._hello, self._theirs.fileno(), self.lines.theirs, self.segments.descriptors()
        )

    def _unwire(self) -> None:
        self.spawner.kill()
        spawner.kill_strangers(set())

    def goodbye(self, code: int) -> None:
        """Remove the control socket and tell the clients that still wait how it ended; ``code`` is the exit status."""
        if self.control:
            self.control.close(handlers.last_words(self, code))
        self._bell.close()

    # --- what the selector brings -----------------------------------------------------------------------------------
    def _signalled(self, _mask: int) -> None:
        for name in self._signals.read():
            if self.state in ("STARTING", "RUNNING"):
                self.log.info("stopping (a second signal would cut it short)", signal=name)
                self.ended = f"stopped by {name}"
                self.drain(time.monotonic_ns())
            else:
                self.log.warning("cut short", signal=name)
                self.ended = f"cut short by {name}"
                self.cut()

    def _whose(self, pid: int) -> str:
        """The process that has this pid now."""
        if pid == self.spawner.pid:
            return "fork server"
        return next((name for name, child in self.family.children.items() if child.pid == pid), "")

    def _hear_reasons(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError, ValueError, KeyError, TypeError):
            said = messages.unpack(self._reasons.recv(4096))
            self.last_words[said["pid"]] = str(said["reason"])

    def _answers(self, _mask: int) -> None:
        now = time.monotonic_ns()
        for answer in self.spawner.read():
            if not answer.pid:
                self.act(self.family.exited(answer.child, answer.error, now))
                continue
            self.family.spawned(answer.child, answer.pid, now)
            pidfd = self._pidfds[answer.child] = os.pidfd_open(answer.pid)
            self.selector.register(pidfd, selectors.EVENT_READ, lambda _mask, name=answer.child: self._died(name))
        if self.spawner.error:
            self._fail("fork server", self.spawner.error)

    def _died(self, name: str) -> None:
        pidfd = self._pidfds.pop(name)
        self.selector.unregister(pidfd)
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        self._hear_reasons(0)
        self.lines.pump()
        child = self.family.children[name]
        why = spawner.describe(result.si_code, result.si_status) if result else "gone"
        why = self.last_words.pop(child.pid, why)
        now, asked, pid = time.monotonic_ns(), child.state is State.STOPPING, child.pid
        actions = self.family.exited(name, why, now)
        if asked:
            self.log.debug("left", stage=name, pid=pid, how=why)
        else:
            wait = max(child.retry_ns - now, 0) // _MS if child.state is not State.FATAL else None
            self.log.error("died", stage=name, pid=pid, reason=child.reason, restart_in_ms=wait)
        self.act(actions)

    def _forkserver_died(self, _mask: int) -> None:
        """Stages live on without it; only requests wait for the next one."""
        self.selector.unregister(self.spawner.pidfd)
        self.selector.unregister(self._channel)
        self._answers(0)
        how = self.spawner.reap()
        now = time.monotonic_ns()
        if self.state == "STOPPING":
            self._cancel(now, self.processes)
            return
        spawner.kill_strangers({child.pid for child in self.family.children.values()})
        self._cancel(now, [name for name, c in self.family.children.items() if c.state is not State.STARTING])
        self.spawner.renew(self._request)
        own = self.family.policy
        self._forks = [at for at in self._forks if now - at < own.period_ns] + [now]
        if len(self._forks) > own.intensity:
            self._fail(
                "fork server", f"died {len(self._forks)} times within {own.period_ns / 1e9:g} s, the last: {how}"
            )
            return
        self.log.error("the fork server died: another one starts", reason=how)
        self._start_forkserver()

    def _reap_orphans(self, now: int) -> None:
        if now < self._orphans_at or self.spawner.asked:
            return
        self._orphans_at = now + ORPHANS_NS
        spawner.reap_orphans({self.spawner.pid, *(child.pid for child in self.family.children.values())})

    def _start_forkserver(self) -> None:
        self._channel = self.spawner.start()
        self.selector.register(self.spawner.pidfd, selectors.EVENT_READ, self._forkserver_died)
        self.selector.register(self._channel, selectors.EVENT_READ, self._answers)

    # --- what the family asks for ------------------------------------------------------------------------------------
    def act(self, actions: list[children.Action]) -> None:
        """Carry out what the family asked for."""
        for action in actions:
            match action:
                case Spawn(name):
                    self.spawner.spawn(self._request(name))
                case Ask(name):
                    for stage in self.processes[name]:
                        w = self.segments.stages[stage.id].w
                        w[layout.CMD_STOP] = w[layout.STAGE_EPOCH]
                    self.wake(name)
                    self._cancel(time.monotonic_ns(), (name,))
                case Kill(name, why):
                    self.log.error("killed", stage=name, pid=self.family.children[name].pid, reason=why)
                    self._kill(name)
                case GiveUp(name, why):
                    self._fail(name, why)
        if actions:
            self.spawner.flush(time.monotonic_ns())

    def _request(self, name: str) -> dict[str, Any]:
        bell, stages = self._bell_address(), self.processes[name]
        return spawner.request(self.name, name, stages, self.segments.stages, bell)

    def _bell_address(self) -> tuple[int, int, int]:
        words = [0, 0, 0]
        self._bell.announce(words, 0)
        return os.getpid(), words[1], words[2]

    def _kill(self, name: str) -> None:
        pidfd = self._pidfds.get(name)
        if pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def wake(self, name: str) -> None:
        """Ring the doorbell of a process."""
        pid, ringer = self.family.children[name].pid, Ringer()
        for ring, producer in self._ends.get(name, []):
            bell = self.segments.rings[ring].bell(producer=producer)
            if pid and bell[0] == pid:
                ringer.ring(*bell)
                break
        ringer.close()

    def _is_ready(self, spec: ChildSpec) -> bool:
        words = (self.segments.stages[stage].w for stage in spec.stages)
        return all(w[layout.LIFE_READY] == w[layout.STAGE_EPOCH] for w in words)

    def _heartbeat(self, spec: ChildSpec) -> int:
        return min(int(self.segments.stages[stage].w[layout.LIFE_HEARTBEAT]) for stage in spec.stages)

    # --- the pipeline as a whole -------------------------------------------------------------------------------------
    def _all_ready(self, now: int) -> None:
        self.state, self.ran = "RUNNING", True
        clocks = [self.segments.stages[s.id].w for s in self.graph.stages if s.kind.finite]
        # A pipeline that was taken over keeps its clock: what is late by now goes out at once.
        start = max((int(w[layout.CMD_CLOCK]) for w in clocks), default=0) or now + CLOCK_LEAD_NS
        for w in clocks:
            w[layout.CMD_CLOCK] = start
        took = round((now - self.started) / 1e9, 2)
        self.log.info("running", stages=len(self.graph.stages), processes=len(self.processes), took_s=took)

    def drain(self, now: int) -> None:
        """Sources take no more; once the rings are empty, stop."""
        if self.state not in ("STARTING", "RUNNING"):
            return
        self.state, self._deadline = "DRAINING", now + self.family.policy.shutdown_ns
        self._end.forget()
        for header in self.segments.rings.values():
            header.move(layout.RING_DRAINING)
        for stage in self.graph.stages:
            if stage.source:
                self.segments.stages[stage.id].w[layout.CMD_DRAIN] = 1
        for name in self.family.children:
            self.wake(name)

    def _end_drain(self, now: int) -> None:
        self.undelivered = self._left()
        if self.undelivered:
            self.log.warning("not everything could be delivered in time", bytes_left=self.undelivered)
        self._begin_stop(now)

    def _left(self) -> dict[str, int]:
        """Bytes in each ring that is not empty."""
        return {ring: header.used for ring, header in self.segments.rings.items() if header.used}

    def _look_for_end(self, now: int) -> None:
        """A finite input that has come to its end ends the run; say so if only a stopped stage is in the way."""
        if self._end.input_ended() and self._end.look(now):
            self.log.info("the input has come to its end")
            self.ended = "the input has come to its end"
            self.drain(now)
            return
        down = {s for c in self.family.children.values() if c.state is State.STOPPED for s in c.spec.stages}
        waited, self._waited = self._waited, self._end.waits_for(down)
        if self._waited and self._waited != waited:
            self.log.info(f"waiting for {', '.join(self._waited)}, which is stopped")

    def _begin_stop(self, now: int) -> None:
        if self.state == "STOPPING":
            return
        self.state, self._deadline = "STOPPING", now + self.family.policy.shutdown_ns
        self.family.hold(now)
        self._stop_order = list(reversed(self.family.children))  # sources first
        self._cancel(now, self.processes)

    def _cancel(self, now: int, names: Collection[str]) -> None:
        """Those of ``names`` whose process was asked for, but not made, will not get one."""
        for name in self.spawner.cancel(names):
            if self.family.children[name].state is State.STARTING:
                self.family.stop(name, now)
            self.act(self.family.exited(name, "not started", now))

    def _stop_next(self, now: int) -> None:
        while self._stop_order:
            child = self.family.children[self._stop_order[0]]
            if child.state in (State.STARTING, State.RUNNING):
                within = max(self._deadline - now, 100 * _MS)
                self.act(self.family.stop(child.spec.id, now, within_ns=within))
            if child.state is State.STOPPING:
                return  # downstream of it must live until it has flushed
            self._stop_order.pop(0)
        self.state = "FAILED" if self.failure else "STOPPED"
        ran = round((now - self.started) / 1e9, 2)
        self.log.info("all stages have left", stages=len(self.graph.stages), ran_s=ran)

    def cut(self) -> None:
        """Stop now: no drain, no flush."""
        now = time.monotonic_ns()
        self.undelivered = self.undelivered or self._left()
        self._begin_stop(now)
        for name, child in self.family.children.items():
            if child.state in (State.STARTING, State.RUNNING):
                self.act(self.family.stop(name, now))
            self._kill(name)

    def _fail(self, name: str, why: str) -> None:
        if not self.failure:
            self.failure = f"{name}: {why}"
            self.log.error("given up", stage=name, reason=why)
        self._begin_stop(time.monotonic_ns())

    def snapshot(self) -> dict[str, Any]:
        """See `pipeline.status.Looker.snapshot`."""
        return self.looker.snapshot(self.state, time.monotonic_ns(), self.started)


def _ends(graph: Graph) -> dict[str, list[tuple[str, bool]]]:
    """The rings that each process is an end of: (ring, is its producer)."""
    process = {stage.id: stage.process for stage in graph.stages}
    ends: dict[str, list[tuple[str, bool]]] = {}
    for ring in graph.rings:
        ends.setdefault(process[ring.producer[0]], []).append((ring.id, True))
        ends.setdefault(process[ring.consumer[0]], []).append((ring.id, False))
    return ends


if __name__ == "__main__":
    import sys

    from pipeline import launch

    sys.exit(launch.main())
