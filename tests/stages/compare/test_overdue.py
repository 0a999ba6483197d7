"""A checkpoint that is asked for and not made: how long it is waited for, and how the connections go on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ring import layout
from stages.compare.kind import KIND
from stages.compare.layout import arming, options, scalars, slots
from stages.kind import Look
from tests.packets import udp_frame
from tests.rig import Rig
from tests.stages.compare.audit import audit
from tests.stages.compare.test_compare import ASK, CLIENT, DONE, MS, SERVER, check, handshake, rig, seg

S = 1000 * MS
LEFT = 2  # C_LINK of notify_out: somebody was there, and has gone


def frame_is(g: Rig, link: int, now: int) -> None:
    """Somebody joins at notify_dev (odd), or leaves it."""
    g.rings["notify_out"].w[layout.C_LINK] = link
    g.run(now=now)


def differ(g: Rig, port: int, now: int, at: int = 1001) -> bytes:
    """Both sides say something else on a connection; what the primary said."""
    said = seg(at, b"primary", port=port)
    g.feed("primary_in", said)
    g.feed("secondary_in", seg(at, b"another", port=port))
    g.run(now=now)
    return said


def agree(g: Rig, port: int, now: int) -> None:
    """A new connection is compared: nothing leaves before both have said it."""
    handshake(g, port=port, now=now)
    said = seg(1001, b"both", port=port)
    g.feed("primary_in", said)
    g.run(now=now)
    assert g.take("outdev") == []
    g.feed("secondary_in", said)
    g.run(now=now)
    assert g.take("outdev") == [said]


def shown(g: Rig, now: int, *, view: bool = False) -> str:
    """What `status` says of it, or the live ``view``."""
    it = KIND.shows(Look(g.params, g.counters(), g.segment.scalars(), now))
    return it.short if view else it.long


def test_where_nobody_is_joined_what_waits_goes_on_after_the_bound_and_the_rest_is_compared() -> None:
    """As with checkpoint = "local", until a checkpoint is made."""
    with rig() as g, capture_logs() as lines:
        frame_is(g, LEFT, 2)
        for port in (4000, 4001):
            handshake(g, port=port, now=2)
        held = differ(g, 4000, 1 * S)
        datagram = udp_frame(SERVER, CLIENT, 53, 9, b"one")
        g.feed("primary_in", datagram)
        g.feed("secondary_in", udp_frame(SERVER, CLIENT, 53, 9, b"two"))
        g.run(now=1 * S + 60 * MS)
        assert g.stage.next_deadline(5 * S) == 11 * S  # type: ignore[attr-defined]
        assert shown(g, 8 * S) == "has waited 7 s for a checkpoint; nobody is joined"
        assert shown(g, 8 * S, view=True) == "waits 7 s for a checkpoint, nobody joined"
        g.run(now=11 * S - 1)
        assert g.take("outdev") == []
        g.run(now=11 * S)
        assert g.take("outdev") == [held, datagram]
        c = check(g)
        assert (c["checkpoints_given_up"], c["held"], c["divergences"], c["checkpoints_asked"]) == (1, 0, 2, 1)
        assert shown(g, 12 * S).endswith("nobody is joined; connections that differ go on uncompared")
        # That connection goes on, the datagrams of that one and all others are compared.
        more = seg(1008, b"alone", port=4000)
        g.feed("primary_in", more)
        g.run(now=12 * S)
        assert g.take("outdev") == [more]
        agree(g, 4002, 12 * S)
        late = differ(g, 4001, 13 * S)
        assert g.take("outdev") == [late]  # what differs from now on waits for nothing
        for side in ("primary_in", "secondary_in"):
            g.feed(side, datagram)
            g.run(now=14 * S)
        assert g.take("outdev") == [datagram] and check(g)["held"] == 0
        audit(g)
    told = [line["event"] for line in lines]
    assert told.count("a checkpoint is asked for, but nobody is joined who could make it") == 1
    assert told.count("no checkpoint: what waits goes on uncompared until one is made") == 1


def test_whoever_joins_then_is_asked_and_with_the_checkpoint_everything_is_compared_again() -> None:
    with rig() as g:
        frame_is(g, LEFT, 2)
        handshake(g, now=2)
        differ(g, 4000, 1 * S)
        for second in range(2, 40):
            g.run(now=second * S)
        g.take("outdev")
        frame_is(g, 3, 40 * S)
        g.run(now=43 * S - 1)
        assert g.take("notify_out") == [ASK]  # one lay there for whoever comes, however long nobody did
        frame_is(g, 4, 43 * S)  # it has gone with it
        frame_is(g, 5, 44 * S)
        assert g.take("notify_out") == [ASK]
        g.feed("notify_in", DONE)
        g.run(now=45 * S)
        assert shown(g, 46 * S) == ""
        said = seg(1008, b"again")
        g.feed("primary_in", said)
        g.run(now=46 * S)
        assert g.take("outdev") == []
        g.feed("secondary_in", said)
        g.run(now=46 * S)
        assert g.take("outdev") == [said] and check(g)["divergences"] == 1


def test_a_frame_that_is_joined_and_slow_is_not_overtaken() -> None:
    """By default; it is asked again, and said to be slow.  A datagram waits as well."""
    with rig() as g:
        handshake(g, now=2)
        held = differ(g, 4000, 1 * S)
        assert shown(g, 3 * S) == ""
        for second in range(2, 3600):
            g.run(now=second * S)
        assert g.take("outdev") == [] and check(g)["checkpoints_given_up"] == 0
        assert shown(g, 3600 * S) == "has waited 3,599 s for a checkpoint; the frame at notify_dev does not answer"
        assert shown(g, 3600 * S, view=True) == "waits 3,599 s for a checkpoint, no answer"
        g.feed("notify_in", DONE)
        g.run(now=3600 * S)
        assert g.take("outdev") == [held]


def test_the_bound_begins_when_the_frame_has_left() -> None:
    """It may have been about to make the checkpoint; and one that comes back in time has all the time it wants."""
    with rig() as g:
        handshake(g, now=2)
        held = differ(g, 4000, 1 * S)
        for second in range(2, 30):
            g.run(now=second * S)
        frame_is(g, 2, 30 * S)
        g.run(now=39 * S)
        frame_is(g, 3, 39 * S)
        for second in range(40, 60):
            g.run(now=second * S)
        assert g.take("outdev") == []
        frame_is(g, 4, 60 * S)
        g.run(now=70 * S - 1)
        assert g.take("outdev") == []
        g.run(now=70 * S)
        assert g.take("outdev") == [held]


@pytest.mark.parametrize(("overdue", "joined", "leaves"), [("wait", False, False), ("pass", True, True)])
def test_what_the_config_says_of_an_overdue_checkpoint_holds(overdue: str, joined: bool, leaves: bool) -> None:
    """For ever, as in QEMU; or after the bound whoever is there."""
    with rig(checkpoint_overdue=overdue, checkpoint_timeout=5_000) as g:
        frame_is(g, 3 if joined else LEFT, 2)
        handshake(g, now=2)
        held = differ(g, 4000, 1 * S)
        g.run(now=6 * S - 1)
        assert g.take("outdev") == []
        for second in range(6, 100):
            g.run(now=second * S)
        assert g.take("outdev") == ([held] if leaves else [])
        assert check(g)["checkpoints_given_up"] == int(leaves)


def test_packets_that_nobody_has_answered_leave_too() -> None:
    """Timeouts: the first is the difference that asks; each connection's own comes with the end of the wait."""
    with rig(silence_timeout=0) as g:
        frame_is(g, LEFT, 2)
        for port in (4000, 4001, 4002):
            handshake(g, port=port, now=2)
        said = [seg(1001, b"%d" % port, port=port) for port in (4000, 4001, 4002)]
        g.feed("primary_in", *said)
        g.feed("secondary_in", udp_frame(SERVER, CLIENT, 53, 9, b"it lives"))
        g.run(now=1 * S)
        g.run(now=4 * S)
        assert check(g)["diverged_timeout"] == 1
        g.run(now=14 * S)
        assert g.take("outdev") == said
        c = check(g)
        assert (c["held"], c["diverged_timeout"], c["checkpoints_given_up"]) == (0, 5, 1)
        audit(g)


