"""A connection's row in the compare's table.  What every packet needs comes first: it lies in few cache lines."""

from __future__ import annotations

from typing import Final

from ring.fields import Bits, Words
from stages.packets.layout import rows

_ROW = Words("kernels", start=rows.HEADER)
FLAGS: Final = _ROW.word("flags", "what is known of the connection, and what it waits for: CF_..", "flags")
COMPARED: Final = _ROW.word("compared", "sequence number up to which both streams were equal", "seq")
PRIMARY_NEXT: Final = _ROW.word("primary_next", "end of what the primary has sent", "seq")
PRIMARY_MAX_ACK: Final = _ROW.word("primary_max_ack", "the most that the primary has acknowledged", "seq")
SECONDARY_MAX_ACK: Final = _ROW.word("secondary_max_ack", "the most that the secondary has acknowledged", "seq")
LIFE: Final = _ROW.word("life", "which of the connection's lives is compared: a SYN with a new number begins one")
SECONDARY_LIFE: Final = _ROW.word("secondary_life", "the life that the secondary's packets belong to now")
GENERATION: Final = _ROW.word("generation", "scalars.GENERATION that the row was brought up to date for, -1: none")
RULE: Final = _ROW.word("rule", "tag of the rule that its packets fall under, see `rules`; 0: none")
RULES_SEEN: Final = _ROW.word("rules_seen", "scalars.RULES_SEEN + 1 when that rule was looked for; 0: never")
PRIMARY_ISN: Final = _ROW.word("primary_isn", "number of the primary's SYN", "seq")
SECONDARY_ISN: Final = _ROW.word("secondary_isn", "number of the secondary's SYN", "seq")
CURSOR: Final = _ROW.word("cursor", "the first held primary packet that ends after `compared`, 0: none", "slot+1")
TRANSPORT: Final = _ROW.word("transport", "transport protocol of its packets, see `stages.packets.layout.transports`")
HEAD: Final = _ROW.word("head", "by list: the first packet, 0: none", "slot+1", size=3)
COUNT: Final = _ROW.word("count", "by list: packets", size=3)
TAIL: Final = _ROW.word("tail", "by list: the last packet, 0: none", "slot+1", size=3)
WORK_NEXT: Final = _ROW.word("work_next", "the next connection on the work list, 0: it is the last", "row")
PRIMARY_MASK: Final = _ROW.word(
    "primary_mask", "state of the mask's automaton in the primary's stream at `compared`, and above it the position"
)
SECONDARY_MASK: Final = _ROW.word("secondary_mask", "state of the mask's automaton in the secondary's stream there")
GRACE_NEXT: Final = _ROW.word("grace_next", "the connection behind it on the grace list, 0: it is the last", "row")
GRACE_PREV: Final = _ROW.word("grace_prev", "the connection before it on the grace list, 0: it is the first", "row")
GRACE_SINCE: Final = _ROW.word(
    "grace_since", "monotonic ns since which the heads differ; 0: it is not on the grace list", "ns"
)
TS_FLOOR: Final = _ROW.word("ts_floor", "the latest TSval that has overtaken held segments", "seq")

# A row of fragments has no stream: two pairs of its words mean this.
GIVEN_UP: Final = _ROW.again(
    "given_up",
    PRIMARY_ISN,
    "row of fragments, by side: identification + 1 of the last datagram that left, or was dropped, without being whole",
    size=2,
)
GIVEN_UP_AT: Final = _ROW.again(
    "given_up_at", PRIMARY_MAX_ACK, "row of fragments, by side: monotonic ns when that was", "ns", size=2
)
FIELDS: Final = _ROW.fields
WORDS: Final = _ROW.end

# In the key's word of ports, above the protocol:
KEY_FRAGMENTS: Final = 1 << 40  # a row of fragments
KEY_ALONE: Final = 1 << 41  # a datagram that was put together, but is TCP, or cannot be read

PACKETS, ACKS, SECONDARY = range(3)
"""A connection's lists: primary packets by sequence, those of its segments that need no comparison,
secondary packets by sequence."""
LIST_NAMES: Final = ("packets", "acks", "secondary")

_FLAG = Bits()
CF_SYNCED: Final = _FLAG.bit("SYNCED", "`compared` is known")
CF_P_SYN: Final = _FLAG.bit("P_SYN", "the primary's SYN waits for the secondary's")
CF_SYN_MATCHED: Final = _FLAG.bit("SYN_MATCHED", "both have sent their SYN")
CF_S_ACK: Final = _FLAG.bit("S_ACK", "`secondary_max_ack` is known")
CF_P_ACK: Final = _FLAG.bit("P_ACK", "`primary_max_ack` is known")
CF_P_RST: Final = _FLAG.bit("P_RST", "the primary has reset it")
CF_S_RST: Final = _FLAG.bit("S_RST", "the secondary has reset it")
CF_PASS: Final = _FLAG.bit(
    "PASS",
    "primary packets pass uncompared: it differed and nobody makes checkpoints, the secondary is no copy, or a new SYN"
    " waits for them to leave",
)
CF_WORK: Final = _FLAG.bit("WORK", "on the work list")
CF_P_NEXT: Final = _FLAG.bit("P_NEXT", "`primary_next` is known")
CF_DIVERGED: Final = _FLAG.bit("DIVERGED", "it differed; nothing more is compared until the checkpoint")
CF_RULE: Final = _FLAG.bit("RULE", "a rule lets it pass")
CF_OVERTAKEN: Final = _FLAG.bit(
    "OVERTAKEN", "held segments have been overtaken by one that was sent again: `ts_floor` is known"
)
FLAG_NAMES: Final = _FLAG.names
PASSES: Final = CF_PASS | CF_RULE
