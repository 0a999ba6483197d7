"""What people see of a running pipeline: `snapshot` for the control socket, the live view and the summary; `profile`.

Everything is read from shared memory and /proc: no stage is asked, none is slowed down.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline import health
from pipeline.children import Child
from pipeline.graph import Graph, Ring, StageNode
from pipeline.processes import cpu_seconds, rss_bytes
from pipeline.segments import Segments
from ring import layout
from ring.ledger import percentile
from stages.kind import Kind, Look

STATUS_KEYS: Final = ("name", "state", "health", "reasons", "stages", "rings", "counters")
"""Keys of ``status --json``; a snapshot has some more."""

SAMPLE_NS: Final = 500_000_000
_KEPT: Final = 4  # rates are over the last 1.5 to 2 s


@dataclass
class Sample:
    """Cumulative figures at one moment: by stage (counters, busy ns, cycles, sleeps), by pid (CPU seconds)."""

    at: int
    counters: dict[str, list[int]] = field(default_factory=dict)
    life: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    cpu: dict[int, float] = field(default_factory=dict)


class Looker:
    """Looks at the segments of a graph's stages; ``children`` are by process."""

    def __init__(self, name: str, graph: Graph, segments: Segments, children: Mapping[str, Child]) -> None:
        self._name, self._graph, self._segments, self._children = name, graph, segments, children
        self._kinds: dict[str, Kind] = {stage.id: stage.kind for stage in graph.stages}
        self._samples: deque[Sample] = deque(maxlen=_KEPT)

    def sample(self, now: int) -> Sample:
        """Look once."""
        taken = Sample(now)
        for name, segment in self._segments.stages.items():
            w = segment.w
            taken.counters[name] = segment.counters()
            taken.life[name] = (int(w[layout.LIFE_BUSY_NS]), int(w[layout.LIFE_CYCLES]), int(w[layout.LIFE_SLEEPS]))
        for child in self._children.values():
            if child.pid:
                taken.cpu[child.pid] = cpu_seconds(child.pid)
        return taken

    def keep(self, now: int) -> None:
        """Remember a look for rates, at most one each SAMPLE_NS."""
        if not self._samples or now - self._samples[-1].at >= SAMPLE_NS:
            self._samples.append(self.sample(now))

    def counters(self, values: Mapping[str, list[int]]) -> dict[str, dict[str, int]]:
        """Counters by stage and name."""
        return {
            name: {c.name: values[name][i] for i, c in enumerate(kind.all_counters) if c is not None}
            for name, kind in self._kinds.items()
        }

    def snapshot(self, state: str, now: int, started: int) -> dict[str, Any]:
        """``status --json`` and, beside it, pid, uptime_s and rates (counters by stage, per second)."""
        new = self.sample(now)
        old = self._samples[0] if self._samples else new
        seconds = (now - old.at) / 1e9
        counters, before = self.counters(new.counters), self.counters(old.counters)
        rates = {
            stage: {name: (value - before[stage][name]) / seconds if seconds else 0.0 for name, value in own.items()}
            for stage, own in counters.items()
        }
        stages = [self._stage(node, counters[node.id], new, old, seconds) for node in self._graph.stages]
        losses = {stage: kind.losses for stage, kind in self._kinds.items()}
        reasons = health.reasons(state, stages, rates, losses)
        return {
            "name": self._name,
            "state": state,
            "health": "not healthy" if reasons else "healthy",
            "reasons": reasons,
            "pid": os.getpid(),
            "uptime_s": round((now - started) / 1e9, 3),
            "stages": stages,
            "rings": [self._ring(ring) for ring in self._graph.rings],
            "counters": counters,
            "rates": rates,
        }

    def _stage(
        self, node: StageNode, counters: Mapping[str, int], new: Sample, old: Sample, seconds: float
    ) -> dict[str, Any]:
        child, w = self._children[node.process], self._segments.stages[node.id].w
        spent = new.cpu.get(child.pid, 0.0)
        up = child.up and child.pid != 0
        since = (new.at - child.started_ns) / 1e9 if up else 0.0
        # A process younger than the window has no old figure: then its whole life is the window.
        window = seconds if child.pid in old.cpu and seconds else since
        cpu = 100 * (spent - (old.cpu.get(child.pid, 0.0) if seconds else 0.0)) / window if up and window > 0 else 0.0
        busy = (new.life[node.id][0] - old.life[node.id][0]) / 1e7 / seconds if seconds else 0.0
        scalars = self._segments.stages[node.id].scalars()
        shown = node.kind.shows(Look(node.params, counters, scalars, new.at))
        return {
            "id": node.id,
            "type": node.type,
            "kind": node.kind.name,
            "process": node.process,
            "pid": child.pid or None,
            "state": str(child.state),
            "epoch": int(w[layout.STAGE_EPOCH]),
            "restarts": child.restarts,
            "uptime_s": round(since, 3),
            "cpu_percent": round(cpu, 1),
            "rss_bytes": rss_bytes(child.pid) if child.pid else 0,
            "busy_percent": round(busy, 2),
            "status": "on" if int(w[layout.CMD_STATUS]) else "off",
            "reason": child.reason,
            "link": self._link(node),
            **shown.fields,
            "notes": [shown.short, shown.long] if shown.short else [],
        }

    def _link(self, node: StageNode) -> str:
        """What is wrong with a stage's link to the outside, empty where it is up or there is none."""
        if not node.kind.connects:
            return ""
        takes = [self._segments.rings[ring].w for ring in node.outputs.values()]
        gives = [self._segments.rings[ring].w for ring in node.inputs.values()]
        up = any(int(w[layout.P_LINK]) & 1 or w[layout.P_OFFERED] for w in takes)
        if up or any(int(w[layout.C_LINK]) & 1 for w in gives):
            return ""
        return f"not connected: {node.kind.address(node.params)}"

    def _ring(self, ring: Ring) -> dict[str, Any]:
        header = self._segments.rings[ring.id]
        w = header.w
        return {
            "id": ring.id,
            "size": ring.size,
            "used": header.used,
            "producer": ".".join(ring.producer),
            "consumer": ".".join(ring.consumer),
            "vnet": bool(ring.vnet),
            "bytes": int(w[layout.TAIL]),
            "connected": bool((int(w[layout.P_LINK]) & 1 or w[layout.P_OFFERED]) and int(w[layout.C_LINK]) & 1),
        }

    def profile(self, now: int) -> dict[str, Any]:
        """Where the time goes: by stage over the last seconds, by ring since its segment was made."""
        new = self.sample(now)
        old = self._samples[0] if self._samples else new
        seconds = (now - old.at) / 1e9
        stages = []
        for node in self._graph.stages:
            busy, cycles, sleeps = (a - b for a, b in zip(new.life[node.id], old.life[node.id], strict=True))
            moved = [a - b for a, b in zip(new.counters[node.id], old.counters[node.id], strict=True)]
            frames = max(sum(moved[: layout.PORTS]), sum(moved[layout.PORTS : 2 * layout.PORTS]))
            stages.append(
                {
                    "id": node.id,
                    "busy_percent": round(busy / 1e7 / seconds, 2) if seconds else 0.0,
                    "frames_s": round(frames / seconds, 1) if seconds else 0.0,
                    "ns_frame": round(busy / frames, 1) if frames else None,
                    "frames_burst": round(frames / cycles, 2) if cycles else None,
                    "sleeps_s": round(sleeps / seconds, 1) if seconds else 0.0,
                }
            )
        rings = []
        for ring in self._graph.rings:
            stage, port = ring.consumer
            histogram = self._segments.stages[stage].histogram(self._kinds[stage].inputs.index(port))
            rings.append(
                {
                    "id": ring.id,
                    "samples": int(histogram.sum()),
                    "p50_ns": percentile(histogram, 0.5),
                    "p99_ns": percentile(histogram, 0.99),
                }
            )
        return {"seconds": round(seconds, 3), "stages": stages, "rings": rings}
