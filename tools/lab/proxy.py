"""The pipeline between the TAPs, as a process of its own that the lab asks only what anybody may ask."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from pipeline.config import load
from pipeline.control import ask
from pipeline.graph import plan
from pipeline.summary import summarise
from tools.lab import host, render
from tools.lab.scene import REPOSITORY, Scene

# How the compare's log line about a difference begins (stages/compare/shell.py).
DIFFERENCE = "outputs differ"


class Proxy:
    """`python -m pipeline.supervisor CONFIG`, its log, its counters."""

    def __init__(self, scene: Scene, config: Mapping[str, Any]) -> None:
        self._scene = scene
        self._name = scene.book.prefix
        self.compare = render.compare_id(config)
        self.runtime_dir = scene.directory / "run"
        self.config = scene.directory / "config.toml"
        self.log = scene.directory / "pipeline.log"
        self.runtime_dir.mkdir(mode=0o700)
        self.config.write_text(render.to_toml(config))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, patience: float = 600) -> int:
        """Start it and wait until every stage runs; their number.  ``patience`` in seconds: kernels may be compiled."""
        command = [sys.executable, "-m", "pipeline.supervisor", str(self.config)]
        self._process = self._scene.spawn(command, self.log, {"PYTHONPATH": str(REPOSITORY)})
        status = host.wait_until(self._running, patience, f"the pipeline to be ready (log: {self.log})")
        return len(status["stages"])

    def _running(self) -> dict[str, Any] | None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise host.LabError(f"the pipeline ended with {self._process.returncode}:\n{self.tail()}")
        try:
            status = self.status()
        except host.LabError:
            return None  # the control socket is not there yet
        ready = all(stage["state"] == "RUNNING" for stage in status["stages"])
        return status if ready and status["stages"] else None

    def status(self) -> dict[str, Any]:
        """What `python -m pipeline.control NAME status --json` shows.  LabError where nobody answers."""
        try:
            reply = ask(f"{self.runtime_dir}/{self._name}.sock", "status")
        except (OSError, EOFError) as error:
            raise host.LabError(f"the pipeline does not answer: {error}") from None
        if not reply.get("ok"):
            raise host.LabError(f"the pipeline refuses status: {reply.get('error')}")
        return reply

    def stage(self, ident: str) -> dict[str, Any]:
        """A stage's row of the status."""
        return next(dict(row) for row in self.status()["stages"] if row["id"] == ident)

    def counters(self, kind: str) -> dict[str, int]:
        """The counters of the one stage of a type."""
        status = self.status()
        (ident,) = (stage["id"] for stage in status["stages"] if stage["type"] == kind)
        return dict(status["counters"][ident])

    def unbalanced(self, status: Mapping[str, Any]) -> tuple[str, ...]:
        """The equations of the pipeline's own summary that do not hold: rings, stages, the compare's conservation."""
        return summarise(plan(load(self.config)), status).wrong

    def explained(self) -> list[dict[str, Any]]:
        """The log's records of differences."""
        lines = (line for line in self.log.read_text(errors="replace").splitlines() if line.startswith("{"))
        return [record for record in map(json.loads, lines) if str(record.get("event", "")).startswith(DIFFERENCE)]

    def tail(self, lines: int = 15) -> str:
        """The end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, patience: float = 30) -> int:
        """SIGTERM: drain and end; the exit status."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            raise host.LabError(f"the pipeline did not end within {patience:g} s of SIGTERM") from None
