"""colo-compare without a secondary, before one is in step, and after it was lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring import layout
from stages.compare.layout import arming, events, options, reasons, scalars
from tests.packets import ACK, SYN, arp_frame, udp_frame
from tests.rig import Rig
from tests.stages.compare.audit import audit
from tests.stages.compare.test_compare import ASK, CLIENT, DONE, MS, PARAMS, SERVER, check, handshake, seg
from tests.tunnels import vxlan

DATAGRAM = udp_frame(SERVER, CLIENT, 53, 9, b"answer")


def rig(link: int = 0, **params: Any) -> Rig:
    """A compare whose link to the secondary is in the state ``link`` (odd: up) when it looks first."""
    made = Rig("colo-compare", PARAMS | params)
    made.rings["secondary_in"].w[layout.P_LINK] = link
    made.run(now=1)
    return made


def link(g: Rig, value: int, now: int) -> None:
    g.rings["secondary_in"].w[layout.P_LINK] = value
    g.run(now=now)


def state(g: Rig) -> int:
    return check(g)["arming_state"]


def test_every_pair_of_states_is_allowed_or_prohibited_with_a_reason() -> None:
    pairs = {(a, b) for a in range(len(arming.NAMES)) for b in range(len(arming.NAMES)) if a != b}
    assert not set(arming.MOVES) & set(arming.PROHIBITED)
    assert set(arming.MOVES) | set(arming.PROHIBITED) == pairs


def test_without_a_secondary_the_primarys_packets_leave_at_once() -> None:
    with rig() as g:
        frames = [seg(1000, flags=SYN | ACK), seg(1001, b"data"), DATAGRAM, arp_frame(SERVER, CLIENT)]
        g.feed("primary_in", *frames)
        g.run(now=2)
        assert g.take("outdev") == frames
        c = check(g)
        assert (c["released_unarmed"], c["released_uncompared"], c["held"], c["arming_state"]) == (
            3,
            1,
            0,
            arming.ABSENT,
        )
        assert g.take("notify_out") == []


def test_a_secondary_that_was_there_first_is_compared_from_the_start() -> None:
    with rig() as g:
        g.feed("primary_in", arp_frame(SERVER, CLIENT))  # says nothing that a secondary could miss
        g.run(now=2)
        link(g, 1, 3)
        assert state(g) == arming.IN_STEP
        g.feed("primary_in", DATAGRAM)
        g.run(now=4)
        assert check(g)["held_primary"] == 1


def test_a_secondary_that_comes_late_is_compared_after_a_checkpoint() -> None:
    with rig() as g:
        g.feed("primary_in", seg(1000, flags=SYN | ACK), seg(1001, b"alone"))
        g.run(now=2)
        g.take("outdev")
        link(g, 1, 3)
        assert state(g) == arming.ARMING and g.take("notify_out") == [ASK]
        g.feed("secondary_in", seg(77, b"means nothing"))
        g.feed("primary_in", seg(1006, b" still"))
        g.run(now=4)
        assert g.take("outdev") == [seg(1006, b" still")]
        assert check(g)["dropped_unarmed"] == 1
        g.feed("notify_in", DONE)
        g.run(now=5)
        assert state(g) == arming.IN_STEP
        # The stream goes on where the primary was when it was copied.
        g.feed("primary_in", seg(1012, b" both"))
        g.run(now=6)
        assert g.take("outdev") == [] and check(g)["held_primary"] == 1
        g.feed("secondary_in", seg(1006, b" still both"))
        g.run(now=7)
        assert g.take("outdev") == [seg(1012, b" both")]
        assert check(g)["divergences"] == 0


def test_tunnels_that_pass_are_something_that_a_late_secondary_has_missed() -> None:
    with rig(tunnels="pass") as g:
        frame = vxlan(udp_frame(SERVER, CLIENT, 53, 9, b"x"), vni=1)
        g.feed("primary_in", frame)
        g.run(now=2)
        assert g.take("outdev") == [frame]
        link(g, 1, 3)
        assert state(g) == arming.ARMING and g.take("notify_out") == [ASK]


def test_what_waits_for_a_lost_secondary_leaves_and_it_is_compared_again_after_a_checkpoint() -> None:
    with rig(1) as g:
        handshake(g, now=2)
        g.feed("primary_in", seg(1001, b"waits"), DATAGRAM)
        g.feed("secondary_in", seg(1011, b"too far"))
        g.run(now=3)
        assert g.take("outdev") == []
        link(g, 2, 4)
        assert g.take("outdev") == [seg(1001, b"waits"), DATAGRAM]
        c = check(g)
        assert (c["held"], c["released_unarmed"], c["dropped_unarmed"], state(g)) == (0, 2, 1, arming.LOST)
        assert g.take("notify_out") == [ASK]
        g.feed("notify_in", DONE)  # of a checkpoint that this secondary did not take part in
        g.run(now=5)
        assert state(g) == arming.LOST
        link(g, 3, 100 * MS)
        assert state(g) == arming.ARMING and g.take("notify_out") == [ASK]
        g.feed("primary_in", seg(1006, b"alone"))
        g.run(now=101 * MS)
        g.feed("notify_in", DONE)
        g.run(now=102 * MS)
        assert state(g) == arming.IN_STEP and g.take("outdev") == [seg(1006, b"alone")]
        for side in ("primary_in", "secondary_in"):
            g.feed(side, seg(1011, b"together"))
        g.run(now=103 * MS)
        assert g.take("outdev") == [seg(1011, b"together")] and check(g)["divergences"] == 0


def test_nobody_is_asked_again_while_the_secondary_is_gone() -> None:
    with rig(1) as g:
        link(g, 2, 2)
        assert g.take("notify_out") == [ASK]
        for now in range(1000, 20_000, 1000):
            g.run(now=now * MS)
        assert g.take("notify_out") == []


def test_a_message_that_waits_while_the_link_goes_and_comes_makes_no_copy() -> None:
    """Which was first cannot be told: the checkpoint that is asked for after the loss is the one that counts."""
    with rig(1) as g:
        handshake(g, now=2)
        g.feed("notify_in", DONE)
        link(g, 3, 100 * MS)
        assert state(g) == arming.ARMING and check(g)["checkpoints"] == 1
        g.run(now=200 * MS)
        assert g.take("notify_out") == [ASK]
        g.feed("notify_in", DONE)
        g.run(now=201 * MS)
        assert state(g) == arming.IN_STEP


def test_nobody_is_asked_again_before_a_secondary_was_there() -> None:
    """The primary's link was lost: one request, for whoever may hear it."""
    with rig() as g:
        g.rings["primary_in"].w[layout.P_LINK] = 2
        for now in range(1000, 20_000, 1000):
            g.run(now=now * MS)
        assert g.take("notify_out") == [ASK] and state(g) == arming.ABSENT


