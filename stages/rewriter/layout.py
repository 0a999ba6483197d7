"""filter-rewriter: ports, counters, and the row of a connection.

Tables of the stage, from `Kind.tables_at` on: SCRATCH words for the packet parser, both ends of the list of spare rows,
then one connection table.  Keys are those of the inbound direction: the source is the outside peer, the destination is
the guest.

Spare rows are those that may go when a new connection needs room: closed ones, and those whose handshake is not over.
So while there is one, a flood of SYNs drives out its own rows and no established connection, however silent.  Where
none is spare, all rows being established, a SYN costs one of them: the longest silent of 64 that are looked at.
"""

from __future__ import annotations

from typing import Final

from ring import layout
from ring.fields import Field
from stages.kind import OWN_COUNTERS, Counter
from stages.packets.layout import table
from stages.packets.layout.packet import SCRATCH

TX_IN, RX_IN = range(2)
TX_OUT, RX_OUT = range(2)

# --- scalars ----------------------------------------------------------------------------------------------------
S_CHECKPOINTS: Final = 0  # CMD_CHECKPOINT as last taken
S_FAILOVERS: Final = 1  # CMD_FAILOVER as last taken
S_GENERATION: Final = 2  # what was learnt of the secondary in an older generation counts for nothing
S_ALONE: Final = 3  # 1: failed over, this side is no secondary any more

# --- counters ---------------------------------------------------------------------------------------------------
(
    REWRITTEN_IN,
    REWRITTEN_OUT,
    REWRITTEN_ERRORS,
    PASSED_ALIGNED,
    PASSED_HANDSHAKE,
    PASSED_NO_NUMBER,
    PASSED_UNKNOWN,
    PASSED_UNASKED,
    PASSED_FRAGMENT,
    PASSED_NOT_TCP,
    PASSED_OFF,
    CONNECTIONS,
    OPENED,
    CLOSED,
    RESET,
    REPLACED,
    EVICTED,
    HALF_OPEN_EVICTED,
    RECYCLED,
    UNTRACKED,
    CHECKPOINTS,
    FAILOVERS,
) = range(OWN_COUNTERS, OWN_COUNTERS + 22)

COUNTERS: Final = (
    Counter("rewritten_in", "inbound segments moved to the secondary's numbers: ack, SACK blocks, TSecr"),
    Counter("rewritten_out", "outbound segments moved to the primary's numbers: seq, TSval"),
    Counter("rewritten_errors", "inbound ICMP errors whose quoted segment was moved to the secondary's numbers"),
    Counter("passed_aligned", "segments of known connections in which both replicas use the same numbers"),
    Counter("passed_handshake", "SYN segments, and segments before a connection's seq_offset is known"),
    Counter(
        "passed_no_number",
        "segments of known connections without a number to rewrite: no ACK, a SYN refused",
    ),
    Counter("passed_unknown", "TCP segments of connections whose start was not seen here"),
    Counter("passed_unasked", "inbound SYN+ACKs for which no SYN of the guest was seen here"),
    Counter("passed_fragment", "IP fragments without a TCP header: all but the first, and other protocols"),
    Counter("passed_not_tcp", "everything else that is not TCP"),
    Counter("passed_off", "packets passed while the status was off"),
    Counter("connections", "connections open now"),
    Counter("connections_opened", "connections that started"),
    Counter("connections_closed", "connections closed: both FINs acknowledged"),
    Counter("connections_reset", "connections ended by a RST"),
    Counter("connections_replaced", "open connections whose addresses the guest used for a new one"),
    Counter("connections_evicted", "established connections, the longest silent, given up for want of room"),
    Counter("half_open_evicted", "connections whose handshake was not over, the oldest, given up for want of room"),
    Counter("rows_recycled", "closed connections forgotten for want of room"),
    Counter("connections_untracked", "connections left alone: no row could be had, or the guest's SYN carries data"),
    Counter("checkpoints", "checkpoints taken: every seq_offset and ts_offset became 0"),
    Counter("failovers", "failovers taken: known connections go on being rewritten, new ones are left alone"),
)

# --- a connection's row -----------------------------------------------------------------------------------------
C_STATE: Final = table.ROW_HEADER
C_OFFSET: Final = 13
C_GENERATION: Final = 14
C_FINS: Final = 15
C_LOCAL_ISN: Final = 16
C_FIRST_SEQ: Final = 17
C_FIN_IN: Final = 18
C_FIN_OUT: Final = 19
C_TS_LOCAL: Final = 20
C_TS_OFFSET: Final = 21
C_GUEST_OPENED: Final = 22
C_LISTED: Final = 23
C_OLDER: Final = 24
C_NEWER: Final = 25
C_ACK_OUT: Final = 26
ROW_WORDS: Final = 27

