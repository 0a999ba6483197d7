"""How a process knows that it is a forked copy: what it inherited of a ring is then still its parent's."""

from __future__ import annotations

import os

count = 0
"""How many forks lie between this process and the one that imported this module."""


def _count() -> None:
    global count  # noqa: PLW0603 - the one word that a forked child changes
    count += 1


os.register_at_fork(after_in_child=_count)