def test_queues_that_are_full_on_both_sides_are_given_up_too() -> None:
    """Both inputs wait for one another: without a checkpoint only time helps, and it does."""
    with rig(max_queue_size=2, silence_timeout=0) as g:
        frame_is(g, LEFT, 2)
        handshake(g, now=2)
        mine = [udp_frame(SERVER, CLIENT, 53, 9, b"p%d" % i) for i in range(6)]
        g.feed("primary_in", *mine)
        g.feed("secondary_in", *[udp_frame(SERVER, CLIENT, 53, 9, b"s%d" % i) for i in range(6)])
        got = []
        for second in range(1, 60):
            g.run(now=second * S)
            got += g.take("outdev")
        assert got == mine and check(g)["held"] == 0
        audit(g)


def test_a_missing_notify_dev_is_said_before_anything_starts() -> None:
    """With what comes of it, and the mend."""
    table = KIND.config(primary_in="p", secondary_in="s", outdev="o")
    (doubt,) = KIND.doubts(table)
    assert doubt.key == "notify_dev" and "waits 10 s for one, and goes on uncompared" in doubt.what
    for mend in ("notify_dev", 'checkpoint = "local"', "control NAME checkpoint"):
        assert mend in doubt.mend
    ends = {"primary_in": "p", "secondary_in": "s", "outdev": "o"}
    assert "for ever" in next(iter(KIND.doubts(KIND.config(**ends, checkpoint_overdue="wait")))).what
    assert list(KIND.doubts(KIND.config(**ends, notify_dev="n"))) == []
    assert list(KIND.doubts(KIND.config(**ends, checkpoint="local"))) == []


