"""Flags of a TCP header (RFC 9293, 3.1), as they stand in its byte 13."""

from __future__ import annotations

from typing import Final

FIN: Final = 1
SYN: Final = 2
RST: Final = 4
PSH: Final = 8
ACK: Final = 16
URG: Final = 32
CWR: Final = 128
FLAG_NAMES: Final = ("FIN", "SYN", "RST", "PSH", "ACK")
