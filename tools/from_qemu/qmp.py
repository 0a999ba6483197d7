"""A script of QMP commands, or of qmp-shell's, as the options of a QEMU command line that would make the same objects.

Answers, greetings and events between them are passed over.  What is no such command is kept as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tools.from_qemu.words import CommandLine, Trouble, Word, show

OTHER: Final = "qmp"
"""The option under which a command stands that makes nothing."""

_MAKES: Final[Mapping[str, str]] = {
    "object-add": "object",
    "chardev-add": "chardev",
    "netdev_add": "netdev",
    "netdev-add": "netdev",
    "device_add": "device",
}
_REMOVES: Final[Mapping[str, str]] = {
    "object-del": "object", "chardev-remove": "chardev", "netdev_del": "netdev", "device_del": "device",
}  # fmt: skip
_MONITOR: Final[Mapping[str, str]] = {
    "object_add": "object", "chardev-add": "chardev", "netdev_add": "netdev", "device_add": "device",
}  # fmt: skip  # commands of the human monitor; what is behind them is written as in a command line
_STARTS: Final = re.compile(
    r"\{\s*[\"'](?:execute|exec-oob|arguments|id|control|return|error|QMP|event|timestamp|data)[\"']\s*:"
)
_SHELL: Final = re.compile(r"^[ \t]*\((?:QEMU|qemu)\)[ \t]+([\w-]+)((?:[ \t]+\S.*)?)$", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """A command with its arguments, where it begins in the text, and how it was written."""

    name: str
    arguments: Mapping[str, Any]
    at: int
    raw: str


def command_line(text: str, place: Callable[[int], str]) -> CommandLine | None:
    """What the commands of a text would be as a command line; None where there are none that make something.

    ``place`` says where a line of the text stands.  Raises `Trouble` for a command that cannot be understood.
    """

    def at(offset: int) -> str:
        return place(text.count("\n", 0, offset) + 1)

    made: CommandLine | None = None
    options: list[tuple[str, str, Word]] = []  # option, id, value
    makes = False
    for command in sorted((*_objects(text, at), *_typed(text, at)), key=lambda command: command.at):
        where = at(command.at)
        made = made or CommandLine(where, form="qmp")
        name, arguments = command.name, dict(command.arguments)
        gone = str(arguments.get("id", ""))
        if name in _REMOVES and any(option == _REMOVES[name] and known == gone for option, known, _ in options):
            options = [o for o in options if o[:2] != (_REMOVES[name], gone)]
            continue
        option, value = _MAKES.get(name, OTHER), ""
        if name == "human-monitor-command":
            option, value = _of_monitor(str(arguments.get("command-line", "")))
        elif option == OTHER:
            value = "{}"
        else:
            if option == "object" and isinstance(props := arguments.pop("props", None), dict):
                arguments |= props  # as before QEMU 6.0
            value = json.dumps(arguments)
        makes = makes or option != OTHER
        options.append((option, gone, Word(value, command.raw, where)))
    if made is None or not makes:
        return None
    for option, _, value_word in options:
        made.words += [Word(f"-{option}", "", value_word.place), value_word]
    return made


def rendered(words: list[str]) -> str:
    """A command of a new script: as it was written, or the netdev that takes the place of one."""
    text = words[-1]
    if text.lstrip().startswith(("{", "(")):
        return " ".join(text.split())
    arguments: dict[str, Any] = {}
    for n, (key, _, value) in enumerate(part.partition("=") for part in re.split(r"(?<!,),(?!,)", text.strip("'"))):
        if n == 0:
            arguments["type"] = key
            continue
        inner = arguments
        *path, last = key.split(".")
        for step in path:
            inner = inner.setdefault(step, {})
        plain = value.replace(",,", ",")
        inner[last] = plain == "on" if plain in ("on", "off") else int(plain) if last.startswith("reconnect") else plain
    return json.dumps({"execute": "netdev_add", "arguments": arguments})


def _of_monitor(line: str) -> tuple[str, str]:
    name, _, rest = line.strip().partition(" ")
    return (_MONITOR[name], rest.strip()) if name in _MONITOR else (OTHER, "{}")


def _objects(text: str, at: Callable[[int], str]) -> Iterator[Command]:
    """The commands among the JSON objects of a text."""
    start = 0
    while m := _STARTS.search(text, start):
        end = _end(text, m.start())
        piece = text[m.start() : end]
        start = end
        found: Any = None
        try:
            found = json.loads(piece if '"' in piece else piece.replace("'", '"'))
        except (ValueError, RecursionError) as error:
            if re.search(r"[\"'](?:execute|exec-oob)[\"']", piece):
                what = getattr(error, "msg", "it is nested too deep")
                mend = "write it as QMP: double quotes, one object a command"
                raise Trouble(at(m.start()), f"JSON that does not parse ({what}): {show(piece)}", mend) from None
        name = found.get("execute", found.get("exec-oob")) if isinstance(found, dict) else None
        if not isinstance(name, str):
            continue
        arguments = found.get("arguments", {})
        if not isinstance(arguments, dict):
            raise Trouble(at(m.start()), f"arguments of {name} that are no object", 'write "arguments": {...}')
        yield Command(name, arguments, m.start(), piece)


def _end(text: str, start: int) -> int:
    """Behind the brace that closes the one at ``start``; the text's end where none does."""
    depth, quote, at = 0, "", start
    while at < len(text):
        c = text[at]
        if quote:
            if c == "\\":
                at += 1
            elif c == quote:
                quote = ""
        elif c in "\"'":
            quote = c
        else:
            depth += (c == "{") - (c == "}")
            if depth == 0:
                return at + 1
        at += 1
    return len(text)


def _typed(text: str, at: Callable[[int], str]) -> Iterator[Command]:
    """What was typed at qmp-shell's prompt: ``(QEMU) object-add qom-type=... id=...``."""
    for m in _SHELL.finditer(text):
        arguments: dict[str, Any] = {}
        for word in re.findall(r"[^\s{]+=\{.*\}(?=\s|$)|\S+", m[2]):
            key, sign, value = word.partition("=")
            if not sign:
                raise Trouble(at(m.start()), f"{show(word)} at the prompt of qmp-shell", "write key=value")
            inner = arguments
            *path, last = key.split(".")
            for step in path:
                inner = inner.setdefault(step, {})
                if not isinstance(inner, dict):
                    raise Trouble(at(m.start()), f"{show(key)}, but {show(step)} has a value", "give one of them")
            inner[last] = _value(value, at(m.start()))
        yield Command(m[1], arguments, m.start(), m[0].strip())


def _value(text: str, place: str) -> Any:
    """A value at qmp-shell's prompt: JSON where it is some, else text."""
    if not text.startswith(("{", "[")):
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return json.loads(text if '"' in text else text.replace("'", '"'))
    except (ValueError, RecursionError):
        raise Trouble(place, f"JSON that does not parse: {show(text)}", "write it without blanks") from None
