"""filter-rewriter: rows of addresses, of the guest and of its neighbours.

The last who says that an address is his has it, as in every host (RFC 826).  One exception: the primary's guest has the
addresses of this one, and the same MAC.  What it says of them on the network is no claim of somebody else.
"""

from __future__ import annotations

from ring import layout
from ring.hot import hot
from ring.kernels.ledger import count, put
from stages.packets.kernels.table import find, insert, remove, remove_cost, touch, victim
from stages.packets.layout import rows, table
from stages.rewriter.kernels.connections import change
from stages.rewriter.layout import addresses, counters, options, scalars, tables


@hot
def find_address(w, high, low, network):
    """Word index of an address's row, or -1; the address is the one at hand from now on.

    ``network``: family << 32 | VLAN tags.
    """
    at = tables.ADDRESS_AT
    for i in range(addresses.NETWORK):
        w[at + i] = 0
    w[at + addresses.ADDRESS] = high
    w[at + addresses.ADDRESS + 1] = low
    w[at + addresses.NETWORK] = network
    return find(w, w[options.ADDRESSES], at)


@hot
def guest_has_room(w, row):
    """Whether one more row may be the guest's."""
    have = w[row + layout.ROW_SCALARS + scalars.GUEST_ADDRESSES]
    return (have + 1) * addresses.GUEST_SHARE <= w[w[options.ADDRESSES] + table.CAPACITY]


@hot
def make_room(w, row):
    """Give up the neighbour's address heard of longest ago; False where there is none, or it would take too much."""
    t = w[options.ADDRESSES]
    old = victim(w, t)
    if old < 0 or remove_cost(w, t, old) > addresses.MOVE_PUTS:
        return False
    remove(w, t, old)
    count(w, row, counters.ADDRESSES_EVICTED, 1)
    count(w, row, counters.ADDRESSES, -1)
    return True


@hot
def new_address(w, row, now):
    """A row for the address at hand, a neighbour's as yet; -1 where none is to be had."""
    t = w[options.ADDRESSES]
    a = insert(w, t, tables.ADDRESS_AT, now)
    if a < 0 and make_room(w, row):
        a = insert(w, t, tables.ADDRESS_AT, now)
    if a >= 0:
        count(w, row, counters.ADDRESSES_LEARNT, 1)
        count(w, row, counters.ADDRESSES, 1)
    return a


@hot
def give(w, row, a, side):
    """Row ``a`` is that side's; the guest's are pinned."""
    if w[a + addresses.SIDE] != side:
        guests = 1 if side == addresses.GUEST else 0
        put(w, a + addresses.SIDE, side)
        put(w, a + rows.PINNED, guests)
        put(w, a + addresses.ROUTER, 0)
        w[row + layout.ROW_SCALARS + scalars.GUEST_ADDRESSES] += 2 * guests - 1


@hot
def claim(w, row, now, a, mac, tpids, side):
    """``side`` says that the address at hand, whose row is ``a`` (-1: none), is at ``mac``; its row, or -1."""
    if side == addresses.GUEST:
        if (a < 0 or w[a + addresses.SIDE] != side) and not guest_has_room(w, row):
            count(w, row, counters.ADDRESSES_UNTRACKED, 1)
            return -1
    elif a >= 0 and w[a + addresses.SIDE] == addresses.GUEST and w[a + addresses.MAC] == mac:
        return -1  # it is the primary's guest that says so
    if a < 0:
        a = new_address(w, row, now)
        if a < 0:
            count(w, row, counters.ADDRESSES_UNTRACKED, 1)
            return -1
    give(w, row, a, side)
    change(w, a + addresses.MAC, mac)
    change(w, a + addresses.TPIDS, tpids)
    touch(w, a, now)
    return a


@hot
def is_guests_mac(w, mac, tags):
    """Whether the guest has sent from that MAC address in that VLAN."""
    a = find_address(w, 0, mac, addresses.MAC_FAMILY << 32 | tags)
    return a >= 0 and w[a + addresses.SIDE] == addresses.GUEST


@hot
def heard_from(w, row, now, mac, tags, tpids):
    """The guest has sent a frame from ``mac``.  Nearly always it is the same as the last time, which costs a look."""
    last = row + layout.ROW_SCALARS + scalars.GUEST_MAC
    a = w[last]
    network = addresses.MAC_FAMILY << 32 | tags
    if a != 0 and w[a + rows.KEY + addresses.ADDRESS + 1] == mac and w[a + rows.KEY + addresses.NETWORK] == network:
        return
    if mac == 0 or mac >> 40 & 1:  # nobody's, or many's
        return
    a = claim(w, row, now, find_address(w, 0, mac, network), mac, tpids, addresses.GUEST)
    if a >= 0:
        w[last] = a
