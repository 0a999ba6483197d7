"""Arrays that end their process at the k-th store: a kernel run as plain Python dies between any two of its stores.

A store of what is there already counts for nothing: a kill before it leaves what a kill before the next one leaves.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np


class Fuse:
    """Counts stores; kills its own process with SIGKILL at store number ``at`` (0: never)."""

    def __init__(self, at: int = 0) -> None:
        self.at, self.stores = at, 0

    def burn(self) -> bool:
        """Whether this store is the last."""
        self.stores += 1
        return self.stores == self.at


class Fused:
    """Looks like one of an arena's arrays to a kernel; a slice store that is the last one is done by half."""

    def __init__(self, array: Any, fuse: Fuse) -> None:
        self._array, self._fuse = array, fuse

    def __getitem__(self, i: Any) -> Any:
        return self._array[i]

    def __setitem__(self, i: Any, value: Any) -> None:
        if not np.array_equal(self._array[i], value) and self._fuse.burn():
            if isinstance(i, slice):
                half = (i.stop - i.start) // 2
                self._array[i.start : i.start + half] = value[:half]
            os.kill(os.getpid(), signal.SIGKILL)
        self._array[i] = value

    def __len__(self) -> int:
        return len(self._array)

    @property
    def ctypes(self) -> Any:
        """The array's address, for a system call; what that stores is not counted."""
        return self._array.ctypes
