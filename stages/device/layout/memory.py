"""Private memory of a TAP device or an interface: words from options.MEMORY on."""

from __future__ import annotations

from typing import Final

from ring import layout
from ring.fields import Words

_MEMORY = Words("kernels")
ROW: Final = _MEMORY.word("row", "row of the open burst", "row")
WORK: Final = _MEMORY.word("work", "what the open burst has done so far")
WANTS_OUT: Final = _MEMORY.word("wants_out", "1: the device's queue is full, wait for EPOLLOUT", "bool")
ERROR: Final = _MEMORY.word("error", "errno with which the device ended, 0: it lives")
REFUSAL: Final = _MEMORY.word("refusal", "errno of the last frame that was refused; the shell clears it")
LOST: Final = _MEMORY.word("lost", "frames that the system dropped, which the next burst counts")
OVERSIZE: Final = _MEMORY.word("oversize", "length of a frame over options.LONGEST; the shell clears it")
_MEMORY.skip_to(8)
MESSAGE: Final = _MEMORY.word("message", "struct msghdr of recvmsg(2) and what it points to, see `message`", size=32)
FRAME: Final = _MEMORY.word("frame", "room for one frame: with another header, or on its way to another place", size=1)
FIELDS: Final = _MEMORY.fields
BYTES: Final = FRAME * 8 + layout.MAX_FRAME + 16

BURST: Final = 128  # frames each way
