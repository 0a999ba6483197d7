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

    word    0  header          magic .. epoch                  supervisor
    word   16  commands        status, checkpoint, drain ..    supervisor
    word   32  life            heartbeat, ready, busy ..       the stage's process
    word   48  undo header     entries, burst                  the stage's kernels
    word   64  parameters      ring offsets, options           the stage's process, at attach
    word  128  committed       the commit point                the stage's kernels
    word  144  row A           heads, tails, scalars, counters the stage's kernels
    word  272  row B           the same; `committed & 1` tells which of the two is true
    word  400  histograms      ring latency, by input          the stage's kernels
    word 2048  undo log        (index, old value) pairs        the stage's kernels
    word  ...  tables          connections, held packets ..    the stage's kernels
"""

from __future__ import annotations

from typing import Final

from ring.fields import Field

LAYOUT_VERSION: Final = 1
RING_MAGIC: Final = 0x434F4C4F52494E47  # "COLORING"
STAGE_MAGIC: Final = 0x434F4C4F53544147  # "COLOSTAG"

PAGE: Final = 4096
MAX_FRAME: Final = 69_632  # the largest L of a chardev frame: 4,096 + 65,536 (QEMU's NET_BUFSIZE)
MAX_RECORD: Final = MAX_FRAME + 8  # with both length words

# --- ring segment -----------------------------------------------------------------------------------------------
MAGIC: Final = 0
VERSION: Final = 1
SIZE: Final = 2
VNET: Final = 3
STATE: Final = 4
OWNER_PID: Final = 5
OWNER_START: Final = 6
DIGEST: Final = 7

TAIL: Final = 32
P_LINK: Final = 33
P_PID: Final = 34
P_START: Final = 35
P_ASLEEP: Final = 36
P_BELL_FD: Final = 37
P_BELL_INO: Final = 38
SAMPLE_POS: Final = 39
SAMPLE_NS: Final = 40

HEAD: Final = 48
C_LINK: Final = 49
C_PID: Final = 50
C_START: Final = 51
C_ASLEEP: Final = 52
C_BELL_FD: Final = 53
C_BELL_INO: Final = 54

NAMES_BYTE: Final = 128  # two names of 64 bytes, NUL-padded UTF-8: producer, consumer
NAME_BYTES: Final = 64

RING_FIELDS: Final = (
    Field("magic", MAGIC, 1, "creator", "RING_MAGIC"),
    Field("version", VERSION, 1, "creator", "LAYOUT_VERSION"),
    Field("size", SIZE, 1, "creator", "bytes of the data area, a power of two"),
    Field("vnet", VNET, 1, "creator", "1: frames carry the second length word V"),
    Field("state", STATE, 1, "supervisor", "RING_OPEN .. RING_CLOSED; a lone ring's owner is its supervisor"),
    Field("owner_pid", OWNER_PID, 1, "creator", "process that owns the segment"),
    Field("owner_start", OWNER_START, 1, "creator", "its start time, in clock ticks since boot"),
    Field("digest", DIGEST, 1, "creator", "digest of the plan that made it; 0 for a lone ring"),
    Field("p_name", NAMES_BYTE // 8, 8, "producer", "its label, NUL-padded UTF-8"),
    Field("c_name", NAMES_BYTE // 8 + 8, 8, "consumer", "its label, NUL-padded UTF-8"),
    Field("tail", TAIL, 1, "producer", "byte position up to which frames are published"),
    Field("p_link", P_LINK, 1, "producer", "odd: its outside peer is connected; counts both edges"),
    Field("p_pid", P_PID, 1, "producer", "0: no producer"),
    Field("p_start", P_START, 1, "producer", "start time of p_pid"),
    Field("p_asleep", P_ASLEEP, 1, "producer", "1: waits for room, ring its doorbell"),
    Field("p_bell_fd", P_BELL_FD, 1, "producer", "its doorbell: descriptor in p_pid"),
    Field("p_bell_ino", P_BELL_INO, 1, "producer", "its doorbell: inode, proves the descriptor"),
    Field("sample_pos", SAMPLE_POS, 1, "producer", "latency sample: end position of a published burst"),
    Field("sample_ns", SAMPLE_NS, 1, "producer", "latency sample: monotonic time of that commit"),
    Field("head", HEAD, 1, "consumer", "byte position up to which frames are consumed"),
    Field("c_link", C_LINK, 1, "consumer", "odd: its outside peer is connected; counts both edges"),
    Field("c_pid", C_PID, 1, "consumer", "0: no consumer"),
    Field("c_start", C_START, 1, "consumer", "start time of c_pid"),
    Field("c_asleep", C_ASLEEP, 1, "consumer", "1: waits for frames, ring its doorbell"),
    Field("c_bell_fd", C_BELL_FD, 1, "consumer", "its doorbell: descriptor in c_pid"),
    Field("c_bell_ino", C_BELL_INO, 1, "consumer", "its doorbell: inode, proves the descriptor"),
)

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
S_WORDS: Final = 2
S_EPOCH: Final = 3  # magic, version, owner and digest are at the same places as in a ring

CMD_STATUS: Final = 16
CMD_CHECKPOINT: Final = 17
CMD_FAILOVER: Final = 18
CMD_DRAIN: Final = 19
CMD_STOP: Final = 20
CMD_CLOCK: Final = 21
CMD_RULES: Final = 22

LIFE_HEARTBEAT: Final = 32
LIFE_READY: Final = 33
LIFE_PID: Final = 34
LIFE_FINISHED: Final = 35
LIFE_BUSY_NS: Final = 36
LIFE_CYCLES: Final = 37
LIFE_SLEEPS: Final = 38

UNDO_N: Final = 48
UNDO_BURST: Final = 49
UNDO_CAPACITY: Final = 50
BLOCKED: Final = 51

PORTS: Final = 8  # the most inputs, and the most outputs, of one stage
P_INPUTS: Final = 64
P_OUTPUTS: Final = 72
P_OPTIONS: Final = 80  # 48 words of options, their meaning is the stage kind's

COMMITTED: Final = 128
ROWS: Final = 144
ROW_WORDS: Final = 128
R_HEADS: Final = 0
R_TAILS: Final = 8
R_SCALARS: Final = 16
R_COUNTERS: Final = 48
SCALARS: Final = 32
COUNTERS: Final = 80

HISTOGRAMS: Final = 400
BUCKETS: Final = 128  # log-linear, four to an octave, of nanoseconds
UNDO: Final = 2048

STAGE_FIELDS: Final = (
    Field("magic", MAGIC, 1, "supervisor", "STAGE_MAGIC"),
    Field("version", VERSION, 1, "supervisor", "LAYOUT_VERSION"),
    Field("words", S_WORDS, 1, "supervisor", "length of the segment in words"),
    Field("epoch", S_EPOCH, 1, "supervisor", "incarnation number of the stage's process, from 1"),
    Field("owner_pid", OWNER_PID, 1, "supervisor", "the supervisor"),
    Field("owner_start", OWNER_START, 1, "supervisor", "its start time"),
    Field("digest", DIGEST, 1, "supervisor", "digest of the plan that made it"),
    Field("status", CMD_STATUS, 1, "supervisor", "1 on, 0 off (a filter that is off is transparent)"),
    Field("checkpoint", CMD_CHECKPOINT, 1, "supervisor", "how many checkpoints the control socket announced"),
    Field("failover", CMD_FAILOVER, 1, "supervisor", "how many failovers the control socket announced"),
    Field("drain", CMD_DRAIN, 1, "supervisor", "1: a source takes no more from outside"),
    Field("stop", CMD_STOP, 1, "supervisor", "epoch that has to leave"),
    Field("clock", CMD_CLOCK, 1, "supervisor", "monotonic ns of the captures' first packet; 0: wait"),
    Field("rules", CMD_RULES, 1, "supervisor", "sets of rules written so far; its parity says which copy is true"),
    Field("heartbeat", LIFE_HEARTBEAT, 1, "worker", "monotonic ns of the last duty cycle"),
    Field("ready", LIFE_READY, 1, "worker", "epoch that is attached and connected"),
    Field("pid", LIFE_PID, 1, "worker", "its process"),
    Field("finished", LIFE_FINISHED, 1, "worker", "1: a finite source has nothing more to give"),
    Field("busy_ns", LIFE_BUSY_NS, 1, "worker", "time spent in duty cycles that did work"),
    Field("cycles", LIFE_CYCLES, 1, "worker", "duty cycles that did work"),
    Field("sleeps", LIFE_SLEEPS, 1, "worker", "times it went to sleep on its doorbell"),
    Field("undo_n", UNDO_N, 1, "kernels", "entries in the undo log"),
    Field("undo_burst", UNDO_BURST, 1, "kernels", "burst that the log belongs to"),
    Field("undo_capacity", UNDO_CAPACITY, 1, "worker", "entries that the log can hold"),
    Field("blocked", BLOCKED, 1, "kernels", "outputs that the last duty cycle found full, a bit each"),
    Field("inputs", P_INPUTS, PORTS, "worker", "word offset of each input ring in the arena, 0: none"),
    Field("outputs", P_OUTPUTS, PORTS, "worker", "word offset of each output ring in the arena, 0: none"),
    Field("options", P_OPTIONS, 48, "worker", "options of the stage's kind"),
    Field("committed", COMMITTED, 1, "kernels", "number of the last burst that counts"),
    Field("row_a", ROWS, ROW_WORDS, "kernels", "true while committed is even"),
    Field("row_b", ROWS + ROW_WORDS, ROW_WORDS, "kernels", "true while committed is odd"),
    Field("histograms", HISTOGRAMS, PORTS * BUCKETS, "kernels", "time that samples spent in each input ring"),
)
