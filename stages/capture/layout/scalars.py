"""Scalars of a netdev-pcap: words of the ledger's row, from layout.ROW_SCALARS on."""

from __future__ import annotations

from typing import Final

from ring.fields import Words

_SCALARS = Words("kernels")
CURSOR: Final = _SCALARS.word("cursor", "packets of the capture that were passed: emitted, or left to their flow")
PROGRESS: Final = _SCALARS.word("progress", "monotonic ns of the last burst that moved a frame", "ns")
FILE_LENGTH: Final = _SCALARS.word("file_length", "bytes of the capture `write` that count", writer="worker")
FIELDS: Final = _SCALARS.fields
