"""Rules in the compare: which connections pass uncompared, and which bytes of a payload may differ.

A connection is classified at its first packet and again once the set of rules has changed: `stale` is one comparison,
the rest is rare.  A mask is an automaton whose table says of every byte whether it is masked; it runs over both sides,
and a difference is forgiven where both say so.  `stages.compare.rules.rule_set` makes
it, `stages.compare.layout.rules` says where it lies.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be16, byte, common_prefix, load_acquire
from ring.hot import hot
from ring.kernels.ledger import put, scalar
from stages.compare.layout.rules import (
    BEGIN,
    CLASSES,
    CONNECTIONS,
    COPIES,
    COPY_COUNT,
    COPY_ITEMS,
    COPY_ORDER,
    COPY_RECORDS,
    COPY_WORDS,
    ENTRY_BYTES,
    HITS,
    MASKS,
    MIDDLE,
    N_HI,
    N_LO,
    N_MASK_HI,
    N_MASK_LO,
    N_VERSION,
    NET_WORDS,
    NOW,
    NUMBER,
    PASSES,
    POSITION,
    R_AUTOMATON,
    R_BYTES,
    R_CLASSES,
    R_DESTINATION,
    R_DESTINATION_PORT,
    R_PROTOCOL,
    R_SOURCE,
    R_SOURCE_PORT,
    R_TAG,
    R_VLAN,
    RANGE_WORDS,
    RECORD_WORDS,
    STATE,
)
from stages.compare.layout.words import (
    C_MASK_P,
    C_MASK_S,
    C_RULE,
    C_RULES_EPOCH,
    C_VERDICT,
    O_RULES,
    SC_RULES_SEEN,
)
from stages.packets.layout.packet import F_DST, F_PORTS, F_SRC, F_VLAN, FRAGMENT, ICMP, UDP
from stages.packets.layout.table import R_KEY


# --- the set ------------------------------------------------------------------------------------------------------
@hot
def rules_due(w, row):
    """Whether the supervisor has written another set of rules than the one that ``row`` knows."""
    return load_acquire(w, layout.CMD_RULES) != w[scalar(row, SC_RULES_SEEN)]  # partner: the supervisor


@hot
def take_rules(w, row):
    """Begin every burst with the newest set; 1 where that is another one than before, else 0.

    Until this burst is committed the supervisor leaves both copies alone.
    """
    written = load_acquire(w, layout.CMD_RULES)  # partner: the supervisor; read once, for it may go on
    news = 0 if written == w[scalar(row, SC_RULES_SEEN)] else 1
    w[scalar(row, SC_RULES_SEEN)] = written
    w[w[O_RULES] + NOW] = (written & 1) * COPY_WORDS  # not logged: private to the burst
    return news


@hot
def _copy(w):
    return w[O_RULES] + COPIES + w[w[O_RULES] + NOW]


# --- which rule ---------------------------------------------------------------------------------------------------
@hot
def stale(w, row, c):
    """Whether the connection has to be classified before its rule means anything."""
    return w[c + C_RULES_EPOCH] != w[scalar(row, SC_RULES_SEEN)] + 1


@hot
def classify(w, row, c):
    """Find the rule of connection ``c``; at most five entries of the undo log.

    Costs some nanoseconds for each rule; done once a connection, and once more after each change of the rules.
    """
    put(w, c + C_RULES_EPOCH, w[scalar(row, SC_RULES_SEEN)] + 1)
    tag = _first_match(w, _copy(w), c + R_KEY)
    if tag == w[c + C_RULE]:
        return
    put(w, c + C_RULE, tag)
    restart(w, c)
    if tag != 0:
        n = w[O_RULES] + CONNECTIONS + (tag & NUMBER)
        put(w, n, w[n] + 1)


@hot
def restart(w, c):
    """What is compared next does not follow what was compared last: a SYN, a checkpoint, another rule."""
    if w[c + C_MASK_P] != 0:
        put(w, c + C_MASK_P, 0)
    if w[c + C_MASK_S] != 0:
        put(w, c + C_MASK_S, 0)


@hot
def _first_match(w, copy, key):
    for i in range(w[copy + COPY_COUNT]):
        r = copy + COPY_RECORDS + (w[copy + COPY_ORDER + i] - 1) * RECORD_WORDS
        if _matches(w, copy + COPY_ITEMS, r, key):
            return w[r + R_TAG]
    return 0


@hot
def _matches(w, items, r, key):
    ports, vlan = w[key + F_PORTS], w[key + F_VLAN]
    version = vlan >> 32
    return (
        _in_ranges(w, items, r + R_PROTOCOL, ports >> 32 & 0xFF)  # above it the mark of a fragment
        and _in_ranges(w, items, r + R_SOURCE_PORT, ports >> 16 & 0xFFFF)
        and _in_ranges(w, items, r + R_DESTINATION_PORT, ports & 0xFFFF)
        and _in_ranges(w, items, r + R_VLAN, vlan & 0xFFFFFFFF)
        and _in_nets(w, items, r + R_SOURCE, version, w[key + F_SRC], w[key + F_SRC + 1])
        and _in_nets(w, items, r + R_DESTINATION, version, w[key + F_DST], w[key + F_DST + 1])
    )


@hot
def _in_ranges(w, items, field, value):
    """Whether ``value`` is in one of the ranges of the list at ``field``, or the list is empty."""
    at, n = items + w[field], w[field + 1]
    for i in range(n):
        if w[at + i * RANGE_WORDS] <= value <= w[at + i * RANGE_WORDS + 1]:
            return True
    return n == 0


@hot
def _in_nets(w, items, field, version, hi, lo):
    at, n = items + w[field], w[field + 1]
    for i in range(n):
        net = at + i * NET_WORDS
        if (
            w[net + N_VERSION] == version
            and hi & w[net + N_MASK_HI] == w[net + N_HI]
            and lo & w[net + N_MASK_LO] == w[net + N_LO]
        ):
            return True
    return n == 0


@hot
def passes(w, c):
    """Whether the connection's packets pass uncompared."""
    return w[c + C_RULE] & PASSES != 0


