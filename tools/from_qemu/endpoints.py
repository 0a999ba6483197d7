"""What the pipeline is joined to outside: a -chardev's, -netdev's or -nic's keys as a table of config.toml."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tools.from_qemu.model import Note, Table
from tools.from_qemu.properties import meant
from tools.from_qemu.words import Trouble, show

_ON: Final = frozenset({"on", "yes", "true", "y"})
_OFF: Final = frozenset({"off", "no", "false", "n"})
_ANY: Final = frozenset({"", "0.0.0.0", "::", "*"})
_LOOPBACK: Final = frozenset({"", "127.0.0.1", "localhost", "::1"})
_MAX_RECONNECT: Final = 86_400


@dataclass
class Names:
    """What the user said about hosts and TAP devices, and the names that are given out here."""

    hosts: Mapping[str, str]
    taps: Mapping[str, str]
    used: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)

    def host(self, name: str) -> str:
        """A host's name or address, replaced where the user said so."""
        self.replaced.add(name)
        return self.hosts.get(name, name)

    def tap(self, netdev: str, ifname: str) -> str:
        """A name of a TAP device for a netdev."""
        name = self.taps.get(netdev) or ifname
        free = (f"colo{n}" for n in range(len(self.used) + 1))
        chosen = name or next(each for each in free if each not in self.used)
        self.used.add(chosen)
        return chosen


def switch(values: Mapping[str, str], key: str, default: bool, place: str) -> bool:
    """A key that is on or off.  Raises `Trouble` for anything else."""
    text = values.get(key)
    if text is None:
        return default
    if text.lower() in _ON | _OFF:
        return text.lower() in _ON
    raise Trouble(place, f"{key}={show(text)}", f"write {key}=on or {key}=off")


def whole(text: str, key: str, place: str) -> int:
    """A whole number, 0x for hexadecimal as QEMU takes it.  Raises `Trouble`."""
    m = re.fullmatch(r"(0[xX][0-9a-fA-F]{1,16})|\+?([0-9]{1,19})", text)
    if not m:
        raise Trouble(place, f"{key}={show(text)}", f"write {key}= and a whole number")
    return int(m[1], 16) if m[1] else int(m[2])


def _reconnect(values: Mapping[str, str], place: str) -> Table:
    """QEMU's reconnect in seconds or milliseconds; 0 or nothing leaves our default, which connects for ever."""
    if "reconnect-ms" in values:
        ms = whole(values["reconnect-ms"], "reconnect-ms", place)
        seconds: float = ms // 1000 if ms % 1000 == 0 else ms / 1000
    else:
        seconds = whole(values.get("reconnect", "0"), "reconnect", place)
    return {"reconnect": min(seconds, _MAX_RECONNECT)} if seconds else {}


def _inet(host: str, port: str, server: bool, names: Names, place: str) -> Table:
    host = host.strip("[]")
    if not host:
        host = "0.0.0.0" if server else "127.0.0.1"  # what QEMU takes where it is left out
    return {"host": names.host(host), "port": whole(port, "port", place)}


def same_place(server: Table, client: Table) -> bool:
    """Whether a client within one host reaches this server, by what both say."""
    if "path" in server or "path" in client:
        return server.get("path") == client.get("path")
    if server.get("port") != client.get("port") or "port" not in server:
        return False
    here, there = server["host"], client["host"]
    return bool(here == there or (here in _ANY | _LOOPBACK and there in _LOOPBACK | _ANY))


# --- chardevs -----------------------------------------------------------------------------------------------------

# fmt: off
_SOCKET_WITHOUT_LOSS: Final = frozenset({
    "id", "backend", "host", "port", "path", "server", "wait", "reconnect", "reconnect-ms", "delay", "nodelay",
    "ipv4", "ipv6", "tight", "type", "addr.type",
})
_SOCKET_OFF: Final = frozenset({
    "telnet", "tn3270", "websocket", "abstract", "mux", "logappend", "keep-alive", "mptcp",
})
_BACKENDS: Final = frozenset({
    "null", "socket", "udp", "msmouse", "hub", "vc", "ringbuf", "memory", "file", "pipe", "pty", "stdio", "serial",
    "tty", "parallel", "parport", "spicevmc", "spiceport", "braille", "wctablet", "testdev", "console", "mux", "dbus",
    "qemu-vdagent",
})
# fmt: on
_WHY: Final[Mapping[str, str]] = {
    "tls-creds": "the link goes unencrypted; let a tunnel (stunnel, WireGuard) carry it",
    "tls-authz": "nobody is checked",
    "telnet": "the bytes go plain",
    "tn3270": "the bytes go plain",
    "websocket": "the bytes go plain",
    "abstract": "the socket is the file of that name; both ends must use the file",
    "to": "only the first port is tried",
    "fd": "its number says nothing about where it leads",
}  # fmt: skip


