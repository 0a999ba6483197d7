"""Kinds of stages by name: the one place where `pipeline` reaches `stages`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any


def _reach(module: str) -> Any:
    return import_module(module)


_catalog = _reach("stages.catalog")


def kinds() -> tuple[str, ...]:
    """Names of all kinds that there are."""
    return tuple(_catalog.MODULES)


def kind(name: str) -> Any:
    """The `stages.kind.Kind` called ``name``, one of `kinds`.  Imports its layout, not its code."""
    return _catalog.kind(name)


def first_timestamp(capture: str) -> int:
    """Earliest time in a capture, ns since 1970, 0 where it is empty.  Raises what says why it is no capture."""
    return int(_reach("stages.capture.layout.replay").first_timestamp(capture))


def arming(counters: Sequence[int]) -> str:
    """What a compare's counters say of its secondary, in a word."""
    number = counters[_reach("stages.compare.layout.counters").ARMING_STATE]
    return str(_reach("stages.compare.layout.arming").NAMES[number])


def base() -> Any:
    """The module `stages.base`: Context, Port and StageSpec.  It imports Numba, so only stage processes ask for it."""
    return import_module("stages.base")
