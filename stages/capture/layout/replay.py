"""netdev-pcap: ports, counters, scalars, and where the kernel finds a capture.

A replay is *causal*.  Directions in a capture are the pipeline's: INBOUND frames came from outside and are emitted
again; OUTBOUND frames were given to the outside and are awaited.  A frame goes out when its time has come and as many
frames of its flow have arrived on ``send`` as the capture holds before it.  A flow is a conversation (both ways of one
packet key); frames without a key (ARP) and flows whose every emitted frame stands before every awaited one wait for
nothing.  So what a replay emits, flow by flow, does not depend on scheduling, nor on a stage that was killed meanwhile.
"""

from __future__ import annotations

from typing import Final

from ring import layout
from stages.kind import OWN_COUNTERS, Counter
from stages.packets.layout import table

SEND: Final = 0
RECEIVE: Final = 0

WRITTEN, SWALLOWED, AWAITED, STRAY, UNMET = range(OWN_COUNTERS, OWN_COUNTERS + 5)
COUNTERS: Final = (
    Counter("written", "frames of send that went into the capture `write`"),
    Counter("swallowed", "frames of send that went nowhere, as there is no `write`"),
    Counter("awaited", "frames of send of a flow that waits for such frames"),
    Counter("stray", "frames of send that nothing in the capture waits for"),
    Counter("unmet", "times that a flow went on after patience_ms without the frames it waited for"),
)

# Scalars
CURSOR: Final = 0  # packets of the capture that were passed: emitted, or left to their flow
PROGRESS: Final = 1  # monotonic ns of the last burst that moved a frame
FILE_LENGTH: Final = 2  # true bytes of the capture `write`

# A flow's state: words in the stage segment, behind the fingerprint of the capture that they belong to.
FLOW_RECEIVED: Final = 0  # frames of it that arrived on send (or were given up)
FLOW_NEXT: Final = 1  # 1 + the packet to emit next; 0: its first
FLOW_SINCE: Final = 2  # monotonic ns of its last frame; may be stale after a crash, so it is not logged
FLOW_WORDS: Final = 3

# Options
P_BASE: Final = layout.OPTIONS  # first word of the private memory
P_PACKETS: Final = layout.OPTIONS + 1  # packets of the capture: the length of each column
P_MASK: Final = layout.OPTIONS + 2  # slots of the flow index, less one
P_FLOWS: Final = layout.OPTIONS + 3  # state of flow 0
P_PATIENCE: Final = layout.OPTIONS + 4  # ns
P_ASAP: Final = layout.OPTIONS + 5
P_WRITE: Final = layout.OPTIONS + 6  # word of the recorder, 0: none
P_BOTH: Final = layout.OPTIONS + 7  # 1: emitted frames are recorded, too

# Private memory: a header of words, columns of one word a packet (or flow), the index, the recorder, the file.
X_SCRATCH: Final = 0  # packet.SCRATCH words
X_ROW: Final = 32  # row of the open burst
X_WORK: Final = 33
X_PARKED: Final = 34  # flows that wait behind the cursor
X_DIRTY: Final = 35  # 1: look at every parked flow, one could not go on for want of room
X_NEXT_SCAN: Final = 36  # monotonic ns of the next look at every parked flow's patience
X_FLOW_COUNT: Final = 37  # flows that wait for something
X_LEFT: Final = 38  # frames that may still be emitted in this burst
SECRET: Final = 64  # of the hash, see stages.packets.layout.table
HEADER: Final = SECRET + table.SECRETS

TIME, AT, LENGTH, NEED, FLOW, NEXT = range(6)  # columns; TIME: ns after CMD_CLOCK, NEED: -1 for an awaited packet
KEYS: Final = 6  # six columns of flow keys, one after the other a flow
OUT, NUMBER, FIRST, LAST = range(12, 16)
COLUMNS: Final = 16

BURST: Final = 256
STEPS: Final = 4096  # packets that the cursor passes in one burst
SCAN_NS: Final = 50_000_000
