"""filter-rewriter: who has which address, by ARP and neighbour discovery; before a failover, answers to the guest.

Nothing else proves an address.  An IP packet does not: a guest that is a router sends those of others, with any hop
limit that they chose, relays of multicast keep its source, and a client behind a router has the router's MAC address.
ARP never leaves its network, and of neighbour discovery (RFC 4861) only what has hop limit 255 counts, which nobody
can have forwarded.  (Its messages have no extension headers but those of senders that want to be taken for other
packets, and are never fragments, RFC 6980: such ones teach nothing here.)

Before a failover nothing that the guest sends reaches its neighbours, so its own questions would have no answer: the
primary's guest, which has the same address, asks at other times.  What has passed on the way to it is answer enough.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be16, be32, be64, byte
from ring.hot import hot
from ring.kernels.ledger import count
from stages.packets.layout import rows
from stages.rewriter.kernels import made
from stages.rewriter.kernels.addresses import claim, find_address, heard_from, is_guests_mac
from stages.rewriter.kernels.connections import change
from stages.rewriter.layout import addresses, counters, options, ports, scalars

_ROUTER_SOLICITATION, _ROUTER_ADVERTISEMENT, _SOLICITATION = 133, 134, 135  # ICMPv6 types
_SOURCE_LINK, _TARGET_LINK = 1, 2  # options
_IPV4 = 0x0800  # EtherType
_ICMPV6 = 58


# --- frames -----------------------------------------------------------------------------------------------------
@hot
def be48(u8, at):
    """A MAC address."""
    return be16(u8, at) << 32 | be32(u8, at + 2)


@hot
def is_tag(kind):
    """Whether an EtherType is a VLAN tag's, as the packet parser knows them."""
    return kind == 0x8100 or kind == 0x88A8 or kind == 0x9100


@hot
def behind_tags(u8, at, length):
    """Of the frame at ``at``: (EtherType, where its payload begins, VLAN tags, their EtherTypes).

    The EtherType is a tag's where a third one follows.
    """
    kind, l3, tags, tpids, many = be16(u8, at + 12), 14, 0, 0, 0
    while is_tag(kind) and many < 2 and length >= l3 + 4:
        tags = (tags & 0xFFFF) << 16 | be16(u8, at + l3) & 0xFFF
        tpids = (tpids & 0xFFFF) << 16 | kind
        kind = be16(u8, at + l3 + 2)
        l3 += 4
        many += 1
    return kind, l3, tags, tpids


@hot
def hear(u8, w, row, now, at, length, vnet, inbound):
    """Learn from one frame of ``length`` bytes at ``at``, and answer it where it is a question of the guest.

    ``vnet`` bytes of a virtio-net header stand before it: NEEDS_CSUM in its first byte (virtio 1.2, 5.1.6) says that
    the checksum is still to be made.
    """
    if length < 14 or (inbound and be16(u8, at + 12) == _IPV4):
        return
    kind, l3, tags, tpids = behind_tags(u8, at, length)
    if not inbound:
        heard_from(w, row, now, be48(u8, at + 6), tags, tpids)
    if kind == made.ARP:
        hear_arp(u8, w, row, now, at, length, l3, tags, tpids, inbound)
    elif kind == made.IPV6 and length >= l3 + 48 and byte(u8, at + l3 + 6) == _ICMPV6 and byte(u8, at + l3 + 7) == 255:
        partial = vnet != 0 and byte(u8, at - vnet) & 1 == 1
        hear_discovery(u8, w, row, now, at, length, l3, tags, tpids, partial, inbound)


@hot
def learn(w, row, now, high, low, network, mac, tpids, override, inbound):
    """``mac`` says that the address is its own; the address's row, or -1 where nothing is to be learnt of that.

    ``override``: it may take the place of another one.
    """
    if mac == 0 or mac >> 40 & 1:
        return -1
    if inbound and is_guests_mac(w, mac, network & 0xFFFFFFFF):
        return -1  # the primary's guest; what is the guest's is learnt from the guest itself
    a = find_address(w, high, low, network)
    if a >= 0 and not override and w[a + addresses.MAC] != mac:
        return -1
    return claim(w, row, now, a, mac, tpids, addresses.NEIGHBOUR if inbound else addresses.GUEST)


@hot
def known_neighbour(w, now, high, low, network):
    """Row of the address, if it is a neighbour's that was heard of lately, or -1."""
    a = find_address(w, high, low, network)
    if a < 0 or w[a + addresses.SIDE] != addresses.NEIGHBOUR or now - w[a + rows.SEEN] > w[options.AGE_NS]:
        return -1
    return a if w[options.AGE_NS] != 0 else -1


@hot
def alone(w, row):
    """Whether a failover was taken: the network answers the guest by itself."""
    return w[row + layout.ROW_SCALARS + scalars.ALONE] == 1


@hot
def answered(w, row, there_was_room, counter):
    """Count an answer, or that there was no room for it.

    It is not waited for: a guest that takes nothing would hold up what it sends itself, and it asks again.
    """
    count(w, row, counter if there_was_room else counters.UNANSWERED_FULL, 1)


# --- ARP (RFC 826) ----------------------------------------------------------------------------------------------
@hot
def is_host(address):
    """Whether an IPv4 address can be a host's: not 0.0.0.0/8, loopback, multicast, reserved or broadcast."""
    return address >> 24 != 0 and address >> 24 != 127 and address >> 24 < 224


