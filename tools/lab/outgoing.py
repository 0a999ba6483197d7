"""Connections that the guest opens: `python -m tools.lab.outgoing`, as the server outside and as both replicas.

Both replicas visit the same server from the same source ports at about the same time, as a service does that asks
another one.  Each chooses its own initial sequence number and clock; the server sees one visitor.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.lab import host
from tools.lab.scene import ADDRESS, CLIENT, REPLICAS, REPOSITORY, Scene

PORT = 9000
FIRST_SOURCE_PORT = 50_001
PATIENCE = 60.0
VISITS = 5


def content(side: str, visit: int, size: int) -> bytes:
    """What a side sends in a visit: ``size`` bytes, the same in every run."""
    return random.Random(f"{side} {visit}").randbytes(size)


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def _read_all(connection: socket.socket) -> bytes:
    data = bytearray()
    while piece := connection.recv(1 << 16):
        data += piece
    return bytes(data)


def serve(address: str, visits: int, size: int) -> None:
    """Take visits one after the other: read to the end, answer, close.  A line for each: source port and digest."""
    with socket.create_server((address, PORT)) as listener:
        print(json.dumps({"listening": PORT}), flush=True)
        for number in range(visits):
            connection, peer = listener.accept()
            with connection:
                connection.settimeout(PATIENCE)
                got = digest(_read_all(connection))
                connection.sendall(content("server", number, size))
            print(json.dumps({"port": peer[1], "got": got}), flush=True)


def visit(address: str, server: str, visits: int, size: int) -> None:
    """Visit the server; a line for each: source port and digest of what it answered."""
    for number in range(visits):
        with socket.create_connection((server, PORT), PATIENCE, (address, FIRST_SOURCE_PORT + number)) as connection:
            connection.settimeout(PATIENCE)
            connection.sendall(content("guest", number, size))
            connection.shutdown(socket.SHUT_WR)
            print(json.dumps({"port": connection.getsockname()[1], "got": digest(_read_all(connection))}), flush=True)


@dataclass(frozen=True)
class Seen:
    """What a side saw: a digest by source port, or why it did not."""

    digests: dict[int, str]
    trouble: str = ""


class Outgoing:
    """Runs the server in the client's namespace and a visitor in each replica's."""

    def __init__(self, scene: Scene, size: int, visits: int = VISITS) -> None:
        self._scene = scene
        self._numbers = [str(visits), str(size)]
        self.expected = {
            side: {FIRST_SOURCE_PORT + i: digest(content(side, i, size)) for i in range(visits)}
            for side in ("guest", "server")
        }

    def run(self) -> dict[str, Seen]:
        """All visits; what each role saw.  LabError where the server does not start."""
        server = self._start(CLIENT, "serve", ADDRESS[CLIENT])
        host.wait_until(lambda: self._lines(CLIENT) or server.poll() is not None, 60, "the server outside to listen")
        running = {role: self._start(role, "visit", ADDRESS[role], ADDRESS[CLIENT]) for role in REPLICAS}
        return {role: self._end(role, process) for role, process in {**running, CLIENT: server}.items()}

    def _file(self, role: str) -> Path:
        return self._scene.directory / f"outgoing-{role}.log"

    def _start(self, role: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tools.lab.outgoing", *words, *self._numbers]
        return self._scene.spawn(self._scene.inside(role, *command), self._file(role), {"PYTHONPATH": str(REPOSITORY)})

    def _lines(self, role: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file(role).read_text().splitlines() if line.startswith("{")]

    def _end(self, role: str, process: subprocess.Popen[bytes]) -> Seen:
        try:
            code = process.wait(PATIENCE + 10)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        seen = {line["port"]: line["got"] for line in self._lines(role) if "got" in line}
        last = (self._file(role).read_text().strip().splitlines() or [""])[-1]
        return Seen(seen, f"the {role} ended with {code}: {last}" if code else "")


def main(argv: Sequence[str] | None = None) -> int:
    """One side."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.outgoing", description="one side of the visits")
    sides = parser.add_subparsers(dest="side", required=True)
    for side in ("serve", "visit"):
        words = sides.add_parser(side)
        words.add_argument("address")
        if side == "visit":
            words.add_argument("server")
        words.add_argument("visits", type=int)
        words.add_argument("size", type=int)
    options = vars(parser.parse_args(argv))
    if options.pop("side") == "serve":
        serve(**options)
    else:
        visit(**options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
