"""What the compare's kernel kept of a difference, as a verdict and as the bytes of a pcapng file.  Pure.

The file (draft-ietf-opsawg-pcapng): a section header with two comments, the verdict as a sentence and as a JSON object
(`MARK` is its first key; tools.explain reads it), the interfaces ``primary`` and ``secondary``, packets by time with a
comment each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from stages.capture import writer as capture_writer
from stages.capture.format import FAR, SNAPLEN
from stages.compare.layout import events, history, reasons, records
from stages.compare.layout import kept as kept_words
from stages.packets.flow import describe_flow, describe_tunnel
from stages.packets.frames import transport
from stages.packets.layout import parsed, tcp, transports

MARK: Final = "colo_divergence"
"""First key of the JSON object; its value is the version of this format."""

VERSION: Final = 1
SIDES: Final = ("primary", "secondary")
KINDS: Final = {
    transports.TCP: "tcp",
    transports.UDP: "udp",
    transports.ICMP: "icmp",
    transports.IP: "ip",
    transports.FRAGMENT: "fragment",
}
_SYN: Final = 0xFFFFFFFF  # its position: the stream's first byte stands behind it
_AT_A_TIME: Final = 8  # packets in a piece of the file
_CHECKSUMS: Final = {17: (6, 8), 1: (2, 4), 58: (2, 4)}  # where UDP, ICMP and ICMPv6 have theirs


class Kept(NamedTuple):
    """A packet of a record; ``ns`` is monotonic, ``at`` the offset in the frame where the difference is, or -1."""

    ns: int
    side: int
    held: bool
    data: bytes
    length: int
    at: int


# --- reading what the kernel kept --------------------------------------------------------------------------------
def kept(record: Any) -> Iterator[Kept]:
    """The packets of a record, in its order.  Lengths are checked: the words come from shared memory."""
    words, raw = len(record), record.tobytes()
    end = min(int(record[records.USED]), words)
    at = records.HEADER
    for _ in range(int(record[records.PACKETS])):
        if at + kept_words.HEADER > end:
            return
        head = record[at : at + kept_words.HEADER].tolist()
        at += kept_words.HEADER
        size = head[kept_words.BYTES]
        if not 0 <= size <= (end - at) * 8:
            return
        data = raw[at * 8 : at * 8 + size]
        yield Kept(
            head[kept_words.TIME],
            head[kept_words.SIDE] & 1,
            head[kept_words.KIND] == kept_words.HELD,
            data,
            min(max(size, head[kept_words.LENGTH]), SNAPLEN),
            head[kept_words.AT],
        )
        at += -(-size // 8)


def tcp_at(data: bytes, *, tunnel: bool = False, length: int = 0) -> tuple[int, int, int, int] | None:
    """Sequence number, flags, start and end of the payload of a frame with a TCP segment; None: it is none, or cut.

    The end may lie behind ``data`` where only the frame's beginning was kept.  The rest as in `frames.transport`.
    """
    found = transport(data, tunnel=tunnel, length=length)
    if found is None or found.proto != 6 or found.fragment:
        return None
    at = found.start
    if len(data) < at + 20:
        return None
    body = at + (data[at + 12] >> 4) * 4
    return int.from_bytes(data[at + 4 : at + 8], "big"), data[at + 13], body, max(found.end, body)


# --- the verdict --------------------------------------------------------------------------------------------------
def window(event: Any, first: int, length: int) -> bytes:
    """The bytes of an event's window of one side, which begins at word ``first``."""
    text: bytes = event[first : first + events.SHOWN // 8].tobytes()
    return text[: max(0, min(length, events.SHOWN))]


def verdict(event: Any, packets: Sequence[Kept], wall: int, *, compare_id: str = "", mask: str = "") -> dict[str, Any]:
    """What an event says, as the JSON object of the file; ``wall`` + monotonic ns = ns since 1970.

    ``position`` counts the stream's bytes after the SYN (TCP), or those of the IP payload; None: it is not known.
    """
    reason = reasons.NAMES[int(event[events.REASON])]
    kind = KINDS.get(int(event[events.TRANSPORT]), "")
    lengths = int(event[events.PRIMARY_LEN]), int(event[events.SECONDARY_LEN])
    out: dict[str, Any] = {
        MARK: VERSION,
        "compare": compare_id,
        "time_ns": wall + int(event[events.TIME]),
        "rule": reason,
        "kind": kind,
        "flow": describe_flow(event[events.KEY : events.KEY + parsed.KEY_WORDS]) if event[events.CONN] else "",
        "position": None,
    }
    if mask:
        out["mask"] = mask
    tunnel = _tunnel(event)
    if tunnel:
        out["tunnel"] = tunnel
    if reason in ("payload", "flags", "order"):
        position = int(event[events.POSITION])
        out["position"] = position if position >= 0 else None  # without a SYN nobody knows where the stream began
        out["offset"] = int(event[events.OFFSET])
        for side, first in enumerate((events.PRIMARY_BYTES, events.SECONDARY_BYTES)):
            out[SIDES[side]] = {"bytes": window(event, first, lengths[side]).hex(), "length": lengths[side]}
    if reason == "flags":
        for side in range(2):
            out[SIDES[side]]["ends"] = _ends(packets, side, bool(tunnel)) if lengths[side] == 0 else ""
    elif reason == "timeout":
        out["waits"] = SIDES[0 if lengths[0] else 1]
        out["waits_for"] = "acknowledgement" if event[events.OFFSET] else "packet"
        if int(event[events.POSITION]) >= 0:
            out["position"] = int(event[events.POSITION])
    out["packets"] = [[int(p.held), p.at] for p in packets]
    return out


def _tunnel(event: Any) -> str:
    """The tunnel that the packets of an event are inside of: ``vxlan 42``; empty: none."""
    return describe_tunnel(event[events.KEY : events.KEY + parsed.KEY_WORDS]) if event[events.CONN] else ""


def _ends(packets: Sequence[Kept], side: int, tunnel: bool) -> str:
    flags = 0
    for p in packets:
        if p.side == side and p.held and (found := tcp_at(p.data, tunnel=tunnel)):
            flags |= found[1]
    return "RST" if flags & tcp.RST and not flags & tcp.FIN else "FIN"


def show_byte(window: bytes, at: int) -> str:
    """``0x41 'A'``, ``0x0a``, or ``nothing`` behind the end."""
    if not 0 <= at < len(window):
        return "nothing"
    return f"0x{window[at]:02x} {chr(window[at])!r}" if 32 <= window[at] < 127 else f"0x{window[at]:02x}"


def sides(v: dict[str, Any]) -> dict[str, str]:
    """``{"primary": "0x70 in '...'", ..}``: the byte that differs, and the text around it, for a log line."""
    shown: dict[str, str] = {}
    for side in SIDES:
        if side in v:
            text, at = bytes.fromhex(v[side]["bytes"]), v["offset"]
            differs = f"0x{text[at]:02x}" if at < len(text) else "end"
            shown[side] = f"{differs} in {''.join(chr(b) if 32 <= b < 127 else '.' for b in text)!r}"
    return shown


def sentence(v: dict[str, Any]) -> str:
    """What a verdict means, in one sentence for a person."""
    rule, position = v["rule"], v.get("position")
    where = "a place of the stream, whose start was not seen" if position is None else f"position {position:,}"
    said = [bytes.fromhex(v[s]["bytes"]) if s in v else b"" for s in SIDES]
    shown = [show_byte(text, v.get("offset", 0)) for text in said]
    if rule == "payload":
        return f"the streams differ at {where}: primary {shown[0]}, secondary {shown[1]}"
    if rule == "flags":
        ends = [f"ends ({v[s]['ends']})" if v[s]["ends"] else f"goes on with {v[s]['length']:,} bytes" for s in SIDES]
        return f"at {where} of the stream the primary {ends[0]}, the secondary {ends[1]}"
    if rule == "order":
        text = f"primary {shown[0]}, secondary {shown[1]}"
        return f"the oldest datagrams that wait have no equal on the other side; {where} of the IP payload: {text}"
    if rule == "timeout":
        other = SIDES[1 - SIDES.index(v["waits"])]
        missing = "sent the same"
        if v.get("waits_for") == "acknowledgement":
            missing = "acknowledged as much"
        elif position == _SYN:
            missing = "sent its SYN"
        elif position is not None:
            missing = f"sent what comes at position {position:,} of the stream"
        return f"a packet of the {v['waits']} waited longer than compare_timeout: the {other} has not {missing}"
    if rule == "stuck":
        return "both inputs are blocked by full queues: each side waits for packets that the other does not send"
    return f"rule {rule}"


# --- the file -----------------------------------------------------------------------------------------------------
def build(event: Any, record: Any, wall: int, *, compare_id: str = "", mask: str = "", **more: int) -> Iterator[bytes]:
    """The file in pieces, a few packets each; ``more`` are numbers for the JSON object."""
    found = list(kept(record))
    if not any(p.at >= 0 for p in found) and int(event[events.REASON]) == reasons.TIMEOUT:
        found = _mark_first(found, 0 if event[events.PRIMARY_LEN] else 1, bool(_tunnel(event)))
    event, found = _past_checksum(event, found)
    packets = _by_time(found)
    v = verdict(event, packets, wall, compare_id=compare_id, mask=mask)
    if left_out := int(record[records.LEFT_OUT]):
        more["packets_left_out"] = left_out
    v.update(more)
    meaning = sentence(v)
    what = f"rule {v['rule']}" + (f"; flow {v['flow']}" if v["flow"] else "")
    yield capture_writer.header(
        SIDES, comment=[f"{meaning}; {what}", json.dumps(v, separators=(",", ":"))], application="colo-compare"
    )
    for start in range(0, len(packets), _AT_A_TIME):
        yield b"".join(
            capture_writer.record(
                p.data, min(max(wall + p.ns, 0), FAR - 1), comment=_comment(p, v["rule"], meaning, what),
                interface=p.side, missing=p.length - len(p.data),
            )
            for p in packets[start : start + _AT_A_TIME]
        )  # fmt: skip


def _by_time(packets: list[Kept]) -> list[Kept]:
    """By time, without those of the history that are held, too.  The kernel keeps the history newest first."""
    held = {(p.ns, p.side, p.length, p.data[: history.KEPT_BYTES]) for p in packets if p.held}
    keyed = [(p.ns, p.held, p.side, i if p.held else -i) for i, p in enumerate(packets)]
    once = [
        (key, p)
        for key, p in zip(keyed, packets, strict=True)
        if p.held or (p.ns, p.side, p.length, p.data) not in held
    ]
    return [p for _, p in sorted(once, key=lambda pair: pair[0])]


def _past_checksum(event: Any, packets: list[Kept]) -> tuple[Any, list[Kept]]:
    """Datagrams that differ in their checksum differ for another reason, too: show that instead."""
    if int(event[events.REASON]) != reasons.ORDER:
        return event, packets
    marked = [next((i for i, p in enumerate(packets) if p.side == side and p.at >= 0), -1) for side in range(2)]
    tunnel = bool(_tunnel(event))
    ends = [transport(packets[i].data, tunnel=tunnel) if i >= 0 else None for i in marked]
    if ends[0] is None or ends[1] is None or ends[0].proto not in _CHECKSUMS:
        return event, packets
    first, last = _CHECKSUMS[ends[0].proto]
    bodies = [packets[i].data[e.start : e.end] for i, e in zip(marked, ends, strict=True) if e]
    if not first <= int(event[events.POSITION]) < last:
        return event, packets
    size = min(map(len, bodies))
    unequal = np.frombuffer(bodies[0], np.uint8, size) != np.frombuffer(bodies[1], np.uint8, size)
    unequal[:last] = False
    place = int(unequal.argmax()) if unequal.any() else size
    if max(map(len, bodies)) == place:
        return event, packets  # nothing else
    event, start = event.copy(), max(place - 8, last)
    event[events.POSITION], event[events.OFFSET] = place, place - start
    for side, words in enumerate((events.PRIMARY_BYTES, events.SECONDARY_BYTES)):
        window = bodies[side][start : start + events.SHOWN]
        event[(events.PRIMARY_LEN, events.SECONDARY_LEN)[side]] = max(len(bodies[side]) - start, 0)
        event[words : words + events.SHOWN // 8] = np.frombuffer(window.ljust(events.SHOWN, b"\0"), np.int64)
    moved = list(packets)
    for i, e in zip(marked, ends, strict=True):
        moved[i] = packets[i]._replace(at=(e.start if e else 0) + place)
    return event, moved


def _mark_first(packets: list[Kept], side: int, tunnel: bool) -> list[Kept]:
    """The kernel keeps the packet that waited too long before all others: mark it where its payload begins."""
    for i, p in enumerate(packets):
        if p.held and p.side == side:
            start = tcp_at(p.data, tunnel=tunnel)
            return [*packets[:i], p._replace(at=start[2] if start else 0), *packets[i + 1 :]]
    return packets


def _comment(p: Kept, rule: str, meaning: str, what: str) -> str:
    if p.at < 0:
        return "held" if p.held else "passed before"
    if rule == "timeout":
        return f"waits: {meaning}; {what}"
    place = f"byte {p.at:,} of this frame" if p.at < p.length else "at its end"
    return f"differs here ({place}): {meaning}; {what}"
