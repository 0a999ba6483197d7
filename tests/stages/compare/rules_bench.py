"""A bench for the kernels of rules: a stage's words with an area of rules and one connection."""

from __future__ import annotations

from typing import Any

import numpy as np

from ring import layout as ring_layout
from ring.kernels.ledger import begin, commit
from stages.compare.kernels import rules as kernel
from stages.compare.layout import conns, options
from stages.compare.layout import rules as rule_words
from stages.compare.rules.rule_set import RuleSet, from_table
from stages.packets.kernels.parse import parse
from stages.packets.layout import parsed, rows
from tests.oracle.rules import Flow
from tests.packets import P_TCP, ether, ipv4, ipv6

ENTRIES = 256
RULES = ring_layout.UNDO + 2 * ENTRIES
C = RULES + rule_words.WORDS  # a connection
S = C + conns.WORDS
BYTES = (S + parsed.SCRATCH) * 8
ROOM = 1 << 16


class Bench:
    """A stage's words with an area of rules, one connection, and room for two pieces of payload."""

    def __init__(self) -> None:
        self.w: Any = np.zeros(BYTES // 8 + 2 * ROOM // 8, np.int64)
        self.u8: Any = self.w.view(np.uint8)
        self.w[ring_layout.UNDO_CAPACITY] = ENTRIES
        self.w[options.RULES] = RULES
        self.row = begin(self.w)

    def write(self, rules: RuleSet) -> None:
        """Hand a set over, as the supervisor does."""
        change = int(self.w[ring_layout.CMD_RULES]) + 1
        at = RULES + rule_words.COPIES + (change & 1) * rule_words.COPY_WORDS
        self.w[at : at + rule_words.COPY_WORDS] = rules.words("comp0")
        self.w[ring_layout.CMD_RULES] = change

    def burst(self) -> int:
        """Commit, and begin the next burst; whether there were new rules."""
        commit(self.w, self.row, 0, 1)
        self.row = begin(self.w)
        return int(kernel.take_rules(self.w, self.row))

    def use(self, rules: RuleSet) -> None:
        """Write a set and go over to it, with a new connection."""
        self.write(rules)
        assert self.burst() == 1
        self.w[C : C + conns.WORDS] = 0

    def classify(self, frame: bytes | None = None) -> int:
        """Number + 1 of the rule that the connection of a frame falls under."""
        if frame is not None:
            self.u8[BYTES : BYTES + len(frame)] = np.frombuffer(frame, np.uint8)
            self.w[C + conns.TRANSPORT] = parse(self.u8, self.w, BYTES, len(frame), S)
            self.w[C + rows.KEY : C + rows.KEY + 6] = self.w[S : S + 6]
        assert kernel.stale(self.w, self.row, C)
        kernel.classify(self.w, self.row, C)
        assert not kernel.stale(self.w, self.row, C)
        return int(kernel.rule_number(self.w, C))

    def place(self, a: bytes, b: bytes) -> tuple[int, int]:
        """Lay two pieces of payload out; where they are."""
        for at, data in ((BYTES, a), (BYTES + ROOM, b)):
            self.u8[at : at + len(data)] = np.frombuffer(data, np.uint8)
        return BYTES, BYTES + ROOM

    def stream(self, a: bytes, b: bytes, offset: int = 0) -> tuple[int, int]:
        """The next bytes of both streams: how many agree, how many were forgiven."""
        x, y = self.place(a, b)
        self.w[ring_layout.UNDO_N] = 0  # as many calls as one likes
        agreed = int(kernel.agree_stream(self.u8, self.w, C, x, y, len(a), offset))
        return agreed & 0xFFFFFFFF, agreed >> 32

    def datagram(self, a: bytes, b: bytes, transport: int) -> tuple[int, int]:
        """Two IP payloads: how many bytes agree, how many were forgiven."""
        x, y = self.place(a, b)
        self.w[C + conns.TRANSPORT] = transport
        agreed = int(kernel.agree_datagram(self.u8, self.w, C, x, y, len(a)))
        return agreed & 0xFFFFFFFF, agreed >> 32


def made(**tables: dict[str, Any]) -> RuleSet:
    """A set from tables of a config."""
    rules = RuleSet()
    for name, table in tables.items():
        rule, wrong = from_table(name, table, ["comp0", "comp1"])
        assert not wrong
        rules = rules.added(name, rule)
    return rules


def mask(*texts: str, **keys: Any) -> RuleSet:
    """One mask for everything."""
    return made(m={"action": "mask", **({"regex": list(texts)} if texts else {}), **keys})


def frame_of(flow: Flow) -> bytes:
    """A packet of a flow."""
    ports = flow.source_port.to_bytes(2, "big") + flow.destination_port.to_bytes(2, "big")
    body = ports + (b"\0" * 8 + b"\x50" + b"\0" * 7 if flow.protocol == P_TCP else b"\0" * 4)
    ip = ipv6 if ":" in flow.source else ipv4
    return ether(ip(flow.source, flow.destination, flow.protocol, body), 0x86DD if ip is ipv6 else 0x0800, flow.vlans)
