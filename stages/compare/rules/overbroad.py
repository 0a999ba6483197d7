"""Rules that leave nothing to compare: what to tell the user, who may want just that.  Pure.

A rule is reported where every packet falls under it, and it lets them pass or masks all that they say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from stages.compare.config import Rule
from stages.compare.rules import ntuple
from stages.compare.rules import rule_set as rules
from stages.compare.rules.automaton import Automaton
from stages.compare.rules.ntuple import Net, Range

_DATAGRAM: Final = 1_472  # the most bytes of a UDP payload in an Ethernet frame of 1,500: RFC 768, 791, 894
_TEXT: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FEW: Final = 4  # bytes that are named one by one
_UNNOTICED: Final = "what the replicas say differently there reaches the clients, and no checkpoint is asked for"


def warnings(named: Mapping[str, Rule]) -> dict[str, str]:
    """By name, of each rule that leaves nothing to compare what it does to the protection."""
    found = {name: warning(rule, behind=n > 0) for n, (name, rule) in enumerate(named.items())}
    return {name: text for name, text in found.items() if text}


def warning(rule: Rule, *, behind: bool) -> str:
    """What a rule that leaves nothing to compare does to the protection; empty for any other rule.

    ``behind``: there are rules in front of it, which packets may fall under first.
    """
    packets = _packets(rule)
    if not packets:
        return ""
    where = f" of {rule.compare}" if rule.compare else ""
    where += " that no rule before it takes" if behind else ""
    if rule.action == "pass":
        return f"it lets {packets}{where} pass uncompared: {_UNNOTICED}"
    masked = _masked(rule)
    return f"it masks {masked} in {packets}{where}: {_UNNOTICED}" if masked else ""


# --- which packets --------------------------------------------------------------------------------------------------
def _packets(rule: Rule) -> str:
    """``every packet``, if that is what falls under the rule, or every one of a protocol family; else nothing."""
    numbers = {n for first, last in rule.protocol for n in range(first, last + 1)}
    ported = any((rule.source_port, rule.destination_port))
    if not (numbers >= {ntuple.TCP, ntuple.UDP} or not numbers):
        return ""
    if not all(_whole(ports, 1, 65_535) for ports in (rule.source_port, rule.destination_port)):
        return ""
    versions = _versions(rule.source) & _versions(rule.destination)
    if not versions or not _whole(rule.vlan, 0, 4_095):
        return ""
    kind = f" IPv{min(versions)}" if len(versions) == 1 else ""
    if ported:
        return f"every{kind} packet of tcp and udp"
    all_of_them = not numbers or len(numbers) == 256
    return f"every{kind} packet" + ("" if all_of_them else f" of {ntuple.show_protocols(rule.protocol)}")


def _whole(ranges: Iterable[Range], low: int, high: int) -> bool:
    """Whether ranges together take all from ``low`` to ``high``; none takes anything."""
    listed = sorted(ranges)
    return not listed or _reach(listed, low) > high


def _reach(ranges: Sequence[Range], low: int) -> int:
    """The first number from ``low`` on that none of the sorted ranges has."""
    for first, last in ranges:
        if first > low:
            break
        low = max(low, last + 1)
    return low


def _versions(nets: Sequence[Net]) -> set[int]:
    """The versions of IP all of whose addresses are in one of ``nets``; none takes anything."""
    if not nets:
        return {4, 6}
    found = set()
    for version, bits in ((4, 32), (6, 128)):
        spans = sorted((int(n.network_address), int(n.broadcast_address)) for n in nets if n.version == version)
        if _reach(spans, 0) > (1 << bits) - 1:
            found.add(version)
    return found


# --- which bytes ----------------------------------------------------------------------------------------------------
def _masked(rule: Rule) -> str:
    """What a mask forgives, if that is all that matters; else nothing."""
    if (end := _reach(sorted(rule.bytes), 0)) >= _DATAGRAM:
        return f"bytes 0-{end - 1:,}, all of an ordinary datagram and the beginning of each TCP stream,"
    if not rule.regex:
        return ""
    states = rules.automaton(rule.regex)
    always = max((_always(states, start) for start in (0, 1)), key=len)
    if not set(_TEXT) <= always:
        return ""
    left = sorted(set(range(256)) - always)
    if not left:
        return "every byte"
    if len(left) <= _FEW:
        return f"every byte but {' '.join(f'0x{b:02x}' for b in left)}"
    return f"{len(always)} of the 256 bytes, all letters and digits among them, wherever they stand,"


def _always(automaton: Automaton, start: int) -> set[int]:
    """The bytes that are masked from state ``start`` on, whatever comes; no longer all once letters are missing."""
    members: dict[int, set[int]] = {}
    for b, c in enumerate(automaton.classes):
        members.setdefault(c, set()).add(b)
    always, seen, ahead = set(members), {start}, [start]
    text = {automaton.classes[b] for b in _TEXT}
    while ahead and text <= always:
        row = automaton.rows[ahead.pop()]
        always -= {c for c, entry in enumerate(row) if not entry & 1}
        new = {entry >> 1 for entry in row} - seen
        seen |= new
        ahead += new
    return {b for c in always for b in members[c]}
