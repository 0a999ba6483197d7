"""Sizes of rings as people write them.  Imports neither NumPy nor Numba: the supervisor reads configs with it."""

from __future__ import annotations

import re
from typing import Final

from ring import errors, layout

_SIZE: Final = re.compile(r"([0-9]+)\s*([KMG]iB|B|)", re.IGNORECASE | re.ASCII)
_UNITS: Final = {"": 1, "B": 1, "KIB": 1024, "MIB": 1024**2, "GIB": 1024**3}
LARGEST: Final = 1 << 40  # beyond any /dev/shm, and far from where a position could overflow


def parse_size(size: int | str) -> int:
    """Bytes of ``"4MiB"``, ``"64 KiB"`` or ``65536``.  Raises `BadSize`."""
    if isinstance(size, int) and not isinstance(size, bool):
        return size
    found = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    if found is None:
        raise errors.BadSize(f'{size!r} is no size: write bytes or "64KiB", "4MiB", "1GiB"')
    return int(found[1]) * _UNITS[found[2].upper()]


def check_size(size: int | str) -> int:
    """``size`` in bytes if a ring can have it.  Raises `BadSize` and names the next one that is right."""
    n = parse_size(size)
    if n < layout.PAGE or n & (n - 1) or n > LARGEST:
        above = min(max(layout.PAGE, 1 << max(n - 1, 1).bit_length()), LARGEST)
        raise errors.BadSize(f"a ring of {n:,} bytes: it must be a power of two from {layout.PAGE:,} on, say {above:,}")
    return n


def show_size(n: int) -> str:
    """``n`` bytes for people: ``4MiB``, ``1.5MiB``, ``512B``."""
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if n >= size:
            return f"{n / size:.1f}".removesuffix(".0") + unit
    return f"{n}B"
