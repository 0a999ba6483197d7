"""colo-compare: scenes in which a reviewer made it hang, stall, or take a difference for none."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from ring import layout
from tests.packets import ACK, FIN, RST, SYN, fragments, udp, udp_frame
from tests.stages.compare.audit import audit
from tests.stages.compare.test_compare import ASK, CLIENT, DONE, MS, SERVER, check, handshake, rig, seg
from tests.stages.compare.test_rules_compare import PASS_TCP, Rules

PASS_UDP = {"action": "pass", "protocol": "udp"}


def test_a_rule_lets_go_what_the_secondary_alone_has_begun() -> None:
    """Held since before the rule or come after it: nothing is left to become overdue again and again."""
    for early in (True, False):
        with rig() as g:
            theirs = [seg(7, flags=SYN | ACK), seg(8, b"data")]
            if early:
                g.feed("secondary_in", *theirs)
                g.run(now=2)
            rules = Rules(g, web=PASS_TCP)
            g.run(now=3)
            if not early:
                g.feed("secondary_in", *theirs)
            g.run(now=4000 * MS, cycles=50)
            assert g.run(now=4001 * MS, cycles=50) == 0
            c = check(g)
            assert (c["held"], c["dropped_by_rule"], c["divergences"], rules.hits("web")[0]) == (0, 2, 0, 2)
            audit(g)


@pytest.mark.parametrize("checkpoint", ["frame", "local"])
def test_a_rule_that_comes_between_fragments_empties_the_connection(checkpoint: str) -> None:
    """A row on the grace list leaves it with its packets."""
    pieces = fragments(SERVER, CLIENT, 17, udp(SERVER, CLIENT, 53, 9, bytes(2000)), 800)
    with rig(checkpoint=checkpoint) as g:
        for side in ("primary", "secondary"):
            g.feed(f"{side}_in", udp_frame(SERVER, CLIENT, 53, 9, side.encode()), *pieces[:-1])
        g.run(now=2)
        Rules(g, dns=PASS_UDP)
        g.feed("primary_in", pieces[-1])
        for now in range(3, 4000, 60):
            g.run(now=now * MS)
            audit(g)
        c = check(g)
        assert c["held_primary"] == 0 and c["released_by_rule"] == 1 + len(pieces) == len(g.take("outdev"))


def test_a_client_that_opens_its_port_again_holds_nobody_up() -> None:
    """The former connection's data will never come from the secondary, which has begun anew as well."""
    with rig() as g:
        handshake(g)
        g.feed("primary_in", seg(1001, b"answer"))
        g.run(now=3)
        g.feed("secondary_in", seg(500000, flags=SYN | ACK, ack=9000))
        other = udp_frame(SERVER, "10.9.9.9", 53, 9, b"victim")
        again = seg(900000, flags=SYN | ACK, ack=9000)
        g.feed("primary_in", again, other)
        g.feed("secondary_in", other)
        g.run(now=4)
        g.run(now=5)
        assert g.take("outdev") == [seg(1001, b"answer"), again, other]
        assert check(g)["held"] == 0 and g.take("notify_out") == []


@pytest.mark.parametrize("first", ["primary", "secondary"])
def test_a_connection_that_one_accepts_and_one_refuses_differs(first: str) -> None:
    frames = {"primary": seg(0, flags=RST | ACK, ack=5001), "secondary": seg(77, flags=SYN | ACK, ack=5001)}
    for side in (first, *(set(frames) - {first})):
        with rig() as g:
            g.feed(f"{side}_in", frames[side])
            g.run(now=2)
            for other in set(frames) - {side}:
                g.feed(f"{other}_in", frames[other])
            g.run(now=3)
            assert g.take("outdev") == [] and check(g)["matched"] == 0
            g.run(now=3100 * MS)
            assert g.take("notify_out") == [ASK] and check(g)["diverged_timeout"] == 1


@pytest.mark.parametrize("flags", [SYN | ACK, RST | ACK, RST])
def test_what_only_the_secondary_begins_or_resets_differs(flags: int) -> None:
    with rig() as g:
        if flags & RST:
            handshake(g)
        g.feed("secondary_in", seg(1001, flags=flags))
        g.run(now=2)
        assert check(g)["held_secondary"] == 1
        g.run(now=3100 * MS)
        assert g.take("notify_out") == [ASK] and check(g)["diverged_timeout"] == 1
        g.feed("notify_in", DONE)
        g.run(now=3101 * MS)
        assert check(g)["held"] == 0


