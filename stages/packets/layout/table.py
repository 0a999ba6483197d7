"""The connection table: where its words lie.

::

    t + 0    descriptor       capacity, buckets, row words .. written once, at format; the rest through `put`
    t + 32   buckets          row number + 1, 0: empty; open addressing, linear probing, twice the capacity or more
    ...      rows             capacity rows of row_words each; a row starts with the words of `rows`

A row that is not in use is on the free list; a live row is found from its key.  Eviction takes, of EVICT_PROBES live
rows from a clock hand on, the one that was silent longest and is not pinned.
"""

from __future__ import annotations

from typing import Final

from ring.fields import Words

SECRETS: Final = 12

_TABLE = Words("kernels")
CAPACITY: Final = _TABLE.word("capacity", "rows of the table; 0: it was not laid out yet", writer="worker")
BUCKETS: Final = _TABLE.word("buckets", "buckets of the hash, a power of two", writer="worker")
ROW_WORDS: Final = _TABLE.word("row_words", "words of a row", writer="worker")
ROWS: Final = _TABLE.word("rows", "word index of the first row", writer="worker")
FREE: Final = _TABLE.word("free", "number + 1 of the first row that was used and is free again, 0: none")
USED: Final = _TABLE.word("used", "live rows")
HAND: Final = _TABLE.word("hand", "number of the row at which the search for a victim goes on")
FRESH: Final = _TABLE.word("fresh", "rows from this number on were never used")
# One for each half of a key word; two numbers of 31 bits in each.
SECRET: Final = _TABLE.word(
    "secret",
    "the hash's secret: without it nobody can choose keys that have the same hash",
    size=SECRETS,
    writer="worker",
)
FIELDS: Final = _TABLE.fields
DESCRIPTOR: Final = 32

_BUCKETS = Words("kernels", start=DESCRIPTOR)
BUCKET: Final = _BUCKETS.word("bucket", "bucket 0, a word each: number + 1 of a row, 0: it is empty")
BUCKET_FIELDS: Final = _BUCKETS.fields

EVICT_PROBES: Final = 64


def buckets(capacity: int) -> int:
    """Buckets for ``capacity`` rows: a power of two, at most half full."""
    return 1 << max(4, (2 * capacity - 1).bit_length())


def words(capacity: int, row_words: int) -> int:
    """Words that a table takes."""
    return DESCRIPTOR + buckets(capacity) + capacity * row_words