@hot
def hear_arp(u8, w, row, now, at, length, l3, tags, tpids, inbound):
    """A packet of ARP.  One whose sender is 0.0.0.0 asks whether an address is free (RFC 5227): it has no answer."""
    arp = at + l3
    if length < l3 + 28 or be32(u8, arp) != 0x00010800 or be16(u8, arp + 4) != 0x0604:
        return
    operation, mac = be16(u8, arp + 6), be48(u8, arp + 8)
    sender, target = be32(u8, arp + 14), be32(u8, arp + 24)
    if (operation != made.REQUEST and operation != made.REPLY) or not is_host(sender):
        return
    network = 4 << 32 | tags
    # Of the guest only what it says of the MAC address that it sends from: proxies say more (RFC 5227, 2.4; VRRP).
    if inbound or mac == be48(u8, at + 6):
        learn(w, row, now, 0, sender, network, mac, tpids, True, inbound)
    if inbound or operation != made.REQUEST or target == sender or alone(w, row):
        return
    a = known_neighbour(w, now, 0, target, network)
    if a >= 0:
        there = w[a + addresses.MAC]
        room = made.send_arp(
            u8, w, row, ports.TX_OUT, tags, tpids, made.ARP, made.REPLY, mac, there, target, mac, sender
        )
        answered(w, row, room, counters.ANSWERED_ARP)


# --- neighbour discovery (RFC 4861) -----------------------------------------------------------------------------
@hot
def is_unicast(high, low):
    """Whether an IPv6 address can be a host's: neither multicast nor unspecified nor loopback."""
    return high >> 56 & 0xFF != 0xFF and (high != 0 or low >> 1 != 0)


@hot
def link_option(u8, at, end, wanted):
    """The MAC address in the option ``wanted`` among those from ``at`` to ``end``: 0 where it is not there.

    -1 where they cannot be read: then the whole message counts for nothing (RFC 4861, 6.1 and 7.1).
    """
    found = 0
    while at < end:
        size = byte(u8, at + 1) * 8 if end >= at + 2 else 0
        if size == 0 or end < at + size:
            return -1
        if byte(u8, at) == wanted and size == 8 and found == 0:
            found = be48(u8, at + 2)
        at += size
    return found


@hot
def hear_discovery(u8, w, row, now, at, length, l3, tags, tpids, partial, inbound):
    """An ICMPv6 message with hop limit 255."""
    ip, size = at + l3, be16(u8, at + l3 + 4)
    icmp, end = ip + 40, ip + 40 + size
    kind = byte(u8, icmp)
    if length < l3 + 40 + size or not _ROUTER_SOLICITATION <= kind <= made.ADVERTISEMENT or byte(u8, icmp + 1) != 0:
        return
    fixed = 8 if kind == _ROUTER_SOLICITATION else 16 if kind == _ROUTER_ADVERTISEMENT else 24
    if size < fixed or (not partial and made.icmpv6_sum(u8, ip, icmp, end) != 0xFFFF):
        return
    link = link_option(u8, icmp + fixed, end, _TARGET_LINK if kind == made.ADVERTISEMENT else _SOURCE_LINK)
    if link < 0:
        return
    # The guest's MAC address is the one that it sends from: it need not say it once more, but must not say another.
    network, sender = 6 << 32 | tags, be48(u8, at + 6)
    mac = link
    if not inbound:
        mac = sender if link == 0 or link == sender else 0
    if kind == made.ADVERTISEMENT:
        hear_advertisement(u8, w, row, now, icmp, network, mac, tpids, inbound)
        return
    high, low = be64(u8, ip + 8), be64(u8, ip + 16)
    # The source of a packet that nobody has forwarded.  None: it asks whether an address is free (RFC 4862).
    if not is_unicast(high, low):
        return
    a = learn(w, row, now, high, low, network, mac, tpids, True, inbound)
    if a >= 0 and kind == _ROUTER_ADVERTISEMENT:
        change(w, a + addresses.ROUTER, 1)
    if kind == _SOLICITATION and not inbound and not alone(w, row):
        answer_solicitation(u8, w, row, now, icmp, network, sender, high, low, tpids)


@hot
def hear_advertisement(u8, w, row, now, icmp, network, mac, tpids, inbound):
    """A neighbour advertisement: its target is at ``mac``, 0: that is not said.

    Of the guest one that may not override counts for nothing: it speaks for an anycast address, or for somebody else
    (RFC 4861, 7.2.7 and 7.2.8).
    """
    flags, high, low = be32(u8, icmp + 4), be64(u8, icmp + 8), be64(u8, icmp + 16)
    override = flags & made.OVERRIDE != 0
    if not is_unicast(high, low) or not (inbound or override):
        return
    a = learn(w, row, now, high, low, network, mac, tpids, override, inbound)
    if a >= 0:
        change(w, a + addresses.ROUTER, 1 if flags & made.ROUTER else 0)


@hot
def answer_solicitation(u8, w, row, now, icmp, network, mac, high, low, tpids):
    """A neighbour solicitation of the guest's address (high, low) at ``mac``: answer it, if the neighbour is known."""
    there_high, there_low = be64(u8, icmp + 8), be64(u8, icmp + 16)
    a = known_neighbour(w, now, there_high, there_low, network)
    if a >= 0:
        flags = made.SOLICITED | made.OVERRIDE | (made.ROUTER if w[a + addresses.ROUTER] == 1 else 0)
        there, tags = w[a + addresses.MAC], network & 0xFFFFFFFF
        room = made.send_advertisement(
            u8, w, row, ports.TX_OUT, tags, tpids, flags, there, there_high, there_low, mac, high, low
        )
        answered(w, row, room, counters.ANSWERED_ND)
