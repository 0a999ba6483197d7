"""Segments in /dev/shm: found by name, mapped to be read only, copied while others write them.

A stage changes its tables word by word, so a copy may hold half of a change.  `Memory.copy` takes the words twice, and
looks before and after at the words by which a burst commits (`ring.kernels.ledger`): the commit point, and number and
length of the undo log.  Where all are the same, no `put` came between; what a burst that is still open has put, the
undo log takes back in the copy.  So a copy is as of the last commit, even of a stage that was killed in the middle of
a burst.  Where that succeeds in none of `TRIES`, the copy says so.  Words that are never committed (times of packets,
notes, slots that nobody points to yet) are as they were at one moment.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pwd
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from ring import holding, layout, segment
from ring.memory_fence import fence

SHM: Final = Path("/dev/shm")
TRIES: Final = 50
_NAME: Final = re.compile(r"([a-z0-9][a-z0-9-]*)\.([rs])\.(.+)")


class NotShownError(Exception):
    """Why something cannot be shown, and what to do about it; ``status`` is the program's exit status."""

    def __init__(self, why: str, status: int = 1) -> None:
        super().__init__(why)
        self.status = status


class Found(NamedTuple):
    """A name in /dev/shm that a pipeline gives to a segment: a ring's or a stage's."""

    pipeline: str
    ring: bool
    id: str

    @property
    def name(self) -> str:
        """The segment's."""
        return f"{self.pipeline}.{'r' if self.ring else 's'}.{self.id}"


class Owner(NamedTuple):
    """The supervisor that a segment belongs to."""

    pid: int
    alive: bool

    def __str__(self) -> str:
        return f"pid {self.pid}" if self.alive else f"dead (pid {self.pid} is gone)"


class Copy(NamedTuple):
    """Words as of one moment; not ``stable``: they changed meanwhile, so they may not belong together."""

    words: Any
    stable: bool


class Memory:
    """One segment: ``w`` are its words, which cannot be written."""

    def __init__(self, place: Found) -> None:
        self.place = place
        path = SHM / place.name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise NotShownError(f"{path} is gone: the pipeline {place.pipeline} has ended meanwhile") from None
        except PermissionError:
            raise NotShownError(f"{path} may not be read by you: do it as {_whose(path)}, or as root") from None
        except OSError as error:
            raise NotShownError(f"{path} cannot be read: {error.strerror}") from None
        try:
            nbytes = os.fstat(fd).st_size
            if nbytes < layout.PAGE:
                raise NotShownError(f"{path} is no segment of a pipeline: {nbytes:,} bytes long, or half made")
            mapped = mmap.mmap(fd, nbytes // 8 * 8, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(fd)
        self.w: Any = np.frombuffer(mapped, np.int64)
        self._undo: tuple[tuple[int, int, int], Any] = (0, 0, 0), None
        self._check(path)

    def _check(self, path: Path) -> None:
        w, ring = self.w, self.place.ring
        if int(w[layout.MAGIC]) != (layout.RING_MAGIC if ring else layout.STAGE_MAGIC):
            raise NotShownError(f"{path} is no segment of a pipeline: another program's, or half made")
        version = int(w[layout.VERSION])
        if version != layout.LAYOUT_VERSION:
            raise NotShownError(
                f"{path} has layout version {version}, and {layout.LAYOUT_VERSION} is known here: "
                "look at it with the tools of the version that made it"
            )
        size = int(w[layout.SIZE]) + layout.PAGE if ring else int(w[layout.STAGE_WORDS]) * 8
        if not (layout.PAGE if ring else layout.UNDO * 8) <= size <= len(w) * 8:
            raise NotShownError(
                f"{path} is {len(w) * 8:,} bytes long, its header says {size:,}: something wrote over it"
            )

    @property
    def owner(self) -> Owner:
        """Who made it or took it over."""
        pid, start = int(self.w[layout.OWNER_PID]), int(self.w[layout.OWNER_START])
        return Owner(pid, segment.alive(pid, start) or holding.still_held(SHM / self.place.name))

    def text(self, at: int) -> str:
        """A NUL-padded label."""
        words = self.w[at : at + layout.NAME_BYTES // 8].tobytes()
        return str(words.partition(b"\0")[0].decode(errors="replace"))

    def copy(self, place: Callable[[], int], count: int) -> Copy:
        """``count`` words from ``place()`` on: it may depend on what is committed, so it is asked at each try."""
        for _ in range(TRIES):
            before = self._marks()
            fence()
            at = place()
            if not 0 <= at <= at + count <= len(self.w):
                raise NotShownError(
                    f"{self.place.name}: words {at:,} to {at + count:,} lie outside of it: another version made it"
                )
            words = self.w[at : at + count].copy()
            undo = self._undone(before)
            fence()
            if before == self._marks() and np.array_equal(words, self.w[at : at + count]):
                if undo is not None:
                    inside = undo[(undo[:, 0] >= at) & (undo[:, 0] < at + count)][::-1]  # the oldest counts: it is last
                    words[inside[:, 0] - at] = inside[:, 1]
                return Copy(words, True)
        return Copy(words, False)

    def changed(self) -> Any:
        """Indices of the words that an open burst has changed."""
        undo = self._undone(self._marks())
        return np.empty(0, np.int64) if undo is None else undo[:, 0]

    def _marks(self) -> tuple[int, int, int]:
        if self.place.ring:
            return 0, 0, 0
        return int(self.w[layout.COMMITTED]), int(self.w[layout.UNDO_BURST]), int(self.w[layout.UNDO_N])

    def _undone(self, marks: tuple[int, int, int]) -> Any:
        """The undo log of a burst that is open, (word, value before it) pairs; None: none is, or it changed nothing."""
        committed, burst, count = marks
        if burst != committed + 1 or not 0 < count <= (len(self.w) - layout.UNDO) // layout.UNDO_ENTRY:
            return None
        if self._undo[0] != marks:
            entries = self.w[layout.UNDO : layout.UNDO + count * layout.UNDO_ENTRY].reshape(-1, layout.UNDO_ENTRY)
            self._undo = marks, entries[:, [layout.UNDO_WORD, layout.UNDO_BEFORE]]
        return self._undo[1]


def _whose(path: Path) -> str:
    try:
        return pwd.getpwuid(path.stat().st_uid).pw_name
    except (OSError, KeyError):
        return "its owner"


# --- pipelines ----------------------------------------------------------------------------------------------------
def pipelines() -> dict[str, list[Found]]:
    """Segments by pipeline, as their names say."""
    by_name: dict[str, list[Found]] = {}
    for name in sorted(path.name for path in SHM.iterdir()):
        if m := _NAME.fullmatch(name):
            by_name.setdefault(m[1], []).append(Found(m[1], m[2] == "r", m[3]))
    return by_name


def pipeline(name: str) -> list[Found]:
    """The segments of one pipeline."""
    known = pipelines()
    if name not in known:
        raise NotShownError(f"no pipeline {name!r} has memory in {SHM}; known: {', '.join(known) or 'none'}", status=2)
    return known[name]


def opened(places: list[Found]) -> Iterator[Memory]:
    """Those of the segments that can be read."""
    for place in places:
        with contextlib.suppress(NotShownError):
            yield Memory(place)
