"""Words as people know them: ages, flags by name, slots and rows by number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from ring.fields import Field, Table

NONE: Final = "-"
MASK: Final = 0xFFFFFFFF
_S: Final = 10**9
UNITS: Final = {
    "ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": _S, "min": 60 * _S, "h": 3600 * _S, "d": 86400 * _S
}  # fmt: skip
"""Units of time in ns."""

_SHORT: Final = 16  # bytes of a frame in a column
_PLAIN: Final = ("pid", "_start", "_ino", "errno", "hash", "digest")
"""How names of fields end whose numbers do not count anything."""


def duration(ns: int) -> str:
    """``1.2 s``, ``3 min 5 s``, ``2 d 4 h``."""
    for unit, less in (("d", "h"), ("h", "min"), ("min", "s")):
        if ns >= UNITS[unit]:
            left = ns % UNITS[unit] // UNITS[less]
            return f"{ns // UNITS[unit]:,} {unit}" + (f" {left} {less}" if left else "")
    for unit in ("s", "ms", "µs"):
        if ns >= UNITS[unit]:
            return f"{ns / UNITS[unit]:.1f}".removesuffix(".0") + f" {unit}"
    return f"{ns} ns"


def age(at: int, now: int) -> str:
    """``1.2 s ago``, or ``in 0.3 s``."""
    return f"{duration(now - at)} ago" if at <= now else f"in {duration(at - now)}"


def signed(value: int) -> int:
    """A difference modulo 2^32."""
    return (value + (1 << 31) & MASK) - (1 << 31)


def flags(value: int, names: Sequence[str]) -> str:
    """``SYN,ACK``; bits without a name as a number."""
    said = [name for i, name in enumerate(names) if value >> i & 1]
    if rest := value & ~((1 << len(names)) - 1):
        said.append(hex(rest & (1 << 64) - 1))
    return ",".join(said) or NONE


def plain(text: str, *, lines: bool = False) -> str:
    """Text that cannot move a terminal's cursor; ``lines``: it may have several."""
    return "".join(c if c.isprintable() or (lines and c == "\n") else "." for c in text)


def raw(words: Sequence[int]) -> bytes:
    """The bytes of words."""
    return b"".join((word & (1 << 64) - 1).to_bytes(8, "little") for word in words)


def text_of(words: Sequence[int]) -> str:
    """NUL-padded text."""
    return raw(words).partition(b"\0")[0].decode(errors="replace")


def _bytes(data: bytes, most: int) -> str:
    data = data.rstrip(b"\0")
    text = "".join(chr(b) if 32 <= b < 127 else "." for b in data[:most])
    return f"{data[:most].hex(' ', 4)} {text!r}{'…' if len(data) > most else ''}" if data else NONE


class Shower:
    """Shows the words of one segment's tables, ages as at ``now``; the functions turn words into rows and back."""

    def __init__(self, w: Any, now: int, row_at: Callable[[int], int | None], word_of: Callable[[int], int]) -> None:
        self.w, self.now, self._row_at, self.word_of = w, now, row_at, word_of

    def cell(self, table: Table, field: Field, words: Sequence[int]) -> str:
        """A field's words, short."""
        if field.unit == "bytes":
            return _bytes(raw(words), _SHORT)
        return self._whole(table, field, words) or "/".join(self.one(table, field, word) for word in words)

    def line(self, table: Table, field: Field, words: Sequence[int]) -> str:
        """A field's words, with the names of its parts."""
        if field.unit == "text":
            return plain(text_of(words), lines=True) or NONE
        if whole := self._whole(table, field, words):
            return whole
        if field.size == 1:
            shown = self.one(table, field, words[0])
            return shown.replace(",", ", ") if field.unit == "flags" else shown
        parts = table.parts.get(field.name, ())
        said = [(parts[i] if i < len(parts) else str(i), word) for i, word in enumerate(words)]
        kept = [f"{name} {self.one(table, field, word)}" for name, word in said if word or name in parts]
        return ", ".join(kept) or "0"

    def _whole(self, table: Table, field: Field, words: Sequence[int]) -> str:
        """What its words say together; empty: each says something."""
        if field.name in table.shown:
            try:
                return plain(table.shown[field.name](self.w, words))
            except (ValueError, IndexError):  # words that another version wrote, or something wrote over
                return "/".join(map(str, words))
        if field.unit == "text":
            return plain(text_of(words)) or NONE
        return _bytes(raw(words), 8 * len(words)) if field.unit == "bytes" else ""

    def one(self, table: Table, field: Field, value: int) -> str:
        """One word."""
        names = table.names.get(field.name)
        if field.unit == "flags":
            return flags(value, names or ())
        if names is not None:
            return names[value] if 0 <= value < len(names) and names[value] else f"{value:,}"
        match field.unit:
            case "bool":
                return {0: "no", 1: "yes"}.get(value, f"{value:,}")
            case "ns":
                return age(value, self.now) if value > 0 else NONE
            case "seq":
                return str(value & MASK) if value >= 0 else NONE
            case "delta":
                return f"{signed(value):+d}" if value else "0"
            case "slot+1":
                return f"slot {value - 1}" if value > 0 else NONE
            case "row" if value <= 0:
                return NONE
            case "row":
                number = self._row_at(value)
                return f"word {value:,}" if number is None else f"row {number}"
        if value == -1:
            return NONE
        if field.name.endswith("_ns") and value > 0:
            return duration(value)
        return str(value) if field.name.endswith(_PLAIN) else f"{value:,}"
