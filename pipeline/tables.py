"""The tables of config.toml that belong to the pipeline itself, as frozen values, and the whole config.

Those of stages stand with their kinds (``stages/*/kind.py``).  Names and defaults are QEMU's wherever QEMU has the
thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from stages import catalog
from stages.filter import Filter
from stages.kind import CHARDEV, FILTER, NETDEV
from stages.schema import CPUS, DAY_MS, FILE, IDENT, RING_SIZE, integer, key, matching, one_of

SIDES: Final = ("network", "guest")
"""Both sides of a netdev."""

NOTE: Final = matching(r"[^\x00-\x1f\x7f]{0,400}", "a line of at most 400 characters")


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """``[pipeline]``; ``ring_size`` in bytes."""

    name: str = key(
        matching("[a-z0-9][a-z0-9-]{0,31}", "a name: 1 to 32 of a-z 0-9 -, not starting with -"),
        required=True,
        doc="1 to 32 of `a-z 0-9 -`; prefix of every segment in /dev/shm and name of the control socket",
    )
    runtime_dir: str = key(FILE, "", doc="folder of the control socket, `NAME.sock`", shown="see below")
    ring_size: int = key(
        RING_SIZE,
        4 * 1024**2,
        doc="data area of each ring: a power of two from 256KiB to 1GiB",
        shown='`"4MiB"`',
    )
    placement: str = key(
        one_of("dedicated", "shared"),
        "dedicated",
        doc="`dedicated`: a process a stage; `shared`: all stages in one process, `pipeline`",
    )
    note: str = key(NOTE, "", doc="a few words for whoever runs it, shown at the end of each run", shown="none")


@dataclass(frozen=True, kw_only=True)
class Supervisor:
    """``[supervisor]``; times in milliseconds."""

    strategy: str = key(
        one_of("one_for_one", "rest_for_one", "one_for_all"),
        "one_for_one",
        doc="what a stage's death restarts: itself, `rest_for_one` it and those started after it, `one_for_all` all",
    )
    intensity: int = key(
        integer(0, 1_000_000),
        5,
        doc="restarts within `period_ms` before the pipeline is given up (exit status 1)",
    )
    period_ms: int = key(integer(1, DAY_MS, "ms"), 10_000, doc="ms")
    backoff_initial_ms: int = key(
        integer(0, DAY_MS, "ms"), 50, doc="wait before a second restart in a row; at most `backoff_max_ms`"
    )
    backoff_max_ms: int = key(integer(0, DAY_MS, "ms"), 5_000, doc="the longest wait")
    heartbeat_timeout_ms: int = key(
        integer(50, DAY_MS, "ms"),
        2_000,
        doc="a stage that shows no sign of life for so long is killed and started again; from 50",
    )
    shutdown_ms: int = key(integer(0, DAY_MS, "ms"), 5_000, doc="how long a stop may take to drain rings and sinks")
    stable_ms: int = key(
        integer(1, DAY_MS, "ms"),
        10_000,
        doc="a stage that ran for so long starts with `backoff_initial_ms` again",
    )


@dataclass(frozen=True, kw_only=True)
class Log:
    """``[log]``."""

    format: str = key(
        one_of("auto", "console", "json"),
        "auto",
        doc="`console`, `json`, or `auto`: console on a terminal, else JSON",
    )
    level: str = key(one_of("debug", "info", "warning", "error"), "info", doc="`debug`, `info`, `warning`, `error`")


@dataclass(frozen=True, kw_only=True)
class RingChardev:
    """``[chardev.ID]`` with backend ring: a ring between two objects of this pipeline, and no stage."""


RING: Final = "ring"
"""The backend of a chardev that is no stage."""


def default_side() -> Any:
    """What a side of a netdev is that the config does not name: nobody."""
    return next(kind.config for kind in catalog.variants(NETDEV).values() if kind.default)()


@dataclass(frozen=True, kw_only=True)
class Netdev:
    """``[netdev.ID]``: what the network side and the guest's side are."""

    network: Any = field(default_factory=default_side)
    guest: Any = field(default_factory=default_side)
    before_failover: str = key(
        one_of("drop", "pass"),
        "drop",
        doc="what becomes of frames to the network where a rewriter stands in the chain, so that the guest is a"
        " secondary: `drop` them until `control NAME failover`, whatever links and filters do; `pass`: as QEMU does,"
        " which lets two hosts answer for one address while the link to the primary is down",
    )

    @property
    def sides(self) -> Mapping[str, Any]:
        """Both sides by name."""
        return {side: getattr(self, side) for side in SIDES}

    @property
    def vnet(self) -> bool:
        """Whether frames between the sides carry a virtio-net header."""
        return any(catalog.of(side).vnet(side) for side in self.sides.values())


@dataclass(frozen=True, kw_only=True)
class Placement:
    """``[stage.ID]``: where and how a stage runs."""

    cpus: tuple[int, ...] | None = key(CPUS, doc="processor numbers that its process is bound to", shown="any")
    idle: str | None = key(
        one_of("busy_spin", "backoff", "doorbell"),
        doc="what its process does when there is nothing to do: `busy_spin`; `backoff`: spin, yield, sleep; `doorbell`:"
        " sleep at once",
        shown='`"backoff"`',
    )
    process: str | None = key(
        IDENT,
        doc="name of the process that runs it; stages with the same name share one, and then agree on `cpus` and"
        " `idle`",
        shown="see `placement`",
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole config without a mistake; the tables of each name are in the file's order.

    ``objects``: tables of stages that stand in no chain, by the table's name (``compare``) and their ids; ``annexes``:
    those about all stages of a kind (``rule``), by name, too.
    """

    path: str
    pipeline: Pipeline
    supervisor: Supervisor
    log: Log
    chardevs: Mapping[str, Any]
    netdevs: Mapping[str, Netdev]
    filters: Mapping[str, Filter]
    objects: Mapping[str, Mapping[str, Any]]
    annexes: Mapping[str, Mapping[str, Any]]
    stages: Mapping[str, Placement]

    @property
    def control_socket(self) -> str:
        """Path of the control socket."""
        return f"{self.runtime}.sock"

    @property
    def runtime(self) -> str:
        """What the paths of all files start with that the pipeline makes by itself."""
        return f"{self.pipeline.runtime_dir}/{self.pipeline.name}"

    def tables(self) -> dict[str, Any]:
        """The tables of all stages by where they stand in the config: ``filter.m0``, ``netdev.hn0.network``."""
        found = {
            f"{CHARDEV}.{name}": table for name, table in self.chardevs.items() if not isinstance(table, RingChardev)
        }
        for name, netdev in self.netdevs.items():
            found |= {f"{NETDEV}.{name}.{side}": table for side, table in netdev.sides.items()}
        return found | self.computing()

    def computing(self) -> dict[str, Any]:
        """Those of `tables` that are no endpoints."""
        found: dict[str, Any] = {f"{FILTER}.{name}": table for name, table in self.filters.items()}
        for kind, tables in self.objects.items():
            found |= {f"{kind}.{name}": table for name, table in tables.items()}
        return found

    def stage_ids(self) -> list[str]:
        """The ids of all stages, in the order of `tables`."""
        return [stage_id(path) for path in self.tables()]


def stage_id(path: str) -> str:
    """The id of the stage whose table stands at ``path``."""
    return path.partition(".")[2]
