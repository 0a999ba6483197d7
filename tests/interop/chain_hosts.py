"""The processes of a chain: a QEMU or a pipeline of ours for each `Host`, connected and ready.

``with running(chain) as links`` gives a connected `tools.qemu.Link` for each end of the chain.  Everything is
gone when the block ends; a pipeline of ours must then end with status 0 and with books that balance.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline import control
from pipeline.config import load
from pipeline.graph import plan
from pipeline.summary import summarise
from tests.interop.chain_plan import COMPARE, ENDS, LINKS, QUEUES, SERVERS, Chain, Host, filter_type
from tests.pipeline.running import TIMELESS
from tools import qemu

ROOT: Final = Path(__file__).resolve().parents[2]
PATIENCE_S: Final = 120.0
COMPILE_S: Final = 600.0  # a cold cache on a busy machine
TIMEOUT_MS: Final = 600_000  # compare_timeout: no packet of a slow machine is ever too old
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)
_serial = itertools.count()


def until(condition: Any, what: str, patience_s: float = PATIENCE_S) -> Any:
    """Wait for a condition; its value."""
    limit = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < limit, f"never: {what}"
        time.sleep(0.02)
    return value


@dataclass
class Addresses:
    """Where each link of a chain is: a file, or a port of 127.0.0.1 that is kept for us by a bound socket."""

    folder: Path
    tcp: bool
    stack: contextlib.ExitStack
    _ports: dict[str, int] = field(default_factory=dict)

    def path(self, link: str) -> str:
        """The unix socket of a link."""
        return str(self.folder / link)

    def port(self, link: str) -> int:
        """The TCP port of a link.

        A socket that is bound to it and never listens keeps it from everybody who asks for any free port; with
        SO_REUSEADDR on both, the server can still listen there (socket(7)).
        """
        if link not in self._ports:
            keeper = self.stack.enter_context(socket.socket())
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            keeper.bind(("127.0.0.1", 0))
            self._ports[link] = keeper.getsockname()[1]
        return self._ports[link]

    def connect(self, link: str) -> socket.socket:
        """Connect as soon as somebody listens."""

        def once() -> socket.socket | None:
            sock = socket.socket(socket.AF_INET if self.tcp else socket.AF_UNIX)
            if sock.connect_ex(("127.0.0.1", self.port(link)) if self.tcp else self.path(link)) == 0:
                return sock
            sock.close()
            return None

        sock: socket.socket = self.stack.enter_context(until(once, f"{link} accepts"))
        if self.tcp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock


class QemuHost:
    """A QEMU with the host's parts."""

    def __init__(self, host: Host, chain: Chain, at: Addresses, stack: contextlib.ExitStack) -> None:
        self.host, self._chain, self._at = host, chain, at
        self._log = stack.enter_context((at.folder / f"{host.name}.log").open("wb+"))
        self.process, self._qmp = qemu.start(self._arguments(), at.folder / f"{host.name}.qmp", self._log)
        stack.callback(self._end)
        stack.callback(self._qmp.close)

    def _arguments(self) -> list[str]:
        words, host, vnet = [], self.host, ",vnet_hdr_support=on" if self._chain.vnet else ""
        for i, (name, link) in enumerate((("net", host.network), ("guest", host.guest))):
            if link:
                where = f"inet,addr.host=127.0.0.1,addr.port={self._at.port(link)}" if self._at.tcp else ""
                where = where or f"unix,addr.path={self._at.path(link)}"
                words += ["-netdev", f"stream,id={name},server=on,addr.type={where}"]
                words += ["-netdev", f"hubport,id=h{i},hubid=0,netdev={name}"]
        for dev, link, _ in host.chardevs():
            where = f"host=127.0.0.1,port={self._at.port(link)},nodelay=on" if self._at.tcp else ""
            where = where or f"path={self._at.path(link)}"
            role = "server=on,wait=off" if dev in SERVERS else "reconnect=1"
            words += ["-chardev", f"socket,id={dev},{where},{role}"]
        for part in host.filters:
            ports = "".join(f",{key}={dev}" for key, dev, _ in LINKS[part])
            words += ["-object", f"{filter_type(part)},id={part},netdev=net,queue={QUEUES[part]}{ports}{vnet}"]
        if host.compare:
            ports = "".join(f",{key}={dev}" for key, dev, _ in LINKS[COMPARE])
            words += ["-object", "iothread,id=io0"]
            words += ["-object", f"colo-compare,id=comp0,iothread=io0,compare_timeout={TIMEOUT_MS}{ports}{vnet}"]
        return words

    def check(self) -> None:
        """Raise where it has left."""
        qemu.check(self.process, self._log)

    def listening(self) -> None:
        """Nothing to wait for: QEMU's servers listen before its monitor answers."""
        self.check()

    def connected(self) -> bool:
        """Whether every socket of it has its peer, accepted."""
        self.check()
        away = [c for c in self._qmp.run("query-chardev") if c["filename"].startswith("disconnected")]
        # Not by its events: a peer that was there before our monitor was is in none of them.
        netdevs = self._qmp.run("human-monitor-command", **{"command-line": "info network"})
        peers = [line.partition("type=stream,")[2].strip() for line in netdevs.splitlines() if "type=stream," in line]
        return not away and all(peers)

    def begin(self) -> None:
        """Everybody is connected."""

    def audit(self) -> None:
        """QEMU keeps no books."""
        self.check()

    def finish(self) -> None:
        """A QEMU is ended from outside."""

    def _end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class OurHost:
    """A pipeline of ours with the host's parts."""

    def __init__(self, host: Host, chain: Chain, at: Addresses, stack: contextlib.ExitStack) -> None:
        self.host, self._chain, self._at = host, chain, at
        self.name = f"mix-{os.getpid()}-{next(_serial)}"
        self._config = at.folder / f"{host.name}.toml"
        self._config.write_text(self._text())
        self._log = at.folder / f"{host.name}.log"
        self._before = 0
        log = stack.enter_context(self._log.open("wb"))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.supervisor", str(self._config), "--log-format", "json"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            preexec_fn=lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),  # noqa: PLW1509  it only calls prctl
        )
        stack.callback(self._end)

    def _text(self) -> str:
        """config.toml."""
        host, rings = self.host, self._inside()
        head: dict[str, Any] = {"name": self.name, "runtime_dir": str(self._at.folder), "ring_size": "256KiB"}
        tables: dict[str, dict[str, Any]] = {"pipeline": head, "supervisor": dict(TIMELESS)}
        for dev, link, _ in host.chardevs():
            if link in rings:
                tables[f"chardev.{link}"] = {"backend": "ring"}
            else:
                tables[f"chardev.{dev}"] = {"backend": "socket", **self._where(link, dev in SERVERS)}
        if host.filters:
            sides = {"network": host.network, "guest": host.guest}
            tables["netdev.hn0"] = {
                side: {"backend": "stream", **self._where(link, link in ENDS)} for side, link in sides.items()
            }
            # No failover is announced here: each part must do what QEMU's does.
            tables["netdev.hn0"]["before_failover"] = "pass"
        vnet = {"vnet_hdr_support": True} if self._chain.vnet else {}
        for part in host.parts:
            ports = {key: link if link in rings else dev for key, dev, link in LINKS[part]}
            if part == COMPARE:
                patience = {"compare_timeout": TIMEOUT_MS, "checkpoint_overdue": "wait"}
                tables["compare.comp0"] = {**ports, **vnet, **patience}
            else:
                kind = {"type": filter_type(part), "netdev": "hn0", "queue": QUEUES[part]}
                tables[f"filter.{part}"] = {**kind, **ports, **vnet}
        return "".join(f"[{name}]\n{_lines(table)}\n" for name, table in tables.items())

    def _inside(self) -> set[str]:
        """Links with both ends in this process: rings."""
        links = [link for _, link, _ in self.host.chardevs()]
        return {link for link in links if links.count(link) == 2}

    def _where(self, link: str, server: bool) -> dict[str, Any]:
        at = {"host": "127.0.0.1", "port": self._at.port(link)} if self._at.tcp else {"path": self._at.path(link)}
        return {**at, "server": True} if server else {**at, "reconnect": 0.1}

    def check(self) -> None:
        """Raise where it has left."""
        assert self.process.poll() is None, f"{self.host}: ended: {self._log.read_text()}"

    def _status(self) -> dict[str, Any]:
        self.check()
        try:
            return control.ask(str(self._at.folder / f"{self.name}.sock"), "status")
        except (OSError, EOFError):
            return {}

    def listening(self) -> None:
        """Wait until every stage is ready."""
        until(lambda: self._status().get("state") == "RUNNING", f"{self.host} is ready", COMPILE_S)

    def connected(self) -> bool:
        """Whether every socket of it has its peer."""
        return all(ring["connected"] for ring in self._status()["rings"])

    def begin(self) -> None:
        """Everybody is connected.  What came before is no matter: a QEMU that never answers is replaced by another."""
        self._before = len(self._events())

    def _events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def audit(self) -> None:
        """The books balance, and no link was lost since all were there."""
        status = self._status()
        assert summarise(plan(load(self._config)), status).wrong == (), self.host
        bad = [
            e
            for e in self._events()[self._before :]
            if e["level"] == "error" or e["event"] in ("disconnected", "this cannot be the right peer")
        ]
        assert bad == [], self.host

    def finish(self) -> None:
        """A signal drains it."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0, self._log.read_text()

    def _end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for path in Path("/dev/shm").glob(f"{self.name}.*"):
            path.unlink()


def _lines(table: Mapping[str, Any]) -> str:
    """A TOML table's keys; a nested table stands inline."""

    def value(v: Any) -> str:
        inline = isinstance(v, dict)
        return "{ " + ", ".join(f"{k} = {value(w)}" for k, w in v.items()) + " }" if inline else json.dumps(v)

    return "".join(f"{key} = {value(v)}\n" for key, v in table.items())


@contextlib.contextmanager
def running(chain: Chain) -> Iterator[dict[str, qemu.Link]]:
    """A chain whose every socket is connected; a link for each of `ENDS`.  What fails inside gets the logs as notes."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mix-")))  # short: 107 bytes for a socket
        try:
            at = Addresses(folder, chain.tcp, stack)
            hosts: list[OurHost | QemuHost] = [OurHost(h, chain, at, stack) for h in chain.hosts() if h.ours]
            for our in hosts:
                our.listening()
            hosts += [QemuHost(h, chain, at, stack) for h in chain.hosts() if not h.ours]
            links = {end: qemu.Link(end, at.connect(end)) for end in ENDS}
            for host in hosts:
                until(host.connected, f"{host.host} is connected")
            for host in hosts:
                host.begin()
            yield links
            for host in hosts:
                host.audit()
            for host in hosts:
                host.finish()
        except BaseException as problem:
            for log in sorted(folder.glob("*.log")):
                problem.add_note(f"{chain}: {log.name}:\n{log.read_text(errors='replace')[-4000:]}")
            raise
