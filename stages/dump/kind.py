"""filter-dump: every packet goes on, and a copy of it into a capture file that cannot fill the disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ring.layout import MAX_FRAME
from stages.capture import files
from stages.dump import layout
from stages.filter import WAYS, Filter
from stages.kind import FILTER, Balance, Claim, Kind
from stages.schema import FILE, MEMORY, Mistake, integer, key


@dataclass(frozen=True, kw_only=True)
class Dump(Filter):
    """``type = "filter-dump"``; ``maxlen`` and ``file_size`` in bytes."""

    file: str = key(FILE, required=True, doc="the capture: pcapng, or classic pcap where it ends in `.pcap` or `.cap`")
    maxlen: int = key(
        integer(1, MAX_FRAME, "bytes"), 65_536, doc="bytes kept of a packet; how long it was is noted in any case"
    )
    file_size: int = key(
        MEMORY,
        64 * 1024**2,
        doc="a file of this size is put aside, `dump.pcapng` as `dump.1.pcapng` and so on, and a new one begins",
        shown='`"64MiB"`',
    )
    files: int = key(integer(1, 10_000), 8, doc="files kept, the present one among them; the oldest are removed")


def _mistakes(table: Dump, path: str, clean: bool) -> Iterable[Mistake]:
    if table.file:
        yield from files.folder_missing(table.file, f"{path}.file")


def _claims(table: Dump, path: str) -> Iterable[Claim]:
    if table.file:
        yield files.writes(table.file, f"{path}.file")


KIND: Final = Kind(
    name="filter-dump",
    type="filter-dump",
    table=FILTER,
    variant="filter-dump",
    config=Dump,
    shell="stages.dump.shell:Dump",
    kernels=("stages.dump.kernels", "stages.capture.kernels.pcap_blocks"),
    inputs=("tx_in", "rx_in"),
    outputs=("tx_out", "rx_out"),
    counters=layout.COUNTERS,
    balances=(
        Balance("every packet goes on", ("tx_in_frames", "rx_in_frames"), ("tx_out_frames", "rx_out_frames")),
        Balance(
            "every packet is in a file, or is not for a reason",
            ("tx_in_frames", "rx_in_frames"),
            ("recorded", "unrecorded", "passed_off"),
        ),
    ),
    ways=WAYS,
    hears=("status",),
    losses=("unrecorded",),
    sized_by=("file",),
    mistakes=_mistakes,
    claims=_claims,
    qemu=("netdev", "queue", "status", "position", "insert", "file", "maxlen"),
)
