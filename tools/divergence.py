"""A file of `stages.compare.finding` as data: the verdict, the packets of both sides, and what they show.

`load` reads one; `pairs` puts both sides' packets on common lines; `around` is the streams next to the difference;
`written` finds files.  Nothing here draws: see tools.explain; tools.advice says what may be done about it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stages.capture import reader as captures
from stages.capture.reader import CaptureError
from stages.compare.finding import KINDS, MARK, SIDES, VERSION, sentence, tcp_at
from stages.packets.frames import transport

_MOD: Final = 1 << 32
_MOST: Final = 1000  # packets; the compare writes fewer than 100
_MOST_BYTES: Final = 16 << 20  # and less than 100 KB
_REACH: Final = 256  # bytes before and behind the difference that are looked at
RULES: Final = ("payload", "flags", "order", "timeout", "stuck")


class NotExplainedError(Exception):
    """The file cannot be shown; the text says why."""


@dataclass(frozen=True)
class Seen:
    """A packet of one side.  ``at``: offset in the frame where it differs, or -1."""

    ns: int
    side: int
    held: bool
    at: int
    data: bytes
    length: int  # of the frame; ``data`` may hold only its beginning
    tcp: bool
    start: int  # offset of what is compared: TCP's data, else the IP payload
    size: int  # bytes of that
    seq: int = 0
    ack: int = 0
    flags: int = 0

    @property
    def body(self) -> bytes:
        """What is known of the bytes that are compared."""
        return self.data[self.start : self.start + self.size]


@dataclass(frozen=True)
class Divergence:
    """One file.  ``zero``: the sequence number of position 0 (TCP); ``place``: position of the difference, or None."""

    path: str
    verdict: dict[str, Any]
    packets: tuple[Seen, ...]
    zero: int
    ack_zero: int
    place: int | None

    @property
    def meaning(self) -> str:
        """The verdict as a sentence."""
        return sentence(self.verdict)

    @property
    def is_tcp(self) -> bool:
        """Whether streams were compared, not datagrams."""
        return bool(self.verdict["kind"] == "tcp")

    def of(self, side: int) -> list[Seen]:
        """The packets of one side by time."""
        return [p for p in self.packets if p.side == side]

    def relative(self, p: Seen) -> int:
        """Position in the stream of a segment's first byte; of a SYN, -1."""
        if p.flags & 2:
            return -1  # each replica has its own initial sequence number
        return _signed(p.seq - self.zero)


def _signed(number: int) -> int:
    return (number + (_MOD >> 1)) % _MOD - (_MOD >> 1)


# --- reading ------------------------------------------------------------------------------------------------------
def load(path: str | os.PathLike[str]) -> Divergence:
    """Read one file, once: it may be a pipe.  Raises `CaptureError`, or `NotExplainedError` where it has no verdict."""
    try:
        data = captures.load(path, _MOST_BYTES)
        if not data:
            raise NotExplainedError("the file is empty")
        read = captures.packets(data, path, cut=True)
        v = _verdict(captures.comments_in(data, path))
    except CaptureError as error:
        if error.offset == 0:  # there is no place in the file to name
            raise NotExplainedError(error.found) from None
        raise
    if len(read) > _MOST:
        raise NotExplainedError(f"{len(read):,} packets: no file of the compare has more than {_MOST:,}")
    marks = v["packets"] if len(v["packets"]) == len(read) else [[0, -1]] * len(read)
    packets = []
    for p, (held, at) in zip(read, marks, strict=True):
        side = SIDES.index(p.interface) if p.interface in SIDES else 0
        packets.append(_seen(p, side, bool(held), at, bool(v.get("tunnel"))))
    packets.sort(key=lambda p: p.ns)
    return _placed(os.fspath(path), v, tuple(packets))


def _verdict(comments: Sequence[str]) -> dict[str, Any]:
    for text in comments:
        try:
            found = json.loads(text) if text.startswith("{") else None
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and MARK in found:
            if found[MARK] != VERSION:
                raise NotExplainedError(f"a verdict of format {found[MARK]!r}: {VERSION} is known here")
            return _checked(found)
    raise NotExplainedError("no verdict of colo-compare in it: not a file that explains a difference")


