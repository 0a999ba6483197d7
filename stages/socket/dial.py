"""One connected stream socket at a time, as server or as client, never blocking, for ever.

`poll` drives it: the stage calls it while it has no connection, when a descriptor is ready and every few milliseconds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import socket
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Any, Final

from stages.socket.backoff import Backoff
from stages.socket.hosts import is_loopback

_FILE_NS: Final = 1_000_000_000  # between two looks whether a server's socket file is still there
_CONNECT_NS: Final = 5_000_000_000  # then another try: the kernel's own pauses between SYNs grow to a minute
_BUFFER: Final = 1 << 20  # the kernel doubles it; more only lets more get lost with a link
_OFFERS: Final = 8  # connections that are no peer (yet): one more, and the oldest is closed
_PENDING: Final = (errno.EINPROGRESS, errno.EALREADY)
_KEEPALIVE_S: Final = (5, 5, 5)  # idle, then between probes, and how many probes: 30 s until a silent peer is given up
# Keepalive rests while data is unacknowledged, and retransmission alone goes on for a quarter of an hour: the same
# horizon for a host that loses power mid-traffic.  The price, tcp(7): a peer that takes nothing for so long (a guest
# that somebody paused) is cut too, and connects again when it goes on.
_UNACKNOWLEDGED_MS: Final = 30_000

_SERVER_HINTS: Final = {
    errno.EADDRNOTAVAIL: "this machine has no address {host}: a server has one of its own (ip -br addr), or 0.0.0.0",
    errno.EADDRINUSE: "ss -ltnp 'sport = :{port}' says who listens there; the other end of a link has server = false",
}
"""What the user of a server on TCP can do, by error."""

Watch = Callable[[int, int, Callable[[int], None] | None], None]


@dataclass(frozen=True)
class Address:
    """Where a link is: host and port (TCP), or path (unix socket)."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Address:
        """The address in a stage's parameters."""
        return cls(str(params.get("host") or ""), int(params.get("port") or 0), str(params.get("path") or ""))

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def tune(sock: socket.socket) -> None:
    """Options of a connected socket: no Nagle, a dead host is noticed in 30 s, large buffers where that is allowed."""
    sock.setblocking(False)
    tcp = sock.family != socket.AF_UNIX
    if tcp:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        for option, value in zip(options, _KEEPALIVE_S, strict=True):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
    # Linux numbers of SO_SNDBUFFORCE and SO_RCVBUFFORCE (socket(7)); they go beyond wmem_max and need CAP_NET_ADMIN.
    for force, plain in ((32, socket.SO_SNDBUF), (33, socket.SO_RCVBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, _BUFFER)
        except OSError:
            # A TCP socket's own tuning goes further than an unprivileged request, and such a request ends it.
            if not tcp:
                sock.setsockopt(socket.SOL_SOCKET, plain, _BUFFER)


class _Names:
    """A name that is being looked up in a thread: the resolver blocks for seconds and cannot be asked to stop."""

    def __init__(self, address: Address) -> None:
        self.found: list[Any] | None = None
        self.error: OSError | UnicodeError | None = None
        threading.Thread(target=self._look, args=(address,), daemon=True, name="resolver").start()

    def _look(self, address: Address) -> None:
        try:
            self.found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: no name at all, such as "a..b"
            self.error = error


class Dialer:
    """What client and server share: backoff, name look-up, one log line a change of state."""

    def __init__(self, address: Address, cap_s: float, watch: Watch, log: Any, wake: Callable[[], None]) -> None:
        self.address, self._watch, self._log, self._wake = address, watch, log, wake
        self._backoff = Backoff(cap_s)
        self._sock: socket.socket | None = None
        self._names: _Names | None = None
        self._not_before = 0
        self._told: set[str] = set()
        self._failures = 0

    @property
    def listening(self) -> bool:
        """Whether a peer can come: always true of a client."""
        return True

    @property
    def offered(self) -> bool:
        """Whether somebody is connected who is no peer yet: never with a client, which knows whom it calls."""
        return False

    def poll(self, now: int) -> socket.socket | None:
        """Do what can be done now (monotonic ns); the connected socket, once."""
        if now < self._not_before:
            return None
        try:
            return self._try(now)
        except (OSError, UnicodeError) as error:
            self._drop()
            self._failures += 1
            self._not_before = now + self._backoff.delay()
            self._tell(error)
            return None

    def again(self, now: int, *, punish: bool) -> None:
        """The connection has ended; with ``punish`` (it brought nothing good) the next waits for the backoff."""
        if punish:
            self._not_before = now + self._backoff.delay()
        else:
            self._backoff.reset()
            self._not_before = 0

    def close(self) -> None:
        """Stop."""
        self._drop()

    def _try(self, now: int) -> socket.socket | None:
        raise NotImplementedError

    def _where(self) -> tuple[int, Any] | None:
        """Family and address, None while a name is being looked up."""
        address = self.address
        if address.path:
            return socket.AF_UNIX, address.path
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        with contextlib.suppress(socket.gaierror):
            found = socket.getaddrinfo(address.host or "0.0.0.0", address.port, type=socket.SOCK_STREAM, flags=flags)
            return found[0][0], found[0][4]
        if self._names is None:
            self._names = _Names(address)
        names = self._names
        if names.error is None and names.found is None:
            return None
        self._names = None
        if names.error is not None:
            raise names.error
        found = names.found or []
        # "localhost" is ::1 first on many machines where the peer listens on 127.0.0.1: IPv4 first, IPv6 has literals.
        found.sort(key=lambda entry: entry[0] != socket.AF_INET)
        return self._choose(found)

    def _choose(self, found: list[Any]) -> tuple[int, Any]:
        """Family and address of the entry to take: the first, so that a server is where its peers look first."""
        return found[0][0], found[0][4]

    def _tell(self, error: OSError | UnicodeError) -> None:
        reason = getattr(error, "strerror", None) or str(error)
        if reason not in self._told:
            self._told.add(reason)
            self._log.warning(self._COMPLAINT, address=str(self.address), reason=reason, **self._mend(error))

    def _mend(self, error: OSError | UnicodeError) -> dict[str, str]:
        """What else to log: a ``hint`` where it is known what the user can do."""
        return {}

    _COMPLAINT = "cannot connect, trying again"

    def _drop(self) -> None:
        if self._sock is not None:
            self._watch(self._sock.fileno(), 0, None)
            self._sock.close()
            self._sock = None

    def _ready(self, events: int) -> None:
        self._wake()


class Client(Dialer):
    """Connects, for ever, in any start order."""

    _since = 0

    def _mend(self, error: OSError | UnicodeError) -> dict[str, str]:
        if getattr(error, "errno", None) not in (errno.ECONNREFUSED, errno.ENOENT):
            return {}
        hint = "nobody listens there yet: one end of a link has server = true, the other has not"
        if is_loopback(self.address.host):
            hint += f"; {self.address.host} is this machine itself, a peer on another one has that one's address"
        return {"hint": hint}

    def _try(self, now: int) -> socket.socket | None:
        if self._sock is None:
            where = self._where()
            if where is None:
                return None
            family, address = where
            self._sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self._since = now
            code = self._sock.connect_ex(address)
            if code not in (0, *_PENDING):
                raise OSError(code, os.strerror(code))
            if code != 0:
                self._watch(self._sock.fileno(), EPOLLOUT | EPOLLERR | EPOLLHUP, self._ready)
                return None
        return self._connected(now)

    def _connected(self, now: int) -> socket.socket | None:
        sock = self._sock
        if sock is None:
            return None
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        try:
            peer = sock.getpeername()
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            if now - self._since > _CONNECT_NS:
                raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
            return None
        # A client of a local port where nobody listens can be given that very port: then it has connected to itself.
        if sock.family != socket.AF_UNIX and peer == sock.getsockname():
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        self._watch(sock.fileno(), 0, None)
        self._sock, self._failures = None, 0
        self._told.clear()
        return sock

    def _choose(self, found: list[Any]) -> tuple[int, Any]:
        """A name may have several addresses: with each failure it is the next one's turn."""
        entry = found[self._failures % len(found)]
        return entry[0], entry[4]


class _NoFolder(FileNotFoundError):
    """The folder of a server's unix socket is not there; ``filename`` is the folder."""


class Server(Dialer):
    """Listens, and has one peer at a time.

    Whoever connects is *offered*: a peer with the first byte that comes from it, or when there is something to send
    (``wanted``) and nobody came after it.  Who only looks (a monitor, a port scan) does neither, and leaves no trace.
    While there is a peer, others wait, as with QEMU.
    """

    wanted: Callable[[], bool] = staticmethod(lambda: False)

    _COMPLAINT = "cannot listen, trying again"
    _file: tuple[int, int] | None = None
    _file_at = 0
    _pausing = False

    def __init__(self, address: Address, cap_s: float, watch: Watch, log: Any, wake: Callable[[], None]) -> None:
        super().__init__(address, cap_s, watch, log, wake)
        self._offers: list[socket.socket] = []  # the newest last
        self._watched: set[socket.socket] = set()

    @property
    def listening(self) -> bool:
        """Whether the socket is bound and listening."""
        return self._sock is not None

    @property
    def offered(self) -> bool:
        """Whether somebody is connected who is no peer yet."""
        return bool(self._offers)

    def _mend(self, error: OSError | UnicodeError) -> dict[str, str]:
        if isinstance(error, _NoFolder):
            return {"hint": f"mkdir -p {shlex.quote(error.filename)}"}
        hint = _SERVER_HINTS.get(getattr(error, "errno", None) or 0, "")
        return (
            {"hint": hint.format(host=self.address.host, port=self.address.port)} if hint and self.address.port else {}
        )

    def poll(self, now: int) -> socket.socket | None:
        """Accept who waits; the peer, if one of them is it by now."""
        found = super().poll(now)
        # Level-triggered: who waits while we are connected, or do not want a peer yet, must not wake us.
        self._attend(found is None and now >= self._not_before)
        return found

    def _attend(self, wanted: bool) -> None:
        if self._sock is not None and wanted == self._pausing:
            self._watch(self._sock.fileno(), EPOLLIN if wanted else 0, self._ready if wanted else None)
            self._pausing = not wanted
        for sock in list(self._watched) if not wanted else ():
            self._unwatch(sock)
        for sock in self._offers if wanted else ():
            if sock not in self._watched:
                self._watch(sock.fileno(), EPOLLIN, self._ready)
                self._watched.add(sock)

    def _unwatch(self, sock: socket.socket) -> None:
        if sock in self._watched:
            self._watch(sock.fileno(), 0, None)
            self._watched.discard(sock)

    def _dismiss(self, sock: socket.socket) -> None:
        self._unwatch(sock)
        self._offers.remove(sock)
        sock.close()

    def _choose_peer(self) -> socket.socket | None:
        """Who has sent something, the oldest first; else the newest, where there is something to send."""
        for sock in list(self._offers):
            try:
                spoke = bool(sock.recv(1, socket.MSG_PEEK))
            except BlockingIOError:
                continue
            except OSError:
                spoke = False
            if spoke:
                return self._take(sock)
            self._dismiss(sock)  # it only looked
        return self._take(self._offers[-1]) if self._offers and self.wanted() else None

    def _take(self, sock: socket.socket) -> socket.socket:
        self._unwatch(sock)
        self._offers.remove(sock)
        return sock

    def _try(self, now: int) -> socket.socket | None:
        if self._sock is None:
            where = self._where()
            if where is None:
                return None
            self._sock = self._bind(*where)
            self._told.clear()
            self._backoff.reset()
            self._pausing = True
            self._log.info("listening", address=str(self.address))
        try:
            while True:
                sock, _peer = self._sock.accept()
                tune(sock)
                self._offers.append(sock)
                if len(self._offers) > _OFFERS:
                    self._dismiss(self._offers[0])
        except (BlockingIOError, ConnectionAbortedError):
            self._look_at_file(now)
        return self._choose_peer()

    def _look_at_file(self, now: int) -> None:
        """Where somebody removed the unix socket's file nobody can connect any more: listen anew."""
        if self._file is None or now < self._file_at:
            return
        self._file_at = now + _FILE_NS
        if not self._owns_file():
            self._log.warning("socket file is gone, listening again", address=str(self.address))
            self._file = None  # another's file may get its inode number, and is not ours to remove
            self._drop()

    def _owns_file(self) -> bool:
        """Whether the address is the file that this server made."""
        try:
            status = os.stat(self.address.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._file

    def _bind(self, family: int, address: Any) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if family == socket.AF_UNIX:
                remove_stale(address)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(address)
            except FileNotFoundError:
                folder = os.path.dirname(address)
                raise _NoFolder(errno.ENOENT, f"no folder {folder}", folder) from None
            if family == socket.AF_UNIX:
                status = os.stat(address)
                self._file = status.st_dev, status.st_ino
            sock.listen(1)
        except OSError:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """Stop listening, and remove the unix socket's file if it is still this one."""
        for sock in list(self._offers):
            self._dismiss(sock)
        self._drop()
        if self._file is not None and self._owns_file():
            with contextlib.suppress(OSError):
                os.unlink(self.address.path)
        self._file = None


def remove_stale(path: str) -> None:
    """Remove the socket file that a dead server left at ``path``; raises OSError where somebody listens there."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(errno.EEXIST, f"{path} exists and is no socket", path)
    except FileNotFoundError:
        return
    # Of another type: a living server refuses it with EPROTOTYPE, where a stream would be a peer that goes at once.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
        code = probe.connect_ex(path)
    if code == errno.ECONNREFUSED:
        os.unlink(path)
    elif code != errno.ENOENT:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)
