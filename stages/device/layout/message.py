"""The message of recvmsg(2): words from memory.MESSAGE on, as a 64-bit little-endian Linux has them.

Pointers are addresses in this process.
"""

from __future__ import annotations

from typing import Final

from ring.fields import Words

_MESSAGE = Words("worker")
_MESSAGE.skip_to(2)
PARTS: Final = _MESSAGE.word("parts", "msg_iov")
PARTS_N: Final = _MESSAGE.word("parts_n", "msg_iovlen")
CONTROL: Final = _MESSAGE.word("control", "msg_control")
CONTROL_LEN: Final = _MESSAGE.word("control_len", "msg_controllen; before the call: room; after it: what came")
_MESSAGE.skip_to(8)
HEAD: Final = _MESSAGE.word("head", "iov_base of the first part, the virtio-net header")
HEAD_LEN: Final = _MESSAGE.word("head_len", "iov_len of the first part")
BODY: Final = _MESSAGE.word("body", "iov_base of the second part, the frame: its place in the ring")
BODY_LEN: Final = _MESSAGE.word("body_len", "iov_len of the second part")
REST: Final = _MESSAGE.word("rest", "iov_base of the third part: what is longer than the MTU, in memory.WHOLE")
REST_LEN: Final = _MESSAGE.word("rest_len", "iov_len of the third part")
PARTS_USED: Final = (REST + 2 - HEAD) // 2
BASE: Final = _MESSAGE.word("base", "address of the arena's first byte")
_MESSAGE.skip_to(16)
AUXILIARY: Final = _MESSAGE.word("auxiliary", "struct cmsghdr, then struct tpacket_auxdata, see packet(7)", size=8)
STATUS: Final = _MESSAGE.again("status", AUXILIARY + 2, "tp_status, in the low half")
TAG: Final = _MESSAGE.again("tag", AUXILIARY + 4, "tp_vlan_tci, then tp_vlan_tpid, 16 bits each")
HEADER: Final = _MESSAGE.word("header", "the virtio-net header, where it does not stay on the frame", size=2)
FIELDS: Final = _MESSAGE.fields
CONTROL_BYTES: Final = 8 * (HEADER - AUXILIARY)

VNET_HEADER: Final = 10  # bytes of a packet socket's virtio-net header
# What `read_message` returns besides lengths and every -errno: no frame in the ring, one was dropped, or waits in
# memory.WHOLE to be cut.
DROPPED: Final = -4096
TO_CUT: Final = -4097
