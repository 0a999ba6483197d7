"""The port, and the counter, of a netdev-null."""

from __future__ import annotations

from typing import Final

from ring.layout import Counters

SEND: Final = 0

_OWN = Counters()
SWALLOWED_BYTES: Final = _OWN.counter("swallowed_bytes", "bytes of the frames that were swallowed")
COUNTERS: Final = _OWN.listed
