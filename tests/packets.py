"""Frames for tests, in plain Python: builders with right checksums, readers, checksum verifiers.

Nothing here shares code with the kernels, so that a test compares two opinions.  Addresses are text: a colon
means IPv6.

    syn = tcp_frame("10.0.0.9", "10.0.0.1", 40000, 80, seq=7, flags=SYN)
    assert checksum_faults(syn) == []
    assert read(syn).seq == 7
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
IPV4, IPV6, ARP, VLAN, QINQ, PPPOE = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8, 0x8864
P_ICMP, P_IGMP, P_TCP, P_UDP, P_FRAGMENT, P_ICMPV6, P_PIM = 1, 2, 6, 17, 44, 58, 103
MAC_A: Final = bytes.fromhex("020000000001")
MAC_B: Final = bytes.fromhex("020000000002")
MOD: Final = 1 << 32


def ones_sum(data: bytes) -> int:
    """One's complement sum of 16-bit words (RFC 1071), folded, not complemented; an odd end is padded with 0."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes) -> int:
    """Internet checksum (RFC 1071)."""
    return ~ones_sum(data) & 0xFFFF


def packed(address: str) -> bytes:
    """4 or 16 bytes of an address."""
    return ipaddress.ip_address(address).packed


def pseudo(src: bytes, dst: bytes, proto: int, length: int) -> bytes:
    """Pseudo-header of TCP and UDP over IPv4 (RFC 9293) or IPv6 (RFC 8200)."""
    if len(src) == 4:
        return src + dst + struct.pack("!BBH", 0, proto, length)
    return src + dst + struct.pack("!II", length, proto)


# --- layers -----------------------------------------------------------------------------------------------------
def ether(
    payload: bytes, kind: int, vlans: Sequence[int] = (), *, src: bytes = MAC_A, dst: bytes = MAC_B, pad: bool = False,
    tpids: Sequence[int] = (),
) -> bytes:  # fmt: skip
    """Ethernet II frame without FCS; ``vlans`` from outside in; ``pad`` to 60 bytes.

    ``tpids``: the tags' EtherTypes; by default 802.1Q, all but the last of several 802.1ad.
    """
    tags = b""
    for i, vid in enumerate(vlans):
        tags += struct.pack("!HH", tpids[i] if tpids else QINQ if i < len(vlans) - 1 else VLAN, vid)
    frame = dst + src + tags + struct.pack("!H", kind) + payload
    return frame.ljust(60, b"\0") if pad else frame


