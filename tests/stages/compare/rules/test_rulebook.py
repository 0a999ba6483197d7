"""The supervisor's side of rules: written whole, handed over once taken, kept by the next supervisor."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import structlog

from pipeline.config import parse
from pipeline.graph import plan
from ring import layout, segment
from ring.ledger import StageSegment
from stages.compare.kind import KIND
from stages.compare.layout import rules as L
from stages.compare.layout import scalars
from stages.compare.rules.rulebook import Area, Rulebook
from stages.kind import LiveStage
from stages.replies import Later, Refused
from tests.pipeline.wrong import COMPARE

_serial = itertools.count()
SEEN = scalars.RULES_SEEN
TWO = (
    COMPARE
    + "".join(f'[chardev.{c}]\nbackend = "socket"\npath = "/run/{c}"\n' for c in ("p2", "s2", "o2"))
    + '[compare.comp1]\nprimary_in = "p2"\nsecondary_in = "s2"\noutdev = "o2"\n'
)
A = '[rule.a]\naction = "pass"\nprotocol = "udp"\n'
B = '[rule.b]\naction = "mask"\nbytes = 1\n'


class World:
    """Segments of the compares of a config, one supervisor after another, and the kernels' part by hand."""

    def __init__(self) -> None:
        self.name = f"rules-{os.getpid()}-{next(_serial)}"
        self.stages: dict[str, StageSegment] = {}
        self.log: list[dict[str, Any]] = []
        self.woken: list[str] = []

    def supervisor(self, rules: str = "", config: str = TWO) -> Rulebook:
        """The next supervisor, with these rules in its config."""
        graph = plan(parse(config + rules, path="/nowhere/config.toml"))
        taken_over = bool(self.stages)
        for stage in graph.stages:
            if stage.kind is KIND and not taken_over:
                self.stages[stage.id] = StageSegment.create(f"{self.name}.{stage.id}", stage.words)
        log = structlog.wrap_logger(None, processors=[self._note])
        stages = [LiveStage(s.id, s.params, self.stages[s.id]) for s in graph.stages if s.kind is KIND]
        return Rulebook(stages, graph.config.annexes["rule"], log, taken_over=taken_over)

    def _note(self, _logger: Any, _method: str, event: dict[str, Any]) -> Any:
        self.log.append(event)
        raise structlog.DropEvent

    def take(self, book: Rulebook, *compares: str) -> None:
        """The kernels commit that they know what was written."""
        for compare in compares or book.areas:
            w = book.areas[compare].segment.w
            row = layout.ROWS + (int(w[layout.COMMITTED]) & 1) * layout.ROW_WORDS
            w[row + layout.ROW_SCALARS + SEEN] = w[layout.CMD_RULES]

    def ask(self, book: Rulebook, stopped: Sequence[str] = (), **args: Any) -> Any:
        """One ``rule`` command; ``stopped``: compares that do not run."""
        return book.command(args, stopped, lambda: self.woken.append("compares"))

    def close(self) -> None:
        """Remove the segments."""
        for stage in self.stages.values():
            name = stage.name
            stage.close()
            segment.unlink(name)


@pytest.fixture
def world() -> Iterator[World]:
    """Nothing runs yet."""
    made = World()
    yield made
    made.close()


def force(area: Area) -> list[str]:
    """Names of the rules in the copy that a compare's kernel uses, in order."""
    w, at = area.segment.w, area.at + L.COPIES + (area.segment.scalars()[SEEN] & 1) * L.COPY_WORDS
    order = w[at + L.COPY_ORDER : at + L.COPY_ORDER + int(w[at + L.COPY_COUNT])]
    return [L.rule_name(w, area.at, area.segment.scalars()[SEEN], int(n)) for n in order]


def forces(book: Rulebook) -> dict[str, list[str]]:
    """The same of every compare."""
    return {compare: force(area) for compare, area in book.areas.items()}


PASS = {"action": "pass", "protocol": "tcp"}


def test_rules_of_the_config_are_there_before_a_stage_starts(world: World) -> None:
    """In the copy that a kernel begins with; a compare has those that are for it."""
    book = world.supervisor(A + B + '[rule.c]\naction = "pass"\ncompare = "comp1"\n')
    assert forces(book) == {"comp0": ["a", "b"], "comp1": ["a", "b", "c"]}
    assert book.free
    assert [one["name"] for one in book.listed()] == ["a", "b", "c"]


