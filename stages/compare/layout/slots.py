"""A slot: one packet that is held, or one fragment of a datagram.

Its row and its bytes are written plainly when it is taken from a free queue, because no committed state points to a
free slot; links in rows that others point to go through `put`.  A slot given back goes to the end of its queue and is
not taken again before the burst is committed, unless it was taken in the same burst.
"""

from __future__ import annotations

from typing import Final

from ring.fields import Words

_SLOT = Words("kernels")
NEXT: Final = _SLOT.word("next", "the packet behind it in its list, 0: it is the last", "slot+1")
PREV: Final = _SLOT.word("prev", "the packet before it in its list, 0: it is the first", "slot+1")
LATER: Final = _SLOT.word("later", "the packet of its side that came next, 0: it is the newest", "slot+1")
EARLIER: Final = _SLOT.word("earlier", "the packet of its side that came before it, 0: it is the oldest", "slot+1")
CONN: Final = _SLOT.word("conn", "its connection", "row")
FRAME: Final = _SLOT.word("frame", "bytes of the frame, its virtio-net header included")
VNET: Final = _SLOT.word("vnet", "bytes of its virtio-net header")
TIME: Final = _SLOT.word("time", "monotonic ns when it came", "ns")
SEQ: Final = _SLOT.word("seq", "TCP: number of its first byte", "seq")
END: Final = _SLOT.word("end", "TCP: number behind its last byte", "seq")
ACK: Final = _SLOT.word("ack", "TCP: what it acknowledges", "seq")
FLAGS: Final = _SLOT.word("flags", "TCP: its flags, see `stages.packets.layout.tcp`", "flags")
DATA: Final = _SLOT.word("data", "offset in its bytes of what is compared")
DATA_LEN: Final = _SLOT.word("data_len", "bytes that are compared")
BURST: Final = _SLOT.word("burst", "number of the burst in which the slot was taken")
LIST: Final = _SLOT.word("list", "list of its connection that it is in: PACKETS, ACKS, SECONDARY")
BYTES: Final = _SLOT.word("bytes", "byte index of the slot's place for a frame; never changes", writer="worker")
QUEUE: Final = _SLOT.word("queue", "its free queue, side * 3 + size class; never changes", writer="worker")
LIFE: Final = _SLOT.word("life", "TCP of the secondary: conns.SECONDARY_LIFE when it came")
FRAMES: Final = _SLOT.word("frames", "frames that it stands for: 1, or the fragments of a datagram put together")
PARTS: Final = _SLOT.word(
    "parts", "the first of those fragments, in order of arrival by `sibling`; 0: it is a frame itself", "slot+1"
)
EMIT: Final = _SLOT.word("emit", "bytes that it takes in outdev, length words included")
SIBLING: Final = _SLOT.word("sibling", "the next fragment of the same datagram, 0: it is the last", "slot+1")

# A fragment has no sequence numbers:
IDENT: Final = _SLOT.again("ident", SEQ, "fragment: identification of its datagram")
PLACE: Final = _SLOT.again("place", ACK, "fragment: offset in the datagram << 1 | more follow")
# and the first that came stands for the others of its group, until the datagram is whole:
HERE: Final = _SLOT.again(
    "here", FLAGS, "first fragment of a group: bytes of the datagram that are here; NEVER: it can never be whole"
)
WHOLE: Final = _SLOT.again("whole", END, "first fragment of a group: bytes of the datagram, -1: not known yet")
LAST: Final = _SLOT.again("last", LIFE, "first fragment of a group: the last that came", "slot+1")
# A datagram that was put together of them:
TRANSPORT: Final = _SLOT.again("transport", ACK, "datagram put together: its transport, for the row of its connection")
FIELDS: Final = _SLOT.fields
WORDS: Final = _SLOT.end

NEVER: Final = -1
