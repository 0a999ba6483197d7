"""filter-rewriter: frames that it makes: RARP (RFC 903), ARP (RFC 826), neighbour advertisements (RFC 4861)."""

from __future__ import annotations

from ring import layout
from ring.atomics import put_be16, put_be32, put_byte
from ring.hot import hot
from ring.kernels.frames import index, prefix
from ring.kernels.ledger import blocked, count, room
from stages.packets.kernels.checksum import fold, summed
from stages.rewriter.layout import scalars

REQUEST, REPLY, REQUEST_REVERSE = 1, 2, 3  # ARP operations
ARP, RARP, IPV6 = 0x0806, 0x8035, 0x86DD  # EtherTypes
ADVERTISEMENT = 136  # ICMPv6 type
ROUTER, SOLICITED, OVERRIDE = 1 << 31, 1 << 30, 1 << 29  # flags of an advertisement
BROADCAST = 0xFFFFFFFFFFFF
ALL_NODES = 0x333300000001  # MAC address of ff02::1 (RFC 2464)
_ICMPV6 = 58
_LEAST = 60  # bytes of the shortest Ethernet frame, without its check sequence
_ARP_SIZE, _ADVERTISEMENT_SIZE = 28, 32


@hot
def put_mac(u8, at, mac):
    """Write a MAC address."""
    put_be16(u8, at, mac >> 32)
    put_be32(u8, at + 2, mac & 0xFFFFFFFF)


@hot
def put_be64(u8, at, value):
    """Write a word of an IPv6 address."""
    put_be32(u8, at, value >> 32 & 0xFFFFFFFF)
    put_be32(u8, at + 4, value & 0xFFFFFFFF)


@hot
def tag_bytes(tpids):
    """Bytes of the VLAN tags that those EtherTypes stand for."""
    return (4 if tpids >> 16 != 0 else 0) + (4 if tpids & 0xFFFF != 0 else 0)


@hot
def open_frame(u8, w, row, o, size):
    """Byte index of a new Ethernet frame of ``size`` bytes, all 0, at output ``o``; -1 where there is no room for it.

    It lies behind the tail of the row and is no part of the burst before `close_frame`.
    """
    r = w[layout.OUTPUTS + o]
    if r == 0:
        return -1
    lead = prefix(w, r)
    header = w[row + layout.ROW_SCALARS + scalars.HEADER] if lead == 8 else 0
    if room(w, row, o) < lead + header + size:
        blocked(w, o)
        return -1
    at = index(w, r, w[row + layout.ROW_TAILS + o])
    put_be32(u8, at, header + size)
    if lead == 8:
        put_be32(u8, at + 4, header)
    for i in range(lead, lead + header + size):
        put_byte(u8, at + i, 0)
    return at + lead + header


@hot
def close_frame(w, row, o, size):
    """The frame of ``size`` bytes that `open_frame` gave goes out with the burst."""
    lead = prefix(w, w[layout.OUTPUTS + o])
    header = w[row + layout.ROW_SCALARS + scalars.HEADER] if lead == 8 else 0
    w[row + layout.ROW_TAILS + o] += lead + header + size
    count(w, row, layout.PORTS + o, 1)


@hot
def ethernet(u8, at, to, source, tags, tpids, kind):
    """Write an Ethernet header with VLAN tags at ``at``; where its payload begins."""
    put_mac(u8, at, to)
    put_mac(u8, at + 6, source)
    at += 12
    if tpids >> 16 != 0:
        put_be16(u8, at, tpids >> 16)
        put_be16(u8, at + 2, tags >> 16 & 0xFFF)
        at += 4
    if tpids & 0xFFFF != 0:
        put_be16(u8, at, tpids & 0xFFFF)
        put_be16(u8, at + 2, tags & 0xFFF)
        at += 4
    put_be16(u8, at, kind)
    return at + 2


@hot
def send_arp(u8, w, row, o, tags, tpids, kind, operation, to, sender_mac, sender, target_mac, target):
    """Put an ARP or RARP packet to the MAC address ``to`` into output ``o``; False where there is no room."""
    size = max(_LEAST, 14 + tag_bytes(tpids) + _ARP_SIZE)
    at = open_frame(u8, w, row, o, size)
    if at < 0:
        return False
    at = ethernet(u8, at, to, sender_mac, tags, tpids, kind)
    put_be16(u8, at, 1)  # Ethernet
    put_be16(u8, at + 2, 0x0800)
    put_be16(u8, at + 4, 0x0604)  # bytes of a MAC and of an IPv4 address
    put_be16(u8, at + 6, operation)
    put_mac(u8, at + 8, sender_mac)
    put_be32(u8, at + 14, sender)
    put_mac(u8, at + 18, target_mac)
    put_be32(u8, at + 24, target)
    close_frame(w, row, o, size)
    return True


@hot
def send_advertisement(u8, w, row, o, tags, tpids, flags, mac, high, low, to_mac, to_high, to_low):
    """Put a neighbour advertisement into output ``o``: address (high, low) is at ``mac``; False where there is no room.

    It goes to the address (to_high, to_low) at ``to_mac``; hop limit 255, for it is never forwarded (RFC 4861, 7.1.2).
    """
    size = 14 + tag_bytes(tpids) + 40 + _ADVERTISEMENT_SIZE
    at = open_frame(u8, w, row, o, size)
    if at < 0:
        return False
    ip = ethernet(u8, at, to_mac, mac, tags, tpids, IPV6)
    put_byte(u8, ip, 0x60)
    put_be16(u8, ip + 4, _ADVERTISEMENT_SIZE)
    put_byte(u8, ip + 6, _ICMPV6)
    put_byte(u8, ip + 7, 255)
    put_be64(u8, ip + 8, high)
    put_be64(u8, ip + 16, low)
    put_be64(u8, ip + 24, to_high)
    put_be64(u8, ip + 32, to_low)
    icmp = ip + 40
    put_byte(u8, icmp, ADVERTISEMENT)
    put_be32(u8, icmp + 4, flags)
    put_be64(u8, icmp + 8, high)
    put_be64(u8, icmp + 16, low)
    put_be16(u8, icmp + 24, 0x0201)  # option: the target's link-layer address, 8 bytes
    put_mac(u8, icmp + 26, mac)
    put_be16(u8, icmp + 2, icmpv6_sum(u8, ip, icmp, icmp + _ADVERTISEMENT_SIZE) ^ 0xFFFF)
    close_frame(w, row, o, size)
    return True


@hot
def icmpv6_sum(u8, ip, icmp, end):
    """One's complement sum of the ICMPv6 message from ``icmp`` to ``end`` with its pseudo-header (RFC 4443, 2.3)."""
    return fold(summed(u8, ip + 8, 32) + summed(u8, icmp, end - icmp) + end - icmp + _ICMPV6)
