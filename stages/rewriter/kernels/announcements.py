"""filter-rewriter: after a failover the network is told where the guest is.

Switches still send the guest's packets to the port of the primary, until they see its MAC address elsewhere; a guest
that only listens would never show it.  So, several times over some seconds, for each address that the guest has used:

- a RARP request of its MAC address for itself (RFC 903), as QEMU sends: it moves the entry of every bridge on the way
  and asks nobody anything;
- an ARP announcement of its IPv4 address (RFC 5227): a request whose sender and target are the same address.  A request
  and not a reply, because every host that knows the address takes the sender from it (RFC 826), while a reply that
  nobody has asked for is ignored by some;
- an unsolicited neighbour advertisement of its IPv6 address (RFC 4861, 7.2.6) to all nodes, which overrides.

The last may be sent three times, a second apart, and the ARP announcement goes with it; RARP frames bind to nothing.
"""

from __future__ import annotations

from ring import layout
from ring.hot import hot
from ring.kernels.ledger import count
from stages.packets.layout import rows, table
from stages.rewriter.kernels import made
from stages.rewriter.layout import addresses, counters, options, ports, scalars

_MOST = 256  # frames of one burst
_IP_ROUNDS = 3  # MAX_NEIGHBOR_ADVERTISEMENT (RFC 4861, 10)
_IP_NS = 1_000_000_000  # RETRANS_TIMER, its least pause
_ALL_NODES_HIGH, _ALL_NODES_LOW = 0xFF02 - 0x10000 << 48, 1  # ff02::1, the upper half as a signed word


@hot
def begin_announcement(w, row, now, rounds):
    """Send ``rounds`` rounds from now on; what is left of one before is not sent."""
    s = row + layout.ROW_SCALARS
    w[s + scalars.ROUNDS_LEFT] = rounds
    w[s + scalars.ROUND] = 0
    w[s + scalars.ROUND_AT] = now
    w[s + scalars.CURSOR] = 0
    w[s + scalars.IP_LEFT] = _IP_ROUNDS
    w[s + scalars.IP_AT] = now


@hot
def round_due(w, row, now):
    """Whether frames of an announcement are to be sent.  A filter that is off makes none: they wait."""
    s = row + layout.ROW_SCALARS
    return w[s + scalars.ROUNDS_LEFT] != 0 and now >= w[s + scalars.ROUND_AT] and w[layout.CMD_STATUS] == 1


@hot
def announce_row(u8, w, row, a):
    """Announce the address of row ``a``, the guest's; False where there is no room."""
    key = a + rows.KEY
    family, tags = w[key + addresses.NETWORK] >> 32, w[key + addresses.NETWORK] & 0xFFFFFFFF
    high, low = w[key + addresses.ADDRESS], w[key + addresses.ADDRESS + 1]
    mac, tpids, o = w[a + addresses.MAC], w[a + addresses.TPIDS], ports.RX_OUT
    if family == addresses.MAC_FAMILY:
        return made.send_arp(
            u8, w, row, o, tags, tpids, made.RARP, made.REQUEST_REVERSE, made.BROADCAST, mac, 0, mac, 0
        )
    if family == 4:
        return made.send_arp(u8, w, row, o, tags, tpids, made.ARP, made.REQUEST, made.BROADCAST, mac, low, 0, low)
    flags = made.OVERRIDE | (made.ROUTER if w[a + addresses.ROUTER] == 1 else 0)
    return made.send_advertisement(
        u8, w, row, o, tags, tpids, flags, mac, high, low, made.ALL_NODES, _ALL_NODES_HIGH, _ALL_NODES_LOW
    )


@hot
def begin_round(w, s, now):
    """Whether this round has IP addresses in it."""
    with_ip = w[s + scalars.IP_LEFT] > 0 and now >= w[s + scalars.IP_AT]
    w[s + scalars.WITH_IP] = 1 if with_ip else 0
    if with_ip:
        w[s + scalars.IP_LEFT] -= 1
        w[s + scalars.IP_AT] = now + _IP_NS
    if w[s + scalars.ROUND] == 0:
        w[s + scalars.MACS] = w[s + scalars.IPS] = 0


@hot
def end_round(w, s, now):
    """The round was sent whole: when the next one is due."""
    if w[s + scalars.ROUND] == 0:
        w[s + scalars.SAID] += 1
    pause = min(w[options.INITIAL_NS] + w[s + scalars.ROUND] * w[options.STEP_NS], w[options.MOST_NS])
    w[s + scalars.ROUND_AT] = now + pause
    w[s + scalars.ROUND] += 1
    w[s + scalars.ROUNDS_LEFT] -= 1
    w[s + scalars.CURSOR] = 0


@hot
def announce(u8, w, row, now):
    """Send what is due, as far as there is room; the frames made, and 1 more where a round was ended."""
    s = row + layout.ROW_SCALARS
    if not round_due(w, row, now):
        return 0
    if w[s + scalars.CURSOR] == 0:
        begin_round(w, s, now)
        w[s + scalars.CURSOR] = 1
    t = w[options.ADDRESSES]
    frames = 0
    while w[s + scalars.CURSOR] <= w[t + table.FRESH]:
        a = w[t + table.ROWS] + (w[s + scalars.CURSOR] - 1) * w[t + table.ROW_WORDS]
        if w[a + rows.LIVE] == 1 and w[a + addresses.SIDE] == addresses.GUEST:
            is_mac = w[a + rows.KEY + addresses.NETWORK] >> 32 == addresses.MAC_FAMILY
            if is_mac or w[s + scalars.WITH_IP] == 1:
                if frames == _MOST or not announce_row(u8, w, row, a):
                    return frames
                frames += 1
                count(w, row, counters.ANNOUNCED, 1)
                if w[s + scalars.ROUND] == 0:
                    w[s + (scalars.MACS if is_mac else scalars.IPS)] += 1
        w[s + scalars.CURSOR] += 1
    end_round(w, s, now)
    return frames + 1
