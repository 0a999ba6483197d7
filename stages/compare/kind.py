"""colo-compare: releases the primary's packets where both outputs agree, asks for a checkpoint where they do not."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

from stages.compare import tables
from stages.compare.config import JOIN, Compare, Rule, silence_ms
from stages.compare.layout import arming, memory, scalars
from stages.compare.layout import counters as own
from stages.kind import PRIMARY, SECONDARY, Annex, Balance, ChardevKey, Doubt, Headline, Kind, Look, Qemu, Shown
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


def _doubts(table: Compare) -> Iterable[Doubt]:
    if table.checkpoint != "frame" or table.notify_dev:
        return
    what = "missing, so nobody can be asked for a checkpoint: a connection that differs "
    if table.checkpoint_overdue == "wait":
        what += "waits for one for ever"
    else:
        what += f"waits {table.checkpoint_timeout / 1000:g} s for one, and goes on uncompared"
    yield Doubt("notify_dev", what, JOIN)


def _shows(look: Look) -> Shown:
    """Whether it has a secondary to compare with, in a word; what is wrong with that, or with its checkpoints."""
    state = look.counters["arming_state"]
    name = arming.NAMES[state]
    said = [] if state == arming.IN_STEP else [_out_of_step(look, state, name)]
    waits = _waits(look)
    if waits and state in (arming.IN_STEP, arming.ARMING):
        said.append(waits)
    return Shown({"arming": name}, ", ".join(short for short, _ in said), "; ".join(long for _, long in said))


def _out_of_step(look: Look, state: int, name: str) -> tuple[str, str]:
    long = f"the secondary is {name}: the primary's packets leave uncompared"
    if state == arming.SILENT:
        ago = (look.now - look.scalars[scalars.HEARD]) // 1_000_000_000
        long = f"the secondary has answered nothing for {ago:,} s: the primary's packets leave uncompared"
    return f"secondary {name}", long


def _waits(look: Look) -> tuple[str, str] | None:
    """For how long a checkpoint has been waited for, in few words and in more; None where that is as it should be."""
    since = look.scalars[scalars.AWAITED]
    alone = look.scalars[scalars.ALONE] != 0
    # Whoever is joined may take as long as a request takes until it is repeated.
    if not since or (not alone and look.now - since < look.params["compare_timeout"] * 1_000_000):
        return None
    seconds = (look.now - since) // 1_000_000_000
    long = f"has waited {seconds:,} s for a checkpoint; "
    long += "nobody is joined" if alone else "the frame at notify_dev does not answer"
    if look.scalars[scalars.GIVEN_UP]:
        long += "; connections that differ go on uncompared"
    return f"waits {seconds:,} s for a checkpoint, {'nobody joined' if alone else 'no answer'}", long


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


def _differs(table: Compare) -> Iterable[str]:
    silent = silence_ms(asdict(table)) / 1000
    yield (
        f"a secondary that answers nothing while packets wait {silent:g} s in all is out of step until it answers"
        " (silence_timeout, 0: never): QEMU lets each packet wait compare_timeout"
    )
    if table.notify_dev:
        yield (
            f"where nobody is joined at notify_dev for {table.checkpoint_timeout / 1000:g} s what waits for a"
            ' checkpoint goes on uncompared (checkpoint_overdue = "wait": never): QEMU waits for ever'
        )


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
    doubts=_doubts,
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
        differs=_differs,
    ),
)
