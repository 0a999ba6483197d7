"""Filters of ours as a whole pipeline under its supervisor, and QEMU's, with the same sockets outside.

`piped` starts one with the netdev's sides and its chardevs as unix sockets; ``links`` are like those of `tools.qemu`.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.interop.filters_feed import patient
from tests.pipeline.running import Running, until
from tools import qemu

HEAD = """
[pipeline]
name = "{name}"
runtime_dir = "{folder}"
ring_size = "256KiB"
[supervisor]
{supervisor}
[netdev.hn0]
before_failover = "pass"
network = {{ backend = "stream", path = "{folder}/net", server = true }}
guest = {{ backend = "stream", path = "{folder}/guest", server = true }}
{more}
"""


def chardev(name: str, where: str = "", *, server: bool = True) -> str:
    """A socket chardev's table; ``where`` are its address keys (default: a unix socket of its name)."""
    address = where or f'path = "{{folder}}/{name}"'
    return f'[chardev.{name}]\nbackend = "socket"\n{address}\nserver = {str(server).lower()}\nreconnect = 0.05\n'


def filter_table(name: str, kind: str, **keys: str) -> str:
    """A filter's table."""
    return f'[filter.{name}]\ntype = "{kind}"\nnetdev = "hn0"\n' + "".join(f"{k} = {v}\n" for k, v in keys.items())


class Piped:
    """A running pipeline and one connected `qemu.Link` for each of its sockets."""

    def __init__(self, folder: Path, tables: Sequence[str], sockets: Mapping[str, bool]) -> None:
        self.run = Running(folder, more="", config=HEAD.replace("{more}", "".join(tables)))
        self.folder, self.sockets = folder, dict(sockets)
        self.links: dict[str, qemu.Link] = {}

    def __enter__(self) -> Self:
        self.run.start()
        try:
            self.run.running()
            for name in self.sockets:
                self.join(name)
        except BaseException as problem:
            self.__exit__(type(problem), problem, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for link in self.links.values():
            link.close()
        self.run.__exit__(kind, value, tb)

    def stage(self, name: str) -> str:
        """The stage behind a socket."""
        return {"net": "hn0.network", "guest": "hn0.guest"}.get(name, name)

    def counter(self, stage: str, name: str) -> int:
        """One counter of a stage."""
        return int(self.run.status()["counters"][stage][name])

    def join(self, name: str) -> None:
        """A peer comes to a socket; returns when it is connected."""
        self.links[name] = patient(qemu.connect(name, self.folder / name, vnet=self.sockets[name]))
        until(lambda: not self.run.stage(self.stage(name))["link"], f"{name} is connected")

    def drop(self, name: str) -> None:
        """The peer of a socket leaves; returns when that was noticed."""
        self.links.pop(name).close()
        until(lambda: self.run.stage(self.stage(name))["link"], f"{name} is gone")

    def lines(self, event: str) -> list[dict[str, object]]:
        """Log lines of an event."""
        return [line for line in self.run.events() if line["event"] == event]


def free_port() -> int:
    """A TCP port of the loopback that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def qemu_filters(objects: Sequence[str], chardevs: Mapping[str, str]) -> qemu.Qemu:
    """As `qemu.filters`, with any address for a chardev; their peers must be there, or come by themselves."""

    def arguments(folder: Path) -> list[str]:
        words = [word for name, address in chardevs.items() for word in ("-chardev", f"socket,id={name},{address}")]
        for i, name in enumerate(("net", "guest")):
            words += ["-netdev", f"stream,id={name},server=on,addr.type=unix,addr.path={folder / name}"]
            words += ["-netdev", f"hubport,id=h{i},hubid=0,netdev={name}"]
        return words + [word for thing in objects for word in ("-object", f"{thing},netdev=net")]

    return qemu.Qemu(arguments, {"net": False, "guest": False})
