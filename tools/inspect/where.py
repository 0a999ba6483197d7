"""``--where FIELD=VALUE``: rows by what people see of them.

``FIELD.PART`` is one word of a field that has several; without a part any of them counts.  A value is written as it is
shown: a number, a name, ``slot 7``, ``row 12``, ``-``; of flags those that are set (``SYN,ACK``); of a time how long
ago it was (``seen>5s``); of a key, or other text, words of it (``key=10.0.0.1``, ``key=tcp``).
"""

from __future__ import annotations

import ipaddress
import operator
import re
from collections.abc import Callable, Sequence
from typing import Final

from ring.fields import Field
from tools.inspect.memory import NotShownError
from tools.inspect.tables import Row, View
from tools.inspect.values import MASK, NONE, UNITS, Shower, raw, signed, text_of

OPERATORS: Final[dict[str, Callable[[int, int], bool]]] = {
    "!=": operator.ne, ">=": operator.ge, "<=": operator.le, "=": operator.eq, ">": operator.gt, "<": operator.lt
}  # fmt: skip
_CONDITION: Final = re.compile(r"\s*([a-z0-9_]+)(?:\.([a-z0-9_]+))?\s*(!=|>=|<=|==?|>|<)\s*(.*?)\s*", re.DOTALL)
_AGE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(" + "|".join(UNITS) + r")(?: ago)?")
_FLOW: Final = re.compile(
    r"[0-9]+(?:/[0-9]+)*|tcp|udp|icmp|icmpv6|protocol|in|fragments|vlan|>|pppoe|vxlan|geneve|gre|ip|via"
)

Condition = Callable[[Row], bool]
Test = Callable[[int], bool]


def condition(text: str, view: View, shower: Shower) -> Condition:
    """Whether a row fulfils ``FIELD=VALUE``."""
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise NotShownError(f"--where {text!r}: write FIELD=VALUE, or with one of {' '.join(OPERATORS)}", status=2)
    name, part, sign, value = found[1], found[2], found[3].replace("==", "="), found[4]
    if name in ("row", "which") and not part and (name == "row" or view.table.which):
        return _of_row(name, sign, value)
    if name not in view.fields:
        known = ", ".join((*view.fields, "row", *(["which"] if view.table.which else [])))
        raise NotShownError(f"--where {text!r}: {view.name} has no field {name!r}; known: {known}", status=2)
    field = view.fields[name]
    only = _part(view, field, part, text)
    try:
        test = _of_field(view, field, only, sign, value, shower)
        return lambda row: view.holds(row, field) and test(row)
    except ValueError as error:
        raise NotShownError(f"--where {text!r}: {error}", status=2) from None


def _of_row(name: str, sign: str, value: str) -> Condition:
    if name == "which":
        if sign not in ("=", "!="):
            raise NotShownError("--where which: only = and != mean something", status=2)
        return lambda row: (row.which == value) == (sign == "=")
    if not value.isascii() or not value.isdigit():
        raise NotShownError(f"--where row: {value!r} is no number of a row", status=2)
    return lambda row: OPERATORS[sign](row.number, int(value))


def _part(view: View, field: Field, part: str | None, text: str) -> int | None:
    if part is None:
        return None
    parts = view.table.parts.get(field.name, ())
    if part in parts:
        return parts.index(part)
    if part.isdigit() and int(part) < field.size:
        return int(part)
    known = ", ".join(parts) or f"0 to {field.size - 1}"
    raise NotShownError(f"--where {text!r}: {field.name} has no part {part!r}; known: {known}", status=2)


def _of_field(view: View, field: Field, only: int | None, sign: str, value: str, shower: Shower) -> Condition:
    table = view.table
    wide = _of_text(view, field, value, shower) if only is None else None
    if wide is not None:
        if sign not in ("=", "!="):
            raise ValueError(f"{field.name} is text: only = and != mean something")
        return lambda row: wide(row.of(field)) == (sign == "=")
    test = _of_word(field, table.names.get(field.name), sign, value, shower)
    if only is not None:
        return lambda row: test(row.of(field)[only])
    if sign == "!=":
        return lambda row: all(test(word) for word in row.of(field))
    return lambda row: any(test(word) for word in row.of(field))


def _number(text: str) -> int | None:
    try:
        return int(text.replace(",", ""), 0)
    except ValueError:
        return None


