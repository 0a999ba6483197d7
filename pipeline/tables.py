"""The tables of config.toml as frozen values; docs/config.md explains each key.

Names and defaults are QEMU's wherever QEMU has the thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from stages.compare.rules.ntuple import BYTES, NETS, PORTS, PROTOCOLS, VLANS, Net, Range
from stages.schema import (
    BOOLEAN,
    CPUS,
    FILE,
    HOST,
    IDENT,
    IFNAME,
    MEMORY,
    POSITION,
    REGEX,
    RING_SIZE,
    TEXT,
    VNET_LEN,
    integer,
    key,
    matching,
    one_of,
    positive,
)

_MS = 24 * 3600 * 1000
_PORT = integer(1, 65_535)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """``[pipeline]``; ``ring_size`` in bytes."""

    name: str = key(
        matching("[a-z0-9][a-z0-9-]{0,31}", "a name: 1 to 32 of a-z 0-9 -, not starting with -"), required=True
    )
    runtime_dir: str = key(FILE, "")
    ring_size: int = key(RING_SIZE, 4 * 1024**2)
    placement: str = key(one_of("dedicated", "shared"), "dedicated")


@dataclass(frozen=True, kw_only=True)
class Supervisor:
    """``[supervisor]``; times in milliseconds."""

    strategy: str = key(one_of("one_for_one", "rest_for_one", "one_for_all"), "one_for_one")
    intensity: int = key(integer(0, 1_000_000), 5)
    period_ms: int = key(integer(1, _MS, "ms"), 10_000)
    backoff_initial_ms: int = key(integer(0, _MS, "ms"), 50)
    backoff_max_ms: int = key(integer(0, _MS, "ms"), 5_000)
    heartbeat_timeout_ms: int = key(integer(50, _MS, "ms"), 2_000)
    shutdown_ms: int = key(integer(0, _MS, "ms"), 5_000)
    stable_ms: int = key(integer(1, _MS, "ms"), 10_000)


@dataclass(frozen=True, kw_only=True)
class Log:
    """``[log]``."""

    format: str = key(one_of("auto", "console", "json"), "auto")
    level: str = key(one_of("debug", "info", "warning", "error"), "info")


@dataclass(frozen=True, kw_only=True)
class Socket:
    """``[chardev.ID]`` with backend socket; ``reconnect`` in seconds."""

    BACKEND: ClassVar[str] = "socket"
    host: str | None = key(HOST)
    port: int | None = key(_PORT)
    path: str | None = key(FILE)
    server: bool = key(BOOLEAN, False)
    wait: bool = key(BOOLEAN, False)
    reconnect: int | float = key(positive("seconds"), 1)


@dataclass(frozen=True, kw_only=True)
class Link:
    """``[chardev.ID]`` with backend ring: a ring between two objects of this pipeline."""

    BACKEND: ClassVar[str] = "ring"


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A netdev's side: frames on a stream socket, as QEMU's -netdev stream and -netdev socket speak them."""

    BACKEND: ClassVar[str] = "stream"
    host: str | None = key(HOST)
    port: int | None = key(_PORT)
    path: str | None = key(FILE)
    server: bool = key(BOOLEAN, False)
    reconnect: int | float = key(positive("seconds"), 1)


@dataclass(frozen=True, kw_only=True)
class Tap:
    """A netdev's side: a TAP device, created where missing."""

    BACKEND: ClassVar[str] = "tap"
    ifname: str = key(IFNAME, required=True)
    netns: str | None = key(TEXT)
    vnet_hdr: bool = key(BOOLEAN, False)
    vnet_hdr_len: int = key(VNET_LEN, 10)
    persist: bool = key(BOOLEAN, False)
    record: str | None = key(FILE)


@dataclass(frozen=True, kw_only=True)
class Packet:
    """A netdev's side: an existing interface through AF_PACKET."""

    BACKEND: ClassVar[str] = "packet"
    ifname: str = key(IFNAME, required=True)
    netns: str | None = key(TEXT)
    vnet_hdr: bool = key(BOOLEAN, False)
    record: str | None = key(FILE)


@dataclass(frozen=True, kw_only=True)
class Pcap:
    """A netdev's side: frames from a capture, and into one."""

    BACKEND: ClassVar[str] = "pcap"
    read: str | None = key(FILE)
    write: str | None = key(FILE)
    pace: str = key(one_of("recorded", "asap"), "recorded")
    speed: int | float = key(positive(""), 1.0)
    patience_ms: int = key(integer(1, _MS, "ms"), 5_000)
    record: str = key(one_of("sent", "both"), "sent")


@dataclass(frozen=True, kw_only=True)
class Null:
    """A netdev's side that swallows and counts."""

    BACKEND: ClassVar[str] = "null"


Chardev = Socket | Link
Side = Stream | Tap | Packet | Pcap | Null


