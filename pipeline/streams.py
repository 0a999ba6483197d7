"""Standard streams as a program may find them: closed, full, without a reader, not able to show every character.

`whole` runs when this package, or `tools`, is imported: before anything else opens a descriptor.
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import os
import sys
from typing import Final, TextIO

SHOWN: Final = "colo.shown"
"""How text is encoded for a stream that lacks some of its characters: by the nearest that it has, else by number."""

_NEAREST: Final = {
    "→": ">",
    "≠": "!=",
    "−": "-",
    "…": "...",
    "│": "|",
    "▸": ">",
    "•": "*",
    "·": ".",
    "µ": "u",
    "✓": "+",
}


def _nearest(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    known = "".join(_NEAREST.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text)
    return known, error.end


codecs.register_error(SHOWN, _nearest)


def whole() -> None:
    """Open /dev/null in place of each standard stream that is closed.

    Else the next socket or segment would get its number, and be written to as standard error.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 -- for as long as the program lasts
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115


def show_nearest(stream: TextIO) -> None:
    """From here on nothing that is printed to ``stream`` fails for want of a character."""
    reconfigure = getattr(stream, "reconfigure", None)  # a test's stand-in has none
    if reconfigure is not None:
        reconfigure(errors=SHOWN)


def complain(text: object, end: str = "\n") -> None:
    """A line to standard error, if somebody can be told: never an error."""
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        hush(sys.stderr)


def hush(stream: TextIO) -> None:
    """Nothing more to a stream that cannot be written: else the interpreter's flush fails, and it exits with 120."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


@atexit.register
def _settle() -> None:
    """Whatever is left in a buffer (argparse's words, say) changes no exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            hush(stream)
