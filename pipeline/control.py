"""Talk to a running pipeline: ``python -m pipeline.control [--runtime-dir DIR] NAME COMMAND``.

Exit status: 0 done; 1 refused or failed, or ``status`` of a pipeline that is not healthy; 2 an unknown pipeline, stage
or command (the known ones are listed).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import socket
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pipeline import messages
from pipeline.annexes import client
from pipeline.columns import columns
from pipeline.config import default_runtime_dir
from pipeline.known import Known, known, user
from pipeline.stdout import show
from pipeline.streams import complain
from stages import catalog

TIMEOUT_S: Final = 30.0

COMMANDS: Final = {
    "status": "health, stages, rings and counters (--json: all of them); exit status 1 where it is not healthy",
    "profile": "where the time goes: busy %%, frames/s, ns a frame, latency of each ring (--json)",
    "restart": "stop a stage's process and start it again",
    "stop": "stop a stage's process; without an ID: drain and stop the whole pipeline",
    "start": "start a stage's process that was stopped",
    "set": "set ID status=on|off: a filter that is off is transparent",
    "checkpoint": "say that a checkpoint was made: both guests are equal",
    "failover": "say that one host of the pair is gone: the other serves alone",
    "announce": "after a failover of a secondary: tell the network once more where its guest is",
}


class Unreachable(Exception):
    """No pipeline answers to that name; ``code`` is the exit status."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def ask(path: str, command: str, args: dict[str, Any] | None = None, timeout: float = TIMEOUT_S) -> dict[str, Any]:
    """One request and its reply.  Raises OSError, or EOFError where the other side went without a reply."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(path)
        sock.sendall(messages.pack({"command": command, "args": args or {}}))
        unpacker = messages.unpacker(strict_map_key=False, max_buffer_size=1 << 28)
        while data := sock.recv(1 << 16):
            unpacker.feed(data)
            for reply in unpacker:
                return dict(reply)
    raise EOFError("the supervisor closed the connection")


def find(name: str, runtime_dir: str | None) -> str:
    """Path of a pipeline's socket: where its segments say, else in a folder where it may be.  Raises `Unreachable`.

    Nothing but ``NAME.sock`` is touched: other sockets there are stages', for which whoever connects is a peer.
    """
    one = None if runtime_dir else known().get(name)
    said = one.control if one else ""
    folders = [runtime_dir] if runtime_dir else folders_to_try()
    for path in (*filter(None, [said]), *(f"{folder}/{name}.sock" for folder in folders)):
        try:
            there = os.lstat(path)
            if stat.S_ISSOCK(there.st_mode) and (path != said or one is None or there.st_uid == one.uid):
                return path
        except PermissionError:
            if runtime_dir:
                raise Unreachable(denied(name, path), 1) from None
        except OSError:
            continue
    raise unreachable(name, runtime_dir)


def denied(name: str, path: str) -> str:
    """Why a control socket may not be used: whose it is."""
    at = Path(path)
    owner = 0
    for place in (at, *at.parents):
        try:
            owner = place.lstat().st_uid
            break
        except OSError:
            continue
    whose = user(owner)
    return f"{name}: permission denied: {path} belongs to {whose}; run this as {whose} (sudo -u {whose} ...)"


def unreachable(name: str, runtime_dir: str | None, path: str = "") -> Unreachable:
    """Why nobody answers to ``name``; ``path``: a socket that is there, but nobody listens at it."""
    there = known()
    one = there.get(name)
    if one is None and path:
        return Unreachable(
            f"{name}: {path} is left of a supervisor that has died, and nothing else of it; "
            "start it again: python -m pipeline.supervisor CONFIG",
            1,
        )
    if one is not None and not one.readable:
        return Unreachable(
            f"{name}: permission denied: it is a pipeline of {one.user}; run this as {one.user} "
            f"(sudo -u {one.user} ...)",
            1,
        )
    if one is not None and one.alive:
        if runtime_dir and os.path.dirname(one.control) != os.path.abspath(runtime_dir):
            return Unreachable(f"{name}: it listens at {one.control}: leave --runtime-dir {runtime_dir} out", 2)
        return Unreachable(
            f"{name}: it runs (pid {one.pid}), but its control socket {path or one.control} does not answer; "
            "a socket that was removed is made again within a second",
            1,
        )
    if one is not None:
        config = shlex.quote(one.config) if one.config else "CONFIG"
        return Unreachable(
            f"{name}: its supervisor (pid {one.pid}) has died; {one.segments} segments of it are in /dev/shm. "
            f"To go on where it was: python -m pipeline.supervisor {config}; to begin anew: the same with --fresh",
            1,
        )
    folders = [runtime_dir] if runtime_dir else folders_to_try()
    return Unreachable(
        f"no pipeline {name!r} answers in {' or '.join(folders)}; known: "
        f"{', '.join(map(_describe, there.values())) or 'none'}"
        + ("" if runtime_dir else "; --runtime-dir names another folder"),
        2,
    )


def _describe(one: Known) -> str:
    if not one.readable:
        return f"{one.name} (of {one.user})"
    if not one.alive:
        return f"{one.name} (its supervisor has died)"
    return f"{one.name} (in {os.path.dirname(one.control)})" if one.control else one.name


def folders_to_try() -> list[str]:
    """Where pipelines of this user may listen that do not say where."""
    return list(dict.fromkeys([default_runtime_dir(), "/run/colo", f"/tmp/colo-{os.getuid()}"]))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words in columns, the first of them the heads."""
    return "\n".join(columns(rows[1:], heads=rows[0]))


