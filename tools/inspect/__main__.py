"""Look into the shared memory of a pipeline, running or dead: every table, its words by name.

Nothing is asked of the pipeline, and nothing is written.  Exit status: 0 shown; 1 something cannot be shown; 2 the
command line names what is not there.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
from collections.abc import Sequence
from typing import Any, Final

from pipeline.stdout import show
from tools.inspect import render
from tools.inspect.memory import Found, NotShownError, pipeline, pipelines
from tools.inspect.tables import Looked, Row, View, look
from tools.inspect.where import condition

_LIMIT: Final = 50
_EXAMPLES: Final = """\
  python -m tools.inspect                                   pipelines, running and dead
  python -m tools.inspect NAME                              its stages, tables and rings
  python -m tools.inspect NAME comp0                        a stage (or a ring): small tables in full
  python -m tools.inspect NAME comp0 connections            a table: the rows in use
  python -m tools.inspect NAME comp0 connections 7          one row, with what its words mean
  python -m tools.inspect NAME comp0 connections --where key=10.0.0.1 --where 'seen<2s'
  python -m tools.inspect NAME comp0 connections --where flags=DIVERGED --where count.packets!=0
"""


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.inspect",
        description="Look into the shared memory of a pipeline, running or dead. Nothing in it is changed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a pipeline")
    parser.add_argument("segment", nargs="?", metavar="STAGE", help="the id of one of its stages, or rings")
    parser.add_argument("table", nargs="?", metavar="TABLE")
    parser.add_argument("row", nargs="?", type=int, metavar="ROW", help="number of a row")
    parser.add_argument(
        "--where", action="append", default=[], metavar="FIELD=VALUE",
        help="only such rows; also != < > <= >=; several: all must hold; values as they are shown",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="all fields, however wide")
    parser.add_argument("--limit", type=int, default=_LIMIT, metavar="N", help=f"rows shown at most ({_LIMIT})")
    parser.add_argument("--json", action="store_true", help="data")
    args = parser.parse_args(argv)
    if args.table is None and args.where:
        parser.error("--where needs a TABLE")
    if args.row is not None and args.where:
        parser.error("either a ROW or --where")
    if args.limit < 1:
        parser.error("--limit: a number from 1 on")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; the exit status."""
    args = _arguments(argv)
    try:
        return show("tools.inspect", lambda: _inspect(args))
    except NotShownError as error:
        sys.stdout.flush()
        print(f"tools.inspect: {error}", file=sys.stderr)
        return error.status


def _inspect(args: argparse.Namespace) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no UTF-8
    if args.name is None:
        known = pipelines()
        _put(render.all_data(known) if args.json else render.all_lines(known))
        return 0
    places = pipeline(args.name)
    if args.segment is None:
        overview = render.Overview(args.name, places)
        _put(overview.data() if args.json else overview.lines())
        return int(bool(overview.troubles))
    looked = look(_place(args.segment, places), places)
    if args.table is None:
        _put(render.segment_data(looked) if args.json else render.segment_lines(looked, _width()))
        return 0
    view = looked.view(args.table)
    number = 0 if args.row is None and view.small and not args.where else args.row
    if number is None:
        _put(_rows(looked, view, args))
    else:
        _put(_row(looked, view, number, args))
    return 0


def _put(what: dict[str, Any] | list[str]) -> None:
    print(json.dumps(what) if isinstance(what, dict) else "\n".join(what))


def _width() -> int:
    return shutil.get_terminal_size((120, 24)).columns


def _place(wanted: str, places: list[Found]) -> Found:
    """The stage of that id, else the ring."""
    for place in sorted(places, key=lambda place: place.ring):
        if place.id == wanted:
            return place
    stages = ", ".join(place.id for place in places if not place.ring) or "none"
    rings = ", ".join(place.id for place in places if place.ring) or "none"
    name = places[0].pipeline
    raise NotShownError(f"{name} has no stage or ring {wanted!r}; stages: {stages}; rings: {rings}", status=2)


def _row(looked: Looked, view: View, number: int, args: argparse.Namespace) -> dict[str, Any] | list[str]:
    count = view.count
    if not 0 <= number < count:
        rows = f"rows 0 to {count - 1:,}" if count else "no rows, as it is not laid out yet"
        raise NotShownError(f"{view.name} of {looked.memory.place.id} has no row {number}: it has {rows}", status=2)
    row, shows = view.row(number), render.shower(looked)
    used = view.in_use(row)
    if args.json:
        return render.head_data(looked) | {"table": view.name, "live": used} | render.row_data(view, row, shows)
    place = looked.memory.place
    head = f"{place.pipeline} {place.id} {view.name}" + ("" if view.small else f" {number}")
    head += (f" ({row.which})" if row.which else "") + ("" if used else ": not in use")
    return [head, *render.row_lines(view, row, shows, _width())]


def _rows(looked: Looked, view: View, args: argparse.Namespace) -> dict[str, Any] | list[str]:
    shows = render.shower(looked)
    conditions = [condition(text, view, shows) for text in args.where]
    confirmed = isinstance(view.table.live, str)
    rows: list[Row] = []
    total = 0
    for number in view.live():
        if not conditions and len(rows) == args.limit:
            total += 1
            continue
        row = view.row(number)
        if (confirmed and not view.in_use(row)) or not all(holds(row) for holds in conditions):
            continue  # given back meanwhile, or not wanted
        total += 1
        if len(rows) < args.limit:
            rows.append(row)
    if args.json:
        found = {"table": view.name, "capacity": view.count, "found": total}
        return render.head_data(looked) | found | {"rows": [render.row_data(view, row, shows) for row in rows]}
    place = looked.memory.place
    what = "found" if conditions else "in use"
    title = f"{place.pipeline} {place.id} {view.name}: {total:,} {what}, of {view.count:,} rows"
    width = None if args.all else _width()
    return [title, *render.table_lines(view, rows, shows, total=total, width=width)]


if __name__ == "__main__":
    sys.exit(main())
