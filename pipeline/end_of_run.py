"""Whether a run has come to its end: the input was read, nothing is held, all rings are empty and nothing moves.

Looked at from outside, through the segments."""

from __future__ import annotations

from typing import Final

from pipeline.graph import Graph
from pipeline.segments import RingHeader, Segments
from ring import layout

LOOK_NS: Final = 20_000_000
"""Between two looks; a stage that has something to do is at it within a fraction of that."""
_LOOKS: Final = 3


class EndOfRun:
    """Counts looks at which nothing had moved since the look before."""

    def __init__(self, graph: Graph, segments: Segments) -> None:
        self._segments = segments
        self._consumers = {ring.id: ring.consumer[0] for ring in graph.rings}
        self._inputs = [s.id for s in graph.stages if s.source and s.kind.finite]
        self._gauges = [
            (name, i)
            for name, kind in ((s.id, s.kind) for s in graph.stages)
            for i, counter in enumerate(kind.all_counters)
            if counter is not None and counter.name in kind.gauges
        ]
        self._looks: list[tuple[int, int]] = []

    @property
    def near(self) -> bool:
        """Whether the last look found nothing moving: look again soon."""
        return bool(self._looks)

    def forget(self) -> None:
        """Start counting again."""
        self._looks.clear()

    def input_ended(self) -> bool:
        """Whether every finite input was read to its end and nobody holds a packet back."""
        stages = self._segments.stages
        if any(int(stages[name].w[layout.LIFE_FINISHED]) != 1 for name in self._inputs):
            return False
        return all(stages[name].counters()[i] == 0 for name, i in self._gauges)

    def waits_for(self, stopped: set[str]) -> list[str]:
        """Those ``stopped`` stages without which the end cannot come, once all else has been read."""
        unread = [name for name in self._inputs if int(self._segments.stages[name].w[layout.LIFE_FINISHED]) != 1]
        if not stopped or not stopped.issuperset(unread):
            return []
        behind = [self._consumers[ring] for ring, header in self._segments.rings.items() if not _is_empty(header)]
        holds = [name for name, i in self._gauges if self._segments.stages[name].counters()[i]]
        return sorted(stopped.intersection([*unread, *behind, *holds]))

    def look(self, now: int) -> bool:
        """Look; whether all rings were empty and no burst was committed at several looks in a row."""
        if not all(map(_is_empty, self._segments.rings.values())):
            self._looks.clear()
            return False
        bursts = sum(int(stage.w[layout.COMMITTED]) for stage in self._segments.stages.values())
        if self._looks and self._looks[-1][1] != bursts:
            self._looks.clear()
        if not self._looks or now - self._looks[-1][0] >= LOOK_NS:
            self._looks.append((now, bursts))
        return len(self._looks) >= _LOOKS


def _is_empty(ring: RingHeader) -> bool:
    # Behind a consumer whose outside peer is gone nothing can go on: no use in waiting for it.
    return ring.used == 0 or not int(ring.w[layout.C_LINK]) & 1
