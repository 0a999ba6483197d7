"""Tables of text, as `pipeline.control`, `pipeline.graph` and the summary print them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDEST: Final = 1 << 16  # nothing is cut or wrapped: what reads the text may be a program
_NUMBER: Final = re.compile(r"\d|-$")


def columns(rows: Iterable[Sequence[str]], *, heads: Sequence[str] = (), numbers: bool = True) -> list[str]:
    """A line each for ``heads`` and ``rows``, in columns two blanks apart.

    ``numbers``: columns in which every cell is a number (or "-") stand to the right.
    """
    kept = [list(row) for row in rows]
    count = len(heads) or max(map(len, kept), default=0)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(heads), header_style="")
    for i in range(count):
        cells = [row[i] for row in kept]
        right = numbers and bool(cells) and all(map(_NUMBER.match, cells))
        table.add_column(Text(heads[i]) if heads else "", justify="right" if right else "left", no_wrap=True)
    for row in kept:
        table.add_row(*map(Text, row))
    out = io.StringIO()
    Console(file=out, width=_WIDEST, color_system=None, force_terminal=False).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]
