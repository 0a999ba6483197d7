"""Who imports whom, as a house: ``python -m tools.structure [FOLDER] [--modules] [--arrows]``.

A *room* is a folder with all that lies in it but ``__init__.py``; modules beside the folders are one room, called by
the package's name (``--modules``: each module is a room).  An *arrow* is an import from one room of another, a *floor*
how many rooms stand below a room at most.  Arrows lead downwards; rooms that import each other in a circle share a
floor, and are named.  Imports are read as text, wherever in a file they stand; nothing is run.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.columns import columns
from pipeline.stdout import show
from pipeline.streams import complain

ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class House:
    """Rooms by name, each with the rooms that it imports, and the floor of each."""

    arrows: dict[str, set[str]]
    floors: dict[str, int]
    circles: list[list[str]]


def imports(path: Path, package: str) -> Iterator[str]:
    """Modules below ``package`` that a file imports, with the name taken of each."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(package))
        elif (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] == package.split(".", maxsplit=1)[0]
        ):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def build(folder: Path, *, modules: bool) -> House:
    """The house of a package's folder."""
    package = ".".join(folder.resolve().relative_to(ROOT).parts)
    files = {_module(path): path for path in sorted(folder.rglob("*.py")) if path.name != "__init__.py"}
    room = {name: name if modules else _room(name, package) for name in files}
    arrows: dict[str, set[str]] = {one: set() for one in room.values()}
    for name, path in files.items():
        for target in imports(path, package):
            # from package.module import name: the longest known beginning is the module
            known = next((one for one in (target, target.rpartition(".")[0]) if one in files), None)
            if known is not None and room[known] != room[name]:
                arrows[room[name]].add(room[known])
    circles = [group for group in _groups(arrows) if len(group) > 1]
    return House(arrows, _floors(arrows), circles)


def _module(path: Path) -> str:
    return ".".join(path.resolve().relative_to(ROOT).with_suffix("").parts)


def _room(module: str, package: str) -> str:
    """The folder below the package that a module lies in, or the package itself."""
    folder, dot, _ = module.removeprefix(f"{package}.").partition(".")
    return f"{package}.{folder}" if dot else package


def _groups(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Rooms that reach each other, together (Tarjan), those that are imported first."""
    found: list[list[str]] = []
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(room: str) -> None:
        number[room] = low[room] = len(number)
        stack.append(room)
        for other in sorted(arrows[room]):
            if other not in number:
                visit(other)
                low[room] = min(low[room], low[other])
            elif other in stack:
                low[room] = min(low[room], number[other])
        if low[room] == number[room]:
            at = stack.index(room)
            found.append(stack[at:])
            del stack[at:]

    for room in sorted(arrows):
        if room not in number:
            visit(room)
    return found


def _floors(arrows: dict[str, set[str]]) -> dict[str, int]:
    floors: dict[str, int] = {}
    for group in _groups(arrows):
        below = {other for room in group for other in arrows[room]} - set(group)
        floor = 1 + max((floors[other] for other in below), default=-1)
        floors |= dict.fromkeys(group, floor)
    return floors


def report(house: House, *, arrows: bool) -> list[str]:
    """The house in lines: the sum, then each floor from the top with its rooms."""
    height = max(house.floors.values(), default=-1) + 1
    count = sum(map(len, house.arrows.values()))
    lines = [f"{len(house.arrows)} rooms on {height} floors, {count} arrows, {len(house.circles)} circles"]
    lines += [f"circle: {', '.join(group)}" for group in house.circles]
    rows = []
    for floor in reversed(range(height)):
        for room in sorted(one for one, at in house.floors.items() if at == floor):
            rows.append((str(floor), room, ", ".join(sorted(house.arrows[room])) if arrows else ""))
    heads = ("floor", "room", "imports") if arrows else ("floor", "room", "")
    return [*lines, *columns(rows, heads=heads)]


def main(arguments: list[str] | None = None) -> int:
    """Print the house of a folder."""
    parser = argparse.ArgumentParser(prog="python -m tools.structure", description="Rooms, floors and arrows.")
    parser.add_argument("folder", nargs="?", default="stages", help="a package of this repository (default: stages)")
    parser.add_argument("--modules", action="store_true", help="a room for each module, not for each folder")
    parser.add_argument("--arrows", action="store_true", help="name the rooms that each imports")
    given = parser.parse_args(arguments)
    folder = (ROOT / given.folder).resolve()
    if ROOT not in folder.parents or not any(folder.rglob("*.py")):
        complain(f"{given.folder}: found no folder; expected a package of this repository, such as stages")
        return 2
    lines = report(build(folder, modules=given.modules), arrows=given.arrows)
    return show("tools.structure", lambda: print("\n".join(lines)))


if __name__ == "__main__":
    sys.exit(main())
