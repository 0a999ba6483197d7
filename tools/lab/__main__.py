"""`sudo python -m tools.lab`: build the scene, drive it, report, and remove everything again.

Exit status: 0 all checks hold; 1 one does not, or the scene could not be made; 2 the command line, the config or the
machine is wrong; 128 + N stopped by signal N.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipeline.config import ConfigError, parse
from pipeline.streams import complain
from tools.lab import host, impair, render, scene, state, web
from tools.lab.proxy import Proxy
from tools.lab.report import Report
from tools.lab.scene import REPOSITORY
from tools.lab.session import Load, Session

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "KIB": 1 << 10, "MIB": 1 << 20}


def size(text: str) -> int:
    """A number of bytes: 500000, 500KB, 50MB."""
    found = re.fullmatch(r"(\d+)\s*([KM]?I?B?)", text.upper())
    if not found or found[2] not in _UNITS or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500KB or 50MB")
    return int(found[1]) * _UNITS[found[2]]


def percent(text: str) -> float:
    """A share of all frames: 1%, 0.5%; from 0 to 50 %, as a chance from 0 to 1."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%?", text.strip())
    if not found or float(found[1]) > 50:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage from 0 to 50, such as 1%")
    return float(found[1]) / 100


def milliseconds(text: str) -> float:
    """A time: 2ms, 0.5ms; at most 1000 ms, in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:ms)?", text.strip())
    if not found or float(found[1]) > 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time from 0 to 1000 ms, such as 2ms")
    return float(found[1]) / 1000


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--config", type=Path, default=REPOSITORY / "examples" / "lab.toml", help="pipeline config")
    parser.add_argument("--requests", type=positive, default=200, help="short requests in each of three series")
    parser.add_argument("--rate", type=positive, default=0, help="requests a second, one after the other (no limit)")
    parser.add_argument("--download", type=size, default=50_000_000, metavar="SIZE", help="large download (50MB)")
    parser.add_argument("--upload", type=size, default=2_000_000, metavar="SIZE", help="upload (2MB)")
    parser.add_argument("--kill", action="store_true", help="also kill -9 each compute stage during a download")
    wire = parser.add_argument_group("the client's wire, both ways")
    wire.add_argument("--loss", type=percent, default=0, metavar="SHARE", help="frames that are lost, such as 1%%")
    wire.add_argument("--reorder", type=percent, default=0, metavar="SHARE", help="frames that overtake the others")
    wire.add_argument("--delay", type=milliseconds, metavar="TIME", help="each way (2ms with --reorder, else none)")
    parser.add_argument("--replica-loss", type=percent, default=0, metavar="SHARE", help="of what each replica sends")
    parser.add_argument("--seed", type=positive, default=impair.SEED, help="of the dice for --loss and --reorder")
    parser.add_argument("--record", type=Path, metavar="DIR", help="write client, primary and secondary .pcapng there")
    parser.add_argument("--json", action="store_true", help="the report as JSON; progress goes to stderr")
    parser.add_argument("--keep", action="store_true", help="leave everything running for inspection")
    parser.add_argument("--remove", action="store_true", help="only remove what dead or kept labs left")
    options = parser.parse_args(argv)
    delay = options.delay if options.delay is not None else impair.DELAY if options.reorder else 0.0
    options.impairment = impair.Impairment(options.loss, options.reorder, delay, options.replica_loss, options.seed)
    if options.reorder and not delay:
        parser.error("--reorder needs a --delay: a frame overtakes those that wait")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the lab; the exit status."""
    options = arguments(argv)
    report = Report(sys.stderr if options.json else sys.stdout)
    try:
        host.require_root()
        if options.remove:
            gone = state.remove_leftovers()
            print(f"removed: {', '.join(gone)}" if gone else "nothing to remove")
            return 0
        host.require_programs()
        config = tomllib.loads(options.config.read_text("utf-8-sig"))
        if options.record:
            options.record = options.record.resolve()
            options.record.mkdir(parents=True, exist_ok=True)
        # A config that cannot serve fails before anything is made.
        parse(render.to_toml(render.render(config, render.PLACEHOLDER, Path("/run"), options.record)), options.config)
        render.compare_id(config)
    except (host.LabError, ConfigError, OSError, tomllib.TOMLDecodeError) as error:
        complain(f"lab: {error}")
        return 2
    signals, book = host.Signals(), state.new()
    try:
        with ExitStack() as stack:
            stack.callback(_clear, book, report)
            _run(options, config, report, book, signals)
            if options.keep:
                stack.pop_all()
                _explain_kept(book, report)
    except host.Stopped as stop:
        complain(f"lab: {stop}: everything is removed")
        return 128 + stop.number
    report.table()
    if options.json:
        report.print_json()
    return 0 if report.ok else 1


