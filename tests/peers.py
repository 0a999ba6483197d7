"""Real sockets at the far end of a link stage on a `Rig`, and the runner's part in small."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from ring import layout
from tests.rig import Rig

PATIENCE_S = 120.0
ETHERNET = bytes.fromhex("525400123456 525400abcdef 0800") + b"E" * 46


def wire(*frames: bytes, v: int | None = None) -> bytes:
    """Frames as they go over a connection, with V where it is given."""
    extra = b"" if v is None else struct.pack(">I", v)
    return b"".join(struct.pack(">I", len(f)) + extra + f for f in frames)


def turn(rig: Rig) -> None:
    """What the runner does: wait for descriptors a moment, call back, and turn duty cycles."""
    poll = select.poll()
    for fd, (events, _) in rig.watched.items():
        poll.register(fd, events & 0xFF)
    for fd, events in poll.poll(2):
        if fd in rig.watched:
            rig.watched[fd][1](events)
    rig.run()


def until(rig: Rig, condition: Callable[[], Any]) -> Any:
    """Turn until ``condition`` holds; what it returned."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, (condition, rig.counters())
        turn(rig)
    return value


def collect(rig: Rig, n: int) -> list[bytes]:
    """The next ``n`` frames of the receive ring."""
    got: list[bytes] = []
    until(rig, lambda: got.extend(rig.take("receive")) or len(got) >= n)
    return got


def read(rig: Rig, peer: socket.socket, n: int) -> bytes:
    """The next ``n`` bytes that the peer gets."""
    peer.setblocking(False)
    got = bytearray()

    def more() -> bool:
        with suppress(BlockingIOError):
            got.extend(peer.recv(n - len(got)))
        return len(got) >= n

    until(rig, more)
    return bytes(got)


def die(rig: Rig) -> None:
    """What `kill -9` does to the descriptors of the stage; `rig.restart` does the rest."""
    stage: Any = rig.stage
    for sock in (stage._sock, stage._dialer._sock, *getattr(stage._dialer, "_offers", ())):
        if sock is not None:
            rig.watched.pop(sock.fileno(), None)
            sock.close()


def up(rig: Rig) -> bool:
    return bool(rig.stage._sock is not None)  # type: ignore[attr-defined]


def offered(rig: Rig) -> bool:
    """Whether somebody is connected who is no peer yet."""
    return bool(rig.stage._dialer.offered)  # type: ignore[attr-defined]


def links(rig: Rig) -> list[int]:
    """P_LINK of the receive ring and C_LINK of the send ring."""
    at = {"receive": layout.P_LINK, "send": layout.C_LINK}
    return [int(rig.rings[name].w[word]) for name, word in at.items() if name in rig.rings]


@contextmanager
def server(path: Path, **more: Any):
    """A stage that listens at a unix socket, and a function that connects a peer to it."""
    rig_keys = {k: more.pop(k) for k in ("ports", "vnet", "ring_size") if k in more}
    if "vnet" in rig_keys:
        more["vnet"] = True
    params = {"path": str(path), "server": True, **more}
    opened: list[socket.socket] = []
    with Rig("chardev-socket", params, **rig_keys) as rig:

        def connect(wait: bool = True) -> socket.socket:
            before = rig.counters()["connects"]
            peer = socket.socket(socket.AF_UNIX)
            opened.append(peer)
            peer.connect(str(path))
            if wait:
                until(rig, lambda: offered(rig) or rig.counters()["connects"] > before)
            return peer

        try:
            yield rig, connect
        finally:
            for peer in opened:
                peer.close()


def join(rig: Rig, peer: socket.socket) -> socket.socket:
    """Make a connected socket the peer, by its first frame, which is taken."""
    peer.sendall(wire(b"I am"))
    assert collect(rig, 1) == [b"I am"]
    return peer


@contextmanager
def listener(path: Path):
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.bind(str(path))
        sock.listen(1)
        yield sock
    path.unlink()
