"""netdev-tap and netdev-packet: ports, counters, and the words that their kernel reads.

Both are a descriptor that gives and takes one frame a system call.  A packet socket also says of each frame what does
not stand in its bytes (a VLAN tag, a checksum still to be made), so it is read by recvmsg(2), whose message lies in the
private memory.
"""

from __future__ import annotations

from typing import Final

from ring import layout
from stages.kind import OWN_COUNTERS

SEND: Final = 0
RECEIVE: Final = 0

SENT, REFUSED, LOST, UNREADABLE, TAGGED, FINISHED, OVERSIZE = range(OWN_COUNTERS, OWN_COUNTERS + 7)

P_FD: Final = layout.OPTIONS
P_HEADER: Final = layout.OPTIONS + 1  # bytes of virtio-net header that the device speaks: 0, 10, 12
P_MEMORY: Final = layout.OPTIONS + 2  # first word of the private memory
P_GIVEN: Final = layout.OPTIONS + 3  # bytes of that header that stay on the frames in the ring: 0 or all
P_SOCKET: Final = layout.OPTIONS + 4  # 1: a packet socket
P_LONGEST: Final = layout.OPTIONS + 5  # bytes of the longest frame that the interface's MTU allows

X_ROW: Final = 0
X_WORK: Final = 1
X_WANTS_OUT: Final = 2  # 1: the device's queue is full, wait for EPOLLOUT
X_ERROR: Final = 3  # errno with which the device ended, 0: it lives
X_REFUSAL: Final = 4  # errno of the last frame that was refused; the shell clears it
X_LOST: Final = 5  # frames that the system dropped, which the next burst counts
X_OVERSIZE: Final = 6  # length of a frame over P_LONGEST; the shell clears it
X_MESSAGE: Final = 8  # struct msghdr of recvmsg(2) and what it points to, see below
X_FRAME: Final = 40  # room for one frame: with another header, or on its way to another place
BYTES: Final = X_FRAME * 8 + layout.MAX_FRAME + 16

# Words from X_MESSAGE on, as a 64-bit little-endian Linux has them; pointers are addresses in this process.
M_PARTS: Final = 2  # msg_iov
M_PARTS_N: Final = 3
M_CONTROL: Final = 4  # msg_control
M_CONTROL_LEN: Final = 5  # in: room; out: what came
M_HEAD: Final = 8  # struct iovec: the virtio-net header
M_HEAD_LEN: Final = 9
M_BODY: Final = 10  # struct iovec: the frame
M_BODY_LEN: Final = 11
M_BASE: Final = 12  # address of the arena's first byte
M_AUXILIARY: Final = 16  # struct cmsghdr, then struct tpacket_auxdata, packet(7)
M_STATUS: Final = 18  # tp_status in its low half
M_TAG: Final = 20  # tp_vlan_tci, then tp_vlan_tpid, 16 bits each
M_HEADER: Final = 24  # the header, where it does not stay on the frame
CONTROL_BYTES: Final = 8 * (M_HEADER - M_AUXILIARY)

VNET_HEADER: Final = 10  # bytes of a packet socket's virtio-net header
DROPPED: Final = -4096  # "no frame, one was dropped", beside every -errno

BURST: Final = 128