def test_data_that_comes_after_the_secondarys_reset_is_compared_before_it() -> None:
    """Segments overtake one another; the reset stands last."""
    with rig() as g:
        handshake(g)
        g.feed("secondary_in", seg(1004, flags=RST | ACK), seg(1001, b"abc"))
        g.feed("primary_in", seg(1001, b"abc"), seg(1004, flags=RST | ACK))
        g.run(now=2)
        assert g.take("outdev") == [seg(1001, b"abc"), seg(1004, flags=RST | ACK)]
        c = check(g)
        assert (c["held"], c["matched"], c["divergences"]) == (0, 3, 0)
        audit(g)


def test_an_acknowledgement_of_the_former_connection_covers_nothing_of_the_next() -> None:
    """Opened by the guest: its SYN has no ACK."""
    with rig() as g:
        ends = {"primary_in": 1000, "secondary_in": 77}
        for flags, ack, add in ((SYN, 0, 0), (ACK, 0x40000000, 1), (FIN | ACK, 0x40000000, 1)):
            for side, isn in ends.items():
                g.feed(side, seg((isn if flags == SYN else 1000) + add, flags=flags, ack=ack))
            g.run(now=2)
        g.take("outdev")
        g.feed("secondary_in", seg(99999, flags=SYN, ack=0))
        g.run(now=5)
        g.feed("primary_in", seg(5000, flags=SYN, ack=0), seg(5001, ack=0x30000001))
        g.run(now=6)
        assert g.take("outdev") == [seg(5000, flags=SYN, ack=0)]
        g.feed("secondary_in", seg(5001, ack=0x30000001))
        g.run(now=7)
        assert g.take("outdev") == [seg(5001, ack=0x30000001)]


def test_a_checkpoint_settles_what_waited_in_the_rings_when_it_was_asked_for() -> None:
    """Back-pressure keeps packets in the inputs; what comes after the request may be of the new time."""
    mine = [udp_frame(SERVER, CLIENT, 53, 9, b"p%03d" % i) for i in range(20)]
    theirs = [udp_frame(SERVER, CLIENT, 53, 9, b"s%03d" % i) for i in range(20)]
    stream = [seg(1001 + i, b"x") for i in range(5)]
    with rig(max_queue_size=4) as g:
        handshake(g)
        g.feed("primary_in", *mine, *stream)
        g.feed("secondary_in", *theirs)
        g.run(now=2)
        g.run(now=60 * MS)
        assert g.take("notify_out") == [ASK]
        later = udp_frame(SERVER, CLIENT, 53, 10, b"later")
        g.feed("primary_in", later)
        g.feed("notify_in", DONE)
        g.run(now=70 * MS)
        assert g.take("outdev") == [*mine, *stream]
        c = check(g)
        assert (c["held_primary"], c["dropped_at_checkpoint"], c["checkpoints"]) == (1, 20, 1)
        # The stream goes on behind what was settled in the ring.
        g.feed("primary_in", seg(1006, b"y"))
        g.feed("secondary_in", later, seg(1006, b"y"))
        g.run(now=80 * MS)
        assert g.take("outdev") == [later, seg(1006, b"y")] and check(g)["divergences"] == c["divergences"]


def test_differences_that_only_time_shows_keep_a_storm_going() -> None:
    often = {"storm_checkpoints": 2, "storm_interval_ms": 200, "storm_window_ms": 2000}
    with rig(**often, compare_timeout=100, silence_timeout=0) as g:
        for i in range(900):
            if i % 30 == 0:
                g.feed("primary_in", udp_frame(SERVER, CLIENT, 53, 9, b"%d" % i))  # never from the secondary
            g.run(now=(i + 1) * 10 * MS)
            if g.take("notify_out"):
                g.feed("notify_in", DONE)
        c = check(g)
        assert c["storms"] == 1 and c["checkpoints_periodic"] > 30 and c["diverged_timeout"] > 10


def test_a_link_that_comes_and_goes_is_no_storm_of_differences() -> None:
    with rig() as g:
        for i in range(40):
            g.rings["secondary_in"].w[layout.P_LINK] += 2
            g.run(now=(i + 1) * 50 * MS)
            if g.take("notify_out"):
                g.feed("notify_in", DONE)
        assert check(g)["storms"] == 0


