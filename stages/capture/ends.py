"""A file that ends too early: whether what is wrong at a place is only that, or damage with more packets behind it.

The machine or the program that wrote a capture may have died: then its last packet is there in part, or the file system
has filled up the rest with zeros.  What is before that is whole.  But a wrong length in the middle looks the same, if
it leads out of the file; it is told by the packets that stand behind it.
"""

from __future__ import annotations

from typing import Final

from stages.capture.format import EPB, IDB, PB, SHB, SNAPLEN, SPB, Order

_DAY: Final = 86_400  # s
_LEAST: Final = 14  # bytes of an Ethernet frame
_LONGEST_BLOCK: Final = 1 << 20  # of a block whose end is missing, so much is looked at
_BLOCKS: Final = frozenset({SHB, IDB, PB, SPB, EPB})


def records_behind(data: bytes, at: int, order: Order, head: int) -> bool:
    """Whether records of classic pcap stand somewhere behind the header at ``at``, of ``head`` bytes.

    Two in a row, or one with which the file ends.
    """
    size, unpack = len(data), order.four.unpack_from
    (seconds,) = order.u32.unpack_from(data, at)

    def behind(place: int) -> int:
        """The end of a record that may begin here; 0 where none does."""
        if place + head > size:
            return 0
        time, fraction, captured, original = unpack(data, place)
        if not _LEAST <= captured <= original <= SNAPLEN or fraction >= 1_000_000_000 or abs(time - seconds) > _DAY:
            return 0
        end = place + head + captured
        return int(end) if end <= size else 0

    for place in range(at + head, size - head + 1):
        end = behind(place)
        if end and (end == size or behind(end)):
            return True
    return False


def blocks_behind(data: bytes, at: int, order: Order) -> bool:
    """Whether a block of pcapng stands somewhere behind the start of the one at ``at``."""
    size, two, one = len(data), order.two.unpack_from, order.u32.unpack_from
    for place in range(at + 12, min(size, at + _LONGEST_BLOCK) - 11, 4):
        kind, length = two(data, place)
        if kind not in _BLOCKS or not 12 <= length <= size - place or length % 4:
            continue
        if one(data, place + length - 4)[0] == length:
            return True
    return False
