"""colo-compare: unfinished datagrams, deadlines, checkpoints, rules and limits where there are IP fragments."""

from __future__ import annotations

from typing import Any

import pytest

from ring import layout
from stages.compare.layout import options, rules
from stages.compare.rules.rule_set import RuleSet, from_table
from tests.packets import (
    ip_frame,
    udp,
    udp_frame,
)
from tests.stages.compare.audit import audit
from tests.stages.compare.fragment_scenes import V4, V6, body, cut, even, primary, secondary, settled, step
from tests.stages.compare.test_compare import ASK, DONE, MS, check, rig

BOTH = pytest.mark.parametrize("pair", [V4, V6], ids=["v4", "v6"])


# --- missing fragments, deadlines, checkpoints ----------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("side", ["primary_in", "secondary_in"])
def test_a_missing_fragment_is_a_difference_after_the_timeout(pair: tuple[str, str], side: str) -> None:
    """The deadline is that of the first fragment; the group is one held packet."""
    a, _, c = even(pair, body(2400, pair=pair), 800)
    with rig() as g:
        assert step(g, side, a, now=1) == []
        assert step(g, side, c, now=2900 * MS) == []
        g.run(now=2999 * MS)
        assert check(g)["divergences"] == 0
        g.run(now=3001 * MS)
        assert check(g)["diverged_timeout"] == check(g)["divergences"] == 1
        assert g.take("notify_out") == [ASK]
        g.command(layout.CMD_CHECKPOINT, 1)
        g.run(now=3002 * MS)
        assert g.take("outdev") == ([a, c] if side == "primary_in" else [])
        counters = check(g)
        assert (counters["released_at_checkpoint"], counters["dropped_at_checkpoint"]) == (
            (2, 0) if side == "primary_in" else (0, 2)
        )
        audit(g)


@BOTH
def test_the_rest_of_a_datagram_follows_what_a_checkpoint_settled(pair: tuple[str, str]) -> None:
    """The secondary is a copy now and sends that rest as well; neither waits for a deadline."""
    a, b, c = even(pair, body(2400, pair=pair), 800)
    with rig() as g:
        primary(g, a)
        g.feed("notify_in", DONE)
        g.run(now=5)
        assert g.take("outdev") == [a]
        assert primary(g, b, c, now=6) == [b, c]
        assert secondary(g, b, c, now=7) == []
        counters = check(g)
        assert (counters["released_at_checkpoint"], counters["dropped_at_checkpoint"], counters["held"]) == (3, 2, 0)
        # A first fragment with that identification begins another datagram, and that one is compared.
        assert primary(g, a, b, c, now=8) == []
        assert secondary(g, a, b, c, now=9) == [a, b, c]
        # And the memory ends with the timeout.
        assert primary(g, b, now=3006 * MS) == []


def test_a_datagram_put_together_is_held_and_settled_like_any_other() -> None:
    """Its time begins when it is whole; a checkpoint releases its fragments."""
    mine = even(V4, body(2400), 800)
    with rig() as g:
        primary(g, *mine[:2], now=1)
        primary(g, mine[2], now=2000 * MS)
        g.run(now=3100 * MS)
        assert check(g)["divergences"] == 0
        g.run(now=5001 * MS)
        assert check(g)["diverged_timeout"] == 1
        g.feed("notify_in", DONE)
        g.run(now=5002 * MS)
        assert g.take("outdev") == mine
        assert check(g)["held"] == 0


def test_in_local_mode_a_group_is_given_up_alone() -> None:
    """Its fragments leave, or are dropped; the conversation is compared on; late ones follow."""
    a, b, c = even(V4, body(2400), 800)
    with rig(checkpoint="local") as g:
        primary(g, a, b)
        secondary(g, c, now=2)
        g.run(now=3001 * MS)
        assert g.take("outdev") == [a, b]
        counters = check(g)
        assert (counters["diverged_timeout"], counters["released"], counters["dropped_diverged"]) == (2, 2, 1)
        audit(g)
        assert primary(g, c, now=3002 * MS) == [c]
        assert secondary(g, b, now=3002 * MS) == []
        mine, theirs = even(V4, body(2400), 800, 8), even(V4, body(2400), 1200, 9)
        assert primary(g, *mine, now=3003 * MS) == [] and secondary(g, *theirs, now=3003 * MS) == mine
        assert check(g)["held"] == 0


def test_in_local_mode_datagrams_that_differ_are_given_up_with_all_their_fragments() -> None:
    """The primary's leave, the secondary's are dropped."""
    mine, theirs = even(V4, body(2400), 800), even(V4, body(2400, seed=1), 800)
    with rig(checkpoint="local") as g:
        primary(g, *mine)
        secondary(g, *theirs)
        g.run(now=60 * MS)
        assert g.take("outdev") == mine
        counters = check(g)
        assert (counters["diverged_order"], counters["released"], counters["dropped_diverged"]) == (1, 3, 3)
        audit(g)


