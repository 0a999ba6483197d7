"""The QEMU command lines of a text, whatever it is: one for a shell, a domain of libvirt, a script of QMP commands."""

from __future__ import annotations

from collections.abc import Mapping

from tools.from_qemu import domain, mending, qmp
from tools.from_qemu.convert import colo_objects
from tools.from_qemu.words import CommandLine, Trouble, split


def command_lines(text: str, given: Mapping[str, str]) -> list[CommandLine]:
    """Every command line of a text, with what was mended to read it; ``given`` are values of variables.

    Raises `Trouble`.
    """
    made = mending.mended(text)
    found = _found(made, given)
    for line in found:
        line.said += [("note", place, what) for place, what in mending.changes_within(made, line)]
    return found


def _found(made: mending.Mended, given: Mapping[str, str]) -> list[CommandLine]:
    domains = domain.command_lines(made.text, made.place) if domain.is_some(made.text) else []
    if any(map(colo_objects, domains)):
        return domains
    trouble: Trouble | None = None
    found = []
    try:
        found = split(made.text, given, made.numbers)
        if any(map(colo_objects, found)):
            return found
    except Trouble as error:  # what stands in JSON may look like a quote that is never closed
        trouble = error
    script = qmp.command_line(made.text, made.place)
    if script is not None:
        return [*found, script]
    if trouble is not None:
        raise trouble
    return found or domains
