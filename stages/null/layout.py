"""netdev-null: ports and counters."""

from __future__ import annotations

from typing import Final

from stages.kind import OWN_COUNTERS, Counter

SEND: Final = 0

SWALLOWED_BYTES: Final = OWN_COUNTERS
COUNTERS: Final = (Counter("swallowed_bytes", "bytes of the frames that were swallowed"),)
