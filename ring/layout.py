"""Where every shared word lives: tables as data, one writer a word.

All offsets are in 8-byte words from the start of the segment unless they say bytes.  A *ring segment*::

    byte 0                4096                4096 + size          4096 + 2 * size
    | header page          | data              | data once more     |
    |                      |  (the same pages, mapped twice, so that a record never wraps)

    word  0  magic .. digest      written once, by the creator; the state by the owner
    word 16  name of the producer written by it when it claims its end
    word 24  name of the consumer written by it when it claims its end
    word 32  the producer's words (line of their own: 128 bytes)
    word 48  the consumer's words (line of their own)

A *stage segment* holds what one stage must not lose when its process dies::

    word    0  header          magic .. digest, kind's name    supervisor
    word   16  commands        status, checkpoint, drain ..    supervisor
    word   32  life            heartbeat, ready, busy ..       the stage's process
    word   48  undo header     entries, burst                  the stage's kernels
    word   64  parameters      ring offsets, options           the stage's process, at attach
    word  128  committed       the commit point                the stage's kernels
    word  144  row A           heads, tails, scalars, counters the stage's kernels
    word  304  row B           the same; `committed & 1` tells which of the two is true
    word  464  histograms      ring latency, by input          the stage's kernels
    word 1488  control         where its supervisor listens .. supervisor
    word 2048  undo log        (index, old value) pairs        the stage's kernels
    word  ...  tables          connections, held packets ..    the stage's kernels
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ring.fields import Words

LAYOUT_VERSION: Final = 2
RING_MAGIC: Final = 0x434F4C4F52494E47  # "COLORING"
STAGE_MAGIC: Final = 0x434F4C4F53544147  # "COLOSTAG"

PAGE: Final = 4096
MAX_FRAME: Final = 69_632  # the largest L of a chardev frame: 4,096 + 65,536 (QEMU's NET_BUFSIZE)
MAX_RECORD: Final = MAX_FRAME + 8  # with both length words

# --- ring segment -----------------------------------------------------------------------------------------------
_RING = Words("creator")
MAGIC: Final = _RING.word("magic", "RING_MAGIC")
VERSION: Final = _RING.word("version", "LAYOUT_VERSION")
SIZE: Final = _RING.word("size", "bytes of the data area, a power of two")
VNET: Final = _RING.word("vnet", "1: frames carry the second length word V", "bool")
STATE: Final = _RING.word(
    "state", "RING_OPEN .. RING_CLOSED; a lone ring's owner is its supervisor", writer="supervisor"
)
OWNER_PID: Final = _RING.word("owner_pid", "process that owns the segment")
OWNER_START: Final = _RING.word("owner_start", "its start time, in clock ticks since boot")
DIGEST: Final = _RING.word("digest", "digest of the plan that made it; 0 for a lone ring")

# P_ is the producer's, C_ the consumer's: the two ends of a ring have the same words.
NAME_BYTES: Final = 64
_RING.skip_to(16)
P_NAME: Final = _RING.word("p_name", "its label, NUL-padded UTF-8", "text", NAME_BYTES // 8, writer="producer")
C_NAME: Final = _RING.word("c_name", "its label, NUL-padded UTF-8", "text", NAME_BYTES // 8, writer="consumer")
NAMES_BYTE: Final = P_NAME * 8  # where the two names begin

_PRODUCER = Words("producer", start=32)
TAIL: Final = _PRODUCER.word("tail", "byte position up to which frames are published")
P_LINK: Final = _PRODUCER.word("p_link", "odd: its outside peer is connected; counts both edges")
P_PID: Final = _PRODUCER.word("p_pid", "0: no producer")
P_START: Final = _PRODUCER.word("p_start", "start time of p_pid")
P_ASLEEP: Final = _PRODUCER.word("p_asleep", "1: waits for room, ring its doorbell", "bool")
P_BELL_FD: Final = _PRODUCER.word("p_bell_fd", "its doorbell: descriptor in p_pid")
P_BELL_INO: Final = _PRODUCER.word("p_bell_ino", "its doorbell: inode, proves the descriptor")
SAMPLE_POS: Final = _PRODUCER.word("sample_pos", "latency sample: end position of a published burst")
SAMPLE_NS: Final = _PRODUCER.word("sample_ns", "latency sample: monotonic time of that commit", "ns")
P_OFFERED: Final = _PRODUCER.word(
    "p_offered", "1: somebody is connected to it who has sent nothing yet, and so is no peer", "bool"
)

_CONSUMER = Words("consumer", start=48)
HEAD: Final = _CONSUMER.word("head", "byte position up to which frames are consumed")
C_LINK: Final = _CONSUMER.word("c_link", "odd: its outside peer is connected, or somebody who may become it; as p_link")
C_PID: Final = _CONSUMER.word("c_pid", "0: no consumer")
C_START: Final = _CONSUMER.word("c_start", "start time of c_pid")
C_ASLEEP: Final = _CONSUMER.word("c_asleep", "1: waits for frames, ring its doorbell", "bool")
C_BELL_FD: Final = _CONSUMER.word("c_bell_fd", "its doorbell: descriptor in c_pid")
C_BELL_INO: Final = _CONSUMER.word("c_bell_ino", "its doorbell: inode, proves the descriptor")

RING_FIELDS: Final = (*_RING.fields, *_PRODUCER.fields, *_CONSUMER.fields)

RING_OPEN: Final = 1
RING_DRAINING: Final = 2
RING_CLOSED: Final = 3
# From, to: why.  What is not here is prohibited; the prohibited moves that one might expect are named below.
RING_MOVES: Final = {
    (RING_OPEN, RING_DRAINING): "the sources were told to stop; what is inside still goes out",
    (RING_OPEN, RING_CLOSED): "the owner leaves at once",
    (RING_DRAINING, RING_CLOSED): "empty, or shutdown_ms is over",
}
RING_PROHIBITED: Final = {
    (RING_CLOSED, RING_OPEN): "an end may already have gone; a new ring needs a new segment",
    (RING_DRAINING, RING_OPEN): "the producer has stopped at a place that it does not remember",
}

# --- stage segment ----------------------------------------------------------------------------------------------
_STAGE = Words("supervisor")  # magic, version, owner and digest are at the same places as in a ring
_STAGE.word("magic", "STAGE_MAGIC")
_STAGE.word("version", "LAYOUT_VERSION")
STAGE_WORDS: Final = _STAGE.word("stage_words", "length of the segment in words")
STAGE_EPOCH: Final = _STAGE.word("stage_epoch", "incarnation number of the stage's process, from 1")
_STAGE.skip_to(OWNER_PID)
_STAGE.word("owner_pid", "the supervisor")
_STAGE.word("owner_start", "its start time")
_STAGE.word("digest", "digest of the plan that made it")
KIND_NAME: Final = _STAGE.word("kind_name", "the stage's kind, NUL-padded UTF-8", "text", NAME_BYTES // 8)

_COMMANDS = Words("supervisor", start=16)
CMD_STATUS: Final = _COMMANDS.word("cmd_status", "1 on, 0 off (a filter that is off is transparent)", "bool")
CMD_CHECKPOINT: Final = _COMMANDS.word("cmd_checkpoint", "how many checkpoints the control socket announced")
CMD_FAILOVER: Final = _COMMANDS.word("cmd_failover", "how many failovers the control socket announced")
CMD_DRAIN: Final = _COMMANDS.word("cmd_drain", "1: a source takes no more from outside", "bool")
CMD_STOP: Final = _COMMANDS.word("cmd_stop", "epoch that has to leave")
CMD_CLOCK: Final = _COMMANDS.word("cmd_clock", "monotonic ns of the captures' first packet; 0: wait", "ns")
CMD_RULES: Final = _COMMANDS.word("cmd_rules", "sets of rules written so far; its parity says which copy is true")
CMD_ANNOUNCE: Final = _COMMANDS.word("cmd_announce", "how many announcements to the network were asked for")

_LIFE = Words("worker", start=32)
LIFE_HEARTBEAT: Final = _LIFE.word("life_heartbeat", "monotonic ns of the last duty cycle", "ns")
LIFE_READY: Final = _LIFE.word("life_ready", "epoch that is attached and connected")
LIFE_PID: Final = _LIFE.word("life_pid", "its process")
LIFE_FINISHED: Final = _LIFE.word("life_finished", "1: a finite source has nothing more to give", "bool")
LIFE_BUSY_NS: Final = _LIFE.word("life_busy_ns", "ns spent in duty cycles that did work")
LIFE_CYCLES: Final = _LIFE.word("life_cycles", "duty cycles that did work")
LIFE_SLEEPS: Final = _LIFE.word("life_sleeps", "times it went to sleep on its doorbell")

_UNDO = Words("kernels", start=48)
UNDO_N: Final = _UNDO.word("undo_n", "entries in the undo log")
UNDO_BURST: Final = _UNDO.word("undo_burst", "burst that the log belongs to")
UNDO_CAPACITY: Final = _UNDO.word("undo_capacity", "entries that the log can hold", writer="worker")
BLOCKED: Final = _UNDO.word("blocked", "outputs that the last duty cycle found full, a bit each", "flags")

PORTS: Final = 8  # the most inputs, and the most outputs, of one stage
OPTION_WORDS: Final = 48
_PARAMETERS = Words("worker", start=64)
INPUTS: Final = _PARAMETERS.word("inputs", "word offset of each input ring in the arena, 0: none", size=PORTS)
OUTPUTS: Final = _PARAMETERS.word("outputs", "word offset of each output ring in the arena, 0: none", size=PORTS)
OPTIONS: Final = _PARAMETERS.word("options", "options: what they mean, the stage's kind says", size=OPTION_WORDS)

# A row: cursors, scalars and counters of a stage, as of one burst.
SCALARS: Final = 64
COUNTERS: Final = 80
OWN_COUNTERS: Final = 2 * PORTS
"""Counters 0 to 7 are frames taken from each input, 8 to 15 frames put into each output; a kind's own follow."""

