"""The compare's tables, as `tools.inspect` shows them.  Functions take the words of the stage's segment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from ring.fields import Field, Table, Words
from ring.layout import ROW_SCALARS, true_row
from stages.compare.layout import (
    arming,
    checkpoints,
    conns,
    events,
    history,
    kept,
    memory,
    options,
    queues,
    reasons,
    records,
    rules,
    scalars,
    slots,
)
from stages.kind import options_table, scalars_table
from stages.packets import tables
from stages.packets.layout import networks, tcp, transports

SIDES: Final = ("primary", "secondary")
QUEUES: Final = tuple(f"{side}_{size}" for side in SIDES for size in memory.CLASS_BYTES)
_BY_SIDE: Final = dict.fromkeys(("oldest", "newest", "links"), SIDES)
_BY_LIST: Final = dict.fromkeys(("head", "count", "tail"), conns.LIST_NAMES)
_BY_QUEUE: Final = dict.fromkeys(("queue_head", "queue_tail"), QUEUES)

_RULE_NUMBER = Words("supervisor")
_RULE_NUMBER.word("number", "number + 1 of a rule")


def _scalar(w: Any, i: int) -> int:
    return int(w[true_row(w) + ROW_SCALARS + i])


def _at(option: int) -> Callable[[Any], int]:
    return lambda w: int(w[option])


def _if_there(option: int, rows: int) -> Callable[[Any], int]:
    return lambda w: rows if w[option] else 0


# --- words that have another meaning for fragments ----------------------------------------------------------------
def _of_fragments(w: Any, row: Sequence[int]) -> bool:
    return row[conns.TRANSPORT] == transports.FRAGMENT


def _of_connection(w: Any, row: Sequence[int]) -> bool:
    return not _of_fragments(w, row)


def _fragment(w: Any, slot: Sequence[int]) -> bool:
    c = slot[slots.CONN]
    return 0 < c < len(w) - conns.WORDS and int(w[c + conns.TRANSPORT]) == transports.FRAGMENT


def _first_fragment(w: Any, slot: Sequence[int]) -> bool:
    return _fragment(w, slot) and slot[slots.PARTS] != 0


def _segment(w: Any, slot: Sequence[int]) -> bool:
    return not _fragment(w, slot) and not slot[slots.PARTS]


def _put_together(w: Any, slot: Sequence[int]) -> bool:
    return not _fragment(w, slot) and slot[slots.PARTS] != 0


_FRAGMENT_ROWS: Final = {
    **dict.fromkeys(("given_up", "given_up_at"), _of_fragments),
    **dict.fromkeys(("primary_isn", "secondary_isn", "primary_max_ack", "secondary_max_ack"), _of_connection),
}
_FRAGMENT_SLOTS: Final = {
    **dict.fromkeys(("ident", "place"), _fragment),
    **dict.fromkeys(("here", "whole", "last"), _first_fragment),
    **dict.fromkeys(("seq", "end", "ack", "flags", "life"), _segment),
    "transport": _put_together,
}


# --- slots and their queues ---------------------------------------------------------------------------------------
def _slot_count(w: Any) -> int:
    return (int(w[options.QUEUES]) - int(w[options.SLOTS])) // slots.WORDS if w[options.SLOTS] else 0


def _mask(w: Any, g: int) -> int:
    mask = int(w[options.MASKS + g])
    if not 0 <= mask < len(w):
        raise ValueError(f"a queue of {mask + 1:,} words")
    return mask


def _queue_entries(w: Any, g: int) -> range:
    head = _scalar(w, scalars.QUEUE_HEAD + g)
    return range(head, min(_scalar(w, scalars.QUEUE_TAIL + g), head + _mask(w, g) + 1))


def _queue_start(w: Any, g: int) -> int:
    return int(w[options.QUEUES + g]) - int(w[options.QUEUES])


def _queue_words(w: Any) -> int:
    last = len(QUEUES) - 1
    return _queue_start(w, last) + _mask(w, last) + 1 if w[options.QUEUES] else 0


def _free_entries(w: Any) -> Iterator[int]:
    for g in range(len(QUEUES)):
        for i in _queue_entries(w, g):
            yield _queue_start(w, g) + (i & _mask(w, g))


def _held(w: Any) -> list[int]:
    """Slots that are in no free queue."""
    free = {int(w[int(w[options.QUEUES]) + entry]) for entry in _free_entries(w)}
    return [n for n in range(_slot_count(w)) if n not in free]


def _queue_of(w: Any, entry: int) -> str:
    return QUEUES[max(g for g in range(len(QUEUES)) if _queue_start(w, g) <= entry)]


def _recycled(w: Any) -> Iterator[int]:
    for g in range(len(QUEUES)):
        start = _queue_start(w, g) // 2
        yield from range(start, start + min(int(w[options.RECYCLED + g]), _mask(w, g) // 2 + 1))


# --- what was found, what came ------------------------------------------------------------------------------------
def _newest(written: int, count: int) -> Iterator[int]:
    """Numbers in a ring of so many rows, the newest first."""
    return (n % count for n in range(written - 1, max(written - count, 0) - 1, -1))


def _history(w: Any) -> Iterator[int]:
    for side in range(len(SIDES)):
        at = int(w[options.HISTORY]) + side * history.COUNT * history.WORDS
        times = w[at + history.TIME : at + history.COUNT * history.WORDS : history.WORDS].tolist()
        for n in sorted((n for n, time in enumerate(times) if time), key=lambda n: (times[n], n), reverse=True):
            yield side * history.COUNT + n


def _kept(w: Any) -> Iterator[int]:
    """Where in the records a packet lies, of the newest record first: frames have any length."""
    for n in _newest(_scalar(w, scalars.RECORDS), records.COUNT):
        first = n * records.WORDS
        at = first + records.HEADER
        record = int(w[options.RECORDS]) + first
        end = first + min(int(w[record + records.USED]), records.WORDS) - kept.HEADER
        while at <= end:
            yield at
            at += kept.HEADER + max(0, int(w[int(w[options.RECORDS]) + at + kept.BYTES]) + 7) // 8


# --- rules --------------------------------------------------------------------------------------------------------
def _copy(w: Any) -> int:
    """The copy of the rules in force."""
    return int(w[options.RULES]) + rules.COPIES + (_scalar(w, scalars.RULES_SEEN) & 1) * rules.COPY_WORDS


def _rule_name(w: Any, number: int) -> str:
    if not w[options.RULES]:
        return ""
    return rules.rule_name(w, int(w[options.RULES]), _scalar(w, scalars.RULES_SEEN), number)


def _show_tag(w: Any, words: Sequence[int]) -> str:
    """A tag as the rule's name, or its number where another rule has the place by now."""
    number = words[0] & rules.NUMBER
    if not number:
        return "-"
    at = _copy(w) + rules.COPY_RECORDS + (number - 1) * rules.RECORD_WORDS + rules.RULE_TAG
    does = "masks" if words[0] & rules.MASKS else "passes"
    name = _rule_name(w, number) if int(w[at]) == words[0] else f"number {number - 1}, gone"
    return f"{name} ({does})"


