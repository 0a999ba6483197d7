"""netdev-tap and netdev-packet: frames between a device and the rings, one system call a frame, one kernel a burst."""

from __future__ import annotations

from errno import EAGAIN, EBADF, EBADFD, EINTR, EIO, ENETDOWN, ENODEV, ENXIO

from ring import layout
from ring.atomics import be32, copy, put_be32, put_byte
from ring.hot import hot, kernel
from ring.kernels.frames import index, prefix, scan, vnet_bytes
from ring.kernels.ledger import begin, blocked, commit, count, readable, room
from stages.device.kernels.packet_socket import read_message
from stages.device.kernels.segments import next_length, waiting, write_segment
from stages.device.layout import counters, memory, message, options, ports
from stages.packets.kernels.gate import closed, discard
from stages.packets.kernels.system_calls import sys_read, sys_write


@hot
def write_frame(u8, w, at, header, length):
    """Give the device ``length`` bytes at ``at``, of which ``header`` are a virtio-net header; write's result."""
    wanted = w[options.HEADER]
    if wanted == header:
        return sys_write(u8, w[options.FD], at, length)
    # Another header: what both have in common stands first (10 bytes), the rest is zero.
    out = int((w[options.MEMORY] + memory.FRAME) * 8)
    kept = min(header, wanted)
    for i in range(wanted):
        put_byte(u8, out + i, 0)
    copy(u8, out, at, kept)
    copy(u8, out + wanted, at + header, length - header)
    return sys_write(u8, w[options.FD], out, wanted + length - header)


@hot
def gone(result):
    """Whether a system call says that there is no device any more (packet sockets say ENXIO)."""
    return result == -EBADFD or result == -EBADF or result == -ENODEV or result == -ENXIO


@hot
def device_send(u8, w, row):
    """Frames from the ring to the device; the number that left the ring."""
    x, r = w[options.MEMORY], w[layout.INPUTS + ports.SEND]
    position, end = w[row + layout.ROW_HEADS + ports.SEND], readable(w, row, ports.SEND)
    if r == 0 or position == end:
        return 0
    if closed(w, options.GATED):
        return discard(u8, w, row, ports.SEND, counters.DROPPED_BEFORE_FAILOVER)
    if w[options.FD] < 0:  # there is no device now: it takes as much as one that is down
        return discard(u8, w, row, ports.SEND, counters.DROPPED_REFUSED)
    end = scan(u8, w, r, position, end, memory.BURST)[0]
    lead = prefix(w, r)
    sent = refused = 0
    while position < end:
        at = index(w, r, position)
        length = be32(u8, at)
        header = vnet_bytes(u8, w, r, at)
        result = write_frame(u8, w, at + lead, header, length)
        while result == -EINTR:
            result = write_frame(u8, w, at + lead, header, length)
        if result == -EAGAIN:
            w[x + memory.WANTS_OUT] = 1
            break
        if gone(result):
            w[x + memory.ERROR] = -result
            break
        if result < 0:
            # EIO, ENETDOWN: the link is down; EINVAL: shorter than Ethernet; EMSGSIZE: over the MTU; ENOBUFS: full now
            w[x + memory.REFUSAL] = -result
            refused += 1
        else:
            sent += 1
        position += lead + length
    w[row + layout.ROW_HEADS + ports.SEND] = position
    count(w, row, ports.SEND, sent + refused)
    count(w, row, counters.SENT, sent)
    count(w, row, counters.DROPPED_REFUSED, refused)
    return sent + refused


@hot
def read_frame(u8, w, row, at, most):
    """A frame from the device to byte ``at``, at most ``most`` bytes: its length, TO_CUT, DROPPED, or -errno."""
    if w[options.SOCKET] == 1:
        return read_message(u8, w, row, at, most)
    return sys_read(u8, w[options.FD], at, most)


@hot
def device_receive(u8, w, row):
    """Frames from the device straight into the ring; their number, with those that were dropped and counted.

    One that has to be cut comes into private memory, and its segments into the ring as there is room: what is not there
    at a kill is lost with the socket, like every frame that it holds.  While the stage drains, or there is no device,
    there are only these.
    """
    x, r = w[options.MEMORY], w[layout.OUTPUTS + ports.RECEIVE]
    if r == 0:
        return 0
    c = int(x + memory.SEGMENTATION)
    lead = prefix(w, r)
    most = min(layout.MAX_FRAME, w[r + layout.SIZE] - lead)
    frames = others = 0
    while frames + others < memory.BURST:
        cutting = waiting(w, c) > 0
        if not cutting and (w[layout.CMD_DRAIN] != 0 or w[options.FD] < 0):
            break
        if room(w, row, ports.RECEIVE) < lead + (next_length(w, c) if cutting else most):
            blocked(w, ports.RECEIVE)
            break
        at = index(w, r, w[row + layout.ROW_TAILS + ports.RECEIVE])
        if cutting:
            length = write_segment(u8, w, c, at + lead)
            count(w, row, counters.SEGMENTS_MADE, 1)
        else:
            length = read_frame(u8, w, row, at + lead, most)
        if length == -EINTR:
            continue
        if length == message.DROPPED or length == message.TO_CUT:
            others += 1
            continue
        if length <= 0:
            if gone(length) or length == -EIO or length == -ENETDOWN:
                w[x + memory.ERROR] = -length
            break
        put_be32(u8, at, length)
        if lead == 8:
            put_be32(u8, at + 4, w[options.GIVEN])
        w[row + layout.ROW_TAILS + ports.RECEIVE] += lead + length
        frames += 1
    count(w, row, layout.PORTS + ports.RECEIVE, frames)
    return frames + others


@kernel
def device_open(u8, w, now):
    """A burst up to its commit, so that it can be recorded before; the work, 0: nothing to commit."""
    x = w[options.MEMORY]
    w[layout.BLOCKED] = 0
    w[x + memory.WANTS_OUT] = 0
    row = begin(w)
    work = device_send(u8, w, row) + device_receive(u8, w, row)
    if w[x + memory.LOST] != 0:
        count(w, row, counters.DROPPED_BY_KERNEL, w[x + memory.LOST])
        work += 1
    w[x + memory.ROW] = row
    w[x + memory.WORK] = work
    return work


@kernel
def device_commit(u8, w, now):
    """Commit the burst that `device_open` left open."""
    x = w[options.MEMORY]
    result = commit(w, w[x + memory.ROW], now, w[x + memory.WORK])
    w[x + memory.LOST] = 0
    return result


@kernel
def device_burst(u8, w, now):
    """One burst of each direction, where nothing is recorded."""
    if device_open(u8, w, now) == 0:
        return 0
    return device_commit(u8, w, now)
