"""The connection table: open addressing over rows in shared memory; every change goes through the undo log."""

from __future__ import annotations

import secrets

from ring.hot import hot
from ring.kernels.ledger import put
from stages.packets.layout import parsed, rows, table


def make_secret(w, at):
    """Fill the SECRETS words at ``at``, which `hash_key` takes."""
    for i in range(table.SECRETS):
        w[at + i] = secrets.randbits(31) << 32 | secrets.randbits(31)


def format_table(w, t, capacity, buckets, row_words):
    """Lay out an empty table at word ``t`` (all zeros so far); done by the shell of a fresh segment, once."""
    make_secret(w, t + table.SECRET)
    w[t + table.BUCKETS] = buckets
    w[t + table.ROW_WORDS] = row_words
    w[t + table.ROWS] = t + table.BUCKET + buckets
    w[t + table.CAPACITY] = capacity


@hot
def mix(h):
    """Bijection of 32-bit numbers that leaves nothing of their order (xor-shift-multiply, as hashes end with)."""
    h ^= h >> 16
    h = h * 0x7FEB352D & 0xFFFFFFFF
    h ^= h >> 15
    h = h * 0x45D9F3B5 & 0xFFFFFFFF
    return h ^ h >> 16


@hot
def hash_key(w, secret, s):
    """32-bit hash of the six key words at ``s``, with the SECRETS words at ``secret``.

    Multilinear: the upper half of a sum of products modulo 2^64 (Lemire and Kaser, "Strongly universal string hashing
    is fast"): two keys that were chosen without the secret meet once in 2^31 times.  In parts that fit in int64.
    Then a bijection, since that sum is linear: ports in a row would lie at equal steps, and some secrets make the step
    so small that linear probing walks over thousands of buckets.
    """
    low = high = 0
    for i in range(parsed.KEY_WORDS):
        k = int(w[s + i])
        for half in range(2):
            x = (k >> 32 * half) & 0xFFFFFFFF
            a = int(w[secret + 2 * i + half])
            product = (a & 0x7FFFFFFF) * x
            low += product & 0xFFFFFFFF
            high += (product >> 32) + ((a >> 32) * x & 0xFFFFFFFF)
    return mix(high + (low >> 32) & 0xFFFFFFFF)


@hot
def same_key(w, a, b):
    """Whether the keys at ``a`` and ``b`` are equal."""
    for i in range(parsed.KEY_WORDS):
        if w[a + i] != w[b + i]:
            return False
    return True


@hot
def find(w, t, s):
    """Word index of the row with the key at ``s``, or -1."""
    mask = w[t + table.BUCKETS] - 1
    h = hash_key(w, t + table.SECRET, s)
    b = h & mask
    while True:
        number = w[t + table.BUCKET + b]
        if number == 0:
            return -1
        row = w[t + table.ROWS] + (number - 1) * w[t + table.ROW_WORDS]
        if w[row + rows.HASH] == h and same_key(w, row + rows.KEY, s):
            return row
        b = (b + 1) & mask


@hot
def touch(w, row, now):
    """Note that the connection is alive.  Not logged: a stamp that is a burst too new after a crash does no harm."""
    w[row + rows.SEEN] = now


@hot
def take_row(w, t):
    """Number of a free row, or -1."""
    number = w[t + table.FREE] - 1
    if number >= 0:
        row = w[t + table.ROWS] + number * w[t + table.ROW_WORDS]
        put(w, t + table.FREE, w[row + rows.NEXT])
        return number
    number = w[t + table.FRESH]
    if number >= w[t + table.CAPACITY]:
        return -1
    put(w, t + table.FRESH, number + 1)
    return number


@hot
def victim(w, t):
    """Row to evict: of the next live rows that are not pinned, a closed one, else the one silent longest; or -1."""
    capacity = w[t + table.CAPACITY]
    hand = w[t + table.HAND]
    best = -1
    seen = 0
    looked = 0
    while looked < capacity and (seen < table.EVICT_PROBES or best < 0):
        row = w[t + table.ROWS] + hand * w[t + table.ROW_WORDS]
        hand = hand + 1 if hand + 1 < capacity else 0
        looked += 1
        if w[row + rows.LIVE] == 1:
            seen += 1
            if w[row + rows.PINNED] == 0:
                if w[row + rows.CLOSED] == 1:
                    best = row
                    break
                if best < 0 or w[row + rows.SEEN] < w[best + rows.SEEN]:
                    best = row
    put(w, t + table.HAND, hand)
    return best


@hot
def insert(w, t, s, now):
    """A new row for the key at ``s`` (which is not in the table), all its own words 0; -1 where the table is full.

    The caller evicts (`victim`, `remove`) and counts it.  Costs row_words + 6 entries of the undo log.
    """
    number = take_row(w, t)
    if number < 0:
        return -1
    row = w[t + table.ROWS] + number * w[t + table.ROW_WORDS]
    h = hash_key(w, t + table.SECRET, s)
    for i in range(parsed.KEY_WORDS):
        put(w, row + rows.KEY + i, w[s + i])
    put(w, row + rows.HASH, h)
    put(w, row + rows.LIVE, 1)
    for i in range(rows.PINNED, w[t + table.ROW_WORDS]):
        if w[row + i] != 0:
            put(w, row + i, 0)
    w[row + rows.SEEN] = now
    mask = w[t + table.BUCKETS] - 1
    b = h & mask
    while w[t + table.BUCKET + b] != 0:
        b = (b + 1) & mask
    put(w, t + table.BUCKET + b, number + 1)
    put(w, t + table.USED, w[t + table.USED] + 1)
    return row


@hot
def remove_cost(w, t, row):
    """The most entries of the undo log that `remove` of this row takes: ask before, a long run of buckets may move."""
    mask = w[t + table.BUCKETS] - 1
    b = w[row + rows.HASH] & mask
    cost = 5
    while w[t + table.BUCKET + b] != 0:
        b = (b + 1) & mask
        cost += 1
    return cost


@hot
def remove(w, t, row):
    """Take a row out; the entries behind it move up, so that no tombstones gather."""
    mask = w[t + table.BUCKETS] - 1
    number = (row - w[t + table.ROWS]) // w[t + table.ROW_WORDS] + 1
    b = w[row + rows.HASH] & mask
    while w[t + table.BUCKET + b] != number:
        b = (b + 1) & mask
    hole = b
    while True:
        b = (b + 1) & mask
        other = w[t + table.BUCKET + b]
        if other == 0:
            break
        home = w[w[t + table.ROWS] + (other - 1) * w[t + table.ROW_WORDS] + rows.HASH] & mask
        if (b - home) & mask >= (b - hole) & mask:  # it may stand in the hole without leaving its probe path
            put(w, t + table.BUCKET + hole, other)
            hole = b
    put(w, t + table.BUCKET + hole, 0)
    put(w, row + rows.LIVE, 0)
    put(w, row + rows.NEXT, w[t + table.FREE])
    put(w, t + table.FREE, number)
    put(w, t + table.USED, w[t + table.USED] - 1)
