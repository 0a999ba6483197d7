"""Flows of a netdev-pcap, in the stage segment: first the fingerprint of their capture, then the state of each flow.

A replay is *causal*.  Directions in a capture are the pipeline's: INBOUND frames came from outside and are emitted
again; OUTBOUND frames were given to the outside and are awaited.  A frame goes out when its time has come and as many
frames of its flow have arrived on ``send`` as the capture holds before it.  A flow is a conversation (both ways of one
packet key); frames without a key (ARP) and flows whose every emitted frame stands before every awaited one wait for
nothing.  So what a replay emits, flow by flow, does not depend on scheduling, nor on a stage that was killed meanwhile.
"""

from __future__ import annotations

from typing import Final

from ring.fields import Words

_TABLES = Words("worker")
FINGERPRINT: Final = _TABLES.word("fingerprint", "CRC-32 of the capture that the flows belong to, + 1; 0: none yet")
TABLE_FIELDS: Final = _TABLES.fields
STATES: Final = _TABLES.end  # the states of the flows: WORDS each

_STATE = Words("kernels")
RECEIVED: Final = _STATE.word("received", "frames of it that arrived on send, or were given up")
NEXT: Final = _STATE.word("next", "1 + the packet to emit next; 0: its first")
SINCE: Final = _STATE.word("since", "monotonic ns of its last frame; after a crash it may be an older frame's", "ns")
FIELDS: Final = _STATE.fields
WORDS: Final = _STATE.end
