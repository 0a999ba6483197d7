"""`python -m tools.from_qemu`: a QEMU command line becomes a config.toml.

Exit status: 0 converted; 1 converted, but something that matters could not be carried over; 2 nothing was written.
"""

from __future__ import annotations

import argparse
import codecs
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import ConfigError, Mistake, parse
from pipeline.stdout import hush
from pipeline.streams import complain
from pipeline.text import mend, wide_encoding
from tools.from_qemu import mending, render
from tools.from_qemu.convert import colo_objects, convert, side_of
from tools.from_qemu.model import Asked, Converted
from tools.from_qemu.properties import PARTS
from tools.from_qemu.sources import command_lines
from tools.from_qemu.words import CommandLine, Trouble, listed, show

_MOST = 1 << 18  # bytes of a text: a page about a command line has far less


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert, write, tell; the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    after = given[given.index("--") + 1 :] if "--" in given else None
    asked = _parser().parse_args(given if after is None else given[: given.index("--")])
    try:
        source, line, more = _input(asked, after)
        result = convert(line, more)
        qemu = render.command(line, result.qemu)
        text = render.toml(result, source, None if asked.qemu_out else qemu, line)
        _check(text, asked, result)
        _write(asked, text, render.script(line, qemu, asked.output))
    except Trouble as trouble:
        complain(f"from_qemu: {render.plain(str(trouble))}")
        return 2
    except BrokenPipeError:  # the reader (head, less) has seen enough
        hush()
        return 2
    _tell(asked, result, line)
    return 1 if any(note.kind == "lost" for note in result.notes) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.from_qemu",
        usage="%(prog)s [options] FILE | --pid PID | -- QEMU's own words",
        description="Make a config.toml of a QEMU command line with COLO's filters and compare.",
        epilog="status: 0 converted; 1 converted, but something that matters was not carried over; 2 nothing written",
    )
    parser.add_argument(
        "file",
        nargs="?",
        help="a text with the command line, libvirt's XML or QMP commands in it; - for standard input",
    )
    parser.add_argument("--pid", type=int, help="the command line of a running QEMU")
    parser.add_argument("-o", "--output", metavar="FILE", help="where the config goes (standard output)")
    parser.add_argument("--qemu-out", metavar="FILE", help="where QEMU's new command line goes (the config's end)")
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    parser.add_argument("--side", choices=("primary", "secondary"), help="whose command line it is, or which to take")
    parser.add_argument("--line", type=int, help="take the command line in which this line of FILE stands")
    parser.add_argument("--name", help="name of the pipeline (QEMU's -name)")
    parser.add_argument("--runtime", default="/run/colo", metavar="DIR", help="folder of sockets (/run/colo)")
    parser.add_argument("--define", action="append", default=[], metavar="NAME=VALUE", help="value of a shell variable")
    parser.add_argument("--replace-host", action="append", default=[], metavar="OLD=NEW", help="a host's address here")
    parser.add_argument("--tap", action="append", default=[], metavar="NETDEV=IFNAME", help="name of a TAP device")
    parser.add_argument("--qemu-listens", action="store_true", help="QEMU listens, the pipeline connects to it")
    parser.add_argument("--qemu-version", metavar="X.Y", help="what QEMU's new command line is for")
    return parser


def _pairs(words: Sequence[str], option: str, form: str) -> dict[str, str]:
    wrong = next((word for word in words if not word.partition("=")[0] or "=" not in word), None)
    if wrong is not None:
        raise Trouble(option, show(wrong), f"write it as {form}")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _input(asked: argparse.Namespace, after: Sequence[str] | None) -> tuple[str, CommandLine, Asked]:
    """Where the command line is from, the command line, and what is asked for."""
    if sum((asked.file is not None, asked.pid is not None, after is not None)) != 1:
        raise Trouble(
            "", "no input, or more than one", "give FILE (- for standard input), --pid PID, or -- and the words"
        )
    version = re.fullmatch(r"(\d{1,3})\.(\d{1,3})(?:\.\d+)?", asked.qemu_version or "0.0")
    if version is None:
        raise Trouble("--qemu-version", show(asked.qemu_version), "write it as 9.2")
    running: list[str] | None = []
    folder = None
    if asked.pid is not None:
        source, line = f"process {asked.pid}", _process(asked.pid)
        running, folder = _taps(asked.pid), _folder(asked.pid)
    elif after is not None:
        source, line = "the command line given", listed([mending.alike(word)[0] for word in after], "word")
        found = {what: n for n, word in reversed([*enumerate(after, 1)]) for what in mending.alike(word)[1]}
        line.said += [("note", f"word {n}", what) for what, n in found.items()]
    else:
        source = "standard input" if asked.file == "-" else asked.file
        text = _read(asked.file)
        line = _chosen(command_lines(text, _pairs(asked.define, "--define", "NAME=VALUE")), text, asked)
        mending.check(line, text)
        source += f", {line.place}"
    more = Asked(
        side=asked.side,
        name=asked.name,
        runtime=os.path.abspath(asked.runtime),
        hosts=_pairs(asked.replace_host, "--replace-host", "OLD=NEW"),
        taps=_pairs(asked.tap, "--tap", "NETDEV=IFNAME"),
        qemu=(int(version[1]), int(version[2])) if asked.qemu_version else None,
        listens=asked.qemu_listens,
        running=running or (),
        hidden=running is None,
        folder=folder,
        base=os.path.dirname(asked.output or ""),
    )
    return source, line, more


