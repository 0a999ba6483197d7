"""Rules of the compare in shared memory: two copies of the set, and what the kernel counts.

::

    rules    now            the copy that the open burst works with: a note of the burst's own      the stage's kernels
             hits           by number + 1: packets passed, or pieces in which a mask was needed     the stage's kernels
             connections    by number + 1: connections that fell under the rule                     the stage's kernels
             copy A         true while scalars.RULES_SEEN is even                                   supervisor
             copy B         true while it is odd                                                    supervisor

    copy     header         COPY_COUNT, COPY_TEXT_BYTES
             order          numbers + 1 of the rules, the first that matches wins
             records        a place for each number: stays while the rule exists, whatever comes and goes before it
             items          networks (NET_WORDS each) and ranges (RANGE_WORDS each) that records point to
             text           the rules as a person wrote them, for the next supervisor
             automata       of masks: CLASSES bytes (class of each byte), then the table

The supervisor writes the copy that is not true, whole, then stores CMD_RULES + 1; it leaves the other alone until a
committed scalars.RULES_SEEN equals CMD_RULES.  So neither a reader nor a rolled-back burst ever sees half a set.

An automaton's table has a row for each state and in it an entry (16 bits, big-endian) for each class of bytes: the next
state * 2, plus 1 where the byte that leads there is masked.
"""

from __future__ import annotations

from typing import Any, Final

from ring.fields import Words

RULES: Final = 64  # the most in one set

# --- a list of items ----------------------------------------------------------------------------------------------
_LIST = Words("supervisor")
LIST_FIRST: Final = _LIST.word("list_first", "index of its first item's words in the items")
LIST_COUNT: Final = _LIST.word("list_count", "how many items it has; none: anything will do")
LIST_FIELDS: Final = _LIST.fields
LIST_WORDS: Final = _LIST.end

