"""Rules of the compare in shared memory: two copies of the set, and what the kernel counts.

::

    rules    now            the copy that the open burst works with: a note of the burst's own      the stage's kernels
             hits           by number + 1: packets passed, or pieces in which a mask was needed     the stage's kernels
             connections    by number + 1: connections that fell under the rule                     the stage's kernels
             copy A         true while SC_RULES_SEEN is even                                        supervisor
             copy B         true while it is odd                                                    supervisor

    copy     header         COPY_COUNT, COPY_TEXT_BYTES
             order          numbers + 1 of the rules, the first that matches wins
             records        a place for each number: stays while the rule exists, whatever comes and goes before it
             items          networks (NET_WORDS each) and ranges (RANGE_WORDS each) that records point to
             text           the rules as a person wrote them, for the next supervisor
             automata       of masks: CLASSES bytes (class of each byte), then the table

The supervisor writes the copy that is not true, whole, then stores CMD_RULES + 1; it leaves the other alone until a
committed SC_RULES_SEEN equals CMD_RULES.  So neither a reader nor a rolled-back burst ever sees half a set.

An automaton's table has a row for each state and in it an entry (16 bits, big-endian) for each class of bytes: the next
state * 2, plus 1 where the byte that leads there is masked.
"""

from __future__ import annotations

from typing import Any, Final

RULES: Final = 64  # the most in one set

# --- the copy, in words from its start ----------------------------------------------------------------------------
COPY_COUNT: Final = 0
COPY_TEXT_BYTES: Final = 1
COPY_ORDER: Final = 8
COPY_RECORDS: Final = COPY_ORDER + RULES
RECORD_WORDS: Final = 32
COPY_ITEMS: Final = COPY_RECORDS + RULES * RECORD_WORDS
ITEM_WORDS: Final = 4096
COPY_TEXT: Final = COPY_ITEMS + ITEM_WORDS
TEXT_WORDS: Final = 4096
COPY_AUTOMATA: Final = COPY_TEXT + TEXT_WORDS

# --- a record -----------------------------------------------------------------------------------------------------
R_TAG: Final = 0  # what rows get as C_RULE: serial << 16 | MASKS or PASSES | number + 1; 0: no rule here
# Lists: index of the first in the items, and how many; none means that anything will do.  Networks, then ranges.
R_SOURCE, R_DESTINATION, R_PROTOCOL, R_VLAN, R_SOURCE_PORT, R_DESTINATION_PORT, R_BYTES = range(2, 16, 2)
R_AUTOMATON: Final = 16  # byte index from the start of the copy
R_CLASSES: Final = 17  # entries in a row of its table
R_STATES: Final = 18
R_NAME: Final = 24  # NUL-padded UTF-8
NAME_BYTES: Final = 64

NET_WORDS: Final = 5
N_VERSION, N_MASK_HI, N_MASK_LO, N_HI, N_LO = range(NET_WORDS)  # 4 or 6; words as the packet parser makes them
RANGE_WORDS: Final = 2  # first, last

# --- C_RULE -------------------------------------------------------------------------------------------------------
NUMBER: Final = 0xFF  # number + 1
PASSES: Final = 1 << 8
MASKS: Final = 1 << 9
SERIAL: Final = 16  # shift; a rule that is added gets the next one, so a number that is used again is another rule

# --- C_MASK_P, C_MASK_S -------------------------------------------------------------------------------------------
# State of the automaton after the bytes before C_COMPARED, and above it, in C_MASK_P, how many they are (-1: unknown).
# Both 0: nothing was read yet, or what was read does not precede what comes.
STATE: Final = 0xFFFF
POSITION: Final = 16  # shift
BEGIN: Final = 0  # state before the first byte of a stream or datagram; no transition leads there
MIDDLE: Final = 1  # state somewhere in a stream of which nothing is known

CLASSES: Final = 256
ENTRY_BYTES: Final = 2
MAX_STATES: Final = 4096
MAX_POSITION: Final = 0xFFFF  # the last byte of a stream that a range can name

# --- all of it ----------------------------------------------------------------------------------------------------
NOW: Final = 0
HITS: Final = 8
CONNECTIONS: Final = HITS + RULES + 1
COPIES: Final = 144
WORDS: Final = 1 << 17  # 1 MiB
COPY_WORDS: Final = (WORDS - COPIES) // 2
AUTOMATA_BYTES: Final = 8 * (COPY_WORDS - COPY_AUTOMATA)


def automaton_bytes(states: int, classes: int) -> int:
    """Bytes that an automaton takes, padded to a word."""
    return CLASSES + -(-states * classes * ENTRY_BYTES // 8) * 8


def rule_name(w: Any, area: int, seen: int, number: int) -> str:
    """Name of rule ``number`` - 1 in the set ``seen`` (SC_RULES_SEEN); empty where it has no such rule."""
    r = area + COPIES + (seen & 1) * COPY_WORDS + COPY_RECORDS + (number - 1) * RECORD_WORDS
    if not 0 < number <= RULES or not int(w[r + R_TAG]):
        return ""
    raw: bytes = w[r + R_NAME : r + R_NAME + NAME_BYTES // 8].tobytes()
    return raw.rstrip(b"\0").decode()
