"""Tables of shared words, written once: a line gives a word its name, its place, its unit and its sentence.

::

    _SLOT = Words("kernels")
    NEXT: Final = _SLOT.word("next", "the packet behind it in its list, 0: it is the last", "slot+1")
    SEQ: Final = _SLOT.word("seq", "number of its first byte", "seq")
    FIELDS: Final = _SLOT.fields

So the constant that a kernel uses, the place that a tool reads and the sentence that a person sees cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class Field(NamedTuple):
    """One row of a layout table: name, offset and size in words, who writes it, what it means, and its unit.

    Units that `tools.inspect` shows in a form of their own: ``ns`` (monotonic), ``seq`` (modulo 2^32), ``delta``
    (a difference modulo 2^32), ``bool``, ``bytes``, ``text``, ``slot+1``, ``row`` (word index of a row), ``flags``.
    """

    name: str
    offset: int
    size: int
    writer: str
    meaning: str
    unit: str = ""
    again: bool = False  # another meaning of words that a field before it has, too


class Words:
    """A table in the making: each `word` takes the next place and gives its offset from the table's start."""

    def __init__(self, writer: str, start: int = 0) -> None:
        self._writer, self.end = writer, start
        self._fields: list[Field] = []

    @property
    def fields(self) -> tuple[Field, ...]:
        """The table as far as it has been made."""
        return tuple(self._fields)

    def word(self, name: str, meaning: str, unit: str = "", size: int = 1, *, writer: str = "") -> int:
        """The offset of ``size`` new words; ``writer`` where it is not the table's."""
        offset, self.end = self.end, self.end + size
        self._fields.append(Field(name, offset, size, writer or self._writer, meaning, unit))
        return offset

    def skip_to(self, offset: int) -> None:
        """Leave the words before ``offset`` unused: the next word stands there."""
        if offset < self.end:
            raise ValueError(f"word {offset} is in use: the table has {self.end} words")
        self.end = offset

    def again(self, name: str, offset: int, meaning: str, unit: str = "", size: int = 1, *, writer: str = "") -> int:
        """Another meaning of words that have their place already: which one holds, ``meaning`` says."""
        self._fields.append(Field(name, offset, size, writer or self._writer, meaning, unit, again=True))
        return offset


class Values:
    """The values that a word may have, in the making: each `value` is the next number, from ``start`` on."""

    def __init__(self, start: int = 0) -> None:
        self._start = start
        self._names: list[str] = []

    @property
    def names(self) -> tuple[str, ...]:
        """What each number is called, by number; numbers below the first are called nothing."""
        return ("",) * self._start + tuple(self._names)

    def value(self, name: str) -> int:
        """The number of a new value."""
        self._names.append(name)
        return self._start + len(self._names) - 1


class Bits:
    """The bits of a word of flags, in the making: each `bit` is the next power of two."""

    def __init__(self) -> None:
        self._meanings: dict[str, str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What each bit is called, from the lowest."""
        return tuple(self._meanings)

    @property
    def meanings(self) -> dict[str, str]:
        """What each bit means, by name."""
        return dict(self._meanings)

    def bit(self, name: str, meaning: str) -> int:
        """The value of a new bit."""
        self._meanings[name] = meaning
        return 1 << len(self._meanings) - 1


class Table(NamedTuple):
    """A table in a stage's segment, for `tools.inspect`: its fields, and where its rows are.

    Functions take the segment's words, which they must not keep, and raise ValueError with the reason where they cannot
    be read.  ``start``: word of row 0; ``rows``: how many there are, 0: it is not laid out yet; ``row_words``: from one
    row to the next, 0: what the fields take.  ``live``: a field that is not 0 in rows that are in use, or a function
    that gives the numbers of those rows, in the order in which they are to be seen; empty: all are.

    ``names``, by field: what each bit (unit ``flags``) or each value is called, as `Bits` and `Values` list them;
    ``parts``, by field of several words: what each is called; ``shown``, by field: its words as text, from those of the
    segment and its own; ``holds``, by field: whether its words have that meaning in a row, from the words of both;
    ``which``: what a row is called beside its number.  ``columns``: the fields that people want
    to see first; a terminal that is narrow has no room for the others.
    """

    name: str
    meaning: str
    fields: tuple[Field, ...]
    start: Callable[[Any], int]
    rows: Callable[[Any], int] = lambda w: 1
    row_words: int = 0
    live: str | Callable[[Any], Iterable[int]] = ""
    names: Mapping[str, tuple[str, ...]] = {}
    parts: Mapping[str, tuple[str, ...]] = {}
    shown: Mapping[str, Callable[[Any, Sequence[int]], str]] = {}
    holds: Mapping[str, Callable[[Any, Sequence[int]], bool]] = {}
    which: Callable[[Any, int], str] | None = None
    columns: tuple[str, ...] = ()
