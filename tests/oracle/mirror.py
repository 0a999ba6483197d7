"""filter-mirror as anybody would write it: one packet at a time, lists for rings."""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.packets import P_TCP, SYN, checksum, packed, pseudo, read


class MirrorOracle:
    """``status`` and ``connected`` (outdev has a peer) are set by the test; the rest never changes."""

    def __init__(self, has_outdev: bool = True, strip_mptcp: bool = False) -> None:
        self.status, self.connected, self.has_outdev, self.strip_mptcp = True, True, has_outdev, strip_mptcp
        self.out: defaultdict[str, list[bytes]] = defaultdict(list)
        self.counters: Counter[str] = Counter()

    def packet(self, port: str, frame: bytes) -> None:
        """One packet arrives at ``tx_in`` or ``rx_in``."""
        self.counters[f"{port}_frames"] += 1
        if self.strip_mptcp and port == "tx_in":
            bare = without_mptcp(frame)
            self.counters["mptcp_taken_out"] += bare != frame
            frame = bare
        self._put(port.replace("_in", "_out"), frame)
        if self.status and self.has_outdev:
            if self.connected:
                self._put("outdev", frame)
            else:
                self.counters["dropped_no_peer"] += 1

    def _put(self, port: str, frame: bytes) -> None:
        self.out[port].append(frame)
        self.counters[f"{port}_frames"] += 1


def without_mptcp(frame: bytes) -> bytes:
    """A well-formed frame; of a segment with SYN every option of kind 30 is NOPs, its checksum is summed anew."""
    p = read(frame)
    if p.proto != P_TCP or p.fragment or not p.flags & SYN:
        return frame
    size = (p.body[12] >> 4) * 4
    options, at = bytearray(p.body[20:size]), 0
    while at < len(options) and options[at] != 0:
        step = 1 if options[at] == 1 else options[at + 1]
        if options[at] == 30:
            options[at : at + step] = b"\1" * step
        at += step
    if options == p.body[20:size]:
        return frame
    body = p.body[:16] + b"\0\0" + p.body[18:20] + options + p.body[size:]
    value = checksum(pseudo(packed(p.src), packed(p.dst), P_TCP, len(body)) + body)
    end = p.body_at + len(body)
    return frame[: p.body_at] + body[:16] + value.to_bytes(2, "big") + body[18:] + frame[end:]
