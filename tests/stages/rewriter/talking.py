"""What the guest and its neighbours say of their addresses, for tests of the rewriter's table."""

from __future__ import annotations

from collections.abc import Sequence

from stages.packets.layout import rows, table
from stages.rewriter.layout import addresses, options
from tests.packets import ARP, arp_packet, discovery, ether, link_option, packed
from tests.rig import Rig

GUEST, PEER, OTHER = (bytes.fromhex(f"0200000000{n}") for n in ("01", "02", "03"))
EVERYBODY = b"\xff" * 6
GUEST_4, PEER_4, OTHER_4 = "10.0.0.1", "10.0.0.2", "10.0.0.3"
GUEST_6, PEER_6, OTHER_6 = "2001:db8::1", "2001:db8::2", "fe80::3"
NOW, SECOND = 1_000_000_000_000, 1_000_000_000


def arp(
    operation: int, mac: bytes, sender: str, target: str, *, target_mac: bytes = bytes(6), source: bytes = b"",
    to: bytes = EVERYBODY, vlans: Sequence[int] = (),
) -> bytes:  # fmt: skip
    """An ARP frame of ``mac``; ``source``: its Ethernet source, where that is another one."""
    return ether(
        arp_packet(operation, mac, sender, target_mac, target), ARP, vlans, src=source or mac, dst=to, pad=True
    )


def solicitation(
    mac: bytes, sender: str, target: str, *, link: bool = True, to: str = "", vlans: Sequence[int] = ()
) -> bytes:
    """A neighbour solicitation; ``to``: by default the target's solicited-node address."""
    multicast = bytes.fromhex("ff0200000000000000000001ff") + packed(target)[-3:]
    there = to or multicast.hex(":", 2)
    body = bytes(4) + packed(target) + (link_option(1, mac) if link else b"")
    return discovery(sender, there, 135, body, mac=mac, to=b"\x33\x33" + multicast[-4:], vlans=vlans)


def router_advertisement(mac: bytes, sender: str, *, vlans: Sequence[int] = ()) -> bytes:
    """A router advertisement with the router's MAC address."""
    body = bytes([64, 0]) + (1800).to_bytes(2, "big") + bytes(8) + link_option(1, mac)
    return discovery(sender, "ff02::1", 134, body, mac=mac, to=bytes.fromhex("333300000001"), vlans=vlans)


def said(rig: Rig, port: str, *frames: bytes, now: int = NOW) -> tuple[list[bytes], list[bytes]]:
    """Pass frames; what came out towards the guest and towards the network besides them."""
    rig.feed(f"{port}_in", *frames)
    rig.run(now)
    out = {"tx": rig.take("tx_out"), "rx": rig.take("rx_out")}
    for frame in frames:
        out[port].remove(frame)
    return out["tx"], out["rx"]


def rows_of(rig: Rig) -> list[dict[str, int]]:
    """The table of addresses: its live rows."""
    w = rig.segment.w
    t = int(w[options.ADDRESSES])
    found = []
    for number in range(int(w[t + table.CAPACITY])):
        row = int(w[t + table.ROWS]) + number * addresses.WORDS
        if w[row + rows.LIVE]:
            fields = (*rows.FIELDS, *addresses.FIELDS)
            found.append({f.name: int(w[row + f.offset]) for f in fields if f.size == 1})
            found[-1]["low"] = int(w[row + addresses.ADDRESS + 1])
            found[-1]["network"] = int(w[row + addresses.NETWORK])
    return found
