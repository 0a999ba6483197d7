"""The port of a netdev-null, by its index in the kernels."""

from __future__ import annotations

from typing import Final

SEND: Final = 0
