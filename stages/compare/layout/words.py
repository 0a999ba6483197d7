"""colo-compare: ports, counters, options, and its tables as data.

::

    tables   scratch A, scratch B       the frame at hand, a held frame
             events                     EVENTS records of EVENT_WORDS: what the shell logs
             state                      arming, checkpoints, storms: words that change seldom
             rules                      stages.compare.layout.rules: two copies, written by the supervisor
             history, records           stages.compare.layout.evidence: the last packets, and those of the last differences
             recycle                    slots taken and given back within one burst (private to the burst)
             connection table           stages.packets.layout.table, rows of ROW_WORDS
             slots                      one row of SLOT_WORDS for each packet that can be held
             free queues                six: side x size class, rings of slot numbers
             bytes                      the held frames themselves

A *slot* holds one packet.  Its row and its bytes are written plainly when it is taken from a free queue, because no
committed state points to a free slot; links in rows that others point to go through `put`.  A slot given back goes to
the end of its queue and is not taken again before the burst is committed, unless it was taken in the same burst.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ring import layout
from stages.compare.layout import evidence, rules
from stages.kind import OWN_COUNTERS, Counter
from stages.packets.layout import table
from stages.packets.layout.packet import SCRATCH

PRIMARY_IN, SECONDARY_IN, NOTIFY_IN = range(3)
OUTDEV, NOTIFY_OUT = range(2)

# --- counters ---------------------------------------------------------------------------------------------------
COUNTERS: Final = (
    Counter("released", "primary packets sent to outdev after comparison"),
    Counter("released_at_checkpoint", "primary packets sent to outdev because a checkpoint made the replicas equal"),
    Counter(
        "released_uncompared",
        "primary packets never compared (ARP, IPv6 neighbour discovery, what has no IP key)",
    ),
    Counter("released_unarmed", "primary packets sent uncompared while no secondary was in step"),
    Counter("released_by_rule", "primary packets sent uncompared because a rule says so"),
    Counter("held", "packets of both sides that wait for their counterpart now"),
    Counter("held_primary", "primary packets that wait now"),
    Counter("held_secondary", "secondary packets that wait now"),
    Counter("matched", "secondary packets whose payload the primary sent too"),
    Counter("secondary_acks", "secondary segments without data: only their acknowledgement counts"),
    Counter("dropped_at_checkpoint", "secondary packets void because of a checkpoint"),
    Counter("dropped_diverged", "secondary packets of a connection that differed, or is no copy (checkpoint = local)"),
    Counter("dropped_uncompared", "secondary packets that are not compared"),
    Counter("dropped_unarmed", "secondary packets that came while the secondary was not in step"),
    Counter("dropped_by_rule", "secondary packets that a rule says not to compare"),
    Counter("connections", "connections known now"),
    Counter("connections_opened", "connections seen so far"),
    Counter("connections_evicted", "silent connections forgotten to make room"),
    Counter("divergences", "differences between the two outputs"),
    Counter("diverged_payload", "differences in a byte of the payload"),
    Counter("diverged_flags", "differences in FIN or RST"),
    Counter("diverged_order", "datagrams that had no equal within reorder_grace_ms"),
    Counter("diverged_timeout", "packets that waited longer than compare_timeout"),
    Counter("diverged_stuck", "times that both inputs were blocked by full queues"),
    Counter("checkpoints_asked", "requests for a checkpoint"),
    Counter("checkpoints_asked_again", "requests repeated because nobody answered"),
    Counter("checkpoints_periodic", "requests made because time had come, in a storm of differences"),
    Counter("checkpoints", "checkpoints that were answered or announced"),
    Counter("storms", "times that differences came so often that checkpoints became periodic"),
    Counter("arming_state", "0 absent, 1 arming, 2 in step, 3 lost: whether the secondary is compared with"),
    Counter("times_in_step", "times that the secondary came into step"),
    Counter("links_lost", "times that the link to a replica was lost"),
    Counter("fragments", "IP fragments that were put together before comparison"),
    Counter("masked", "differences in bytes that a mask covers"),
    Counter("records", "differences of which the packets were kept, for a file that explains them"),
    Counter("records_skipped", "differences of which no packets were kept, because others were not yet written"),
    Counter("notify_unknown", "messages on notify_dev that mean nothing to us"),
    Counter("backpressure", "duty cycles in which an input waited because a queue was full"),
)
(
    RELEASED,
    RELEASED_AT_CHECKPOINT,
    RELEASED_UNCOMPARED,
    RELEASED_UNARMED,
    RELEASED_BY_RULE,
    HELD,
    HELD_PRIMARY,
    HELD_SECONDARY,
    MATCHED,
    SECONDARY_ACKS,
    DROPPED_AT_CHECKPOINT,
    DROPPED_DIVERGED,
    DROPPED_UNCOMPARED,
    DROPPED_UNARMED,
    DROPPED_BY_RULE,
    CONNECTIONS,
    CONNECTIONS_OPENED,
    CONNECTIONS_EVICTED,
    DIVERGENCES,
    DIVERGED_PAYLOAD,
    DIVERGED_FLAGS,
    DIVERGED_ORDER,
    DIVERGED_TIMEOUT,
    DIVERGED_STUCK,
    CHECKPOINTS_ASKED,
    CHECKPOINTS_ASKED_AGAIN,
    CHECKPOINTS_PERIODIC,
    CHECKPOINTS,
    STORMS,
    ARMING_STATE,
    TIMES_IN_STEP,
    LINKS_LOST,
    FRAGMENTS,
    MASKED,
    RECORDS,
    RECORDS_SKIPPED,
    NOTIFY_UNKNOWN,
    BACKPRESSURE,
) = range(OWN_COUNTERS, OWN_COUNTERS + len(COUNTERS))

# --- options (private to the incarnation) -----------------------------------------------------------------------
O_TABLE: Final = layout.OPTIONS  # word index of the connection table
O_SLOTS: Final = layout.OPTIONS + 1  # word index of slot 0
O_EVENTS: Final = layout.OPTIONS + 2
O_RECYCLE: Final = layout.OPTIONS + 3
O_SCRATCH: Final = layout.OPTIONS + 4
O_TIMEOUT_NS: Final = layout.OPTIONS + 5
O_GRACE_NS: Final = layout.OPTIONS + 6
O_MAX_QUEUE: Final = layout.OPTIONS + 7
O_STRICT: Final = layout.OPTIONS + 8
O_LOCAL: Final = layout.OPTIONS + 9
O_STUCK: Final = layout.OPTIONS + 10  # kernel's note: sides that were blocked by a full queue, a bit each
O_RESUMED: Final = layout.OPTIONS + 11  # kernel's note: monotonic ns when a long want of room in outdev ended, 0: never
O_QUEUES: Final = layout.OPTIONS + 12  # six: word index of the free queue
O_MASKS: Final = layout.OPTIONS + 18  # six: its length - 1
O_RECYCLED: Final = layout.OPTIONS + 24  # six: slots on the recycle stack
O_FULL_SINCE: Final = layout.OPTIONS + 30  # kernel's note: monotonic ns since which outdev is full, 0: it is not
O_STATE: Final = layout.OPTIONS + 31  # word index of the state block
O_RULES: Final = layout.OPTIONS + 32  # word index of the rules, stages.compare.layout.rules
O_HISTORY: Final = layout.OPTIONS + 33  # word index of the history, stages.compare.layout.evidence; 0: nothing is kept
O_RECORDS: Final = layout.OPTIONS + 34  # word index of the records
O_RECORDS_TAKEN: Final = layout.OPTIONS + 35  # shell's note: records that it has written
O_INTERVAL_NS: Final = layout.OPTIONS + 36  # least time between a checkpoint and the next request
O_STORM_LIMIT: Final = layout.OPTIONS + 37  # requests within O_STORM_WINDOW_NS that make a storm; 0: never
O_STORM_WINDOW_NS: Final = layout.OPTIONS + 38
O_STORM_NS: Final = layout.OPTIONS + 39  # between two checkpoints in a storm

# --- scalars ----------------------------------------------------------------------------------------------------
SC_QUEUE_HEAD: Final = 0  # six
SC_QUEUE_TAIL: Final = 6  # six
SC_OLDEST: Final = 12  # by side: slot + 1 of the packet held longest
SC_NEWEST: Final = 14  # by side
SC_WORK: Final = 16  # connections that can go on as soon as outdev has room: row index of the first, 0: none
SC_GRACE_FIRST: Final = 17  # datagram connections whose heads differ, oldest first
SC_GRACE_LAST: Final = 18
SC_FLUSHING: Final = 19  # FLUSH_..: everything held leaves before anything is read
SC_ASKED: Final = 20  # monotonic ns of the request in flight, 0: none
SC_CHECKPOINTS_SEEN: Final = 21  # CMD_CHECKPOINT as far as taken
SC_LINKS: Final = 22  # P_LINK of both inputs as last seen (two scalars)
SC_EVENTS: Final = 24  # events written so far
SC_REPLY: Final = 25  # messages owed to notify_out: bit 0 DO_CHECKPOINT, bit 1 COLO_COMPARE_GET_XEN_INIT
SC_GENERATION: Final = 26  # what rows have to know of: 2 * (checkpoints and arrivals) + 1 where rows are to pass
SC_ARMING: Final = 27  # ABSENT .. LOST
SC_RECORDS: Final = 28  # records written so far
SC_RULES_SEEN: Final = 29  # CMD_RULES as far as taken: its parity says which copy of the rules is true
SC_FAILOVERS_SEEN: Final = 30  # CMD_FAILOVER as far as taken
SC_WANTED: Final = 31  # monotonic ns from which a checkpoint may be asked for that is wanted, 0: none is

# --- the state block: what changes seldom, through `put` ----------------------------------------------------------
ST_SETTLED: Final = 0  # monotonic ns of the last checkpoint, 0: none yet
ST_STORM: Final = 1  # monotonic ns since which checkpoints are periodic, 0: they are not
ST_STORM_COUNT: Final = 2  # requests in the present window
ST_STORM_WINDOW: Final = 3  # monotonic ns of its start
ST_DIVERGED: Final = 4  # monotonic ns of the last difference
ST_MISSED: Final = 5  # 1: the primary said something to clients while no secondary was in step
ST_TOLD: Final = 6  # SC_GENERATION + 1 in which a timeout was told while a request waited for its time
ST_ASKED_AT: Final = 7  # by side: how far its input was filled when the checkpoint was asked for
STATE_WORDS: Final = 9

# Defaults of keys, for a stage that is started without them.
CHECKPOINT_INTERVAL_MS: Final = 20
STORM_CHECKPOINTS: Final = 10
STORM_WINDOW_MS: Final = 2_000
STORM_INTERVAL_MS: Final = 200

FLUSH_CHECKPOINT, FLUSH_LOST = 1, 2  # because the replicas are equal; because there is no secondary

RESERVE: Final = 512  # undo entries that one packet may need: a victim out, a connection in, its lists

ABSENT, ARMING, IN_STEP, LOST = range(4)
ARMING_STATES: Final = ("absent", "arming", "in step", "lost")
ARMING_MOVES: Final = {
    (ABSENT, IN_STEP): "it came before the primary had said anything, so it has missed nothing",
    (ABSENT, ARMING): "it came, but has missed what the primary said before: a checkpoint is needed",
    (ARMING, IN_STEP): "a checkpoint made it a copy of the primary (local: its new connections are compared)",
    (ARMING, LOST): "its link went before it was in step",
    (IN_STEP, LOST): "its link went, or a failover was announced: what it says next can mean nothing",
    (LOST, ARMING): "its link is back, or a checkpoint was made while the link is up",
}
ARMING_PROHIBITED: Final = {
    (LOST, IN_STEP): "packets were lost with the link: it is a copy again only after a checkpoint, in ARMING",
    (IN_STEP, ARMING): "nothing takes it out of step but its loss",
    (ARMING, ABSENT): "it was there: from then on it is lost, not absent",
    (IN_STEP, ABSENT): "as above",
    (LOST, ABSENT): "as above",
    (ABSENT, LOST): "what never was there cannot be lost",
}

# --- connection rows ----------------------------------------------------------------------------------------------
# What every packet needs comes first: it lies in few cache lines.
C_FLAGS: Final = table.ROW_HEADER
C_COMPARED: Final = table.ROW_HEADER + 1  # sequence number up to which both streams were equal
C_P_NEXT: Final = table.ROW_HEADER + 2  # end of what the primary has sent
C_P_MAX_ACK: Final = table.ROW_HEADER + 3
C_S_MAX_ACK: Final = table.ROW_HEADER + 4
C_LIFE: Final = table.ROW_HEADER + 5  # which of the secondary's lives is compared: a SYN begins a new one
C_S_LIFE: Final = table.ROW_HEADER + 6  # the secondary's life that its packets belong to now
C_EPOCH: Final = table.ROW_HEADER + 7  # SC_GENERATION as far as the row knows it
C_RULE: Final = table.ROW_HEADER + 8  # number + 1 of the rule that its packets fall under, 0: none
C_RULES_EPOCH: Final = table.ROW_HEADER + 9  # SC_RULES_SEEN when that was found, + 1; 0: never looked
C_P_ISN: Final = table.ROW_HEADER + 10
C_S_ISN: Final = table.ROW_HEADER + 11
C_CURSOR: Final = table.ROW_HEADER + 12  # slot + 1 of the first held primary packet that ends after C_COMPARED
C_VERDICT: Final = table.ROW_HEADER + 13  # stages.packets.layout.packet: TCP, UDP ..
C_HEAD: Final = table.ROW_HEADER + 14  # three lists: slot + 1 of the first
C_COUNT: Final = table.ROW_HEADER + 17  # packets
C_TAIL: Final = table.ROW_HEADER + 20  # slot + 1 of the last
C_WORK_NEXT: Final = table.ROW_HEADER + 23  # next on the work list
C_MASK_P: Final = table.ROW_HEADER + 24  # state of the mask's automaton in each stream at C_COMPARED
C_MASK_S: Final = table.ROW_HEADER + 25
C_GRACE_NEXT: Final = table.ROW_HEADER + 26
C_GRACE_PREV: Final = table.ROW_HEADER + 27
C_GRACE_SINCE: Final = table.ROW_HEADER + 28  # monotonic ns since which the heads differ; 0: not on the grace list
C_TS_FLOOR: Final = table.ROW_HEADER + 29  # TSval of what has overtaken held segments
ROW_WORDS: Final = table.ROW_HEADER + 30

PACKETS, ACKS, SECONDARY = range(3)
"""A connection's lists: primary packets by sequence, those of its segments that need no comparison,
secondary packets by sequence."""

CF_SYNCED: Final = 1  # C_COMPARED is known
CF_P_SYN: Final = 2  # the primary's SYN waits for the secondary's
CF_SYN_MATCHED: Final = 8
CF_S_ACK: Final = 16  # C_S_MAX_ACK is known
CF_P_ACK: Final = 32
CF_P_RST: Final = 64
CF_S_RST: Final = 128
CF_PASS: Final = 256  # differed, and nobody makes checkpoints: the primary's packets pass uncompared
CF_WORK: Final = 512  # on the work list
CF_P_NEXT: Final = 1024  # C_P_NEXT is known
CF_DIVERGED: Final = 2048  # differed; nothing more is compared until the checkpoint
CF_RULE: Final = 4096  # a rule lets it pass
CF_OVERTAKEN: Final = 8192  # held segments have been overtaken by one that was sent again: C_TS_FLOOR is known
PASSES: Final = CF_PASS | CF_RULE

# --- slots ------------------------------------------------------------------------------------------------------
S_NEXT, S_PREV, S_LATER, S_EARLIER, S_CONN, S_FRAME, S_V, S_TIME = range(8)
S_SEQ, S_END, S_ACK, S_FLAGS, S_DATA, S_DATA_LEN, S_BURST, S_LIST = range(8, 16)
S_BYTES: Final = 16  # byte index of the slot's space; never changes
S_GROUP: Final = 17  # side * 3 + class; never changes
S_LIFE: Final = 18  # secondary: C_S_LIFE when it came
S_FRAMES: Final = 19  # frames that it stands for: 1, or the fragments of a datagram that was put together
S_PARTS: Final = 20  # slot + 1 of the first of those fragments, in order of arrival by S_SIBLING; 0: a frame itself
S_EMIT: Final = 21  # bytes that it takes in outdev, length words included
S_SIBLING: Final = 22  # slot + 1 of the next fragment of the same datagram, 0: the last
SLOT_WORDS: Final = 23

CLASS_BYTES: Final = (256, 2048, -(-layout.MAX_FRAME // 64) * 64)

# --- events -------------------------------------------------------------------------------------------------------
EVENTS: Final = 64
EVENT_WORDS: Final = 32
E_REASON, E_VERDICT, E_POSITION, E_P_LEN, E_S_LEN, E_CONN = range(6)
E_KEY: Final = 6  # six words
E_P_BYTES: Final = 12  # 32 bytes around the difference, primary then secondary
E_S_BYTES: Final = 16
E_OFFSET: Final = 20  # where in those bytes the first difference is; R_TIMEOUT: 1, an acknowledgement is waited for
E_TIME: Final = 21
E_RECORD: Final = 22  # number + 1 of the record with its packets, 0: none was kept
E_RULE: Final = 23  # number + 1 of the mask that was in force, 0: none
EVENT_BYTES: Final = 32

REASONS: Final = (
    "",
    "payload",
    "flags",
    "order",
    "timeout",
    "stuck",
    "link lost",
    "checkpoint",
    "unknown message",
    "arming",
    "storm",
)
R_PAYLOAD, R_FLAGS, R_ORDER, R_TIMEOUT, R_STUCK, R_LINK, R_CHECKPOINT, R_MESSAGE, R_ARMING, R_STORM = range(1, 11)


def slots(params: Mapping[str, Any]) -> tuple[int, int, int]:
    """How many packets of each size class one side can hold: a quarter, a half and a quarter of half the memory."""
    side = int(params["hold_memory"]) // 2
    return (
        max(64, side // 4 // CLASS_BYTES[0]),
        max(64, side // 2 // CLASS_BYTES[1]),
        max(4, side // 4 // CLASS_BYTES[2]),
    )


def queue_words(count: int) -> int:
    """Length of a free queue: entries given back in a burst never overlap those taken in it."""
    return 1 << (2 * count - 1).bit_length()


def places(params: Mapping[str, Any], start: int) -> dict[str, int]:
    """Word index of each part of the tables, which begin at ``start``; ``end`` is where they end."""
    counts = slots(params)
    at = {"scratch": start}
    at["events"] = at["scratch"] + 2 * SCRATCH
    at["state"] = at["events"] + EVENTS * EVENT_WORDS
    at["rules"] = at["state"] + STATE_WORDS
    at["history"] = at["rules"] + rules.WORDS
    at["records"] = at["history"] + 2 * evidence.HISTORY * evidence.HISTORY_WORDS
    at["recycle"] = at["records"] + evidence.RECORDS * evidence.RECORD_WORDS
    at["table"] = at["recycle"] + sum(queue_words(n) for n in counts)
    at["slots"] = at["table"] + table.words(int(params["max_connections"]), ROW_WORDS)
    at["queues"] = at["slots"] + 2 * sum(counts) * SLOT_WORDS
    at["bytes"] = at["queues"] + 2 * sum(queue_words(n) for n in counts)
    at["end"] = at["bytes"] + 2 * sum(n * size for n, size in zip(counts, CLASS_BYTES, strict=True)) // 8
    return at
