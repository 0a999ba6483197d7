"""The summary at the end of a run: tables that add up, or the equation that does not.

Two kinds of equations are checked: what the producer of each ring put in is what its consumer took (and what is still
inside); and the laws of each kind of stage (`Kind.balances`).  The text depends on the frames alone: no times, no pids;
after a run with kills only the restarts differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.columns import columns
from pipeline.graph import Graph
from stages.kind import Kind

_LEAST_RECORD: Final = 4  # a record is at least its length word
_DROPPED: Final = "dropped_"  # how every counter of frames that went nowhere begins


@dataclass(frozen=True)
class Summary:
    """What to print at the end.

    ``text`` is the same for every run over the same frames; ``elapsed`` is a line of its own; ``wrong`` are the
    equations that do not hold, with their numbers (they stand in the text too).
    """

    text: str
    elapsed: str
    wrong: tuple[str, ...]

    @property
    def balanced(self) -> bool:
        """Whether everything adds up."""
        return not self.wrong


@dataclass(frozen=True)
class Equation:
    """``left = right``, each a list of (name, value)."""

    where: str
    label: str
    left: tuple[tuple[str, int], ...]
    right: tuple[tuple[str, int], ...]

    @property
    def holds(self) -> bool:
        """Whether both sides have the same sum."""
        return sum(v for _, v in self.left) == sum(v for _, v in self.right)

    def __str__(self) -> str:
        left, right = (sum(v for _, v in side) for side in (self.left, self.right))
        sign = "=" if self.holds else "≠"
        return f"{self.where}: {self.label}: {_terms(self.left, left)} {sign} {_terms(self.right, right)}"


def _terms(side: Sequence[tuple[str, int]], total: int) -> str:
    """``1,000 (matched 998 + held 2)``: the sum and its terms that are not zero."""
    parts = [f"{name} {value:,}" for name, value in side if value]
    return f"{total:,} ({' + '.join(parts)})" if parts else f"{total:,}"


def summarise(graph: Graph, snapshot: Mapping[str, Any], *, ran: bool = True) -> Summary:
    """Summarise the last `status --json` snapshot of a run of ``graph``; ``ran``: whether there was one."""
    counters: Mapping[str, Mapping[str, int]] = snapshot["counters"]
    wrong = [f"{stage.id}: its counters are missing" for stage in graph.stages if stage.id not in counters]
    rows = _ring_rows(graph, snapshot)
    wrong += [problem for row in rows for problem in row.problems]
    laws = [law for stage in graph.stages for law in _laws(stage.id, stage.kind, counters.get(stage.id, {}))]
    wrong += [str(law) for law in laws if not law.holds]
    parts = [
        f"summary of {snapshot['name']}",
        _stage_table(graph, snapshot),
        _ring_table(rows),
        *_drops(graph, counters),
        *_summaries(graph, counters),
        _last_line(len(rows), len(laws), wrong) if ran or wrong else "nothing ran: no frame was moved",
    ]
    times = [float(part.get("uptime_s") or 0) for part in (snapshot, *snapshot["stages"])]
    return Summary("\n\n".join(parts), f"ran for {max(times):.1f} s", tuple(wrong))


@dataclass(frozen=True)
class _RingRow:
    id: str
    consumer: str
    put: int
    taken: int
    used: int

    @property
    def problems(self) -> list[str]:
        inside = self.put - self.taken
        where = f"ring {self.id} → {self.consumer}: put in {self.put:,}, taken {self.taken:,}"
        if inside < 0:
            return [f"{where}: {-inside:,} frames more were taken than put in"]
        if inside == 0 and self.used:
            return [f"{where}, but {self.used:,} bytes are still inside"]
        if inside * _LEAST_RECORD > self.used:
            return [f"{where}: {inside:,} frames should be inside, but only {self.used:,} bytes are"]
        return []


def _ring_rows(graph: Graph, snapshot: Mapping[str, Any]) -> list[_RingRow]:
    counters = snapshot["counters"]
    used = {ring["id"]: int(ring["used"]) for ring in snapshot["rings"]}

    def frames(stage: str, port: str) -> int:
        return int(counters.get(stage, {}).get(f"{port}_frames", 0))

    return [
        _RingRow(r.id, str(r.consumer), frames(*r.producer), frames(*r.consumer), used.get(r.id, 0))
        for r in graph.rings
    ]


def _ring_table(rows: Iterable[_RingRow]) -> str:
    shown = [(f"{r.id} → {r.consumer}", f"{r.put:,}", f"{r.taken:,}", f"{r.put - r.taken:,}") for r in rows]
    return "\n".join(columns(shown, heads=("ring", "put in", "taken", "inside")))


def _laws(stage: str, kind: Kind, counters: Mapping[str, int]) -> Iterable[Equation]:
    for law in kind.balances:
        left, right = (tuple((name, int(counters.get(name, 0))) for name in side) for side in (law.left, law.right))
        yield Equation(stage, law.label, left, right)


def _stage_table(graph: Graph, snapshot: Mapping[str, Any]) -> str:
    restarts = {stage["id"]: stage["restarts"] for stage in snapshot["stages"]}
    rows = []
    for stage in graph.stages:
        kind, counters = stage.kind, snapshot["counters"].get(stage.id, {})
        taken, put = (sum(counters.get(f"{port}_frames", 0) for port in ports) for ports in (kind.inputs, kind.outputs))
        rows.append((stage.id, stage.type, str(restarts.get(stage.id, 0)), f"{taken:,}", f"{put:,}"))
    return "\n".join(columns(rows, heads=("stage", "type", "restarts", "frames in", "frames out")))


def _drops(graph: Graph, counters: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A table of everything that was dropped, by reason, with the reason's sentence; nothing where nothing was."""
    rows = []
    for stage in graph.stages:
        for counter in stage.kind.all_counters:
            if counter is not None and counter.name.startswith(_DROPPED):
                value = counters.get(stage.id, {}).get(counter.name, 0)
                if value:
                    rows.append((stage.id, counter.name, f"{value:,}", counter.sentence))
    if not rows:
        return ["dropped: nothing"]
    return ["\n".join(["dropped, by reason", *(f"  {line}" for line in columns(rows))])]


def _summaries(graph: Graph, counters: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Of each stage whose kind sums up: its laws, and its line."""
    lines = []
    for stage in graph.stages:
        if stage.kind.summary is not None:
            mine = counters.get(stage.id, {})
            lines += [str(law) for law in _laws(stage.id, stage.kind, mine)]
            lines.append(stage.kind.summary(stage.id, mine))
    return ["\n".join(lines)] if lines else []


def _last_line(rings: int, laws: int, wrong: Sequence[str]) -> str:
    if wrong:
        return "\n".join(["DOES NOT ADD UP:", *(f"  {problem}" for problem in wrong)])
    return f"everything adds up: {rings:,} rings and {laws:,} laws of stages"
