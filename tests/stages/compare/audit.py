"""Every invariant of the compare's tables, checked from outside at a commit: lists, counts, cursors, free slots."""

from __future__ import annotations

from typing import Any

from ring import layout
from stages.compare.layout import words as L
from stages.packets.layout import table as T
from stages.packets.layout.packet import FRAGMENT, TCP
from tests.rig import Rig


def audit(rig: Rig) -> None:
    """Fail where the tables of a rig's compare contradict themselves."""
    w = rig.stage.w
    row = layout.ROWS + (int(w[layout.COMMITTED]) & 1) * layout.ROW_WORDS
    scalars = [int(x) for x in w[row + layout.ROW_SCALARS : row + layout.ROW_COUNTERS]]
    slots = int(w[L.O_SLOTS])

    def slot(n: int) -> int:
        return slots + n * L.SLOT_WORDS

    t = int(w[L.O_TABLE])
    first, width = int(w[t + T.T_ROWS]), int(w[t + T.T_ROW_WORDS])
    rows = [first + i * width for i in range(int(w[t + T.T_FRESH])) if w[first + i * width + T.R_LIVE] == 1]
    assert len(rows) == int(w[t + T.T_USED]) == rig.counters()["connections"]
    work = _chain(w, scalars[L.SC_WORK], L.C_WORK_NEXT)
    grace = _chain(w, scalars[L.SC_GRACE_FIRST], L.C_GRACE_NEXT)
    assert scalars[L.SC_GRACE_LAST] == (grace[-1] if grace else 0)
    assert set(work) == {c for c in rows if w[c + L.C_FLAGS] & L.CF_WORK}
    assert set(grace) == {c for c in rows if w[c + L.C_GRACE_SINCE] != 0}
    held: dict[int, int] = {}
    for c in rows:
        _connection(w, c, slot, held, c in work)
        if c in grace:
            assert w[c + L.C_VERDICT] != TCP
            assert w[c + L.C_HEAD + L.PACKETS] != 0 and w[c + L.C_HEAD + L.SECONDARY] != 0
    for side in range(2):
        line = _by_arrival(w, scalars, side, slot)
        assert set(line) == {n for n, which in held.items() if (which == L.SECONDARY) == bool(side)}
        times = [int(w[slot(n) + L.S_TIME]) for n in line]
        assert times == sorted(times)
    frames = {n: int(w[slot(n) + L.S_FRAMES]) for n in held}
    parts = {part for n, which in held.items() for part in _parts(w, n, which, held, slot)}
    _free(w, scalars, set(held) | parts, slot)
    c = rig.counters()
    sides = [sum(frames[n] for n, which in held.items() if (which == L.SECONDARY) == bool(side)) for side in range(2)]
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
        n, before, members = int(w[c + L.C_HEAD + which]), 0, []
        while n:
            x = slot(n - 1)
            assert (int(w[x + L.S_PREV]), int(w[x + L.S_CONN]), int(w[x + L.S_LIST])) == (before, c, which)
            assert n - 1 not in held
            held[n - 1] = which
            members.append(n)
            before, n = n, int(w[x + L.S_NEXT])
        assert int(w[c + L.C_TAIL + which]) == before and int(w[c + L.C_COUNT + which]) == len(members)
        total += len(members)
        if which == L.PACKETS and w[c + L.C_VERDICT] == TCP:
            _cursor(w, c, members, slot)
    assert int(w[c + T.R_PINNED]) == total + working


def _parts(w: Any, n: int, which: int, held: dict[int, int], slot: Any) -> list[int]:
    """Slots of the fragments that a held packet stands for; the first of a group is the held packet itself."""
    x = slot(n)
    gathering = int(w[w[x + L.S_CONN] + L.C_VERDICT]) == FRAGMENT
    found: list[int] = []
    part = int(w[x + L.S_PARTS])
    while part:
        assert part - 1 not in found and (part - 1 == n or part - 1 not in held), "a part has two places"
        found.append(part - 1)
        part = int(w[slot(part - 1) + L.S_SIBLING])
    if not found:  # a frame, or the secondary's: put together, its fragments given back
        assert not gathering and (int(w[x + L.S_FRAMES]) == 1 or which == L.SECONDARY)
        return []
    assert len(found) == int(w[x + L.S_FRAMES])
    assert int(w[x + L.S_EMIT]) >= sum(int(w[slot(p) + L.S_FRAME]) for p in found)
    assert (n == found[0]) == gathering and n not in found[1:]
    times = [int(w[slot(p) + L.S_TIME]) for p in found]
    assert times == sorted(times)
    assert len({int(w[slot(p) + L.S_SEQ]) for p in found}) == 1, "identifications"
    return found


def _cursor(w: Any, c: int, members: list[int], slot: Any) -> None:
    """No packet before the cursor has bytes beyond C_COMPARED."""
    at = int(w[c + L.C_CURSOR])
    assert at == 0 or at in members
    for n in members:
        if n == at:
            break
        x = slot(n - 1)
        ahead = (int(w[x + L.S_END]) - int(w[c + L.C_COMPARED])) & 0xFFFFFFFF
        assert ahead == 0 or ahead >= 1 << 31, "a packet that was not compared lies before the cursor"


def _by_arrival(w: Any, scalars: list[int], side: int, slot: Any) -> list[int]:
    line: list[int] = []
    n, before = scalars[L.SC_OLDEST + side], 0
    while n:
        assert int(w[slot(n - 1) + L.S_EARLIER]) == before and n - 1 not in line
        line.append(n - 1)
        before, n = n, int(w[slot(n - 1) + L.S_LATER])
    assert scalars[L.SC_NEWEST + side] == before
    return line


def _free(w: Any, scalars: list[int], held: set[int], slot: Any) -> None:
    free: set[int] = set()
    total = 0
    for group in range(6):
        queue, mask = int(w[L.O_QUEUES + group]), int(w[L.O_MASKS + group])
        for position in range(scalars[L.SC_QUEUE_HEAD + group], scalars[L.SC_QUEUE_TAIL + group]):
            n = int(w[queue + (position & mask)])
            assert int(w[slot(n) + L.S_GROUP]) == group
            free.add(n)
            total += 1
    assert len(free) == total and not free & held
    everything = (int(w[L.O_QUEUES]) - int(w[L.O_SLOTS])) // L.SLOT_WORDS
    assert total + len(held) == everything, "a slot is lost"
