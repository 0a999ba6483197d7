"""netdev-pcap: one side of a netdev that is a capture: frames are read from one, and written to another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ring import layout
from ring.fields import Table
from stages.capture import files
from stages.capture import reader as captures
from stages.capture.layout import counters, flows, options, recording, scalars
from stages.kind import NETDEV, Balance, Claim, Derived, Kind, options_table, scalars_table
from stages.schema import DAY_MS, FILE, Mistake, integer, key, one_of, positive, show


@dataclass(frozen=True, kw_only=True)
class Pcap:
    """``backend = "pcap"``: frames from a capture, and into one."""

    read: str | None = key(
        FILE, doc="a capture, pcap or pcapng, also packed with gzip, whose inbound frames come in here"
    )
    write: str | None = key(FILE, doc="a capture into which frames go that leave here")
    pace: str = key(
        one_of("recorded", "asap"), "recorded", doc="as recorded, or `asap`: as fast as the pipeline takes them"
    )
    speed: int | float = key(positive(""), 1.0, doc="`2.0`: twice as fast as recorded")
    patience_ms: int = key(
        integer(1, DAY_MS, "ms"), 5_000, doc="how long a frame waits for the recorded frames that it answers"
    )
    record: str = key(
        one_of("sent", "both"), "sent", doc="what `write` gets: `sent`, or `both`: the frames that come in here, too"
    )


def flow_limit(directions: list[int]) -> int:
    """Upper bound of the flows that can wait: each needs a frame of either direction."""
    outbound = directions.count(captures.OUTBOUND)
    return min(outbound, len(directions) - outbound)


def _words(params: Mapping[str, Any]) -> int:
    path = params["read"]
    if not path:
        return flows.STATES
    return flows.STATES + flows.WORDS * flow_limit([span.direction for span in captures.taken(path).spans])


def _mistakes(table: Pcap, path: str, clean: bool) -> Iterable[Mistake]:
    if table.write is not None:
        yield from files.folder_missing(table.write, f"{path}.write")
    if table.read is None and table.write is None and clean:
        yield Mistake(path, "neither read nor write", 'a capture to read or to write, or backend = "null"')
    if table.read is not None and not Path(table.read).is_file():
        yield Mistake(f"{path}.read", f"no file {show(table.read)}", "a capture (pcap or pcapng) that is there")


def _claims(table: Pcap, path: str) -> Iterable[Claim]:
    if table.write is not None:
        yield files.writes(table.write, f"{path}.write")
    if table.read is not None:
        yield files.reads(table.read, f"{path}.read")


def _start_ns(table: Pcap) -> int:
    return captures.first_timestamp(table.read) if table.read is not None else 0


def _derive(table: Pcap, derived: Derived) -> Mapping[str, Any]:
    return {"clock_base_ns": derived.start_ns}  # one clock for all captures


def _address(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{verb}s {params[verb]}" for verb in ("read", "write") if params[verb] is not None)


_UNDO_ENTRIES: Final = 1024
_START: Final = layout.UNDO + _UNDO_ENTRIES * layout.UNDO_ENTRY


def _flows(w: Any) -> int:
    return max(0, int(w[layout.STAGE_WORDS]) - _START - flows.STATES) // flows.WORDS


def _begun(w: Any) -> Iterable[int]:
    at = _START + flows.STATES
    return (n for n in range(_flows(w)) if any(w[at + n * flows.WORDS : at + (n + 1) * flows.WORDS].tolist()))


_TABLES: Final = (
    Table("flows", "flows that have begun", flows.FIELDS, lambda w: _START + flows.STATES, _flows, live=_begun),
    Table("capture", "the capture that the flows belong to", flows.TABLE_FIELDS, lambda w: _START),
    scalars_table(scalars.FIELDS),
    options_table((*options.FIELDS, *recording.OPTION_FIELDS)),
)

KIND: Final = Kind(
    name="netdev-pcap",
    type="netdev",
    table=NETDEV,
    variant="pcap",
    config=Pcap,
    shell="stages.capture.shell:Pcap",
    kernels=("stages.capture.kernels.replay", "stages.capture.kernels.pcap_blocks"),
    inputs=("send",),
    outputs=("receive",),
    counters=counters.COUNTERS,
    tables=_TABLES,
    balances=(
        Balance("every frame is written or swallowed", ("send_frames",), ("written", "swallowed")),
        Balance("every frame was awaited or not", ("send_frames",), ("awaited", "stray")),
    ),
    undo_entries=_UNDO_ENTRIES,
    words_of=_words,
    sized_by=("read", "write"),
    finite=True,
    mistakes=_mistakes,
    claims=_claims,
    gives=lambda table: table.read is not None,
    start_ns=_start_ns,
    start_key="read",
    start_expected="a whole capture, pcap or pcapng",
    derive=_derive,
    address=_address,
)
