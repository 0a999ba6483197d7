"""The control socket inside the supervisor: many clients, none of which can hurt or hold it.

A request is one msgpack map ``{"command": str, "args": {..}}``, the reply one map ``{"ok": bool, "error": str, ..}``;
a connection may carry several in turn.  A client that sends rubbish gets an error and is dropped; one that sends too
much, or nothing, or does not read its reply is dropped after a while.  No call here ever waits.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from pipeline import messages
from stages.replies import Later, Refused, Reply, unknown

MAX_REQUEST: Final = 64 * 1024
MAX_CLIENTS: Final = 32
IDLE_NS: Final = 5_000_000_000
LOOK_NS: Final = 1_000_000_000  # between two looks whether the socket's file is still there

Handler = Callable[[Mapping[str, Any]], "Reply | Later | None"]
"""Takes the arguments; the reply, or None to leave the client waiting until the supervisor ends."""


@dataclass(eq=False)
class Client:
    """One connection."""

    sock: socket.socket
    deadline: int
    unpacker: Any = field(default_factory=lambda: msgpack.Unpacker(max_buffer_size=MAX_REQUEST, strict_map_key=True))
    out: bytearray = field(default_factory=bytearray)
    later: Later | None = None
    parked: bool = False
    command: str = ""
    last: bool = False  # close once `out` is written


class Server:
    """Listens at ``path`` (mode 0600) and hands requests to ``handlers``, by command."""

    def __init__(self, path: str, selector: selectors.BaseSelector, handlers: Mapping[str, Handler], log: Any) -> None:
        self.path, self._selector, self._handlers, self._log = path, selector, handlers, log
        self._clients: list[Client] = []
        self._listener = listen(path)
        self._file = os.stat(path)
        selector.register(self._listener, selectors.EVENT_READ, lambda _mask: self._accept())
        self._now = self._look_at = 0
        self._complaint = ""
        self._more: list[Client] = []

    @property
    def busy(self) -> bool:
        """Whether `tick` has something to do at once."""
        return bool(self._more)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # it left again, or we are out of descriptors: the next one may have more luck
        if len(self._clients) >= MAX_CLIENTS:
            sock.close()
            return
        sock.setblocking(False)
        client = Client(sock, self._now + IDLE_NS)
        self._clients.append(client)
        self._selector.register(sock, selectors.EVENT_READ, lambda mask: self._serve(client, mask))

    def _serve(self, client: Client, mask: int) -> None:
        try:
            if mask & selectors.EVENT_READ:
                self._read(client)
            if mask & selectors.EVENT_WRITE:
                self._write(client)
        except OSError:
            self._drop(client)

    def _read(self, client: Client) -> None:
        data = client.sock.recv(MAX_REQUEST)
        if not data or client.last:
            self._drop(client)
            return
        try:
            client.unpacker.feed(data)
        except msgpack.BufferFull:
            self._answer(
                client, {"ok": False, "error": f"a request has at most {MAX_REQUEST:,} bytes", "code": 2}, last=True
            )
            return
        self._next(client)

    def _next(self, client: Client) -> None:
        """Take up the next request, one at a time."""
        if client.later or client.parked or client.last:
            return
        try:
            request = client.unpacker.unpack()
        except msgpack.OutOfData:
            return
        except Exception as error:  # whatever msgpack thinks of hostile bytes
            self._answer(client, {"ok": False, "error": f"not msgpack: {type(error).__name__}", "code": 2}, last=True)
            return
        client.deadline = self._now + IDLE_NS
        reply = self._handle(request)
        client.command = str(request.get("command", "")) if isinstance(request, dict) else ""
        if reply is None:
            client.parked = True
        elif isinstance(reply, Later):
            client.later = reply
        else:
            self._answer(client, reply)

    def _handle(self, request: Any) -> Reply | Later | None:
        if not isinstance(request, dict) or not isinstance(request.get("command"), str):
            return {"ok": False, "error": 'a request is a map {"command": "...", "args": {}}', "code": 2}
        args = request.get("args", {})
        if not isinstance(args, dict):
            return {"ok": False, "error": '"args" is a map', "code": 2}
        try:
            handler = self._handlers.get(request["command"])
            if handler is None:
                raise unknown("command", request["command"][:64], list(self._handlers))
            return handler(args)
        except Refused as refused:
            return {"ok": False, "error": str(refused), "code": refused.code}

    def _answer(self, client: Client, reply: Reply, *, last: bool = False) -> None:
        client.out += messages.pack({"error": "", **reply})
        client.last = client.last or last
        self._write(client)

    def _write(self, client: Client) -> None:
        try:
            sent = client.sock.send(client.out) if client.out else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(client)
            return
        del client.out[:sent]
        if client.out:
            self._selector.modify(
                client.sock,
                selectors.EVENT_WRITE,  # no more requests until it has read this reply
                lambda mask: self._serve(client, mask),
            )
        elif client.last:
            self._drop(client)
        else:
            self._selector.modify(client.sock, selectors.EVENT_READ, lambda mask: self._serve(client, mask))
            self._more.append(client)  # not at once: a client with a thousand requests gets one a turn of the loop

    def _drop(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._selector.unregister(client.sock)
            client.sock.close()

    def tick(self, now: int) -> None:
        """Give replies that have become possible; drop clients that have been idle for too long."""
        self._now = now
        if now >= self._look_at:
            self._look_at = now + LOOK_NS
            self._look_at_file()
        more, self._more = self._more, []
        for client in more:
            if client in self._clients:
                self._next(client)
        for client in list(self._clients):
            if client.later is not None:
                later = client.later
                reply = later.done()
                if reply is None and now >= later.until:
                    reply = {"ok": False, "error": later.late, "code": 1}
                if reply is not None:
                    client.later = None
                    client.deadline = now + IDLE_NS
                    self._answer(client, reply)
            elif not client.parked and now >= client.deadline:
                self._drop(client)

    def _owns_file(self) -> bool:
        """Whether the path leads to the file that this server made."""
        try:
            return os.path.samestat(os.stat(self.path), self._file)
        except OSError:
            return False

    def _look_at_file(self) -> None:
        """Nobody can connect where somebody removed the file, or its folder (a cleaner of /tmp): make it again."""
        if self._owns_file():
            return
        try:
            os.makedirs(os.path.dirname(self.path) or ".", mode=0o700, exist_ok=True)
            listener = listen(self.path)
            self._file = os.stat(self.path)
        except OSError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                self._log.error(
                    "the control socket is gone, and cannot be made again", path=self.path, reason=str(error)
                )
            return
        self._selector.unregister(self._listener)
        self._listener.close()
        self._listener, self._complaint = listener, ""
        self._selector.register(listener, selectors.EVENT_READ, lambda _mask: self._accept())
        self._log.warning("the control socket was gone: made again", path=self.path)

    def close(self, goodbye: Callable[[str], Reply] | None = None) -> None:
        """Remove the socket; ``goodbye`` makes, of its command, the reply to each client that still waits."""
        for client in list(self._clients):
            if goodbye and (client.parked or client.later):
                with contextlib.suppress(OSError):
                    client.sock.send(messages.pack({"error": "", **goodbye(client.command)}))
            self._drop(client)
        self._selector.unregister(self._listener)
        self._listener.close()
        with contextlib.suppress(OSError):
            if self._owns_file():
                os.unlink(self.path)


def listen(path: str) -> socket.socket:
    """A listening unix socket at ``path``, mode 0600; a dead one that stands there is replaced.  Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(f"{path} exists and is no socket")
        if not remove_dead(path):
            raise FileExistsError(f"somebody answers at {path}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)  # from its first moment on nobody else may connect
    try:
        sock.bind(path)
        sock.listen(MAX_CLIENTS)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"control socket {path}: {error.strerror or error}") from None
    finally:
        os.umask(mask)
    return sock


def remove_dead(path: str) -> bool:
    """Remove a unix socket that nobody listens at; whether it is gone."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(path)
    except ConnectionRefusedError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return True
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
