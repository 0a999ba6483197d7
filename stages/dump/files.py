"""The files of a dump: one that grows, and older ones that were put aside under numbers, the newest of them kept.

``dump.pcapng`` is written; when it is large enough it becomes ``dump.1.pcapng``, the next one ``dump.2.pcapng``.
What counts of the present file, and its number, are scalars of the stage, committed with the burst.  So after a kill
at any instruction the file is cut to what counts, and a change of files that was not committed is finished.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path


class Files:
    """Paths of a dump to ``path``, of which ``keep`` files are kept."""

    def __init__(self, path: str, keep: int) -> None:
        self.path, self._keep = path, keep
        root, _, ending = os.path.basename(path).rpartition(".")
        self._folder, self._root, self._ending = os.path.dirname(path), root or ending, f".{ending}" if root else ""

    def aside(self, number: int) -> str:
        """Where the file with that number is put."""
        return os.path.join(self._folder, f"{self._root}.{number}{self._ending}")

    def numbers(self) -> list[int]:
        """Numbers of the files that lie there, in order."""
        form = re.compile(rf"{re.escape(self._root)}\.(\d+){re.escape(self._ending)}")
        names = (form.fullmatch(one.name) for one in Path(self._folder).iterdir())
        return sorted(int(name[1]) for name in names if name)

    def put_aside(self, number: int) -> None:
        """Put the present file aside under ``number``, and remove the oldest ones.  Raises OSError.

        Done twice, it is as if it were done once: a kill may come between the two names and the commit.
        """
        if self._keep > 1:
            with contextlib.suppress(FileExistsError):
                os.link(self.path, self.aside(number))
        os.unlink(self.path)
        for old in self.numbers():
            if old <= number - self._keep + 1:
                os.unlink(self.aside(old))
