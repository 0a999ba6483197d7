"""Logs: structlog to stderr, on state changes only, one line each.

Every process of a pipeline writes whole lines to the same stderr; a line is one write(2), so lines do not mix.
"""

from __future__ import annotations

import sys
from typing import Any, Final, TextIO, cast

import structlog

FORMATS: Final = ("auto", "console", "json")
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def resolve(form: str, stream: TextIO | None = None) -> str:
    """``console`` or ``json``: what ``auto`` means for a stream (a terminal or a pipe)."""
    if form != "auto":
        return form
    return "console" if (stream or sys.stderr).isatty() else "json"


class _Stderr:
    """``sys.stderr`` of the moment of writing: the live view puts a stand-in there, which writes above the picture."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure(form: str = "auto", level: str = "info", *, colors: bool | None = None, stream: Any = None) -> None:
    """Set up structlog for this process.  ``colors``: default, whether the stream is a terminal."""
    out = stream or sys.stderr
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if resolve(form, out) == "json":
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        processors.append(
            structlog.dev.ConsoleRenderer(
                colors=out.isatty() if colors is None else colors,
                pad_event_to=30,
                exception_formatter=structlog.dev.plain_traceback,
            )
        )
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(stream or cast(TextIO, _Stderr())),
        cache_logger_on_first_use=True,
    )


def get(**bound: Any) -> Any:
    """A logger with ``bound`` on every line."""
    return structlog.get_logger(**bound)
