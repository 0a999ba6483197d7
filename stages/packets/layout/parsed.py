"""What the packet parser finds in a frame: words that it writes into a stage's scratch memory."""

from __future__ import annotations

from typing import Final

from ring.fields import Words

SCRATCH: Final = 32  # words that a stage reserves for one parsed frame; private to a burst, so never logged

# Offsets are bytes from the start of the Ethernet frame.
_PARSED = Words("kernels")
KEY_WORDS: Final = 6
KEY: Final = _PARSED.word("key", "who talks to whom: the six words src .. vlan", size=KEY_WORDS)
SRC: Final = _PARSED.again("src", KEY, "source address, high and low half; IPv4 in the low one", size=2)
DST: Final = _PARSED.again("dst", KEY + 2, "destination address, high and low half", size=2)
PORTS: Final = _PARSED.again(
    "ports", KEY + 4, "protocol << 32 | source port << 16 | destination port; above: `networks.VIA`"
)
VLAN: Final = _PARSED.again(
    "vlan", KEY + 5, "IP version << 32 | outer VLAN << 16 | inner VLAN; above: kind and id of `networks`"
)
L3: Final = _PARSED.word("l3", "offset of the IP header; of a tunnel read `inner` all of this is of the packet inside")
L4: Final = _PARSED.word("l4", "offset of the transport header")
END: Final = _PARSED.word("end", "offset of the end of the IP datagram: Ethernet padding is not part of it")
DATA: Final = _PARSED.word("data", "offset of the transport's payload")
DATA_LEN: Final = _PARSED.word("data_len", "bytes of that payload")
SEQ: Final = _PARSED.word("seq", "TCP: sequence number", "seq")
ACK: Final = _PARSED.word("ack", "TCP: acknowledgement number", "seq")
FLAGS: Final = _PARSED.word("flags", "TCP: flags, see `stages.packets.layout.tcp`", "flags")
WINDOW: Final = _PARSED.word("window", "TCP: window, as it stands in the header")
IPV: Final = _PARSED.word("ipv", "IP version, 4 or 6")
PROTO: Final = _PARSED.word("proto", "protocol number of the transport")
IP_ID: Final = _PARSED.word("ip_id", "fragment: identification (16 bits in IPv4, 32 in IPv6)")
FRAG: Final = _PARSED.word("frag", "fragment: offset in bytes << 1 | more fragments follow")
# Where the packet at hand lies.  The parser leaves these words alone: they are noted behind it by a stage that takes
# one packet after the other from its inputs (the compare).
RING: Final = _PARSED.word("ring", "word index of the ring that it lies in, of a stage that notes this")
POSITION: Final = _PARSED.word("position", "its record's position in that ring")
FRAME: Final = _PARSED.word("frame", "byte index of its Ethernet frame")
LENGTH: Final = _PARSED.word("length", "bytes of that frame")
FIELDS: Final = _PARSED.fields
