"""A burst commits once.

A stage's heads, tails, scalars and counters are one row, kept twice; ``committed & 1`` tells which copy is true.  A
burst works on the other copy, writes frames beyond the published tails, and changes tables only through `put`, which
saves the old value first.  One store, ``committed = burst``, makes all of it true; only then are the cursors published.

So whoever attaches next does `recover`: an undo log for a burst that never committed is played back, and the cursors of
the true row are stored in the rings once more, which changes nothing if they were already there.  Nothing is lost,
repeated or reordered wherever a ``kill -9`` strikes.

    begin ──► put, put, put ──► write frames ──► commit: committed = burst │ publish tails, heads
              undo log on                        (commit point)            │ recover: again, idempotent
"""

from __future__ import annotations

from ring import layout
from ring.atomics import fence_full, fence_order, load_acquire, store_release
from ring.hot import hot, kernel


@hot
def true_row(w):
    """Word index of the committed row."""
    return layout.ROWS + (w[layout.COMMITTED] & 1) * layout.ROW_WORDS


@hot
def begin(w):
    """Open a burst; the word index of the row to work on, a copy of the true one."""
    burst = w[layout.COMMITTED] + 1
    row = layout.ROWS + (burst & 1) * layout.ROW_WORDS
    old = layout.ROWS + (burst + 1 & 1) * layout.ROW_WORDS
    for i in range(layout.ROW_WORDS):
        w[row + i] = w[old + i]
    w[layout.UNDO_N] = 0
    fence_order()  # an empty log before it becomes this burst's
    w[layout.UNDO_BURST] = burst
    fence_order()
    return row


@hot
def put(w, i, value):
    """Change word ``i`` of a table within the open burst: the old value goes into the undo log first."""
    n = w[layout.UNDO_N]
    e = layout.UNDO + n * layout.UNDO_ENTRY
    w[e + layout.UNDO_WORD] = i
    w[e + layout.UNDO_BEFORE] = w[i]
    fence_order()  # the entry before it counts
    w[layout.UNDO_N] = n + 1
    fence_order()  # it counts before the table changes
    w[i] = value


@hot
def undo_left(w):
    """How many more `put` this burst may do: a kernel stops its burst before a packet that might need more."""
    return w[layout.UNDO_CAPACITY] - w[layout.UNDO_N]


@hot
def head(w, row, i):
    """Working head position of input ``i``."""
    return w[row + layout.ROW_HEADS + i]


@hot
def tail(w, row, i):
    """Working tail position of output ``i``."""
    return w[row + layout.ROW_TAILS + i]


@hot
def readable(w, row, i):
    """Position up to which input ``i`` is published (0 bytes readable where there is no such input)."""
    r = w[layout.INPUTS + i]
    if r == 0:
        return w[row + layout.ROW_HEADS + i]
    return load_acquire(w, r + layout.TAIL)  # partner: the producer's `publish` or `frames.commit`


@hot
def nothing_to_read(w):
    """Whether every input is empty: asked before `begin`, so that an idle duty cycle copies no row."""
    row = true_row(w)
    for i in range(layout.PORTS):
        r = w[layout.INPUTS + i]
        # Partner: the producer's `publish`.
        if r != 0 and load_acquire(w, r + layout.TAIL) != w[row + layout.ROW_HEADS + i]:
            return False
    return True


@hot
def room(w, row, i):
    """Bytes that output ``i`` can take beyond its working tail."""
    r = w[layout.OUTPUTS + i]
    if r == 0:
        return 0
    # Partner: the consumer's `publish` or `frames.release`.
    return load_acquire(w, r + layout.HEAD) + w[r + layout.SIZE] - w[row + layout.ROW_TAILS + i]


@hot
def count(w, row, counter, n):
    """Add ``n`` to a counter of the row; it becomes true with the burst."""
    w[row + layout.ROW_COUNTERS + counter] += n


@hot
def scalar(row, i):
    """Word index of scalar ``i`` in ``row``: a kind's own state that fits in a word, no undo needed."""
    return row + layout.ROW_SCALARS + i


@hot
def bucket(ns):
    """Histogram bucket of a duration: four to an octave from 4 ns on."""
    if ns < 4:
        return max(ns, 0)
    octave = 0
    while ns >> octave >= 8:
        octave += 1
    return min(octave * 4 + (ns >> octave), layout.BUCKETS - 1)


