"""The live view: what a running pipeline does, in a terminal, at most four times a second.

It draws what `status --json` says and computes rates from one snapshot to the next.  The supervisor calls ``refresh``
from its loop as often as it likes.  Lines given to ``above``, or written to ``sys.stdout`` and ``sys.stderr``, appear
above it.  On a `Screen` nothing waits for the terminal: while that takes nothing (Ctrl-S), nothing is drawn.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, Group, JustifyMethod
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline import log
from pipeline.outlet import Outlet
from pipeline.streams import SHOWN
from stages import catalog

PERIOD_S: Final = 0.25
"""The shortest time between two drawings."""

_BAR: Final = 6
_WIDE: Final = 92  # from this width on types are written out
_NARROW: Final = 72  # below it they are left out
_FIXED_LINES: Final = 5  # heading, column names, "more stages", totals, and one line left free
RUNNING: Final = "RUNNING"
_COLOURS: Final = {
    RUNNING: "green",
    "STARTING": "yellow",
    "STOPPING": "yellow",
    "BACKOFF": "bold yellow",
    "FATAL": "bold red",
}

Snapshot = Mapping[str, Any]


@dataclass(frozen=True)
class Traffic:
    """Frames that a stage has taken in and put out."""

    taken: int
    put: int


def traffic(stage: Mapping[str, Any], counters: Mapping[str, int]) -> Traffic:
    """Sum a stage's port counters; its ``kind`` says which ports are inputs."""
    kind = catalog.kind(stage["kind"])
    taken = sum(counters.get(f"{port}_frames", 0) for port in kind.inputs)
    return Traffic(taken, sum(counters.get(f"{port}_frames", 0) for port in kind.outputs))


def totals(snapshot: Snapshot) -> dict[str, int]:
    """The figures that the kinds of the stages want in the last line, by word, and what all stages dropped.

    Where kinds share a word, the greatest: they count the same events.
    """
    counters = snapshot["counters"]
    found: dict[str, list[int]] = {}
    for name, stages in groupby(sorted(snapshot["stages"], key=itemgetter("kind")), key=itemgetter("kind")):
        tables = [counters.get(stage["id"], {}) for stage in stages]
        for line in catalog.kind(name).headlines:
            values = [sum(table.get(counter, 0) for counter in line.counters) for table in tables]
            found.setdefault(line.word, []).append(max(values) if line.once else sum(values))
    lost = sum(v for table in counters.values() for name, v in table.items() if name.startswith("dropped_"))
    words = dict.fromkeys(line.word for kind in catalog.kinds() for line in kind.headlines)
    return {**{word: max(found.get(word, [0])) for word in words}, "dropped": lost}


def _warning_words() -> set[str]:
    return {"dropped", *(line.word for kind in catalog.kinds() for line in kind.headlines if line.warns)}


def short(n: float) -> str:
    """A number in at most six characters: 12,345 123.4k 12.3M."""
    if n < 99_999.5:
        return f"{n:,.0f}"
    for unit in ("k", "M", "G"):
        n /= 1000
        if n < 999.95:
            return f"{n:.1f}{unit}"
    return f"{n:,.0f}G"


def bar(share: float) -> Text:
    """A fill bar of fixed width; an empty ring is drawn by spaces."""
    eighths = round(min(max(share, 0.0), 1.0) * _BAR * 8)
    if share > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    text = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if full < _BAR else "")
    return Text(text.ljust(_BAR), style="red" if share > 0.9 else "yellow" if share > 0.5 else "cyan")


def fullest_inputs(snapshot: Snapshot) -> dict[str, float]:
    """For each stage the fill of its fullest input ring, 0 to 1."""
    fill: dict[str, float] = {}
    for ring in snapshot["rings"]:
        stage = _stage_of(ring["consumer"], snapshot)
        share = ring["used"] / ring["size"] if ring["size"] else 0.0
        fill[stage] = max(fill.get(stage, 0.0), share)
    return fill


def _stage_of(end: str, snapshot: Snapshot) -> str:
    """The stage at an end of a ring, which is written as ``STAGE`` or ``STAGE.PORT``."""
    if any(stage["id"] == end for stage in snapshot["stages"]):
        return end
    return end.rpartition(".")[0]


class Screen(io.TextIOBase):
    """A terminal on standard output as a file that never waits and never fails; ``outlet`` writes to it."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self._encoding = sys.stdout.encoding or "utf-8"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of standard output."""
        return self._encoding

    def write(self, text: str) -> int:
        """Have it written."""
        self.outlet.offer(text.encode(self._encoding, SHOWN))
        return len(text)

    def isatty(self) -> bool:
        """It is one."""
        return True


