"""The rules of a running pipeline: written into the segments of its compares, changed by ``rule add`` and ``rule del``.

A change is written whole into the copy that a compare does not use, then announced by one store (CMD_RULES); the next
change waits until every compare has committed that it took this one.  The set in force, as text, lies in each copy: a
supervisor that takes over goes on with what its predecessor had, run-time changes included, unless the config's rules
were edited meanwhile: then those replace them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ring import layout
from ring.ledger import StageSegment
from ring.memory_fence import fence
from stages.compare.config import Rule
from stages.compare.kind import KIND
from stages.compare.layout import memory, scalars
from stages.compare.layout import rules as L
from stages.compare.rules import overbroad
from stages.compare.rules import rule_set as rules
from stages.compare.rules.rule_set import RuleSet
from stages.kind import LiveStage
from stages.replies import Later, Refused, Reply, unknown

PATIENCE_NS: Final = 15_000_000_000


@dataclass(frozen=True)
class Area:
    """The rules of one compare in its stage's segment; ``at`` is their first word."""

    segment: StageSegment
    at: int

    @property
    def written(self) -> int:
        """How many changes were written."""
        return int(self.segment.w[layout.CMD_RULES])

    @property
    def free(self) -> bool:
        """Whether the kernel has gone over to what was written last, for good: the other copy is ours."""
        return bool(self.written == self.segment.scalars()[scalars.RULES_SEEN])

    def _copy(self, change: int) -> int:
        return int(self.at + L.COPIES + (change & 1) * L.COPY_WORDS)

    def write(self, words: Any, change: int) -> None:
        """Write a whole copy, then make it the ``change``-th set."""
        at = self._copy(change)
        self.segment.w[at : at + L.COPY_WORDS] = words
        fence()  # the set before the word that announces it; partner: the kernel's `take_rules`
        self.segment.w[layout.CMD_RULES] = change

    def text(self) -> bytes:
        """The text of the set that was written last."""
        at = self._copy(self.written)
        size = min(int(self.segment.w[at + L.COPY_TEXT_BYTES]), L.TEXT_WORDS * 8)
        first = at + L.COPY_TEXT
        return bytes(self.segment.w[first : first + L.TEXT_WORDS].tobytes()[:size])

    def counters(self, number: int) -> tuple[int, int]:
        """Hits and connections of a number; within a burst they may be ahead of what is committed."""
        w = self.segment.w
        return int(w[self.at + L.HITS + number + 1]), int(w[self.at + L.CONNECTIONS + number + 1])


