"""What the pipeline must know of a colo-compare."""

from __future__ import annotations

from typing import Final

from stages.compare.layout import counters, memory
from stages.kind import Balance, Kind

RELEASES: Final = (
    "released",
    "released_at_checkpoint",
    "released_uncompared",
    "released_unarmed",
    "released_by_rule",
)

KIND: Final = Kind(
    name="colo-compare",
    type="colo-compare",
    shell="stages.compare.shell:Compare",
    kernels=("stages.compare.kernels.burst",),
    inputs=("primary_in", "secondary_in", "notify_in"),
    outputs=("outdev", "notify_out"),
    counters=counters.COUNTERS,
    balances=(
        Balance(
            "every primary packet is released or held",
            ("primary_in_frames",),
            (*RELEASES, "held_primary"),
        ),
        Balance("what is released leaves", RELEASES, ("outdev_frames",)),
        Balance(
            "every secondary packet is matched, held or dropped for a reason",
            ("secondary_in_frames",),
            (
                "matched",
                "secondary_acks",
                "held_secondary",
                "dropped_at_checkpoint",
                "dropped_diverged",
                "dropped_uncompared",
                "dropped_unarmed",
                "dropped_by_rule",
            ),
        ),
        Balance("held is the sum of both sides", ("held",), ("held_primary", "held_secondary")),
    ),
    undo_entries=1 << 15,
    table_words=lambda params: memory.places(params, 0)["end"],
)