STEPS = st.one_of(
    st.sampled_from(["join", "leave", "checkpoint", "restart", "cut", "link"]),
    st.tuples(st.sampled_from(["primary_in", "secondary_in"]), st.integers(0, 3), st.integers(0, 4), st.booleans()),
    st.integers(1, 8_000),
)


def _longest(g: Rig, now: int, since: int) -> int:
    """How long the packet of the primary that is held longest has waited, not counting the time before ``since``."""
    n = g.stage.scalar(scalars.OLDEST) - 1
    if n < 0:
        return 0
    x = int(g.stage.w[options.SLOTS]) + n * slots.WORDS
    return now - max(int(g.stage.w[x + slots.TIME]), since)


@pytest.mark.parametrize("more", [{}, {"silence_timeout": 0}, {"checkpoint_timeout": 500}, {"checkpoint": "local"}])
@given(steps=st.lists(STEPS, min_size=5, max_size=40))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_whatever_happens_nothing_waits_longer_than_the_bound(more: dict[str, Any], steps: list[Any]) -> None:
    """Where nobody is joined.  The process is awake at the times that it has named, and at no other but for packets."""
    with rig(**more) as g:
        now, left, link = S, S, LEFT
        frame_is(g, link, now)
        bound = max(int(g.params["checkpoint_timeout"]), 3000) * MS + 3000 * MS
        for port in (4000, 4001):
            handshake(g, port=port, now=now)
        for step in steps:
            if step == "join":
                link += 1 - link % 2
            elif step == "leave":
                left, link = (now, link + 1) if link % 2 else (left, link)
            elif step == "checkpoint":
                g.feed("notify_in", DONE)
            elif step == "restart":
                g.restart()
            elif step in ("cut", "link"):
                word = int(g.rings["secondary_in"].w[layout.P_LINK])
                g.rings["secondary_in"].w[layout.P_LINK] = word + int((word % 2 == 1) == (step == "cut"))
            elif isinstance(step, int):
                until = now + step * MS
                while (at := g.stage.next_deadline(now)) and at <= until:  # type: ignore[attr-defined]
                    now = at
                    g.run(now=now)
                    if link % 2 == 0:
                        assert _longest(g, now, left) <= bound
                now = until
            else:
                side, n, at, tcp = step
                said = b"%d" % n
                port = 4000 + n % 2
                g.feed(side, seg(1001 + at, said, port=port) if tcp else udp_frame(SERVER, CLIENT, 53, port, said))
            frame_is(g, link, now)
            if link % 2 == 0:
                assert _longest(g, now, left) <= bound
            assert check(g)["arming_state"] in range(len(arming.NAMES))
            g.take("outdev")
            g.take("notify_out")
            audit(g)