class View:
    """The view itself; use it as a context manager, see `run_view`."""

    def __init__(self, snapshot: Callable[[], Snapshot], console: Console, clock: Callable[[], float]) -> None:
        self._snapshot, self._console, self._clock = snapshot, console, clock
        self._screen = console.file if isinstance(console.file, Screen) else None
        self._lines = FileProxy(console, io.StringIO())
        self._drawn: float | None = None
        self._seen: tuple[float, dict[str, Traffic]] | None = None
        # Transient: when the view goes, the screen is free for the summary.
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def refresh(self, *, force: bool = False) -> bool:
        """Draw a fresh snapshot, unless the last drawing is less than `PERIOD_S` old; whether it drew."""
        now = self._clock()
        if not force and self._drawn is not None and now - self._drawn < PERIOD_S:
            return False
        if self._screen is not None:
            if not self._screen.outlet.idle:
                return False
            if (lost := self._screen.outlet.take_refused()).count:
                self.above(log.lost(lost.count, lost.reason))
        self._drawn = now
        self._live.update(self.draw(self._snapshot(), now), refresh=True)
        return True

    def draw(self, snapshot: Snapshot, now: float) -> Group:
        """What the terminal shows for a snapshot taken at ``now`` (seconds, monotonic)."""
        moved = {s["id"]: traffic(s, snapshot["counters"].get(s["id"], {})) for s in snapshot["stages"]}
        before_at, before = self._seen or (now, moved)
        self._seen = (now, moved)
        elapsed = now - before_at

        def rate(stage: str) -> float:
            if elapsed <= 0 or stage not in before:
                return 0.0
            new, old = moved[stage], before[stage]
            return max(new.taken - old.taken, new.put - old.put, 0) / elapsed

        stages = list(snapshot["stages"])
        most = max(self._console.size.height - _FIXED_LINES, 1)
        shown = _choose(stages, most)
        fill = fullest_inputs(snapshot)
        width = self._console.size.width
        table = _empty_table(width)
        for stage in shown:
            name = stage["id"]
            kind = stage["type"] if width >= _WIDE else stage["type"].rpartition("-")[2]
            table.add_row(
                name,
                *([kind] if width >= _NARROW else []),
                Text(stage["state"], style=_COLOURS.get(stage["state"], "dim")),
                f"{stage['epoch']}/{stage['restarts']}",
                short(rate(name)),
                f"{stage['cpu_percent']:.0f}",
                short(moved[name].taken),
                short(moved[name].put),
                bar(fill.get(name, 0.0)),
            )
        heading = Text(f"{snapshot['name']} ", style="bold").append(snapshot["state"], style="not bold")
        hidden = [stage for stage in stages if stage not in shown]
        well = ", all RUNNING" if all(stage["state"] == RUNNING for stage in hidden) else ""
        more = [Text(f"… and {len(hidden)} more stages{well}", style="dim")] if hidden else []
        return Group(_one_line(heading), table, *map(_one_line, more), _one_line(_totals_line(snapshot)))

    def above(self, text: str) -> None:
        """Show whole lines above the picture."""
        self._lines.write(text if text.endswith("\n") else f"{text}\n")

    def __enter__(self) -> Self:
        self._live.start()
        try:
            self.refresh(force=True)
        except BaseException:
            self._live.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._live.stop()


def _choose(stages: list[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """The stages that fit, in their order; those that do not run come before those that do."""
    by_need = sorted(range(len(stages)), key=lambda i: (stages[i]["state"] == RUNNING, i))
    return [stages[i] for i in sorted(by_need[:most])]


def _empty_table(width: int) -> Table:
    """The columns, as wide as they may become; the stage's id gets what is left."""
    fixed = [("state", 8), ("ep/re", 5), ("pkt/s", 6), ("cpu%", 4), ("in", 6), ("out", 6), ("queue", _BAR)]
    if width >= _NARROW:
        fixed.insert(0, ("type", 17 if width >= _WIDE else 10))
    left = width - sum(size + 1 for _, size in fixed) - 1
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("stage", no_wrap=True, overflow="ellipsis", width=min(max(left, 4), 28))
    for name, size in fixed:
        side: JustifyMethod = "left" if name in ("type", "state", "queue") else "right"
        table.add_column(name, no_wrap=True, overflow="ellipsis", justify=side, width=size)
    return table


def _totals_line(snapshot: Snapshot) -> Text:
    line = Text()
    for name, value in totals(snapshot).items():
        style = "bold yellow" if value and name in _warning_words() else "bold"
        line.append(f"{name} ").append(f"{value:,}", style=style).append("   ")
    for stage in snapshot["stages"]:
        if stage["notes"]:
            line.append(f"{stage['id']}: {stage['notes'][0]}", style="bold red").append("   ")
    line.rstrip()
    return line


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def run_view(
    snapshot: Callable[[], Snapshot], console: Console | None = None, clock: Callable[[], float] = time.monotonic
) -> View:
    """A live view of ``snapshot()`` (the `status --json` data) as a context manager with ``refresh()``.

    It leaves the terminal as it was, also after an exception.  A logger must look up ``sys.stderr`` when it writes, or
    its lines go through the picture.
    """
    return View(snapshot, console or Console(), clock)
