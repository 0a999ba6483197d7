"""filter-mirror: every packet goes on, and a copy of it to outdev; unchanged, but for MPTCP where that is asked.

A full outdev holds the packets back, so that no copy is lost; but not for ever: the client's packets must not wait for
a secondary that takes nothing (a QEMU in -incoming does not read its netdev, a host may hang).

MPTCP (RFC 8684) lets a connection have subflows on other addresses and ports, which carry parts of one stream in any
division: two replicas do not divide alike, and their keys are random.  So `strip_mptcp` makes its options NOPs wherever
a segment with SYN goes to the guest.  Without MP_CAPABLE there both ends fall back to TCP (3.7), whoever has opened.
MP_JOIN goes, too: of a connection that is older than the mirror it would open a subflow on one replica alone; without
it the peer resets that attempt (3.2).  Output is copied, then patched beyond its published tail, as the rewriter does.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be16, be32, byte, load_acquire, put_be16
from ring.hot import hot, kernel
from ring.kernels.frames import index, prefix, vnet_bytes
from ring.kernels.ledger import begin, commit, count, nothing_to_read
from stages.mirror import layout as own
from stages.packets.kernels.checksum import updated
from stages.packets.kernels.forward import connected, forward
from stages.packets.kernels.parse import parse
from stages.packets.kernels.tcp_options import erase
from stages.packets.layout import parsed, tcp, transports

_NEEDS_CSUM = 1  # virtio-net header flags, its first byte (virtio 1.2, 5.1.6)
_TCP, _UDP, _ICMPV6 = 6, 17, 58  # protocol numbers
_FLAGS, _CHECKSUM = 13, 16  # offsets in the TCP header
_MPTCP = 30  # kind of option (RFC 8684, 3)


@hot
def outdev_is_full(w):
    """Whether this burst found no room in outdev."""
    return w[layout.BLOCKED] >> own.OUTDEV & 1 == 1


@hot
def stalled(w, now):
    """Whether outdev has taken nothing for so long that nobody waits for it any more.

    For a minute after a stall a tenth of the time is enough: what a system buffers for a peer that reads nothing looks
    like a peer that reads, and each new connection to it has such a buffer.
    """
    if w[own.STALL_NS] == 0:
        return False
    since = w[own.STALLED_AT]
    return w[own.FULL_NS] >= (w[own.STALL_NS] // 10 if since != 0 and now - since < own.SUSPECT_NS else w[own.STALL_NS])


@hot
def look_at_link(w):
    """Another connection behind outdev: what the one before it has not taken says nothing of this one."""
    r = w[layout.OUTPUTS + own.OUTDEV]
    if r == 0:
        return
    link = load_acquire(w, r + layout.C_LINK)  # partner: the chardev's process
    if link & 1 == 1 and link != w[own.LINK]:
        w[own.LINK] = link
        w[own.FULL_NS] = w[own.STALLED] = 0


@hot
def look_at_outdev(w, now):
    """Note for how long a full outdev has taken nothing; it has not where its head stands still."""
    if not outdev_is_full(w) and w[own.FULL_NS] == 0:
        return
    taken = load_acquire(w, w[layout.OUTPUTS + own.OUTDEV] + layout.HEAD)  # partner: the process behind outdev
    if taken != w[own.TAKEN] or w[own.FULL_NS] == 0:
        w[own.TAKEN] = taken
        w[own.FULL_NS] = int(outdev_is_full(w))  # more than nothing: it has begun
    elif outdev_is_full(w):
        w[own.FULL_NS] += min(now - w[own.LOOKED], own.LOOK_NS)
    w[own.LOOKED] = now
    w[own.STALLED] = int(stalled(w, now))
    if w[own.STALLED] == 1:
        w[own.STALLED_AT] = now


@hot
def pass_on(u8, w, row, i, o):
    """Pass a burst from input ``i`` to output ``o`` and a copy of it to outdev; the number of frames."""
    mirroring = w[layout.OUTPUTS + own.OUTDEV] != 0 and w[layout.CMD_STATUS] == 1
    if mirroring and connected(w, own.OUTDEV):
        frames = forward(u8, w, row, i, o, own.OUTDEV)
        if frames == 0 and outdev_is_full(w) and w[own.STALLED] == 1:
            frames = forward(u8, w, row, i, o, -1)
            count(w, row, own.DROPPED_STALLED, frames)
        return frames
    frames = forward(u8, w, row, i, o, -1)
    if mirroring:
        count(w, row, own.DROPPED_NO_PEER, frames)
    return frames


@hot
def may_have_syn(u8, at, length):
    """Whether the frame at byte index ``at`` can be a TCP segment with SYN; a quick no for nearly all that are none."""
    kind = be16(u8, at + 12) if length >= 14 else 0
    l4 = 0
    if kind == 0x0800 and length >= 34:
        if byte(u8, at + 23) != _TCP:
            return False
        l4 = 14 + (byte(u8, at + 14) & 15) * 4
    elif kind == 0x86DD and length >= 54:
        following = byte(u8, at + 20)
        if following == _UDP or following == _ICMPV6:
            return False
        l4 = 54 if following == _TCP else 0
    # Tags, extension headers and what is cut off are the parser's.
    return l4 == 0 or l4 + _FLAGS >= length or byte(u8, at + l4 + _FLAGS) & tcp.SYN != 0


@hot
def syn_header(u8, w, at, length):
    """Where the TCP header of the segment with SYN at byte index ``at`` is and its bytes; (0, 0): it is none.

    The first fragment of one, too, where it has the whole header.
    """
    transport = parse(u8, w, at, length, own.SCRATCH)
    l4 = w[own.SCRATCH + parsed.L4]
    if transport == transports.FRAGMENT:
        behind = w[own.SCRATCH + parsed.END] - l4
        if w[own.SCRATCH + parsed.PROTO] != _TCP or w[own.SCRATCH + parsed.FRAG] >> 1 != 0 or behind < 20:
            return 0, 0
        size = (byte(u8, at + l4 + 12) >> 4) * 4
        if size < 20 or behind < size:
            return 0, 0
    elif transport == transports.TCP:
        size = w[own.SCRATCH + parsed.DATA] - l4
    else:
        return 0, 0
    return (at + l4, size) if byte(u8, at + l4 + _FLAGS) & tcp.SYN else (0, 0)


@hot
def take_out_mptcp(u8, w, row, i, start, o, tail):
    """Take MPTCP out of frames that were copied from input ``i``, from ``start`` on, to output ``o``, from ``tail`` on.

    How many had it.  Where the virtio-net header ends only the input says: an output without V carries it, too.
    """
    source, target = w[layout.INPUTS + i], w[layout.OUTPUTS + o]
    stop = w[row + layout.ROW_HEADS + i]
    changed = 0
    while start < stop:
        at = index(w, source, start)
        size = be32(u8, at)
        vnet = vnet_bytes(u8, w, source, at)
        frame = index(w, target, tail) + prefix(w, target) + vnet
        if may_have_syn(u8, frame, size - vnet):
            segment, header = syn_header(u8, w, frame, size - vnet)
            found, delta = erase(u8, segment, header, _MPTCP)
            # A partial checksum (NEEDS_CSUM) covers only the pseudo-header.
            if found != 0 and (vnet == 0 or byte(u8, at + prefix(w, source)) & _NEEDS_CSUM == 0):
                put_be16(u8, segment + _CHECKSUM, updated(be16(u8, segment + _CHECKSUM), delta))
            changed += int(found != 0)
        start += prefix(w, source) + size
        tail += prefix(w, target) + size
    return changed


@hot
def mirror_direction(u8, w, row, i, o):
    """A burst from input ``i`` to output ``o``, and a copy of it to outdev; the number of frames."""
    if i != own.TX_IN or w[own.STRIP_MPTCP] == 0:
        return pass_on(u8, w, row, i, o)
    start = w[row + layout.ROW_HEADS + i]
    tail, copies = w[row + layout.ROW_TAILS + o], w[row + layout.ROW_TAILS + own.OUTDEV]
    frames = pass_on(u8, w, row, i, o)
    changed = take_out_mptcp(u8, w, row, i, start, o, tail)
    count(w, row, own.MPTCP_TAKEN_OUT, changed)
    if changed != 0 and w[row + layout.ROW_TAILS + own.OUTDEV] != copies:
        take_out_mptcp(u8, w, row, i, start, own.OUTDEV, copies)
    return frames


@kernel
def mirror_burst(u8, w, now):
    """One burst of each direction."""
    w[layout.BLOCKED] = 0
    if nothing_to_read(w):
        return 0
    look_at_link(w)
    row = begin(w)
    work = mirror_direction(u8, w, row, own.TX_IN, own.TX_OUT) + mirror_direction(u8, w, row, own.RX_IN, own.RX_OUT)
    look_at_outdev(w, now)
    if work == 0:
        return 0
    return commit(w, row, now, work)
