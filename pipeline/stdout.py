"""Standard output that goes away: a reader that has seen enough (head, less), a full disk."""

from __future__ import annotations

import sys
from collections.abc import Callable

from pipeline import streams
from pipeline.streams import complain


def show(program: str, produce: Callable[[], int | None]) -> int:
    """What ``produce`` returns (None is 0), having printed; 0 where the reader wanted no more, 2 on a full disk."""
    streams.show_nearest(sys.stdout)
    try:
        status = produce() or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        status = 0
    except OSError as error:
        complain(f"{program}: the output cannot be written ({error.strerror})")
        status = 2
    hush()
    return status


def hush() -> None:
    """Nothing more to standard output: the interpreter's own flush would complain."""
    streams.hush(sys.stdout)
