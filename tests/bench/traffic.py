"""Streams of realistic frames, made fast: Ethernet, IPv4, TCP or UDP, right checksums, many flows, as chardev records.

Frames go round-robin over the flows (a server that talks to all its clients).  TCP sequence numbers advance.  A frame's
number stands in its IP identification and TTL, which a compare ignores, so that each frame is known when it comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

_ETHER, _IP, _TCP, _UDP = 14, 20, 20, 8
_SYN, _ACK, _PSH_ACK = 0x02, 0x10, 0x18
_TTL: Final = 64  # and upwards: the upper bits of the number
_MOST: Final = 1 << 22


@dataclass(frozen=True)
class Stream:
    """``records`` holds one chardev record a row (``uint32`` L, frame); ``flow`` the flow of each."""

    label: str
    records: Any
    flow: Any
    vnet: bool = False

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return int(self.records.shape[0])

    @property
    def record_bytes(self) -> int:
        """Bytes of each record."""
        return int(self.records.shape[1])

    @property
    def data(self) -> memoryview:
        """All records in a row, as they go over a socket or into a ring."""
        return memoryview(self.records.reshape(-1))

    def frame(self, i: int) -> bytes:
        """Frame ``i`` without its length word."""
        return bytes(self.records[i, 4:])


@dataclass(frozen=True)
class Handshakes:
    """One record a flow and row: what opens each connection of a TCP stream, seen from the server."""

    syn: Any
    syn_ack: Any
    ack: Any


@dataclass(frozen=True)
class Verdict:
    """What became of a stream: frames that never came out, bytes that nobody sent, and the order."""

    lost: int
    strange: int
    exact: bool
    """byte for byte the stream, in its order"""
    flows_in_order: bool
    """within each flow the order is kept (frames may be missing)"""


def _put(rows: Any, at: int, values: Any, width: int) -> None:
    for k in range(width):
        rows[:, at + k] = values >> 8 * (width - 1 - k) & 0xFF


def _ones_sum(rows: Any, start: int, end: int) -> Any:
    """Sum of the big-endian 16-bit words of [start, end) of each row, not yet folded (RFC 1071)."""
    part = rows[:, start:end]
    if (end - start) % 2:
        part = np.concatenate([part, np.zeros((len(part), 1), np.uint8)], axis=1)
    return np.ascontiguousarray(part).view(">u2").sum(axis=1, dtype=np.int64)


def _fold(total: Any) -> Any:
    for _ in range(3):
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _get(rows: Any, at: int, width: int) -> Any:
    value = np.zeros(len(rows), np.int64)
    for k in range(width):
        value = value << 8 | rows[:, at + k]
    return value


def _seal(rows: Any, *, tcp: bool) -> None:
    """Compute both checksums of records whose checksum fields are 0."""
    ip, l4 = 4 + _ETHER, 4 + _ETHER + _IP
    _put(rows, ip + 10, _fold(_ones_sum(rows, ip, l4)), 2)
    pseudo = _ones_sum(rows, ip + 12, ip + 20) + (6 if tcp else 17) + rows.shape[1] - l4
    checksum = _fold(pseudo + _ones_sum(rows, l4, rows.shape[1]))
    if not tcp:
        checksum = np.where(checksum == 0, 0xFFFF, checksum)  # RFC 768: zero means none
    _put(rows, l4 + (16 if tcp else 6), checksum, 2)


def handshakes(stream: Stream, offset: int = 0) -> Handshakes:
    """What opens the connections of a TCP stream: SYN and ACK from the client, SYN+ACK from the server.

    The client's ACK acknowledges an initial sequence number that is ``offset`` below the server's, as the rewriter sees
    it where the primary chose another one than the secondary.
    """
    ip, l4 = 4 + _ETHER, 4 + _ETHER + _IP
    _, first = np.unique(stream.flow, return_index=True)
    data = stream.records[first]
    server = _get(data, l4 + 4, 4) - 1
    client = _get(data, l4 + 8, 4) - 1

    def bare(seq: Any, ack: Any, flags: int, *, inbound: bool) -> Any:
        rows = data[:, : l4 + _TCP].copy()
        _put(rows, 0, np.full(len(rows), rows.shape[1] - 4), 4)
        _put(rows, ip + 2, np.full(len(rows), _IP + _TCP), 2)
        if inbound:
            for a, b, width in ((4, 10, 6), (ip + 12, ip + 16, 4), (l4, l4 + 2, 2)):
                rows[:, a : a + width], rows[:, b : b + width] = data[:, b : b + width], data[:, a : a + width]
        _put(rows, l4 + 4, seq & 0xFFFFFFFF, 4)
        _put(rows, l4 + 8, ack & 0xFFFFFFFF, 4)
        rows[:, l4 + 13] = flags
        rows[:, [ip + 10, ip + 11, l4 + 16, l4 + 17]] = 0
        _seal(rows, tcp=True)
        return rows

    return Handshakes(
        bare(client, client * 0, _SYN, inbound=True),
        bare(server, client + 1, _SYN | _ACK, inbound=False),
        bare(client + 1, server - offset + 1, _ACK, inbound=True),
    )


def make(protocol: str, flows: int, payload: int, count: int, *, alike: bool = False, seed: int = 1) -> Stream:
    """``count`` frames (at most 4 million) with ``payload`` bytes each over ``flows`` flows of "tcp" or "udp".

    ``alike`` repeats one payload within each flow.  QEMU compares the newest waiting packets of a UDP flow first, so
    with different payloads it takes a backlog for a difference and then loses packets; alike is where it is at its
    best.
    """
    if count > _MOST:
        raise ValueError(f"{count:,} frames: a stream numbers at most {_MOST:,}")
    tcp = protocol == "tcp"
    header = _TCP if tcp else _UDP
    length = _ETHER + _IP + header + payload
    ip, l4 = 4 + _ETHER, 4 + _ETHER + _IP
    data = l4 + header
    rows = np.zeros((count, 4 + length), np.uint8)
    number = np.arange(count, dtype=np.int64)
    flow, turn = number % flows, number // flows
    _put(rows, 0, np.full(count, length), 4)
    rows[:, 4:10] = [0x52, 0x54, 0, 0, 0, 2]
    rows[:, 10:16] = [0x52, 0x54, 0, 0, 0, 1]
    _put(rows, 16, np.full(count, 0x0800), 2)
    rows[:, ip] = 0x45
    _put(rows, ip + 2, np.full(count, length - _ETHER), 2)
    _put(rows, ip + 4, number & 0xFFFF, 2)
    rows[:, ip + 6] = 0x40  # do not fragment
    rows[:, ip + 8] = _TTL + (number >> 16)
    rows[:, ip + 9] = 6 if tcp else 17
    _put(rows, ip + 12, np.full(count, 0x0A000001), 4)
    _put(rows, ip + 16, 0x0A010000 + 1 + flow // 50, 4)
    _put(rows, l4, np.full(count, 80 if tcp else 53), 2)
    _put(rows, l4 + 2, 20_000 + flow, 2)
    rng = np.random.default_rng(seed)
    if alike:
        rows[:, data:] = rng.integers(0, 256, (flows, payload), np.uint8)[flow]
    else:
        rows[:, data:] = rng.integers(0, 256, (count, payload), np.uint8)
    if tcp:
        isn = rng.integers(0, 1 << 32, flows)
        _put(rows, l4 + 4, isn[flow] + 1 + turn * payload & 0xFFFFFFFF, 4)
        _put(rows, l4 + 8, rng.integers(0, 1 << 32, flows)[flow], 4)
        rows[:, l4 + 12] = 0x50
        rows[:, l4 + 13] = _PSH_ACK
        _put(rows, l4 + 14, np.full(count, 64_240), 2)
    else:
        _put(rows, l4 + 4, np.full(count, header + payload), 2)
    _seal(rows, tcp=tcp)
    label = f"{protocol} {flows} flow{'s' * (flows > 1)} {payload} B{' alike' if alike else ''}"
    return Stream(label, rows, flow)


def judge(stream: Stream, out: Any) -> Verdict:
    """Compare what came out (a uint8 array of whole records) with the stream, frame by frame."""
    rows = np.asarray(out)
    size = stream.record_bytes
    strange = len(rows) % size
    rows = rows[: len(rows) - strange].reshape(-1, size)
    if rows.shape == stream.records.shape and np.array_equal(rows, stream.records):
        return Verdict(0, strange, strange == 0, True)
    ip = 4 + _ETHER
    ident, ttl = (rows[:, at].astype(np.int64) for at in (ip + 5, ip + 8))
    numbers = rows[:, ip + 4].astype(np.int64) << 8 | ident | (ttl - _TTL) << 16
    known = (numbers >= 0) & (numbers < stream.frames)
    good = np.zeros(len(rows), bool)
    good[known] = (rows[known] == stream.records[numbers[known]]).all(axis=1)
    kept = numbers[good]
    strange += int((~good).sum()) * size + (len(kept) - len(np.unique(kept))) * size
    by_flow = np.argsort(stream.flow[kept], kind="stable")
    same = np.diff(stream.flow[kept][by_flow]) == 0
    ordered = bool((np.diff(kept[by_flow])[same] > 0).all())
    return Verdict(stream.frames - len(np.unique(kept)), strange, False, ordered)
