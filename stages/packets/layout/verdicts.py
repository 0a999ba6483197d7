"""What the packet parser says of a frame as a whole."""

from __future__ import annotations

from typing import Final

from ring.fields import Values

_VERDICT = Values()
OTHER: Final = _VERDICT.value("other")  # no IP packet that could be read (ARP, runts, cut headers): it has no key
TCP: Final = _VERDICT.value("tcp")
UDP: Final = _VERDICT.value("udp")
ICMP: Final = _VERDICT.value("icmp")  # ICMP and ICMPv6
IP: Final = _VERDICT.value("ip")  # any other protocol over IP
FRAGMENT: Final = _VERDICT.value("fragment")  # an IP fragment: its ports cannot be known
NAMES: Final = _VERDICT.names
