"""Regular expressions of masks as automata that say of every byte whether it is masked.  Pure.

A byte is masked iff what came so far, it included, ends in PRE and a beginning of GROUP that can still become a match
(PRE and GROUP as in `stages.compare.rules.regex`).  Each place of a byte in the expression is a *position* (Glushkov's
construction); a state of the automaton is a set of positions, as the bits of an int.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from stages.compare.rules import regex
from stages.compare.rules.regex import ALL, MANY, START, BadRegex, Byte, Choice, Group, Node, Repeat, Row

MAX_POSITIONS: Final = 1_000  # of all expressions of a rule, counted repeats written out
MAX_STATES: Final = 4_096
_MAX_WORK: Final = 1_000_000  # positions looked at: half a second at most, for the supervisor has other things to do


class _Piece(NamedTuple):
    """A part of an expression: may it be empty, the positions that it can begin and end with (as bits)."""

    empty: bool
    first: int
    last: int


class _Builder:
    """Gathers the positions of expressions: the bytes of each, what may follow it, and which are in a group."""

    def __init__(self) -> None:
        self.symbols: list[int] = []
        self.follow: list[int] = []
        self.group = 0  # positions of masked bytes
        self.first = self.last = 0

    # --- pieces -----------------------------------------------------------------------------------------------------
    def _position(self, symbols: int) -> _Piece:
        if len(self.symbols) >= MAX_POSITIONS:
            raise BadRegex(f"more than {MAX_POSITIONS:,} bytes, repeats counted")
        self.symbols.append(symbols)
        self.follow.append(0)
        bit = 1 << len(self.symbols) - 1
        return _Piece(False, bit, bit)

    def _join(self, last: int, first: int) -> None:
        while first and last:
            low = last & -last
            self.follow[low.bit_length() - 1] |= first
            last ^= low

    def _then(self, a: _Piece, b: _Piece) -> _Piece:
        self._join(a.last, b.first)
        first = a.first | b.first if a.empty else a.first
        return _Piece(a.empty and b.empty, first, a.last | b.last if b.empty else b.last)

    @staticmethod
    def _either(a: _Piece, b: _Piece) -> _Piece:
        return _Piece(a.empty or b.empty, a.first | b.first, a.last | b.last)

    # --- an expression ----------------------------------------------------------------------------------------------
    def add(self, text: str) -> None:
        """One more expression.  Raises `BadRegex`."""
        tree, grouped = regex.read(text)
        before = len(self.symbols)
        whole = self._build(tree)
        if not grouped:
            self.group |= (1 << len(self.symbols)) - (1 << before)
        if any(s == START and self._has_start(f) for s, f in zip(self.symbols, self.follow, strict=True)):
            raise BadRegex("^ behind ^")
        self.first |= whole.first
        self.last |= whole.last

    def _has_start(self, positions: int) -> bool:
        return any(positions >> i & 1 and s == START for i, s in enumerate(self.symbols))

    def _build(self, node: Node) -> _Piece:
        match node:
            case Byte(symbols):
                return self._position(symbols)
            case Row(parts):
                whole = _Piece(True, 0, 0)
                for part in parts:
                    whole = self._then(whole, self._build(part))
                return whole
            case Choice(parts):
                whole = self._build(parts[0])
                for part in parts[1:]:
                    whole = self._either(whole, self._build(part))
                return whole
            case Group(inner):
                before = len(self.symbols)
                piece = self._build(inner)
                self.group |= (1 << len(self.symbols)) - (1 << before)
                return piece
            case Repeat(inner, low, high):
                return self._repeat(inner, low, high)

    def _repeat(self, inner: Node, low: int, high: int) -> _Piece:
        whole = _Piece(True, 0, 0)
        for n in range(low if high == MANY else high):
            piece = self._build(inner)
            if n >= low:  # an optional one: what comes behind it may come instead
                piece = piece._replace(empty=True)
            if not piece.first:
                return whole  # empty in any number
            whole = self._then(whole, piece)
        if high == MANY:
            piece = self._build(inner)
            self._join(piece.last, piece.first)
            whole = self._then(whole, piece._replace(empty=True))
        return whole


# --- the automaton --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Automaton:
    """``classes``: the class of each byte; ``rows[state][class]``: the next state * 2 + whether the byte is masked.

    State 0 is the one before the first byte of a stream, 1 the one in the middle of a stream of which nothing is known.
    """

    classes: bytes
    rows: Sequence[Sequence[int]]


def compile_mask(texts: Sequence[str]) -> Automaton:
    """The automaton of a mask: what any of the expressions masks.  Raises `BadRegex`."""
    builder = _Builder()
    for text in texts:
        builder.add(text)
    symbols, follow = builder.symbols, builder.follow
    alive = _alive(builder)
    if not builder.group & alive:
        raise BadRegex("it masks nothing: no byte can match")
    # Bytes that no position tells apart are one class; its members are the positions that take it.
    takers: dict[int, int] = {}
    classes = bytearray(256)
    for b in range(256):
        members = 0
        for i, s in enumerate(symbols):
            members |= (s >> b & 1) << i
        classes[b] = takers.setdefault(members & alive, len(takers))
    starts = sum(1 << i for i, s in enumerate(symbols) if s == START) & builder.first & alive
    # Position sets by state; the beginning is a state of its own, even where it is like the middle.
    sets = [starts, 0]
    known = {0: 1}
    rows: list[list[int]] = []
    work = 0
    while len(rows) < len(sets):
        here = sets[len(rows)]
        reached = builder.first
        work += here.bit_count() + len(takers)
        while here:
            low = here & -here
            reached |= follow[low.bit_length() - 1]
            here ^= low
        row = []
        for members in takers:
            there = reached & members
            state = known.get(there)
            if state is None:
                state = known[there] = len(sets)
                sets.append(there)
            row.append(state << 1 | (there & builder.group != 0))
        rows.append(row)
        if len(sets) > MAX_STATES:
            raise BadRegex(f"an automaton of more than {MAX_STATES:,} states; fewer or shorter repeats make it smaller")
        if work > _MAX_WORK:
            raise BadRegex("an automaton that takes too long to make; fewer or shorter repeats make it smaller")
    return Automaton(bytes(classes), rows)


def _alive(builder: _Builder) -> int:
    """The positions from which a match can be reached: ``[^\\0-\\xff]`` takes no byte, so what needs it never ends."""
    enterable = sum(1 << i for i, s in enumerate(builder.symbols) if s & ALL)  # ^ is passed before the first byte
    alive = builder.last & enterable
    while True:
        more = alive
        for i in range(len(builder.symbols) - 1, -1, -1):
            if builder.follow[i] & more and builder.symbols[i]:
                more |= (1 << i) & enterable
        if more == alive:
            break
        alive = more
    starts = sum(1 << i for i, s in enumerate(builder.symbols) if s == START and builder.follow[i] & alive)
    return alive | starts
