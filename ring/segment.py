"""Named shared memory and the arena that a process sees it through.

An *arena* is one reservation of address space in which a process maps all segments that it uses, so that compiled code
gets two arrays, ``u8`` (bytes) and ``w`` (int64 words), over all of them, and addresses everything by an index.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import re
import struct
import weakref
from typing import Any

import numpy as np
import posix_ipc

from ring import errors, layout

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000
_FAILED = ctypes.c_void_p(-1).value

SHM = "/dev/shm"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


def process_start(pid: int) -> int:
    """Start time of ``pid`` in clock ticks since boot (field 22 of proc(5) stat), 0 when there is no such process.

    A pid alone is reused; the pair (pid, start time) names one process for good.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def alive(pid: int, start: int) -> bool:
    """Whether the process that wrote (pid, start) is still there."""
    return pid > 0 and start > 0 and process_start(pid) == start


def check_name(name: str) -> str:
    """``name`` if POSIX shared memory can hold it, without the leading slash."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise errors.BadName(f"{name!r} is no name for a segment: use letters, digits, '.', '_' and '-', at most 201")
    return name


def _who_has(name: str) -> str:
    """Whose segment ``name`` is, and what to do about it."""
    try:
        with open(f"/dev/shm/{name}", "rb") as file:
            words = struct.unpack("=8q", file.read(64))
    except (OSError, struct.error):
        words = (0,) * 8
    pid = words[layout.OWNER_PID]
    if words[layout.MAGIC] not in (layout.RING_MAGIC, layout.STAGE_MAGIC):
        return f"another program uses the name, or one died while it made it; ring.unlink({name!r}) removes it"
    if alive(pid, words[layout.OWNER_START]):
        return f"pid {pid} owns it; attach to it, or choose another name"
    return f"its owner, pid {pid}, is gone; ring.unlink({name!r}) removes it"


def free_space() -> int:
    """Bytes that /dev/shm can still take."""
    stat = os.statvfs("/dev/shm")
    return stat.f_bavail * stat.f_frsize


class Segment:
    """One POSIX shared-memory object: a name, a descriptor and a length.  It is mapped through an `Arena`.

    Whoever has a descriptor needs the name no more: it is there to be found by, and may vanish at any time.
    """

    def __init__(self, name: str, fd: int, nbytes: int) -> None:
        self.name, self.fd, self.nbytes = name, fd, nbytes

    @classmethod
    def create(cls, name: str, nbytes: int) -> Segment:
        """Make a segment of zeros with all its memory reserved, so that no later store can fail (SIGBUS)."""
        try:
            memory = posix_ipc.SharedMemory("/" + check_name(name), posix_ipc.O_CREX, mode=0o600)
        except (posix_ipc.ExistentialError, posix_ipc.PermissionsError):
            raise errors.SegmentExists(f"/dev/shm/{name} exists: {_who_has(name)}") from None
        made = cls(name, memory.fd, nbytes)
        try:
            os.posix_fallocate(made.fd, 0, nbytes)
        except BaseException as error:  # also an interrupt: half a segment is worse than none
            made.close()
            unlink(name)
            if not isinstance(error, OSError):
                raise
            what = f"/dev/shm cannot hold {name}: {nbytes:,} bytes needed"
            if error.errno == errno.EFBIG:
                raise errors.NoSpace(f"{what}, and no file may be so large; ulimit -f unlimited") from None
            raise errors.NoSpace(
                f"{what}, {free_space():,} free ({error.strerror}); "
                "make it larger (mount -o remount,size=...) or the rings smaller"
            ) from None
        return made

    @classmethod
    def attach(cls, name: str) -> Segment:
        """Open an existing segment.  Raises `SegmentMissing`, and `LayoutMismatch` for another user's."""
        try:
            memory = posix_ipc.SharedMemory("/" + check_name(name), 0)
        except posix_ipc.ExistentialError:
            raise errors.SegmentMissing(f"there is no /dev/shm/{name}: create it first") from None
        except posix_ipc.PermissionsError:
            raise errors.LayoutMismatch(f"/dev/shm/{name} belongs to another user") from None
        return cls(name, memory.fd, os.fstat(memory.fd).st_size)

    @classmethod
    def of(cls, name: str, fd: int) -> Segment:
        """The segment behind a descriptor; it gets a descriptor of its own, ``fd`` stays the caller's."""
        return cls(name, os.dup(fd), os.fstat(fd).st_size)

    def named(self) -> bool | None:
        """Whether the name leads to this segment; None: to nothing at all, False: to another's."""
        try:
            there = os.stat(f"{SHM}/{self.name}")
        except FileNotFoundError:
            return None
        return os.path.samestat(there, os.fstat(self.fd))

    def name_again(self) -> bool:
        """Give the name back to a segment that has lost it; whether the system lets (only while another name is left).

        A file whose last name went is never linked again: linkat(2) says ENOENT, on Linux for good.
        """
        folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # with a folder's descriptor Python calls linkat(2), and has it follow the link
            os.link(str(self.fd), f"{SHM}/{self.name}", src_dir_fd=folder)
        except OSError:
            return False
        finally:
            os.close(folder)
        return True

    def unlink(self) -> bool:
        """Remove the name, if it is still this segment's; whether it was."""
        return bool(self.named()) and unlink(self.name)

    def close(self) -> None:
        """Close the descriptor; mappings stay."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    __del__ = close


def unlink(name: str) -> bool:
    """Remove a segment's name; whether there was one."""
    try:
        posix_ipc.unlink_shared_memory("/" + check_name(name))
    except posix_ipc.ExistentialError:
        return False
    return True


