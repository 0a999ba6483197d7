"""What capture files are made of: magic numbers, types of blocks, codes of options, structures.

pcap is draft-ietf-opsawg-pcap, pcapng draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

ETHERNET: Final = 1  # LINKTYPE_ETHERNET
SNAPLEN: Final = 262_144
PCAP_US: Final = 0xA1B2C3D4  # classic pcap: times in microseconds, in nanoseconds
PCAP_NS: Final = 0xA1B23C4D
PCAP_MODIFIED: Final = 0xA1B2CD34  # records have eight bytes more: interface, protocol, kind of packet
LINK: Final = 0xFFFF  # classic pcap: these bits of the field are the link type
FCS_KNOWN: Final = 1 << 26  # this one says that the upper four count the check sequence, in units of two bytes
BYTE_ORDER: Final = 0x1A2B3C4D

SHB: Final = 0x0A0D0D0A  # blocks: a section, an interface, a packet (obsolete, simple, enhanced)
IDB: Final = 1
PB: Final = 2
SPB: Final = 3
EPB: Final = 6

END: Final = 0  # options of any block
COMMENT: Final = 1
FLAGS: Final = 2  # of an enhanced packet
APPLICATION: Final = 4  # of a section
IF_NAME: Final = 2  # of an interface
IF_TSRESOL: Final = 9
IF_FCSLEN: Final = 13
IF_TSOFFSET: Final = 14

FAR: Final = 1 << 62  # ns: the year 2116; two times that are nearer to 1970 have a difference of 64 bits
BILLION: Final = 1_000_000_000


class Order:
    """The structures of one byte order (``<`` or ``>``)."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.u32, self.two, self.four = Struct(mark + "I"), Struct(mark + "II"), Struct(mark + "IIII")
        self.idb, self.packet = Struct(mark + "HHI"), Struct(mark + "IIIII")
        self.option, self.i64 = Struct(mark + "HH"), Struct(mark + "q")


LITTLE: Final = Order("<")  # what is written here
ORDERS: Final = (LITTLE, Order(">"))
