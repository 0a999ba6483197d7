"""The history: the beginning of each of the last COUNT packets that were taken from each side, a ring for each.

It is written plainly, so it is a hint: after a crash it may be a burst too new.
"""

from __future__ import annotations

from typing import Final

from ring.fields import Words

COUNT: Final = 1024  # packets of a side, a power of two

_ENTRY = Words("kernels")
TIME: Final = _ENTRY.word("time", "monotonic ns when it was taken", "ns")
CONN: Final = _ENTRY.word("conn", "row of its connection", "row")
HASH: Final = _ENTRY.word("hash", "that connection's hash: the row may be another's by now")
LENGTH: Final = _ENTRY.word("length", "bytes of the frame, without a virtio-net header")
BYTES: Final = _ENTRY.word("bytes", "the beginning of the frame", "bytes", size=14)
FIELDS: Final = _ENTRY.fields
WORDS: Final = _ENTRY.end
KEPT_BYTES: Final = (WORDS - BYTES) * 8