def test_a_datagram_in_fragments_does_not_overtake_what_a_new_rule_lets_go() -> None:
    """FIFO, also where the rule comes between its fragments."""
    first = udp_frame(SERVER, CLIENT, 53, 9, b"first")
    pieces = fragments(SERVER, CLIENT, 17, udp(SERVER, CLIENT, 53, 9, bytes(2000)), 800)
    with rig() as g:
        g.feed("primary_in", first, *pieces[:-1])
        g.run(now=2)
        rules = Rules(g, dns=PASS_UDP)
        g.feed("primary_in", pieces[-1])
        g.run(now=3)
        assert g.take("outdev") == [first, *pieces]
        assert check(g)["held"] == 0 and rules.hits("dns")[0] == 1 + len(pieces)
        audit(g)


def test_local_mode_compares_the_connection_after_one_that_the_secondary_alone_began() -> None:
    """The life that was given up is nobody's: the next SYN of both is matched, and the data behind it compared."""
    with rig(checkpoint="local") as g:
        handshake(g)
        g.feed("secondary_in", seg(5, flags=SYN | ACK), seg(6, b"alone"))
        for now in (10, 4000, 8000):
            g.run(now=now * MS)
        g.feed("secondary_in", seg(11, b"still alone"))
        again = seg(9000, flags=SYN | ACK)
        g.feed("primary_in", again)
        g.run(now=8001 * MS)
        assert g.take("outdev") == []
        g.feed("secondary_in", seg(600_000, flags=SYN | ACK))
        g.feed("primary_in", seg(9001, b"abc"))
        g.run(now=8002 * MS)
        assert g.take("outdev") == [again]
        g.feed("secondary_in", seg(9001, b"abc"))
        g.run(now=8003 * MS)
        assert g.take("outdev") == [seg(9001, b"abc")] and check(g)["held"] == 0
        audit(g)


def test_local_mode_passes_what_has_differed_also_after_a_rule_came_and_went() -> None:
    with rig(checkpoint="local") as g:
        handshake(g)
        g.feed("primary_in", seg(1001, b"one"))
        g.feed("secondary_in", seg(1001, b"two"))
        g.run(now=2)
        rules = Rules(g, web=PASS_TCP)
        g.feed("primary_in", seg(1004, b"by rule"))
        g.run(now=3)
        rules.change(delete="web")
        g.run(now=4)
        g.feed("primary_in", seg(1011, b"as before"))
        g.run(now=5)
        assert g.take("outdev") == [seg(1001, b"one"), seg(1004, b"by rule"), seg(1011, b"as before")]
        assert check(g)["divergences"] == 1


@pytest.mark.parametrize("action", ["pass", "mask"])
def test_a_rule_that_comes_while_datagrams_wait_settles_them(action: str) -> None:
    with rig() as g:
        rules = Rules(g)
        g.run(now=2)
        for side, body in (("primary", b"id=1;"), ("secondary", b"id=2;")):
            g.feed(f"{side}_in", udp_frame(SERVER, CLIENT, 53, 9, body))
        g.run(now=3)
        more = {"regex": "id=([0-9])"} if action == "mask" else {}
        rules.change(add={"u": {"action": action, "protocol": "udp", **more}})
        for now in (4, 5 + 51 * MS, 6 + 52 * MS):
            g.run(now=now)
        c = check(g)
        assert (c["divergences"], c["held"]) == (0, 0) and len(g.take("outdev")) == 1
        assert (c["masked"], c["released_by_rule"]) == ((1, 0) if action == "mask" else (0, 1))
        audit(g)


def test_a_thousand_differences_are_not_a_thousand_lines() -> None:
    """checkpoint = local: some get a line, the rest are counted in one."""
    with capture_logs() as lines, rig(checkpoint="local", reorder_grace_ms=1) as g:
        for i in range(200):
            for side in ("p", "s"):
                g.feed({"p": "primary_in", "s": "secondary_in"}[side], udp_frame(SERVER, CLIENT, 53, i, side.encode()))
            g.run(now=(i + 1) * 2 * MS)
            g.run(now=(i + 1) * 2 * MS + MS)
        found = check(g)["divergences"]
        g.stage.on_close()
        told = [line for line in lines if line["event"].startswith("outputs differ")]
        left = sum(line["count"] for line in lines if line["event"] == "differences not shown")
        assert found == 200 == len(told) + left and 32 <= len(told) <= 50
