"""Masks and rules in slow, plain Python: expressions by derivatives (Brzozowski), n-tuples by `ipaddress`.

Nothing here shares code with `stages.compare.rules.regex`, `stages.compare.rules.automaton` or the kernels: every start
of a match is tried for every byte.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

Tree = tuple[object, ...]
"""("set", frozenset of bytes), ("then", a, b), ("or", a, b), ("star", a), ("empty",) or ("never",)."""

EMPTY: Tree = ("empty",)
NEVER: Tree = ("never",)


def one(members: bytes) -> Tree:
    """One byte out of a few."""
    return ("set", frozenset(members))


def then(a: Tree, b: Tree) -> Tree:
    """``a``, then ``b``."""
    if NEVER in (a, b):
        return NEVER
    return b if a == EMPTY else a if b == EMPTY else ("then", a, b)


def either(a: Tree, b: Tree) -> Tree:
    """``a`` or ``b``."""
    return b if a in (NEVER, b) else a if b == NEVER else ("or", a, b)


def star(a: Tree) -> Tree:
    """``a`` in any number."""
    return EMPTY if a in (EMPTY, NEVER) else ("star", a)


@cache
def nullable(tree: Tree) -> bool:
    """Whether the empty string matches."""
    kind, *parts = tree
    if kind == "then":
        return all(map(nullable, parts))  # type: ignore[arg-type]
    if kind == "or":
        return any(map(nullable, parts))  # type: ignore[arg-type]
    return kind in ("star", "empty")


@lru_cache(maxsize=1 << 16)
def after(tree: Tree, byte: int) -> Tree:
    """What has to follow ``byte``."""
    match tree:
        case ("set", members):
            return EMPTY if byte in members else NEVER  # type: ignore[operator]
        case ("then", a, b):
            rest = then(after(a, byte), b)
            return either(rest, after(b, byte)) if nullable(a) else rest
        case ("or", a, b):
            return either(after(a, byte), after(b, byte))
        case ("star", a):
            return then(after(a, byte), tree)
    return NEVER


def matches(tree: Tree, text: bytes) -> bool:
    """Whether the whole of ``text`` matches."""
    for byte in text:
        tree = after(tree, byte)
    return nullable(tree)


@dataclass(frozen=True)
class Mask:
    """One expression: what stands before the masked group, whether that has to be at the stream's start, the group."""

    before: Tree
    group: Tree
    anchored: bool = False

    def covers(self, stream: bytes, i: int, begins: bool) -> bool:
        """Whether byte ``i`` is masked; ``begins``: the stream is known from its first byte on."""
        for j in range(i + 1):
            if self.anchored and not (begins and j == 0):
                break
            rest = self.before
            for k in range(j, i + 1):
                if nullable(rest):
                    group = self.group
                    for byte in stream[k : i + 1]:
                        group = after(group, byte)
                    if group != NEVER:  # no set is empty here, so what is not NEVER can be matched
                        return True
                rest = after(rest, stream[k])
        return False


def masked(masks: Sequence[Mask], stream: bytes, begins: bool) -> list[bool]:
    """Of every byte of a stream whether any mask covers it."""
    return [any(mask.covers(stream, i, begins) for mask in masks) for i in range(len(stream))]


def agreeing(a: bytes, b: bytes, masks: Sequence[Mask], begins: bool, spans: Sequence[tuple[int, int]] = ()) -> int:
    """How many leading bytes of two streams are equal, masked on both sides, or at an offset in ``spans``."""
    p, s = masked(masks, a, begins), masked(masks, b, begins)
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        if x != y and not (p[i] and s[i]) and not any(lo <= i <= hi for lo, hi in spans):
            return i
    return len(a)


@dataclass(frozen=True)
class Flow:
    """Who a packet is from and to."""

    source: str
    destination: str
    protocol: int
    source_port: int = 0
    destination_port: int = 0
    vlans: tuple[int, ...] = ()


def rule_takes(
    flow: Flow,
    sources: Sequence[str],
    destinations: Sequence[str],
    protocols: Sequence[int],
    source_ports: Sequence[tuple[int, int]],
    destination_ports: Sequence[tuple[int, int]],
    vlans: Sequence[tuple[int, ...]],
) -> bool:
    """Whether a rule is about a flow; an empty list takes anything."""

    def within(address: str, nets: Sequence[str]) -> bool:
        found = ipaddress.ip_address(address)
        return not nets or any(found in ipaddress.ip_network(net) for net in nets)

    def listed(port: int, spans: Sequence[tuple[int, int]]) -> bool:
        return not spans or any(port in range(first, last + 1) for first, last in spans)

    return (
        within(flow.source, sources)
        and within(flow.destination, destinations)
        and (not protocols or flow.protocol in protocols)
        and listed(flow.source_port, source_ports)
        and listed(flow.destination_port, destination_ports)
        and (not vlans or (flow.vlans or (0,)) in vlans)
    )
