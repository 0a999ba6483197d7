"""Private memory of a TAP device or an interface: words from options.MEMORY on."""

from __future__ import annotations

from typing import Final

from ring import layout
from ring.fields import Words
from stages.device.layout import segmentation

_MEMORY = Words("kernels")
ROW: Final = _MEMORY.word("row", "row of the open burst", "row")
WORK: Final = _MEMORY.word("work", "what the open burst has done so far")
WANTS_OUT: Final = _MEMORY.word("wants_out", "1: the device's queue is full, wait for EPOLLOUT", "bool")
ERROR: Final = _MEMORY.word("error", "errno with which the device ended, 0: it lives")
REFUSAL: Final = _MEMORY.word("refusal", "errno of the last frame that was refused; the shell clears it")
LOST: Final = _MEMORY.word("lost", "frames that the system dropped, which the next burst counts")
OVERSIZE: Final = _MEMORY.word("oversize", "length of a frame over options.LONGEST; the shell clears it")
UNCUT: Final = _MEMORY.word("uncut", "why a frame could not be cut, see `segmentation.WHY`; the shell clears it")
MESSAGE: Final = _MEMORY.word("message", "struct msghdr of recvmsg(2) and what it points to, see `message`", size=32)
SEGMENTATION: Final = _MEMORY.word(
    "segmentation", "the frame that is being cut, see `segmentation`", size=segmentation.WORDS
)
SLACK: Final = 16  # bytes: a header, or a tag, that a frame has not got yet
_FRAME_WORDS: Final = (layout.MAX_FRAME + SLACK) // 8
FRAME: Final = _MEMORY.word(
    "frame", "room for one frame: with another header, or on its way to another place", size=_FRAME_WORDS
)
WHOLE: Final = _MEMORY.word("whole", "room for one frame to be cut, behind SLACK bytes", size=_FRAME_WORDS)
FIELDS: Final = _MEMORY.fields
BYTES: Final = _MEMORY.end * 8

BURST: Final = 128  # frames each way
