"""colo-compare: releases the primary's packets where both outputs agree, asks for a checkpoint where they do not."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Final

from stages.compare import tables
from stages.compare.config import Compare, Rule
from stages.compare.layout import arming, memory
from stages.compare.layout import counters as own
from stages.kind import PRIMARY, SECONDARY, Annex, Balance, ChardevKey, Headline, Kind, Qemu, Shown
from stages.schema import Mistake, show

RELEASES: Final = (
    "released",
    "released_at_checkpoint",
    "released_uncompared",
    "released_unarmed",
    "released_by_rule",
)


def _mistakes(table: Compare, path: str, clean: bool) -> Iterable[Mistake]:
    folder = table.divergences
    if folder and os.path.lexists(folder) and not os.path.isdir(folder):
        yield Mistake(f"{path}.divergences", f"a file, {folder}", "a folder, or a path where one can be made")
    taken: dict[str, str] = {}
    for name in ("primary_in", "secondary_in", "outdev", "notify_dev"):
        value = getattr(table, name)
        if not value:
            continue
        other = taken.setdefault(value, name)
        if other != name:
            yield Mistake(f"{path}.{name}", f"{show(value)}, which is {other} too", "a chardev of its own")


def _shows(counters: Mapping[str, int]) -> Shown:
    """Whether it has a secondary to compare with, in a word."""
    state = counters["arming_state"]
    name = arming.NAMES[state]
    if state == arming.IN_STEP:
        return Shown({"arming": name})
    long = f"the secondary is {name}: the primary's packets leave uncompared"
    return Shown({"arming": name}, f"secondary {name}", long)


def _summary(stage: str, counters: Mapping[str, int]) -> str:
    kinds = [(n.removeprefix("diverged_"), v) for n, v in counters.items() if n.startswith("diverged_") and v]
    how = f" ({', '.join(f'{name} {value:,}' for name, value in sorted(kinds))})" if kinds else ""
    divergences, checkpoints = counters.get("divergences", 0), counters.get("checkpoints", 0)
    return f"{stage}: {divergences:,} divergences{how}, {checkpoints:,} checkpoints"


def _outcome(params: Mapping[str, Any], counters: Mapping[str, int]) -> str:
    released, found = sum(counters.get(name, 0) for name in RELEASES), counters.get("divergences", 0)
    said = f"{released:,} packets released, {found:,} difference{'' if found == 1 else 's'}"
    where = params.get("divergences") if params.get("divergence_files") else ""
    return f"{said} (explained by: python -m tools.explain {shlex.quote(where)})" if found and where else said


KIND: Final = Kind(
    name="colo-compare",
    type="colo-compare",
    table="compare",
    config=Compare,
    shell="stages.compare.shell:Compare",
    kernels=("stages.compare.kernels.burst",),
    inputs=("primary_in", "secondary_in", "notify_in"),
    outputs=("outdev", "notify_out"),
    counters=own.COUNTERS,
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
    words_of=lambda params: memory.places(params, 0)["end"],
    sized_by=("max_connections", "hold_memory"),
    chardevs=(
        ChardevKey("primary_in", reads="primary_in", of=PRIMARY),
        ChardevKey("secondary_in", reads="secondary_in", of=SECONDARY),
        ChardevKey("outdev", writes="outdev"),
        ChardevKey("notify_dev", reads="notify_in", writes="notify_out", text=True),
    ),
    ways=(("primary_in", "outdev"),),  # the secondary's frames end here
    tables=tables.TABLES,
    hears=("checkpoint", "failover"),
    gauges=("held",),
    mistakes=_mistakes,
    derive=lambda table, derived: {"divergences": table.divergences or f"{derived.runtime}.divergences"},
    shows=_shows,
    headlines=(
        Headline("released", RELEASES),
        Headline("held", ("held",)),
        Headline("checkpoints", ("checkpoints",)),
        Headline("divergences", ("divergences",), warns=True),
    ),
    summary=_summary,
    outcome=_outcome,
    annex=Annex(
        "rule", "rules, the first that matches wins", Rule, "stages.compare.rules.annex", "stages.compare.rules.client"
    ),
    qemu=Qemu(
        (
            "primary_in",
            "secondary_in",
            "outdev",
            "notify_dev",
            "compare_timeout",
            "expired_scan_cycle",
            "max_queue_size",
            "vnet_hdr_support",
        ),
        ignored=("iothread",),
        side="primary",
    ),
)