def test_a_change_is_answered_when_every_compare_has_taken_it(world: World) -> None:
    """Until then the old set is in force, and the client waits; the compares are woken."""
    book = world.supervisor(A)
    later = world.ask(book, what="add", name="new", table=PASS, before="a")
    assert isinstance(later, Later)
    assert later.done() is None
    assert forces(book) == {"comp0": ["a"], "comp1": ["a"]}
    assert world.woken == ["compares"]
    world.take(book, "comp0")
    assert later.done() is None
    assert forces(book) == {"comp0": ["new", "a"], "comp1": ["a"]}
    world.take(book, "comp1")
    assert later.done() == {"ok": True, "text": "new is in force"}
    assert [one["name"] for one in book.listed()] == ["new", "a"]
    gone = world.ask(book, what="del", name="a")
    gone.done()
    world.take(book)
    assert gone.done() == {"ok": True, "text": "a is deleted"}
    assert forces(book) == {"comp0": ["new"], "comp1": ["new"]}


def test_a_second_change_waits_for_the_first(world: World) -> None:
    """The copy in use is not touched; what the second wants is looked at again when its turn comes."""
    book = world.supervisor(A)
    first, second = (world.ask(book, what="add", name="new", table=PASS) for _ in range(2))
    other = world.ask(book, what="del", name="a")
    assert first.done() is None
    written = [area.written for area in book.areas.values()]
    assert second.done() is None
    assert other.done() is None
    assert [area.written for area in book.areas.values()] == written
    assert forces(book)["comp0"] == ["a"]
    world.take(book)
    assert first.done()["ok"]
    refused = second.done()
    assert not refused["ok"]
    assert "there is a rule new already" in refused["error"]
    assert other.done() is None
    world.take(book)
    assert other.done()["ok"]
    assert forces(book)["comp0"] == ["new"]


@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        ({"what": "frob"}, 2, "known: add, del, list"),
        ({"what": "add"}, 2, "has a name"),
        ({"what": "add", "name": "x y", "table": PASS}, 2, "no name of a rule"),
        ({"what": "add", "name": "x"}, 2, "keys of a rule are missing"),
        ({"what": "add", "name": "x", "table": {1: 2}}, 2, "keys of a rule are missing"),
        ({"what": "add", "name": "x", "table": {"action": "pas", "vlan": 5000}}, 1, "2 mistakes"),
        ({"what": "add", "name": "x", "table": {"action": "pass", "compare": "comp7"}}, 1, "rule.x.compare"),
        ({"what": "add", "name": "a", "table": PASS}, 1, "already"),
        ({"what": "add", "name": "x", "table": PASS, "before": "zz"}, 2, "known: a"),
        ({"what": "add", "name": "x", "table": {"action": "pass", "vlan": list(range(4000))}}, 1, "more addresses"),
        ({"what": "del", "name": "zz"}, 2, "known: a"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    world: World, args: dict[str, Any], code: int, why: str
) -> None:
    """With the reason, and the known names where one is unknown."""
    book = world.supervisor(A)
    with pytest.raises(Refused) as refused:
        world.ask(book, **args)
    assert refused.value.code == code
    assert why in str(refused.value)
    assert (book.free, forces(book)["comp0"]) == (True, ["a"])


def test_a_stopped_compare_gets_no_new_rules(world: World) -> None:
    """It could not say that it took them; a list can be asked for."""
    book = world.supervisor(A)
    with pytest.raises(Refused, match="stopped, so it cannot take new rules"):
        world.ask(book, ["comp1"], what="del", name="a")
    assert world.ask(book, ["comp1"], what="list")["rules"]


def test_hits_are_those_since_the_rule_was_added(world: World) -> None:
    """Of all compares; a number that is used again begins at 0."""
    book = world.supervisor(A)
    for area in book.areas.values():
        area.segment.w[area.at + L.HITS + 1] += 5
        area.segment.w[area.at + L.CONNECTIONS + 1] += 2
    assert [(one["hits"], one["connections"]) for one in book.listed()] == [(10, 4)]
    for args in ({"what": "del", "name": "a"}, {"what": "add", "name": "n", "table": PASS}):
        later = world.ask(book, **args)
        later.done()
        world.take(book)
        assert later.done()["ok"]
    assert [(one["name"], one["hits"], one["connections"]) for one in book.listed()] == [("n", 0, 0)]
    book.areas["comp0"].segment.w[book.areas["comp0"].at + L.HITS + 1] += 1
    assert book.listed()[0]["hits"] == 1


def change(world: World, book: Rulebook, **args: Any) -> None:
    """A change, done."""
    later = world.ask(book, **args)
    later.done()
    world.take(book)
    assert later.done()["ok"]


