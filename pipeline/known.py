"""Which pipelines there are on this host, by what lies in /dev/shm: nobody is connected to, and no file is changed.

A folder with control sockets has sockets of stages in it, too, and to look at one of those by connecting is to be a
peer.  Segments are named after their pipeline, and say who made them and where that one listens.
"""

from __future__ import annotations

import os
import pwd
import struct
from pathlib import Path
from typing import Final, NamedTuple

from ring import holding, layout

SHM: Final = Path("/dev/shm")


class Known(NamedTuple):
    """A pipeline: its supervisor's pid and start time, the user, its control socket and config (empty: not known)."""

    name: str
    uid: int
    segments: int
    readable: bool
    pid: int = 0
    start: int = 0
    control: str = ""
    config: str = ""
    segment: str = ""

    @property
    def alive(self) -> bool:
        """Whether its supervisor is there, as far as this user can tell; also in a pid namespace that is not ours."""
        from ring.segment import alive  # here: it needs NumPy, and who is answered at once does not

        return alive(self.pid, self.start) or (bool(self.segment) and holding.still_held(self.segment))

    @property
    def user(self) -> str:
        """Whose it is."""
        return user(self.uid)


def user(uid: int) -> str:
    """The name of a user."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def known() -> dict[str, Known]:
    """All pipelines that have segments, by name."""
    segments: dict[str, list[Path]] = {}
    for path in sorted(SHM.iterdir()):
        name, mark, rest = (*path.name.split(".", 2), "", "")[:3]
        if mark in ("r", "s") and rest:
            segments.setdefault(name, []).append(path)
    found = {}
    for name, paths in segments.items():
        stages = [path for path in paths if path.name.startswith(f"{name}.s.")]
        if stages and (one := _look(name, stages, len(paths))):
            found[name] = one
    return found


def _look(name: str, stages: list[Path], count: int) -> Known | None:
    """What the first whole segment of a stage says; one that is half made, or no longer there, says nothing.

    Anybody may make files there: of what another user's say only root believes anything.
    """
    seen = None
    for path in stages:
        try:
            uid = path.stat().st_uid
            if os.getuid() not in (0, uid):
                return Known(name, uid, count, False)
            seen = seen or Known(name, uid, count, True)
            with open(path, "rb") as file:
                data = file.read(layout.UNDO * 8)
        except OSError:
            continue
        if len(data) < layout.UNDO * 8 or _word(data, layout.MAGIC) != layout.STAGE_MAGIC:
            continue
        return Known(
            name,
            uid,
            count,
            True,
            _word(data, layout.OWNER_PID),
            _word(data, layout.OWNER_START),
            _text(data, layout.CONTROL, layout.CONTROL_BYTES),
            _text(data, layout.CONFIG, layout.CONFIG_BYTES),
            str(path),
        )
    return seen


def _word(data: bytes, at: int) -> int:
    return int(struct.unpack_from("=q", data, at * 8)[0])


def _text(data: bytes, at: int, size: int) -> str:
    return os.fsdecode(data[at * 8 : at * 8 + size].partition(b"\0")[0])
