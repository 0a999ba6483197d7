"""Rules in the compare: which connections pass uncompared, and which bytes of a payload may differ.

A connection is classified at its first packet and again once the set of rules has changed: `stale` is one comparison,
the rest is rare.  A mask is an automaton whose table says of every byte whether it is masked; it runs over both sides,
and a difference is forgiven where both say so.  `stages.compare.rules.rule_set` makes it, `stages.compare.layout.rules`
says where it lies.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be16, byte, common_prefix, load_acquire
from ring.hot import hot
from ring.kernels.ledger import put, scalar
from stages.compare.layout import conns, options, rules, scalars
from stages.packets.layout import networks, parsed, rows, transports


# --- the set ------------------------------------------------------------------------------------------------------
@hot
def rules_due(w, row):
    """Whether the supervisor has written another set of rules than the one that ``row`` knows."""
    return load_acquire(w, layout.CMD_RULES) != w[scalar(row, scalars.RULES_SEEN)]  # partner: the supervisor


@hot
def take_rules(w, row):
    """Begin every burst with the newest set; 1 where that is another one than before, else 0.

    Until this burst is committed the supervisor leaves both copies alone.
    """
    written = load_acquire(w, layout.CMD_RULES)  # partner: the supervisor; read once, for it may go on
    news = 0 if written == w[scalar(row, scalars.RULES_SEEN)] else 1
    w[scalar(row, scalars.RULES_SEEN)] = written
    w[w[options.RULES] + rules.NOW] = (written & 1) * rules.COPY_WORDS  # not logged: private to the burst
    return news


@hot
def _copy(w):
    return w[options.RULES] + rules.COPIES + w[w[options.RULES] + rules.NOW]


# --- which rule ---------------------------------------------------------------------------------------------------
@hot
def stale(w, row, c):
    """Whether the connection has to be classified before its rule means anything."""
    return w[c + conns.RULES_SEEN] != w[scalar(row, scalars.RULES_SEEN)] + 1


@hot
def classify(w, row, c):
    """Find the rule of connection ``c``; at most five entries of the undo log.

    Costs some nanoseconds for each rule; done once a connection, and once more after each change of the rules.
    """
    put(w, c + conns.RULES_SEEN, w[scalar(row, scalars.RULES_SEEN)] + 1)
    tag = _first_match(w, _copy(w), c + rows.KEY)
    if tag == w[c + conns.RULE]:
        return
    put(w, c + conns.RULE, tag)
    restart(w, c)
    if tag != 0:
        n = w[options.RULES] + rules.CONNECTIONS + (tag & rules.NUMBER)
        put(w, n, w[n] + 1)


@hot
def restart(w, c):
    """What is compared next does not follow what was compared last: a SYN, a checkpoint, another rule."""
    if w[c + conns.PRIMARY_MASK] != 0:
        put(w, c + conns.PRIMARY_MASK, 0)
    if w[c + conns.SECONDARY_MASK] != 0:
        put(w, c + conns.SECONDARY_MASK, 0)


@hot
def _first_match(w, copy, key):
    for i in range(w[copy + rules.COPY_COUNT]):
        r = copy + rules.COPY_RECORDS + (w[copy + rules.COPY_ORDER + i] - 1) * rules.RECORD_WORDS
        if _matches(w, copy + rules.COPY_ITEMS, r, key):
            return w[r + rules.RULE_TAG]
    return 0


@hot
def _tags(vlan):
    """The VLAN tags in a key's word, as a rule has them: the third and the fourth above the first two."""
    tags = vlan & 0xFFFFFFFF
    if vlan >> networks.KIND_AT & networks.KIND == networks.TAGS:
        tags |= (vlan >> networks.ID_AT) << 32
    return tags


@hot
def _matches(w, items, r, key):
    ports, vlan = w[key + parsed.PORTS], w[key + parsed.VLAN]
    version = vlan >> networks.VERSION_AT & networks.VERSION
    return (
        _in_ranges(w, items, r + rules.RULE_PROTOCOL, ports >> 32 & 0xFF)  # above it the mark of a fragment
        and _in_ranges(w, items, r + rules.RULE_SOURCE_PORT, ports >> 16 & 0xFFFF)
        and _in_ranges(w, items, r + rules.RULE_DESTINATION_PORT, ports & 0xFFFF)
        and _in_ranges(w, items, r + rules.RULE_VLAN, _tags(vlan))
        and _in_nets(w, items, r + rules.RULE_SOURCE, version, w[key + parsed.SRC], w[key + parsed.SRC + 1])
        and _in_nets(w, items, r + rules.RULE_DESTINATION, version, w[key + parsed.DST], w[key + parsed.DST + 1])
    )


@hot
def _in_ranges(w, items, field, value):
    """Whether ``value`` is in one of the ranges of the list at ``field``, or the list is empty."""
    at, n = items + w[field + rules.LIST_FIRST], w[field + rules.LIST_COUNT]
    for i in range(n):
        one = at + i * rules.RANGE_WORDS
        if w[one + rules.RANGE_FIRST] <= value <= w[one + rules.RANGE_LAST]:
            return True
    return n == 0


@hot
def _in_nets(w, items, field, version, hi, lo):
    at, n = items + w[field + rules.LIST_FIRST], w[field + rules.LIST_COUNT]
    for i in range(n):
        net = at + i * rules.NET_WORDS
        if (
            w[net + rules.NET_VERSION] == version
            and hi & w[net + rules.NET_MASK_HI] == w[net + rules.NET_HI]
            and lo & w[net + rules.NET_MASK_LO] == w[net + rules.NET_LO]
        ):
            return True
    return n == 0


