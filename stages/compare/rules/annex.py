"""``[rule.NAME]`` as the pipeline sees it: an `stages.kind.Annex` of the compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stages.compare.config import Rule
from stages.compare.rules import overbroad, rule_set
from stages.compare.rules.rulebook import Rulebook
from stages.kind import LiveStage
from stages.schema import Mistake

warnings = overbroad.warnings


def mistakes(
    tables: Mapping[str, Rule], good: Sequence[str], stages: Sequence[str], *, sure: bool, whole: bool
) -> Iterable[Mistake]:
    """See `stages.kind.AnnexCode.mistakes`."""
    found = [wrong for name in good for wrong in rule_set.mistakes(name, tables[name], stages, sure=sure)]
    yield from found
    if tables and whole and not found:
        try:
            made = rule_set.RuleSet().extended(tables)
            for compare in stages:
                made.words(compare)
        except rule_set.TooMuch as error:
            yield Mistake("rule", *error.args)


def rows(tables: Mapping[str, Rule]) -> Iterable[tuple[str, ...]]:
    """A rule a row: name, action, the compare that it is for, what it matches, what it masks."""
    for name, rule in tables.items():
        masked = " and ".join(rule_set.describe_masks(rule))
        yield name, rule.action, rule.compare or "*", rule_set.describe(rule), masked


def live(stages: Sequence[LiveStage], tables: Mapping[str, Rule], log: Any, *, taken_over: bool) -> Rulebook:
    """The rules of a running pipeline."""
    return Rulebook(stages, tables, log, taken_over=taken_over)
