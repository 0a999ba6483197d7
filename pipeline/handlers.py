"""What each control command does: handlers for `pipeline.control_server.Server` over a supervisor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pipeline.children import State
from pipeline.control_server import Handler
from pipeline.status import STATUS_KEYS
from ring import layout
from stages import catalog
from stages.kind import ANNOUNCE, CHECKPOINT, FAILOVER, STATUS
from stages.replies import Later, Refused, Reply, unknown

if TYPE_CHECKING:
    from pipeline.supervisor import Supervisor

EVENTS: Final = {
    CHECKPOINT: layout.CMD_CHECKPOINT,
    FAILOVER: layout.CMD_FAILOVER,
    ANNOUNCE: layout.CMD_ANNOUNCE,
}
"""Words of a stage's segment that count what it was told of; which kinds hear it, `stages.kind.Kind.hears` says."""

PATIENCE_NS: Final = 15_000_000_000


class Handlers:
    """The commands, over one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.it = supervisor

    def process(self, args: Mapping[str, Any]) -> str:
        """The process that ``id`` names: a stage's, or its own.  Refuses an unknown one."""
        name = args.get("id")
        stages = {stage.id: stage.process for stage in self.it.graph.stages}
        if isinstance(name, str):
            if name in stages:
                return str(stages[name])
            if name in self.it.processes:
                return name
        raise unknown("stage", str(name)[:64], list(stages))

    def _running(self) -> None:
        if self.it.state not in ("STARTING", "RUNNING"):
            raise Refused(f"the pipeline is {self.it.state}")

    def status(self, _args: Mapping[str, Any]) -> Reply:
        """Everything that ``status --json`` shows."""
        snapshot = self.it.snapshot()
        return {"ok": True, **{key: snapshot[key] for key in STATUS_KEYS}}

    def profile(self, _args: Mapping[str, Any]) -> Reply:
        """Where the time goes."""
        return {"ok": True, **self.it.looker.profile(time.monotonic_ns())}

    def restart(self, args: Mapping[str, Any]) -> Later:
        """Stop and start; answered when the new incarnation is ready."""
        self._running()
        name, now = self.process(args), time.monotonic_ns()
        child = self.it.family.children[name]
        before = child.starts
        if child.up:
            self.it.act(self.it.family.stop(name, now, within_ns=2_000_000_000, again=True))
        else:
            self.it.act(self.it.family.start(name, now))
        return self._when(name, lambda: child.starts > before and child.state is State.RUNNING, self._stopped(name))

    def start(self, args: Mapping[str, Any]) -> Reply | Later:
        """Start what was stopped; answered when it is ready."""
        self._running()
        name, now = self.process(args), time.monotonic_ns()
        child = self.it.family.children[name]
        if child.up and child.state is not State.STOPPING:
            return {"ok": True, "text": f"{name} is {child.state} already, pid {child.pid}"}
        self.it.act(self.it.family.start(name, now))
        return self._when(name, lambda: child.state is State.RUNNING, self._stopped(name))

    def stop(self, args: Mapping[str, Any]) -> Reply | Later | None:
        """Stop one process, or without an id drain and stop the pipeline; answered when it is done."""
        if args.get("id") is None:
            if self.it.state in ("STARTING", "RUNNING"):
                self.it.log.info("stopping: asked for through the control socket")
                self.it.ended = "stopped as asked"
                self.it.drain(time.monotonic_ns())
            return None
        self._running()
        name, now = self.process(args), time.monotonic_ns()
        child = self.it.family.children[name]
        before = child.starts
        self.it.act(self.it.family.stop(name, now))
        again = f"{name} was started again by another command"
        return self._when(name, lambda: child.state is State.STOPPED, lambda: again if child.starts > before else "")

    def _stopped(self, name: str) -> Callable[[], str]:
        """Why a child that was to run will not, or nothing."""
        child = self.it.family.children[name]

        def why() -> str:
            stays = child.state is State.STOPPED and not child.again and self.it.state in ("STARTING", "RUNNING")
            return f"{name} was stopped by another command" if stays else ""

        return why

    def _when(self, name: str, met: Callable[[], bool], never: Callable[[], str]) -> Later:
        """The reply once ``met()``, or the refusal once ``never()`` says why not."""
        child = self.it.family.children[name]
        shared = [stage for stage in child.spec.stages if stage != name]
        also = f" (process of {', '.join(shared)})" if shared else ""

        def done() -> Reply | None:
            if why := never():
                return {"ok": False, "error": why, "code": 1}
            if not met():
                return None
            pid = f", pid {child.pid}" if child.pid else ""
            return {"ok": True, "text": f"{name}{also} is {child.state}{pid}", "state": str(child.state)}

        return Later(done, time.monotonic_ns() + PATIENCE_NS, f"{name} is not there yet: see status")

    def set(self, args: Mapping[str, Any]) -> Reply:
        """Switch a filter on or off."""
        filters = [stage.id for stage in self.it.graph.stages if STATUS in stage.kind.hears]
        name, value = args.get("id"), args.get("status")
        if name not in filters:
            raise unknown("filter", str(name)[:64], filters)
        if value not in ("on", "off"):
            raise Refused(f"status is on or off, not {str(value)[:64]!r}", 2)
        self.it.segments.stages[str(name)].w[layout.CMD_STATUS] = int(value == "on")
        self.it.log.info("status set", stage=name, status=value)
        return {"ok": True, "text": f"{name} is {value}"}

    def annex(self, name: str, args: Mapping[str, Any]) -> Reply | Later:
        """List or change tables about all stages of a kind; a change is answered when every stage has taken it."""
        if args.get("what") != "list":
            self._running()
        kind, live = self.it.annexes[name]
        stages = {
            stage.id: self.it.family.children[stage.process] for stage in self.it.graph.stages if stage.kind is kind
        }
        stopped = [stage for stage, child in stages.items() if child.state is State.STOPPED]
        processes = {child.spec.id for child in stages.values()}

        def wake() -> None:
            for process in processes:
                self.it.wake(process)

        return live.command(args, stopped, wake)

    def _announce(self, event: str) -> Reply:
        words = {stage.id: self.it.segments.stages[stage.id].w for stage in self.it.graph.stages}
        told, early = [], {}
        for stage in self.it.graph.stages:
            heard = words[stage.id]
            over = [one for one in stage.kind.deaf if one.event == event and int(heard[EVENTS[one.after]])]
            waits = [one for one in stage.kind.waits if one.event == event and not int(heard[EVENTS[one.until]])]
            listens = not stage.kind.hears_if or stage.params[stage.kind.hears_if]
            if event in stage.kind.hears and listens and waits:
                early[stage.id] = waits[0]
            elif event in stage.kind.hears and listens and not over:
                told.append(stage)
        if early and not told:
            names, first = ", ".join(early), next(iter(early.values()))
            raise Refused(f"{names}: no {event} before {first.until}: {first.why}")
        # Who sends something at once is told last: its frames are to find every gate open.
        told.sort(key=lambda stage: ANNOUNCE in stage.kind.hears)
        for stage in told:
            words[stage.id][EVENTS[event]] += 1
        for process in dict.fromkeys(stage.process for stage in told):
            self.it.wake(process)
        ids = [stage.id for stage in told]
        if event == ANNOUNCE:
            self.it.log.info("announcement asked for", stages=ids)
        else:
            self.it.log.info(f"{event} announced", stages=ids)
        return {"ok": True, "text": f"{event}: told {', '.join(ids) or 'nobody'}"}

    def checkpoint(self, _args: Mapping[str, Any]) -> Reply:
        """A checkpoint was made: both replicas are equal now."""
        return self._announce(CHECKPOINT)

    def failover(self, _args: Mapping[str, Any]) -> Reply:
        """One of the two is gone: the other serves on its own."""
        return self._announce(FAILOVER)

    def announce(self, _args: Mapping[str, Any]) -> Reply:
        """The network is to be told once more where the guest is."""
        if not any(ANNOUNCE in stage.kind.hears for stage in self.it.graph.stages):
            types = ", ".join(kind.type for kind in catalog.kinds() if ANNOUNCE in kind.hears)
            raise Refused(
                f"no stage here announces a guest; {types} does: it stands in the chain of a secondary's netdev"
            )
        return self._announce(ANNOUNCE)


