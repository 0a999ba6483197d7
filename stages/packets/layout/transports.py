"""What a frame carries, as the packet parser finds it: its transport protocol, or why there is none."""

from __future__ import annotations

from typing import Final

from ring.fields import Values

_TRANSPORT = Values()
OTHER: Final = _TRANSPORT.value("other")  # no IP packet that could be read (ARP, runts, cut headers): it has no key
TCP: Final = _TRANSPORT.value("tcp")
UDP: Final = _TRANSPORT.value("udp")
ICMP: Final = _TRANSPORT.value("icmp")  # ICMP and ICMPv6
IP: Final = _TRANSPORT.value("ip")  # any other protocol over IP
FRAGMENT: Final = _TRANSPORT.value("fragment")  # an IP fragment: its ports cannot be known
ENCAPSULATED: Final = _TRANSPORT.value("encapsulated")  # IP, perhaps, behind headers that are not read: no key either
TUNNEL: Final = _TRANSPORT.value("tunnel")  # a tunnel's packet that is to pass: its key does not count
NAMES: Final = _TRANSPORT.names
