"""A stream socket as a chardev, or as one side of a netdev: chardev frames over TCP or a unix socket."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from stages.kind import CHARDEV, NETDEV, Claim, Derived, Joint, Kind, Look, Shown, options_table
from stages.schema import BOOLEAN, FILE, HOST, SUN_PATH, Mistake, integer, key, positive, show
from stages.socket import preflight
from stages.socket.hosts import is_loopback
from stages.socket.layout import counters, memory, options

_PORT: Final = integer(1, 65_535)
_RECONNECT: Final = "seconds: the longest wait between two attempts of a client; it goes on for ever"


@dataclass(frozen=True, kw_only=True)
class Stream:
    """``backend = "stream"``: frames on a stream socket, as QEMU's -netdev stream and -netdev socket speak them."""

    host: str | None = key(HOST, doc="name or address, without blanks; with `port`")
    port: int | None = key(_PORT, doc="1 to 65535")
    path: str | None = key(FILE, doc="a unix socket, 107 bytes at most, instead of host and port")
    server: bool = key(BOOLEAN, False, doc="listen instead of connect")
    reconnect: int | float = key(positive("seconds"), 1, doc=_RECONNECT)


@dataclass(frozen=True, kw_only=True)
class Socket(Stream):
    """``backend = "socket"``: a chardev's frames, or its lines of text; ``reconnect`` in seconds."""

    wait: bool = key(BOOLEAN, False, doc="`true`: the pipeline is not ready before the peer is there")


_EVERY: Final = ("0.0.0.0", "::")
"""A server's host where it listens at each address of its machine."""


def _at(host: str | None, port: int | None, path: str | None) -> str:
    return path if path is not None else f"[{host}]:{port}" if ":" in (host or "") else f"{host}:{port}"


def _has_address(table: Stream) -> bool:
    if table.path is not None:
        return table.host is None and table.port is None and len(os.fsencode(table.path)) <= SUN_PATH
    return table.host is not None and table.port is not None


def _mistakes(table: Stream, path: str, clean: bool) -> Iterable[Mistake]:
    if table.path is not None:
        size = len(os.fsencode(table.path))
        if table.host is not None or table.port is not None:
            yield Mistake(path, "path and host or port", "either path, or host and port")
        elif size > SUN_PATH:
            yield Mistake(f"{path}.path", f"{size} bytes: {show(table.path)}", f"at most {SUN_PATH} bytes, see unix(7)")
    elif (table.host is None or table.port is None) and clean:
        found = "only a host" if table.host is not None else "only a port" if table.port is not None else "no address"
        yield Mistake(path, found, "host and port, or path")


def _claims(table: Stream, path: str) -> Iterable[Claim]:
    if not _has_address(table):
        return
    at = _at(table.host, table.port, table.path)
    where = (table.host, table.port, table.path)
    if table.server:
        mend = "an address of its own; {taken} listens there"
        yield Claim(("server", *where), path, f"a second server at {at}", mend)
    elif isinstance(table, Socket):
        mend = "an address of its own; {taken} connects there, and a server has one peer"
        yield Claim(("client", *where), path, f"a second client of {at}", mend)


def _joint(table: Stream) -> Joint | None:
    if not _has_address(table):
        return None
    if table.path is not None:
        return Joint(table.server, ("unix", os.path.realpath(table.path)))
    here = table.host in _EVERY or is_loopback(table.host)
    return Joint(table.server, ("tcp", "" if here else table.host, table.port))


def _shows(look: Look) -> Shown:
    """Whether the peer sends what nobody takes."""
    if not look.counters["unread_peer"]:
        return Shown()
    long = "its peer sends, and nothing here reads this link: two addresses are exchanged, perhaps (see the log)"
    return Shown(short="unread bytes", long=long)


def _address(params: Mapping[str, Any]) -> str:
    at = _at(params["host"], params["port"], params["path"])
    alone = ", for this machine alone" if params["server"] and is_loopback(params["host"]) else ""
    return f"{'listens at' if params['server'] else 'connects to'} {at}{alone}"


def _derive(table: Stream, derived: Derived) -> Mapping[str, Any]:
    used = {"writer": derived.writer, "readers": derived.readers}
    if isinstance(table, Socket):
        return {"vnet": derived.vnet, "text": derived.text, "gated": False, **used}
    return {
        "vnet": False,
        "text": False,
        "wait": False,
        "gated": derived.gated,
        **used,
    }  # QEMU's -netdev stream never sends V


def _kind(name: str, table: str, variant: str, config: type[Stream]) -> Kind:
    return Kind(
        name=name,
        type=table,
        table=table,
        variant=variant,
        config=config,
        shell="stages.socket.shell:SocketStage",
        kernels=("stages.socket.kernels",),
        inputs=("send",),
        outputs=("receive",),
        counters=counters.COUNTERS,
        tables=(options_table(options.FIELDS, parts={"tally": tuple(c.name for c in counters.COUNTERS)}),),
        connects=True,
        losses=("bad_frames",),
        words_of=lambda params: memory.SCRATCH_WORDS,
        mistakes=_mistakes,
        claims=_claims,
        derive=_derive,
        hears=("failover",) if table == NETDEV else (),
        hears_if="gated",
        joint=_joint,
        address=_address,
        shows=_shows,
        preflight=preflight.server,
        leftovers=lambda params: [params["path"]] if params["server"] and params["path"] else [],
    )


KINDS: Final = {
    "chardev-socket": _kind("chardev-socket", CHARDEV, "socket", Socket),
    "netdev-stream": _kind("netdev-stream", NETDEV, "stream", Stream),
}
