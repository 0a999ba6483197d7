"""Rules of the compares: what is wrong with one, how they are numbered, and the words that the kernel reads.  Pure.

`stages.compare.layout.rules` says where the words lie, `stages.compare.kernels.rules` reads them,
`stages.compare.rules.rulebook` writes them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgpack

from stages.compare.config import Rule
from stages.compare.layout import rules as L
from stages.compare.rules import ntuple, regex
from stages.compare.rules.automaton import Automaton, compile_mask
from stages.compare.rules.regex import BadRegex
from stages.schema import ID, Mistake, Reader, nearest, show

if TYPE_CHECKING:
    import numpy as np


_U64: Final = (1 << 64) - 1
_PORTED: Final = {ntuple.TCP, ntuple.UDP}
_NOTHING: Final = Automaton(bytes(256), ((0,), (2,)))  # of a mask without expressions


class TooMuch(ValueError):
    """Rules that do not fit: what was found, what would be right."""


@lru_cache(maxsize=256)
def automaton(texts: tuple[str, ...]) -> Automaton:
    """The automaton of a mask.  Raises `BadRegex`."""
    return compile_mask(texts) if texts else _NOTHING


# --- one rule -------------------------------------------------------------------------------------------------------
def mistakes(name: str, rule: Rule, compares: Sequence[str], *, sure: bool = True) -> list[Mistake]:
    """What is wrong with a rule although each of its keys is right; ``sure``: all ``compares`` are known."""
    path, found = f"rule.{name}", []
    if sure and not compares:
        found.append(Mistake(path, "a rule", "a [compare.ID] whose packets it is about"))
    elif sure and rule.compare is not None and rule.compare not in compares:
        found.append(
            Mistake(f"{path}.compare", show(rule.compare), f"the id of a compare: {nearest(rule.compare, compares)}")
        )
    for key, value in (("regex", rule.regex), ("bytes", rule.bytes)):
        if rule.action == "pass" and value:
            found.append(
                Mistake(f"{path}.{key}", "what to mask", 'action = "mask", or no such key: who passes is not compared')
            )
    if rule.action == "mask" and not rule.regex and not rule.bytes:
        found.append(Mistake(path, "a mask without regex or bytes", "regex, bytes or both, which say what may differ"))
    numbers = {n for n, _ in rule.protocol}
    for key, ports in (("source_port", rule.source_port), ("destination_port", rule.destination_port)):
        if ports and numbers and not numbers & _PORTED:
            said = ntuple.show_protocols(rule.protocol)
            found.append(Mistake(f"{path}.{key}", f"ports of {said}", "ports with tcp or udp only: others have none"))
    sides = [{net.version for net in nets} for nets in (rule.source, rule.destination) if nets]
    if len(sides) == 2 and not sides[0] & sides[1]:
        what = f"addresses of IPv{min(sides[0])} and IPv{min(sides[1])}"
        found.append(Mistake(f"{path}.destination", what, "both of one kind: no packet has one of each"))
    if not found:
        try:
            automaton(rule.regex)
        except BadRegex as error:
            found.append(Mistake(f"{path}.regex", ", ".join(map(regex.show, rule.regex)), str(error)))
    return found


def as_table(rule: Rule) -> dict[str, Any]:
    """A rule as it would stand in a config; what takes anything is left out."""
    shown = {
        "action": rule.action,
        "compare": rule.compare,
        "protocol": ntuple.show_protocols(rule.protocol) if rule.protocol else None,
        "source": ntuple.show_nets(rule.source) if rule.source else None,
        "source_port": ntuple.show_ranges(rule.source_port) if rule.source_port else None,
        "destination": ntuple.show_nets(rule.destination) if rule.destination else None,
        "destination_port": ntuple.show_ranges(rule.destination_port) if rule.destination_port else None,
        "vlan": ntuple.show_vlans(rule.vlan) if rule.vlan else None,
        "regex": list(rule.regex) or None,
        "bytes": ntuple.show_ranges(rule.bytes) if rule.bytes else None,
    }
    return {name: value for name, value in shown.items() if value is not None}


def from_table(name: str, table: Mapping[str, Any], compares: Sequence[str]) -> tuple[Rule, list[Mistake]]:
    """A rule from a table that came while the pipeline runs, and all that is wrong with it."""
    reader = Reader(Path("/"), [])
    rule = reader.read(Rule, dict(table), f"rule.{name}")
    return rule, reader.mistakes or mistakes(name, rule, compares)


def describe(rule: Rule) -> str:
    """``tcp 10.0.0.2:80 > *:* vlan 5``: the packets that a rule is about."""
    ends = []
    for nets, ports in ((rule.source, rule.source_port), (rule.destination, rule.destination_port)):
        text = ntuple.show_nets(nets)
        ends.append(f"{f'[{text}]' if ':' in text else text}:{ntuple.show_ranges(ports)}")
    vlan = f" vlan {ntuple.show_vlans(rule.vlan)}" if rule.vlan else ""
    return f"{ntuple.show_protocols(rule.protocol)} {ends[0]} > {ends[1]}{vlan}"


def describe_masks(rule: Rule) -> list[str]:
    """What a mask covers: expressions, ``bytes 16-23``."""
    return [*rule.regex, *([f"bytes {ntuple.show_ranges(rule.bytes)}"] if rule.bytes else [])]


def good_name(name: str) -> bool:
    """Whether a rule may be called so."""
    return re.fullmatch(ID, name) is not None


# --- a set ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Kept:
    """A rule of a set.  ``number`` is its place in the kernel's tables while it exists; ``serial`` is never used again.

    ``base``: by compare, what the counters of its number (hits, connections) were when it was added.
    """

    name: str
    rule: Rule
    number: int
    serial: int
    base: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def tag(self) -> int:
        """What connections that fall under it get as conns.RULE."""
        return int(self.serial << L.SERIAL | (L.MASKS if self.rule.action == "mask" else L.PASSES) | self.number + 1)


@dataclass(frozen=True)
class RuleSet:
    """Rules in the order in which they are tried; ``serial`` is the next one."""

    kept: tuple[Kept, ...] = ()
    serial: int = 1

    def __contains__(self, name: str) -> bool:
        return any(one.name == name for one in self.kept)

    def extended(
        self, rules: Mapping[str, Rule], base: Mapping[int, Mapping[str, tuple[int, int]]] | None = None
    ) -> RuleSet:
        """With ``rules`` behind the others; ``base`` as in `added`.  Raises `TooMuch`."""
        made = self
        for name, rule in rules.items():
            made = made.added(name, rule, base=base)
        return made

    def added(
        self,
        name: str,
        rule: Rule,
        before: str | None = None,
        base: Mapping[int, Mapping[str, tuple[int, int]]] | None = None,
    ) -> RuleSet:
        """With one more, in front of ``before`` or at the end; ``base`` by number (see `Kept`).  Raises `TooMuch`."""
        if len(self.kept) >= L.RULES:
            raise TooMuch(f"more than {L.RULES} rules", f"at most {L.RULES}: one rule may have lists")
        taken = {one.number for one in self.kept}
        number = next(n for n in range(L.RULES) if n not in taken)
        one = Kept(name, rule, number, self.serial, (base or {}).get(number, {}))
        at = next((i for i, other in enumerate(self.kept) if other.name == before), len(self.kept))
        return RuleSet((*self.kept[:at], one, *self.kept[at:]), self.serial + 1)

    def without(self, name: str) -> RuleSet:
        """Without the rule of that name."""
        return replace(self, kept=tuple(one for one in self.kept if one.name != name))

    def renewed(self) -> RuleSet:
        """The same rules with new serials: masks begin at the start again, in all connections."""
        kept = tuple(replace(one, serial=self.serial + i) for i, one in enumerate(self.kept))
        return RuleSet(kept, self.serial + len(kept))

    # --- as words -------------------------------------------------------------------------------------------------
    def words(self, compare: str, text: bytes = b"") -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """A whole copy for one compare, with the rules that are for it.  Raises `TooMuch`."""
        import numpy as np  # here: a config without rules is read without it

        w = np.zeros(L.COPY_WORDS, dtype=np.int64)
        u8 = w.view(np.uint8)
        own = [one for one in self.kept if one.rule.compare in (None, compare)]
        w[L.COPY_COUNT] = len(own)
        items: list[int] = []
        place = L.COPY_AUTOMATA * 8
        made: dict[tuple[str, ...], int] = {}
        for i, one in enumerate(own):
            w[L.COPY_ORDER + i] = one.number + 1
            r = L.COPY_RECORDS + one.number * L.RECORD_WORDS
            w[r + L.RULE_TAG] = one.tag
            for at, values in _lists(one.rule):
                w[r + at + L.LIST_FIRST], w[r + at + L.LIST_COUNT] = len(items), len(values)
                for value in values:
                    items += value
            name = one.name.encode()[: L.NAME_BYTES]
            u8[8 * (r + L.RULE_NAME) :][: len(name)] = np.frombuffer(name, dtype=np.uint8)
            if one.rule.action != "mask":
                continue
            states = automaton(one.rule.regex)
            count, classes = len(states.rows), len(states.rows[0])
            size = L.automaton_bytes(count, classes)
            w[r + L.RULE_CLASSES], w[r + L.RULE_STATES] = classes, count
            if one.rule.regex in made:
                w[r + L.RULE_AUTOMATON] = made[one.rule.regex]
                continue
            if place + size > len(u8):
                raise TooMuch(
                    f"masks whose automata take more than {L.AUTOMATA_BYTES:,} bytes (rule {one.name} is {size:,})",
                    "fewer masks, or shorter repeats in them",
                )
            w[r + L.RULE_AUTOMATON] = made[one.rule.regex] = place
            u8[place + L.AUTOMATON_CLASSES * 8 :][: L.CLASSES] = np.frombuffer(states.classes, dtype=np.uint8)
            table = np.array(states.rows, dtype=">u2").view(np.uint8).ravel()
            u8[place + L.AUTOMATON_TABLE * 8 :][: len(table)] = table
            place += size
        if len(items) > L.ITEM_WORDS:
            raise TooMuch(
                "more addresses, ports and ranges than there is room for", "shorter lists in all rules together"
            )
        w[L.COPY_ITEMS : L.COPY_ITEMS + len(items)] = items
        if len(text) > L.TEXT_WORDS * 8:
            raise TooMuch(
                f"rules of {len(text):,} bytes of text", f"at most {L.TEXT_WORDS * 8:,} bytes for all of them"
            )
        w[L.COPY_TEXT_BYTES] = len(text)
        u8[L.COPY_TEXT * 8 :][: len(text)] = np.frombuffer(text, dtype=np.uint8)
        return w

    # --- as text --------------------------------------------------------------------------------------------------
    def text(self, config: str, revision: int) -> bytes:
        """For the next supervisor: the set, the digest of the config's rules, and how many sets there were before."""
        rules = [[one.name, as_table(one.rule), one.number, one.serial, dict(one.base)] for one in self.kept]
        packed: bytes = msgpack.packb({"config": config, "revision": revision, "serial": self.serial, "rules": rules})
        return packed