def handlers(supervisor: Supervisor) -> dict[str, Handler]:
    """Every command by its name."""
    do = Handlers(supervisor)
    return {
        "status": do.status,
        "profile": do.profile,
        "restart": do.restart,
        "stop": do.stop,
        "start": do.start,
        "set": do.set,
        **{name: partial(do.annex, name) for name in supervisor.annexes},
        "checkpoint": do.checkpoint,
        "failover": do.failover,
        "announce": do.announce,
    }


def last_words(supervisor: Supervisor, code: int) -> Callable[[str], Reply]:
    """Makes, of its command, the reply to a client that still waits at the end; ``code`` is the exit status."""

    def reply(command: str) -> Reply:
        if command != "stop":
            return {"ok": False, "error": f"the pipeline stopped before {command} was done", "code": 1}
        if code == 0:
            return {"ok": True, "text": f"{supervisor.name} has stopped"}
        given_up = f"given up: {supervisor.failure}" if supervisor.failure else ""
        idle = "" if supervisor.ran else "nothing ran: not every stage was ready"
        wrong = "its account does not add up: see its summary" if supervisor.unbalanced else ""
        reasons = (given_up or idle, shortfall(supervisor.undelivered), wrong)
        why = "; ".join(filter(None, reasons)) or "it failed: see its log"
        return {"ok": False, "error": f"{supervisor.name} has stopped, but {why}", "code": 1}

    return reply


def shortfall(undelivered: Mapping[str, int]) -> str:
    """The bytes that were still in rings at the end, by ring, in words; nothing if there were none."""
    rings = ", ".join(f"{ring} {used:,}" for ring, used in undelivered.items())
    return f"{sum(undelivered.values()):,} bytes were not delivered: {rings}" if undelivered else ""
