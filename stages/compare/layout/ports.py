"""Ports of a colo-compare, by their index in the kernels."""

from __future__ import annotations

PRIMARY_IN, SECONDARY_IN, NOTIFY_IN = range(3)
OUTDEV, NOTIFY_OUT = range(2)
