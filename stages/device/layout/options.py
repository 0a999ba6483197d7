"""Options of a TAP device or an interface.

Both are a descriptor that gives and takes one frame a system call.  A packet socket also says of each frame what does
not stand in its bytes (a VLAN tag, a checksum still to be made), so it is read by recvmsg(2), whose message lies in the
private memory (`memory`, `message`).
"""

from __future__ import annotations

from typing import Final

from ring import layout
from ring.fields import Words

_OPTIONS = Words("worker", start=layout.OPTIONS)
FD: Final = _OPTIONS.word("fd", "descriptor of the device; -1: it is not there now")
HEADER: Final = _OPTIONS.word("header", "bytes of virtio-net header that the device speaks: 0, 10, 12")
MEMORY: Final = _OPTIONS.word("memory", "word index of the private memory")
GIVEN: Final = _OPTIONS.word("given", "bytes of that header that stay on the frames in the ring: 0 or all")
SOCKET: Final = _OPTIONS.word("socket", "1: a packet socket", "bool")
LONGEST: Final = _OPTIONS.word("longest", "bytes of the longest frame that the interface's MTU allows")
GATED: Final = _OPTIONS.word("gated", "1: nothing is sent before a failover was announced", "bool")
FIELDS: Final = _OPTIONS.fields
