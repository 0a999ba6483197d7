"""Records of a ring: chardev frames, byte for byte.

A record is ``uint32`` big-endian L, on a ring with ``VNET`` a second ``uint32`` big-endian V, then L bytes, the first V
of which are a virtio-net header.  ``r`` is the word index of a ring's header in the arena; positions are int64 and only
grow.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be32, copy, fence_full, load_acquire, put_be32, store_release
from ring.hot import hot


@hot
def index(w, r, position):
    """Byte index in the arena of a position of ring ``r``."""
    return r * 8 + layout.PAGE + (position & (w[r + layout.SIZE] - 1))


@hot
def prefix(w, r):
    """Bytes of length words before each frame: 4, or 8 with V."""
    return 4 + 4 * w[r + layout.VNET]


@hot
def whole(u8, w, r, start, end, limit):
    """Position after the last whole frame that starts in [start, end), at most ``limit`` frames; see `scan`."""
    return scan(u8, w, r, start, end, limit)[0]


@hot
def scan(u8, w, r, start, end, limit):
    """Walk the length words of [start, end): (position after the last whole frame, frames, bad).

    ``bad`` is the impossible L (over 69,632, or shorter than its own V) at that position, or -1.
    """
    lead = prefix(w, r)
    position = start
    frames = 0
    while frames < limit and end - position >= lead:
        at = index(w, r, position)
        length = be32(u8, at)
        if length > layout.MAX_FRAME or (lead == 8 and be32(u8, at + 4) > length):
            return position, frames, length
        if end - position < lead + length:
            break
        position += lead + length
        frames += 1
    return position, frames, -1


@hot
def claim(w, r, nbytes):
    """Byte index where the producer of ring ``r`` may write ``nbytes``, or -1 while there is no room."""
    tail = w[r + layout.TAIL]
    # Partner: `release`.
    if tail + nbytes - load_acquire(w, r + layout.HEAD) > w[r + layout.SIZE]:
        return -1
    return index(w, r, tail)


@hot
def commit(w, r, nbytes):
    """Publish ``nbytes`` of whole frames written after the tail; 1 when the consumer sleeps and wants a ring."""
    store_release(w, r + layout.TAIL, w[r + layout.TAIL] + nbytes)  # partner: `poll`
    fence_full()  # the tail before the look at `asleep`; the sleeper does it the other way round
    return load_acquire(w, r + layout.C_ASLEEP)


@hot
def poll(w, r):
    """Bytes of whole frames that the consumer of ring ``r`` may read from its head on."""
    return load_acquire(w, r + layout.TAIL) - w[r + layout.HEAD]  # partner: `commit`


@hot
def release(w, r, nbytes):
    """Give ``nbytes`` of read frames back to the producer; 1 when it sleeps and wants a ring."""
    store_release(w, r + layout.HEAD, w[r + layout.HEAD] + nbytes)  # partner: `claim`
    fence_full()
    return load_acquire(w, r + layout.P_ASLEEP)


@hot
def doze(w, i):
    """Set `asleep` word ``i`` before a last look: what a peer publishes is seen by that look, or the peer rings."""
    store_release(w, i, 1)  # partner: `commit`, `release`, the ledger's `publish`
    fence_full()


@hot
def vnet_bytes(u8, w, r, at):
    """Bytes of virtio-net header that begin the frame of the record at byte index ``at`` of ring ``r``."""
    return be32(u8, at + 4) if prefix(w, r) == 8 else 0


@hot
def frame_at(u8, w, r, at):
    """The Ethernet frame in the record at byte index ``at`` of ring ``r``: (its byte index, its bytes).

    It stands behind the length words and the virtio-net header.
    """
    vnet = vnet_bytes(u8, w, r, at)
    return at + prefix(w, r) + vnet, be32(u8, at) - vnet


@hot
def record_size(u8, w, r, position):
    """Bytes of the record at ``position``: length words and frame."""
    return prefix(w, r) + be32(u8, index(w, r, position))


@hot
def copied_size(u8, w, source, position, target):
    """Bytes that the record at ``position`` of ``source`` takes in ring ``target``, whose framing may differ."""
    return prefix(w, target) + be32(u8, index(w, source, position))


@hot
def copy_record(u8, w, source, position, target, tail):
    """Copy one record to position ``tail`` of ring ``target``, adding V = 0 or dropping V as its framing asks.

    The caller has seen that there is room.  Returns the bytes written.
    """
    here, there = index(w, source, position), index(w, target, tail)
    lead, new_lead = prefix(w, source), prefix(w, target)
    length = be32(u8, here)
    if lead == new_lead:
        copy(u8, there, here, lead + length)
        return lead + length
    put_be32(u8, there, length)
    if new_lead == 8:
        put_be32(u8, there + 4, 0)
    copy(u8, there + new_lead, here + lead, length)
    return new_lead + length