def test_local_checkpoints_compare_what_begins_after_the_secondary_came() -> None:
    with rig(checkpoint="local") as g:
        g.feed("primary_in", seg(1000, flags=SYN | ACK), seg(1001, b"old"))
        g.run(now=2)
        g.take("outdev")
        link(g, 1, 3)
        assert state(g) == arming.IN_STEP
        g.feed("primary_in", seg(1004, b"goes on"))
        g.feed("secondary_in", seg(1004, b"other"))
        g.run(now=4)
        assert g.take("outdev") == [seg(1004, b"goes on")] and check(g)["divergences"] == 0
        handshake(g, port=4001, now=5)
        g.feed("primary_in", seg(1001, b"new", port=4001))
        g.run(now=6)
        assert g.take("outdev") == [] and check(g)["held_primary"] == 1
        g.feed("secondary_in", seg(1001, b"not", port=4001))
        g.run(now=7)
        assert check(g)["divergences"] == 1 and g.take("outdev") == [seg(1001, b"new", port=4001)]
        # The same client's ports again: a new connection, compared.
        handshake(g, isn=9000, other=5, now=8)
        g.feed("primary_in", seg(9001, b"again"))
        g.run(now=9)
        assert g.take("outdev") == [] and check(g)["held_primary"] == 1


def test_failover_lets_everything_go() -> None:
    """Announced on the primary's side: the secondary is gone, whatever its link says."""
    with rig(1) as g:
        handshake(g, now=2)
        g.feed("primary_in", seg(1001, b"waits"))
        g.run(now=3)
        g.command(layout.CMD_FAILOVER, 1)
        g.run(now=4)
        assert g.take("outdev") == [seg(1001, b"waits")] and state(g) == arming.LOST
        g.command(layout.CMD_CHECKPOINT, 1)  # there is one again
        g.run(now=5)
        assert state(g) == arming.IN_STEP


def test_a_full_table_does_not_hold_a_lone_primary() -> None:
    with rig(max_connections=2) as g:
        frames = [udp_frame(SERVER, CLIENT, 53, 9 + i, b"x") for i in range(50)]
        g.feed("primary_in", *frames)
        g.run(now=2)
        assert g.take("outdev") == frames


STEPS = st.one_of(
    st.sampled_from(["cut", "join", "flap", "checkpoint", "failover", "restart", "wait", "frame"]),
    st.tuples(st.sampled_from(["primary_in", "secondary_in"]), st.integers(0, 5), st.booleans()),
)


