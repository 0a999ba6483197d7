"""Regular expressions of masks: text to tree.  Pure.

The text is that of Python's `re` for bytes, as far as a byte can be judged when it comes, without looking back or
ahead: literals, ``.``, classes, ``\\d \\w \\s`` and their opposites, escapes, ``|``, ``(?:...)``, ``* + ? {m,n}``,
``^`` for the first byte of the stream, ``(?i)`` and ``(?s)`` in front.  One group ``(...)`` at the end says what is
masked (without it, all that matches).  `stages.compare.rules.automaton` makes an automaton of it.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Final

MAX_LENGTH: Final = 1_000  # characters of one expression
MAX_NESTING: Final = 30
_SHOWN: Final = 60  # characters of an expression in a message
_REST: Final = 16  # and from the place on that is wrong

ALL: Final = (1 << 256) - 1  # a set of bytes is an int, bit b for byte b
START: Final = 1 << 256  # the symbol before the first byte
MANY: Final = -1


class BadRegex(ValueError):
    """An expression that cannot become an automaton: why, and where in it; ``at`` is the index, if there is one."""

    def __init__(self, why: str, text: str = "", at: int | None = None) -> None:
        self.at, why = at, _plain(why)  # what `re` says quotes the expression
        super().__init__(why if at is None else f"{_place(text, at)}: {why}")


def _plain(text: str) -> str:
    """Text on one line; a backslash stays one, so that an expression looks as it does in single quotes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _place(text: str, at: int) -> str:
    """Where index ``at`` is, counted from 1 in what `show` shows, and what stands there."""
    rest = _plain(text[at:])
    if not rest:
        return "at its end"
    return f"at character {len(_plain(text[:at])) + 1}, '{rest if len(rest) <= _REST else rest[: _REST - 1] + '…'}'"


def show(text: str, at: int | None = None) -> str:
    """An expression in a message: in single quotes, where TOML and a shell change nothing.

    At most 60 characters of it, those around index ``at``.
    """
    shown, place = _plain(text), len(_plain(text[: at or 0]))
    first = max(0, min(place - _SHOWN // 2, len(shown) - _SHOWN))
    last = first + _SHOWN
    return f"'{'…' * (first > 0)}{shown[first:last]}{'…' * (last < len(shown))}'"


def _set(members: bytes | range) -> int:
    found = 0
    for b in members:
        found |= 1 << b
    return found


_DIGIT = _set(b"0123456789")
_WORD = _DIGIT | _set(b"_") | _set(range(ord("a"), ord("z") + 1)) | _set(range(ord("A"), ord("Z") + 1))
_SPACE = _set(b" \t\n\r\f\v")
_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE, "D": ALL ^ _DIGIT, "W": ALL ^ _WORD, "S": ALL ^ _SPACE}
_ESCAPES = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13}  # \b only within a class


# --- the tree -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Byte:
    """One byte out of a set, or START."""

    symbols: int


@dataclass(frozen=True)
class Row:
    """One after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    """One or another."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Group:
    """What is masked."""

    inner: Node


@dataclass(frozen=True)
class Repeat:
    """``low`` to ``high`` times, MANY: any number."""

    inner: Node
    low: int
    high: int


Node = Byte | Row | Choice | Group | Repeat


def read(text: str) -> tuple[Node, bool]:
    """The tree of an expression, and whether it has a group.  Raises `BadRegex`."""
    _check_syntax(text)
    reader = _Reader(text)
    return reader.read(), reader.group is not None


def _check_syntax(text: str) -> None:
    """What `re` itself says to it: its messages are known, and name the place."""
    if len(text) > MAX_LENGTH:
        raise BadRegex(f"{len(text):,} characters: at most {MAX_LENGTH:,}")
    try:
        raw = text.encode("ascii")  # not latin-1: whoever writes é means the two bytes of UTF-8, most likely
    except UnicodeEncodeError as error:
        octets = "".join(f"\\x{b:02x}" for b in text[error.start].encode("utf-8", "surrogatepass"))
        raise BadRegex(f"no byte, but a character; in UTF-8 it is {octets}", text, error.start) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "possible nested set": what it means here is what it meant always
        try:
            re.compile(raw)
        except re.error as error:
            raise BadRegex(error.msg, text, error.pos) from None
        except (OverflowError, RecursionError):
            raise BadRegex("too large or nested too deeply") from None