ROW_FIELDS: Final = (
    Field("state", C_STATE, 1, "kernels", "LEFT_ALONE to ESTABLISHED"),
    Field("seq_offset", C_OFFSET, 1, "kernels", "secondary ISN - primary ISN mod 2^32, of `generation`"),
    Field("generation", C_GENERATION, 1, "kernels", "S_GENERATION when local_isn was learnt; older: the offsets are 0"),
    Field("fins", C_FINS, 1, "kernels", "FIN_SEEN_IN, FIN_SEEN_OUT, FIN_ACKED_IN, FIN_ACKED_OUT"),
    Field(
        "local_isn",
        C_LOCAL_ISN,
        1,
        "kernels",
        "the secondary's ISN, from its SYN or SYN+ACK, also of one left alone",
    ),
    Field("first_seq", C_FIRST_SEQ, 1, "kernels", "seq of the peer's first byte, from the SYN+ACK; -1: not known"),
    Field("fin_in", C_FIN_IN, 1, "kernels", "number after the peer's FIN"),
    Field(
        "fin_out", C_FIN_OUT, 1, "kernels", "number after the guest's FIN, as the peer sees it: no checkpoint moves it"
    ),
    Field("ts_local", C_TS_LOCAL, 1, "kernels", "TSval that came with local_isn, -1: no timestamps"),
    Field("ts_offset", C_TS_OFFSET, 1, "kernels", "that TSval: secondary - primary mod 2^32, of `generation`"),
    Field("guest_opened", C_GUEST_OPENED, 1, "kernels", "1: the guest has sent a SYN without ACK"),
    Field("listed", C_LISTED, 1, "kernels", "1: in the list of spare rows"),
    Field("older", C_OLDER, 1, "kernels", "word index of the next older spare row, 0: none"),
    Field("newer", C_NEWER, 1, "kernels", "word index of the next newer spare row, 0: none"),
    Field("ack_out", C_ACK_OUT, 1, "kernels", "the last ack that the guest sent: where an inbound RST must be"),
)

# States.  From, to: why.
LEFT_ALONE: Final = 0  # nothing is known or learnt of it
SYN_SEEN: Final = 1
ANSWERED: Final = 2  # the secondary's ISN is known, from its SYN+ACK
ESTABLISHED: Final = 3  # seq_offset is known
OPENING: Final = 4  # the secondary's ISN is known, from its own SYN
STATE_MOVES: Final = {
    (SYN_SEEN, ANSWERED): "outbound SYN+ACK",
    (SYN_SEEN, OPENING): "outbound SYN: the guest opens the connection; both SYNs crossed (simultaneous open)",
    (ANSWERED, ANSWERED): "SYN+ACK sent again, perhaps with another ISN (SYN cookies, a second SYN)",
    (OPENING, OPENING): "SYN sent again, perhaps with another ISN (a second attempt, a checkpoint)",
    (OPENING, ANSWERED): "outbound SYN+ACK: simultaneous open, or the guest lets the peer open",
    (ANSWERED, OPENING): "outbound SYN: the guest opens the connection itself",
    (ANSWERED, ESTABLISHED): "first inbound ACK: its ack - 1 is the primary's ISN; with SYN where both opened",
    (OPENING, ESTABLISHED): "inbound SYN+ACK or RST+ACK: its ack - 1 is the primary's ISN",
    (ESTABLISHED, ANSWERED): "a SYN+ACK for another client ISN: the guest has taken a new connection",
    (ESTABLISHED, OPENING): "a SYN with another ISN: the guest opens a new connection",
    (ESTABLISHED, LEFT_ALONE): "either of them after a failover, or a SYN with data (RFC 7413)",
    (ANSWERED, LEFT_ALONE): "the same",
    (SYN_SEEN, LEFT_ALONE): "outbound SYN with data: whether the answer acknowledges them cannot be told",
    (OPENING, LEFT_ALONE): "the same",
    (LEFT_ALONE, ANSWERED): "outbound SYN+ACK, before any failover",
    (LEFT_ALONE, OPENING): "outbound SYN without data, before any failover",
}
STATE_PROHIBITED: Final = {
    (
        ESTABLISHED,
        SYN_SEEN,
    ): "an inbound SYN alone proves nothing: it may be late, or forged; the guest's answer decides",
    (SYN_SEEN, ESTABLISHED): "without the secondary's ISN there is no offset",
}

FIN_SEEN_IN: Final = 1
FIN_SEEN_OUT: Final = 2
FIN_ACKED_IN: Final = 4
FIN_ACKED_OUT: Final = 8

FIRST_WINDOW: Final = 0xFFFF  # RFC 7323: the window of a SYN is never scaled, so the first segment lies within it
RESET_WINDOW: Final = 1 << 20  # how far past the guest's last ack a RST still counts: bytes in flight before it
MAX_CONNECTIONS: Final = 16_384

# --- room for a burst -------------------------------------------------------------------------------------------
PACKET_PUTS: Final = 80  # entries of the undo log that a packet needs at most, without moving others in the table
MOVE_PUTS: Final = 512  # the most that may move when a row is evicted
UNDO_ENTRIES: Final = 4096  # a burst ends early where it is full: some 90 new connections, or any number of others

SCRATCH_AT: Final = layout.UNDO + 2 * UNDO_ENTRIES
OLDEST_AT: Final = SCRATCH_AT + SCRATCH  # word index of the oldest spare row, 0: none
NEWEST_AT: Final = OLDEST_AT + 1
TABLE_AT: Final = NEWEST_AT + 1
