"""What a colo-compare knows of checkpoints and storms: words that change seldom, through `put`."""

from __future__ import annotations

from typing import Final

from ring.fields import Words

_CHECKPOINTS = Words("kernels")
MADE_AT: Final = _CHECKPOINTS.word("made_at", "monotonic ns of the last checkpoint, 0: none yet", "ns")
STORM: Final = _CHECKPOINTS.word("storm", "monotonic ns since which checkpoints are periodic, 0: they are not", "ns")
STORM_COUNT: Final = _CHECKPOINTS.word("storm_count", "requests in the present window")
STORM_WINDOW: Final = _CHECKPOINTS.word("storm_window", "monotonic ns when the present window began", "ns")
DIVERGED: Final = _CHECKPOINTS.word("diverged", "monotonic ns of the last difference in a storm", "ns")
MISSED: Final = _CHECKPOINTS.word(
    "missed", "1: the primary said something to clients while no secondary was in step", "bool"
)
REPORTED: Final = _CHECKPOINTS.word("reported", "scalars.GENERATION + 1 in which a timeout was last reported, 0: never")
ASKED_AT: Final = _CHECKPOINTS.word(
    "asked_at", "by side: position up to which its input was filled when the checkpoint was asked for", size=2
)
FIELDS: Final = _CHECKPOINTS.fields
WORDS: Final = _CHECKPOINTS.end
