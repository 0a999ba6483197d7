"""filter-dump: every packet goes on, and a copy of it into a capture file that cannot fill the disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ring.fields import Table
from ring.layout import MAX_FRAME, UNDO
from ring.sizes import show_size
from stages.capture import files
from stages.capture.layout import recording
from stages.capture.writer import is_classic
from stages.dump import layout
from stages.dump.files import Files
from stages.filter import WAYS, Filter
from stages.kind import FILTER, Balance, Claim, Kind, Qemu, options_table, scalars_table
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
    files: int = key(
        integer(1, 10_000),
        8,
        doc="files kept, the present one among them; the oldest of that form are removed, whoever wrote them",
    )


def _mistakes(table: Dump, path: str, clean: bool) -> Iterable[Mistake]:
    if table.file:
        yield from files.folder_missing(table.file, f"{path}.file")


def _claims(table: Dump, path: str) -> Iterable[Claim]:
    if table.file:
        yield files.writes(table.file, f"{path}.file", also=Files(table.file, table.files).has_form)


def _differs(table: Dump) -> Iterable[str]:
    kept = f"{table.files} files of {show_size(table.file_size)} are kept at most, the oldest are removed"
    yield f"{kept} (files, file_size): QEMU's grows for ever"
    if not is_classic(table.file):
        yield "it is written as pcapng, because its name ends neither in .pcap nor in .cap: QEMU writes pcap"


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
    tables=(
        scalars_table(layout.SCALARS),
        Table("files", "the files of this run", layout.TABLE_FIELDS, lambda w: UNDO),
        options_table((*layout.FIELDS, *recording.OPTION_FIELDS), parts=dict.fromkeys(("from", "to"), ("tx", "rx"))),
    ),
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
    words_of=lambda params: len(layout.TABLE_FIELDS),
    sized_by=("file",),
    mistakes=_mistakes,
    claims=_claims,
    qemu=Qemu(
        ("netdev", "queue", "status", "position", "insert", "file", "maxlen"),
        part=False,
        most={"maxlen": MAX_FRAME},
        differs=_differs,
    ),
)
