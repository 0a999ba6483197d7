"""filter-mirror as anybody would write it: one packet at a time, lists for rings."""

from __future__ import annotations

from collections import Counter, defaultdict


class MirrorOracle:
    """``status`` and ``connected`` (outdev has a peer) are set by the test; ``has_outdev`` never changes."""

    def __init__(self, has_outdev: bool = True) -> None:
        self.status, self.connected, self.has_outdev = True, True, has_outdev
        self.out: defaultdict[str, list[bytes]] = defaultdict(list)
        self.counters: Counter[str] = Counter()

    def packet(self, port: str, frame: bytes) -> None:
        """One packet arrives at ``tx_in`` or ``rx_in``."""
        self.counters[f"{port}_frames"] += 1
        self._put(port.replace("_in", "_out"), frame)
        if self.status and self.has_outdev:
            if self.connected:
                self._put("outdev", frame)
            else:
                self.counters["dropped_no_peer"] += 1

    def _put(self, port: str, frame: bytes) -> None:
        self.out[port].append(frame)
        self.counters[f"{port}_frames"] += 1