def show_status(reply: dict[str, Any]) -> str:
    """``status`` for people."""
    stages = [["STAGE", "TYPE", "STATE", "PID", "EPOCH", "RESTARTS", "UPTIME", "CPU", "RSS"]]
    for s in reply["stages"]:
        memory = f"{s['rss_bytes'] / 2**20:.1f} MiB"
        figures = (f"{s['uptime_s']:.0f} s", f"{s['cpu_percent']:.1f} %", memory)
        stages.append(
            [s["id"], s["type"], s["state"], str(s["pid"] or "-"), str(s["epoch"]), str(s["restarts"]), *figures]
        )
    rings = [["RING", "TO", "SIZE", "USED", "FILL"]]
    for r in reply["rings"]:
        rings.append([r["id"], r["consumer"], str(r["size"]), str(r["used"]), f"{100 * r['used'] / r['size']:.1f} %"])
    counters = [["STAGE", "COUNTER", "VALUE"]]
    for stage, own in reply["counters"].items():
        counters += [[stage, name, str(value)] for name, value in own.items() if value]
    head = [f"{reply['name']}: {reply['state']}, {reply['health']}", *reply["reasons"]]
    return "\n\n".join(["\n".join(head), table(stages), table(rings), table(counters)])


def show_profile(reply: dict[str, Any]) -> str:
    """``profile`` for people."""

    def cell(value: Any) -> str:
        return "-" if value is None else f"{value:,}"

    stages = [["STAGE", "BUSY %", "FRAMES/S", "NS/FRAME", "FRAMES/BURST", "SLEEPS/S"]]
    for s in reply["stages"]:
        columns = ("busy_percent", "frames_s", "ns_frame", "frames_burst", "sleeps_s")
        stages.append([s["id"], *(cell(s[column]) for column in columns)])
    rings = [["RING", "SAMPLES", "P50 µs", "P99 µs"]]
    for r in reply["rings"]:
        rings.append([r["id"], str(r["samples"]), f"{r['p50_ns'] / 1000:.1f}", f"{r['p99_ns'] / 1000:.1f}"])
    return f"over the last {reply['seconds']:g} s\n{table(stages)}\n\nsince the start\n{table(rings)}"


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The command line, and the request's arguments."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.control", description="Talk to a running pipeline.")
    parser.add_argument("--runtime-dir", help="where its control socket is (default: where the supervisor puts it)")
    parser.add_argument("name", metavar="NAME", help="the pipeline's name")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text)
        if name in ("status", "profile"):
            sub.add_argument("--json", action="store_true")
        if name in ("restart", "start", "set"):
            sub.add_argument("id", help="a stage's id, or a process's name")
        if name == "stop":
            sub.add_argument("id", nargs="?", help="a stage's id, or a process's name; none: the pipeline")
        if name == "set":
            sub.add_argument("setting", metavar="status=on|off")
    annexes = {annex.table: client(annex) for _, annex in catalog.annexes()}
    for name, code in annexes.items():
        code.arguments(commands.add_parser(name, help=code.HELP))
    given = parser.parse_args(argv)
    args = {"id": given.id} if getattr(given, "id", None) is not None else {}
    if given.command == "set":
        key, _, value = given.setting.partition("=")
        if key != "status" or value not in ("on", "off"):
            parser.error(f"set takes status=on or status=off, not {given.setting!r}")
        args["status"] = value
    if given.command in annexes:
        args = annexes[given.command].request(parser, given)
    return given, args


def main(argv: list[str] | None = None) -> int:
    """The command-line program; its exit status."""
    given, args = parse(argv)
    try:
        reply = _ask(given.name, given.runtime_dir, given.command, args)
    except Unreachable as error:
        complain(str(error))
        return error.code
    except (OSError, EOFError) as error:
        complain(f"{given.name}: {error}")
        return 1
    if not reply.pop("ok", False):
        complain(f"{given.name}: {reply.get('error')}")
        return int(reply.get("code", 1))
    reply.pop("error", None)
    if "warning" in reply and not getattr(given, "json", False):
        complain(f"{given.name}: warning: {reply['warning']}")
    text = _text(given, reply)
    code = show("pipeline.control", lambda: print(text))
    return code or int(given.command == "status" and bool(reply["reasons"]))


def _ask(name: str, runtime_dir: str | None, command: str, args: dict[str, Any]) -> dict[str, Any]:
    path = find(name, runtime_dir)
    try:
        return ask(path, command, args)
    except PermissionError:
        raise Unreachable(denied(name, path), 1) from None
    except (ConnectionRefusedError, FileNotFoundError):
        raise unreachable(name, runtime_dir, path) from None


def _text(given: argparse.Namespace, reply: dict[str, Any]) -> str:
    if getattr(given, "json", False):
        return json.dumps(reply, ensure_ascii=False)
    if given.command == "status":
        return show_status(reply)
    if given.command == "profile":
        return show_profile(reply)
    for _, annex in catalog.annexes():
        if given.command == annex.table:
            shown = client(annex).listed(given, reply)
            return shown if isinstance(shown, str) else table(shown)
    return str(reply.get("text", "done"))


if __name__ == "__main__":
    sys.exit(main())
