"""Whether a pipeline does what it is there for, and if not, why: pure, over what `pipeline.status` has read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.children import State

Losses = Mapping[str, Iterable[str]]


def reasons(
    state: str, stages: Sequence[Mapping[str, Any]], rates: Mapping[str, Mapping[str, float]], losses: Losses
) -> list[str]:
    """Why the pipeline is not healthy, the gravest first; nothing where it is.

    ``rates``: counters per second; ``losses``: by stage, those of its counters that say, where they grow, that
    something is lost or left undone (`stages.kind.Kind.losses`).
    """
    found = [] if state == "RUNNING" else [f"the pipeline is {state}"]
    found += [_not_running(stage) for stage in stages if stage["state"] != State.RUNNING]
    running = [stage for stage in stages if stage["state"] == State.RUNNING]
    found += [f"{stage['id']}: {stage['link']}" for stage in running if stage["link"]]
    found += [f"{stage['id']}: off" for stage in stages if stage["status"] == "off"]
    found += [f"{stage['id']}: {stage['notes'][1]}" for stage in running if stage["notes"]]
    for stage in running:
        own = rates.get(stage["id"], {})
        growing = [f"{name} {own[name]:,.1f}/s" for name in losses.get(stage["id"], ()) if own.get(name, 0) > 0]
        if growing:
            found.append(f"{stage['id']}: dropping: {', '.join(growing)}")
    return found


def _not_running(stage: Mapping[str, Any]) -> str:
    """A stage's state, and what it waits for or why it ended."""
    why = ""
    if stage["state"] == State.STARTING:
        why = stage["link"] if stage["pid"] else "kernels are loaded or compiled for it"
    elif stage["state"] != State.STOPPED:
        why = stage["reason"]
    return f"{stage['id']}: {stage['state']}" + (f", {why}" if why else "")
