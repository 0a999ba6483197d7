"""The kind and shell of the test stage `tests.crash.kernels.tally`."""

from __future__ import annotations

from typing import Final

from ring import layout
from stages.base import Stage
from stages.kind import Kind

CELLS: Final = 5
PUTS: Final = 3
UNDO_ENTRIES: Final = 7  # two frames' worth and one over: the log, too, ends bursts
TABLE: Final = layout.UNDO + 2 * UNDO_ENTRIES

KIND: Final = Kind(
    name="tally",
    type="tally",
    shell="tests.crash.tally:Tally",
    kernels=("tests.crash.kernels.tally",),
    inputs=("in",),
    outputs=("out",),
    undo_entries=UNDO_ENTRIES,
    table_words=lambda params: CELLS + 1,
)


class Tally(Stage):
    """Passes frames on and notes each in a table."""

    KIND = KIND

    def do_work(self, now: int) -> int:
        """One burst."""
        return int(self.kernel.tally_burst(self.u8, self.w, now))
