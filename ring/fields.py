"""Tables of shared words, written once: a line gives a word its name, its place, its unit and its sentence.

::

    _SLOT = Words("kernels")
    NEXT: Final = _SLOT.word("next", "the packet behind it in its list, 0: it is the last", "slot+1")
    SEQ: Final = _SLOT.word("seq", "number of its first byte", "seq")
    FIELDS: Final = _SLOT.fields

So the constant that a kernel uses, the place that a tool reads and the sentence that a person sees cannot disagree.
"""

from __future__ import annotations

from typing import NamedTuple


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
