"""A secondary whose link is up and that answers nothing: when it is out of step, and how it comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ring import layout
from stages.compare.layout import arming, scalars
from tests.packets import ACK, SYN, arp_frame, fragments, icmpv6, udp, udp_frame
from tests.rig import Rig
from tests.stages.compare.audit import audit
from tests.stages.compare.test_compare import ASK, CLIENT, DONE, MS, SERVER, check, handshake, rig, seg
from tests.stages.compare.test_overdue import shown

S = 1000 * MS
BOTH = pytest.mark.parametrize("checkpoint", ["local", "frame"])


def state(g: Rig) -> int:
    return check(g)["arming_state"]


def opens(port: int) -> bytes:
    return seg(1000, flags=SYN | ACK, port=port)


def run_to(g: Rig, now: int, until: int) -> Iterator[int]:
    """Be awake when it wants to be; the times."""
    while (at := g.stage.next_deadline(now)) and at <= until:  # type: ignore[attr-defined]
        now = at
        g.run(now=now)
        yield now
    g.run(now=until)


def connect(g: Rig, ports: range, start: int, answer: Any = None) -> list[int]:
    """One client after another, each as soon as it may: how long (ms) the primary's SYN+ACK waited for each."""
    waited, now = [], start
    for port in ports:
        g.feed("primary_in", opens(port))
        g.run(now=now)
        began = now
        got = g.take("outdev")
        while not got:
            now = g.stage.next_deadline(now)  # type: ignore[attr-defined]
            assert now, "it waits for ever"
            g.run(now=now)
            if g.take("notify_out") and answer:
                g.feed("notify_in", answer)
                now += 300 * MS
                g.run(now=now)
            got = g.take("outdev")
        assert got == [opens(port)]
        waited.append((now - began) // MS)
        now += 10 * MS
    return waited


def test_the_first_connections_pay_and_later_ones_do_not() -> None:
    """With local checkpoints each connection waited compare_timeout, without end."""
    with rig(checkpoint="local") as g, capture_logs() as lines:
        assert connect(g, range(4000, 4010), S) == [3000, 3000, 3000] + [0] * 7
        c = check(g)
        assert (c["arming_state"], c["silences"], c["released_unarmed"], c["held"]) == (arming.SILENT, 1, 7, 0)
        assert shown(g, g.stage.scalar(scalars.HEARD) + 60 * S).startswith(
            "the secondary has answered nothing for 60 s: the primary's packets leave uncompared"
        )
        audit(g)
    told = [line for line in lines if line["event"].startswith("secondary answers nothing")]
    assert len(told) == 1 and told[0]["arming"] == "silent" and told[0]["since"]


def test_no_checkpoint_after_the_other_is_asked_for_a_silent_secondary() -> None:
    """The time that a checkpoint takes does not count: guests stand still.  Three waits of 3 s do, whatever comes."""
    with rig() as g:
        waited = connect(g, range(4000, 4010), S, answer=DONE)
        assert waited[3:] == [0] * 7 and all(ms >= 3000 for ms in waited[:2])
        c = check(g)
        assert (c["arming_state"], c["checkpoints_asked"] <= 3, c["silences"]) == (arming.SILENT, True, 1)
        g.take("notify_out")
        for second in range(60, 120):
            g.run(now=second * S)
        assert g.take("notify_out") == []


@contextmanager
def silent(**more: Any) -> Iterator[Rig]:
    """A compare whose secondary is silent since 10 s; nothing was asked for."""
    with rig(silence_timeout=1_000, **more) as g:
        handshake(g, now=1 * S)
        g.feed("primary_in", opens(5000))
        g.run(now=9 * S)
        g.run(now=10 * S - 1)
        assert state(g) == arming.IN_STEP
        g.run(now=10 * S)
        assert state(g) == arming.SILENT and g.take("outdev") == [opens(5000)]
        assert g.take("notify_out") == []
        yield g


@BOTH
def test_halves_of_datagrams_are_answers(checkpoint: str) -> None:
    """Each waits for its deadline; that both sides have sent the same is what they were compared for."""
    with rig(checkpoint=checkpoint) as g:
        handshake(g, now=1 * S)
        for n in range(6):
            half = fragments(SERVER, CLIENT, 17, bytes(100), 80, ident=n)[0]
            g.feed("primary_in", half)
            g.feed("secondary_in", half)
            g.run(now=(10 + 4 * n) * S)
            g.run(now=(13 + 4 * n) * S)
            assert g.take("outdev") == [half]
        c = check(g)
        assert (c["arming_state"], c["silences"], c["checkpoints_asked"]) == (arming.IN_STEP, 0, 0)


def test_a_difference_that_waits_for_its_request_is_no_silence() -> None:
    """With a long interval between checkpoints: what has differed must not leave meanwhile."""
    with rig(checkpoint_interval_ms=20_000) as g:
        handshake(g, now=1 * S)
        g.segment.w[layout.CMD_CHECKPOINT] += 1
        g.run(now=1 * S + 1)
        g.feed("primary_in", seg(1001, b"one"))
        g.feed("secondary_in", seg(1001, b"two"))
        g.run(now=2 * S)
        for _ in run_to(g, 2 * S, 20 * S):
            assert (state(g), g.take("outdev"), g.take("notify_out")) == (arming.IN_STEP, [], [])
        for _ in run_to(g, 20 * S, 22 * S):
            assert (state(g), g.take("outdev")) == (arming.IN_STEP, [])
        assert (g.take("notify_out"), check(g)["diverged_payload"]) == ([ASK], 1)


def test_time_in_which_the_compare_did_not_run_is_no_silence() -> None:
    """A machine that was paused: whoever answers may not have run, either."""
    with rig(silence_timeout=1_000, checkpoint="local") as g:
        handshake(g, now=1 * S)
        g.feed("primary_in", opens(5000))
        g.run(now=2 * S)
        g.stage.went_on(60 * S, 58 * S)
        g.run(now=60 * S)
        g.run(now=61 * S - 1)
        assert state(g) == arming.IN_STEP
        g.run(now=61 * S)
        assert state(g) == arming.SILENT


def test_with_its_first_answer_new_connections_are_compared_where_nobody_makes_checkpoints() -> None:
    """The one that it answers passes, as those that were open."""
    with silent(checkpoint="local") as g:
        g.feed("primary_in", opens(6000))
        g.run(now=61 * S)
        assert g.take("outdev") == [opens(6000)]
        g.feed("secondary_in", seg(777, flags=SYN | ACK, port=6000))
        g.run(now=61 * S)
        assert state(g) == arming.IN_STEP
        g.feed("primary_in", seg(1001, b"passes", port=6000))
        g.run(now=62 * S)
        assert g.take("outdev") == [seg(1001, b"passes", port=6000)]
        handshake(g, port=6001, now=62 * S)
        g.feed("primary_in", seg(1001, b"waits", port=6001))
        g.run(now=62 * S)
        assert g.take("outdev") == [] and check(g)["held_primary"] == 1
        audit(g)


def test_with_its_first_answer_a_checkpoint_is_asked_for_and_brings_it_into_step() -> None:
    """Two moves, one request; a datagram is an answer as well, and so is a fragment."""
    pieces = fragments(SERVER, CLIENT, 17, udp(SERVER, CLIENT, 53, 9, bytes(2000)), 800)
    for said in (udp_frame(SERVER, CLIENT, 53, 9, b"answer"), pieces[1]):
        with silent() as g:
            g.feed("primary_in", udp_frame(SERVER, CLIENT, 53, 9, b"answer"))
            g.run(now=61 * S)
            g.feed("secondary_in", said)
            g.run(now=61 * S)
            assert state(g) == arming.ARMING and g.take("notify_out") == [ASK]
            g.feed("notify_in", DONE)
            g.run(now=62 * S)
            assert state(g) == arming.IN_STEP
            g.take("outdev")
            handshake(g, port=6001, now=62 * S)


@BOTH
def test_who_only_asks_for_addresses_and_names_has_answered_nothing(checkpoint: str) -> None:
    """Neighbour discovery and what is its own alone, before it is out of step and after."""
    own = [
        arp_frame(SERVER, CLIENT),
        icmpv6("fe80::2", "ff02::1", 135),
        udp_frame(SERVER, CLIENT, 40_000, 53, b"who is"),
    ]
    with rig(checkpoint=checkpoint, silence_timeout=2_000) as g:
        g.feed("primary_in", opens(4000))
        for ms in range(0, 3_000, 500):
            g.feed("secondary_in", *own)
            g.run(now=S + ms * MS)
        assert state(g) == arming.SILENT and g.take("outdev") == [opens(4000)]
        g.feed("secondary_in", *own)
        g.run(now=10 * S)
        assert state(g) == arming.SILENT and check(g)["checkpoints_asked"] == 0


def test_who_answers_some_is_not_silent() -> None:
    """One connection in ten is answered: those that are not differ, each, as ever."""
    with rig(checkpoint="local") as g:
        now = S
        for n in range(40):
            if n % 3 == 2:
                handshake(g, port=4000 + n, now=now)
                now += 10 * MS
            else:
                now += connect(g, range(4000 + n, 4001 + n), now)[0] * MS + 10 * MS
        c = check(g)
        assert (c["arming_state"], c["silences"]) == (arming.IN_STEP, 0) and c["diverged_timeout"] > 20


@pytest.mark.parametrize("otherwise", ["payload", "order", "passed"])
def test_who_answers_otherwise_is_not_silent(otherwise: str) -> None:
    """Differences, and connections that pass since one, are answers."""
    with rig(checkpoint="local", silence_timeout=2_000) as g:
        handshake(g, now=S)
        for n in range(30):
            now = (2 + n) * S
            g.feed("primary_in", opens(5000 + n))
            if otherwise == "order":
                g.feed("primary_in", udp_frame(SERVER, CLIENT, 53, n, b"p"))
                g.feed("secondary_in", udp_frame(SERVER, CLIENT, 53, n, b"s"))
            else:
                port = 4000 if otherwise == "passed" else 6000 + n
                if port != 4000:
                    g.feed("primary_in", opens(port))
                    g.feed("secondary_in", seg(5, flags=SYN | ACK, port=port))
                g.feed("primary_in", seg(1001 + 4 * n, b"prim", port=port))
                g.feed("secondary_in", seg(1001 + 4 * n, b"seco", port=port))
            for _ in run_to(g, now, now + 999 * MS):
                pass
            g.run(now=now)
            g.take("outdev")
        assert check(g)["silences"] == 0


@BOTH
def test_a_primary_that_says_nothing_awaits_no_answer(checkpoint: str) -> None:
    """Hours without a packet, and packets that have met their equals."""
    with rig(checkpoint=checkpoint) as g:
        handshake(g, now=S)
        assert g.stage.next_deadline(S) == 0  # type: ignore[attr-defined]
        for hour in range(1, 5):
            handshake(g, port=4000 + hour, now=hour * 3600 * S)
        assert check(g)["silences"] == 0


def test_guests_that_stand_still_for_a_checkpoint_are_not_silent() -> None:
    """However long it takes: what is asked for and not made is another matter."""
    with rig(silence_timeout=1_000) as g:
        handshake(g, now=S)
        for side, text in (("primary_in", b"p"), ("secondary_in", b"s")):
            g.feed(side, seg(1001, text))
        g.run(now=2 * S)
        g.feed("primary_in", opens(4001))
        for second in range(2, 100):
            g.run(now=second * S)
        assert (state(g), g.counters()["silences"]) == (arming.IN_STEP, 0)
        g.feed("notify_in", DONE)
        g.run(now=100 * S)
        assert state(g) == arming.IN_STEP


def test_behind_a_full_outdev_nobody_is_silent() -> None:
    """The secondary's answers lie in the ring; so it is not the one that is waited for."""
    with rig(ring_size=1 << 12, silence_timeout=1_000, checkpoint="local") as g:
        handshake(g, now=S)
        said = [udp_frame(SERVER, CLIENT, 53, 9, b"%04d" % i + bytes(500)) for i in range(20)]
        for frame in said:
            for side in ("primary_in", "secondary_in"):
                try:
                    g.feed(side, frame)
                except BufferError:
                    continue
                g.run(now=S)
        for second in range(2, 30):
            g.run(now=second * S)
        assert check(g)["silences"] == 0 and state(g) == arming.IN_STEP


@BOTH
def test_a_checkpoint_alone_does_not_bring_back_who_answers_nothing(checkpoint: str) -> None:
    """Made every 20 s, as by QEMU, it would cost clients 9 s of each: with its first answer it comes back."""
    with silent(checkpoint=checkpoint) as g:
        g.feed("notify_in", DONE)
        g.run(now=61 * S)
        assert state(g) == arming.SILENT
        assert connect(g, range(6000, 6003), 62 * S) == [0, 0, 0]
        # One that answers before the primary has said anything since the checkpoint has missed nothing.
        g.feed("primary_in", udp_frame(SERVER, CLIENT, 53, 9, b"x"))
        g.run(now=63 * S)
        g.feed("notify_in", DONE)
        g.run(now=64 * S)
        g.feed("secondary_in", udp_frame(SERVER, CLIENT, 53, 9, b"y"))
        g.run(now=64 * S)
        assert state(g) == arming.IN_STEP and g.take("notify_out") == []


def test_a_silent_one_can_be_lost_and_by_failover_too() -> None:
    for way in ("link", "failover"):
        with silent() as g:
            if way == "link":
                g.rings["secondary_in"].w[layout.P_LINK] = 2
            else:
                g.command(layout.CMD_FAILOVER, 1)
            g.run(now=61 * S)
            assert state(g) == arming.LOST


def test_silence_can_be_switched_off() -> None:
    """Then each connection waits, as in QEMU."""
    with rig(checkpoint="local", silence_timeout=0) as g:
        assert connect(g, range(4000, 4008), S) == [3000] * 8


def test_a_new_incarnation_knows_how_long_it_was_waited() -> None:
    """Killed each second: the silence is noticed at the same time."""
    with rig(checkpoint="local", compare_timeout=60_000, silence_timeout=9_000) as g:
        g.feed("primary_in", opens(4000))
        for second in range(1, 10):
            g.run(now=second * S)
            g.restart()
        assert g.take("outdev") == []
        g.run(now=10 * S)
        assert g.take("outdev") == [opens(4000)] and state(g) == arming.SILENT


class Clock:
    """How long the primary waited for a secondary that said nothing, told from outside: the slow way."""

    def __init__(self, limit: int) -> None:
        self.limit, self.waited, self.last, self.waits = limit, 0, 0, False

    def tick(self, now: int, waits: bool, answered: bool) -> bool:
        """Whether it is silent by now."""
        if self.waits:
            self.waited += now - self.last
        if answered:
            self.waited = 0
        self.last, self.waits = now, waits
        return self.waited >= self.limit


@given(st.lists(st.tuples(st.integers(1, 4_000), st.integers(0, 3), st.booleans()), max_size=40))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_it_is_silent_when_the_clock_says_so(steps: list[tuple[int, int, bool]]) -> None:
    """Connections one after another, some answered: against a clock that looks after every wake-up."""
    with rig(checkpoint="local") as g:
        now, port, clock = S, 4000, Clock(9 * S)
        for ms, what, twice in steps:
            until = now + ms * MS
            for at in run_to(g, now, until):
                silence = clock.tick(at, g.counters()["held_primary"] > 0, False)
                assert silence == (state(g) == arming.SILENT)
            now = until
            if clock.tick(now, g.counters()["held_primary"] > 0, False):
                assert state(g) == arming.SILENT
                return
            assert state(g) == arming.IN_STEP
            if what:
                port += 1
                for _ in range(1 + twice):
                    g.feed("primary_in", opens(port))
                if what == 3:
                    g.feed("secondary_in", seg(7, flags=SYN | ACK, port=port))
                g.run(now=now)
                clock.tick(now, check(g)["held_primary"] > 0, what == 3)
            g.take("outdev")
            audit(g)
