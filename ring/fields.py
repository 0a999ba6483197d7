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
        return self.again(name, offset, meaning, unit, size, writer=writer)

    def again(self, name: str, offset: int, meaning: str, unit: str = "", size: int = 1, *, writer: str = "") -> int:
        """Another meaning of words that have their place already: which one holds, ``meaning`` says."""
        self._fields.append(Field(name, offset, size, writer or self._writer, meaning, unit))
        return offset
