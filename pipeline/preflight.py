"""Before anything is made: what cannot get better by itself, of the system and as the kinds say of their stages."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

_SHM: Final = "/dev/shm"
_OLD: Final = (
    "a seccomp profile, such as that of a container runtime older than the call, is in the way: a newer runtime, or "
    "docker run --security-opt seccomp=..."
)


class NotReady(Exception):
    """What keeps stages from starting, a line each."""


def look(graph: Any) -> None:
    """Look at the system, then ask every stage's kind.  Raises `NotReady`."""
    found = list(system())
    found = found or [f"{stage.id}: {why}" for stage in graph.stages for why in stage.kind.preflight(stage.params)]
    if found:
        raise NotReady("\n".join(f"cannot start: {line}" for line in found))


def system() -> Iterator[str]:
    """What every pipeline needs and does not have here: /proc, a /dev/shm for writing, and calls that are new."""
    if not os.path.exists("/proc/self/fd"):
        yield "/proc is not there: stages wake each other through it; mount -t proc proc /proc"
        return
    if not os.path.isdir(_SHM):
        yield f"{_SHM} is not there: mount -t tmpfs -o mode=1777 tmpfs {_SHM}"
    elif not os.access(_SHM, os.W_OK | os.X_OK):
        yield f"{_SHM} cannot be written: it is read-only or of others; mount -o remount,rw {_SHM}, chmod 1777 {_SHM}"
    for name, call in _CALLS.items():
        try:
            call()
        except OSError as error:
            yield f"the system refuses {name}: {error.strerror}; {_OLD}"
            return


def _pidfd_open() -> None:
    os.close(os.pidfd_open(os.getpid()))


def _pidfd_send_signal() -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(pidfd, 0)
    finally:
        os.close(pidfd)


def _memfd_create() -> None:
    os.close(os.memfd_create("colo-look"))


_CALLS: Final[Mapping[str, Callable[[], None]]] = {
    "pidfd_open(2)": _pidfd_open,
    "pidfd_send_signal(2)": _pidfd_send_signal,
    "memfd_create(2)": _memfd_create,
}