def ring_span(size: int) -> int:
    """Bytes of address space that a ring of ``size`` takes in an arena: header page, data, data once more."""
    return layout.PAGE + 2 * size


class Arena:
    """Address space for several segments: ``u8`` and ``w`` see all of it.

    The address space is given back when the last view of it is gone: `close` drops the arena's own, and one that a
    caller still holds goes on seeing the segments, so a late access is never a wild one.
    """

    def __init__(self, nbytes: int) -> None:
        if mmap.PAGESIZE != layout.PAGE:
            raise errors.RingError(
                f"this kernel has pages of {mmap.PAGESIZE:,} bytes, the layout of rings {layout.PAGE:,}"
            )
        self.nbytes = max(-(-nbytes // layout.PAGE), 1) * layout.PAGE
        self._used = 0
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self._base = self._mmap(None, self.nbytes, 0, flags, -1, 0)
        buffer: Any = (ctypes.c_uint8 * self.nbytes).from_address(self._base)
        weakref.finalize(buffer, _libc.munmap, self._base, self.nbytes).atexit = False
        self.u8: Any = np.frombuffer(buffer, np.uint8)
        self.w: Any = self.u8.view(np.int64)
        self.bytes: Any = memoryview(buffer).cast("B")

    @staticmethod
    def _mmap(address: int | None, nbytes: int, protection: int, flags: int, fd: int, offset: int) -> int:
        result = _libc.mmap(address, nbytes, protection, flags, fd, offset)
        if result == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, f"mmap of {nbytes:,} bytes: {os.strerror(number)}")
        return int(result)

    def _place(self, nbytes: int) -> int:
        at = self._used
        if at + nbytes > self.nbytes:
            raise ValueError(f"the arena of {self.nbytes:,} bytes has no {nbytes:,} left")
        self._used += -(-nbytes // layout.PAGE) * layout.PAGE
        return at

    def _fix(self, at: int, segment: Segment, offset: int, nbytes: int) -> None:
        flags = mmap.MAP_SHARED | _MAP_FIXED
        self._mmap(self._base + at, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, segment.fd, offset)

    def map_plain(self, segment: Segment) -> int:
        """Map a whole segment; return the index of its first word in ``w``."""
        at = self._place(segment.nbytes)
        self._fix(at, segment, 0, segment.nbytes)
        return at // 8

    def map_ring(self, segment: Segment) -> int:
        """Map a ring, its data area twice in a row; return the index of its first word in ``w``."""
        size = segment.nbytes - layout.PAGE
        at = self._place(ring_span(size))
        self._fix(at, segment, 0, segment.nbytes)
        self._fix(at + segment.nbytes, segment, layout.PAGE, size)
        return at // 8

    def close(self) -> None:
        """Drop the arena's own views."""
        if self._base:
            del self.u8, self.w
            # A memoryview handed to the kernel (recv_into) may still be alive in a traceback: it goes with that.
            with contextlib.suppress(BufferError):
                self.bytes.release()
            del self.bytes
            self._base = 0
