"""What a command of the control socket is answered with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Reply = dict[str, Any]


class Refused(Exception):
    """A command that cannot be done; ``code`` is what `pipeline.control` exits with."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def unknown(what: str, name: str, known: Sequence[str]) -> Refused:
    """The refusal of a name that does not exist; it lists those that do."""
    return Refused(f"no {what} {name!r}; known: {', '.join(known) or 'none'}", 2)


@dataclass
class Later:
    """A reply that has to wait: ``done()`` gives it, or None for not yet.  After ``until`` (ns) ``late`` is given."""

    done: Callable[[], Reply | None]
    until: int
    late: str = "it takes longer than expected; see status"
