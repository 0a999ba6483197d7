"""Child processes as data: specs, states, strategies, intensity, backoff.  Pure: takes ``now``, touches no process.

OTP's contract.  A *child* is one process that holds one or more stages.  Whoever owns a `Family` tells it what happened
(`spawned`, `ready`, `exited`, `tick`) and carries out the actions that it gives back.

    STOPPED ──► STARTING ──► RUNNING ──► STOPPING ──► STOPPED
                  ▲   └──► EXITED ◄──┘                asked for
                  ├── at once ──┤  └──► FATAL         past the intensity
                  └─ BACKOFF ◄──┘
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from pipeline.tables import Supervisor

MS: Final = 1_000_000


class State(StrEnum):
    """State of a child process, and so of each stage in it."""

    STOPPED = "STOPPED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BACKOFF = "BACKOFF"
    STOPPING = "STOPPING"
    EXITED = "EXITED"
    FATAL = "FATAL"


S = State

# From, to: why.  What is not here is prohibited; the prohibited moves that one might expect are named below.
MOVES: Final = {
    (S.STOPPED, S.STARTING): "the pipeline starts, or somebody asked for it",
    (S.STARTING, S.RUNNING): "its stages are attached and connected",
    (S.STARTING, S.EXITED): "it died before it was ready",
    (S.STARTING, S.STOPPING): "it was asked to leave before it was ready",
    (S.RUNNING, S.EXITED): "it died: its own exit, a signal, or our SIGKILL for a silent heartbeat",
    (S.RUNNING, S.STOPPING): "it was asked to leave, or its group is restarted",
    (S.STOPPING, S.STOPPED): "it was asked to leave and is gone, however it went",
    (S.EXITED, S.STARTING): "the first crash after a stable time is mended at once",
    (S.EXITED, S.BACKOFF): "it crashed again soon: wait, longer each time",
    (S.EXITED, S.FATAL): "more crashes within the period than the intensity allows",
    (S.EXITED, S.STOPPED): "asked to stop while it was down",
    (S.BACKOFF, S.STARTING): "the wait is over, or somebody asked for it now",
    (S.BACKOFF, S.STOPPED): "asked to stop while it was down",
}
PROHIBITED: Final = {
    (S.RUNNING, S.STARTING): "an incarnation must be seen dead before the next: a ring has one producer",
    (S.STOPPING, S.STARTING): "as above; a restart goes through STOPPED",
    (S.STOPPING, S.RUNNING): "the command to leave may have been taken already",
    (S.STOPPED, S.RUNNING): "nothing is ready that was not started",
    (S.BACKOFF, S.RUNNING): "a new incarnation has to attach first",
    (S.FATAL, S.STARTING): "the pipeline is coming down because of it",
}


class BadMove(RuntimeError):
    """A prohibited state transition: a bug of the caller."""


@dataclass(frozen=True)
class Policy:
    """How crashes are answered; times in nanoseconds.

    ``stable_ns``: a child that was ready for that long has its backoff reset (after few crashes sooner, see
    `Family.stable_after`).  ``start_timeout_ns`` takes the heartbeat's place until the first heartbeat: to open a file
    or a device may take longer than a duty cycle.
    """

    strategy: str = "one_for_one"
    intensity: int = 5
    period_ns: int = 10_000 * MS
    backoff_initial_ns: int = 50 * MS
    backoff_max_ns: int = 5_000 * MS
    backoff_factor: float = 2.0
    jitter: float = 0.2
    stable_ns: int = 500 * MS
    heartbeat_ns: int = 2_000 * MS
    start_timeout_ns: int = 10_000 * MS
    shutdown_ns: int = 5_000 * MS

    @classmethod
    def of(cls, given: Supervisor) -> Policy:
        """The policy of a ``[supervisor]`` table."""
        return cls(
            strategy=given.strategy,
            intensity=given.intensity,
            period_ns=given.period_ms * MS,
            backoff_initial_ns=given.backoff_initial_ms * MS,
            backoff_max_ns=given.backoff_max_ms * MS,
            stable_ns=given.stable_ms * MS,
            heartbeat_ns=given.heartbeat_timeout_ms * MS,
            shutdown_ns=given.shutdown_ms * MS,
        )


@dataclass(frozen=True)
class ChildSpec:
    """One process: its name and the ids of the stages in it."""

    id: str
    stages: tuple[str, ...]


class Spawn(NamedTuple):
    """Make a new incarnation of the child."""

    child: str


class Ask(NamedTuple):
    """Ask the child to leave (CMD_STOP)."""

    child: str


class Kill(NamedTuple):
    """SIGKILL the child; its exit comes back through `Family.exited`."""

    child: str
    why: str


class GiveUp(NamedTuple):
    """The pipeline has failed."""

    child: str
    why: str


Action = Spawn | Ask | Kill | GiveUp


@dataclass
class Child:
    """What is known of one process.  ``since_ns`` is the time of the last move."""

    spec: ChildSpec
    state: State = S.STOPPED
    pid: int = 0
    since_ns: int = 0
    started_ns: int = 0
    ready_ns: int = 0
    retry_ns: int = 0
    deadline_ns: int = 0
    again: bool = False
    starts: int = 0
    in_a_row: int = 0
    reason: str = ""
    kill_why: str = ""
    crashes: deque[int] = field(default_factory=deque)

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(self.starts - 1, 0)

    @property
    def up(self) -> bool:
        """Whether there is, or is about to be, a process."""
        return self.state in (S.STARTING, S.RUNNING, S.STOPPING)

    def move(self, to: State, now: int) -> None:
        """Change the state.  Raises `BadMove`."""
        if (self.state, to) not in MOVES:
            why = PROHIBITED.get((self.state, to), "no rule allows it")
            raise BadMove(f"{self.spec.id}: {self.state} -> {to}: {why}")
        self.state, self.since_ns = to, now


class Family:
    """All children of a pipeline, in start order (sinks first)."""

    def __init__(self, specs: Iterable[ChildSpec], policy: Policy, seed: int | None = None) -> None:
        self.policy = policy
        self.children = {spec.id: Child(spec) for spec in specs}
        self._random = random.Random(seed)
        self._held = False
        self._looked_ns = 0
        self._trust_from_ns = 0

    # --- what happened ------------------------------------------------------------------------------------------
    def start_all(self, now: int) -> list[Action]:
        """Start every child that is down, in start order."""
        return [self._spawn(child, now) for child in self.children.values() if child.state is S.STOPPED]

    def spawned(self, name: str, pid: int, now: int) -> None:
        """The process of a Spawn exists: its time to start counts from here, not from the request."""
        child = self.children[name]
        child.pid, child.started_ns = pid, now

    def ready(self, name: str, now: int) -> bool:
        """The child's stages are attached and connected; whether that was news."""
        child = self.children[name]
        if child.state is not S.STARTING:
            return False
        child.move(S.RUNNING, now)
        child.ready_ns = now
        return True

    def exited(self, name: str, why: str, now: int) -> list[Action]:
        """The child's process is gone; ``why`` in words (``killed by SIGKILL``)."""
        child = self.children[name]
        child.pid = 0
        why = child.kill_why or why
        child.reason = why
        if child.state is S.STOPPING:
            child.move(S.STOPPED, now)
            return self._start_pending(now)
        stable = child.state is S.RUNNING and now - child.ready_ns >= self.stable_after(child.in_a_row)
        child.move(S.EXITED, now)
        if self._held:
            child.move(S.STOPPED, now)
            return []
        child.in_a_row = 1 if stable or not child.in_a_row else child.in_a_row + 1
        child.crashes.append(now)
        while now - child.crashes[0] > self.policy.period_ns:
            child.crashes.popleft()
        if len(child.crashes) > self.policy.intensity:
            child.move(S.FATAL, now)
            period = self.policy.period_ns / 1e9
            crashes = f"{len(child.crashes)} crash{'es' if len(child.crashes) > 1 else ''}"
            return [GiveUp(name, f"{crashes} within {period:g} s, the last: {why}")]
        child.again = True
        child.retry_ns = now + self.delay(child.in_a_row)
        if child.retry_ns > now:
            child.move(S.BACKOFF, now)
        return [*self._bring_down(name, now), *self._start_pending(now)]

    def tick(self, now: int, heartbeats: dict[str, int]) -> list[Action]:
        """Time passes; ``heartbeats`` are the monotonic ns of each child's last duty cycle (0: none yet)."""
        policy = self.policy
        if now - self._looked_ns > policy.heartbeat_ns // 2:
            # This process itself was stopped or starved (Ctrl-Z, a laptop's lid): the children may have been, too.
            self._trust_from_ns = now
        self._looked_ns = now
        actions: list[Action] = []
        for name, child in self.children.items():
            if child.state is S.STOPPING and child.pid and now >= child.deadline_ns:
                child.deadline_ns = now + policy.shutdown_ns
                actions.append(Kill(name, "did not leave when asked"))
            elif child.state in (S.STARTING, S.RUNNING) and child.pid:
                beat = heartbeats.get(name, 0)
                seen = beat > child.started_ns
                limit = policy.heartbeat_ns if seen else max(policy.heartbeat_ns, policy.start_timeout_ns)
                if not child.kill_why and now - max(beat, child.started_ns, self._trust_from_ns) > limit:
                    child.kill_why = f"no heartbeat for {limit // MS} ms"
                    actions.append(Kill(name, child.kill_why))
        return actions + self._start_pending(now)

    # --- what somebody asked for ---------------------------------------------------------------------------------
    def stop(self, name: str, now: int, *, within_ns: int | None = None, again: bool = False) -> list[Action]:
        """Take a child down, and (``again``) start it anew once it is gone."""
        child = self.children[name]
        child.again = again
        if child.state in (S.STARTING, S.RUNNING):
            child.move(S.STOPPING, now)
            child.deadline_ns = now + (self.policy.shutdown_ns if within_ns is None else within_ns)
            return [Ask(name)]
        if child.state in (S.BACKOFF, S.EXITED):
            child.move(S.STOPPED, now)
        child.retry_ns = now
        return self._start_pending(now)

    def start(self, name: str, now: int) -> list[Action]:
        """Start a child that is down; cuts a backoff short."""
        child = self.children[name]
        if child.state is S.STOPPING:
            child.again = True
            return []
        child.again, child.retry_ns = True, now
        return self._start_pending(now) if child.state in (S.STOPPED, S.BACKOFF, S.EXITED) else []

    def hold(self, now: int) -> None:
        """Nothing is started any more: the pipeline comes down."""
        self._held = True
        for child in self.children.values():
            child.again = False
            if child.state in (S.BACKOFF, S.EXITED):
                child.move(S.STOPPED, now)

    # --- what follows -------------------------------------------------------------------------------------------
    def next_deadline(self) -> int | None:
        """Monotonic ns of the next thing that `tick` would do, heartbeats apart."""
        times = [c.retry_ns for c in self.children.values() if c.again and c.state in (S.BACKOFF, S.EXITED)]
        times += [c.deadline_ns for c in self.children.values() if c.state is S.STOPPING and c.pid]
        return min(times, default=None)

    def delay(self, in_a_row: int) -> int:
        """Nanoseconds to wait after that many crashes in a row.

        None after the first: a lone crash is mended at once.  Then initial, initial times factor, .. up to the cap,
        each shortened by up to ``jitter`` of itself, so that children that died together do not come back together.
        """
        if in_a_row < 2:
            return 0
        policy = self.policy
        full = policy.backoff_initial_ns * policy.backoff_factor ** min(in_a_row - 2, 64)
        return int(min(full, policy.backoff_max_ns) * (1 - policy.jitter * self._random.random()))

    def stable_after(self, in_a_row: int) -> int:
        """Nanoseconds that a child must have been ready to be stable: ten times the wait before it, within limits.

        So a child killed now and then is always mended at once, and one that dies soon after each start is not.
        """
        policy = self.policy
        full = policy.backoff_initial_ns * policy.backoff_factor ** min(max(in_a_row - 2, 0), 64)
        least = 5 if in_a_row < 2 else 10
        return int(min(least * full, policy.stable_ns))

    def _spawn(self, child: Child, now: int) -> Action:
        child.move(S.STARTING, now)
        child.again, child.started_ns, child.ready_ns, child.kill_why = False, now, 0, ""
        child.starts += 1
        return Spawn(child.spec.id)

    def _bring_down(self, crashed: str, now: int) -> list[Action]:
        """Ask the rest of the crashed child's group to leave, sources first."""
        names = list(self.children)
        if self.policy.strategy == "one_for_one":
            return []
        group = names if self.policy.strategy == "one_for_all" else names[names.index(crashed) :]
        actions: list[Action] = []
        for name in reversed(group):
            if self.children[name].state in (S.STARTING, S.RUNNING):
                actions += self.stop(name, now, again=True)
        return actions

    def _start_pending(self, now: int) -> list[Action]:
        """Start what waits to be started and may; a group restart first waits until all of it is down."""
        pending = [c for c in self.children.values() if c.again and c.state in (S.STOPPED, S.BACKOFF, S.EXITED)]
        if self.policy.strategy != "one_for_one":
            leaving = any(c.again and c.state is S.STOPPING for c in self.children.values())
            if leaving or any(c.retry_ns > now for c in pending):
                return []
        return [self._spawn(c, now) for c in pending if c.retry_ns <= now]
