"""Ports of a filter-redirector, by their index in the kernels."""

from __future__ import annotations

TX_IN, RX_IN, INDEV = range(3)
TX_OUT, RX_OUT, OUTDEV = range(3)
