"""Rules of the compare, killed anywhere: taken over, classified by, masked with, counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ring import hot
from stages.compare.layout import options
from stages.compare.layout import rules as rule_words
from tests.crash.harness import NOW, Outcome, kill_at_every_store
from tests.packets import udp_frame
from tests.rig import Rig
from tests.stages.compare.audit import audit
from tests.stages.compare.test_compare import CLIENT, PARAMS, SERVER, handshake, seg
from tests.stages.compare.test_rules_compare import PASS_TCP, Rules

MASK = {"action": "mask", "protocol": "tcp", "regex": "a([bc]*)"}


def _rig() -> Rig:
    """A connection that is open, under a mask."""
    more = {"max_connections": 4, "max_queue_size": 8, "hold_memory": 1 << 16}
    rig = Rig("colo-compare", PARAMS | more, ring_size=1 << 14)
    rig.run(NOW - 10)
    return rig


def _masked(rig: Rig) -> None:
    """A mask begins in one segment and goes on in the next; the secondary's are cut elsewhere."""
    Rules(rig, m=MASK)
    handshake(rig, now=NOW - 10)
    rig.feed("primary_in", seg(1001, b"xab"), seg(1004, b"bbcy"), udp_frame(SERVER, CLIENT, 53, 1, b"u"))
    rig.feed("secondary_in", seg(1001, b"xabbc"), seg(1006, b"by"), udp_frame(SERVER, CLIENT, 53, 1, b"u"))


def _begins_to_pass(rig: Rig) -> None:
    """New rules while packets of both sides are held: they are let go."""
    rules = Rules(rig, m=MASK)
    handshake(rig, now=NOW - 10)
    rig.feed("primary_in", seg(1001, b"ab"), seg(1010, b"later"))
    rig.feed("secondary_in", seg(1020, b"much later"))
    rig.run(NOW - 10)
    rules.change(add={"web": PASS_TCP}, delete="m")
    rig.feed("primary_in", seg(1003, b"more"))
    rig.feed("secondary_in", seg(1003, b"none"))


def _ends_to_pass(rig: Rig) -> None:
    """The rule is deleted, and the connection compared again."""
    rules = Rules(rig, web=PASS_TCP)
    rig.run(NOW - 10)
    rig.feed("primary_in", seg(1001, b"one"))
    rig.run(NOW - 10)
    rig.take("outdev")
    rules.change(delete="web")
    rig.feed("primary_in", seg(1004, b"same"), seg(1008, b"waits"))
    rig.feed("secondary_in", seg(1004, b"same"))


@pytest.mark.parametrize("feed", [_masked, _begins_to_pass, _ends_to_pass])
def test_a_compare_killed_while_its_rules_change_loses_no_packet(feed: Callable[[Rig], None]) -> None:
    """Wherever kill -9 strikes: the same packets leave, every counter and hit is the same, the tables are sound."""
    hits: list[list[int]] = []

    def check(rig: Rig, outcome: Outcome) -> None:
        for balance in rig.kind.balances:
            counters = outcome.counters
            assert sum(counters[n] for n in balance.left) == sum(counters[n] for n in balance.right), balance.label
        audit(rig)
        at = int(rig.stage.w[options.RULES]) + rule_words.HITS
        hits.append([int(n) for n in rig.segment.w[at : at + 2 * (rule_words.RULES + 1)]])
        assert hits[-1] == hits[0]

    kills = kill_at_every_store(_rig, feed, check=check, stride=9 if hot.JIT else 7, tables=False)
    assert kills > 20
    assert any(hits[0])