# --- a rule's record: what it matches and does --------------------------------------------------------------------
NAME_BYTES: Final = 64
RECORD_WORDS: Final = 32
_RULE = Words("supervisor")
RULE_TAG: Final = _RULE.word(
    "rule_tag", "what rows get as conns.RULE: serial << 16 | MASKS or PASSES | number + 1; 0: no rule here"
)
# Lists.  Networks, then ranges.
_RULE.skip_to(2)
RULE_SOURCE: Final = _RULE.word("rule_source", "networks of source addresses", size=LIST_WORDS)
RULE_DESTINATION: Final = _RULE.word("rule_destination", "networks of destination addresses", size=LIST_WORDS)
RULE_PROTOCOL: Final = _RULE.word("rule_protocol", "ranges of protocol numbers", size=LIST_WORDS)
RULE_VLAN: Final = _RULE.word("rule_vlan", "ranges of VLAN tags", size=LIST_WORDS)
RULE_SOURCE_PORT: Final = _RULE.word("rule_source_port", "ranges of source ports", size=LIST_WORDS)
RULE_DESTINATION_PORT: Final = _RULE.word("rule_destination_port", "ranges of destination ports", size=LIST_WORDS)
RULE_BYTES: Final = _RULE.word("rule_bytes", "ranges of positions in the payload that may differ", size=LIST_WORDS)
RULE_AUTOMATON: Final = _RULE.word("rule_automaton", "byte index of its automaton from the start of the copy")
RULE_CLASSES: Final = _RULE.word("rule_classes", "entries in a row of the automaton's table")
RULE_STATES: Final = _RULE.word("rule_states", "rows of that table")
_RULE.skip_to(24)
RULE_NAME: Final = _RULE.word("rule_name", "its name, NUL-padded UTF-8", "text", size=NAME_BYTES // 8)
RULE_FIELDS: Final = _RULE.fields
NETWORK_LISTS: Final = ("rule_source", "rule_destination")
RANGE_LISTS: Final = ("rule_protocol", "rule_vlan", "rule_source_port", "rule_destination_port", "rule_bytes")

# --- items that a record points to --------------------------------------------------------------------------------
_NET = Words("supervisor")
NET_VERSION: Final = _NET.word("net_version", "4 or 6")
NET_MASK_HI: Final = _NET.word("net_mask_hi", "mask, high half; addresses are as the packet parser makes them")
NET_MASK_LO: Final = _NET.word("net_mask_lo", "mask, low half")
NET_HI: Final = _NET.word("net_hi", "address, high half")
NET_LO: Final = _NET.word("net_lo", "address, low half")
NET_FIELDS: Final = _NET.fields
NET_WORDS: Final = _NET.end

_RANGE = Words("supervisor")
RANGE_FIRST: Final = _RANGE.word("range_first", "least value in the range")
RANGE_LAST: Final = _RANGE.word("range_last", "greatest value in the range")
RANGE_FIELDS: Final = _RANGE.fields
RANGE_WORDS: Final = _RANGE.end

# --- conns.RULE: a rule's tag -------------------------------------------------------------------------------------
NUMBER: Final = 0xFF  # number + 1
PASSES: Final = 1 << 8
MASKS: Final = 1 << 9
SERIAL: Final = 16  # shift; a rule that is added gets the next one, so a number that is used again is another rule

# --- conns.PRIMARY_MASK, conns.SECONDARY_MASK ---------------------------------------------------------------------
# State of the automaton after the bytes before conns.COMPARED, and above it, in PRIMARY_MASK, how many they are (-1:
# not known).  Both 0: nothing was read yet, or what was read does not precede what comes.
STATE: Final = 0xFFFF
POSITION: Final = 16  # shift
BEGIN: Final = 0  # state before the first byte of a stream or datagram; no transition leads there
MIDDLE: Final = 1  # state somewhere in a stream of which nothing is known

# --- an automaton, where a record says ----------------------------------------------------------------------------
CLASSES: Final = 256
ENTRY_BYTES: Final = 2
_AUTOMATON = Words("supervisor")
AUTOMATON_CLASSES: Final = _AUTOMATON.word("automaton_classes", "by byte: its class", "bytes", size=CLASSES // 8)
AUTOMATON_TABLE: Final = _AUTOMATON.word(
    "automaton_table", "how its table begins, which has an entry by state and class", "bytes"
)
AUTOMATON_FIELDS: Final = _AUTOMATON.fields
MAX_STATES: Final = 4096

# --- all of it ----------------------------------------------------------------------------------------------------
WORDS: Final = 1 << 17  # 1 MiB
COPIES: Final = 144
COPY_WORDS: Final = (WORDS - COPIES) // 2
_AREA = Words("kernels")
NOW: Final = _AREA.word("now", "the copy that the open burst works with: word index from `copies` on")
_AREA.skip_to(8)
HITS: Final = _AREA.word(
    "hits", "by number + 1: packets passed, or pieces of a stream in which the mask was needed", size=RULES + 1
)
CONNECTIONS: Final = _AREA.word("connections", "by number + 1: connections that fell under the rule", size=RULES + 1)
_AREA.skip_to(COPIES)
_AREA.word("copies", "copy A, true while scalars.RULES_SEEN is even; copy B", size=2 * COPY_WORDS, writer="supervisor")
AREA_FIELDS: Final = _AREA.fields

# --- a copy -------------------------------------------------------------------------------------------------------
ITEM_WORDS: Final = 4096
TEXT_WORDS: Final = 4096
_COPY = Words("supervisor")
COPY_COUNT: Final = _COPY.word("copy_count", "rules in the set")
COPY_TEXT_BYTES: Final = _COPY.word("copy_text_bytes", "bytes of the text")
_COPY.skip_to(8)
COPY_ORDER: Final = _COPY.word("copy_order", "numbers + 1 of the rules: the first that matches wins", size=RULES)
COPY_RECORDS: Final = _COPY.word("copy_records", "a record for each number", size=RULES * RECORD_WORDS)
COPY_ITEMS: Final = _COPY.word("copy_items", "networks and ranges that records point to", size=ITEM_WORDS)
COPY_TEXT: Final = _COPY.word(
    "copy_text", "the rules as a person wrote them, for the next supervisor", "text", size=TEXT_WORDS
)
COPY_AUTOMATA: Final = _COPY.word("copy_automata", "automata of masks", "bytes", size=COPY_WORDS - _COPY.end)
COPY_FIELDS: Final = _COPY.fields
AUTOMATA_BYTES: Final = 8 * (COPY_WORDS - COPY_AUTOMATA)


def automaton_bytes(states: int, classes: int) -> int:
    """Bytes that an automaton takes, padded to a word."""
    return CLASSES + -(-states * classes * ENTRY_BYTES // 8) * 8


def rule_name(w: Any, area: int, seen: int, number: int) -> str:
    """Name of rule ``number`` - 1 in the set ``seen`` (scalars.RULES_SEEN); empty where it has no such rule."""
    r = area + COPIES + (seen & 1) * COPY_WORDS + COPY_RECORDS + (number - 1) * RECORD_WORDS
    if not 0 < number <= RULES or not int(w[r + RULE_TAG]):
        return ""
    raw: bytes = w[r + RULE_NAME : r + RULE_NAME + NAME_BYTES // 8].tobytes()
    return raw.rstrip(b"\0").decode()
