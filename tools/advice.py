"""What a person may do about a difference: told from the rule, and from what the bytes around it look like.

Guesses, and worded as such.  A mask is suggested only where both sides have the same kind of text at that place.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, replace
from typing import Final

from pipeline.control import folders_to_try
from stages.compare.finding import SIDES
from tools.divergence import Divergence, around, line_of

_HEADER: Final = re.compile(rb"([A-Za-z][A-Za-z0-9-]{0,40}):[ \t]*")
_CLOCKS: Final = "a date or a time of day: the replicas' clocks are not the same"
_UUID: Final = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_SHAPES: Final = (  # what it looks like, a name for the rule, what to say; %d is the length found
    (_UUID, "uuid", "a UUID, which each replica makes at random"),
    ("[A-Z][a-z]{2}, [0-9]{1,2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT", "date", _CLOCKS),
    ("[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}", "date", _CLOCKS),
    ("[0-9]{1,2}:[0-9]{2}:[0-9]{2}", "time", _CLOCKS),
    ("[0-9]{10,19}", "number", "a long number, perhaps a time stamp or a serial number"),
    ("[0-9a-fA-F]{16,}", "token", "a long hexadecimal number, perhaps made at random"),
)
_BEFORE: Final = 16  # bytes of fixed text before a value that a mask begins with
_FIXED: Final = 3  # and at least so many: else it would mask far too much
_HEADERS: Final = {
    "date": "the date of an HTTP answer: the replicas' clocks are not the same",
    "expires": "a time in an HTTP header, counted from each replica's own clock",
    "last-modified": "the time of a file, which is not the same on both replicas",
    "set-cookie": "a cookie that each replica has made for itself",
    "etag": "an HTTP ETag; nginx makes it of a file's time and size, so the files are not the same",
    "content-length": "the length of an HTTP body, so the bodies differ: a mask would not help",
}
_FOLDER: Final = ".divergences"
_NAME: Final = re.compile("[a-z0-9][a-z0-9-]{0,31}")
_UNHELPED: Final = ("content-length",)


@dataclass(frozen=True)
class Advice:
    """A few sentences, and a rule, by name, that makes the compare pass it over (or none).

    ``pipeline``: words by which `pipeline.control` finds the pipeline that it is for.
    """

    text: str
    name: str = ""
    keys: tuple[tuple[str, str | int], ...] = ()
    pipeline: tuple[str, ...] = ("NAME",)

    @property
    def config(self) -> tuple[str, ...]:
        """The rule as lines for config.toml; its expressions hold no ``'``."""
        if not self.name:
            return ()
        quote = {"regex": "'"}
        texts = ((k, f"{q}{v}{q}" if isinstance(v, str) else v) for k, v in self.keys for q in [quote.get(k, '"')])
        return (f"[rule.{self.name}]", *(f"{k} = {text}" for k, text in texts))

    @property
    def command(self) -> tuple[str, ...]:
        """The rule as words of a shell's command; ``NAME`` stands for the pipeline's name where that is not known."""
        if not self.name:
            return ()
        words = ("python", "-m", "pipeline.control", *self.pipeline, "rule", "add", self.name)
        return tuple(map(shlex.quote, (*words, *(f"{k}={v}" for k, v in self.keys))))


def advise(d: Divergence) -> Advice:
    """What may be done about a difference."""
    return replace(_advise(d), pipeline=_pipeline(d.path))


def _pipeline(path: str) -> tuple[str, ...]:
    """What tells `pipeline.control` of which pipeline a file is: compares write into ``NAME.divergences``."""
    runtime_dir, folder = os.path.split(os.path.dirname(os.path.abspath(path)))
    name = folder.removesuffix(_FOLDER)
    if name == folder or not _NAME.fullmatch(name):
        return ("NAME",)
    try:
        found_anyway = runtime_dir in folders_to_try()
    except OSError:
        found_anyway = False
    return (name,) if found_anyway else ("--runtime-dir", runtime_dir, name)


def _advise(d: Divergence) -> Advice:
    v = d.verdict
    match v["rule"]:
        case "flags":
            return Advice(_flags(d))
        case "timeout":
            waits, other = v["waits"], SIDES[1 - SIDES.index(v["waits"])]
            came = d.of(SIDES.index(other))
            if v.get("waits_for") == "acknowledgement":
                return Advice(
                    f"The {other} has sent the same bytes, but has not received, or not yet acknowledged, what the "
                    f'{waits} has. With ack_policy = "relaxed" nobody waits for that.'
                )
            if any(p.held for p in came):
                return Advice(
                    f"The {other} has sent other packets, which wait as well: compare the two columns. Either it says "
                    f"something else than the {waits}, or a packet of it was lost on its way here."
                )
            if not came:
                return Advice(
                    f"The file holds nothing of the {other}: it has not received what the {waits} "
                    "answers, it has stopped, or its packets do not arrive. Look at the links to it and from it."
                )
            return Advice(
                f"Nothing of the {other} waits: it is slow, it has stopped, or its packets do not arrive. Look at its "
                "load and at the link to it; a longer compare_timeout helps only where it is slow."
            )
        case "stuck":
            return Advice(
                "One replica is ahead by more than max_queue_size packets or hold_memory in one flow, and the other "
                "in another. A checkpoint settles it; where it comes again, raise both keys."
            )
    return _bytes(d)


def _flags(d: Divergence) -> str:
    ends = [d.verdict[s]["ends"] for s in SIDES]
    who = SIDES[0] if ends[0] else SIDES[1]
    how = "was reset" if "RST" in ends else "was closed"
    return (
        f"The connection {how} by the {who} alone. Programs do so after a time-out, a number of requests or an error: "
        f"look at the {who}'s log at this time, and at limits that count seconds."
    )