def test_the_next_supervisor_goes_on_with_the_rules_in_force(world: World) -> None:
    """Those that were added at run time, too, with their hits; nothing is written for that."""
    book = world.supervisor(A)
    change(world, book, what="add", name="new", table={"action": "mask", "regex": ["x(y)"]})
    book.areas["comp0"].segment.w[book.areas["comp0"].at + L.HITS + 2] += 3
    listed, written = book.listed(), [area.written for area in book.areas.values()]
    after = world.supervisor(A)
    assert after.listed() == listed
    assert [area.written for area in after.areas.values()] == written
    assert world.log[-1] | {"rules": 2, "added_at_run_time": ["new"]} == world.log[-1]
    serials = {one.serial for one in after.rules.kept}
    change(world, after, what="add", name="third", table=PASS)
    assert not serials & {one.serial for one in after.rules.kept}  # made anew, perhaps by another version
    assert forces(after)["comp1"] == ["a", "new", "third"]
    assert [one["hits"] for one in after.listed()] == [0, 3, 0]


def test_a_config_with_other_rules_replaces_those_in_force(world: World) -> None:
    """At once, for nothing runs; serials go on."""
    book = world.supervisor(A)
    change(world, book, what="add", name="new", table=PASS)
    serial = book.rules.serial
    after = world.supervisor(A + B)
    world.take(after)
    assert forces(after) == {"comp0": ["a", "b"], "comp1": ["a", "b"]}
    assert min(one.serial for one in after.rules.kept) >= serial
    assert "replace" in world.log[-1]["event"]
    none = world.supervisor("")
    world.take(none)
    assert forces(none) == {"comp0": [], "comp1": []}


@pytest.mark.parametrize("taken", [(), ("comp0",)])
def test_a_supervisor_that_died_between_two_compares_is_mended(world: World, taken: tuple[str, ...]) -> None:
    """The newer set becomes that of both, also where a compare had not taken it yet."""
    book = world.supervisor(A)
    made = book.rules.added("new", next(iter(book.rules.kept)).rule)
    area = book.areas["comp0"]
    area.write(made.words("comp0", made.text(book.digest, book.revision + 1)), area.written + 1)
    if taken:
        world.take(book, *taken)
    after = world.supervisor(A)
    world.take(after)
    assert forces(after) == {"comp0": ["a", "new"], "comp1": ["a", "new"]}


def test_a_supervisor_that_died_while_it_wrote_has_changed_nothing(world: World) -> None:
    """Half a copy that was never announced is not read."""
    book = world.supervisor(A)
    area = book.areas["comp0"]
    at = area.at + L.COPIES + L.COPY_WORDS
    area.segment.w[at : at + L.COPY_WORDS // 2] = 0x5A5A5A
    assert world.supervisor(A).listed() == book.listed()
    assert forces(book)["comp0"] == ["a"]


def test_a_text_that_cannot_be_read_gives_way_to_the_config(world: World) -> None:
    """With a line that says so."""
    book = world.supervisor(A)
    area = book.areas["comp1"]
    area.segment.w[area.at + L.COPIES + L.COPY_TEXT] = -1
    after = world.supervisor(A + B)
    world.take(after)
    assert "cannot be read" in world.log[0]["event"]
    assert forces(after) == {"comp0": ["a", "b"], "comp1": ["a", "b"]}


def test_a_rule_that_leaves_nothing_to_compare_is_logged_at_the_start_and_when_it_is_added(world: World) -> None:
    """By name, and whoever added it is told; by the next supervisor, too.  It is in force all the same."""
    everything = '[rule.all]\naction = "pass"\n'
    book = world.supervisor(A + everything)
    [line] = world.log
    assert (line["event"], line["rule"]) == ("a rule leaves nothing to compare", "all")
    assert "every packet that no rule before it takes" in line["what"]
    world.log.clear()
    later = world.ask(book, what="add", name="blind", table={"action": "mask", "regex": ".*"}, before="a")
    assert later.done() is None
    assert [one["event"] for one in world.log] == ["rule added", "a rule leaves nothing to compare"]
    world.take(book)
    reply = later.done()
    assert reply["ok"] and reply["warning"].startswith("rule.blind: it masks every byte but 0x0a in every packet")
    assert forces(book)["comp0"] == ["blind", "a", "all"]
    world.log.clear()
    world.supervisor(A + everything)
    assert [one.get("rule") for one in world.log] == [None, "blind", "all"]


def test_a_pipeline_without_a_compare_has_no_rules() -> None:
    """Nothing to write, nothing to wait for; a rule is refused."""
    net = '[pipeline]\nname = "t"\nruntime_dir = "/run/colo"\n[netdev.hn0]\n'
    graph = plan(parse(net, path="/nowhere/config.toml"))
    book = Rulebook([], graph.config.annexes["rule"], structlog.get_logger(), taken_over=True)
    assert book.listed() == []
    with pytest.raises(Refused, match=r"a \[compare.ID\]"):
        book.command({"what": "add", "name": "x", "table": PASS}, [], lambda: None)
