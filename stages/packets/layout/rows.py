"""The words that begin every row of a connection table; a stage's own words follow."""

from __future__ import annotations

from typing import Final

from ring.fields import Words
from stages.packets.layout import parsed

_ROW = Words("kernels")
KEY: Final = _ROW.word("key", "who talks to whom, as the packet parser writes it", size=parsed.KEY_WORDS)
HASH: Final = _ROW.word("hash", "the key's hash, under the table's secret")
LIVE: Final = _ROW.word("live", "1: the row is in use", "bool")
SEEN: Final = _ROW.word("seen", "monotonic ns of the last packet; after a crash it may be an older packet's", "ns")
NEXT: Final = _ROW.word("next", "row that is not in use: number + 1 of the next such row, 0: it is the last")
PINNED: Final = _ROW.word("pinned", "above 0: not to be evicted, since packets of it are held or it waits on a list")
CLOSED: Final = _ROW.word("closed", "1: closed or reset, so it is the first to be evicted", "bool")
HEADER: Final = _ROW.end
FIELDS: Final = _ROW.fields
