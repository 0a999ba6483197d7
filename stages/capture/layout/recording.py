"""The recorder's private memory: a few words, then the buffer in which the kernel builds blocks."""

from __future__ import annotations

from typing import Final

from ring import layout

UNKNOWN: Final = 0  # directions, as the pipeline sees them: bits 0 and 1 of epb_flags
INBOUND: Final = 1
OUTBOUND: Final = 2

P_RECORDER: Final = layout.OPTIONS + 47  # word index of the memory below; a kind that records leaves this option free

SOURCE: Final = 0  # ring whose frames are to be recorded
START: Final = 1  # from this position; the kernel moves it to where it came
END: Final = 2
DIRECTION: Final = 3
STAMP: Final = 4  # ns since 1970
USED: Final = 5  # bytes in the buffer
CLASSIC: Final = 6  # 1: records of classic pcap
WORDS: Final = 16

BLOCK: Final = 44  # an enhanced packet block with epb_flags, without the frame
RESERVE: Final = BLOCK + layout.MAX_FRAME + 4  # the most that one frame takes
BUFFER: Final = 1 << 19
BYTES: Final = WORDS * 8 + BUFFER
