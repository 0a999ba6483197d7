"""Ports of a netdev-pcap, by their index in the kernels."""

from __future__ import annotations

from typing import Final

SEND: Final = 0  # the one input
RECEIVE: Final = 0  # the one output
