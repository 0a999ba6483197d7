"""Where a colo-compare's tables lie in its segment.

::

    tables   scratch A, scratch B       the frame at hand, a held frame
             events                     `events`: what the shell logs
             checkpoints                `checkpoints`: words that change seldom
             rules                      `rules`: two copies, written by the supervisor
             history, records           `history`, `records`: the last packets, and those of the last differences
             recycle                    slots taken and given back within one burst (private to the burst)
             connection table           `stages.packets.layout.table`, with rows of `conns`
             slots                      `slots`: one for each packet that can be held
             free queues                six: side x size class, rings of slot numbers
             bytes                      the held frames themselves
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ring import layout
from stages.compare.layout import checkpoints, conns, events, history, records, rules
from stages.compare.layout import slots as slot
from stages.packets.layout import parsed, table

CLASS_BYTES: Final = (256, 2048, -(-layout.MAX_FRAME // 64) * 64)
"""Bytes of the place of a slot, by size class."""

RESERVE: Final = 512  # undo entries that one packet may need: a victim out, a connection in, its lists


def slots(params: Mapping[str, Any]) -> tuple[int, int, int]:
    """How many packets of each size class one side can hold: a quarter, a half and a quarter of half the memory."""
    side = int(params["hold_memory"]) // 2
    return (
        max(64, side // 4 // CLASS_BYTES[0]),
        max(64, side // 2 // CLASS_BYTES[1]),
        max(4, side // 4 // CLASS_BYTES[2]),
    )


def queue_words(count: int) -> int:
    """Entries of a free queue, a word each: those given back in a burst never overlap those taken in it."""
    return 1 << (2 * count - 1).bit_length()


def places(params: Mapping[str, Any], start: int) -> dict[str, int]:
    """Word index of each part of the tables, which begin at ``start``; ``end`` is where they end."""
    counts = slots(params)
    at = {"scratch": start}
    at["events"] = at["scratch"] + 2 * parsed.SCRATCH
    at["checkpoints"] = at["events"] + events.COUNT * events.WORDS
    at["rules"] = at["checkpoints"] + checkpoints.WORDS
    at["history"] = at["rules"] + rules.WORDS
    at["records"] = at["history"] + 2 * history.COUNT * history.WORDS
    at["recycle"] = at["records"] + records.COUNT * records.WORDS
    at["table"] = at["recycle"] + sum(queue_words(n) for n in counts)
    at["slots"] = at["table"] + table.words(int(params["max_connections"]), conns.WORDS)
    at["queues"] = at["slots"] + 2 * sum(counts) * slot.WORDS
    at["bytes"] = at["queues"] + 2 * sum(queue_words(n) for n in counts)
    at["end"] = at["bytes"] + 2 * sum(n * size for n, size in zip(counts, CLASS_BYTES, strict=True)) // 8
    return at
