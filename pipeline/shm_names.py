"""The names of a pipeline's segments in /dev/shm, which others may remove while it runs.

Stages have their memory by descriptor, so nothing that runs needs a name.  Names are for the next supervisor, which
takes over what this one leaves if it is killed, and for people and their tools.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ring.segment import Segment

LOOK_NS: Final = 1_000_000_000
_SYSTEMD: Final = Path("/run/systemd/system")
_FIRST_USER: Final = 1000  # SYS_UID_MAX + 1 of login.defs(5)

_LOGIND: Final = (
    "logind, when this user has logged out for good: set RemoveIPC=no in /etc/systemd/logind.conf, or "
    "`loginctl enable-linger`, or run it as a system user"
)
_CLEANER: Final = "somebody, or something that cleans /dev/shm by age (tmpfiles.d, tmpreaper, a cron job)"


def likely_reason(uid: int, systemd: bool) -> str:
    """Who removes names in /dev/shm of a process that user ``uid`` runs."""
    return _LOGIND if systemd and uid >= _FIRST_USER else _CLEANER


class Names:
    """Looks after the names of ``kept`` segments; each loss is told once."""

    def __init__(self, kept: Mapping[str, Segment], log: Any) -> None:
        self._kept, self._log = kept, log
        self._look_at = 0
        self._told: set[str] = set()

    def look(self, now: int) -> None:
        """Once a second: notice names that vanished, and make them again where the system lets."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_NS
        gone: list[str] = []
        again: list[str] = []
        taken: list[str] = []
        for name, seg in self._kept.items():
            state = seg.named()
            if state is None:
                (again if seg.name_again() else gone).append(name)
            elif not state:
                taken.append(name)
        lost = [name for name in (*gone, *again) if name not in self._told]
        robbed = [name for name in taken if name not in self._told]
        self._told.update(lost, robbed)
        if lost:
            self._log.warning(
                "names in /dev/shm have vanished: what runs goes on without them",
                names=len(lost),
                first=lost[0],
                made_again=len(again),
                likely=likely_reason(os.getuid(), _SYSTEMD.is_dir()),
                **({"lost": "no supervisor can take over from this one if it is killed"} if gone else {}),
            )
        if robbed:
            self._log.warning("names in /dev/shm lead to others' segments now", names=len(robbed), first=robbed[0])