def _read(file: str) -> str:
    called = "standard input" if file == "-" else file
    try:
        data = sys.stdin.buffer.read(_MOST + 1) if file == "-" else _bytes(file)
    except FileNotFoundError as error:
        raise Trouble(called, error.strerror or "no file", "give a file that exists") from None
    except (OSError, ValueError) as error:
        raise Trouble(called, getattr(error, "strerror", None) or "no file", "give a file that can be read") from None
    if wide := wide_encoding(data):
        raise Trouble(called, f"a text in {wide}", f"give it in UTF-8: {mend(wide)}")
    try:  # before the size: what is too large is a disk's image more often than a page
        text = codecs.getincrementaldecoder("utf-8")().decode(data, final=len(data) <= _MOST)
        at = data.find(b"\0")
    except UnicodeDecodeError as error:
        at = error.start
    if at >= 0:
        number = data.count(b"\n", 0, at) + 1
        found = f"not a text: line {number} has the byte 0x{data[at]:02x}"
        raise Trouble(called, found, "give the command line as a text in UTF-8, or --pid PID of a QEMU that runs")
    if len(data) > _MOST:
        raise Trouble(called, f"more than {_MOST:,} bytes", "give the command line alone")
    return text


def _bytes(file: str) -> bytes:
    with open(file, "rb") as opened:
        return opened.read(_MOST + 1)


def _chosen(found: list[CommandLine], text: str, asked: argparse.Namespace) -> CommandLine:
    """The one command line of ``text`` that is meant."""
    kinds = {id(line): colo_objects(line) for line in found}
    usable = [line for line in found if kinds[id(line)]]
    if not usable:
        what = "a QEMU command line, but no filter and no colo-compare in it" if found else "no QEMU command line"
        if not found and (named := next((kind for kind in PARTS if kind in text), None)):
            how = "write the command line as for a shell, or give --pid PID of the QEMU that runs"
            raise Trouble("", f"{named} is named, but in no QEMU command line", how)
        raise Trouble("", what, "give a text with -object filter-... or -object colo-compare,...")
    if asked.line is not None:
        before = [line for line in usable if int(line.place.split()[1]) <= asked.line]
        usable = before[-1:] or usable[:1]
    elif asked.side is not None and len(usable) > 1:
        usable = [line for line in usable if side_of(kinds[id(line)]) == asked.side] or usable
    if len(usable) > 1:
        places = ", ".join(f"{line.place} ({side_of(kinds[id(line)])})" for line in usable)
        which = "--line N" if asked.side else "--side, or --line N"
        raise Trouble("", f"{len(usable)} command lines: {places}", f"say which: {which}")
    return usable[0]


def _process(pid: int) -> CommandLine:
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError as error:
        raise Trouble(
            f"process {pid}", error.strerror or "not to be read", "give a process that runs, and may be read"
        ) from None
    words = data.rstrip(b"\0").split(b"\0") if data else []
    if not words:
        raise Trouble(f"process {pid}", "no command line (it has ended, or is the kernel's)", "give a QEMU that runs")
    try:
        line = listed([word.decode() for word in words], f"process {pid}, word")
    except UnicodeDecodeError as error:
        raise Trouble(f"process {pid}", f"the byte 0x{error.object[error.start]:02x}", "words in UTF-8") from None
    if not colo_objects(line):
        program = os.path.basename(words[0].decode())
        raise Trouble(
            f"process {pid}",
            f"it is {show(program)[1:-1]}, without a filter or colo-compare",
            "give a QEMU that has some",
        )
    return line