@hot
def passes(w, c):
    """Whether the connection's packets pass uncompared."""
    return w[c + conns.RULE] & rules.PASSES != 0


@hot
def masks(w, c):
    """Whether the connection's bytes are compared under a mask."""
    return w[c + conns.RULE] & rules.MASKS != 0


@hot
def rule_number(w, c):
    """Number + 1 of the connection's rule, 0 without one."""
    return w[c + conns.RULE] & rules.NUMBER


@hot
def hit(w, c, n):
    """Count ``n`` packets, or pieces of a stream, in which the connection's rule had a say."""
    at = w[options.RULES] + rules.HITS + (w[c + conns.RULE] & rules.NUMBER)  # without a rule a word that nobody reads
    put(w, at, w[at] + n)


# --- masks --------------------------------------------------------------------------------------------------------
@hot
def agree_stream(u8, w, c, a, b, length, offset):
    """How many of the next ``length`` bytes of both streams agree: equal, or masked on both sides.

    The primary's are at byte index ``a``, the secondary's at ``b``, both at conns.COMPARED, which the caller moves on
    by the result: the mask goes on from there.  ``offset`` is that place from the SYN on, -1 where no SYN was seen; it
    counts only after `restart`.  Returns the number, | bytes forgiven << 32.
    """
    r = _mask(w, c)
    if r == 0:
        return common_prefix(u8, a, b, length)
    mine, theirs = w[c + conns.PRIMARY_MASK], w[c + conns.SECONDARY_MASK]
    if mine == 0 and offset != 0:
        mine, theirs = (offset if offset > 0 else -1) << rules.POSITION | rules.MIDDLE, rules.MIDDLE
    n, forgiven, mine, theirs = _run(u8, w, r, a, b, length, mine, theirs)
    _keep(w, c + conns.PRIMARY_MASK, mine)
    _keep(w, c + conns.SECONDARY_MASK, theirs)
    return n | forgiven << 32


@hot
def agree_datagram(u8, w, c, a, b, length):
    """How many of the first ``length`` bytes of two IP payloads agree, transport header included; changes nothing.

    A mask begins behind the headers of UDP and ICMP.  Their checksums may differ where it was needed, and only there.
    Returns the number, | bytes forgiven << 32.
    """
    same = common_prefix(u8, a, b, length)
    transport = w[c + conns.TRANSPORT]
    if same == length or transport == transports.FRAGMENT:  # a fragment is a piece of who knows what
        return same
    header, checksum = 0, 0
    if transport == transports.UDP:
        header, checksum = 8, 6
    elif transport == transports.ICMP:
        header, checksum = 8, 2
    if length < header or (same < header and not checksum <= same < checksum + 2):
        return same
    if same < header:
        behind = header - checksum - 2
        n = common_prefix(u8, a + checksum + 2, b + checksum + 2, behind)
        if n < behind:
            return same
    agreed = _agree_behind(u8, w, c, a + header, b + header, length - header)
    if same < header and agreed == length - header:
        return same  # only the checksums differ
    return agreed + header


@hot
def _agree_behind(u8, w, c, a, b, length):
    r = _mask(w, c)
    if r == 0:
        return common_prefix(u8, a, b, length)
    n, forgiven, _, _ = _run(u8, w, r, a, b, length, rules.BEGIN, rules.BEGIN)
    return n | forgiven << 32


@hot
def _mask(w, c):
    """Record of the mask under which the connection is compared; 0: none, or one deleted since its last packet."""
    r = _copy(w) + rules.COPY_RECORDS + ((w[c + conns.RULE] & rules.NUMBER) - 1) * rules.RECORD_WORDS
    if w[c + conns.RULE] & rules.MASKS == 0 or w[r + rules.RULE_TAG] != w[c + conns.RULE]:
        return 0
    return r


@hot
def _run(u8, w, r, a, b, length, mine, theirs):
    """Run the automaton of the rule at ``r`` over both sides, from the states ``mine`` and ``theirs`` on.

    These are words as conns.PRIMARY_MASK and conns.SECONDARY_MASK.  How many bytes agree, how many of them were
    forgiven, and both words behind them.
    """
    copy = _copy(w)
    p, position, s = mine & rules.STATE, mine >> rules.POSITION, theirs
    automaton = copy * 8 + w[r + rules.RULE_AUTOMATON]
    classes, table = automaton + rules.AUTOMATON_CLASSES * 8, automaton + rules.AUTOMATON_TABLE * 8
    stride = w[r + rules.RULE_CLASSES] * rules.ENTRY_BYTES
    forgiven = n = 0
    while n < length:
        x, y = byte(u8, a + n), byte(u8, b + n)
        at_x = be16(u8, table + p * stride + rules.ENTRY_BYTES * byte(u8, classes + x))
        at_y = be16(u8, table + s * stride + rules.ENTRY_BYTES * byte(u8, classes + y))
        if x != y:
            if at_x & at_y & 1 == 0 and not _in_bytes(w, copy + rules.COPY_ITEMS, r, position, n):
                break
            forgiven += 1
        p, s = at_x >> 1, at_y >> 1
        n += 1
    if position >= 0:
        position += n
    return n, forgiven, position << rules.POSITION | p, s


@hot
def _keep(w, i, value):
    if w[i] != value:
        put(w, i, value)


@hot
def _in_bytes(w, items, r, position, n):
    """Whether byte ``n`` from ``position`` on lies in a byte range of the rule."""
    field = r + rules.RULE_BYTES
    return position >= 0 and w[field + rules.LIST_COUNT] != 0 and _in_ranges(w, items, field, position + n)