_ROW = Words("kernels")
ROW_HEADS: Final = _ROW.word("row_heads", "byte position up to which each input was read", size=PORTS)
ROW_TAILS: Final = _ROW.word("row_tails", "byte position up to which each output was written", size=PORTS)
ROW_SCALARS: Final = _ROW.word("row_scalars", "a kind's own state, a word each", size=SCALARS)
ROW_COUNTERS: Final = _ROW.word("row_counters", "frames by input, frames by output, a kind's own", size=COUNTERS)
ROW_WORDS: Final = _ROW.end
ROW_FIELDS: Final = _ROW.fields

_BURSTS = Words("kernels", start=128)
COMMITTED: Final = _BURSTS.word("committed", "number of the last burst that counts")
_BURSTS.skip_to(144)
ROW_A: Final = _BURSTS.word("row_a", "true while committed is even", size=ROW_WORDS)
ROW_B: Final = _BURSTS.word("row_b", "true while committed is odd", size=ROW_WORDS)
ROWS: Final = ROW_A

BUCKETS: Final = 128  # log-linear, four to an octave, of nanoseconds
HISTOGRAMS: Final = _BURSTS.word("histograms", "time that samples spent in each input ring", size=PORTS * BUCKETS)

_WHERE = Words("supervisor", start=_BURSTS.end)
CONTROL_BYTES: Final = 128
CONFIG_BYTES: Final = 1024
CONTROL: Final = _WHERE.word(
    "control", "path of its supervisor's control socket, NUL-padded; empty: not said", "text", CONTROL_BYTES // 8
)
CONFIG: Final = _WHERE.word(
    "config", "path of its supervisor's config, NUL-padded; empty: not said, or too long", "text", CONFIG_BYTES // 8
)
UNDO: Final = 2048  # the undo log: entries
_ENTRY = Words("kernels")
UNDO_WORD: Final = _ENTRY.word("undo_word", "index of the word that was changed")
UNDO_BEFORE: Final = _ENTRY.word("undo_before", "its value before that")
UNDO_FIELDS: Final = _ENTRY.fields
UNDO_ENTRY: Final = _ENTRY.end  # words of an entry

