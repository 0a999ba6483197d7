"""What is left of QEMU's command line: the converted parts taken out, its NICs joined to the pipeline."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tools.from_qemu.model import Asked, Note, Table, Thing
from tools.from_qemu.options import Option, keys

# Keys whose value is an id of another kind of thing than a chardev or an iothread.
_OTHER_IDS: Final = frozenset({"id", "netdev", "drive", "bus", "driver", "type", "qom-type", "file", "backend"})


@dataclass(frozen=True)
class Remains:
    """The command line's options, and which of them went into the pipeline.

    ``ours`` are the filters and compares, ``chardevs`` those that they use, ``netdevs`` those that have a filter, in
    the order in which they got their addresses.
    """

    items: Sequence[Option]
    objects: Mapping[str, Thing]
    ours: Sequence[Thing]
    chardevs: Mapping[str, Thing]
    netdevs: Sequence[str]
    asked: Asked
    pipeline: str
    foreign: Sequence[Option] = ()  # objects that QEMU 7.2 does not have

    def guest_address(self, netdev: str) -> Table:
        """Where QEMU and the pipeline meet for a netdev."""
        if self._version() < (7, 2):  # -netdev stream, and with it unix sockets, came with 7.2
            return {"host": "127.0.0.1", "port": 12_700 + self.netdevs.index(netdev)}
        return {"path": f"{self.asked.runtime}/{self.pipeline}-{netdev}.sock"}

    def _version(self) -> tuple[int, int]:
        """QEMU's version; where it is not said, the oldest that has what the command line uses."""
        if self.asked.qemu is not None:
            return self.asked.qemu
        return (9, 2) if any(k.endswith("reconnect-ms") for c in self.chardevs.values() for k in c.values) else (7, 2)

    def options(self, netdevs: Mapping[str, Thing]) -> tuple[list[list[str]], list[Note]]:
        """The words of each option that QEMU needs from now on."""
        gone, notes = self._gone()
        replaced = {id(netdevs[name].option): netdevs[name] for name in self.netdevs if name in netdevs}
        lines: list[list[str]] = []
        for option in self.items:
            if id(option) in gone:
                continue
            if id(option) in replaced:
                value, more = self._stream(replaced[id(option)])
                notes += more
                lines.append([option.word.raw, shlex.quote(value)])
            else:
                lines.append([option.word.raw] + ([option.value.raw] if option.value is not None else []))
        return lines, notes

    def _gone(self) -> tuple[set[int], list[Note]]:
        iothreads = {o.values.get("iothread", "") for o in self.ours} - {""}
        gone = {id(o.option) for o in self.ours} | {id(c.option) for c in self.chardevs.values()}
        gone |= {id(option) for option in self.foreign}
        gone |= {id(o.option) for n, o in self.objects.items() if o.kind == "iothread" and n in iothreads}
        elsewhere = self._used_elsewhere(gone)
        gone -= {id(o.option) for n, o in self.objects.items() if o.kind == "iothread" and n in elsewhere}
        notes = []
        for name in sorted(elsewhere & self.chardevs.keys()):
            chardev = self.chardevs[name]
            gone.discard(id(chardev.option))
            text = "something else in QEMU uses it, too: it is in both now, and only one of them can have its peer"
            notes.append(Note("lost", chardev.place, text))
        return gone, notes

    def _used_elsewhere(self, gone: set[int]) -> set[str]:
        """Ids that options which stay name."""
        found: set[str] = set()
        for option in self.items:
            if option.value is None or id(option) in gone or option.name in ("netdev", "chardev"):
                continue
            if not option.value.value.startswith("{") or option.name in ("device", "object"):
                found |= {v for k, v in keys(option).items() if k.rpartition(".")[2] not in _OTHER_IDS}
            found |= set(re.findall(r"(?:^|,)chardev:([^,]+)", option.value.value))
        return found

    def stream(self, netdev: str, kept: str = "") -> str:
        """The value of -netdev (or -nic) that joins QEMU's NIC to the pipeline; ``kept`` are more of its keys."""
        name, version, listens = _escaped(netdev), self._version(), self.asked.listens
        at = self.guest_address(netdev)
        if version < (7, 2):
            return f"socket,id={name}{kept},{'listen' if listens else 'connect'}={at['host']}:{at['port']}"
        address = f"addr.type=unix,addr.path={_escaped(at['path'])}"
        if listens:
            return f"stream,id={name}{kept},server=on,{address}"
        again = ",reconnect-ms=1000" if version >= (9, 2) else ",reconnect=1" if version >= (8, 0) else ""
        return f"stream,id={name}{kept},server=off,{address}{again}"

    def _stream(self, thing: Thing) -> tuple[str, list[Note]]:
        """The same for a netdev of the command line, and what there is to say."""
        kept = ""
        if thing.option.name == "nic":
            kept = "".join(f",{k}={_escaped(thing.values[k])}" for k in ("model", "mac", "addr") if k in thing.values)
        text = "QEMU before 8.0 does not connect to the pipeline again once that connection is lost (a stage that is"
        text += " restarted); --qemu-listens cures that, --qemu-version X.Y says that yours is newer"
        connects = (7, 2) <= self._version() < (8, 0) and not self.asked.listens
        return self.stream(thing.id, kept), [Note("note", thing.place, text)] if connects else []


def _escaped(value: str) -> str:
    """A value within QEMU's list of keys, where a comma is two."""
    return value.replace(",", ",,")
