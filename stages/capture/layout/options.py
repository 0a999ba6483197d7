"""Options of a netdev-pcap: where its kernel finds the capture, and how it is replayed."""

from __future__ import annotations

from typing import Final

from ring import layout
from ring.fields import Words

_OPTIONS = Words("worker", start=layout.OPTIONS)
BASE: Final = _OPTIONS.word("base", "word index of the private memory")
PACKETS: Final = _OPTIONS.word("packets", "packets of the capture: the length of each column")
MASK: Final = _OPTIONS.word("mask", "slots of the flow index, less one")
FLOWS: Final = _OPTIONS.word("flows", "word index of the state of flow 0")
PATIENCE: Final = _OPTIONS.word("patience", "ns that a flow waits for the frames that it answers")
ASAP: Final = _OPTIONS.word("asap", "1: frames are emitted as soon as they may be, whatever their time", "bool")
WRITE: Final = _OPTIONS.word("write", "word index of the recorder, 0: none")
BOTH: Final = _OPTIONS.word("both", "1: frames that are emitted are recorded, too", "bool")
FIELDS: Final = _OPTIONS.fields