@pytest.mark.parametrize("checkpoint", ["frame", "local"])
@given(steps=st.lists(STEPS, max_size=30))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_whatever_happens_only_allowed_moves_and_the_books_balance(checkpoint: str, steps: list[Any]) -> None:
    """Links, checkpoints, failovers, packets and silence in any order; each burst's moves are in the table."""
    with rig(checkpoint=checkpoint, checkpoint_timeout=4_000, silence_timeout=5_000) as g:
        now, seen, before = 1, 0, arming.ABSENT
        words = g.rings["secondary_in"].w
        for step in steps:
            now += 30 * MS
            if step == "cut":
                words[layout.P_LINK] += int(words[layout.P_LINK]) & 1
            elif step == "join":
                words[layout.P_LINK] += 1 - (int(words[layout.P_LINK]) & 1)
            elif step == "flap":
                words[layout.P_LINK] += 2
            elif step == "checkpoint":
                g.command(layout.CMD_CHECKPOINT, int(g.stage.w[layout.CMD_CHECKPOINT]) + 1)
            elif step == "failover":
                g.command(layout.CMD_FAILOVER, int(g.stage.w[layout.CMD_FAILOVER]) + 1)
            elif step == "restart":
                g.restart()
            elif step == "wait":
                now += 2_500 * MS
            elif step == "frame":
                g.rings["notify_out"].w[layout.C_LINK] += 1
            else:
                port, n, syn = step
                g.feed(port, seg(1000, flags=SYN | ACK) if syn else seg(1001 + 3 * n, b"abc"))
            g.run(now=now)
            written = g.stage.scalar(scalars.EVENTS)
            for i in range(max(seen, written - events.COUNT), written):
                e = int(g.stage.w[options.EVENTS]) + i % events.COUNT * events.WORDS
                if g.stage.w[e + events.REASON] == reasons.ARMING:
                    after = int(g.stage.w[e + events.POSITION])
                    assert (before, after) in arming.MOVES
                    before = after
            seen = written
            assert state(g) == before
            assert before == arming.IN_STEP or g.counters()["held"] == 0
            audit(g)


def offer(g: Rig, value: int, now: int) -> None:
    """Somebody connects as the secondary (or leaves), who has not said anything."""
    g.rings["secondary_in"].w[layout.P_OFFERED] = value
    g.run(now=now)


def speaks(g: Rig, up: int, now: int) -> None:
    """Who was offered sends a first byte."""
    g.rings["secondary_in"].w[layout.P_LINK] = up
    offer(g, 0, now)


def test_the_primarys_first_packet_waits_for_the_first_word_of_who_is_connected() -> None:
    """A secondary speaks after the primary: it has missed nothing, so it is in step from its first word on."""
    with rig() as g:
        offer(g, 1, 2)
        g.feed("primary_in", arp_frame(SERVER, CLIENT), DATAGRAM)
        g.run(now=3)
        assert g.take("outdev") == [arp_frame(SERVER, CLIENT)]
        assert state(g) == arming.ABSENT
        g.feed("secondary_in", DATAGRAM)
        speaks(g, 1, 4)
        assert g.take("outdev") == [DATAGRAM]
        assert (state(g), check(g)["matched"]) == (arming.IN_STEP, 1)


def test_who_never_speaks_costs_the_primary_one_timeout_and_changes_no_state() -> None:
    """Somebody who only looks, and stays."""
    with rig() as g:
        timeout = g.params["compare_timeout"] * MS
        offer(g, 1, 2)
        g.feed("primary_in", DATAGRAM)
        g.run(now=10)
        deadline = g.stage.next_deadline(10)  # type: ignore[attr-defined]
        assert deadline == 10 + timeout
        g.run(now=deadline - 1)
        assert g.take("outdev") == []
        g.run(now=deadline)
        g.feed("primary_in", DATAGRAM)
        g.run(now=deadline + 1)
        assert g.take("outdev") == [DATAGRAM, DATAGRAM]
        assert (state(g), check(g)["links_lost"], check(g)["checkpoints_asked"]) == (arming.ABSENT, 0, 0)
        assert g.take("notify_out") == []


def test_who_leaves_without_a_word_holds_nothing_any_more() -> None:
    """A look that is over."""
    with rig() as g:
        offer(g, 1, 2)
        g.feed("primary_in", DATAGRAM)
        g.run(now=3)
        offer(g, 0, 4)
        assert g.take("outdev") == [DATAGRAM]
        assert (state(g), check(g)["released_unarmed"]) == (arming.ABSENT, 1)


@pytest.mark.parametrize("stays", [True, False])
def test_a_checkpoint_with_a_silent_secondary_brings_it_into_step_with_its_first_word(stays: bool) -> None:
    """Lost, connected again, a checkpoint made before its guest says anything; unless that one leaves again."""
    with rig(link=1) as g:
        link(g, 2, 2)
        assert state(g) == arming.LOST
        g.take("notify_out")
        offer(g, 1, 3)
        g.command(layout.CMD_CHECKPOINT, 1)
        g.run(now=4)
        assert state(g) == arming.LOST
        if not stays:
            offer(g, 0, 5)
            offer(g, 1, 6)
        g.feed("primary_in", DATAGRAM)
        g.run(now=7)
        assert g.take("outdev") == ([] if stays else [DATAGRAM])
        speaks(g, 3, 8)
        assert state(g) == (arming.IN_STEP if stays else arming.ARMING)
