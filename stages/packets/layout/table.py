"""The connection table: where its words lie.

::

    t + 0    descriptor       capacity, buckets, row words .. written once, at format; the rest through `put`
    t + 32   buckets          row number + 1, 0: empty; open addressing, linear probing, twice the capacity or more
    ...      rows             capacity rows of row_words each; a row starts with ROW_HEADER words of the table's own

A free row is on the free list (R_NEXT); a live row is found from its key.  Eviction takes, of EVICT_PROBES live rows
from a clock hand on, the one that was silent longest and is not pinned.
"""

from __future__ import annotations

from typing import Final

T_CAPACITY: Final = 0
T_BUCKETS: Final = 1
T_ROW_WORDS: Final = 2
T_ROWS: Final = 3  # word index of the first row
T_FREE: Final = 4  # row number + 1 of the first free row
T_USED: Final = 5  # live rows
T_HAND: Final = 6  # where the search for a victim goes on
T_FRESH: Final = 7  # rows that were never used begin at this number
T_SECRET: Final = 8  # SECRETS words: the hash's secret, so that nobody outside can choose keys that meet
SECRETS: Final = 12  # one for each half of a key word; two numbers of 31 bits in each
DESCRIPTOR: Final = 32

R_KEY: Final = 0  # six words, see stages.packets.layout.packet
R_HASH: Final = 6
R_LIVE: Final = 7  # 1: in use
R_SEEN: Final = 8  # monotonic ns of the last packet; stored plainly, a stale one after a crash does no harm
R_NEXT: Final = 9  # free list
R_PINNED: Final = 10  # not to be evicted while above 0 (packets held)
R_CLOSED: Final = 11  # 1: closed or reset, the first to be evicted
ROW_HEADER: Final = 12

EVICT_PROBES: Final = 64


def buckets(capacity: int) -> int:
    """Buckets for ``capacity`` rows: a power of two, at most half full."""
    return 1 << max(4, (2 * capacity - 1).bit_length())


def words(capacity: int, row_words: int) -> int:
    """Words that a table takes."""
    return DESCRIPTOR + buckets(capacity) + capacity * row_words