STAGE_FIELDS: Final = (
    *_STAGE.fields,
    *_COMMANDS.fields,
    *_LIFE.fields,
    *_UNDO.fields,
    *_PARAMETERS.fields,
    *_BURSTS.fields,
    *_WHERE.fields,
)


def true_row(w: Any) -> int:
    """Word index of the committed row of a stage's segment, for what is not compiled (`ring.kernels.ledger` has it)."""
    return ROWS + (int(w[COMMITTED]) & 1) * ROW_WORDS


# --- a kind's counters ------------------------------------------------------------------------------------------
class Counter(NamedTuple):
    """A counter's name and one sentence that says what it counts."""

    name: str
    sentence: str


class Counters:
    """Counters of a kind in the making: each `counter` takes the next index of a row's counters.

    One line a counter is its constant, its name and its sentence: ``SENT: Final = _OWN.counter("sent", "frames ...")``.
    """

    def __init__(self) -> None:
        self._listed: list[Counter] = []

    def counter(self, name: str, sentence: str) -> int:
        """The index of a new counter."""
        self._listed.append(Counter(name, sentence))
        return OWN_COUNTERS + len(self._listed) - 1

    @property
    def listed(self) -> tuple[Counter, ...]:
        """Those made so far, in the order of their indices."""
        return tuple(self._listed)
