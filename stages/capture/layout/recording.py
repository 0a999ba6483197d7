"""The recorder's private memory: a few words, then the buffer in which the kernel builds blocks."""

from __future__ import annotations

from typing import Final

from ring import layout
from ring.fields import Words

UNKNOWN: Final = 0  # directions, as the pipeline sees them: bits 0 and 1 of epb_flags
INBOUND: Final = 1
OUTBOUND: Final = 2

# The last option of every kind that records; the kind's own begin with the first.
_OPTIONS = Words("worker", start=layout.OPTIONS + layout.OPTION_WORDS - 1)
RECORDER: Final = _OPTIONS.word("recorder", "word index of the memory below")
OPTION_FIELDS: Final = _OPTIONS.fields

_MEMORY = Words("worker")
SOURCE: Final = _MEMORY.word("source", "ring whose frames are to be recorded")
START: Final = _MEMORY.word("start", "position in it to record from; the kernel moves it to where it came")
END: Final = _MEMORY.word("end", "position in it to record to")
DIRECTION: Final = _MEMORY.word("direction", "UNKNOWN, INBOUND, OUTBOUND")
STAMP: Final = _MEMORY.word("stamp", "time of the frames, ns since 1970")
USED: Final = _MEMORY.word("used", "bytes in the buffer")
CLASSIC: Final = _MEMORY.word("classic", "1: records of classic pcap", "bool")
LONGEST: Final = _MEMORY.word("longest", "bytes kept of a frame")
FIELDS: Final = _MEMORY.fields
WORDS: Final = 16

BLOCK: Final = 44  # bytes of an enhanced packet block with epb_flags, without the frame
RESERVE: Final = BLOCK + layout.MAX_FRAME + 4  # the most that one frame takes
BUFFER: Final = 1 << 19
BYTES: Final = WORDS * 8 + BUFFER
