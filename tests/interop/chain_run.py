"""A chain with its client and its two guests: play scenarios, and keep what each end was given."""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from tests.interop import chain_client
from tests.interop.chain_client import TALKS, Client, Flow, Key, diverging_tcp, diverging_udp, farewell, flow_of, talk
from tests.interop.chain_guest import Guest
from tests.interop.chain_hosts import PATIENCE_S, running
from tests.interop.chain_plan import COMPARE, Chain
from tools.qemu import Link

DO, DONE = b"DO_CHECKPOINT", b"COLO_CHECKPOINT"
INIT, INIT_REPLY = b"COLO_USERSPACE_PROXY_INIT", b"COLO_COMPARE_GET_XEN_INIT"
PRIMARY_GUEST, SECONDARY_GUEST = "primary-guest", "secondary-guest"
Flows = dict[Key, list[bytes]]


@dataclass(frozen=True)
class Scene:
    """Flows, how many checkpoints have to be asked for, and the guest that is slow: it goes on when all else rests."""

    flows: Callable[[], Iterator[Flow]]
    asked: int = 0
    late: str = ""


SCENES: dict[str, Scene] = {
    "talk": Scene(partial(talk, TALKS[0])),
    "secondary late": Scene(partial(talk, TALKS[1]), late=SECONDARY_GUEST),
    "primary late": Scene(partial(talk, TALKS[2]), late=PRIMARY_GUEST),
    "diverging tcp": Scene(diverging_tcp, asked=1),
    "diverging udp": Scene(diverging_udp, asked=1),
    "farewell": Scene(farewell),
}


@dataclass
class Seen:
    """What came out at the ends: frames by flow, in order."""

    client: dict[str, Flows] = field(default_factory=dict)
    primary: Flows = field(default_factory=dict)
    secondary: Flows = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    requests: tuple[dict[int, list[bytes]], dict[int, list[bytes]]] = field(default_factory=lambda: ({}, {}))


def by_flow(frames: list[bytes]) -> Flows:
    """Frames in order of arrival, flow by flow."""
    flows: Flows = {}
    for frame in frames:
        flows.setdefault(flow_of(frame), []).append(frame)
    return flows


class Theatre:
    """The ends of one running chain."""

    def __init__(self, chain: Chain, links: dict[str, Link]) -> None:
        self._links, self.asked = links, 0
        self.primary, self.secondary = Guest(chain_client.PRIMARY), Guest(chain_client.SECONDARY)
        # QEMU expects V before incoming text where vnet_hdr_support is on, and sends none itself; ours has none.
        self._lead = bytes(4) if chain.vnet and COMPARE not in chain.ours else b""

    def tell(self, text: bytes) -> None:
        """A message from the COLO frame."""
        self._links["notify"].sock.sendall(len(text).to_bytes(4, "big") + self._lead + text)

    def greet(self) -> None:
        """The compare answers on notify_dev: so it reads, and writes, there."""
        self.tell(INIT)
        assert self._links["notify"].take(1, PATIENCE_S) == [INIT_REPLY]

    def play(self, scene: Scene) -> Client:
        """Until every flow has ended and both guests have got every frame that the client sent."""
        client, waiting, links = Client(scene.flows()), deque[bytes](), self._links
        before, asked = len(self.primary.received), self.asked
        links["client"].send(*client.start())
        while client.waiting or self._behind() < before + client.sent:
            ready = select.select([link.sock for link in links.values()], [], [], 0 if waiting else PATIENCE_S)[0]
            assert ready or waiting, f"still open: {client.waiting}; the secondary ignored {self.secondary.ignored}"
            if not ready:
                self._arrived(scene.late, waiting.popleft(), client)
            for name, link in links.items():
                if link.sock in ready:
                    for frame in self._read(link):
                        waiting.append(frame) if name == scene.late else self._arrived(name, frame, client)
            assert self.asked - asked <= scene.asked, f"a checkpoint too many: still open: {client.waiting}"
        return client

    def _behind(self) -> int:
        return min(len(guest.received) for guest in (self.primary, self.secondary))

    @staticmethod
    def _read(link: Link) -> list[bytes]:
        assert link.sock.recv(1, socket.MSG_PEEK), f"{link.name} was closed"
        return link.take(quiet=1e-6)  # what is there now

    def _arrived(self, name: str, frame: bytes, client: Client) -> None:
        ends = {"client": client.take, PRIMARY_GUEST: self.primary.take, SECONDARY_GUEST: self.secondary.take}
        if name == "notify":
            assert frame == DO
            self.asked += 1
            self.tell(DONE)
            return
        assert name in ends, f"a frame came out of {name}: {frame.hex()}"
        if answer := ends[name](frame):
            self._links[name].send(*answer)


def play_all(chain: Chain) -> Seen:
    """Every scene of `SCENES` on one chain."""
    seen = Seen()
    with running(chain) as links:
        theatre = Theatre(chain, links)
        theatre.greet()
        for name, scene in SCENES.items():
            before = theatre.asked
            seen.client[name] = theatre.play(scene).received
            seen.asked[name] = theatre.asked - before
        assert theatre.primary.ignored == [] == theatre.secondary.ignored
        seen.primary, seen.secondary = by_flow(theatre.primary.received), by_flow(theatre.secondary.received)
        seen.requests = theatre.primary.requests, theatre.secondary.requests
    return seen
