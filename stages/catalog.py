"""Every kind of stage, a line each: ``module`` holds its `stages.kind.Kind` as KIND, or several as KINDS.

To add a kind, write its folder and its line here.  Nothing here imports Numba: kinds are data.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from typing import Final, TypeVar

from stages.kind import Annex, Kind

T = TypeVar("T")

MODULES: Final = {
    "colo-compare": "stages.compare.kind",
    "filter-mirror": "stages.mirror.kind",
    "filter-redirector": "stages.redirector.kind",
    "filter-rewriter": "stages.rewriter.kind",
    "filter-dump": "stages.dump.kind",
    "chardev-socket": "stages.socket.kind",
    "netdev-stream": "stages.socket.kind",
    "netdev-tap": "stages.device.kind",
    "netdev-packet": "stages.device.kind",
    "netdev-pcap": "stages.capture.kind",
    "netdev-null": "stages.null.kind",
}


@cache
def kind(name: str) -> Kind:
    """The kind called ``name`` (a key of MODULES)."""
    module = import_module(MODULES[name])
    found: Kind = module.KINDS[name] if hasattr(module, "KINDS") else module.KIND
    return found


@cache
def kinds() -> tuple[Kind, ...]:
    """All kinds, in the order of the list."""
    return tuple(map(kind, MODULES))


@cache
def variants(table: str) -> dict[str, Kind]:
    """The kinds whose tables are ``[TABLE.ID]``, by what their table's `stages.kind.VARIANT_KEYS` says."""
    return _unique((one.variant, one) for one in kinds() if one.table == table)


def of(table: object) -> Kind:
    """The kind that a table declares."""
    return _by_config()[type(table)]


@cache
def _by_config() -> dict[type, Kind]:
    return _unique((one.config, one) for one in kinds())


def _unique(pairs: Iterable[tuple[T, Kind]]) -> dict[T, Kind]:
    """Kinds by what tells them apart.  Raises ValueError for two that nothing tells apart."""
    found: dict[T, Kind] = {}
    for key, one in pairs:
        if found.setdefault(key, one) is not one:
            raise ValueError(f"kinds {found[key].name} and {one.name} are both declared by {key!r}")
    return found


@cache
def annexes() -> tuple[tuple[Kind, Annex], ...]:
    """The kinds that have an annex, with it."""
    return tuple((one, one.annex) for one in kinds() if one.annex is not None)
