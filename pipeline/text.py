"""Text files as people's editors leave them: encodings that are not UTF-8, and the mark that may stand before UTF-8."""

from __future__ import annotations

import codecs
from typing import Final

MARK: Final = "\N{ZERO WIDTH NO-BREAK SPACE}"  # the byte order mark; editors on Windows put it before UTF-8, too

_MARKS: Final = (  # UTF-16's is the beginning of UTF-32's
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_LOOKED_AT: Final = 64  # bytes of a text without a mark


def wide_encoding(data: bytes) -> str:
    """``UTF-16``, ``UTF-32`` or the like, by the mark or by the zeros of a text's beginning; nothing for all else."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    start = data[: min(_LOOKED_AT, len(data) & ~1)]
    even, odd = start[::2], start[1::2]
    if len(even) >= 4 and any(even) != any(odd) and (all(even) or all(odd)):
        return "UTF-16LE" if all(even) else "UTF-16BE"
    return ""


def mend(name: str) -> str:
    """What makes a text in UTF-8 of one in another encoding."""
    return f"`iconv -f {name} -t UTF-8`, or UTF-8 as the encoding where the editor saves it"
