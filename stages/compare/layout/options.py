"""Options of a colo-compare, and notes of its kernel and shell: private to the incarnation."""

from __future__ import annotations

from typing import Final

from ring import layout
from ring.fields import Values, Words

QUEUE_COUNT: Final = 6  # free queues of slots: side x size class, see `memory`

_OPTIONS = Words("worker", start=layout.OPTIONS)
TABLE: Final = _OPTIONS.word("table", "word index of the connection table")
SLOTS: Final = _OPTIONS.word("slots", "word index of slot 0")
EVENTS: Final = _OPTIONS.word("events", "word index of the events")
RECYCLE: Final = _OPTIONS.word("recycle", "word index of the recycle stacks: slots taken and given back in one burst")
SCRATCH: Final = _OPTIONS.word(
    "scratch", "word index of the scratch for two parsed frames: the one at hand, a held one"
)
TIMEOUT_NS: Final = _OPTIONS.word("timeout_ns", "ns of compare_timeout: so long a packet may wait for its equal")
GRACE_NS: Final = _OPTIONS.word("grace_ns", "ns of reorder_grace_ms: so long datagrams of both sides may differ")
MAX_QUEUE: Final = _OPTIONS.word("max_queue", "packets of a connection and side that are held at most")
STRICT: Final = _OPTIONS.word("strict", "1: ack_policy is strict, a segment waits for the secondary's ack", "bool")
LOCAL: Final = _OPTIONS.word("local", "1: checkpoint is local, so nobody makes checkpoints", "bool")
STUCK: Final = _OPTIONS.word(
    "stuck", "sides that were blocked by a full queue in this burst, a bit each", "flags", writer="kernels"
)
RESUMED: Final = _OPTIONS.word(
    "resumed", "monotonic ns when a long want of room in outdev ended, 0: never", "ns", writer="kernels"
)
WOKE: Final = _OPTIONS.word("woke", "monotonic ns when this process went on that had not run for long, 0: never", "ns")
QUEUES: Final = _OPTIONS.word("queues", "by queue: word index of the free queue", size=QUEUE_COUNT)
MASKS: Final = _OPTIONS.word("masks", "by queue: its length - 1", size=QUEUE_COUNT)
RECYCLED: Final = _OPTIONS.word("recycled", "by queue: slots on its recycle stack", size=QUEUE_COUNT, writer="kernels")
FULL_SINCE: Final = _OPTIONS.word(
    "full_since", "monotonic ns since which outdev is full, 0: it is not", "ns", writer="kernels"
)
CHECKPOINTS: Final = _OPTIONS.word("checkpoints", "word index of what is known of checkpoints, see `checkpoints`")
RULES: Final = _OPTIONS.word("rules", "word index of the rules, see `rules`")
HISTORY: Final = _OPTIONS.word("history", "word index of the history, see `history`; 0: nothing is kept")
RECORDS: Final = _OPTIONS.word("records", "word index of the records, see `records`")
RECORDS_TAKEN: Final = _OPTIONS.word("records_taken", "records that the shell has copied, so that they may go")
INTERVAL_NS: Final = _OPTIONS.word("interval_ns", "least ns between a checkpoint and the next request")
STORM_LIMIT: Final = _OPTIONS.word("storm_limit", "requests within storm_window_ns that make a storm; 0: never")
STORM_WINDOW_NS: Final = _OPTIONS.word("storm_window_ns", "ns in which so many requests make a storm")
STORM_NS: Final = _OPTIONS.word("storm_ns", "ns between two checkpoints in a storm")
OFFER_SINCE: Final = _OPTIONS.word(
    "offer_since",
    "monotonic ns since which the primary waits for a secondary's first word, 0: it does not",
    "ns",
    writer="kernels",
)
TUNNELS: Final = _OPTIONS.word("tunnels", "what becomes of the packets of tunnels: `networks.POLICIES`")
CHECKPOINT_NS: Final = _OPTIONS.word("checkpoint_ns", "ns of checkpoint_timeout: so long a checkpoint is waited for")
OVERDUE: Final = _OPTIONS.word("overdue", "checkpoint_overdue: what becomes of connections after that, OVERDUE_..")
SILENCE_NS: Final = _OPTIONS.word("silence_ns", "ns of silence_timeout, after which a secondary is silent; 0: never")
ANSWERED: Final = _OPTIONS.word("answered", "1: the secondary answered in this burst", "bool", writer="kernels")
FIELDS: Final = _OPTIONS.fields

_OVERDUE = Values()
OVERDUE_WAIT: Final = _OVERDUE.value("wait")
OVERDUE_UNJOINED: Final = _OVERDUE.value("pass_unjoined")
OVERDUE_PASS: Final = _OVERDUE.value("pass")
OVERDUE_NAMES: Final = _OVERDUE.names
