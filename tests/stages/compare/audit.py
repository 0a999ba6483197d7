"""Every invariant of the compare's tables, checked from outside at a commit: lists, counts, cursors, free slots."""

from __future__ import annotations

from typing import Any

from ring import layout
from stages.compare.layout import conns, options
from stages.compare.layout import scalars as scalar_words
from stages.compare.layout import slots as slot_words
from stages.packets.layout import rows as table_rows
from stages.packets.layout import table, transports
from tests.rig import Rig


def audit(rig: Rig) -> None:
    """Fail where the tables of a rig's compare contradict themselves."""
    w = rig.stage.w
    row = layout.ROWS + (int(w[layout.COMMITTED]) & 1) * layout.ROW_WORDS
    scalars = [int(x) for x in w[row + layout.ROW_SCALARS : row + layout.ROW_COUNTERS]]
    slots = int(w[options.SLOTS])

    def slot(n: int) -> int:
        return slots + n * slot_words.WORDS

    t = int(w[options.TABLE])
    first, width = int(w[t + table.ROWS]), int(w[t + table.ROW_WORDS])
    rows = [first + i * width for i in range(int(w[t + table.FRESH])) if w[first + i * width + table_rows.LIVE] == 1]
    assert len(rows) == int(w[t + table.USED]) == rig.counters()["connections"]
    work = _chain(w, scalars[scalar_words.WORK], conns.WORK_NEXT)
    grace = _chain(w, scalars[scalar_words.GRACE_FIRST], conns.GRACE_NEXT)
    assert scalars[scalar_words.GRACE_LAST] == (grace[-1] if grace else 0)
    assert set(work) == {c for c in rows if w[c + conns.FLAGS] & conns.CF_WORK}
    assert set(grace) == {c for c in rows if w[c + conns.GRACE_SINCE] != 0}
    held: dict[int, int] = {}
    for c in rows:
        _connection(w, c, slot, held, c in work)
        if c in grace:
            assert w[c + conns.TRANSPORT] != transports.TCP
            assert w[c + conns.HEAD + conns.PACKETS] != 0 and w[c + conns.HEAD + conns.SECONDARY] != 0
    for side in range(2):
        line = _by_arrival(w, scalars, side, slot)
        assert set(line) == {n for n, which in held.items() if (which == conns.SECONDARY) == bool(side)}
        times = [int(w[slot(n) + slot_words.TIME]) for n in line]
        assert times == sorted(times)
    frames = {n: int(w[slot(n) + slot_words.FRAMES]) for n in held}
    parts = {part for n, which in held.items() for part in _parts(w, n, which, held, slot)}
    _free(w, scalars, set(held) | parts, slot)
    c = rig.counters()
    sides = [
        sum(frames[n] for n, which in held.items() if (which == conns.SECONDARY) == bool(side)) for side in range(2)
    ]
    assert (c["held"], c["held_primary"], c["held_secondary"]) == (sum(sides), *sides)


def _chain(w: Any, at: int, following: int) -> list[int]:
    found: list[int] = []
    while at:
        assert at not in found
        found.append(at)
        at = int(w[at + following])
    return found


def _connection(w: Any, c: int, slot: Any, held: dict[int, int], working: bool) -> None:
    total = 0
    for which in range(3):
        n, before, members = int(w[c + conns.HEAD + which]), 0, []
        while n:
            x = slot(n - 1)
            assert (int(w[x + slot_words.PREV]), int(w[x + slot_words.CONN]), int(w[x + slot_words.LIST])) == (
                before,
                c,
                which,
            )
            assert n - 1 not in held
            held[n - 1] = which
            members.append(n)
            before, n = n, int(w[x + slot_words.NEXT])
        assert int(w[c + conns.TAIL + which]) == before and int(w[c + conns.COUNT + which]) == len(members)
        total += len(members)
        if which == conns.PACKETS and w[c + conns.TRANSPORT] == transports.TCP:
            _cursor(w, c, members, slot)
    assert int(w[c + table_rows.PINNED]) == total + working


def _parts(w: Any, n: int, which: int, held: dict[int, int], slot: Any) -> list[int]:
    """Slots of the fragments that a held packet stands for; the first of a group is the held packet itself."""
    x = slot(n)
    gathering = int(w[w[x + slot_words.CONN] + conns.TRANSPORT]) == transports.FRAGMENT
    found: list[int] = []
    part = int(w[x + slot_words.PARTS])
    while part:
        assert part - 1 not in found and (part - 1 == n or part - 1 not in held), "a part has two places"
        found.append(part - 1)
        part = int(w[slot(part - 1) + slot_words.SIBLING])
    if not found:  # a frame, or the secondary's: put together, its fragments given back
        assert not gathering and (int(w[x + slot_words.FRAMES]) == 1 or which == conns.SECONDARY)
        return []
    assert len(found) == int(w[x + slot_words.FRAMES])
    assert int(w[x + slot_words.EMIT]) >= sum(int(w[slot(p) + slot_words.FRAME]) for p in found)
    assert (n == found[0]) == gathering and n not in found[1:]
    times = [int(w[slot(p) + slot_words.TIME]) for p in found]
    assert times == sorted(times)
    assert len({int(w[slot(p) + slot_words.SEQ]) for p in found}) == 1, "identifications"
    return found


def _cursor(w: Any, c: int, members: list[int], slot: Any) -> None:
    """No packet before the cursor has bytes beyond conns.COMPARED."""
    at = int(w[c + conns.CURSOR])
    assert at == 0 or at in members
    for n in members:
        if n == at:
            break
        x = slot(n - 1)
        ahead = (int(w[x + slot_words.END]) - int(w[c + conns.COMPARED])) & 0xFFFFFFFF
        assert ahead == 0 or ahead >= 1 << 31, "a packet that was not compared lies before the cursor"


def _by_arrival(w: Any, scalars: list[int], side: int, slot: Any) -> list[int]:
    line: list[int] = []
    n, before = scalars[scalar_words.OLDEST + side], 0
    while n:
        assert int(w[slot(n - 1) + slot_words.EARLIER]) == before and n - 1 not in line
        line.append(n - 1)
        before, n = n, int(w[slot(n - 1) + slot_words.LATER])
    assert scalars[scalar_words.NEWEST + side] == before
    return line


def _free(w: Any, scalars: list[int], held: set[int], slot: Any) -> None:
    free: set[int] = set()
    total = 0
    for group in range(6):
        queue, mask = int(w[options.QUEUES + group]), int(w[options.MASKS + group])
        for position in range(scalars[scalar_words.QUEUE_HEAD + group], scalars[scalar_words.QUEUE_TAIL + group]):
            n = int(w[queue + (position & mask)])
            assert int(w[slot(n) + slot_words.QUEUE]) == group
            free.add(n)
            total += 1
    assert len(free) == total and not free & held
    everything = (int(w[options.QUEUES]) - int(w[options.SLOTS])) // slot_words.WORDS
    assert total + len(held) == everything, "a slot is lost"