def _run(
    options: argparse.Namespace, config: dict[str, Any], report: Report, book: state.State, signals: host.Signals
) -> None:
    """Everything that a signal may interrupt; an error is a check that failed."""
    with signals.heard():
        try:
            _play(options, config, report, scene.Scene(book, signals))
        except host.LabError as error:
            report.check("the lab runs to its end", False, str(error))


def _play(options: argparse.Namespace, config: dict[str, Any], report: Report, set_up: scene.Scene) -> None:
    book = set_up.book
    report.step(f"Namespaces {', '.join(set_up.namespace(role) for role in scene.ROLES)}")
    set_up.build()
    if options.kill:
        # Seven stages within ten seconds, on purpose: no sign that something is wrong with them.
        config = {**config, "supervisor": {**config.get("supervisor", {}), "intensity": 20}}
    wires = impair.Wires(set_up, options.impairment)
    if options.impairment.roles:
        wires.start()
        report.check("wires between the hosts and the pipeline", True, str(options.impairment))
    proxy = Proxy(
        set_up, render.render(config, book.prefix, set_up.directory / "run", options.record, options.impairment.roles)
    )
    servers = web.Servers(set_up, options.download)
    servers.start()
    report.check("two nginx with the same content", True, f"{web.PAGE_COUNT} pages, one of {options.download:,} B")
    if not web.has_headers_more():
        report.step(f"  (apt-get install {web.HEADERS_MORE_PACKAGE} lets the replicas' Date never differ)")
    report.check("the pipeline is ready", True, f"{proxy.start()} stages")
    report.step("Requests")
    load = Load(options.requests, options.upload, options.rate, options.kill)
    Session(set_up, servers, proxy, report, load).run()
    if not options.keep:
        code = proxy.stop()
        report.check("the pipeline drains and ends with 0", code == 0, f"exit status {code}")
        _wires(wires.stop(), options.impairment.loss, report)
        left = state.segments(book.prefix)
        report.check("it leaves nothing in shared memory", not left, ", ".join(path.name for path in left)[:200])
        if options.record:
            _captures(options.record, report)


def _wires(done: Mapping[str, Mapping[str, Mapping[str, int]]], loss: float, report: Report) -> None:
    frames, lost = (sum(c[what] for c in done.get(scene.CLIENT, {}).values()) for what in ("frames", "lost"))
    if frames * loss > 20:  # else chance may have spared them all
        report.check("the client's wire lost frames, as asked", lost > 0, f"{lost:,} of {frames:,}")
    for role, ways in done.items():
        for way, counts in ways.items():
            if counts["lost"] or counts["early"]:
                report.figures[f"the {role}'s {way}"] = ", ".join(f"{value:,} {name}" for name, value in counts.items())


def _captures(record: Path, report: Report) -> None:
    for role in scene.ROLES:
        file = record / f"{role}.pcapng"
        length = file.stat().st_size if file.exists() else 0
        report.check(f"the {role}'s side is recorded", length > 0, f"{file}, {length:,} B")


def _clear(book: state.State, report: Report) -> None:
    state.remove(book)
    left = state.leftovers(book)
    report.check("everything is removed", not left, ", ".join(left)[:300])


def _explain_kept(book: state.State, report: Report) -> None:
    book.kept = True
    book.save()
    prefix, folder = book.prefix, book.directories[0] if book.directories else ""
    report.step(
        f"\nKept.  Files: {folder}\n"
        f"  ip netns exec {prefix}-client curl http://{scene.SERVER_ADDRESS}/host\n"
        f"  python -m pipeline.control --runtime-dir {folder}/run {prefix} status\n"
        f"  python -m tools.lab --remove"
    )


if __name__ == "__main__":
    sys.exit(main())
