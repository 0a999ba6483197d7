"""What is asked for, what an option with an id is, what comes out, and what there is to tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tools.from_qemu.options import Option
from tools.from_qemu.words import show

Table = dict[str, Any]


class Note(NamedTuple):
    """Something to tell: ``lost`` (not carried over, and it matters), ``do`` (left to the user), or ``note``."""

    kind: str
    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text


@dataclass(frozen=True)
class Asked:
    """What the user asked for; ``qemu`` is QEMU's version."""

    side: str | None = None
    name: str | None = None
    runtime: str = "/run/colo"
    hosts: Mapping[str, str] = field(default_factory=dict)
    taps: Mapping[str, str] = field(default_factory=dict)
    qemu: tuple[int, int] | None = None
    listens: bool = False  # whether QEMU listens for the pipeline, and not the other way round
    running: Sequence[str] = ()  # TAP devices that a process has open
    hidden: bool = False  # whether they could not be looked up
    folder: str | None = None
    base: str = ""  # the config's folder, from which its relative paths start


@dataclass(frozen=True)
class Converted:
    """The result: tables by their path, in order; what there is to say; QEMU's new options, a list of words each.

    ``places`` says of a table (``filter``, ``m0``) which option it is from.
    """

    side: str
    tables: dict[tuple[str, ...], Table]
    notes: list[Note]
    qemu: list[list[str]]
    places: Mapping[tuple[str, ...], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Thing:
    """An option with an id, and its keys."""

    id: str
    option: Option
    values: Mapping[str, str]

    @property
    def kind(self) -> str:
        """An object's type, else nothing."""
        return self.values.get("qom-type", "")

    @property
    def place(self) -> str:
        """Where it stands and what it is: ``line 7, filter-mirror m0``."""
        return f"{self.option.word.place}, {self.kind or '-' + self.option.name} {show(self.id)[1:-1]}"
