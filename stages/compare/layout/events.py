"""Events: what a colo-compare's kernel found and its shell logs, in a ring of COUNT records in the segment."""

from __future__ import annotations

from typing import Final

from ring.fields import Words
from stages.packets.layout import parsed

COUNT: Final = 64
SHOWN: Final = 32  # bytes around the difference that are shown of each side

_EVENT = Words("kernels")
REASON: Final = _EVENT.word("reason", "what was found, see `reasons`")
TRANSPORT: Final = _EVENT.word("transport", "protocol of the connection, see `stages.packets.layout.transports`")
POSITION: Final = _EVENT.word("position", "where in the stream or payload, -1: not known; else what `reason` is about")
PRIMARY_LEN: Final = _EVENT.word(
    "primary_len",
    "bytes of the primary's payload from the shown ones on; timeout: of the frame that waits, 0: the other side's;"
    " unknown message: its bytes",
)
SECONDARY_LEN: Final = _EVENT.word(
    "secondary_len",
    "bytes of the secondary's payload from the shown ones on; timeout: of the frame that waits, 0: the other side's",
)
CONN: Final = _EVENT.word("conn", "the connection, 0: it is about none", "row")
KEY: Final = _EVENT.word("key", "the connection's key, as the packet parser writes it", size=parsed.KEY_WORDS)
PRIMARY_BYTES: Final = _EVENT.word(
    "primary_bytes", "bytes of the primary around the difference", "bytes", size=SHOWN // 8
)
SECONDARY_BYTES: Final = _EVENT.word(
    "secondary_bytes", "bytes of the secondary around the difference", "bytes", size=SHOWN // 8
)
OFFSET: Final = _EVENT.word(
    "offset", "where in those bytes the first difference is; timeout: 1, an acknowledgement is waited for"
)
TIME: Final = _EVENT.word("time", "monotonic ns", "ns")
RECORD: Final = _EVENT.word("record", "number + 1 of the record with its packets, 0: none was kept")
RULE: Final = _EVENT.word("rule", "number + 1 of the mask that was in force, 0: none")
FIELDS: Final = _EVENT.fields
WORDS: Final = 32
