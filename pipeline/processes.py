"""What the system says of processes: processor time, memory, children.  Of one that is gone: nothing, no error."""

from __future__ import annotations

import os

import psutil


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, 0 where it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def rss_bytes(pid: int) -> int:
    """Resident memory of a process, what it shares included, 0 where it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def children(pid: int) -> list[int]:
    """The processes that a process has started and not yet waited for."""
    # Not by psutil, which looks at every process that there is: proc(5) has them in one file.
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as listed:
            return list(map(int, listed.read().split()))
    except OSError:
        return []


def work_seconds(pid: int) -> float:
    """Processor time that a process, its living children, and those that it waited for, have used."""
    total = 0.0
    for one in (pid, *children(pid)):
        try:
            times = psutil.Process(one).cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def own_children() -> list[int]:
    """Those of this process."""
    return children(os.getpid())


def arguments(pid: int) -> list[bytes]:
    """A process's command line, as it was executed; nothing where it is gone, or a zombie."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as given:
            return given.read().rstrip(b"\0").split(b"\0")
    except OSError:
        return []
