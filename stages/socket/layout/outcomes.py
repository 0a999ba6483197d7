"""What `link_cycle` tells its shell, above the work and the bells: bits of ``result >> SHIFT``."""

from __future__ import annotations

from typing import Final

SHIFT: Final = 48
SHORT: Final = 1  # the socket took less than there was: ask for EPOLLOUT
ENDED: Final = 2  # the peer closed the connection
FAILED: Final = 4  # recv or send failed: options.ERRNO
BAD: Final = 8  # the first unfinished frame is impossible: options.BAD_LENGTH
ARRIVED: Final = 16  # bytes were received
UNREAD: Final = 32  # bytes came on a link that nothing here reads: they lie in memory.SCRATCH
