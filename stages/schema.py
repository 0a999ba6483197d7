"""Reading a table of a config into a frozen dataclass whose fields say what is right.

A field is declared as ``key(check, default)``.  A mistake never raises here: it is noted, the field takes its default,
and reading goes on, so that one run shows every mistake.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ring.errors import BadSize
from ring.sizes import parse_size, show_size

T = TypeVar("T")

MIN_RING = 256 * 1024  # the largest record, 69,640 bytes, fits three times
MAX_RING = 1024**3
DAY_MS = 24 * 3600 * 1000
SUN_PATH = 107  # the most bytes of a unix socket's path, unix(7)


class Mistake(NamedTuple):
    """One mistake: the path of its key (``filter.m0.queue``), what stands there, and what would be right."""

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}; expected {self.expected}"


class ConfigError(ValueError):
    """A config with mistakes: all of them, in the order in which they were found."""

    def __init__(self, source: str, mistakes: Iterable[Mistake]) -> None:
        self.source = source
        self.mistakes = tuple(mistakes)
        super().__init__(source, self.mistakes)

    def __str__(self) -> str:
        n = len(self.mistakes)
        lines = [f"{self.source}: {n} mistake{'s' * (n != 1)}", *(f"  {mistake}" for mistake in self.mistakes)]
        return "\n".join(lines)


class Wrong(ValueError):
    """A value that a check does not take; the message, where there is one, says what would be right.

    ``found``: what stands there, where another form of it than `show` makes is easier to read.
    """

    def __init__(self, expected: str = "", found: str = "") -> None:
        self.found = found
        super().__init__(expected)


class Check(NamedTuple):
    """What a key takes: in words, and as a function from the value (and the config's folder) to what is kept."""

    expected: str
    read: Callable[[Any, Path], Any]


def show(value: Any) -> str:
    """A value as it stood in the file, at most 60 characters of it."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def likely(word: str, known: Iterable[str]) -> str | None:
    """The known word that an unknown one was probably meant to be."""
    return next(iter(difflib.get_close_matches(word, list(known), 1, 0.5)), None)


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint for an unknown word: the nearest known one, and what is known at all."""
    names = list(known)
    close = likely(word, names)
    listed = ", ".join(names) if names else "none"
    return f'"{close}", perhaps (known: {listed})' if close else f"one of: {listed}"


def _typed(expected: str, kind: type, good: Callable[[Any], bool] = lambda _: True) -> Check:
    def read(value: Any, _: Path) -> Any:
        if type(value) is not kind or not good(value):  # exactly: True is an int to isinstance
            raise Wrong
        return value

    return Check(expected, read)


def integer(low: int, high: int, unit: str = "") -> Check:
    """A whole number from ``low`` to ``high``."""
    return _typed(f"a whole number from {low} to {high}{' ' * bool(unit)}{unit}", int, lambda n: low <= n <= high)


def positive(unit: str) -> Check:
    """A number above 0 and up to 86,400, whole or not."""

    def read(value: Any, _: Path) -> int | float:
        if type(value) not in (int, float) or not 0 < value <= 86_400:
            raise Wrong
        return value  # type: ignore[no-any-return]

    return Check(f"a number above 0 and up to 86400{' ' * bool(unit)}{unit}", read)


def one_of(*names: str) -> Check:
    """One of a few words."""
    return _typed(" or ".join(", ".join(f'"{n}"' for n in names).rsplit(", ", 1)), str, names.__contains__)


def matching(pattern: str, expected: str) -> Check:
    """A string that matches ``pattern`` from end to end."""
    compiled = re.compile(pattern)
    return _typed(expected, str, lambda text: compiled.fullmatch(text) is not None)


def _size(value: Any) -> int:
    if type(value) not in (int, str):
        raise Wrong
    try:
        return parse_size(value)
    except (BadSize, ValueError):  # ValueError: thousands of digits
        raise Wrong from None


def _ring_size(value: Any, _: Path) -> int:
    n = _size(value)
    if not MIN_RING <= n <= MAX_RING or n & (n - 1):
        close = min(max(1 << max(n - 1, 1).bit_length(), MIN_RING), MAX_RING)
        raise Wrong(f'a power of two from 256KiB to 1GiB, say "{show_size(close)}"')
    return n


def _memory(value: Any, _: Path) -> int:
    n = _size(value)
    if not 1024**2 <= n <= MAX_RING:
        raise Wrong
    return n


def _file(value: Any, folder: Path) -> str:
    if type(value) is not str or not value or "\0" in value:
        raise Wrong
    return os.path.normpath(folder / os.path.expanduser(value))


def _host(value: Any, _: Path) -> str:
    if type(value) is not str or not value or not value.isprintable() or any(map(str.isspace, value)):
        raise Wrong
    try:
        size = len(value.encode("idna"))  # as getaddrinfo does, RFC 3490
    except UnicodeError:
        raise Wrong(f"{HOST.expected}: between its dots 1 to 63 characters, and only letters that names have") from None
    if size > 253:
        raise Wrong(f"{HOST.expected}: at most 253 characters")
    return value


def _cpus(value: Any, _: Path) -> tuple[int, ...]:
    if type(value) is not list or not value or any(type(n) is not int or not 0 <= n < 4096 for n in value):
        raise Wrong
    if len(set(value)) != len(value):
        raise Wrong
    return tuple(value)


ID = r"[A-Za-z0-9_.-]{1,64}"
BOOLEAN = _typed("true or false, without quotes", bool)
VNET_LEN = _typed("10 or 12, the two lengths of a virtio-net header", int, (10, 12).__contains__)
TEXT = _typed("a string that is not empty", str, bool)
IDENT = matching(ID, "an id: 1 to 64 of A-Z a-z 0-9 _ . -")
RING_SIZE = Check('a power of two from 256KiB to 1GiB, such as "4MiB"', _ring_size)
MEMORY = Check('a size from 1MiB to 1GiB, such as "16MiB"', _memory)
HOST = Check('a host\'s name or address without blanks, such as "10.0.0.2"', _host)
FILE = Check("the path of a file", _file)
CPUS = Check("a list of different processor numbers, such as [0, 1]", _cpus)
POSITION = matching(rf"head|tail|id={ID}", '"head", "tail" or "id=" and the id of a filter')
IFNAME = matching(
    r"(?!\.{1,2}$)[^\s/:\0]{1,15}", "a name of an interface: 1 to 15 characters, no space, slash or colon"
)


def key(check: Check, default: Any = None, *, required: bool = False, doc: str, shown: str | None = None) -> Any:
    """A field of a table: what it takes, what it is where it is left out, and its sentence for docs/config.md.

    ``shown``: how the reference shows the default, where it is not the value itself.
    """
    metadata = {"check": check, "required": required, "doc": doc, "shown": shown}
    return field(default="" if required else default, metadata=metadata)


def reference(cls: type[Any]) -> Iterable[tuple[str, str, str]]:
    """Name, default and sentence of each key of a table, as docs/config.md has them."""
    for f in fields(cls):
        if "check" in f.metadata:
            shown = f.metadata["shown"]
            if shown is None:
                shown = (
                    "required" if f.metadata["required"] else "none" if f.default is None else f"`{show(f.default)}`"
                )
            yield f.name, shown, f.metadata["doc"]


@dataclass
class Reader:
    """Reads tables and notes mistakes; relative paths of files start from ``folder``."""

    folder: Path
    mistakes: list[Mistake]

    def note(self, path: str, found: str, expected: str) -> None:
        """Note one mistake."""
        self.mistakes.append(Mistake(path, found, expected))

    def table(self, value: Any, path: str) -> Mapping[str, Any]:
        """``value`` if it is a table, else an empty one and a mistake."""
        if isinstance(value, dict):
            return value
        self.note(path, show(value), "a table")
        return {}

    def read(
        self,
        cls: type[T],
        value: Any,
        path: str,
        *,
        given: tuple[str, ...] = (),
        others: Mapping[str, Any] | None = None,
    ) -> T:
        """A ``cls`` from a table.

        ``given`` are keys that the caller has read; ``others`` are the classes of sibling tables by name, to say of a
        key which of them it belongs to.
        """
        table = self.table(value, path)
        known = {f.name: f for f in fields(cls) if "check" in f.metadata}  # type: ignore[arg-type]
        kept: dict[str, Any] = {}
        for name, found in table.items():
            if name in known:
                self._value(kept, known[name].metadata["check"], name, found, path)
            elif name not in given:
                self._unknown(f"{path}.{name}", name, found, (*given, *known), others or {})
        for name, declared in known.items():
            if declared.metadata["required"] and name not in table and isinstance(value, dict):
                self.note(f"{path}.{name}", "nothing", declared.metadata["check"].expected)
        return cls(**kept)

    def shared(self, classes: Mapping[str, type[Any]], table: Mapping[str, Any], path: str, given: set[str]) -> None:
        """Note the keys of ``table`` that none of ``classes`` has, and values that none of them takes.

        For a table of which it is not known which class it is; ``given`` are keys of which is said enough already.
        """
        checks: dict[str, list[Check]] = {}
        for f in (f for cls in classes.values() for f in fields(cls) if "check" in f.metadata):
            checks.setdefault(f.name, []).append(f.metadata["check"])
        for name, found in table.items():
            if name in given:
                continue
            if name not in checks:
                self._unknown(f"{path}.{name}", name, found, tuple(checks), {})
                continue
            refused: list[Mistake] = []
            for check in checks[name]:
                trial = Reader(self.folder, refused)
                trial._value({}, check, name, found, path)
            if len(refused) == len(checks[name]):
                expected = " or ".join(dict.fromkeys(mistake.expected for mistake in refused))
                self.note(f"{path}.{name}", show(found), expected)

    def _value(self, kept: dict[str, Any], check: Check, name: str, found: Any, path: str) -> None:
        try:
            kept[name] = check.read(found, self.folder)
        except Wrong as wrong:
            self.note(f"{path}.{name}", wrong.found or show(found), str(wrong) or check.expected)

    def _unknown(
        self, path: str, name: str, found: Any, known: tuple[str, ...], others: Mapping[str, type[Any]]
    ) -> None:
        owners = [other for other, cls in others.items() if name in {f.name for f in fields(cls)}]
        if owners:
            self.note(path, "a key of another kind", f"no {name} here: it belongs to {' and '.join(owners)}")
        elif isinstance(found, dict):
            self.note(path, "a table", f"{nearest(name, known)}; an id with a dot needs quotes in a table's name")
        else:
            self.note(path, "an unknown key", nearest(name, known))