@hot
def publish(w, row, now):
    """Store the row's cursors in the rings: tails, then heads; the bits of the neighbours that want a ring.

    Bit i: the consumer of output i sleeps.  Bit 8 + i: the producer of input i sleeps.

    ``now`` 0 takes and starts no latency sample: so `recover` counts none twice, at the price of losing one at a crash.
    """
    moved = 0
    for i in range(layout.PORTS):
        r = w[layout.OUTPUTS + i]
        if r != 0 and w[r + layout.TAIL] != w[row + layout.ROW_TAILS + i]:
            # The last latency sample was taken (the partner is the consumer's head, below): start another.
            if now != 0 and w[r + layout.SAMPLE_POS] <= load_acquire(w, r + layout.HEAD):
                w[r + layout.SAMPLE_NS] = now
                store_release(w, r + layout.SAMPLE_POS, w[row + layout.ROW_TAILS + i])  # partner: the consumer, below
            store_release(w, r + layout.TAIL, w[row + layout.ROW_TAILS + i])  # partner: `readable`
            moved |= 1 << i
    for i in range(layout.PORTS):
        r = w[layout.INPUTS + i]
        if r != 0 and w[r + layout.HEAD] != w[row + layout.ROW_HEADS + i]:
            sample = load_acquire(w, r + layout.SAMPLE_POS)  # partner: the producer, above
            if now != 0 and w[r + layout.HEAD] < sample <= w[row + layout.ROW_HEADS + i]:
                w[layout.HISTOGRAMS + i * layout.BUCKETS + bucket(now - w[r + layout.SAMPLE_NS])] += 1
            store_release(w, r + layout.HEAD, w[row + layout.ROW_HEADS + i])  # partner: `room`
            moved |= 256 << i
    if moved == 0:
        return 0
    fence_full()  # the cursors before the look at `asleep`; a sleeper does it the other way round
    bells = 0
    for i in range(layout.PORTS):
        if moved >> i & 1 and load_acquire(w, w[layout.OUTPUTS + i] + layout.C_ASLEEP) != 0:
            bells |= 1 << i
        if moved >> i & 256 and load_acquire(w, w[layout.INPUTS + i] + layout.P_ASLEEP) != 0:
            bells |= 256 << i
    return bells


@hot
def commit(w, row, now, work):
    """Make the burst true and publish it; what a kernel returns: ``work | bells << 32``."""
    fence_order()
    # The commit point.  Partners: `recover`, and readers of counters.
    store_release(w, layout.COMMITTED, w[layout.COMMITTED] + 1)
    return work | publish(w, row, now) << 32


@kernel
def recover(u8, w, now):
    """Bring a stage segment and its rings to the last committed burst; the number of words put back."""
    undone = 0
    if w[layout.UNDO_BURST] == w[layout.COMMITTED] + 1:
        undone = int(w[layout.UNDO_N])
        for k in range(undone - 1, -1, -1):
            e = layout.UNDO + k * layout.UNDO_ENTRY
            w[w[e + layout.UNDO_WORD]] = w[e + layout.UNDO_BEFORE]
        fence_order()
        w[layout.UNDO_N] = 0
    publish(w, true_row(w), 0)
    return undone


@hot
def blocked(w, i):
    """Note that this duty cycle could not go on for want of room in output ``i``: see `doze`."""
    w[layout.BLOCKED] |= 1 << i


@kernel
def doze(u8, w, now):
    """Set the `asleep` words before a last look (one more duty cycle) and the sleep itself.

    All inputs, and those outputs that the last duty cycle found full: a ring for room that nobody waits for would wake
    every stage twice a burst.
    """
    for i in range(layout.PORTS):
        if w[layout.INPUTS + i] != 0:
            store_release(w, w[layout.INPUTS + i] + layout.C_ASLEEP, 1)  # partner: `publish`, `frames.commit`
        if w[layout.BLOCKED] >> i & 1 and w[layout.OUTPUTS + i] != 0:  # a port without a ring is never full
            store_release(w, w[layout.OUTPUTS + i] + layout.P_ASLEEP, 1)  # partner: `publish`, `frames.release`
    fence_full()  # `asleep` before the last look; `publish` does it the other way round
    return 0


@kernel
def wake(u8, w, now):
    """Clear the `asleep` words."""
    for i in range(layout.PORTS):
        if w[layout.INPUTS + i] != 0:
            store_release(w, w[layout.INPUTS + i] + layout.C_ASLEEP, 0)
        if w[layout.OUTPUTS + i] != 0:
            store_release(w, w[layout.OUTPUTS + i] + layout.P_ASLEEP, 0)
    return 0
