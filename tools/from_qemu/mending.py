"""A text as mail programs, word processors and Windows leave it, made a text again of which a shell would make words.

Quoting (``> ``) and quoted-printable are undone, and characters that only look like those that were typed are replaced.
Lines may become fewer: ``numbers`` says which line of the input each is.
"""

from __future__ import annotations

import quopri
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final

from tools.from_qemu.words import CommandLine, Trouble

_DASHES: Final = dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d", "-")
_QUOTES: Final = dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"') | dict.fromkeys(
    "\u2018\u2019\u201a\u201b\u2032", "'"
)
_SPACES: Final = dict.fromkeys("\u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))), " ")
_NOTHING: Final = dict.fromkeys("\u00ad\u061c\u180e\u200b\u200c\u200d\u200e\u200f\ufeff", "") | dict.fromkeys(
    map(chr, (*range(0x202A, 0x202F), *range(0x2060, 0x2070))), ""
)
_WIDE: Final = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if code != 0xFF0D}
_ALIKE: Final = (
    ("typographic dashes are read as -", _DASHES),
    ("typographic quotes are read as \" and '", _QUOTES),
    ("spaces that are none (no-break, wide) are read as blanks", _SPACES),
    ("characters that cannot be seen (of width zero, hyphens for breaks) are left out", _NOTHING),
    ("full-width characters are read as the usual ones", _WIDE),
)
_READ_AS: Final = {ord(c): seen for _, table in _ALIKE for c, seen in table.items()}
_ANY: Final = re.compile("[" + "".join(map(re.escape, map(chr, _READ_AS))) + "]")

_QUOTED: Final = re.compile(r"[ \t]*(?:>[ \t]?)+")
_TYPED: Final = re.compile(
    r"\s*(?:\+\s*)?(?:--?[A-Za-z][\w.-]*(?:\s|$)|[$\w/.~{\"'-]*(?:qemu|kvm)|\$\{?\w+\}?\s+-|\{\s*[\"']exec)"
)
_ENCODED: Final = re.compile(r"=(?:[0-9A-F]{2}|[ \t]*$)", re.MULTILINE)
_LEFT_OUT: Final = "\u2026"  # an ellipsis: something stood there, or stands for something
_LOST: Final = "\ufffd"


@dataclass
class Mended:
    """The text, the line of the input that each of its lines was, and what was mended: by line, in words."""

    text: str
    numbers: list[int]
    changes: dict[int, list[str]] = field(default_factory=dict)

    def place(self, line: int) -> str:
        """``line N``, as the input counts."""
        return f"line {self.numbers[min(line, len(self.numbers)) - 1]}"


def mended(text: str) -> Mended:
    """The text without what its way here has done to it."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    made = Mended(text, list(range(1, len(lines) + 1)))
    lines = _unquoted(lines, made)
    if _is_encoded(lines):
        lines = _unquoted(_decoded(lines, made), made)
    for n, line in enumerate(lines):
        lines[n], found = alike(line)
        for what in found:
            _change(made, n, what)
    made.text = "\n".join(lines)
    return made


def alike(text: str) -> tuple[str, list[str]]:
    """A text with those characters that were meant, and what was replaced."""
    if text.isascii() or not _ANY.search(text):
        return text, []
    found = set(text)
    return text.translate(_READ_AS), [what for what, table in _ALIKE if not found.isdisjoint(table)]


def changes_within(made: Mended, line: CommandLine) -> list[tuple[str, str]]:
    """What was mended where this command line stands, each once: the place where it was first, and the words."""
    numbers = [int(word.place.split()[1]) for word in (*line.before, *line.words) if word.place.startswith("line ")]
    told: dict[str, int] = {}
    for number in sorted(made.changes):
        if numbers and min(numbers) <= number <= max(numbers):
            for what in made.changes[number]:
                told.setdefault(what, number)
    return [(f"line {number}", what) for what, number in told.items()]


def check(line: CommandLine, text: str) -> None:
    """Raise `Trouble` for a character in a command line of ``text`` that nobody can read as another one."""
    lines = re.split(r"\r\n|\r|\n", text)
    for word in line.words:
        odd = next((c for c in word.value if _is_odd(c)), None)
        if odd is None:
            continue
        name = unicodedata.name(odd, "a character without a name")
        place = word.place
        if place.startswith("line "):
            first = int(place.split()[1])
            for number, row in enumerate(lines[first - 1 :], first):
                if odd in row:
                    place = f"line {number}, column {row.index(odd) + 1}"
                    break
        mend = "write what it stands for" if odd == _LEFT_OUT else "write the character that was there, or none"
        raise Trouble(place, f"U+{ord(odd):04X} ({name})", mend)


def _is_odd(c: str) -> bool:
    if c.isascii():
        return not c.isprintable() and c not in "\t\n"
    return c in (_LEFT_OUT, _LOST) or unicodedata.category(c) in ("Cc", "Cf", "Co", "Zl", "Zp", "Zs")


def _change(made: Mended, n: int, what: str) -> None:
    known = made.changes.setdefault(made.numbers[n], [])
    if what not in known:
        known.append(what)


def _unquoted(lines: list[str], made: Mended) -> list[str]:
    """Lines without ``> `` where something typed stands behind it: a mail's, or a shell's at a second line."""
    marks = [_QUOTED.match(line) for line in lines]
    if not any(mark and _TYPED.match(alike(line[mark.end() :])[0]) for mark, line in zip(marks, lines, strict=True)):
        return lines
    for n, mark in enumerate(marks):
        if mark:
            _change(made, n, "a quoted mail: > is left out at the beginning of lines")
    return [line[mark.end() :] if mark else line for mark, line in zip(marks, lines, strict=True)]


def _is_encoded(lines: list[str]) -> bool:
    """Whether it is quoted-printable: there each = is encoded, but for a mail's header."""
    text = "\n".join(lines)
    signs, good = text.count("="), len(_ENCODED.findall(text))
    return "=3D" in text and good > 3 * (signs - good)


def _decoded(lines: list[str], made: Mended) -> list[str]:
    """Quoted-printable undone; a line that ends in = goes on in the next one."""
    found, numbers = list[str](), list[int]()
    part, begins = "", 0
    for n, line in enumerate(lines):
        begins = begins or made.numbers[n]
        soft = re.search(r"=[ \t]*$", line)
        part += line[: soft.start()] if soft else line
        if soft and n < len(lines) - 1:
            continue
        found.append(part)
        numbers.append(begins)
        part, begins = "", 0
    what = "quoted-printable is decoded (=3D is =)"
    made.numbers = numbers
    for n, line in enumerate(found):
        data = quopri.decodestring(line.encode())
        try:
            found[n] = data.decode()
        except UnicodeDecodeError:
            found[n] = data.decode("latin-1")
        if found[n] != line:
            _change(made, n, what)
    return found
