"""The client: curl in its namespace, many transfers a process, each result on a line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.lab.scene import CLIENT, SERVER_ADDRESS, Scene

_WRITE_OUT = "%{urlnum} %{http_code} %{num_connects} %{size_download} %{size_upload} %{time_total}\\n"


@dataclass(frozen=True)
class Visit:
    """What one curl process did: the bodies in the order of the paths, and its sums.  Times in seconds."""

    bodies: list[Path]
    codes: list[int]
    connections: int
    received: int
    sent: int
    times: list[float]
    elapsed: float
    trouble: str

    def failed(self, expected: Sequence[int]) -> str:
        """Why it is not as it should be; empty when curl is content and all codes are the ``expected`` ones."""
        if self.trouble:
            return self.trouble
        wrong = [f"{i}: {got}" for i, (got, want) in enumerate(zip(self.codes, expected, strict=True)) if got != want]
        return f"status {', '.join(wrong[:5])}" if wrong else ""


class Browser:
    """Runs curl against the server's address.

    ``rate``: at most so many requests a second where they go one after the other, 0: as fast as it goes.  ``patience``:
    seconds that one transfer may take.
    """

    def __init__(self, scene: Scene, rate: int = 0, patience: float = 120) -> None:
        self._scene = scene
        self._rate = rate
        self._patience = patience
        self._visits = 0

    def get(self, paths: Sequence[str], *, keep_alive: bool = False, at_once: int = 1) -> Visit:
        """Fetch the paths: each on a connection of its own, or all on one; ``at_once`` of them side by side."""
        folder = self._folder()
        lines = [
            f'url = "http://{SERVER_ADDRESS}{path}"\noutput = "{folder / str(i)}"\n' for i, path in enumerate(paths)
        ]
        (folder / "urls").write_text("".join(lines))
        options = ["-K", str(folder / "urls")]
        if not keep_alive:
            options += ["-H", "Connection: close"]
        if self._rate and at_once == 1:
            options += ["--rate", f"{self._rate}/s"]
        if at_once > 1:
            options += ["--parallel", "--parallel-immediate", "--parallel-max", str(at_once)]
        return self._run(options, [folder / str(i) for i in range(len(paths))])

    def put(self, path: str, file: Path) -> Visit:
        """Upload a file."""
        body = self._folder() / "0"
        url = f"http://{SERVER_ADDRESS}{path}"
        # No "Expect: 100-continue": its extra answer would only add a wait of a second when it is lost.
        return self._run(["-H", "Expect:", "-T", str(file), "-o", str(body), url], [body])

    @property
    def next_body(self) -> Path:
        """Where the first body of the next visit will be."""
        return self._scene.directory / CLIENT / str(self._visits + 1) / "0"

    def _folder(self) -> Path:
        self._visits += 1
        folder = self._scene.directory / CLIENT / str(self._visits)
        folder.mkdir(parents=True)
        return folder

    def _run(self, options: list[str], bodies: list[Path]) -> Visit:
        limits = ("--connect-timeout", "20", "--max-time", str(self._patience))
        command = ("curl", "-q", "-sS", "--no-progress-meter", "--noproxy", "*", *limits, "-w", _WRITE_OUT, *options)
        began = time.monotonic()
        done = self._scene.call(CLIENT, *command)
        elapsed = time.monotonic() - began
        # By number: with --parallel the lines stand in the order of completion.
        rows = sorted((line.split() for line in done.stdout.splitlines()), key=lambda row: int(row[0]))
        trouble = ""
        if done.returncode or len(rows) != len(bodies):
            said = done.stderr.strip().replace("\n", "; ")
            trouble = f"curl ended with {done.returncode} after {len(rows)} of {len(bodies)} transfers: {said}"
        return Visit(
            bodies=bodies,
            codes=[int(row[1]) for row in rows],
            connections=sum(int(row[2]) for row in rows),
            received=sum(int(row[3]) for row in rows),
            sent=sum(int(row[4]) for row in rows),
            times=[float(row[5]) for row in rows],
            elapsed=elapsed,
            trouble=trouble,
        )