def _checked(v: dict[str, Any]) -> dict[str, Any]:
    """The verdict, if every field is what `stages.compare.finding.verdict` writes."""

    def whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63

    def side_is_right(side: Any) -> bool:
        if (
            not isinstance(side, dict)
            or not whole(side.get("length"))
            or side.get("ends", "") not in ("", "FIN", "RST")
        ):
            return False
        text = side.get("bytes")
        return isinstance(text, str) and len(text) % 2 == 0 and set(text) <= set("0123456789abcdef")

    rule = v.get("rule")
    faults = {
        "time_ns": not whole(v.get("time_ns")) or not 0 <= v["time_ns"] < 1 << 63,
        "rule": rule not in RULES,
        "kind": v.get("kind") not in ("", *KINDS.values()),
        "position": v.get("position") is not None and not (whole(v["position"]) and v["position"] >= 0),
        "offset": rule in RULES[:3] and not (whole(v.get("offset")) and 0 <= v["offset"] < 1 << 32),
        "waits": rule == "timeout" and v.get("waits") not in SIDES,
        "packets": not isinstance(v.get("packets"), list)
        or not all(isinstance(x, list) and len(x) == 2 and whole(x[0]) and whole(x[1]) for x in v["packets"]),
    }
    for name in ("flow", "compare", "mask", "tunnel"):
        faults[name] = not isinstance(v.get(name, ""), str) or not v.get(name, "").isprintable()
    for name in ("number", "left_out", "packets_left_out"):
        faults[name] = not whole(v.get(name, 0))
    for side in SIDES:
        faults[side] = rule in RULES[:3] and not side_is_right(v.get(side))
        faults[f"{side}.ends"] = rule == "flags" and not faults[side] and "ends" not in v[side]
    if wrong := [name for name, fault in faults.items() if fault]:
        raise NotExplainedError(f"its verdict cannot be read: {', '.join(wrong)}")
    return {"flow": "", "compare": "", "position": None, **v}


def _seen(p: captures.Packet, side: int, held: bool, at: int, tunnel: bool) -> Seen:
    length = len(p.data) + p.missing
    ip = transport(p.data, tunnel=tunnel, length=length)
    found = tcp_at(p.data, tunnel=tunnel, length=length)
    if ip is not None and found is not None:
        seq, flags, start, end = found
        ack = int.from_bytes(p.data[ip.start + 8 : ip.start + 12], "big")
        return Seen(p.ns, side, held, at, p.data, length, True, start, min(end, length) - start, seq, ack, flags)
    start, end = (ip.start, min(ip.end, length)) if ip else (0, length)
    return Seen(p.ns, side, held, at, p.data, length, False, start, max(end - start, 0))


def _placed(path: str, v: dict[str, Any], packets: tuple[Seen, ...]) -> Divergence:
    """Find out which sequence number is position 0, and where the difference is."""
    segments = [p for p in packets if p.tcp]
    acks = [p.ack for p in segments if p.flags & 16]
    ack_zero = _least(acks)
    marked = [p for p in packets if p.at >= 0]
    place = v["position"]
    if v["kind"] != "tcp":
        if place is None and marked:
            place = max(marked[0].at - marked[0].start, 0)
        return Divergence(path, v, packets, 0, ack_zero, place)
    exact = [p for p in marked if p.tcp]
    if not exact:
        first = _least([p.seq + (p.flags >> 1 & 1) for p in segments])
        return Divergence(path, v, packets, first, ack_zero, place)
    p = exact[0]
    there = p.seq + (p.flags >> 1 & 1) + max(p.at - p.start, 0)
    if place is not None:
        zero = there - place
    else:
        syns = [s.seq + 1 for s in segments if s.flags & 2 and s.side == 0]  # both streams have the primary's numbers
        zero = syns[-1] if syns else _least([s.seq for s in segments if not s.flags & 2] or [there])
        place = _signed(there - zero)
    return Divergence(path, v, packets, zero % _MOD, ack_zero, place)


def _least(numbers: Sequence[int]) -> int:
    """The first of sequence numbers, in serial order (RFC 1982) as seen from one of them."""
    return (min(_signed(n - numbers[0]) for n in numbers) + numbers[0]) % _MOD if numbers else 0


