"""Loss and reordering on the lab's wires: one between each host and the pipeline, with a seed.

What is lost where, and what has to mend it:

- `--loss`, `--reorder`: the client's wire, both ways, which is the network.  What the client sends is missed by both
  replicas alike; what it is not sent it asks for with SACK blocks, which the rewriter moves.
- `--replica-loss`: what the primary and the secondary send, each on its own, before it reaches the compare.  No part
  of COLO loses anything there, so this is harsher than life: the client hears nothing behind a hole of either replica,
  so it asks for nothing, and each hole costs that replica a retransmission timeout.

Nothing is lost on the way *to* one replica alone: that is the mirror's copy, which the pipeline delivers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.lab import host
from tools.lab.scene import CLIENT, REPLICAS, REPOSITORY, ROLES, TAP, TAP_QUEUE, WIRE_TAP, Scene

SEED = 7
DELAY = 0.002
NOTHING = {"loss": 0.0, "reorder": 0.0, "delay": 0.0}


@dataclass(frozen=True)
class Impairment:
    """Chances from 0 to 1 that a frame is lost, or overtakes those of the last ``delay`` seconds.

    ``replica_loss``: that a frame of a replica is lost before the compare sees it.
    """

    loss: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0
    replica_loss: float = 0.0
    seed: int = SEED

    def ways(self, role: str) -> dict[str, dict[str, float]]:
        """What the wire of a role does to what its host sends (egress) and gets (ingress)."""
        network = {"loss": self.loss, "reorder": self.reorder, "delay": self.delay}
        alone = {**NOTHING, "loss": self.replica_loss}
        both = {"egress": network, "ingress": network} if role == CLIENT else {"egress": alone, "ingress": NOTHING}
        number = ROLES.index(role) * 2
        return {way: {**does, "seed": self.seed + number + i} for i, (way, does) in enumerate(both.items())}

    @property
    def roles(self) -> tuple[str, ...]:
        """The hosts that need a wire."""
        network = max(self.loss, self.reorder, self.delay) > 0
        return (CLIENT,) * network + REPLICAS * (self.replica_loss > 0)

    def __str__(self) -> str:
        said = f"{self.loss:.1%} lost, {self.reorder:.1%} reordered, {self.delay * 1000:g} ms"
        alone = f", {self.replica_loss:.1%} of each replica's" if self.replica_loss else ""
        return f"{said}{alone}, seed {self.seed}"


def device_commands(namespace: str) -> list[list[str]]:
    """How the pipeline's TAP of a wire is made; it answers nothing itself."""
    ip = ["ip", "-n", namespace]
    return [
        [*ip, "tuntap", "add", "dev", WIRE_TAP, "mode", "tap"],
        [*ip, "link", "set", WIRE_TAP, "txqueuelen", str(TAP_QUEUE), "arp", "off"],
        [*ip, "link", "set", WIRE_TAP, "up"],
    ]


class Wires:
    """The wires of a scene; they are processes of its book, so whoever removes the lab ends them."""

    def __init__(self, scene: Scene, impairment: Impairment) -> None:
        self._scene = scene
        self._impairment = impairment
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Make them and wait until they pass frames."""
        for role in self._impairment.roles:
            for command in device_commands(self._scene.namespace(role)):
                host.run(*command)
            ways = self._impairment.ways(role)
            log = self._scene.directory / f"wire-{role}.log"
            command = [sys.executable, "-m", "tools.lab.wire", "--tap", TAP, "--device", WIRE_TAP]
            for way, does in ways.items():
                command += [f"--{way}", json.dumps(does)]
            command += ["--counts", str(self._counts(role))]
            environment = {"PYTHONPATH": str(REPOSITORY)}
            self._running[role] = self._scene.spawn(self._scene.inside(role, *command), log, environment)
        for role, process in self._running.items():
            self._await(role, process)

    def _await(self, role: str, process: subprocess.Popen[bytes]) -> None:
        file = self._counts(role)
        host.wait_until(lambda: file.exists() or process.poll() is not None, 60, f"the {role}'s wire")
        if process.poll() is not None:
            said = (self._scene.directory / f"wire-{role}.log").read_text().strip()
            raise host.LabError(f"the {role}'s wire ended with {process.returncode}: {said}")

    def _counts(self, role: str) -> Path:
        return self._scene.directory / f"wire-{role}.json"

    def stop(self) -> dict[str, dict[str, dict[str, int]]]:
        """End them; what each did, by role, way and count."""
        done = {}
        for role, process in self._running.items():
            process.terminate()
            if process.wait(60) != 0:
                said = (self._scene.directory / f"wire-{role}.log").read_text().strip()
                raise host.LabError(f"the {role}'s wire ended with {process.returncode}: {said}")
            done[role] = json.loads(self._counts(role).read_text())
        return done
