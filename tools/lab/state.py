"""What a lab has made, on disk before it is made, so that it can be removed by whoever comes: one way for every case.

The end of a run, an error, Ctrl-C and ``--remove`` after a ``kill -9`` all go through ``remove``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ring.segment import process_start
from tools.lab import host

FOLDER = Path("/run/colo-lab")
SHARED_MEMORY = Path("/dev/shm")
NAMESPACES = Path("/run/netns")

# Seconds a process has to end: the supervisor drains for shutdown_ms (5000 by default) before it ends its stages.
PATIENCE = 15.0


@dataclass
class State:
    """One lab: who runs it and what it has made.  ``kept``: left for inspection, so a dead owner is no accident."""

    prefix: str
    pid: int
    started: int
    namespaces: list[str] = field(default_factory=list)
    processes: list[tuple[int, int]] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    kept: bool = False

    @property
    def path(self) -> Path:
        """Where it is written."""
        return FOLDER / f"{self.prefix}.json"

    def save(self) -> None:
        """Write it, whole or not at all."""
        FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(self.path)

    @property
    def running(self) -> bool:
        """Whether the lab that made it is still there."""
        return process_start(self.pid) == self.started


def new(prefix: str | None = None) -> State:
    """The state of a lab that this process runs; by default named by its pid."""
    pid = os.getpid()
    return State(prefix or f"colo-{pid}", pid, process_start(pid))


def load_all() -> Iterator[State]:
    """Every lab that is written down."""
    for path in sorted(FOLDER.glob("*.json")):
        data = json.loads(path.read_text())
        data["processes"] = [(pid, started) for pid, started in data["processes"]]
        yield State(**data)


def segments(prefix: str) -> list[Path]:
    """Shared-memory segments of the lab's pipeline."""
    return sorted(SHARED_MEMORY.glob(f"{prefix}.*"))


def remove(state: State) -> None:
    """End the processes (last made first), delete namespaces with their TAPs, segments and files.  Idempotent."""
    for pid, started in reversed(state.processes):
        host.end_process(pid, started, PATIENCE)
    for name in state.namespaces:
        if (NAMESPACES / name).exists():
            host.run("ip", "netns", "del", name)
    for segment in segments(state.prefix):
        segment.unlink(missing_ok=True)
    for directory in state.directories:
        shutil.rmtree(directory, ignore_errors=True)
    state.path.unlink(missing_ok=True)


def remove_leftovers() -> list[str]:
    """Remove every lab whose owner is gone, kept ones too; their names."""
    gone = [state for state in load_all() if not state.running]
    for state in gone:
        remove(state)
    return [state.prefix for state in gone]


def leftovers(state: State) -> list[str]:
    """What of a removed lab is still there: empty, or the removal is wrong."""
    left = [f"process {pid}" for pid, started in state.processes if process_start(pid) == started]
    left += [f"namespace {name}" for name in state.namespaces if (NAMESPACES / name).exists()]
    left += [str(path) for path in segments(state.prefix)]
    left += [path for path in state.directories if Path(path).exists()]
    return left
