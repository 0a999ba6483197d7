"""Who has which address behind a filter-rewriter, in slow, plain Python: a dict, and packets read by the RFCs.

Written from docs/behaviour.md, RFC 826, RFC 4861 and RFC 5227; no code, number or layout is shared with the kernel.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from tests.packets import ARP, IPV6, P_ICMPV6, arp_packet, checksum, ether, neighbour_advertisement, pseudo

TPIDS = (0x8100, 0x88A8, 0x9100)
Key = tuple[str, tuple[int, ...]]


@dataclass
class Known:
    """An address: its MAC address, whose it is, whether a router's, when it was heard of, how its tags are written."""

    mac: bytes
    guests: bool
    heard: int
    tpids: tuple[int, ...]
    router: bool = False


@dataclass
class Addresses:
    """Feed it frames; `inbound` and `outbound` return what is sent back to the guest."""

    age: int
    alone: bool = False
    known: dict[Key, Known] = field(default_factory=dict)
    macs: dict[tuple[bytes, tuple[int, ...]], tuple[int, ...]] = field(default_factory=dict)

    def outbound(self, frame: bytes, now: int) -> list[bytes]:
        """A frame of the guest."""
        read = _read(frame)
        if read is None:
            return []
        kind, body, tags, tpids = read
        mac = frame[6:12]
        if any(mac) and not mac[0] & 1:
            self.macs.setdefault((mac, tags), tpids)
        if kind == ARP:
            return self._arp(body, mac, tags, tpids, now, guest=True)
        return self._discovery(body, mac, tags, tpids, now, guest=True) if kind == IPV6 else []

    def inbound(self, frame: bytes, now: int) -> list[bytes]:
        """A frame to the guest."""
        read = _read(frame)
        if read is None:
            return []
        kind, body, tags, tpids = read
        if kind == ARP:
            self._arp(body, frame[6:12], tags, tpids, now, guest=False)
        elif kind == IPV6:
            self._discovery(body, frame[6:12], tags, tpids, now, guest=False)
        return []

    def _claim(
        self, address: str, mac: bytes, tags: tuple[int, ...], tpids: tuple[int, ...], now: int, guest: bool,
        override: bool = True,
    ) -> Known | None:  # fmt: skip
        if not any(mac) or mac[0] & 1:
            return None
        if not guest and (mac, tags) in self.macs:
            return None
        old = self.known.get((address, tags))
        if old and not override and old.mac != mac:
            return None
        if old and old.guests and not guest and old.mac == mac:
            return None
        router = old.router if old and old.guests == guest else False
        made = self.known[address, tags] = Known(mac, guest, now, tpids, router)
        return made

    def _neighbour(self, address: str, tags: tuple[int, ...], now: int) -> Known | None:
        there = self.known.get((address, tags))
        return there if there and not there.guests and now - there.heard <= self.age else None

    def _arp(
        self, body: bytes, source: bytes, tags: tuple[int, ...], tpids: tuple[int, ...], now: int, guest: bool
    ) -> list[bytes]:
        if len(body) < 28 or body[:6] != bytes.fromhex("000108000604") or body[6:8] not in (b"\0\1", b"\0\2"):
            return []
        mac, sender, target = body[8:14], body[14:18], body[24:28]
        if sender[0] in (0, 127) or sender[0] >= 224:
            return []
        mine, asked = (str(ipaddress.IPv4Address(a)) for a in (sender, target))
        if not guest or mac == source:
            self._claim(mine, mac, tags, tpids, now, guest)
        if not guest or body[7] != 1 or mine == asked or self.alone:
            return []
        there = self._neighbour(asked, tags, now)
        if there is None:
            return []
        reply = arp_packet(2, there.mac, asked, mac, mine)
        return [ether(reply, ARP, tags, tpids=tpids, src=there.mac, dst=mac, pad=True)]

    def _discovery(
        self, body: bytes, source: bytes, tags: tuple[int, ...], tpids: tuple[int, ...], now: int, guest: bool
    ) -> list[bytes]:
        if len(body) < 48 or body[6] != P_ICMPV6 or body[7] != 255:
            return []
        size = int.from_bytes(body[4:6], "big")
        message = body[40 : 40 + size]
        fixed = {133: 8, 134: 16, 135: 24, 136: 24}.get(body[40])
        if fixed is None or len(message) < size or size < fixed or message[1]:
            return []
        if checksum(pseudo(body[8:24], body[24:40], P_ICMPV6, size) + message):
            return []
        options: dict[int, bytes] = {}
        rest = message[fixed:]
        while rest:
            if len(rest) < 2 or not rest[1] or len(rest) < 8 * rest[1]:
                return []
            if rest[1] == 1:
                options.setdefault(rest[0], rest[2:8])
            rest = rest[8 * rest[1] :]
        link = options.get(2 if message[0] == 136 else 1, b"")
        if not any(link):
            link = b""
        said = link or (source if guest else bytes(6))
        mac = bytes(6) if guest and said != source else said
        if message[0] == 136:
            return self._advertised(message, mac, tags, tpids, now, guest)
        sender = ipaddress.IPv6Address(body[8:24])
        if sender.is_multicast or sender.is_unspecified or sender.is_loopback:
            return []
        made = self._claim(str(sender), mac, tags, tpids, now, guest)
        if made and message[0] == 134:
            made.router = True
        if message[0] != 135 or not guest or self.alone:
            return []
        target = str(ipaddress.IPv6Address(message[8:24]))
        there = self._neighbour(target, tags, now)
        if there is None:
            return []
        return [
            neighbour_advertisement(
                target, there.mac, str(sender), source, router=there.router, solicited=True, vlans=tags, tpids=tpids
            )
        ]

    def _advertised(
        self, message: bytes, mac: bytes, tags: tuple[int, ...], tpids: tuple[int, ...], now: int, guest: bool
    ) -> list[bytes]:
        target, override = ipaddress.IPv6Address(message[8:24]), bool(message[4] & 0x20)
        if target.is_multicast or target.is_unspecified or target.is_loopback or (guest and not override):
            return []
        made = self._claim(str(target), mac, tags, tpids, now, guest, override)
        if made:
            made.router = bool(message[4] & 0x80)
        return []

    def announcement(self) -> set[bytes]:
        """The frames of a whole round."""
        everybody = b"\xff" * 6
        frames = set()
        for (mac, tags), tpids in self.macs.items():
            asks = arp_packet(3, mac, "0.0.0.0", mac, "0.0.0.0")
            frames.add(ether(asks, 0x8035, tags, tpids=tpids, src=mac, dst=everybody, pad=True))
        for (address, tags), one in self.known.items():
            if not one.guests:
                continue
            if ":" in address:
                frames.add(
                    neighbour_advertisement(
                        address, one.mac, "ff02::1", bytes.fromhex("333300000001"), router=one.router, vlans=tags,
                        tpids=one.tpids,
                    )
                )  # fmt: skip
            else:
                says = arp_packet(1, one.mac, address, bytes(6), address)
                frames.add(ether(says, ARP, tags, tpids=one.tpids, src=one.mac, dst=everybody, pad=True))
        return frames


def _read(frame: bytes) -> tuple[int, bytes, tuple[int, ...], tuple[int, ...]] | None:
    """EtherType, payload, VLAN ids and the EtherTypes of their tags, of two at most."""
    if len(frame) < 14:
        return None
    at, tags, tpids = 12, (), ()
    kind = int.from_bytes(frame[12:14], "big")
    while kind in TPIDS and len(tags) < 2 and len(frame) >= at + 6:
        tags = (*tags, int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFF)
        tpids = (*tpids, kind)
        at += 4
        kind = int.from_bytes(frame[at : at + 2], "big")
    return kind, frame[at + 2 :], tags, tpids