# --- the streams next to the difference -----------------------------------------------------------------------------
def around(d: Divergence) -> tuple[dict[int, int], dict[int, int]]:
    """What is known of both sides' bytes near the difference, by position."""
    known: tuple[dict[int, int], dict[int, int]] = {}, {}
    if d.place is None:
        return known
    for side in range(2):
        if d.is_tcp:
            for p in sorted(d.of(side), key=lambda p: (p.at >= 0, p.held)):
                if p.tcp and not p.flags & 2:
                    _lay(known[side], d.relative(p), p.body, d.place)
        else:
            for p in [p for p in d.of(side) if p.at >= 0][:1]:
                _lay(known[side], 0, p.body, d.place)
        said = d.verdict.get(SIDES[side])
        if isinstance(said, dict) and d.verdict["position"] is not None:
            _lay(known[side], d.place - d.verdict["offset"], bytes.fromhex(said["bytes"]), d.place)
    return known


def _lay(known: dict[int, int], first: int, body: bytes, place: int) -> None:
    start = max(0, place - _REACH - first)
    for i, value in enumerate(body[start : max(0, place + _REACH - first)], first + start):
        known[i] = value


def line_of(known: dict[int, int], place: int) -> tuple[bytes, int]:
    """The line of text that holds position ``place``, as far as it is known, and where in it that is."""
    first = last = place
    while first - 1 in known and known[first - 1] != 10:
        first -= 1
    while last in known and known[last] != 10:
        last += 1
    return bytes(known[i] for i in range(first, last)), place - first


# --- packets, side by side -----------------------------------------------------------------------------------------
def pairs(d: Divergence) -> Iterator[tuple[Seen | None, Seen | None]]:
    """Both sides' packets by time; what both have sent stands on one line, and so do those that differ."""
    left, right = d.of(0), d.of(1)
    marks = [next((i for i, p in enumerate(side) if p.at >= 0), len(side)) for side in (left, right)]
    both = marks[0] < len(left) and marks[1] < len(right)
    if not both:
        yield from _merge(d, left, right)
        return
    yield from _merge(d, left[: marks[0]], right[: marks[1]])
    yield left[marks[0]], right[marks[1]]
    yield from _merge(d, left[marks[0] + 1 :], right[marks[1] + 1 :])


def _same(d: Divergence, p: Seen) -> tuple[Any, ...]:
    """What makes two packets the same segment or datagram, as far as can be told from their beginnings."""
    if not p.tcp:
        return False, p.size, p.body[:48]
    if p.size == 0 and not p.flags & 7:
        return True, d.relative(p), p.ack
    return True, d.relative(p), p.size, p.flags & 7


def _merge(d: Divergence, left: list[Seen], right: list[Seen]) -> Iterator[tuple[Seen | None, Seen | None]]:
    """The longest common sequence, and what stands between by time."""
    a, b = [_same(d, p) for p in left], [_same(d, p) for p in right]
    length = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a) - 1, -1, -1):
        for j in range(len(b) - 1, -1, -1):
            longer = max(length[i + 1][j], length[i][j + 1])
            length[i][j] = 1 + length[i + 1][j + 1] if a[i] == b[j] else longer
    i = j = 0
    while i < len(a) or j < len(b):
        if i < len(a) and j < len(b) and a[i] == b[j]:
            yield left[i], right[j]
            i, j = i + 1, j + 1
            continue
        skip_left = i < len(a) and (j == len(b) or length[i + 1][j] >= length[i][j])
        skip_right = j < len(b) and (i == len(a) or length[i][j + 1] >= length[i][j])
        if skip_left and (not skip_right or left[i].ns <= right[j].ns):
            yield left[i], None
            i += 1
        else:
            yield None, right[j]
            j += 1


# --- listing ------------------------------------------------------------------------------------------------------
def written(folder: str | os.PathLike[str]) -> list[tuple[int, str]]:
    """The pcapng files of a folder, with when each was written (ns since 1970).

    Raises `NotExplainedError` where it cannot be read.
    """
    found: list[tuple[int, str]] = []
    try:
        for entry in os.scandir(folder):
            try:
                if entry.name.endswith(".pcapng") and not entry.name.startswith(".") and entry.is_file():
                    found.append((entry.stat().st_mtime_ns, entry.path))
            except FileNotFoundError:
                continue  # the compare deletes its oldest
    except OSError as error:
        raise NotExplainedError(f"the folder cannot be read ({error.strerror})") from None
    return found
