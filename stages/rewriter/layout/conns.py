"""A connection's row in the rewriter's table, and the states that it goes through.

Keys are those of the inbound direction: the source is the outside peer, the destination is the guest.
"""

from __future__ import annotations

from typing import Final

from ring.fields import Bits, Values, Words
from stages.packets.layout import rows

_ROW = Words("kernels", start=rows.HEADER)
STATE: Final = _ROW.word("state", "LEFT_ALONE to OPENING, see STATE_NAMES")
SEQ_OFFSET: Final = _ROW.word("seq_offset", "secondary ISN - primary ISN mod 2^32, of `generation`", "delta")
GENERATION: Final = _ROW.word(
    "generation", "scalars.GENERATION when local_isn was learnt; in an older one the offsets are 0"
)
FINS: Final = _ROW.word("fins", "FIN_SEEN_IN, FIN_SEEN_OUT, FIN_ACKED_IN, FIN_ACKED_OUT", "flags")
LOCAL_ISN: Final = _ROW.word("local_isn", "the secondary's ISN, from its SYN or SYN+ACK, also of one left alone", "seq")
FIRST_SEQ: Final = _ROW.word("first_seq", "seq of the peer's first byte, from the SYN+ACK; -1: not known", "seq")
FIN_IN: Final = _ROW.word("fin_in", "number after the peer's FIN", "seq")
FIN_OUT: Final = _ROW.word(
    "fin_out", "number after the guest's FIN, as the peer sees it: no checkpoint moves it", "seq"
)
TS_LOCAL: Final = _ROW.word("ts_local", "TSval that came with local_isn, -1: no timestamps", "seq")
TS_OFFSET: Final = _ROW.word("ts_offset", "that TSval: secondary - primary mod 2^32, of `generation`", "delta")
GUEST_OPENED: Final = _ROW.word("guest_opened", "1: the guest has sent a SYN without ACK", "bool")
LISTED: Final = _ROW.word("listed", "1: in the list of spare rows", "bool")
OLDER: Final = _ROW.word("older", "word index of the next older spare row, 0: none", "row")
NEWER: Final = _ROW.word("newer", "word index of the next newer spare row, 0: none", "row")
ACK_OUT: Final = _ROW.word("ack_out", "the last ack that the guest sent: where an inbound RST must be", "seq")
FIELDS: Final = _ROW.fields
WORDS: Final = _ROW.end

_STATE = Values()
LEFT_ALONE: Final = _STATE.value("left alone")  # nothing is known or learnt of it
SYN_SEEN: Final = _STATE.value("SYN seen")
ANSWERED: Final = _STATE.value("answered")  # the secondary's ISN is known, from its SYN+ACK
ESTABLISHED: Final = _STATE.value("established")  # seq_offset is known
OPENING: Final = _STATE.value("opening")  # the secondary's ISN is known, from its own SYN
STATE_NAMES: Final = _STATE.names
# From, to: why.  There is no other move: an inbound SYN alone proves nothing of an established connection, as it may be
# late, or forged (the guest's answer decides); and without the secondary's ISN none becomes established.
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

_FIN = Bits()
FIN_SEEN_IN: Final = _FIN.bit("FIN_SEEN_IN", "the peer has sent a FIN")
FIN_SEEN_OUT: Final = _FIN.bit("FIN_SEEN_OUT", "the guest has sent a FIN")
FIN_ACKED_IN: Final = _FIN.bit("FIN_ACKED_IN", "the guest has acknowledged the peer's FIN")
FIN_ACKED_OUT: Final = _FIN.bit("FIN_ACKED_OUT", "the peer has acknowledged the guest's FIN")
FIN_NAMES: Final = _FIN.names

FIRST_WINDOW: Final = 0xFFFF  # RFC 7323: the window of a SYN is never scaled, so the first segment lies within it
RESET_WINDOW: Final = 1 << 20  # how far past the guest's last ack a RST still counts: bytes in flight before it