def _show_rule(w: Any, words: Sequence[int]) -> str:
    return (_rule_name(w, words[0]) or str(words[0])) if words[0] else "-"


def _records(w: Any) -> Iterator[tuple[int, int]]:
    """Numbers + 1 of the rules in force, and where their records are."""
    for number in range(1, rules.RULES + 1):
        r = _copy(w) + rules.COPY_RECORDS + (number - 1) * rules.RECORD_WORDS
        if w[r + rules.RULE_TAG]:
            yield number, r


def _items(lists: tuple[str, ...], words: int) -> Callable[[Any], dict[int, str]]:
    """Items of such lists: where in the items each begins, and whose it is."""

    def found(w: Any) -> dict[int, str]:
        items: dict[int, str] = {}
        for number, r in _records(w):
            for field in (field for field in rules.RULE_FIELDS if field.name in lists):
                first = int(w[r + field.offset + rules.LIST_FIRST])
                count = min(int(w[r + field.offset + rules.LIST_COUNT]), rules.ITEM_WORDS)
                whose = f"{_rule_name(w, number)} {field.name.removeprefix('rule_')}"
                items |= {first + i * words: whose for i in range(count)}
        return items

    return found


def _automata(w: Any) -> dict[int, str]:
    """Automata: where in the copy each begins, and whose it is."""
    found: dict[int, str] = {}
    for number, r in _records(w):
        if w[r + rules.RULE_STATES]:
            at = int(w[r + rules.RULE_AUTOMATON]) // 8
            found[at] = f"{found[at]}, {_rule_name(w, number)}" if at in found else _rule_name(w, number)
    return found


