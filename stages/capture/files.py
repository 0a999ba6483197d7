"""What keys that name a capture have in common: the file's folder is there, and nobody else writes the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from stages.kind import Claim
from stages.schema import Mistake, show


def folder_missing(file: str, path: str) -> Iterable[Mistake]:
    """A mistake at the key ``path`` where the folder of ``file``, which is to be written, is not there."""
    folder = os.path.dirname(file)
    if not os.path.isdir(folder):
        yield Mistake(path, f"no folder {show(folder)}", "a file in a folder that is there")


def writes(file: str, path: str, also: Callable[[str], bool] | None = None) -> Claim:
    """That the key ``path`` has ``file`` written; ``also``: and those of whose path this is true."""
    covers = None if also is None else lambda what: what[0] == "file" and also(what[1])
    return Claim(("file", file), path, show(file), "a file of its own; {taken} writes this one", covers=covers)


def reads(file: str, path: str) -> Claim:
    """That the key ``path`` has ``file`` read."""
    found = f"{show(file)}, which {{taken}} overwrites"
    return Claim(("file", file), path, found, "a capture that stays as it is", shared=True)