def _exclude(values: Mapping[str, str], server: bool, place: str) -> None:
    """Raise `Trouble` for keys of which QEMU takes one at most."""
    at = [key for key in ("path", "fd", "port") if values.get(key)]
    again = [key for key in ("reconnect", "reconnect-ms") if values.get(key, "0") != "0"]
    if len(at) > 1:
        raise Trouble(place, " and ".join(at), "give one of them: it has one address")
    if len(again) > 1:
        raise Trouble(place, " and ".join(again), "give one of them")
    if again and server:
        raise Trouble(place, f"{again[0]} of a server", f"leave {again[0]} out: a server waits until it is called")


def chardev(name: str, given: Mapping[str, str], place: str, stand_in: Table, names: Names) -> tuple[Table, list[Note]]:
    """``[chardev.ID]`` for a -chardev; ``stand_in`` is the address where QEMU's cannot be carried over."""
    values = {re.sub(r"^(?:backend\.)?(?:data\.)?(?:addr\.data\.|addr\.(?!type))?", "", k): v for k, v in given.items()}
    backend = given.get("backend") or given.get("backend.type", "")
    notes: list[Note] = []
    if backend != "socket":
        if backend not in _BACKENDS and (near := meant(backend, _BACKENDS)) is not None:
            raise Trouble(place, f"{show(backend)}: no such backend", f"{near}, perhaps")
        at = stand_in["path"]
        found = f"it is of backend {show(backend)}" if backend else "it has no backend"
        return {"backend": "socket", **stand_in}, [
            Note("lost", place, f"{found}; a unix socket, {at}, stands in for it")
        ]
    qapi = "backend.type" in given  # chardev-add's form: a server unless it says otherwise, and it waits for nobody
    server = switch(values, "server", qapi, place)
    _exclude(values, server, place)
    table: Table = {"backend": "socket"}
    if values.get("path"):
        table["path"] = values["path"]
    elif "port" in values:
        table |= _inet(values.get("host", ""), values["port"], server, names, place)
    elif "fd" in values or values.get("str"):
        table |= stand_in
        server = True
    else:
        raise Trouble(place, "no address", "give host= and port=, or path=")
    if server:
        table["server"] = True
        if switch(values, "wait", not qapi, place):
            table["wait"] = "fd" not in values
    else:
        table |= _reconnect(values, place)
    for key, value in values.items():
        harmless = key in _SOCKET_WITHOUT_LOSS or (key in _SOCKET_OFF and value.lower() in _OFF)
        near = None if key in _WHY or key in _SOCKET_OFF else meant(key, _SOCKET_WITHOUT_LOSS)
        if not harmless and near is not None:
            raise Trouble(place, f"{show(key)[1:-1]}: unknown", f"{near}, perhaps")
        if not harmless and key != "str":
            notes.append(Note("lost", place, f"{key}={value}; {_WHY.get(key, 'no such thing here')}"))
    return {k: v for k, v in table.items() if v is not False}, notes


# --- the network side of a netdev ---------------------------------------------------------------------------------


# fmt: off
_NIC: Final = frozenset({"id", "type", "name", "model", "mac", "macaddr", "addr", "vectors"})
_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "tap": frozenset({
        "ifname", "script", "downscript", "br", "helper", "fd", "fds", "sndbuf", "vnet_hdr", "vhost", "vhostforce",
        "vhostfd", "vhostfds", "queues", "poll-us",
    }),
    "bridge": frozenset({"br", "helper"}),
    "stream": frozenset({
        "server", "reconnect", "reconnect-ms", "addr.type", "addr.host", "addr.port", "addr.path", "addr.str",
        "addr.abstract", "addr.tight", "addr.ipv4", "addr.ipv6", "addr.numeric",
    }),
    "socket": frozenset({"listen", "connect", "mcast", "localaddr", "udp", "fd"}),
}
_TYPES: Final = frozenset({
    *_KEYS, "none", "nic", "user", "passt", "dgram", "l2tpv3", "vde", "hubport", "netmap", "af-xdp", "vhost-user",
    "vhost-vdpa", "vmnet-host", "vmnet-shared", "vmnet-bridged",
})
_TYPES_ALIKE: Final = 0.6  # "tpa" and "tap" have 0.67
# fmt: on


class Network(NamedTuple):
    """The network side of a netdev, and what there is to say about it."""

    table: Table
    notes: list[Note]


def network(name: str, given: Mapping[str, str], place: str, names: Names) -> Network:
    """What the ``network`` side of ``[netdev.ID]`` is for a -netdev or -nic."""
    kind = given.get("type", "")
    made = _KINDS.get(kind)
    if kind not in _TYPES and (near := meant(kind, _TYPES, _TYPES_ALIKE)) is not None:
        raise Trouble(place, f"{show(kind)}: no such type of a netdev", f"{near}, perhaps")
    if made is None:
        mend = "a TAP device with NAT on the host does the same" if kind in ("user", "passt") else ""
        mend = mend or "its network side is null, which swallows everything: put another backend there"
        text = f"it is of type {show(kind)}, which the pipeline cannot join; {mend}"
        return Network({"backend": "null"}, [Note("lost", place, text)])
    notes = _unknown(given, kind, place)
    table, more = made(name, given, place, names)
    return Network(table, more + notes)


