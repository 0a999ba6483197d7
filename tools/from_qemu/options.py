"""The words of a QEMU command line as options, and an option's value as keys: QEMU's own syntax, or its JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tools.from_qemu.words import Trouble, Word, show

# Options of QEMU 2.8 to 10 that take no value; any other takes the word behind it.
# fmt: off
_BARE: Final = frozenset({
    "h", "help", "version", "S", "s", "snapshot", "usb", "nographic", "portrait", "full-screen", "curses", "sdl",
    "alt-grab", "ctrl-grab", "no-quit", "no-frame", "show-cursor", "win2k-hack", "no-fd-bootchk", "no-acpi",
    "no-hpet", "rtc-td-hack", "singlestep", "one-insn-per-tb", "preconfig", "enable-kvm", "no-kvm",
    "no-kvm-irqchip", "no-kvm-pit", "enable-fips", "xen-create", "xen-attach", "xen-domid-restrict", "no-reboot",
    "no-shutdown", "daemonize", "only-migratable", "nodefaults", "nodefconfig", "no-user-config", "nouserconfig",
    "enable-sync-profile", "semihosting", "old-param", "mem-prealloc", "localtime", "tdf", "audio-help",
})
# fmt: on
_IMPLIED: Final[Mapping[str, str]] = {
    "chardev": "backend",
    "netdev": "type",
    "nic": "type",
    "object": "qom-type",
    "device": "driver",
    "name": "guest",
}  # fmt: skip
_MOST_JOINED: Final = 32
_TYPO: Final[Mapping[tuple[str, str], str]] = {("down", "script"): "downscript"}


@dataclass(frozen=True)
class Option:
    """One option with its value, or (``name`` is empty) a word that belongs to none."""

    name: str
    word: Word
    value: Word | None = None
    mended: str = ""

    @property
    def place(self) -> str:
        """Where it stands, and what it is: ``line 7, -chardev``."""
        return f"{self.word.place}, -{self.name}" if self.name else self.word.place


def options(words: Sequence[Word]) -> Iterator[Option]:
    """The options in their order; a value that a blank has cut apart by mistake is joined, and ``mended`` says so.

    Raises `Trouble` where an option that matters here has no value.
    """
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        m = re.fullmatch(r"--?([A-Za-z][\w.-]*)(=.*)?", word.value, re.DOTALL)
        if not m:
            yield Option("", word)
            continue
        name = m[1]
        if m[2] and name in _IMPLIED:
            raise Trouble(word.place, f"{show(word.value)}, which QEMU does not take", f"write -{name} {m[2][1:]}")
        if m[2] or name in _BARE or at == len(words):
            if name in _IMPLIED:
                raise Trouble(word.place, f"-{name} without a value", "give its value, or leave it out")
            yield Option(name, word)
            continue
        value, mended = words[at], ""
        at += 1
        if name in _IMPLIED and re.fullmatch(r"--?[A-Za-z][\w-]*", value.value):
            raise Trouble(word.place, f"-{name} without a value before {show(value.value)}", "give its value")
        end = at + _MOST_JOINED
        while name in _IMPLIED and at < min(len(words), end):
            joined = _joined(value.value, words[at].value)
            if joined is None:
                break
            mended = (
                f"{show(value.value[-20:])} and {show(words[at].value[:30])} are taken for one value without a blank"
            )
            value = Word(joined, Word.made(joined).raw, value.place, value.unknown + words[at].unknown)
            at += 1
        yield Option(name, word, value, mended)


def _joined(value: str, following: str) -> str | None:
    if following.startswith("-") or "=" not in following or value.startswith("{"):
        return None
    last, key = value.rpartition(",")[2], following.partition("=")[0]
    return value + following if value.endswith(",") or (last, key) in _TYPO else None


def keys(option: Option) -> dict[str, str]:
    """The value's keys: ``server`` alone is server=on, ``nowait`` is wait=off, a key within JSON is ``addr.path``.

    Raises `Trouble` for JSON that is none.
    """
    assert option.value is not None
    text = option.value.value
    if text.startswith("{"):
        return _json(option, text)
    found: dict[str, str] = {}
    for n, (key, value) in enumerate(_pieces(text)):
        if value is not None:
            found[key] = value
        elif n == 0 and option.name in _IMPLIED:
            found[_IMPLIED[option.name]] = key
        elif key.startswith("no") and key not in ("node-name",):
            found[key[2:]] = "off"
        elif key:
            found[key] = "on"
    return found


def _pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """``a=1,b,c=2``; two commas within a value are one."""
    at = 0
    while at < len(text):
        m = re.compile(r"([^=,]*)(?:=((?:[^,]|,,)*))?").match(text, at)
        assert m is not None
        yield m[1], None if m[2] is None else m[2].replace(",,", ",")
        at = m.end() + 1


def _json(option: Option, text: str) -> dict[str, str]:
    mend = "write it as QEMU's JSON: double quotes, one object"
    found: dict[str, str] = {}
    try:
        _flat(json.loads(text if '"' in text else text.replace("'", '"')), "", found)
    except (ValueError, RecursionError) as error:
        what = getattr(error, "msg", "it is nested too deep")
        raise Trouble(option.place, f"JSON that does not parse ({what}): {show(text)}", mend) from None
    return found


def _flat(value: Mapping[str, Any], path: str, found: dict[str, str]) -> None:
    for key, inner in value.items():
        if isinstance(inner, dict):
            _flat(inner, f"{path}{key}.", found)
        elif isinstance(inner, bool):
            found[path + key] = "on" if inner else "off"
        else:
            found[path + key] = inner if isinstance(inner, str) else json.dumps(inner)