@hot
def masks(w, c):
    """Whether the connection's bytes are compared under a mask."""
    return w[c + C_RULE] & MASKS != 0


@hot
def rule_number(w, c):
    """Number + 1 of the connection's rule, 0 without one."""
    return w[c + C_RULE] & NUMBER


@hot
def hit(w, c, n):
    """Count ``n`` packets, or pieces of a stream, in which the connection's rule had a say."""
    at = w[O_RULES] + HITS + (w[c + C_RULE] & NUMBER)  # without a rule a word that nobody reads
    put(w, at, w[at] + n)


# --- masks --------------------------------------------------------------------------------------------------------
@hot
def agree_stream(u8, w, c, a, b, length, offset):
    """How many of the next ``length`` bytes of both streams agree: equal, or masked on both sides.

    The primary's are at byte index ``a``, the secondary's at ``b``, both at C_COMPARED, which the caller moves on by
    the result: the mask goes on from there.  ``offset`` is that place from the SYN on, -1 where no SYN was seen; it
    counts only after `restart`.  Returns the number, | bytes forgiven << 32.
    """
    p, s, position = w[c + C_MASK_P] & STATE, w[c + C_MASK_S], w[c + C_MASK_P] >> POSITION
    if w[c + C_MASK_P] == 0 and offset != 0:
        p = s = MIDDLE
        position = offset if offset > 0 else -1
    return _agree(u8, w, c, a, b, length, p, s, position, True)


@hot
def agree_datagram(u8, w, c, a, b, length):
    """How many of the first ``length`` bytes of two IP payloads agree, transport header included; changes nothing.

    A mask begins behind the headers of UDP and ICMP.  Their checksums may differ where it was needed, and only there.
    Returns the number, | bytes forgiven << 32.
    """
    same = common_prefix(u8, a, b, length)
    verdict = w[c + C_VERDICT]
    if same == length or verdict == FRAGMENT:  # a fragment is a piece of who knows what
        return same
    header, checksum = 0, 0
    if verdict == UDP:
        header, checksum = 8, 6
    elif verdict == ICMP:
        header, checksum = 8, 2
    if length < header or (same < header and not checksum <= same < checksum + 2):
        return same
    if same < header:
        behind = header - checksum - 2
        n = common_prefix(u8, a + checksum + 2, b + checksum + 2, behind)
        if n < behind:
            return same
    agreed = _agree(u8, w, c, a + header, b + header, length - header, BEGIN, BEGIN, 0, False)
    if same < header and agreed == length - header:
        return same  # only the checksums differ
    return agreed + header


@hot
def _agree(u8, w, c, a, b, length, p, s, position, goes_on):
    copy = _copy(w)
    r = copy + COPY_RECORDS + ((w[c + C_RULE] & NUMBER) - 1) * RECORD_WORDS
    if w[c + C_RULE] & MASKS == 0 or w[r + R_TAG] != w[c + C_RULE]:
        return common_prefix(u8, a, b, length)  # no mask, or one that was deleted since its last packet
    classes = copy * 8 + w[r + R_AUTOMATON]
    table, stride = classes + CLASSES, w[r + R_CLASSES] * ENTRY_BYTES
    forgiven = n = 0
    while n < length:
        x, y = byte(u8, a + n), byte(u8, b + n)
        mine = be16(u8, table + p * stride + ENTRY_BYTES * byte(u8, classes + x))
        theirs = be16(u8, table + s * stride + ENTRY_BYTES * byte(u8, classes + y))
        if x != y:
            if mine & theirs & 1 == 0 and not _in_bytes(w, copy + COPY_ITEMS, r, position, n):
                break
            forgiven += 1
        p, s = mine >> 1, theirs >> 1
        n += 1
    if goes_on:
        if position >= 0:
            position += n
        _keep(w, c + C_MASK_P, position << POSITION | p)
        _keep(w, c + C_MASK_S, s)
    return n | forgiven << 32


@hot
def _keep(w, i, value):
    if w[i] != value:
        put(w, i, value)


@hot
def _in_bytes(w, items, r, position, n):
    """Whether byte ``n`` from ``position`` on lies in a byte range of the rule."""
    return position >= 0 and w[r + R_BYTES + 1] != 0 and _in_ranges(w, items, r + R_BYTES, position + n)
