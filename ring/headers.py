"""The header of a segment: written, checked, and its state moved.  Needs no Numba, so the supervisor may use it."""

from __future__ import annotations

from typing import Any

from ring import errors, layout, segment
from ring.memory_fence import fence

_STATES = {layout.RING_OPEN: "open", layout.RING_DRAINING: "draining", layout.RING_CLOSED: "closed"}


def format_header(
    w: Any, size: int, *, vnet: bool, owner: int, digest: int = 0, linked: tuple[bool, bool] = (True, True)
) -> None:
    """Write the header of a new ring; ``w`` is the int64 view of its segment, all zeros.

    ``linked``: whether producer and consumer count as connected from the start, having no outside peer to wait for.
    """
    w[layout.VERSION] = layout.LAYOUT_VERSION
    w[layout.SIZE] = size
    w[layout.VNET] = int(vnet)
    w[layout.STATE] = layout.RING_OPEN
    w[layout.OWNER_PID] = owner
    w[layout.OWNER_START] = segment.process_start(owner)
    w[layout.DIGEST] = digest
    w[layout.P_LINK], w[layout.C_LINK] = linked
    fence()
    w[layout.MAGIC] = layout.RING_MAGIC  # last: a segment without it is not ready


def check_header(name: str, w: Any, nbytes: int, magic: int) -> None:
    """Raise `LayoutMismatch` unless ``w`` starts a segment of this layout version."""
    if nbytes < layout.PAGE or int(w[layout.MAGIC]) != magic:
        raise errors.LayoutMismatch(f"/dev/shm/{name} is not one of our segments: another program's, or half made")
    fence()  # the magic before the rest
    version = int(w[layout.VERSION])
    if version != layout.LAYOUT_VERSION:
        raise errors.LayoutMismatch(
            f"/dev/shm/{name} has layout version {version}, this program speaks {layout.LAYOUT_VERSION}: "
            f"stop the old program, then ring.unlink({name!r})"
        )


def move_state(w: Any, to: int) -> int:
    """Move the state word of the ring whose header starts ``w`` to RING_...; the state before.

    Raises `BadMove`, with the reason, for a move that `layout.RING_MOVES` does not have.  Only a ring's owner calls it.
    """
    now = int(w[layout.STATE])
    if (now, to) not in layout.RING_MOVES:
        why = layout.RING_PROHIBITED.get((now, to), "the table of moves does not have it")
        raise errors.BadMove(f"a ring cannot go from {_STATES.get(now, now)} to {_STATES.get(to, to)}: {why}")
    fence()  # what the owner saw and did before it is visible before the move
    w[layout.STATE] = to
    fence()
    return now