def _bytes(d: Divergence) -> Advice:
    if looks_encrypted(d):
        text = (
            "The bytes look like TLS or SSH, which each replica encrypts with random numbers of its own. No mask "
            "helps: end TLS before the replicas, or let such flows pass uncompared"
        )
        if not _where(d):  # a rule for everything would leave nothing to compare
            return Advice(f"{text}.")
        return Advice(f"{text}:", "encrypted", (("action", "pass"), *_where(d)))
    known = around(d)
    if d.place is None or any(d.place not in side for side in known):
        return _plain(d)
    (line, at), (other, same_at) = (line_of(side, d.place) for side in known)
    starts = all(side.get(d.place - at) == 10 for side, at in zip(known, (at + 1, same_at + 1), strict=True))
    newline = "\\n" if starts else ""
    header = _HEADER.match(line)
    if header and header.end() <= at and same_at == at and other[: header.end()] == line[: header.end()]:
        name = header[1].decode()
        what = _HEADERS.get(name.lower(), f"the value of a header, {name}")
        if name.lower() in _UNHELPED:
            return Advice(f"This looks like {what}.")
        return _mask(d, f"{name.lower()}-header", what, f"{newline}{_literal(line[: header.end()])}([^\\r\\n]*)")
    for shape, name, what in _SHAPES:
        for found in re.finditer(shape.encode(), line):
            first, last = found.span()
            there = first - at + same_at
            if first <= at < last and there >= 0 and re.compile(shape.encode()).match(other, there):
                fixed = _fixed(line[:first], other[:there], newline)
                value = re.sub(r"\{1[06],\d*\}", f"{{{last - first}}}", shape)
                return _mask(d, name, what, f"{fixed}({value})" if fixed else "")
    if v := _both(line[at:], other[same_at:]):
        fixed = _fixed(line[:at], other[:same_at], newline)
        return _plain(d, f"{fixed}({v})" if fixed else "")
    return _plain(d)


def _both(mine: bytes, theirs: bytes) -> str:
    """An expression for what differs at the start of two texts and no further; empty where they are no such texts."""
    if len(mine) != len(theirs):
        return ""
    size = max((i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b), default=-1) + 1
    if not size:
        return ""
    texts = mine[:size], theirs[:size]
    if any(not 32 <= value < 127 or value == ord("'") for text in texts for value in text):
        return ""
    return "|".join(map(_literal, texts))


def _fixed(mine: bytes, theirs: bytes, newline: str) -> str:
    """The text that stands before a value on both sides, as an expression; empty where there is too little."""
    size = 0
    while size < min(len(mine), len(theirs), _BEFORE) and mine[-1 - size] == theirs[-1 - size]:
        if mine[-1 - size] in b"'" or not 32 <= mine[-1 - size] < 127:  # TOML would need another kind of string
            break
        size += 1
    if size == len(mine) == len(theirs) and newline:
        return newline + _literal(mine)
    return _literal(mine[len(mine) - size :]) if size >= _FIXED else ""


def _literal(text: bytes) -> str:
    """An expression that matches ``text``, which is printable or a tab."""
    return re.sub(r"([\\.^$*+?{}\[\]|()])", r"\\\1", text.decode("ascii", "replace")).replace("\t", "\\t")


def _where(d: Divergence) -> tuple[tuple[str, str | int], ...]:
    """Keys that keep a rule to the service at hand."""
    proto, _, ends = d.verdict["flow"].partition(" ")
    port = ends.partition(" > ")[0].rpartition(":")[2]
    ported = proto in ("tcp", "udp") and port.isascii() and port.isdecimal()
    return (("protocol", proto), ("source_port", int(port))) if ported and len(port) < 6 else ()


def _mask(d: Divergence, name: str, what: str, regex: str) -> Advice:
    if not regex:
        return Advice(f"This looks like {what}. A mask can skip it only where fixed text stands before it.")
    text = f"This looks like {what}. If nothing else differs, a mask makes the compare skip it:"
    return Advice(text, name, (("action", "mask"), *_where(d), ("regex", regex)))


def _plain(d: Divergence, regex: str = "") -> Advice:
    """Of what looks like nothing that is known: a mask for just these two texts, else a rule for the whole service."""
    text = (
        "The two programs said something different. Usual reasons: time, random numbers, a host's name or address, "
        "memory addresses, the order in which threads ran."
    )
    if d.verdict["rule"] == "order":
        text = (
            "Each side sent a datagram that the other has not sent: something else was said, or one was lost. "
            "Datagrams in another order are no difference within reorder_grace_ms."
        )
    if regex:
        text = f"{text} If these two texts may stand for each other, a mask makes the compare skip them:"
        return Advice(text, "text", (("action", "mask"), *_where(d), ("regex", regex)))
    if _where(d):
        text = f"{text} If this service may answer as it likes, a rule lets it pass uncompared:"
        return Advice(text, "service", (("action", "pass"), *_where(d)))
    return Advice(text)


def looks_encrypted(d: Divergence) -> bool:
    """Whether the segments that differ are records of TLS (RFC 8446, 5.1), or the flow is SSH by its port."""
    if d.verdict["rule"] != "payload":
        return False
    if d.is_tcp and d.verdict["flow"].partition(" > ")[0].endswith(":22"):
        return True
    marked = [p.body for p in d.packets if p.at >= 0]
    return bool(marked) and all(len(b) > 5 and 20 <= b[0] <= 24 and b[1] == 3 and b[2] <= 4 for b in marked)
