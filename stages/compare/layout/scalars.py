"""Scalars of a colo-compare: words of the ledger's row, from layout.ROW_SCALARS on."""

from __future__ import annotations

from typing import Final

from ring.fields import Bits, Values, Words
from stages.compare.layout.options import QUEUE_COUNT

_SCALARS = Words("kernels")
QUEUE_HEAD: Final = _SCALARS.word("queue_head", "by queue: position of the next free slot", size=QUEUE_COUNT)
QUEUE_TAIL: Final = _SCALARS.word("queue_tail", "by queue: position behind the last free slot", size=QUEUE_COUNT)
OLDEST: Final = _SCALARS.word("oldest", "by side: the packet that is held longest, 0: none", "slot+1", size=2)
NEWEST: Final = _SCALARS.word("newest", "by side: the packet that came last of those held, 0: none", "slot+1", size=2)
WORK: Final = _SCALARS.word(
    "work", "first of the connections that can go on as soon as outdev has room, 0: none", "row"
)
GRACE_FIRST: Final = _SCALARS.word("grace_first", "datagram connection that differs longest, 0: none does", "row")
GRACE_LAST: Final = _SCALARS.word("grace_last", "datagram connection that differs least long, 0: none does", "row")
FLUSHING: Final = _SCALARS.word("flushing", "FLUSH_..: everything held leaves before anything is read; 0: not so")
ASKED: Final = _SCALARS.word("asked", "monotonic ns of the request for a checkpoint in flight, 0: none", "ns")
CHECKPOINTS_SEEN: Final = _SCALARS.word("checkpoints_seen", "CMD_CHECKPOINT as last taken")
LINKS: Final = _SCALARS.word("links", "by side: P_LINK of the input as last seen", size=2)
EVENTS: Final = _SCALARS.word("events", "events written so far")
REPLY: Final = _SCALARS.word("reply", "messages owed to notify_out: REPLY_..", "flags")
GENERATION: Final = _SCALARS.word(
    "generation", "2 * (checkpoints and arrivals of a secondary) + 1 where connections pass until they start again"
)
ARMING: Final = _SCALARS.word("arming", "whether there is a secondary to compare with, see `arming`")
RECORDS: Final = _SCALARS.word("records", "records written so far")
RULES_SEEN: Final = _SCALARS.word(
    "rules_seen", "CMD_RULES as last taken: its parity says which copy of the rules is true"
)
FAILOVERS_SEEN: Final = _SCALARS.word("failovers_seen", "CMD_FAILOVER as last taken")
WANTED: Final = _SCALARS.word(
    "wanted", "monotonic ns from which the checkpoint that is wanted may be asked for, 0: none is wanted", "ns"
)
AWAITED: Final = _SCALARS.word(
    "awaited", "monotonic ns since which the answer to a request for a checkpoint is awaited, 0: none is", "ns"
)
ALONE: Final = _SCALARS.word("alone", "monotonic ns since which nobody is joined at notify_dev, 0: somebody is", "ns")
GIVES_UP_AT: Final = _SCALARS.word(
    "gives_up_at", "monotonic ns when connections go on without the checkpoint that was asked for, 0: never", "ns"
)
GIVEN_UP: Final = _SCALARS.word(
    "given_up", "monotonic ns since which they do: as with checkpoint = local, 0: they do not", "ns"
)
HEARD: Final = _SCALARS.word("heard", "monotonic ns when the secondary last answered, or came into step", "ns")
SILENT_NS: Final = _SCALARS.word("silent_ns", "ns for which the primary's packets have waited for it since then", "ns")
WAITS_SINCE: Final = _SCALARS.word(
    "waits_since", "monotonic ns from which on more is to be added to that, 0: nothing waits for it", "ns"
)
SILENT_SINCE: Final = _SCALARS.word("silent_since", "monotonic ns when the secondary was last taken as silent", "ns")
FIELDS: Final = _SCALARS.fields

_FLUSH = Values()
_FLUSH.value("no")
FLUSH_CHECKPOINT: Final = _FLUSH.value("checkpoint")  # the replicas are equal
FLUSH_LOST: Final = _FLUSH.value("secondary lost")
FLUSH_NAMES: Final = _FLUSH.names

_REPLY = Bits()
REPLY_CHECKPOINT: Final = _REPLY.bit("REPLY_CHECKPOINT", "DO_CHECKPOINT")
REPLY_INIT: Final = _REPLY.bit("REPLY_INIT", "COLO_COMPARE_GET_XEN_INIT")
REPLY_NAMES: Final = _REPLY.names
