"""A packet in a record."""

from __future__ import annotations

from typing import Final

from ring.fields import Values, Words

_PACKET = Words("kernels")
TIME: Final = _PACKET.word("time", "monotonic ns when it came", "ns")
SIDE: Final = _PACKET.word("side", "0 primary, 1 secondary")
KIND: Final = _PACKET.word("kind", "HELD or PASSED")
LENGTH: Final = _PACKET.word("length", "bytes of the frame")
BYTES: Final = _PACKET.word("bytes", "bytes of it that are kept here")
AT: Final = _PACKET.word("at", "offset in the frame at which the difference is, or -1")
FIELDS: Final = _PACKET.fields
HEADER: Final = 8

_KIND = Values()
HELD: Final = _KIND.value("held")  # waits for its counterpart
PASSED: Final = _KIND.value("passed")  # was taken before, and only its beginning is kept
KIND_NAMES: Final = _KIND.names

MOST_BYTES: Final = 2048  # that are kept of a held frame
MOST_PASSED: Final = 16  # earlier packets of the connection, of each side
MOST_HELD: Final = 12  # held packets of each list of the connection
