"""Columns of a replay's private memory, behind memory.HEADER: entry ``i`` of a column is a packet's, or a flow's."""

from __future__ import annotations

from typing import Final

from ring.fields import Words
from stages.packets.layout import parsed

_COLUMN = Words("kernels")
TIME: Final = _COLUMN.word("time", "packet: when it is due, ns after CMD_CLOCK", writer="worker")
AT: Final = _COLUMN.word("at", "packet: byte index of its frame in the arena", writer="worker")
LENGTH: Final = _COLUMN.word("length", "packet: bytes of its frame", writer="worker")
NEED: Final = _COLUMN.word("need", "packet: frames of its flow that must have arrived before it; -1: it is awaited")
FLOW: Final = _COLUMN.word("flow", "packet: its flow, -1: it waits for nothing")
NEXT: Final = _COLUMN.word("next", "packet: the next that its flow emits, options.PACKETS: none")
KEYS: Final = _COLUMN.word("keys", "conversations: their keys, one behind the other", size=parsed.KEY_WORDS)
OUT: Final = _COLUMN.word("out", "conversation: frames of it that are awaited")
NUMBER: Final = _COLUMN.word("number", "conversation: number of its flow, -1: it waits for nothing")
FIRST: Final = _COLUMN.word("first", "flow: the first packet that it emits")
LAST: Final = _COLUMN.word("last", "flow: the last packet that it emits")
FIELDS: Final = _COLUMN.fields
COLUMNS: Final = _COLUMN.end
