"""Another network namespace, entered for a moment.  Needs no Numba, so a look before the start may use it, too."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_NETNS = Path("/run/netns")
_libc = ctypes.CDLL(None, use_errno=True)


class DeviceError(Exception):
    """A device that cannot be had; the message says what to do."""


class NotThere(DeviceError):
    """A device that cannot be had now, but may come: nobody has made it yet, it is down, or its namespace is gone."""


@contextlib.contextmanager
def in_netns(name: str | None) -> Iterator[None]:
    """Do something in another network namespace: a name under /run/netns, or a path; None: here.

    Raises `DeviceError`.
    """
    if not name:
        yield
        return
    path = Path(name) if "/" in name else _NETNS / name
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        known = ", ".join(sorted(p.name for p in _NETNS.iterdir())) if _NETNS.is_dir() else ""
        raise NotThere(
            f"network namespace {path}: {error.strerror}; there are: {known or 'none'} (ip netns add {path.name})"
        ) from None
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(there, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise DeviceError(f"network namespace {path}: {os.strerror(number)}; entering one needs root")
        try:
            yield
        finally:
            if _libc.setns(here, _CLONE_NEWNET):  # a process in the wrong namespace must not go on
                os.abort()
    finally:
        os.close(there)
        os.close(here)


def ip_in(netns: str | None) -> str:
    """The command ip(8) for a namespace, as a person types it."""
    if not netns:
        return "ip"
    return f"nsenter --net={netns} ip" if "/" in netns else f"ip -n {netns}"


def check_ifname(ifname: str) -> None:
    """Raise `DeviceError` for what is no name of an interface."""
    if not 0 < len(ifname.encode()) < 16:
        raise DeviceError(f"ifname {ifname!r}: a name has 1 to 15 bytes")
