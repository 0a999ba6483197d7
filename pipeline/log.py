"""Logs: structlog to stderr, on state changes only, one line each.

The supervisor writes the lines of all its processes (`pipeline.lines`); they hand theirs to it through `Channel`.
"""

from __future__ import annotations

import os
import select
import sys
from typing import Any, Final, TextIO

import structlog

FORMATS: Final = ("auto", "console", "json")
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
LONGEST: Final = 1 << 16
"""Bytes of a line; one that is longer is cut."""

_LAST_MS: Final = 1000
_made: dict[str, Any] = {}  # the logger that makes a line and writes none


def resolve(form: str, stream: TextIO | None = None) -> str:
    """``console`` or ``json``: what ``auto`` means for a stream (a terminal or a pipe)."""
    if form != "auto":
        return form
    return "console" if (stream or sys.stderr).isatty() else "json"


def configure(form: str, level: str, stream: Any, *, colors: bool = False) -> None:
    """Set up structlog for this process; ``stream`` has ``write`` and ``flush``, and neither waits nor raises."""
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if resolve(form) == "json":
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        processors.append(
            structlog.dev.ConsoleRenderer(
                colors=colors, pad_event_to=30, exception_formatter=structlog.dev.plain_traceback
            )
        )
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    _made["logger"] = structlog.wrap_logger(
        structlog.ReturnLogger(), processors=processors, wrapper_class=structlog.make_filtering_bound_logger(0)
    )


def get(**bound: Any) -> Any:
    """A logger with ``bound`` on every line."""
    return structlog.get_logger(**bound)


def lost(count: int, reason: str, **bound: Any) -> str:
    """The line that says how many were lost; it has every level."""
    logger = _made["logger"].bind(**{key: value for key, value in bound.items() if value})
    return f"{logger.warning('log lines were lost', count=count, reason=reason)}\n"


class Channel:
    """Log lines of a stage's process, or of the fork server: one message each to the supervisor.

    What does not go at once is lost, and told of with the next line that goes.
    """

    def __init__(self, fd: int = 2, **bound: Any) -> None:
        self._fd, self._bound = fd, bound
        self._lost, self._reason = 0, ""

    def forked(self, **bound: Any) -> None:
        """This process is another one now: what was lost before was its parent's."""
        self._bound, self._lost = bound, 0

    def write(self, text: str) -> None:
        """Send a line, or count it."""
        if self._lost and self._send(lost(self._lost, self._reason, **self._bound)):
            self._lost = 0
        if self._lost or not self._send(text):
            self._lost += 1

    def flush(self) -> None:
        """`write` has done it."""

    def _send(self, text: str) -> bool:
        data = text.encode("utf-8", "backslashreplace")
        if len(data) > LONGEST:
            data = data[: LONGEST - 4] + b"...\n"
        try:
            os.write(self._fd, data)  # our own socket, and not a blocking one
        except BlockingIOError:
            self._reason = "they came faster than they could be taken"
            return False
        except OSError as error:
            self._reason = error.strerror or str(error)
            return False
        return True

    def close(self) -> None:
        """Tell what was lost, if that can be done soon."""
        if self._lost:
            ready = select.poll()
            ready.register(self._fd, select.POLLOUT)
            ready.poll(_LAST_MS)
            self._send(lost(self._lost, self._reason, **self._bound))
