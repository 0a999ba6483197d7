"""The tables of keys in docs/config.md, made from the code: ``python -m tools.reference [--write]``.

Each key's sentence and default stand with the key (`stages.schema.key`); what stands around the tables is written by
hand.  Without ``--write`` it says which tables differ and exits with 1 where one does; 2: a heading, or the table under
it, is missing.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from pipeline import tables
from stages import catalog
from stages.filter import Filter
from stages.kind import CHARDEV, FILTER, NETDEV, VARIANT_KEYS
from stages.schema import reference

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "config.md"

Row = tuple[str, str, str]


def sections() -> Iterator[tuple[str, list[Row]]]:
    """Every table of keys: the heading that it stands under, and its rows (key, default, meaning)."""
    yield "[pipeline]", list(reference(tables.Pipeline))
    yield "[supervisor]", list(reference(tables.Supervisor))
    yield "[log]", list(reference(tables.Log))
    yield "[chardev.ID]", [_variants(CHARDEV, tables.RING)]
    yield from _kinds(CHARDEV)
    sides = [(side, f"`{_default()}`", what) for side, what in _SIDES.items()]
    yield "[netdev.ID]", [*sides, *reference(tables.Netdev)]
    yield from _kinds(NETDEV)
    yield "[filter.ID]", [_variants(FILTER), *reference(Filter)]
    yield from _kinds(FILTER, {f.name for f in fields(Filter)})
    for kind in catalog.kinds():
        if kind.table not in VARIANT_KEYS:
            yield f"[{kind.table}.ID]", list(reference(kind.config))
    for _, annex in catalog.annexes():
        yield f"[{annex.table}.NAME]", list(reference(annex.config))
    yield "[stage.ID]", list(reference(tables.Placement))


_SIDES: Final = {"network": "the outside", "guest": "the side of the guest's NIC"}


def _default() -> str:
    made = next(kind for kind in catalog.variants(NETDEV).values() if kind.default)
    return f'{{ {VARIANT_KEYS[NETDEV]} = "{made.variant}" }}'


def _variants(table: str, *more: str) -> Row:
    listed = ", ".join(f"`{name}`" for name in (*catalog.variants(table), *more))
    return VARIANT_KEYS[table], "required", f"{listed}: see below"


def _kinds(table: str, shared: Iterable[str] = ()) -> Iterator[tuple[str, list[Row]]]:
    for variant, kind in catalog.variants(table).items():
        rows = [row for row in reference(kind.config) if row[0] not in shared]
        if rows:
            yield heading(table, variant), rows


def heading(table: str, variant: str) -> str:
    """The heading of what a kind takes: ``chardev: backend = "socket"``."""
    return f'{table}: {VARIANT_KEYS[table]} = "{variant}"'


def rendered(rows: Iterable[Row]) -> str:
    """A table of keys as Markdown."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in rows]
    return "\n".join(lines) + "\n"


def updated(text: str) -> tuple[str, list[str]]:
    """The page with every table as the code has it, and the headings of those that were not.

    Raises LookupError where a heading is missing, or no table stands under it.
    """
    changed = []
    for title, rows in sections():
        found = re.search(rf"^#+ {re.escape(title)}$", text, re.MULTILINE)
        if found is None:
            raise LookupError(f"docs/config.md has no heading {title!r}: write it, with an empty table under it")
        after = re.search(r"^#", text[found.end() :], re.MULTILINE)
        end = found.end() + after.start() if after else len(text)
        table = re.search(r"^\| key \|.*\n\|---.*\n(?:\|.*\n)*", text[found.end() : end], re.MULTILINE)
        if table is None:
            raise LookupError(f"docs/config.md has no table of keys under {title!r}: write its first two lines")
        if table[0] != rendered(rows):
            changed.append(title)
            start = found.end() + table.start()
            text = text[:start] + rendered(rows) + text[start + len(table[0]) :]
    return text, changed


def main(arguments: list[str] | None = None) -> int:
    """Compare, or write."""
    parser = argparse.ArgumentParser(prog="python -m tools.reference", description="Tables of keys in docs/config.md.")
    parser.add_argument("--write", action="store_true", help="write them, instead of saying which differ")
    given: Any = parser.parse_args(arguments)
    try:
        text, changed = updated(PAGE.read_text())
    except LookupError as error:
        print(f"tools.reference: {error.args[0]}", file=sys.stderr)
        return 2
    if given.write:
        PAGE.write_text(text)
    for title in changed:
        print(f"{title}: {'written' if given.write else 'differs from the code'}")
    return int(bool(changed) and not given.write)


if __name__ == "__main__":
    sys.exit(main())
