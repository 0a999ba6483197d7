"""A wire that loses and overtakes: `python -m tools.lab.wire`, a process between a host's TAP and the pipeline's.

The host's own TAP is read and written by this process, which passes its frames to and from a second TAP, the
pipeline's, through AF_PACKET.  It does what ``tc netem`` does, where the kernel has no netem; and its choices come from
a seed, so that frame number N of a direction has the same fate in every run.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h
_SOL_PACKET, _PACKET_IGNORE_OUTGOING, _ETH_P_ALL = 263, 23, 0x0003  # linux/if_packet.h, linux/if_ether.h
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_FRAME = 65_600


@dataclass
class Fate:
    """What happens to the frames of one direction: chances from 0 to 1, ``delay`` in seconds.

    As with netem, a frame is overtaken because all others wait ``delay`` and it does not.
    """

    loss: float
    reorder: float
    delay: float
    seed: int
    frames: int = 0
    lost: int = 0
    early: int = 0
    refused: int = 0
    _dice: random.Random = field(init=False, repr=False)
    _waiting: deque[tuple[float, bytes]] = field(init=False, default_factory=deque, repr=False)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def take(self, frame: bytes, now: float) -> bytes | None:
        """A frame comes in; it is given back if it goes out before those that wait, or kept, or lost."""
        lost, early = self._dice.random() < self.loss, self._dice.random() < self.reorder
        self.frames += 1
        if lost:
            self.lost += 1
            return None
        if early or self.delay == 0:
            self.early += bool(early and self._waiting)
            return frame
        self._waiting.append((now + self.delay, frame))
        return None

    def due(self, now: float) -> list[bytes]:
        """Frames that have waited long enough, in their order."""
        out = []
        while self._waiting and self._waiting[0][0] <= now:
            out.append(self._waiting.popleft()[1])
        return out

    def rest(self, now: float) -> float | None:
        """Seconds until the next frame is due, None: nothing waits."""
        return max(0.0, self._waiting[0][0] - now) if self._waiting else None

    def counts(self) -> dict[str, int]:
        """Frames taken, lost, sent before others that waited, refused by the device."""
        return {"frames": self.frames, "lost": self.lost, "early": self.early, "refused": self.refused}


class Wire:
    """Two ways between the host's TAP and the pipeline's."""

    def __init__(self, tap: str, device: str, egress: Fate, ingress: Fate) -> None:
        self._tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self._tap, _TUNSETIFF, struct.pack("16sH22x", tap.encode(), _IFF_TAP | _IFF_NO_PI))
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 26)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._socket.bind((device, _ETH_P_ALL))
        self.egress, self.ingress = egress, ingress
        self._ways: tuple[tuple[Fate, Callable[[], bytes], Callable[[bytes], int]], ...] = (
            (egress, lambda: os.read(self._tap, _FRAME), self._socket.send),
            (ingress, lambda: self._socket.recv(_FRAME), lambda frame: os.write(self._tap, frame)),
        )
        self.running = True

    def run(self) -> None:
        """Pass frames until ``running`` is false."""
        while self.running:
            now = time.monotonic()
            rests = [rest for way in self._ways if (rest := way[0].rest(now)) is not None]
            select.select([self._tap, self._socket.fileno()], [], [], min(rests, default=0.5))
            for fate, receive, send in self._ways:
                self._pass(fate, receive, send)

    @staticmethod
    def _pass(fate: Fate, receive: Callable[[], bytes], send: Callable[[bytes], int]) -> None:
        now = time.monotonic()
        out = []
        try:
            for _ in range(64):
                if (early := fate.take(receive(), now)) is not None:
                    out.append(early)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENETDOWN):  # nothing there; the interface is down for a while
                raise
        for frame in out + fate.due(now):
            try:
                send(frame)
            except OSError:  # its queue is full, or the interface is down
                fate.refused += 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM, then write the counts of both directions."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.wire", description="a wire that loses and overtakes")
    parser.add_argument("--tap", required=True, help="the host's TAP")
    parser.add_argument("--device", required=True, help="the pipeline's TAP")
    parser.add_argument("--egress", type=json.loads, required=True, help="JSON: loss, reorder, delay, seed")
    parser.add_argument("--ingress", type=json.loads, required=True, help="the same for what the host gets")
    parser.add_argument("--counts", type=Path, required=True, help="file for the counts, which says first: ready")
    options = parser.parse_args(argv)
    wire = Wire(options.tap, options.device, Fate(**options.egress), Fate(**options.ingress))

    def stop(_number: int, _frame: object) -> None:
        wire.running = False

    signal.signal(signal.SIGTERM, stop)
    options.counts.write_text("{}")
    wire.run()
    options.counts.write_text(json.dumps({"egress": wire.egress.counts(), "ingress": wire.ingress.counts()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