def from_text(text: bytes) -> tuple[RuleSet, str, int]:
    """The set, the digest and the revision from `RuleSet.text`.  Raises ValueError for anything else."""
    try:
        read = msgpack.unpackb(text)
        kept = []
        for name, table, number, serial, base in read["rules"]:
            rule, wrong = from_table(name, table, [table.get("compare", "")])
            if wrong:
                raise ValueError(str(wrong[0]))
            kept.append(Kept(name, rule, number, serial, {compare: (h, c) for compare, (h, c) in base.items()}))
        return RuleSet(tuple(kept), int(read["serial"])), str(read["config"]), int(read["revision"])
    except Exception as error:  # whatever msgpack and we think of what may be anything
        raise ValueError(f"not the text of rules: {str(error) or type(error).__name__}") from None


def digest(rules: Mapping[str, Rule]) -> str:
    """A digest of a config's rules, in their order."""
    listed = [[name, as_table(rule)] for name, rule in rules.items()]
    return hashlib.sha256(msgpack.packb(listed)).hexdigest()[:16]


def _lists(rule: Rule) -> Iterable[tuple[int, list[list[int]]]]:
    yield L.RULE_SOURCE, [_net_words(net) for net in rule.source]
    yield L.RULE_DESTINATION, [_net_words(net) for net in rule.destination]
    for at, ranges in (
        (L.RULE_PROTOCOL, rule.protocol),
        (L.RULE_VLAN, rule.vlan),
        (L.RULE_SOURCE_PORT, rule.source_port),
        (L.RULE_DESTINATION_PORT, rule.destination_port),
        (L.RULE_BYTES, rule.bytes),
    ):
        yield at, [[first, last] for first, last in ranges]


def _net_words(net: ntuple.Net) -> list[int]:
    """As the packet parser makes the words of an address: an IPv4 one is the low half."""
    mask, address = int(net.netmask), int(net.network_address)
    return [net.version, *(_signed(half) for n in (mask, address) for half in (n >> 64, n & _U64))]


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
