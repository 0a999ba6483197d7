"""What the supervisor must know of a kind of stage without importing its code.

One module a kind stands beside this one: counters, scalars, options and tables as data.  The stage's shell
(``stages/NAME.py``) and its kernels (``stages/kernels/NAME.py``) import their numbers from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ring.layout import COUNTERS, PORTS, UNDO

OWN_COUNTERS: Final = 2 * PORTS
"""Counters 0 to 7 are frames taken from each input, 8 to 15 frames put into each output; a kind's own follow."""


class Counter(NamedTuple):
    """A counter's name and one sentence that says what it counts."""

    name: str
    sentence: str


class Counters:
    """Counters of a kind in the making: each `counter` takes the next index of a row's counters.

    One line a counter is its constant, its name and its sentence: ``SENT: Final = _OWN.counter("sent", "frames ...")``.
    """

    def __init__(self) -> None:
        self._listed: list[Counter] = []

    def counter(self, name: str, sentence: str) -> int:
        """The index of a new counter."""
        self._listed.append(Counter(name, sentence))
        return OWN_COUNTERS + len(self._listed) - 1

    @property
    def listed(self) -> tuple[Counter, ...]:
        """Those made so far, in the order of their indices."""
        return tuple(self._listed)


class Balance(NamedTuple):
    """A conservation law of a kind: at every commit the counters on the left add up to those on the right."""

    label: str
    left: tuple[str, ...]
    right: tuple[str, ...]


def _no_tables(params: Mapping[str, Any]) -> int:
    return 0


@dataclass(frozen=True)
class Kind:
    """One kind of stage.

    ``name`` is unique (``netdev-pcap``), ``type`` is what people see (``netdev``); ``shell`` is ``module:Class``;
    ``kernels`` are the modules that the fork server warms; the place of a port in ``inputs`` or ``outputs`` is its
    index in the kernels.  ``connects``: it has an outside peer and keeps the link words of its rings.  ``table_words``
    gives the words of the kind's tables for a stage's parameters.
    """

    name: str
    type: str
    shell: str
    kernels: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    counters: tuple[Counter, ...] = ()
    balances: tuple[Balance, ...] = ()
    connects: bool = False
    undo_entries: int = 0
    table_words: Callable[[Mapping[str, Any]], int] = field(default=_no_tables)

    def __post_init__(self) -> None:
        if len(self.inputs) > PORTS or len(self.outputs) > PORTS or len(self.all_counters) > COUNTERS:
            raise ValueError(f"kind {self.name} has more ports or counters than a row has places")

    @property
    def all_counters(self) -> tuple[Counter | None, ...]:
        """Counters by index, None where the index has no port."""
        inputs = [Counter(f"{port}_frames", f"frames taken from {port}") for port in self.inputs]
        outputs = [Counter(f"{port}_frames", f"frames put into {port}") for port in self.outputs]
        pad = [None] * PORTS
        return (*(inputs + pad)[:PORTS], *(outputs + pad)[:PORTS], *self.counters)

    @property
    def tables_at(self) -> int:
        """Word index at which the kind's tables start."""
        return UNDO + 2 * self.undo_entries

    def words(self, params: Mapping[str, Any]) -> int:
        """Length of a stage's segment in words."""
        return self.tables_at + self.table_words(params)
