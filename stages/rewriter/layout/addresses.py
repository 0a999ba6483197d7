"""Who has which address: rows of a table like that of connections, as ARP and neighbour discovery have said it.

A row is found by an address and by its VLAN tags.  Addresses are IPv4, IPv6, and MAC addresses of the guest, which are
what a bridge learns ports by.  Rows of the guest stay; of the others the one that was heard of longest ago makes room.
"""

from __future__ import annotations

from typing import Final

from ring.fields import Values, Words
from stages.packets.layout import parsed, rows

# The key has the words of a connection's: the address in `parsed.SRC`, IPv4 and MAC in its low half; in `parsed.VLAN`
# family << 32 | outer VLAN << 16 | inner VLAN; 0 in all others.
ADDRESS: Final = parsed.SRC
NETWORK: Final = parsed.VLAN
MAC_FAMILY: Final = 1  # beside the IP versions

_ROW = Words("kernels", start=rows.HEADER)
MAC: Final = _ROW.word("mac", "the MAC address that it belongs to")
SIDE: Final = _ROW.word("side", "NEIGHBOUR or GUEST, see SIDE_NAMES")
ROUTER: Final = _ROW.word("router", "1: it has said by neighbour discovery that it is a router", "bool")
TPIDS: Final = _ROW.word("tpids", "EtherTypes of the VLAN tags: outer << 16 | inner; 0: no such tag")
FIELDS: Final = _ROW.fields
WORDS: Final = _ROW.end

_SIDE = Values()
NEIGHBOUR: Final = _SIDE.value("neighbour")
GUEST: Final = _SIDE.value("guest")
SIDE_NAMES: Final = _SIDE.names

GUEST_SHARE: Final = 2  # the guest has at most one row in so many: with all of them it could leave none for the others
MOVE_PUTS: Final = 128  # the most entries of the undo log that the removal of a row may take
INSERT_PUTS: Final = WORDS + 6 + 8  # of one that is new: see `table.insert`, and the words of its own
LEARN_PUTS: Final = 2 * (MOVE_PUTS + INSERT_PUTS)  # a frame tells of two at most: a MAC address, and one of IP