@dataclass(frozen=True, kw_only=True)
class Netdev:
    """``[netdev.ID]``: what the network side and the guest's side are."""

    network: Side = field(default_factory=Null)
    guest: Side = field(default_factory=Null)

    @property
    def sides(self) -> Mapping[str, Side]:
        """Both sides by name."""
        return {"network": self.network, "guest": self.guest}

    @property
    def vnet(self) -> bool:
        """Whether frames between the sides carry a virtio-net header."""
        return any(isinstance(side, Tap | Packet) and side.vnet_hdr for side in (self.network, self.guest))


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What every ``[filter.ID]`` has."""

    TYPE: ClassVar[str]
    netdev: str = key(IDENT, required=True)
    queue: str = key(one_of("tx", "rx", "all"), "all")
    status: str = key(one_of("on", "off"), "on")
    position: str = key(POSITION, "tail")
    insert: str = key(one_of("behind", "before"), "behind")
    vnet_hdr_support: bool = key(BOOLEAN, False)

    @property
    def directions(self) -> tuple[str, ...]:
        """The directions whose packets meet this filter."""
        return ("tx", "rx") if self.queue == "all" else (self.queue,)


@dataclass(frozen=True, kw_only=True)
class Mirror(Filter):
    """``type = "filter-mirror"``."""

    TYPE: ClassVar[str] = "filter-mirror"
    outdev: str = key(IDENT, required=True)
    stall_timeout: int = key(integer(0, _MS, "ms"), 5_000)


@dataclass(frozen=True, kw_only=True)
class Redirector(Filter):
    """``type = "filter-redirector"``."""

    TYPE: ClassVar[str] = "filter-redirector"
    indev: str | None = key(IDENT)
    outdev: str | None = key(IDENT)


@dataclass(frozen=True, kw_only=True)
class Rewriter(Filter):
    """``type = "filter-rewriter"``."""

    TYPE: ClassVar[str] = "filter-rewriter"
    max_connections: int = key(integer(1, 1 << 20), 16_384)


@dataclass(frozen=True, kw_only=True)
class Compare:
    """``[compare.ID]``; times in milliseconds, ``hold_memory`` in bytes."""

    TYPE: ClassVar[str] = "colo-compare"
    primary_in: str = key(IDENT, required=True)
    secondary_in: str = key(IDENT, required=True)
    outdev: str = key(IDENT, required=True)
    notify_dev: str | None = key(IDENT)
    compare_timeout: int = key(integer(1, _MS, "ms"), 3_000)
    expired_scan_cycle: int = key(integer(1, _MS, "ms"), 1_000)
    max_queue_size: int = key(integer(1, 1 << 20, "packets"), 1_024)
    vnet_hdr_support: bool = key(BOOLEAN, False)
    ack_policy: str = key(one_of("strict", "relaxed"), "strict")
    checkpoint: str = key(one_of("frame", "local"), "frame")
    max_connections: int = key(integer(1, 1 << 20), 16_384)
    hold_memory: int = key(MEMORY, 16 * 1024**2)
    reorder_grace_ms: int = key(integer(0, _MS, "ms"), 50)
    checkpoint_interval_ms: int = key(integer(0, _MS, "ms"), 20)
    storm_checkpoints: int = key(integer(0, 1 << 20), 10)
    storm_window_ms: int = key(integer(1, _MS, "ms"), 2_000)
    storm_interval_ms: int = key(integer(1, _MS, "ms"), 200)
    divergences: str = key(FILE, "")
    divergence_files: int = key(integer(0, 10_000), 64)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """``[rule.NAME]``: packets of a compare that pass uncompared, or bytes in which the replicas may differ.

    ``source`` is the guest's side.  A tuple that is empty takes anything.  ``bytes`` are offsets in the payload.
    """

    action: str = key(one_of("pass", "mask"), required=True)
    compare: str | None = key(IDENT)
    protocol: tuple[Range, ...] = key(PROTOCOLS, ())
    source: tuple[Net, ...] = key(NETS, ())
    source_port: tuple[Range, ...] = key(PORTS, ())
    destination: tuple[Net, ...] = key(NETS, ())
    destination_port: tuple[Range, ...] = key(PORTS, ())
    vlan: tuple[Range, ...] = key(VLANS, ())
    regex: tuple[str, ...] = key(REGEX, ())
    bytes: tuple[Range, ...] = key(BYTES, ())


@dataclass(frozen=True, kw_only=True)
class Placement:
    """``[stage.ID]``: where and how a stage runs."""

    cpus: tuple[int, ...] | None = key(CPUS)
    idle: str | None = key(one_of("busy_spin", "backoff", "doorbell"))
    process: str | None = key(IDENT)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole config without a mistake; the tables of a kind are in the file's order."""

    path: str
    pipeline: Pipeline
    supervisor: Supervisor
    log: Log
    chardevs: Mapping[str, Chardev]
    netdevs: Mapping[str, Netdev]
    filters: Mapping[str, Mirror | Redirector | Rewriter]
    compares: Mapping[str, Compare]
    rules: Mapping[str, Rule]
    stages: Mapping[str, Placement]

    @property
    def control_socket(self) -> str:
        """Path of the control socket."""
        return f"{self.pipeline.runtime_dir}/{self.pipeline.name}.sock"

    @property
    def divergences(self) -> str:
        """Folder for the files that explain differences, where a compare names no other."""
        return f"{self.pipeline.runtime_dir}/{self.pipeline.name}.divergences"

    def stage_ids(self) -> list[str]:
        """The ids of all stages: filters, compares, socket chardevs, both sides of each netdev."""
        sides = [f"{netdev}.{side}" for netdev in self.netdevs for side in ("network", "guest")]
        sockets = [name for name, chardev in self.chardevs.items() if isinstance(chardev, Socket)]
        return [*self.filters, *self.compares, *sockets, *sides]


CHARDEVS: Final[Mapping[str, type[Any]]] = {cls.BACKEND: cls for cls in (Socket, Link)}
SIDES: Final[Mapping[str, type[Any]]] = {cls.BACKEND: cls for cls in (Stream, Tap, Packet, Pcap, Null)}
FILTERS: Final[Mapping[str, type[Any]]] = {cls.TYPE: cls for cls in (Mirror, Redirector, Rewriter)}