class Rulebook:
    """The set in force, and the areas of the compares that have it.  To be made before any stage is started."""

    def __init__(
        self, stages: Sequence[LiveStage], configured: Mapping[str, Rule], log: Any, *, taken_over: bool
    ) -> None:
        self.log = log
        self.areas = {
            stage.id: Area(stage.segment, memory.places(stage.params, KIND.tables_at)["rules"]) for stage in stages
        }
        self.digest, self.revision = rules.digest(configured), 0
        self.rules = RuleSet()
        self._foreign = False  # the words in force are of another process, perhaps of another version of the compiler
        if not (taken_over and self._take_over(configured)):
            self._begin(configured, taken_over)
        for name, what in overbroad.warnings({one.name: one.rule for one in self.rules.kept}).items():
            self._warn(name, what)

    def _begin(self, configured: Mapping[str, Rule], taken_over: bool) -> None:
        """With the config's rules; ``taken_over``: over segments in which others were in force."""
        if taken_over:
            # Not numbers that the dead one's rules may have had: connections would take the new rules for them.
            self.rules = RuleSet(serial=int(time.time()))
        self.rules = self.rules.extended(configured, self._counted())
        if self.areas and (self.rules.kept or taken_over):
            # Nothing runs: what was written but not yet taken can be written over.
            self._write(lambda area: area.segment.scalars()[scalars.RULES_SEEN] + 1 if taken_over else 0)

    def _warn(self, name: str, what: str) -> None:
        if what:
            self.log.warning("a rule leaves nothing to compare", rule=name, what=what)

    def _counted(self) -> dict[int, dict[str, tuple[int, int]]]:
        """What has been counted so far, by number and compare: a new rule's counters begin there."""
        return {n: {compare: area.counters(n) for compare, area in self.areas.items()} for n in range(L.RULES)}

    def _take_over(self, configured: Mapping[str, Rule]) -> bool:
        """Go on with the newest set that was in force; False where the config's rules have to replace it."""
        found = []
        for compare, area in self.areas.items():
            try:
                found.append(rules.from_text(area.text()) if area.text() else (RuleSet(), rules.digest({}), 0))
            except ValueError as error:
                self.log.warning("rules of the dead supervisor cannot be read", stage=compare, why=str(error))
                return False
        if not found:
            return True
        newest, digest, self.revision = max(found, key=lambda one: one[2])
        self.rules = RuleSet((), newest.serial)
        if digest != self.digest:
            self.log.warning("the config's rules were changed: they replace those in force", replaced=len(newest.kept))
            return False
        self.rules, self._foreign = newest, True
        if any(one[2] != self.revision for one in found):  # it died between two compares
            self._write(lambda area: area.segment.scalars()[scalars.RULES_SEEN] + 1)
        if newest.kept:
            more = [one.name for one in newest.kept if one.name not in configured]
            self.log.info("rules taken over", rules=len(newest.kept), added_at_run_time=more)
        return True

    def _write(self, change: Callable[[Area], int]) -> None:
        if self._foreign:
            self.rules, self._foreign = self.rules.renewed(), False
        self.revision += 1
        text = self.rules.text(self.digest, self.revision)
        made = {compare: self.rules.words(compare, text) for compare in self.areas}  # all fit, or none is written
        for compare, area in self.areas.items():
            area.write(made[compare], change(area))

    @property
    def free(self) -> bool:
        """Whether every compare has taken the last change."""
        return all(area.free for area in self.areas.values())

    # --- the command ------------------------------------------------------------------------------------------------
    def command(self, args: Mapping[str, Any], stopped: Sequence[str], wake: Callable[[], object]) -> Reply | Later:
        """``rule``: ``what`` is list, add (``name``, ``table``, ``before``) or del (``name``)."""
        what, name = args.get("what"), args.get("name")
        if what == "list":
            return {"ok": True, "rules": self.listed()}
        if what not in ("add", "del"):
            raise unknown("rule command", str(what)[:64], ["add", "del", "list"])
        if not isinstance(name, str):
            raise Refused("a rule has a name", 2)
        change, warning = self._adding(name, args) if what == "add" else (self._deleting(name), "")
        for compare in stopped:
            raise Refused(f"{compare} is stopped, so it cannot take new rules: start it first")
        changed = self._tried(change)
        if isinstance(changed, dict):
            raise Refused(changed["error"], changed["code"])
        return self._applied(what, name, change, warning, wake)

    def _adding(self, name: str, args: Mapping[str, Any]) -> tuple[Callable[[], RuleSet], str]:
        """How the set changes, and what the new rule does to the protection."""
        table, before = args.get("table"), args.get("before")
        if not rules.good_name(name):
            raise Refused(f"{name[:80]!r} is no name of a rule: 1 to 64 of A-Z a-z 0-9 _ . -", 2)
        if not isinstance(table, dict) or not all(isinstance(key, str) for key in table):
            raise Refused("the keys of a rule are missing: action=pass or action=mask, protocol=tcp ...", 2)
        rule, wrong = rules.from_table(name, table, list(self.areas))
        if wrong:
            raise Refused(
                "\n  ".join([f"rule {name}: {len(wrong)} mistake{'s' * (len(wrong) != 1)}", *map(str, wrong)])
            )

        def change() -> RuleSet:
            if name in self.rules:
                raise Refused(f"there is a rule {name} already: delete it first, or choose another name")
            if before is not None and before not in self.rules:
                raise unknown("rule", str(before)[:64], [one.name for one in self.rules.kept])
            return self.rules.added(name, rule, before, self._counted())

        behind = bool(self.rules.kept) and before != self.rules.kept[0].name
        return change, overbroad.warning(rule, behind=behind)

    def _deleting(self, name: str) -> Callable[[], RuleSet]:
        def change() -> RuleSet:
            if name not in self.rules:
                raise unknown("rule", name[:64], [one.name for one in self.rules.kept])
            return self.rules.without(name)

        return change

    def _tried(self, change: Callable[[], RuleSet]) -> RuleSet | Reply:
        """The changed set, which fits, or why there is none."""
        try:
            made = change()
            text = made.text(self.digest, self.revision + 1)
            for compare in self.areas:
                made.words(compare, text)
            return made
        except rules.TooMuch as error:
            return {"ok": False, "error": f"found {error.args[0]}; expected {error.args[1]}", "code": 1}
        except Refused as refused:
            return {"ok": False, "error": str(refused), "code": refused.code}

    def _applied(
        self, what: str, name: str, change: Callable[[], RuleSet], warning: str, wake: Callable[[], object]
    ) -> Later:
        """The reply once every compare has taken the change; it is written once they have taken the one before."""
        written = False

        def done() -> Reply | None:
            nonlocal written
            if not self.free:
                return None
            if not written:
                changed = self._tried(change)  # once more: another client may have come first
                if isinstance(changed, dict):
                    return changed
                self.rules, written = changed, True
                self._write(lambda area: area.written + 1)
                wake()
                self.log.info("rule added" if what == "add" else "rule deleted", rule=name, rules=len(self.rules.kept))
                self._warn(name, warning)
                later.late = f"{name}: written, but not every compare has taken it yet: see status"
                return None
            told = {"warning": f"rule.{name}: {warning}"} if warning else {}
            return {"ok": True, "text": f"{name} is {'in force' if what == 'add' else 'deleted'}", **told}

        later = Later(
            done,
            time.monotonic_ns() + PATIENCE_NS,
            f"{name}: nothing changed, for a compare has not taken the rules before",
        )
        return later

    def listed(self) -> list[dict[str, Any]]:
        """Every rule, in the order in which they are tried, with its counters since it was added."""
        shown = []
        for one in self.rules.kept:
            hits = connections = 0
            for compare, area in self.areas.items():
                now, base = area.counters(one.number), one.base.get(compare, (0, 0))
                hits, connections = hits + now[0] - base[0], connections + now[1] - base[1]
            shown.append(
                {
                    "name": one.name,
                    "action": one.rule.action,
                    "compare": one.rule.compare or "*",
                    "match": rules.describe(one.rule),
                    "masks": rules.describe_masks(one.rule),
                    "hits": hits,
                    "connections": connections,
                    "table": rules.as_table(one.rule),
                }
            )
        return shown
