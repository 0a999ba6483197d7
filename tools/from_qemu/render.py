"""The result as text: config.toml with its notes as comments, and QEMU's command line for a shell."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tools.from_qemu import domain, qmp
from tools.from_qemu.model import Converted, Note
from tools.from_qemu.words import CommandLine

TITLES: Final[Mapping[str, str]] = {"lost": "Not carried over", "do": "Left to you", "note": "To know"}
_WIDTH: Final = 116


def toml(result: Converted, source: str, qemu: str | None, line: CommandLine) -> str:
    """The config; ``qemu`` is the new command line (or its options alone), for a comment at the end, or None.

    ``line`` is the old one.
    """
    lines = [f"# {plain(source)}: the {result.side}'s side, by python -m tools.from_qemu"]
    for kind, title in TITLES.items():
        notes = [note for note in result.notes if note.kind == kind]
        if notes:
            lines += ["#", f"# {title}:", *(line for note in notes for line in _wrapped(note, "# - ", "#   "))]
    for path, table in result.tables.items():
        lines += ["", f"[{'.'.join(map(_key, path))}]"]
        lines += [f"{_key(key)} = {_value(value)}" for key, value in table.items()]
    if qemu is not None:
        lines += ["", f"# {_heading(line)}; start the pipeline first:", "#"]
        lines += [f"#   {plain(row)}".rstrip() for row in qemu.rstrip("\n").split("\n")]
    return "\n".join(lines) + "\n"


def command(line: CommandLine, options: Sequence[Sequence[str]]) -> str:
    """QEMU's command line as the old one was written: for a shell, an option a line; as XML, as QMP commands."""
    if line.form == "qmp":
        return "".join(f"{qmp.rendered(list(option))}\n" for option in options)
    if line.form == "xml":
        arguments = [domain.rendered([word for raw in option for word in shlex.split(raw)]) for option in options]
        return "\n".join(["<qemu:commandline>", *arguments, "</qemu:commandline>"]) + "\n"
    rows = [" ".join(option) for option in options]
    if line.after:
        rows.append(_redirection([word.raw for word in line.after]))
    if line.before:
        rows = [" ".join(word.raw for word in line.before), *(f"  {row}" for row in rows)]
    return " \\\n".join(rows) + "\n"


def _redirection(words: Sequence[str]) -> str:
    """What stands behind the options, with no blank where it would change the meaning: ``2>&1``."""
    text = ""
    for word in words:
        joined = text.endswith("&") or (word[0] in "<>" and text[-1:].isdigit())
        text += word if not text or joined else f" {word}"
    return text


def script(line: CommandLine, qemu: str, config: str | None) -> str:
    """QEMU's command line as a file: what it is and what is started before it stand at the top."""
    first = f": python -m pipeline.supervisor {shlex.quote(config)}" if config else ""
    head = f"{_heading(line)}; start the pipeline first{plain(first)}"
    if line.form == "qmp":
        return qemu  # JSON has no comments
    return f"<!-- {head.replace('--', '- -')} -->\n{qemu}" if line.form == "xml" else f"# {head}\n{qemu}"


def _heading(line: CommandLine) -> str:
    if line.form == "qmp":
        return "QMP commands for QEMU from now on"
    if line.form == "xml":
        return "What stands in the domain's XML from now on, in the place of its own <qemu:commandline>"
    if line.before:
        return "QEMU's command line from now on"
    return "Options only, for behind the name of QEMU's program, which the text did not have"


def told(notes: Iterable[Note], width: int = _WIDTH) -> str:
    """The notes for a terminal ``width`` columns wide."""
    kept = list(notes)
    lines: list[str] = []
    for kind, title in TITLES.items():
        mine = [note for note in kept if note.kind == kind]
        if mine:
            lines += [f"{title}:", *(line for note in mine for line in _wrapped(note, "  - ", "    ", width))]
    return "\n".join(lines) + "\n" if lines else ""


def _wrapped(note: Note, first: str, following: str, width: int = _WIDTH) -> list[str]:
    return textwrap.wrap(
        plain(str(note)), max(30, min(width, _WIDTH)), initial_indent=first, subsequent_indent=following,
        break_long_words=False, break_on_hyphens=False,
    ) or [first]  # fmt: skip


def plain(text: str) -> str:
    """Text for one line of a comment: TOML allows no control characters there."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    return str(value)