class _Reader:
    """Text to tree; the text is good for `re`, so only what an automaton cannot do is refused here."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0
        self.group: int | None = None
        self.fold = self.dotall = False

    def _fail(self, why: str, at: int | None = None) -> BadRegex:
        return BadRegex(why, self.text, self.at if at is None else at)

    def _next(self, token: str) -> bool:
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def read(self) -> Node:
        flags = re.match(r"\(\?([a-zA-Z]+)\)", self.text)
        if flags:
            if set(flags[1]) - set("is"):
                raise self._fail("of the flags only i and s are known here")
            self.fold, self.dotall = "i" in flags[1], "s" in flags[1]
            self.at = flags.end()
        return self._choice()

    def _choice(self) -> Node:
        begun = self.at
        parts = [self._row()]
        while self._next("|"):
            parts.append(self._row())
        if len(parts) > 1 and self.group is not None and self.depth == 0 and begun <= self.group:
            raise self._fail("the masked group is one of several ways; give the expressions as a list", self.group)
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _row(self) -> Node:
        parts: list[Node] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            if self.group is not None and self.depth == 0:
                raise self._fail("something behind the group that is masked; it has to be the end")
            start = self.at
            anchor = self.text[start] == "^"
            atom = self._atom()
            more = self._repeated(atom)
            if anchor and (parts or more is not atom):
                raise self._fail("^ means the first byte of the stream: nothing can stand before it", start)
            if isinstance(atom, Group) and more is not atom:
                raise self._fail("the masked group is repeated; put what repeats into (?:...) within it", start)
            parts.append(more)
        return parts[0] if len(parts) == 1 else Row(tuple(parts))

    def _atom(self) -> Node:
        start = self.at
        if self._next("("):
            return self._parenthesis(start)
        if self._next("["):
            return Byte(self._class())
        c = self.text[self.at]
        self.at += 1
        if c == "^":
            return Byte(START)
        if c == "$":
            raise self._fail("$ looks ahead; a stream has no end", start)
        if c == ".":
            return Byte(ALL if self.dotall else ALL ^ 1 << 10)
        return Byte(self._folded(self._escape(start, within=False) if c == "\\" else 1 << ord(c)))

    def _parenthesis(self, start: int) -> Node:
        masked = not self.text.startswith("?", self.at)
        if not masked and not self._next("?:"):
            raise self._fail("only (...) and (?:...) are known here: no looking around, no names, no flags", start)
        if masked and (self.depth or self.group is not None):
            raise self._fail("a second group or one within another; (?:...) for those that are not masked", start)
        if masked:
            self.group = start
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise self._fail("nested too deeply", start)
        inner = self._choice()
        self.depth -= 1
        self.at += 1  # the closing one: `re` has seen it
        return Group(inner) if masked else inner

    def _repeated(self, atom: Node) -> Node:
        counted = re.compile(r"\{(\d*)(,?)(\d*)\}").match(self.text, self.at)
        sign = self.text[self.at : self.at + 1]
        if sign and sign in "*+?":
            self.at += 1
            low, high = {"*": (0, MANY), "+": (1, MANY), "?": (0, 1)}[sign]
        elif counted and counted[0] != "{}":
            self.at = counted.end()
            low = int(counted[1] or 0)
            high = int(counted[3]) if counted[3] else MANY if counted[2] else low
        else:
            return atom
        if self.text[self.at : self.at + 1] in ("?", "+"):
            raise self._fail("neither lazy nor possessive: every way to match counts")
        return Repeat(atom, low, high)

    def _escape(self, start: int, *, within: bool) -> int:
        """Behind a backslash: the bytes that it stands for."""
        c = self.text[self.at]
        self.at += 1
        if c in _CLASSES:
            return _CLASSES[c]
        if c in _ESCAPES and (within or c != "b"):
            return 1 << _ESCAPES[c]
        if c == "x":
            self.at += 2
            return 1 << int(self.text[self.at - 2 : self.at], 16)
        octal = re.compile(r"0[0-7]{0,2}|[0-3][0-7]{2}").match(self.text, start + 1)
        if octal:
            self.at = octal.end()
            return 1 << int(octal[0], 8)
        if c.isalnum():
            raise self._fail(f"\\{c} looks at more than one byte: no \\b, \\A, \\Z, no references to groups", start)
        return 1 << ord(c)

    def _class(self) -> int:
        negated = self._next("^")
        found, first = 0, True
        while first or self.text[self.at] != "]":
            first = False
            low = self._member()
            if self.text[self.at] == "-" and self.text[self.at + 1] != "]":
                self.at += 1
                low = _set(range(low.bit_length() - 1, self._member().bit_length()))
            found |= low
        self.at += 1
        found = self._folded(found)
        return ALL ^ found if negated else found

    def _member(self) -> int:
        start, c = self.at, self.text[self.at]
        if re.compile(r"\[[:.=]\^?\w+[:.=]\]").match(self.text, start):
            raise self._fail("a class of POSIX, which means something else here: \\d, \\w, \\s, [A-Za-z]", start)
        self.at += 1
        return self._escape(start, within=True) if c == "\\" else 1 << ord(c)

    def _folded(self, found: int) -> int:
        if self.fold:
            for upper in range(ord("A"), ord("Z") + 1):
                if found >> upper & 1 or found >> upper + 32 & 1:
                    found |= 1 << upper | 1 << upper + 32
        return found
