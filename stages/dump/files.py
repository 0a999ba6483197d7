"""The files of a dump: one that grows, and older ones that were put aside under numbers, the newest of them kept.

``dump.pcapng`` is written; when it is large enough it becomes ``dump.1.pcapng``, the next one ``dump.2.pcapng``.
What is in the way under such a name is never written over: the file gets the next number.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from stages.capture.writer import header, is_classic


class Files:
    """Paths of a dump to ``path``, of which ``keep`` files are kept."""

    def __init__(self, path: str, keep: int) -> None:
        self.path, self._keep = path, keep
        self._folder, name = os.path.split(path)
        self._root, self._ending = os.path.splitext(name)
        self._form = re.compile(rf"{re.escape(self._root)}\.([1-9][0-9]*){re.escape(self._ending)}")

    def beginning(self, stage: str, run: int, serial: int) -> bytes:
        """How the file ``serial`` of ``run`` starts: it is known by that, whatever its name and its inode."""
        if is_classic(self.path):
            return header([stage], classic=True, mark=run + serial & 0xFFFFFFFF)
        return header([stage], comment=f"filter-dump {stage}, run {run:08x}, file {serial}")

    def aside(self, number: int) -> str:
        """Where the file with that number is put."""
        return os.path.join(self._folder, f"{self._root}.{number}{self._ending}")

    def has_form(self, path: str) -> bool:
        """Whether ``path`` is one of those names."""
        return os.path.dirname(path) == self._folder and self._form.fullmatch(os.path.basename(path)) is not None

    def numbers(self) -> list[int]:
        """Numbers of the files that lie there, in order."""
        names = (self._form.fullmatch(one.name) for one in Path(self._folder).iterdir())
        return sorted(int(name[1]) for name in names if name)

    def look(self, most: int) -> tuple[bytes, int]:
        """The present file's first ``most`` bytes, and its size; nothing where there is none.  Raises OSError."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would be waited for
        except FileNotFoundError:
            return b"", 0
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise OSError("this is no plain file")
            return os.pread(fd, most, 0), found.st_size
        finally:
            os.close(fd)

    def is_aside(self) -> bool:
        """Whether it has the other name already: a kill came between `os.link` and `os.unlink`.  Raises OSError."""
        try:
            present = os.lstat(self.path)
        except FileNotFoundError:
            return False
        if present.st_nlink == 1:
            return False
        return any(os.path.samestat(present, os.lstat(self.aside(number))) for number in self.numbers())

    def put_aside(self) -> None:
        """Put the present file aside under the next free number.  Raises OSError: then it is still there.

        Killed anywhere and done once more, it is as if it were done once.
        """
        if self._keep > 1 and not self.is_aside():
            number = max(self.numbers(), default=0) + 1
            while not self._named(number):
                number += 1
            if not os.path.lexists(self.path):
                return  # it was renamed
        os.unlink(self.path)

    def _named(self, number: int) -> bool:
        """Give the present file the name with that number, unless there is a file of that name."""
        aside = self.aside(number)
        try:
            os.link(self.path, aside, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError:  # vfat, CIFS and FUSE have no second names, and some folders allow none
            if os.path.lexists(aside):
                return False
            os.rename(self.path, aside)
        return True

    def clean_up(self) -> list[OSError]:
        """Remove all but the newest, to which a present file will come; what could not be removed."""
        failed = []
        numbers = self.numbers()
        for old in numbers[: max(0, len(numbers) - self._keep + 1)]:
            try:
                os.unlink(self.aside(old))
            except FileNotFoundError:
                continue
            except OSError as error:
                failed.append(error)
        return failed