def _unknown(given: Mapping[str, str], kind: str, place: str) -> list[Note]:
    """What is said of keys that a netdev of this type does not have.  Raises `Trouble` for a slip of the pen."""
    notes = []
    for key in sorted(given.keys() - _KEYS[kind] - _NIC):
        near = meant(key, _KEYS[kind])
        if near is not None:
            raise Trouble(place, f"{show(key)[1:-1]}: unknown", f"{near}, perhaps")
        notes.append(
            Note("lost", place, f"{key}={given[key]}; {_WHY.get(key.removeprefix('addr.'), 'no such thing here')}")
        )
    return notes


def _tap(name: str, given: Mapping[str, str], place: str, names: Names) -> Network:
    notes: list[Note] = []

    def add(kind: str, text: str) -> None:
        notes.append(Note(kind, place, text))

    own = "fd" in given or "fds" in given
    ifname = names.tap(name, given.get("ifname", ""))
    if own and not (name in names.taps or given.get("ifname")):
        add(
            "lost",
            f"the TAP device came as an open file, without a name: say it with --tap {name}=NAME (here {ifname})",
        )
    elif not given.get("ifname") and name not in names.taps:
        add("note", f"no ifname: the TAP device is called {ifname} here (--tap {name}=NAME for another name)")
    if not own:
        _scripts(given, ifname, add)
    if any(given.get(key, "off") not in _OFF for key in ("vhost", "vhostforce", "vhostfd", "vhostfds")):
        add(
            "lost", "vhost: it carries packets past every filter, in QEMU, too; the guest's packets go through QEMU now"
        )
    if given.get("queues", "1") != "1" or "fds" in given:
        add("lost", "several queues: the pipeline has one")
    if given.get("vnet_hdr", "off") in _ON:
        add(
            "note",
            "vnet_hdr=on: a stream carries no virtio-net header, so the guest's packets come with full checksums",
        )
    for key in sorted(given.keys() & {"sndbuf", "poll-us"}):
        add("note", f"{key}={given[key]} has no counterpart, and needs none")
    return Network({"backend": "tap", "ifname": ifname}, notes)


def _scripts(given: Mapping[str, str], ifname: str, add: Callable[[str, str], None]) -> None:
    script, down = given.get("script"), given.get("downscript")
    once = f"`ip tuntap add dev {ifname} mode tap` once, then"
    if "helper" in given or "br" in given:
        bridge = given.get("br", "br0")
        helper = f"helper={given['helper']} is not run: " if "helper" in given else ""
        add("do", f"{helper}{once} `ip link set {ifname} master {bridge} up` joins {ifname} to the bridge")
    elif script is None:
        add("do", f"QEMU would have run /etc/qemu-ifup {ifname}: {once} run that, or put {ifname} into your bridge")
    elif script not in ("no", ""):
        add("do", f"script={script} is not run: {once} `{script} {ifname}`")
    if down not in (None, "no", ""):
        add("do", f"downscript={down} is not run: `{down} {ifname}` when you take the device away")


def _bridge(name: str, given: Mapping[str, str], place: str, names: Names) -> Network:
    return _tap(name, {"br": "br0", **{k: v for k, v in given.items() if k in ("br", "helper")}}, place, names)


def _stream(name: str, given: Mapping[str, str], place: str, names: Names) -> Network:
    server = switch(given, "server", False, place)
    _exclude(given, server, place)
    table: Table = {"backend": "stream"}
    kind = given.get("addr.type", "")
    notes: list[Note] = []
    if kind == "unix" and given.get("addr.path"):
        table["path"] = given["addr.path"]
        if given.get("addr.abstract", "off") not in _OFF:
            notes.append(Note("lost", place, f"addr.abstract=on; {_WHY['abstract']}"))
    elif kind == "inet" and given.get("addr.port"):
        table |= _inet(given.get("addr.host", ""), given["addr.port"], server, names, place)
    else:
        text = f"it has an address of type {show(kind)}: its network side is null until you give one"
        return Network({"backend": "null"}, [Note("lost", place, text)])
    return Network(table | ({"server": True} if server else _reconnect(given, place)), notes)


def _socket(name: str, given: Mapping[str, str], place: str, names: Names) -> Network:
    for key in ("listen", "connect"):
        if key in given:
            host, colon, port = given[key].rpartition(":")
            if not colon:
                raise Trouble(place, f"{key}={show(given[key])}", f"write {key}=HOST:PORT")
            table = {"backend": "stream", **_inet(host, port, key == "listen", names, place)}
            return Network(table | ({"server": True} if key == "listen" else {}), [])
    which = next((key for key in ("mcast", "udp", "fd") if key in given), "no address")
    text = f"it is a socket with {which}: the pipeline speaks stream sockets; its network side is null"
    return Network({"backend": "null"}, [Note("lost", place, text)])


_KINDS: Final[Mapping[str, Callable[[str, Mapping[str, str], str, Names], Network]]] = {
    "tap": _tap, "bridge": _bridge, "stream": _stream, "socket": _socket,
}  # fmt: skip
