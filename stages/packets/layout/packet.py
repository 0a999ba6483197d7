"""What the packet parser finds: verdicts, and the fields that it writes into a stage's scratch words."""

from __future__ import annotations

from typing import Final

SCRATCH: Final = 32  # words; private to a burst, so never logged

OTHER: Final = 0  # no IP packet that we could read: ARP, runts, truncated headers; it has no key
TCP: Final = 1
UDP: Final = 2
ICMP: Final = 3  # ICMP and ICMPv6
IP: Final = 4  # any other protocol over IP
FRAGMENT: Final = 5  # an IP fragment: its ports are not to be had

KEY_WORDS: Final = 6
F_KEY: Final = 0  # src_hi, src_lo, dst_hi, dst_lo, proto << 32 | sport << 16 | dport, version << 32 | vid1 << 16 | vid2
F_SRC: Final = 0
F_DST: Final = 2
F_PORTS: Final = 4
F_VLAN: Final = 5
F_L3: Final = 6  # offsets are bytes from the start of the Ethernet frame
F_L4: Final = 7
F_END: Final = 8  # end of the IP datagram: Ethernet padding is not part of it
F_DATA: Final = 9
F_DATA_LEN: Final = 10
F_SEQ: Final = 11
F_ACK: Final = 12
F_FLAGS: Final = 13
F_WINDOW: Final = 14
F_IPV: Final = 15
F_PROTO: Final = 16
F_IP_ID: Final = 17  # identification of a fragment (v4: 16 bits, v6: 32)
F_FRAG: Final = 18  # fragment offset in bytes << 1 | more fragments follow

FIN: Final = 1
SYN: Final = 2
RST: Final = 4
PSH: Final = 8
ACK: Final = 16
