"""What the pipeline must know of a capture as one side of a netdev."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stages.capture import reader as captures
from stages.capture.layout import counters, flows
from stages.kind import Balance, Kind


def flow_limit(directions: list[int]) -> int:
    """Upper bound of the flows that can wait: each needs a frame of either direction."""
    outbound = directions.count(captures.OUTBOUND)
    return min(outbound, len(directions) - outbound)


def _table_words(params: Mapping[str, Any]) -> int:
    path = params.get("read")
    if not path:
        return 1
    return 1 + flows.WORDS * flow_limit([span.direction for span in captures.walk(captures.load(path), path)])


KIND: Final = Kind(
    name="netdev-pcap",
    type="netdev",
    shell="stages.capture.shell:Pcap",
    kernels=("stages.capture.kernels.replay", "stages.capture.kernels.pcap_blocks"),
    inputs=("send",),
    outputs=("receive",),
    counters=counters.COUNTERS,
    balances=(
        Balance("every frame is written or swallowed", ("send_frames",), ("written", "swallowed")),
        Balance("every frame was awaited or not", ("send_frames",), ("awaited", "stray")),
    ),
    undo_entries=1024,
    table_words=_table_words,
)