def _scattered(
    name: str, meaning: str, fields: tuple[Field, ...], at: int, words: int, found: Callable[[Any], dict[int, str]]
) -> Table:
    """Things that lie anywhere in ``words`` words of the copy in force, from word ``at`` on.  A row's number: where."""
    return Table(
        name,
        meaning,
        fields,
        lambda w: _copy(w) + at,
        _if_rules(words),
        1,
        live=lambda w: iter(found(w)),
        which=lambda w, n: found(w).get(n, ""),
    )


def _if_rules(rows: int) -> Callable[[Any], int]:
    return _if_there(options.RULES, rows)


TABLES: Final = (
    *tables.connections(
        _at(options.TABLE),
        conns.FIELDS,
        conns.WORDS,
        {"flags": conns.FLAG_NAMES, "transport": transports.NAMES},
        ("seen", "count", "flags", "compared", "primary_next", "primary_max_ack", "secondary_max_ack", "rule"),
        parts=_BY_LIST | dict.fromkeys(("given_up", "given_up_at"), SIDES),
        shown={"rule": _show_tag},
        holds=_FRAGMENT_ROWS,
    ),
    Table(
        "slots",
        "packets that are held",
        slots.FIELDS,
        _at(options.SLOTS),
        _slot_count,
        slots.WORDS,
        live=_held,
        holds=_FRAGMENT_SLOTS,
        names={"flags": tcp.FLAG_NAMES, "list": conns.LIST_NAMES, "queue": QUEUES, "transport": transports.NAMES},
        columns=("conn", "list", "time", "frame", "seq", "data_len", "flags", "ack", "next"),
    ),
    scalars_table(
        scalars.FIELDS,
        names={"arming": arming.NAMES, "reply": scalars.REPLY_NAMES, "flushing": scalars.FLUSH_NAMES},
        parts=_BY_SIDE | _BY_QUEUE,
    ),
    options_table(
        options.FIELDS,
        names={"stuck": SIDES, "tunnels": networks.POLICIES},
        parts=dict.fromkeys(("queues", "masks", "recycled"), QUEUES),
    ),
    Table(
        "checkpoints",
        "what is known of checkpoints and storms",
        checkpoints.FIELDS,
        _at(options.CHECKPOINTS),
        _if_there(options.CHECKPOINTS, 1),
        parts={"asked_at": SIDES},
    ),
    Table(
        "events",
        "what was found, the newest first",
        events.FIELDS,
        _at(options.EVENTS),
        _if_there(options.EVENTS, events.COUNT),
        events.WORDS,
        live=lambda w: _newest(_scalar(w, scalars.EVENTS), events.COUNT),
        names={"reason": reasons.NAMES, "transport": transports.NAMES},
        shown={**tables.KEY, "rule": _show_rule},
        columns=("time", "reason", "key", "position", "primary_bytes", "secondary_bytes"),
    ),
    Table(
        "history",
        "packets that came, of each side the newest first",
        history.FIELDS,
        _at(options.HISTORY),
        _if_there(options.HISTORY, 2 * history.COUNT),
        history.WORDS,
        live=_history,
        which=lambda w, n: SIDES[n // history.COUNT],
        columns=("time", "conn", "length", "bytes"),
    ),
    Table(
        "records",
        "heads of the copies of packets that explain a difference",
        records.FIELDS,
        _at(options.RECORDS),
        _if_there(options.RECORDS, records.COUNT),
        records.WORDS,
        live=lambda w: _newest(_scalar(w, scalars.RECORDS), records.COUNT),
    ),
    Table(
        "kept",
        "packets in records, by the word at which they begin; the frame's bytes follow",
        kept.FIELDS,
        _at(options.RECORDS),
        _if_there(options.RECORDS, records.COUNT * records.WORDS),
        1,
        live=_kept,
        names={"side": SIDES, "kind": kept.KIND_NAMES},
        which=lambda w, n: f"record {n // records.WORDS}",
    ),
    Table(
        "rules",
        "rules in force, by number",
        rules.RULE_FIELDS,
        lambda w: _copy(w) + rules.COPY_RECORDS,
        _if_rules(rules.RULES),
        rules.RECORD_WORDS,
        live="rule_tag",
        parts=dict.fromkeys((*rules.NETWORK_LISTS, *rules.RANGE_LISTS), ("first", "count")),
        shown={"rule_tag": _show_tag},
        columns=("rule_name", "rule_tag"),
    ),
    _scattered(
        "rule_networks",
        "networks that rules in force name, by the word of the items at which they begin",
        rules.NET_FIELDS,
        rules.COPY_ITEMS,
        rules.ITEM_WORDS,
        _items(rules.NETWORK_LISTS, rules.NET_WORDS),
    ),
    _scattered(
        "rule_ranges",
        "ranges that rules in force name, by the word of the items at which they begin",
        rules.RANGE_FIELDS,
        rules.COPY_ITEMS,
        rules.ITEM_WORDS,
        _items(rules.RANGE_LISTS, rules.RANGE_WORDS),
    ),
    _scattered(
        "rule_automata",
        "automata of masks in force, by the word of the copy at which they begin",
        rules.AUTOMATON_FIELDS,
        0,
        rules.COPY_WORDS,
        _automata,
    ),
    Table(
        "rule_order",
        "the order in which rules are tried",
        _RULE_NUMBER.fields,
        lambda w: _copy(w) + rules.COPY_ORDER,
        _if_rules(rules.RULES),
        live="number",
        which=lambda w, n: _rule_name(w, int(w[_copy(w) + rules.COPY_ORDER + n])),
    ),
    Table(
        "rule_set",
        "the rules in force, as a person wrote them",
        tuple(f for f in rules.COPY_FIELDS if f.name in ("copy_count", "copy_text_bytes", "copy_text")),
        _copy,
        _if_rules(1),
    ),
    Table(
        "rule_hits",
        "what rules have done, by number + 1",
        tuple(
            f._replace(offset=f.offset - rules.HITS, size=1)
            for f in rules.AREA_FIELDS
            if f.name in ("hits", "connections")
        ),
        lambda w: int(w[options.RULES]) + rules.HITS,
        _if_rules(rules.RULES + 1),
        1,
        live="connections",
        which=_rule_name,
    ),
    Table(
        "queues",
        "slots that are free",
        queues.FIELDS,
        _at(options.QUEUES),
        _queue_words,
        live=_free_entries,
        which=_queue_of,
    ),
    Table(
        "recycle",
        "slots taken and given back in one burst",
        queues.FIELDS,
        _at(options.RECYCLE),
        lambda w: _queue_words(w) // 2,
        live=_recycled,
        which=lambda w, n: _queue_of(w, 2 * n),
    ),
    tables.scratch(_at(options.SCRATCH), 2),
)
