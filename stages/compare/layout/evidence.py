"""What the compare keeps to explain a difference: the last packets of each side, and a copy of them at each difference.

::

    history    HISTORY entries of HISTORY_WORDS for each side, a ring: the beginning of every packet that was taken
    records    RECORDS areas of RECORD_WORDS: at a difference, the packets of its connection

    record     header    R_EVENT .. RECORD_HEADER words
               packets   PACKET_HEADER words each, then the bytes of the frame, padded to a word

Both are written plainly: a history is a hint that may be a burst too new after a crash, and a record becomes visible
when SC_RECORDS commits.  The kernel leaves a record alone until the shell has taken it (O_RECORDS_TAKEN); a difference
that finds none free is counted (``records_skipped``).
"""

from __future__ import annotations

from typing import Final

HISTORY: Final = 1024  # packets of a side
H_TIME, H_CONN, H_HASH, H_LENGTH = range(4)  # monotonic ns; row of its connection and its hash; bytes of the frame
H_BYTES: Final = 4
HISTORY_WORDS: Final = 18
HISTORY_BYTES: Final = (HISTORY_WORDS - H_BYTES) * 8  # of the frame, without a virtio-net header

RECORDS: Final = 4
RECORD_WORDS: Final = 1 << 13  # 64 KiB
RECORD_HEADER: Final = 8
# The event (its number since the start); packets that follow; words in use, header included; packets left out.
R_EVENT, R_PACKETS, R_USED, R_LEFT_OUT = range(4)

PACKET_HEADER: Final = 8
# Monotonic ns; 0 primary, 1 secondary; HELD or PASSED; bytes of the frame, and of it kept; offset in the frame at which
# the difference is, or -1.
K_TIME, K_SIDE, K_KIND, K_LENGTH, K_KEPT, K_AT = range(6)
HELD, PASSED = range(2)  # waits for its counterpart; was taken before, and only its beginning is kept
KEPT_BYTES: Final = 2048  # of a held frame at most
PASSED_SHOWN: Final = 16  # earlier packets of the connection, of each side
HELD_SHOWN: Final = 12  # held packets of each list of the connection
