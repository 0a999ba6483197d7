"""The tables ``[compare.ID]`` and ``[rule.NAME]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stages.compare.layout import options
from stages.compare.rules import regex
from stages.compare.rules.ntuple import BYTES, NETS, PORTS, PROTOCOLS, VLANS, Net, Range
from stages.schema import BOOLEAN, DAY_MS, FILE, IDENT, MEMORY, Check, Wrong, integer, key, one_of


@dataclass(frozen=True, kw_only=True)
class Compare:
    """``[compare.ID]``; times in milliseconds, ``hold_memory`` in bytes."""

    primary_in: str = key(IDENT, required=True, doc="chardev with the primary's packets")
    secondary_in: str = key(IDENT, required=True, doc="chardev with the secondary's packets")
    outdev: str = key(IDENT, required=True, doc="chardev for the primary's packets that may go out")
    notify_dev: str | None = key(
        IDENT, doc="socket chardev to the COLO frame: requests for checkpoints, and their answers"
    )
    compare_timeout: int = key(
        integer(1, DAY_MS, "ms"), 3_000, doc="ms that a packet waits for its counterpart before that is a difference"
    )
    expired_scan_cycle: int = key(
        integer(1, DAY_MS, "ms"),
        1_000,
        doc="taken for QEMU's sake, without effect: a packet that is too old is noticed within 10 ms",
    )
    max_queue_size: int = key(integer(1, 1 << 20, "packets"), 1_024, doc="packets held, a connection and side")
    vnet_hdr_support: bool = key(
        BOOLEAN, False, doc="frames on its chardevs (not notify_dev) carry the length of a virtio-net header"
    )
    ack_policy: str = key(
        one_of("strict", "relaxed"),
        "strict",
        doc="an acknowledgement goes out once the secondary acknowledged as much; `relaxed`: at once",
    )
    checkpoint: str = key(
        one_of("frame", "local"),
        "frame",
        doc="a difference asks the COLO frame for a checkpoint and waits for it; `local`: nobody makes any:"
        " nobody is asked, and that connection goes on uncompared",
    )
    checkpoint_timeout: int = key(
        integer(1, DAY_MS, "ms"),
        10_000,
        doc="ms that connections wait for a checkpoint that was asked for, before `checkpoint_overdue` applies",
    )
    checkpoint_overdue: str = key(
        one_of(*options.OVERDUE_NAMES),
        "pass_unjoined",
        doc='what becomes of them then: they go on as with `checkpoint = "local"` until one is made if nobody was'
        " joined at notify_dev meanwhile (`pass_unjoined`), in any case (`pass`), never (`wait`, as in QEMU)",
    )
    silence_timeout: int | None = key(
        integer(0, DAY_MS, "ms"),
        doc="ms that the primary's packets wait in all for a secondary that answers nothing, before it is out of step;"
        " 0: for ever",
        shown="`3 * compare_timeout`",
    )
    max_connections: int = key(integer(1, 1 << 20), 16_384, doc="connections that it can know at once")
    hold_memory: int = key(
        MEMORY,
        16 * 1024**2,
        doc="memory for held packets, half of it a side; 1MiB to 1GiB",
        shown='`"16MiB"`',
    )
    tunnels: str = key(
        one_of("inner", "outer", "pass"),
        "inner",
        doc="VXLAN, GENEVE, GRE, IP in IP: `inner`: the packets inside are compared; `outer`: those around them, as any"
        " other; `pass`: none",
    )
    reorder_grace_ms: int = key(
        integer(0, DAY_MS, "ms"),
        50,
        doc="ms that a datagram may be late behind a later one before that is a difference",
    )
    checkpoint_interval_ms: int = key(
        integer(0, DAY_MS, "ms"), 20, doc="least ms between a checkpoint and the next request"
    )
    storm_checkpoints: int = key(
        integer(0, 1 << 20),
        10,
        doc="requests within `storm_window_ms` from which on checkpoints are periodic; 0: never",
    )
    storm_window_ms: int = key(
        integer(1, DAY_MS, "ms"),
        2_000,
        doc="see above; after as long without a difference checkpoints are made on demand again",
    )
    storm_interval_ms: int = key(integer(1, DAY_MS, "ms"), 200, doc="ms between periodic checkpoints")
    divergences: str = key(
        FILE, "", doc="folder for the files that explain differences, see [explain.md](explain.md)", shown="see below"
    )
    divergence_files: int = key(
        integer(0, 10_000),
        64,
        doc="how many of them are kept, the newest; 0: none, and no packets are kept in memory for them",
    )


JOIN: Final = 'join a COLO frame with notify_dev, or take checkpoint = "local"; by hand: control NAME checkpoint'
"""What to do where nobody makes the checkpoints that are asked for."""


def silence_ms(params: Mapping[str, Any]) -> int:
    """``silence_timeout`` of a compare's parameters (ms), 0: never."""
    asked = params["silence_timeout"]
    return 3 * int(params["compare_timeout"]) if asked is None else int(asked)


def _read_regex(value: Any, _: Path) -> tuple[str, ...]:
    texts = value if type(value) is list else [value]
    if not texts or any(type(text) is not str or not text for text in texts):
        raise Wrong
    for n, text in enumerate(texts):
        try:
            regex.read(text)
        except regex.BadRegex as error:
            which = f"number {n + 1}, " if len(texts) > 1 else ""
            raise Wrong(f"{_REGEX.expected}; {error}", which + regex.show(text, error.at)) from None
    return tuple(texts)


_REGEX = Check("a regular expression for bytes (docs/rules.md), or a list", _read_regex)
_ANY = '`"*"`'


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Packets of a compare that pass uncompared, or bytes in which the replicas may differ.

    ``source`` is the guest's side.  A tuple that is empty takes anything.  ``bytes`` are offsets in the payload.
    """

    action: str = key(
        one_of("pass", "mask"),
        required=True,
        doc="`pass`: not compared; `mask`: compared but for the bytes that `regex` and `bytes` name",
    )
    compare: str | None = key(IDENT, doc="the compare that it is for", shown="all")
    protocol: tuple[Range, ...] = key(PROTOCOLS, (), doc="`tcp`, `udp`, `icmp` (ICMPv6, too), a number", shown=_ANY)
    source: tuple[Net, ...] = key(
        NETS, (), doc="addresses and networks of the guest: a compare sees only what guests send", shown=_ANY
    )
    source_port: tuple[Range, ...] = key(
        PORTS, (), doc='the guest\'s ports: `80`, `"8000-8999"`; TCP and UDP', shown=_ANY
    )
    destination: tuple[Net, ...] = key(NETS, (), doc="addresses and networks of the clients", shown=_ANY)
    destination_port: tuple[Range, ...] = key(PORTS, (), doc="the clients' ports", shown=_ANY)
    vlan: tuple[Range, ...] = key(
        VLANS, (), doc='VLAN ids: 0 (untagged), `"10-19"`, `"100.5"` (outer and inner, up to four tags)', shown=_ANY
    )
    regex: tuple[str, ...] = key(
        _REGEX, (), doc="mask: expressions for the payload; their last group `(...)` is masked", shown="none"
    )
    bytes: tuple[Range, ...] = key(
        BYTES,
        (),
        doc='mask: offsets in the payload of each datagram, in TCP from the first byte behind the SYN: `"16-23"`;'
        " 0 to 65535",
        shown="none",
    )
