"""Ports of a filter-rewriter, by their index in the kernels."""

from __future__ import annotations

TX_IN, RX_IN = range(2)
TX_OUT, RX_OUT = range(2)