def ipv4(
    src: str, dst: str, proto: int, payload: bytes, *, ident: int = 0, ttl: int = 64, tos: int = 0,
    frag: int = 0, more: bool = False, dont: bool = True, options: bytes = b"",
) -> bytes:  # fmt: skip
    """IPv4 datagram; ``frag`` is the fragment offset in bytes (a multiple of 8)."""
    options = options.ljust(-(-len(options) // 4) * 4, b"\0")
    bits = (0x2000 if more else 0) | (0x4000 if dont and not more and not frag else 0) | frag >> 3
    size = 20 + len(options)
    head = struct.pack("!BBHHHBBH", 0x40 | size // 4, tos, size + len(payload), ident, bits, ttl, proto, 0)
    head += packed(src) + packed(dst) + options
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + payload


def ipv6(
    src: str, dst: str, proto: int, payload: bytes, *, hop: int = 64, extensions: Iterable[tuple[int, bytes]] = ()
) -> bytes:
    """IPv6 datagram; each extension is (its type, its bytes with a placeholder as first byte)."""
    chain = list(extensions)
    kinds = [kind for kind, _ in chain] + [proto]
    body = b"".join(bytes([kinds[i + 1]]) + data[1:] for i, (_, data) in enumerate(chain)) + payload
    return struct.pack("!IHBB", 6 << 28, len(body), kinds[0], hop) + packed(src) + packed(dst) + body


def hop_by_hop(size: int = 8) -> tuple[int, bytes]:
    """A hop-by-hop extension header of ``size`` bytes, PadN inside."""
    return 0, bytes([0, size // 8 - 1, 1, size - 4]) + bytes(size - 4)


def destination_options(size: int = 8) -> tuple[int, bytes]:
    """A destination options extension header of ``size`` bytes."""
    return 60, hop_by_hop(size)[1]


def fragment_header(offset: int, more: bool, ident: int) -> tuple[int, bytes]:
    """An IPv6 fragment extension header; ``offset`` in bytes, a multiple of 8."""
    return P_FRAGMENT, struct.pack("!BBHI", 0, 0, offset | int(more), ident)


def tcp(
    src: str, dst: str, sport: int, dport: int, *, seq: int = 0, ack: int = 0, flags: int = ACK,
    payload: bytes = b"", options: bytes = b"", window: int = 65535, partial: bool = False,
) -> bytes:  # fmt: skip
    """TCP segment; ``options`` are padded with NOP; ``partial``: only the pseudo-header is summed (NEEDS_CSUM)."""
    options = options.ljust(-(-len(options) // 4) * 4, b"\1")
    offset = (20 + len(options)) // 4
    head = struct.pack("!HHIIBBHHH", sport, dport, seq % MOD, ack % MOD, offset << 4, flags, window, 0, 0)
    return _summed(src, dst, P_TCP, head + options + payload, 16, partial=partial)


def udp(src: str, dst: str, sport: int, dport: int, payload: bytes = b"", *, partial: bool = False) -> bytes:
    """UDP datagram."""
    return _summed(
        src, dst, P_UDP, struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload, 6, partial=partial
    )


def icmp_echo(
    src: str, dst: str, *, reply: bool = False, ident: int = 1, number: int = 1, data: bytes = b"ping"
) -> bytes:
    """ICMP or ICMPv6 echo."""
    if len(packed(src)) == 16:
        kind = 129 if reply else 128
        return _summed(src, dst, P_ICMPV6, struct.pack("!BBHHH", kind, 0, 0, ident, number) + data, 2, partial=False)
    body = struct.pack("!BBHHH", 0 if reply else 8, 0, 0, ident, number) + data
    return body[:2] + checksum(body).to_bytes(2, "big") + body[4:]


def icmpv6(src: str, dst: str, kind: int, data: bytes = bytes(20), **more: Any) -> bytes:
    """Frame with an ICMPv6 message of any type, code 0, hop limit 255; ``more`` goes to `ip_frame`."""
    body = _summed(src, dst, P_ICMPV6, struct.pack("!BBH", kind, 0, 0) + data, 2, partial=False)
    return ip_frame(src, dst, P_ICMPV6, body, **({"ttl": 255} | more))


def icmp_error(src: str, about: bytes, kind: tuple[int, int], *, quote: int = 1000, rest: int = 1400) -> bytes:
    """Frame with the ICMP or ICMPv6 error (type, code) of router ``src`` to the sender of the frame ``about``.

    It quotes the first ``quote`` bytes from the IP header on; ``rest``: the header's other 4 bytes, such as an MTU.
    """
    p = read(about)
    body = struct.pack("!BBHI", *kind, 0, rest) + about[p.ip_at :][:quote]
    if p.version == 6:
        body = _summed(src, p.src, P_ICMPV6, body, 2, partial=False)
        return ip_frame(src, p.src, P_ICMPV6, body, vlans=p.vlans)
    body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    return ip_frame(src, p.src, P_ICMP, body, vlans=p.vlans)


def _summed(src: str, dst: str, proto: int, body: bytes, at: int, *, partial: bool) -> bytes:
    head = pseudo(packed(src), packed(dst), proto, len(body))
    value = ones_sum(head) if partial else checksum(head + body)
    if proto == P_UDP and value == 0 and not partial:
        value = 0xFFFF  # 0 would mean "no checksum" (RFC 768)
    return body[:at] + value.to_bytes(2, "big") + body[at + 2 :]


# --- whole frames -----------------------------------------------------------------------------------------------
def ip_frame(
    src: str, dst: str, proto: int, body: bytes, *, vlans: Sequence[int] = (), ident: int = 0, ttl: int = 64,
    tos: int = 0, extensions: Iterable[tuple[int, bytes]] = (), ip_options: bytes = b"", pad: bool = False,
) -> bytes:  # fmt: skip
    """Ethernet frame around an IP datagram of the addresses' version."""
    if ":" in src:
        return ether(ipv6(src, dst, proto, body, hop=ttl, extensions=extensions), IPV6, vlans, pad=pad)
    datagram = ipv4(src, dst, proto, body, ident=ident, ttl=ttl, tos=tos, options=ip_options)
    return ether(datagram, IPV4, vlans, pad=pad)


def tcp_frame(
    src: str, dst: str, sport: int, dport: int, *, seq: int = 0, ack: int = 0, flags: int = ACK,
    payload: bytes = b"", options: bytes = b"", window: int = 65535, partial: bool = False,
    vlans: Sequence[int] = (), ident: int = 0, ttl: int = 64, tos: int = 0,
    extensions: Iterable[tuple[int, bytes]] = (), ip_options: bytes = b"", pad: bool = False,
) -> bytes:  # fmt: skip
    """Ethernet frame with a TCP segment."""
    body = tcp(
        src, dst, sport, dport, seq=seq, ack=ack, flags=flags, payload=payload, options=options, window=window,
        partial=partial,
    )  # fmt: skip
    return ip_frame(
        src, dst, P_TCP, body, vlans=vlans, ident=ident, ttl=ttl, tos=tos, extensions=extensions,
        ip_options=ip_options, pad=pad,
    )  # fmt: skip


def udp_frame(
    src: str, dst: str, sport: int, dport: int, payload: bytes = b"", *, vlans: Sequence[int] = (), ident: int = 0,
    ttl: int = 64, tos: int = 0, extensions: Iterable[tuple[int, bytes]] = (), pad: bool = False, partial: bool = False,
) -> bytes:  # fmt: skip
    """Ethernet frame with a UDP datagram."""
    body = udp(src, dst, sport, dport, payload, partial=partial)
    return ip_frame(src, dst, P_UDP, body, vlans=vlans, ident=ident, ttl=ttl, tos=tos, extensions=extensions, pad=pad)


def icmp_frame(
    src: str, dst: str, *, reply: bool = False, ident: int = 1, number: int = 1, data: bytes = b"ping",
    vlans: Sequence[int] = (), ip_ident: int = 0, ttl: int = 64,
) -> bytes:  # fmt: skip
    """Ethernet frame with an ICMP or ICMPv6 echo."""
    body = icmp_echo(src, dst, reply=reply, ident=ident, number=number, data=data)
    return ip_frame(src, dst, P_ICMPV6 if ":" in src else P_ICMP, body, vlans=vlans, ident=ip_ident, ttl=ttl)


def arp_packet(operation: int, sender_mac: bytes, sender: str, target_mac: bytes, target: str) -> bytes:
    """An ARP packet (RFC 826) for Ethernet and IPv4, without an Ethernet header."""
    head = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    return head + sender_mac + packed(sender) + target_mac + packed(target)


def arp_frame(sender: str, target: str) -> bytes:
    """ARP request, padded to 60 bytes."""
    return ether(arp_packet(1, MAC_A, sender, bytes(6), target), ARP, dst=b"\xff" * 6, pad=True)


def link_option(kind: int, mac: bytes) -> bytes:
    """Source (1) or target (2) link-layer address, an option of neighbour discovery (RFC 4861, 4.6.1)."""
    return bytes([kind, 1]) + mac


def discovery(
    src: str, dst: str, kind: int, body: bytes, *, mac: bytes, to: bytes, vlans: Sequence[int] = (), hop: int = 255,
    tpids: Sequence[int] = (),
) -> bytes:  # fmt: skip
    """Frame with a message of neighbour discovery; ``body``: what stands behind the checksum."""
    message = _summed(src, dst, P_ICMPV6, struct.pack("!BBH", kind, 0, 0) + body, 2, partial=False)
    return ether(ipv6(src, dst, P_ICMPV6, message, hop=hop), IPV6, vlans, src=mac, dst=to, tpids=tpids)


def neighbour_advertisement(
    target: str, mac: bytes, to: str, to_mac: bytes, *, router: bool = False, solicited: bool = False,
    override: bool = True, link: bool = True, vlans: Sequence[int] = (), tpids: Sequence[int] = (),
) -> bytes:  # fmt: skip
    """Frame with a neighbour advertisement (RFC 4861, 4.4): ``target`` is at ``mac``."""
    flags = bytes([router << 7 | solicited << 6 | override << 5, 0, 0, 0])
    body = flags + packed(target) + (link_option(2, mac) if link else b"")
    return discovery(target, to, 136, body, mac=mac, to=to_mac, vlans=vlans, tpids=tpids)


def fragments(
    src: str, dst: str, proto: int, body: bytes, size: int, *, ident: int = 7, vlans: Sequence[int] = ()
) -> list[bytes]:
    """The frames of a datagram cut into fragments of ``size`` payload bytes (a multiple of 8)."""
    frames = []
    for at in range(0, len(body), size):
        piece, more = body[at : at + size], at + size < len(body)
        if ":" in src:
            inner = ipv6(src, dst, proto, piece, extensions=[fragment_header(at, more, ident)])
            frames.append(ether(inner, IPV6, vlans))
        else:
            inner = ipv4(src, dst, proto, piece, ident=ident, frag=at, more=more, dont=False)
            frames.append(ether(inner, IPV4, vlans))
    return frames


def in_pppoe(frame: bytes, session: int, *, short: bool = False, pad: bool = False) -> bytes:
    """The same packet in a PPPoE session, behind the frame's VLAN tags; ``short``: a protocol field of one byte."""
    at = 12
    while int.from_bytes(frame[at : at + 2], "big") in (VLAN, QINQ):
        at += 4
    proto = 0x21 if frame[at : at + 2] == IPV4.to_bytes(2, "big") else 0x57
    body = proto.to_bytes(1 if short else 2, "big") + frame[at + 2 :]
    made = frame[:at] + struct.pack("!HBBHH", PPPOE, 0x11, 0, session, len(body)) + body
    return made.ljust(60, b"\0") if pad else made


def long_frame(frame: bytes) -> bytes:
    """The same frame as a sender of segments that are too long leaves it: IP length 0, with a right checksum."""
    at = 12
    while int.from_bytes(frame[at : at + 2], "big") in (VLAN, QINQ):
        at += 4
    ip = at + 2
    if frame[at:ip] != IPV4.to_bytes(2, "big"):
        return frame[: ip + 4] + b"\0\0" + frame[ip + 6 :]
    head = frame[ip : ip + 2] + b"\0\0" + frame[ip + 4 : ip + 10] + b"\0\0" + frame[ip + 12 : ip + (frame[ip] & 15) * 4]
    return frame[:ip] + head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + frame[ip + len(head) :]


def vnet_header(
    *, needs_csum: bool = False, csum_start: int = 0, csum_offset: int = 16, gso: int = 0, gso_size: int = 0,
    size: int = 10,
) -> bytes:  # fmt: skip
    """A virtio-net header of 10 or 12 bytes (virtio 1.2, 5.1.6), little-endian."""
    head = struct.pack("<BBHHHH", int(needs_csum), gso, 0, gso_size, csum_start, csum_offset)
    return head.ljust(size, b"\0")


# --- TCP options ------------------------------------------------------------------------------------------------
def opt_mss(mss: int = 1460) -> bytes:
    """Maximum segment size (RFC 9293)."""
    return struct.pack("!BBH", 2, 4, mss)


def opt_sack_permitted() -> bytes:
    """SACK permitted (RFC 2018)."""
    return b"\4\2"


def opt_sack(*blocks: tuple[int, int]) -> bytes:
    """SACK blocks (RFC 2018): (left edge, right edge)."""
    edges = b"".join(struct.pack("!II", left % MOD, right % MOD) for left, right in blocks)
    return bytes([5, 2 + len(edges)]) + edges


def opt_timestamp(tsval: int, tsecr: int = 0) -> bytes:
    """Timestamps (RFC 7323)."""
    return struct.pack("!BBII", 8, 10, tsval % MOD, tsecr % MOD)


def opt_mptcp(subtype: int, size: int) -> bytes:
    """An option of Multipath TCP (RFC 8684) of ``size`` bytes: subtype 0 is MP_CAPABLE, 1 MP_JOIN."""
    return bytes([30, size, subtype << 4 | 1]) + bytes((37 * i + size) % 256 for i in range(size - 3))


# --- reading ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Packet:
    """A frame as read by `read`: ``proto`` 0 means not IP; ``body`` is the IP payload, extension headers taken off."""

    vlans: tuple[int, ...] = ()
    network: tuple[object, ...] = ()  # what it is inside of beside VLANs: ("pppoe", session), or a tunnel's
    version: int = 0
    src: str = ""
    dst: str = ""
    proto: int = 0
    fragment: bool = False
    ip_at: int = 0
    body: bytes = b""
    body_at: int = 0
    sport: int = 0
    dport: int = 0
    seq: int = 0
    ack: int = 0
    flags: int = 0
    options: dict[int, bytes] = field(default_factory=dict)
    payload: bytes = b""


def read(frame: bytes) -> Packet:
    """Take a well-formed frame apart."""
    vlans: list[int] = []
    kind, at = int.from_bytes(frame[12:14], "big"), 14
    while kind in (VLAN, QINQ):
        vlans.append(int.from_bytes(frame[at : at + 2], "big") & 0xFFF)
        kind, at = int.from_bytes(frame[at + 2 : at + 4], "big"), at + 4
    fragment, size, network = False, len(frame), ()
    if kind == PPPOE:
        session, size = struct.unpack("!HH", frame[at + 2 : at + 6])
        network, size, at = ("pppoe", session), at + 6 + size, at + 6
        wide = 2 - (frame[at] & 1)
        kind, at = {0x21: IPV4, 0x57: IPV6}.get(int.from_bytes(frame[at : at + wide], "big"), 0), at + wide
    ip_at = at
    if kind == IPV4:
        total, bits = struct.unpack("!2xH2xH", frame[at : at + 8])
        src, dst, proto, version = frame[at + 12 : at + 16], frame[at + 16 : at + 20], frame[at + 9], 4
        fragment = bits & 0x3FFF != 0
        end = at + total if total else size
        at += (frame[at] & 15) * 4
    elif kind == IPV6:
        total, proto = struct.unpack("!HB", frame[at + 4 : at + 7])
        src, dst, version = frame[at + 8 : at + 24], frame[at + 24 : at + 40], 6
        end = at + 40 + total if total or size <= at + 46 else size
        at += 40
        while proto in (0, 43, P_FRAGMENT, 60):
            fragment = fragment or (proto == P_FRAGMENT and int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFF9 != 0)
            size = 8 if proto == P_FRAGMENT else 8 + 8 * frame[at + 1]
            proto, at = frame[at], at + size
    else:
        return Packet(vlans=tuple(vlans))
    body = frame[at:end]
    fields = {
        "vlans": tuple(vlans), "network": network, "version": version, "ip_at": ip_at,
        "src": str(ipaddress.ip_address(src)), "dst": str(ipaddress.ip_address(dst)),
        "proto": proto, "fragment": fragment, "body": body, "body_at": at,
    }  # fmt: skip
    if proto == P_TCP and not fragment:
        sport, dport, seq, ack, offset, flags = struct.unpack("!HHIIBB", body[:14])
        size = (offset >> 4) * 4
        fields |= {"sport": sport, "dport": dport, "seq": seq, "ack": ack, "flags": flags}
        fields |= {"options": read_options(body[20:size]), "payload": body[size:]}
    elif proto == P_UDP and not fragment and len(body) >= 8:
        fields |= {"sport": body[0] << 8 | body[1], "dport": body[2] << 8 | body[3], "payload": body[8:]}
    return Packet(**fields)  # type: ignore[arg-type]


def read_options(data: bytes) -> dict[int, bytes]:
    """TCP options by kind: their data without kind and length, as far as the list can be read."""
    found, at = {}, 0
    while at < len(data) and data[at] != 0:
        if data[at] == 1:
            at += 1
            continue
        if at + 1 == len(data) or data[at + 1] < 2:
            break
        found[data[at]] = data[at + 2 : at + data[at + 1]]
        at += data[at + 1]
    return found


def checksum_faults(frame: bytes, *, partial: bool = False) -> list[str]:
    """What is wrong with the checksums of a well-formed frame; empty: nothing.

    ``partial``: the transport checksum has to be the sum of the pseudo-header alone (NEEDS_CSUM).
    """
    p = read(frame)
    if p.version == 0:
        return []
    faults = []
    if p.version == 4:
        at = p.ip_at
        if ones_sum(frame[at : at + (frame[at] & 15) * 4]) != 0xFFFF:
            faults.append("IPv4 header")
    if p.fragment:
        return faults
    head = pseudo(packed(p.src), packed(p.dst), p.proto, len(p.body))
    if p.proto in (P_TCP, P_UDP):
        at = 16 if p.proto == P_TCP else 6
        stored = int.from_bytes(p.body[at : at + 2], "big")
        if partial:
            if stored != ones_sum(head):
                faults.append("partial transport checksum")
        elif ones_sum(head + p.body) != 0xFFFF and not (p.proto == P_UDP and stored == 0 and p.version == 4):
            faults.append("transport")
    elif (p.proto == P_ICMP and ones_sum(p.body) != 0xFFFF) or (
        p.proto == P_ICMPV6 and ones_sum(head + p.body) != 0xFFFF
    ):
        faults.append("ICMP")
    return faults
