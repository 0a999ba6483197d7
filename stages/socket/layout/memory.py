"""Memory of a stream socket, and how much it moves at a time."""

from __future__ import annotations

from typing import Final

from ring import layout

BURST_BYTES: Final = 1 << 18
"""The most bytes of one recv or send: a few frames of the other direction never wait longer than that takes."""

SCRATCH: Final = layout.UNDO
SCRATCH_WORDS: Final = 1024
"""Where bytes go that nobody reads: it begins where the kind's tables do, as the kind has no undo log."""
