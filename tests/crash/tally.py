"""The kind of the test stage `tests.crash.kernels.tally`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ring import layout
from stages.kind import Kind

CELLS: Final = 5
PUTS: Final = 3
UNDO_ENTRIES: Final = 7  # two frames' worth and one over: the log, too, ends bursts
TABLE: Final = layout.UNDO + 2 * UNDO_ENTRIES


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Its table has no keys."""


KIND: Final = Kind(
    name="tally",
    type="tally",
    table="tally",
    config=Tally,
    kernels=("tests.crash.kernels.tally",),
    inputs=("in",),
    outputs=("out",),
    undo_entries=UNDO_ENTRIES,
    burst="tally_burst",
    words_of=lambda params: CELLS + 1,
)
