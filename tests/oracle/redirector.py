"""filter-redirector as anybody would write it: one packet at a time, lists for rings."""

from __future__ import annotations

from collections import Counter, defaultdict


class RedirectorOracle:
    """``ports`` says which rings there are; ``status`` and ``connected`` (outdev has a peer) are set by the test."""

    def __init__(self, ports: tuple[str, ...]) -> None:
        self.ports, self.status, self.connected = ports, True, True
        self.waiting: list[bytes] = []
        self.out: defaultdict[str, list[bytes]] = defaultdict(list)
        self.counters: Counter[str] = Counter()

    def packet(self, port: str, frame: bytes) -> None:
        """One frame arrives at ``tx_in``, ``rx_in`` or ``indev``."""
        if port == "indev":
            self.waiting.append(frame)
        elif "outdev" in self.ports and self.status and self.connected:
            self.counters[f"{port}_frames"] += 1
            self._put("outdev", frame)
        else:
            self.counters[f"{port}_frames"] += 1
            self.counters["passed_on"] += 1
            if "outdev" in self.ports and self.status:
                self.counters["passed_no_peer"] += 1
            self._put(port.replace("_in", "_out"), frame)
        self.settle()

    def settle(self) -> None:
        """While on, everything that waits at indev enters the chain in each direction that there is."""
        while self.status and self.waiting:
            frame = self.waiting.pop(0)
            self.counters["indev_frames"] += 1
            ways = [way for way in ("tx", "rx") if f"{way}_out" in self.ports]
            for way in ways:
                self._put(f"{way}_out", frame)
                self.counters[f"injected_{way}"] += 1
            self.counters["injected_twice"] += len(ways) == 2

    def _put(self, port: str, frame: bytes) -> None:
        self.out[port].append(frame)
        self.counters[f"{port}_frames"] += 1
