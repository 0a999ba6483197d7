"""What keeps a server from listening and cannot get better by itself: looked at before the start.

An address that this machine has not, a folder that is not there, a name that cannot be looked up: they may come, and
the stage waits for them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from typing import Any


def server(params: Mapping[str, Any]) -> Iterator[str]:
    """A port or a unix socket at which somebody listens, or that may not be had."""
    if not params["server"]:
        return
    why = _unix(str(params["path"])) if params["path"] else _tcp(str(params["host"]), int(params["port"]))
    if why:
        yield why


def _tcp(host: str, port: int) -> str:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    with contextlib.suppress(socket.gaierror):
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
                probe.listen(1)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return f"port {port} of {host} is in use: ss -ltnp 'sport = :{port}' says by whom"
                if error.errno == errno.EACCES:
                    return f"port {port} may not be had by this user: one above 1023, or root"
    return ""


def _unix(path: str) -> str:
    folder = os.path.dirname(path) or "."
    if os.path.isdir(folder) and not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} may not be written to by this user: no socket {path}"
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return f"{path} exists and is no socket"
    except OSError:
        return ""
    # Of another type than the server's: refused by one that lives, and no peer for it.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
        if probe.connect_ex(path) in (errno.ECONNREFUSED, errno.ENOENT):
            return ""
    return f"somebody listens at {path}: ss -lxp says who"