# --- what is text -------------------------------------------------------------------------------------------------
def _of_text(view: View, field: Field, value: str, shower: Shower) -> Callable[[Sequence[int]], bool] | None:
    """A test of all words of a field together; None: each word says something."""
    if field.unit == "text":
        return lambda words: text_of(words) == value
    if field.unit == "bytes":
        wanted = bytes.fromhex(value[2:]) if value.startswith("0x") else value.encode()
        return lambda words: wanted in raw(words)
    if field.name not in view.table.shown or (field.size == 1 and _number(value) is not None):
        return None
    wanted_words = [_plain_word(word) for word in value.split()]
    if field.name == "key":
        for word in wanted_words:
            _check_flow(word)
    if not wanted_words:
        raise ValueError("a value is missing")

    def test(words: Sequence[int]) -> bool:
        return set(wanted_words) <= _words_of(shower.line(view.table, field, words))

    return test


def _words_of(shown: str) -> set[str]:
    found = {_plain_word(word) for word in shown.split()}
    for word in shown.split():
        host, colon, port = word.rpartition(":")
        if colon and not word.endswith("]"):
            found |= {_plain_word(host), port}
    return found


def _plain_word(word: str) -> str:
    """A word without brackets; an address as it is written in short."""
    bare = word.strip("(),")
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return bare


def _check_flow(word: str) -> None:
    host, colon, port = word.rpartition(":")
    for address in (word, host.strip("[]") if colon and port.isdigit() else ""):
        try:
            ipaddress.ip_address(address)
            return
        except ValueError:
            continue
    if not _FLOW.fullmatch(word) and word != NONE:
        raise ValueError(
            f"{word!r} is no address, port or protocol: write 10.0.0.1, 10.0.0.1:80, [2001:db8::1]:80, 80, tcp or vlan"
        )


# --- one word -----------------------------------------------------------------------------------------------------
def _of_word(field: Field, names: Sequence[str] | None, sign: str, value: str, shower: Shower) -> Test:
    number = _number(value)
    compare = OPERATORS[sign]
    if field.unit == "flags" and number is None:
        return _of_flags(names or (), sign, value)
    if field.unit == "ns" and number is None and value != NONE:
        return _of_age(sign, value, shower.now)
    if field.unit == "row" and value != NONE:
        number = _number(value.lower().removeprefix("row ").strip())
        if number is None:
            raise ValueError(f"{value!r} is no row: write 12, or - for none")
        number = shower.word_of(number)
    wanted, seen = _value(field, names or (), value, number)
    return lambda word: compare(seen(word), wanted)


def _of_flags(names: Sequence[str], sign: str, value: str) -> Test:
    if sign not in ("=", "!="):
        raise ValueError("of flags only = and != mean something")
    if value == NONE:
        return lambda word: (word == 0) == (sign == "=")
    wanted = 0
    for name in re.split(r"[,|+ ]+", value):
        known = [n.upper() for n in names]
        if name.upper() not in known:
            raise ValueError(f"no flag {name!r}; known: {', '.join(names) or 'none by name, but numbers'}")
        wanted |= 1 << known.index(name.upper())
    return lambda word: (word & wanted == wanted) == (sign == "=")


def _of_age(sign: str, value: str, now: int) -> Test:
    found = _AGE.fullmatch(value)
    if found is None:
        raise ValueError(f"{value!r} is no time: write how long ago, such as 1.5s, 200ms, 3min, or - for never")
    if sign in ("=", "!="):
        raise ValueError("no two looks find the same age: write < or >")
    ago = int(float(found[1]) * UNITS[found[2]])
    return lambda word: word > 0 and OPERATORS[sign](now - word, ago)


def _value(field: Field, names: Sequence[str], value: str, number: int | None) -> tuple[int, Callable[[int], int]]:
    """What is wanted, and how a word is to be seen to be compared with it."""
    low = value.lower()
    if field.unit == "slot+1":
        slot = _number(low.removeprefix("slot ").strip())
        if value == NONE:
            return 0, int
        if slot is None:
            raise ValueError(f"{value!r} is no slot: write 7, or - for none")
        return slot + 1, int
    if field.unit == "seq" and number is not None and number >= 0:
        return number, lambda word: word & MASK if word >= 0 else word
    if field.unit == "delta" and number is not None:
        return signed(number), signed
    if number is not None:
        return number, int
    if low in (name.lower() for name in names if name):
        return [name.lower() for name in names].index(low), int
    if field.unit == "bool" and low in ("yes", "no", "true", "false"):
        return int(low in ("yes", "true")), int
    if value == NONE:
        return (0 if field.unit in ("ns", "row") else -1), int
    found = _AGE.fullmatch(value)
    if field.name.endswith("_ns") and found:
        return int(float(found[1]) * UNITS[found[2]]), int
    known = ", ".join(name for name in names if name)
    raise ValueError(f"{value!r} is no value of {field.name}" + (f"; known: {known}" if known else ": write a number"))
