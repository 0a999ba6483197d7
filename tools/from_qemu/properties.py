"""What QEMU's filters and compares are called and what they take, and what a word that is neither was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

from stages import catalog
from stages.kind import FILTER, Kind
from tools.from_qemu.model import Thing
from tools.from_qemu.options import Option, keys
from tools.from_qemu.words import Trouble, show

KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind for kind in sorted(catalog.kinds(), key=lambda kind: kind.table != FILTER) if kind.qemu.properties
}
"""The kinds of stages that QEMU has, too, by QEMU's name for them: filters first."""

PARTS: Final = tuple(name for name, kind in KINDS.items() if kind.qemu.part)
"""Those without which a command line has nothing to do with COLO."""

OTHERS: Final = ("filter-buffer", "filter-replay")
"""QEMU's filters that are no kind of stage."""

LINKS: Final = tuple(dict.fromkeys(link.key for kind in KINDS.values() for link in kind.chardevs))
"""The properties that name chardevs, in an order that is the same in every run: the first is the one that is told."""

_TAKES: Final[Mapping[str, tuple[str, ...]]] = {
    name: (*kind.qemu.properties, *kind.qemu.ignored) for name, kind in KINDS.items()
}
_PREFIXES: Final = ("filter-", "colo-")
_ALIKE_BEHIND: Final = 0.7  # a prefix that both have: "dumb" and "dump" have 0.75, "drop" and "dump" 0.5
_ALIKE: Final = 0.75  # of difflib's ratio: "filter-miror" has 0.96, "filter-dump" and "filter-mirror" 0.67


def meant(word: str, known: Iterable[str], alike: float = _ALIKE) -> str | None:
    """The known word of which ``word`` is a slip of the pen."""
    return next(iter(difflib.get_close_matches(word, sorted(known), 1, alike)), None)


def kind_of(option: Option) -> str:
    """The type of an -object, as it is written; nothing where its JSON does not parse."""
    try:
        return keys(option).get("qom-type", "")
    except Trouble:
        return next((kind for kind in KINDS if kind in (option.value or option.word).value), "")


def intended(kind: str) -> str:
    """Which filter or compare of ours a type is, or was meant to be; nothing for other objects."""
    ours = tuple(KINDS)
    if kind in (*ours, *OTHERS):
        return kind if kind in ours else ""
    near = _near(kind)
    if near is not None:
        return near if near in ours else ""
    return kind if kind.startswith(_PREFIXES) else ""


def is_foreign(option: Option, kind: str) -> bool:
    """Whether an -object looks like a filter or a compare that QEMU does not have: a patched one has it.

    Raises `Trouble` for one that is a slip of the pen.
    """
    if kind in (*KINDS, *OTHERS) or "$" in kind:
        return False
    near = _near(kind)
    if near is not None:
        raise Trouble(f"{option.place} {show(kind)[1:-1]}", "no such object", f"{near}, perhaps")
    return kind.startswith(_PREFIXES)


def _near(kind: str) -> str | None:
    """The filter or compare of which a type is a slip of the pen."""
    known = (*KINDS, *OTHERS)
    for prefix in _PREFIXES:
        if kind.startswith(prefix):
            behind = [name.removeprefix(prefix) for name in known if name.startswith(prefix)]
            near = meant(kind.removeprefix(prefix), behind, _ALIKE_BEHIND)
            return None if near is None else prefix + near
    return meant(kind, known)


def unknown(thing: Thing) -> list[str]:
    """The properties of a filter or compare that it does not have.

    Raises `Trouble` for one that is a slip of the pen, or that belongs to another type: QEMU takes neither.  What is
    left may be a newer QEMU's.
    """
    takes = _TAKES[thing.kind]
    left = []
    for key in thing.values:
        if key in ("id", "qom-type", *takes):
            continue
        owner = next((kind for kind, theirs in _TAKES.items() if key in theirs), None)
        near = meant(key, takes)
        if owner is not None:
            raise Trouble(thing.place, f"{key}: unknown", f"{show(key)} is a property of {owner}")
        if near is not None:
            raise Trouble(thing.place, f"{show(key)[1:-1]}: unknown", f"{near}, perhaps")
        left.append(key)
    return left
