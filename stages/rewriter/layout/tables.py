"""Tables of a filter-rewriter: scratch for packets, both ends of the list of spare rows, connections, addresses.

Spare rows are those that may go when a new connection needs room: closed ones, and those whose handshake is not over.
So while there is one, a flood of SYNs drives out its own rows and no established connection, however silent.  Where
none is spare, all rows being established, a SYN costs one of them: the longest silent of 64 that are looked at.
"""

from __future__ import annotations

from typing import Final

from ring import layout
from ring.fields import Words
from stages.packets.layout import parsed

# --- room for a burst -------------------------------------------------------------------------------------------
PACKET_PUTS: Final = 80  # entries of the undo log that a packet needs at most, without moving others in the table
MOVE_PUTS: Final = 512  # the most that may move when a row is evicted
UNDO_ENTRIES: Final = 4096  # a burst ends early where it is full: some 90 new connections, or any number of others

_TABLES = Words("kernels", start=layout.UNDO + UNDO_ENTRIES * layout.UNDO_ENTRY)
SCRATCH_AT: Final = _TABLES.word(
    "scratch_at", "the packet at hand, as the packet parser writes it", size=parsed.SCRATCH
)
ADDRESS_AT: Final = _TABLES.word(
    "address_at", "the address at hand, as a key of the table of addresses; private to a burst", size=parsed.KEY_WORDS
)
OLDEST_AT: Final = _TABLES.word("oldest_at", "word index of the oldest spare row, 0: none", "row")
NEWEST_AT: Final = _TABLES.word("newest_at", "word index of the newest spare row, 0: none", "row")
FIELDS: Final = _TABLES.fields
TABLE_AT: Final = _TABLES.end  # the connection table, `stages.packets.layout.table`; that of addresses is behind it
