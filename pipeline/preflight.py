"""Before anything is made: what cannot get better by itself, as the kinds say of their stages."""

from __future__ import annotations

from typing import Any


class NotReady(Exception):
    """What keeps stages from starting, a line each."""


def look(graph: Any) -> None:
    """Ask every stage's kind.  Raises `NotReady`."""
    found = [f"{stage.id}: {why}" for stage in graph.stages for why in stage.kind.preflight(stage.params)]
    if found:
        raise NotReady("\n".join(f"cannot start: {line}" for line in found))
