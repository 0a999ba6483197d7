"""The last line of a run: whether it was good, if not why, and what to type next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.graph import Graph
from pipeline.handlers import shortfall
from pipeline.summary import Summary

if TYPE_CHECKING:
    from pipeline.supervisor import Supervisor


def ending(graph: Graph, run: Supervisor, summary: Summary, *, lost: int = 0, why_lost: str = "") -> str:
    """The line about a run that is over; ``lost`` log lines could not be written."""
    wrong, then = _wrong(graph, run, summary)
    counters = run.snapshot()["counters"]
    told = [stage.kind.outcome(stage.params, counters.get(stage.id, {})) for stage in graph.stages]
    facts = [text.replace("python -m", f"{python()} -m") for text in told if text]
    if lost:
        facts.append(f"{lost:,} log lines were lost ({why_lost})")
    if not wrong:
        early = " before every stage was ready" if run.called_off else ""
        return f"good: {'; '.join([(run.ended or 'it has ended') + early, *facts])}"
    return f"not good: {'; '.join([*wrong, *facts])}. Next: {then}"


def _wrong(graph: Graph, run: Supervisor, summary: Summary) -> tuple[list[str], str]:
    """What was not good, and what to do about the first of it."""
    wrong, then = [], []
    if run.failure:
        name, _, why = run.failure.partition(": ")
        wrong.append(f"{name} was given up: {why}")
        more = f"{python()} -m pipeline.supervisor {shlex.quote(graph.config.path)} --log-level debug"
        then.append(f"the log's lines of {name}; for more of them {more}")
    elif not run.ran and not run.called_off:
        wrong.append("nothing ran: it was stopped before every stage was ready")
        then.append("start it again; the first start takes longer, while kernels are compiled")
    if run.undelivered:
        wrong.append(shortfall(run.undelivered))
        then.append("see that the peers of these rings take what is sent; or a longer shutdown_ms in [supervisor]")
    if summary.wrong:
        wrong.append(f"the account does not add up, see above ({len(summary.wrong)} wrong)")
        then.append("this is a fault of COLO-proxy: please keep the log and this summary, and report it")
    return wrong, then[0] if then else ""


def python() -> str:
    """What a person types for this interpreter."""
    here, own = shutil.which("python"), Path(sys.executable)
    if here is not None and Path(here) == own:
        return "python"
    try:
        return shlex.quote(str(own.relative_to(os.getcwd())))
    except (OSError, ValueError):
        return shlex.quote(str(own))
