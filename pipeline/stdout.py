"""Standard output that goes away: a reader that has seen enough (head, less), a full disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def show(program: str, produce: Callable[[], int | None]) -> int:
    """What ``produce`` returns (None is 0), having printed; 0 where the reader wanted no more, 2 on a full disk."""
    try:
        status = produce() or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        status = 0
    except OSError as error:
        print(f"{program}: the output cannot be written ({error.strerror})", file=sys.stderr)
        status = 2
    hush()
    return status


def hush() -> None:
    """Nothing more to standard output: the interpreter's own flush would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
