"""Where compiled kernels are kept on disk: one directory ``kernels-DIGEST`` a version of the sources, under one root.

A changed source, another Numba or another way of compiling gives another digest, so a new directory; old ones would
stay for ever.  Whoever makes a new one removes those that nobody is likely to want again: it keeps the `KEEP` most
recently used, and of these only what was used in the last `DAYS` days.  Not only the newest: two checkouts, or a test
run and a pipeline, or the ways of compiling that one test run goes through, take turns, and each would compile for a
minute what the other had removed.  A directory holds 2 to 4 MB.

A directory in use is never removed, however old: a pipeline that has run for months needs it when its fork server has
to start anew, and Numba does not survive a directory that vanishes while it saves.  So each process, and each of its
forks, holds a shared lock (flock) on its directory until it dies, which no kill can prevent.  Who removes takes the
exclusive lock first, and renames: nobody finds a directory half empty.  Where a file system has no such locks (some
NFS), nothing is removed.

Where the root cannot be written (no home, a read-only one, another user's), `instead` gives a folder elsewhere; where
there is none, each start compiles: `claim` says False, never raises.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

KEEP: Final = 8
DAYS: Final = 30

_KERNELS: Final = re.compile(r"kernels-[0-9a-f]{16}")
_REMOVED: Final = ".removed"  # the end of a renamed directory's name; a killed process may have left it
_TRIES: Final = 5
_held: dict[Path, int] = {}  # the descriptors are closed by the end of the process


def root() -> Path:
    """``COLO_CACHE_DIR``, ``NUMBA_CACHE_DIR``, or a folder in the user's cache.  It need not be usable."""
    if asked := os.environ.get("COLO_CACHE_DIR"):
        return Path(os.path.abspath(asked))
    if asked := os.environ.get("NUMBA_CACHE_DIR"):
        folder = Path(os.path.abspath(asked))
        # `ring.hot` names its own directory there: then it is from a process of ours that started this one.
        return folder.parent if _KERNELS.fullmatch(folder.name) else folder
    user = os.environ.get("XDG_CACHE_HOME", "")
    return Path(user if os.path.isabs(user) else os.path.expanduser("~/.cache"), "colo-proxy")


def usable(folder: Path) -> bool:
    """Whether directories can be made in ``folder``, which is made if need be."""
    if not folder.is_absolute():  # the home of a user without an entry in passwd is "~"
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(prefix=".try-", dir=folder))
    except OSError:
        return False
    return True


def instead(runtime: str) -> Path | None:
    """A folder for compiled code in ``runtime``, where the root is of no use; None where it is, or nothing helps.

    Compiled code is run, so the folder must be ours alone.
    """
    if usable(root()):
        return None
    folder = Path(os.path.abspath(runtime), "compiled")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = os.lstat(folder)
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return folder if ours and usable(folder) else None


def claim(directory: Path) -> bool:
    """Make ``directory`` if need be, and hold it while this process lives; whether compiled code can be kept in it.

    Who makes it removes older ones beside it.
    """
    if not directory.is_absolute():
        return False
    try:
        for _ in range(_TRIES):
            made = _make(directory)
            if _hold(directory):
                break
        else:
            return False
    except OSError:
        return False
    if made:
        with contextlib.suppress(OSError):
            _remove_old(directory)
    return os.access(directory, os.R_OK | os.W_OK | os.X_OK)


def _make(directory: Path) -> bool:
    """Make it; False if it is there."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        directory.mkdir()
    except FileExistsError:
        return False
    return True


def _hold(directory: Path) -> bool:
    """Lock it and note its use; False if somebody removed it meanwhile."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Waits for a remover, who has it for as long as a rename takes.
        with contextlib.suppress(OSError):  # no locks here: then nobody can remove it, either
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        with contextlib.suppress(OSError):  # read-only, or another user's
            os.utime(descriptor)
        there = _is(descriptor, directory)
    except BaseException:
        os.close(descriptor)
        raise
    if not there:
        os.close(descriptor)
        return False
    if (before := _held.pop(directory, -1)) >= 0:
        os.close(before)
    _held[directory] = descriptor
    return True


def _is(descriptor: int, directory: Path) -> bool:
    """Whether an open directory is the one of that name; not if it was removed, and perhaps made anew."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(directory))
    except FileNotFoundError:
        return False


def _remove_old(mine: Path) -> None:
    """Remove what was left half removed, and what is too old or one too many beside ``mine``."""
    others = []
    for path in mine.parent.iterdir():
        with contextlib.suppress(OSError):  # somebody else removes, too
            if path.is_symlink() or not path.is_dir():
                continue
            if path.name.endswith(_REMOVED) and _KERNELS.match(path.name):
                shutil.rmtree(path, ignore_errors=True)
            elif path != mine and _KERNELS.fullmatch(path.name):
                others.append((path.stat().st_mtime, path))
    others.sort(reverse=True)
    old = time.time() - DAYS * 86400
    for place, (used, path) in enumerate(others, 2):  # ``mine`` is the first
        if place > KEEP or used < old:
            with contextlib.suppress(OSError):
                _remove(path)


def _remove(path: Path) -> None:
    """Remove a directory that no process holds.  Raises OSError: it is in use, or cannot be locked or removed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is(descriptor, path):
            return  # somebody else removed it, and it may be there again, in use
        gone = path.with_name(f"{path.name}.{os.getpid()}{_REMOVED}")
        path.rename(gone)
    finally:
        os.close(descriptor)
    shutil.rmtree(gone, ignore_errors=True)
