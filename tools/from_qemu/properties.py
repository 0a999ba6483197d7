"""What QEMU's filters and compares are called and what they take, and what a word that is neither was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

from tools.from_qemu.model import Thing
from tools.from_qemu.options import Option, keys
from tools.from_qemu.words import Trouble, show

FILTERS: Final = ("filter-mirror", "filter-redirector", "filter-rewriter")
COMPARE: Final = "colo-compare"
OTHERS: Final = ("filter-buffer", "filter-dump", "filter-replay")

TEXT: Final = ("netdev", "queue", "status", "position", "insert", "indev", "outdev")
PORTS: Final = ("primary_in", "secondary_in", "outdev", "notify_dev")
NUMBERS: Final = ("compare_timeout", "expired_scan_cycle", "max_queue_size")

_FILTER: Final = ("netdev", "queue", "status", "position", "insert", "vnet_hdr_support")
_TAKES: Final[Mapping[str, tuple[str, ...]]] = {
    "filter-mirror": (*_FILTER, "outdev"),
    "filter-redirector": (*_FILTER, "indev", "outdev"),
    "filter-rewriter": _FILTER,
    COMPARE: (*PORTS, *NUMBERS, "vnet_hdr_support", "iothread"),
}
_ALIKE: Final = 0.75  # of difflib's ratio: "filter-miror" has 0.96, "filter-dump" and "filter-mirror" 0.67


def meant(word: str, known: Iterable[str], alike: float = _ALIKE) -> str | None:
    """The known word of which ``word`` is a slip of the pen."""
    return next(iter(difflib.get_close_matches(word, sorted(known), 1, alike)), None)


def kind_of(option: Option) -> str:
    """The type of an -object, as it is written; nothing where its JSON does not parse."""
    try:
        return keys(option).get("qom-type", "")
    except Trouble:
        return next((kind for kind in (*FILTERS, COMPARE) if kind in (option.value or option.word).value), "")


def intended(kind: str) -> str:
    """Which filter or compare of ours a type is, or was meant to be; nothing for other objects."""
    ours = (*FILTERS, COMPARE)
    if kind in (*ours, *OTHERS):
        return kind if kind in ours else ""
    near = meant(kind, (*ours, *OTHERS))
    if near is not None:
        return near if near in ours else ""
    return kind if kind.startswith(("filter-", "colo-")) else ""


def check_kind(option: Option, kind: str) -> None:
    """Raise `Trouble` for an -object that looks like a filter or a compare, but which QEMU does not have."""
    known = (*FILTERS, COMPARE, *OTHERS)
    near = meant(kind, known)
    if kind in known or "$" in kind or not (near or kind.startswith(("filter-", "colo-"))):
        return
    mend = f"{near}, perhaps" if near else f"one of: {', '.join(known)}"
    raise Trouble(f"{option.place} {show(kind)[1:-1]}", "no such object", mend)


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
