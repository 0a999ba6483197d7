"""Records: at a difference, a copy of the packets of its connection, for a file that explains it.

::

    record     header      HEADER words
               packets     kept.HEADER words each, then the bytes of the frame, padded to a word

A record is written plainly and becomes visible when scalars.RECORDS commits.  The kernel leaves it alone until the
shell has taken it (options.RECORDS_TAKEN); a difference that finds none free is counted (``records_skipped``).
"""

from __future__ import annotations

from typing import Final

from ring.fields import Words

COUNT: Final = 4
WORDS: Final = 1 << 13  # 64 KiB

_RECORD = Words("kernels")
EVENT: Final = _RECORD.word("event", "number of the event since the start")
PACKETS: Final = _RECORD.word("packets", "packets that follow")
USED: Final = _RECORD.word("used", "words in use, header included")
LEFT_OUT: Final = _RECORD.word("left_out", "packets that found no room")
FIELDS: Final = _RECORD.fields
HEADER: Final = 8
