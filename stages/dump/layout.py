"""filter-dump: ports, counters, and the words that kernels and shell share."""

from __future__ import annotations

from typing import Final

from ring.fields import Words
from ring.layout import OPTIONS, Counters

TX, RX = range(2)
"""Both directions: the input of a direction and the output that it leads to have the same index."""

_OWN = Counters()
RECORDED: Final = _OWN.counter("recorded", "packets that went into a file")
UNRECORDED: Final = _OWN.counter("unrecorded", "packets that went into none, because the file could not be written")
PASSED_OFF: Final = _OWN.counter("passed_off", "packets passed while the status was off")
COUNTERS: Final = _OWN.listed

_SCALARS = Words("worker")
LENGTH: Final = _SCALARS.word("length", "bytes of the present file that count")
SERIAL: Final = _SCALARS.word("serial", "which file of this run it is, from 1; 0: none was committed")
SCALARS: Final = _SCALARS.fields

_TABLE = Words("worker")
RUN: Final = _TABLE.word("run", "what the beginnings of this run's files have in common; drawn once, before the first")
TABLE_FIELDS: Final = _TABLE.fields

_OPEN = Words("kernels", start=OPTIONS)
ROW: Final = _OPEN.word("row", "row of the burst that `dump_open` began")
WORK: Final = _OPEN.word("work", "frames that it moved")
FROM: Final = _OPEN.word("from", "by direction: position in the input of the first frame that it moved", size=2)
TO: Final = _OPEN.word("to", "by direction: position behind the last one", size=2)
RECORDING: Final = _OPEN.word("recording", "the status, as it was when the burst was opened", "bool")
FIELDS: Final = _OPEN.fields