@pytest.mark.parametrize("action", ["pass", "mask"])
def test_a_rule_sees_the_datagram_not_its_fragments(action: str) -> None:
    """By its ports: it passes with all its fragments, or bytes of it are forgiven."""
    rule = {"action": action, "protocol": "udp", "source_port": "53"} | ({"bytes": "2000"} if action == "mask" else {})
    with rig() as g:
        change = int(g.stage.w[layout.CMD_RULES]) + 1
        at = int(g.stage.w[options.RULES]) + rules.COPIES + (change & 1) * rules.COPY_WORDS
        words = RuleSet().added("dns", from_table("dns", rule, ["it"])[0]).words("it")
        g.stage.w[at : at + len(words)] = words
        g.command(layout.CMD_RULES, change)
        mine = even(V4, body(2400), 800)
        whole = bytearray(body(2400))
        whole[2008] ^= 0xFF
        theirs = even(V4, udp(*V4, 53, 9, bytes(whole[8:])), 1200)
        out = primary(g, *mine)
        assert out == (mine if action == "pass" else [])
        assert secondary(g, *theirs) == ([] if action == "pass" else mine)
        c = check(g)
        assert c["held"] == 0 and c["divergences"] == 0
        if action == "pass":
            assert (c["released_by_rule"], c["dropped_by_rule"]) == (3, 2)
        else:
            assert (c["released"], c["matched"], c["masked"]) == (3, 2, 1)


# --- limits -----------------------------------------------------------------------------------------------------
def test_max_queue_size_counts_datagrams() -> None:
    """However they are cut; the fragment that would make one too many waits, and goes on when there is room."""
    groups = [even(V4, body(1000, seed=i), 200, i) for i in range(4)]
    with rig(max_queue_size=2) as g:
        assert primary(g, *groups[0], *groups[1]) == []
        assert primary(g, *groups[2]) == []
        c = check(g)
        assert c["held"] == 14 and c["fragments"] == 10 and g.rings["primary_in"].used > 0
        assert secondary(g, *groups[0]) == groups[0]
        assert secondary(g, *groups[1], *groups[2]) == groups[1] + groups[2]
        assert check(g)["held"] == 0
        # Unfinished ones, too; but what belongs to one of them is always taken.
        assert primary(g, groups[0][0], groups[1][0], groups[2][0], groups[0][1]) == []
        assert check(g)["held"] == 2
        assert secondary(g, *groups[0]) == []
        g.run(now=3001 * MS)
        g.feed("notify_in", DONE)
        g.run(now=3002 * MS)
        g.run(now=3003 * MS)
        assert check(g)["held_primary"] <= 2


def test_no_slot_for_the_whole_datagram_is_back_pressure() -> None:
    """The last fragment waits in the ring until the secondary's packets make room."""
    wholes = [body(30_000, seed=i) for i in range(6)]  # four places of that size
    with rig(hold_memory=1 << 20, ring_size=1 << 19) as g:
        groups = [even(V4, whole, 1480, i) for i, whole in enumerate(wholes)]
        for group in groups:
            assert primary(g, *group) == []
        c = check(g)
        assert c["fragments"] == 4 * len(groups[0]) and g.rings["primary_in"].used > 0
        out: list[bytes] = []
        for group in groups:
            out += secondary(g, *group)
        g.run(now=2)
        out += g.take("outdev")
        assert out == [f for group in groups for f in group]
        assert check(g)["held"] == 0
        audit(g)


def test_want_of_room_in_outdev() -> None:
    """All fragments of a datagram leave at once or none does."""
    whole = body(10_000)
    mine = even(V4, whole, 1480)
    with rig(ring_size=1 << 14) as g:
        filler = udp_frame(*V4, 5, 5, bytes(1400))
        for _ in range(8):
            g.feed("primary_in", filler)
            g.feed("secondary_in", filler)
            g.run(now=1)
        g.feed("primary_in", *mine)
        g.run(now=1)
        g.feed("secondary_in", *mine)
        g.run(now=1)
        audit(g)
        assert check(g)["held_primary"] == len(mine)
        assert g.take("outdev") == [filler] * 8
        g.run(now=1)
        assert g.take("outdev") == mine
        assert check(g)["held"] == 0
        audit(g)


def test_rows_of_fragments_are_evicted_like_others() -> None:
    """A full table: idle rows make room, rows with unfinished datagrams stay."""
    with rig(max_connections=4) as g:
        keep = even(("10.0.0.2", "10.0.9.9"), body(1600), 800)
        assert primary(g, keep[0]) == []
        for i in range(20):
            pair = ("10.0.0.2", f"10.0.1.{i + 1}")
            mine = even(pair, body(1600, pair=pair), 800)
            assert primary(g, *mine) == []
            assert secondary(g, *mine) == mine
        assert primary(g, keep[1]) == [] and secondary(g, *keep) == keep
        assert check(g)["held"] == 0 and check(g)["connections"] == 4


def test_a_restart_between_any_two_bursts() -> None:
    """A new incarnation goes on with unfinished and with held datagrams."""
    whole = body(2400)
    mine, theirs = even(V4, whole, 800), even(V4, whole, 1200, 3)
    arrivals: list[tuple[str, bytes]] = [
        ("primary_in", mine[0]), ("secondary_in", theirs[1]), ("primary_in", mine[2]), ("primary_in", mine[1]),
        ("secondary_in", theirs[0]),
    ]  # fmt: skip
    with rig() as g:
        out: list[bytes] = []
        for port, frame in arrivals:
            g.restart()
            out += step(g, port, frame)
        assert out == [mine[0], mine[2], mine[1]]
        settled(g, 3, 2)


def test_ports_word_of_a_fragment_is_no_other_conversation() -> None:
    """Fragments of a protocol without ports, and whole packets of it, have rows of their own."""
    packet = ip_frame(*V4, 99, b"abc")
    mine: list[Any] = cut(V4, bytes(40), [16], proto=99)
    with rig() as g:
        assert primary(g, mine[0], packet) == []
        assert secondary(g, packet) == [packet]
        assert primary(g, mine[1]) == []
        assert secondary(g, *mine) == mine
        assert secondary(g, udp_frame(*V4, 0, 0, udp(*V4, 1, 1))) == []
        g.run(now=100 * MS)
        assert check(g)["divergences"] == 0