def _taps(pid: int) -> list[str] | None:
    """The TAP devices that a process has open, in the order of its descriptors: proc(5), fdinfo, ``iff``.

    None where that is not for us to see.
    """
    names: list[str] = []
    try:
        for file in sorted(Path(f"/proc/{pid}/fdinfo").iterdir(), key=lambda path: int(path.name)):
            m = re.search(r"^iff:\s*(\S+)", file.read_text(), re.MULTILINE)
            if m and m[1] not in names:
                names.append(m[1])
    except PermissionError:
        return None
    except OSError:
        return []
    return names


def _folder(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None


def _check(text: str, asked: argparse.Namespace, result: Converted) -> None:
    """What comes out must be right as a config; what is wrong in it was wrong in QEMU's command line."""
    try:
        parse(text, asked.output or "config.toml")
    except ConfigError as error:
        own = [_own(mistake, asked) for mistake in error.mistakes]
        found = "; ".join(_mistake(mistake, result, ours) for mistake, ours in zip(error.mistakes, own, strict=True))
        raise Trouble("", found, "mend that" if all(own) else "mend that in QEMU's command line") from None


def _own(mistake: Mistake, asked: argparse.Namespace) -> str:
    """Which option of ours a mistake is from; none: it was in QEMU's command line."""
    table, _, name = mistake.path.partition(".")
    if mistake.path == "pipeline.name":
        return "--name"
    if table == "pipeline" or mistake.path.endswith(".guest.path"):
        return "--runtime"
    netdev = name.removesuffix(".network.ifname")
    return "--tap" if netdev != name and netdev in _pairs(asked.tap, "--tap", "NETDEV=IFNAME") else ""


def _mistake(mistake: Mistake, result: Converted, own: str) -> str:
    """A mistake with the option that it is from, not the config's key, which nobody has seen yet."""
    if own:
        return f"{own}: found {mistake.found}; expected {mistake.expected}"
    for table, place in result.places.items():
        own = ".".join(table)
        if mistake.path == own or mistake.path.startswith(f"{own}."):
            key = mistake.path[len(own) + 1 :].removeprefix("network.")
            return f"{place}: {key + ': ' if key else ''}found {mistake.found}; expected {mistake.expected}"
    return str(mistake)


def _write(asked: argparse.Namespace, text: str, qemu: str) -> None:
    wanted = [(asked.output or "-", text)] + ([(asked.qemu_out, qemu)] if asked.qemu_out else [])
    if asked.output and asked.output == asked.qemu_out:
        raise Trouble(asked.output, "one file for both", "another name for --qemu-out")
    for path, _ in wanted:
        if path != "-" and os.path.lexists(path) and not asked.force:
            raise Trouble(path, "a file that is there", "another name, or --force to overwrite it")
        folder = os.path.dirname(path) or "."
        if path != "-" and (os.path.isdir(path) or not os.path.isdir(folder)):  # before anything is written
            found = "a folder" if os.path.isdir(path) else f"no folder {show(folder)}"
            raise Trouble(path, found, "give a file to write to")
    for path, content in wanted:
        try:
            if path == "-":
                print(content, end="", flush=True)
            else:
                Path(path).write_text(content)
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:
            if path == "-":
                hush()
            called = "standard output" if path == "-" else path
            raise Trouble(called, getattr(error, "strerror", None) or str(error), "give a file to write to") from None


def _tell(asked: argparse.Namespace, result: Converted, line: CommandLine) -> None:
    columns = [os.get_terminal_size(sys.stderr.fileno()).columns] if sys.stderr.isatty() else []
    complain(render.told(result.notes, *columns), end="")
    if asked.pid is not None:
        complain(f"Process {asked.pid} still has its sockets and devices: end it before the pipeline starts.")
    if asked.output:
        complain(f"Look at it: python -m pipeline.graph {asked.output}")
        complain(f"Start it:   python -m pipeline.supervisor {asked.output}")
    if asked.qemu_out:
        file = shlex.quote(asked.qemu_out)
        then = f"sh {file}" if line.before else f"your QEMU with the options of {file} (the text names no program)"
        if line.form == "qmp":
            then = f"the commands of {file}, where the old ones were given"
        elif line.form == "xml":
            then = f"{file} in the place of the domain's <qemu:commandline> (virsh edit), then start the domain"
        complain(f"Then QEMU:  {then}")


if __name__ == "__main__":
    sys.exit(main())
