"""Private memory of a netdev-pcap: a header of words, then columns, the index, the recorder, and the file."""

from __future__ import annotations

from typing import Final

from ring.fields import Words
from stages.packets.layout import parsed, table

_MEMORY = Words("kernels")
SCRATCH: Final = _MEMORY.word("scratch", "the frame at hand, as the packet parser writes it", size=parsed.SCRATCH)
ROW: Final = _MEMORY.word("row", "row of the open burst", "row")
WORK: Final = _MEMORY.word("work", "what the open burst has done so far")
PARKED: Final = _MEMORY.word("parked", "flows that wait behind the cursor")
DIRTY: Final = _MEMORY.word("dirty", "1: look at every parked flow, one could not go on for want of room", "bool")
NEXT_SCAN: Final = _MEMORY.word("next_scan", "monotonic ns of the next look at every parked flow's patience", "ns")
FLOW_COUNT: Final = _MEMORY.word("flow_count", "flows that wait for something")
LEFT: Final = _MEMORY.word("left", "frames that may still be emitted in this burst")
_MEMORY.skip_to(64)
SECRET: Final = _MEMORY.word(
    "secret", "the hash's secret, see `stages.packets.layout.table`", size=table.SECRETS, writer="worker"
)
FIELDS: Final = _MEMORY.fields
HEADER: Final = _MEMORY.end

BURST: Final = 256  # frames that are emitted in one burst
STEPS: Final = 4096  # packets that the cursor passes in one burst
SCAN_NS: Final = 50_000_000  # between two looks at every parked flow's patience
