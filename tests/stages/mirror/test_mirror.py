"""filter-mirror against its oracle, and where the oracle has no rings: room, framing, restarts."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ring import layout
from tests.oracle.mirror import MirrorOracle
from tests.rig import Rig

OUTPUTS = ("tx_out", "rx_out", "outdev")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("tx_in", "rx_in")), st.lists(st.binary(max_size=80), min_size=1, max_size=5)),
        st.tuples(st.just("status"), st.booleans()),
        st.tuples(st.just("connected"), st.booleans()),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=12,
)


def link(rig: Rig, port: str, up: bool) -> None:
    rig.rings[port].w[layout.C_LINK] += (int(rig.rings[port].w[layout.C_LINK]) & 1) != up


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.booleans(), st.sampled_from(((), ("outdev",), ("tx_in", "rx_in", "tx_out", "rx_out"))))
def test_does_what_the_oracle_does(steps, has_outdev, vnet):
    ports = ("tx_in", "rx_in", *OUTPUTS[: 3 if has_outdev else 2])
    oracle = MirrorOracle(has_outdev)
    with Rig("filter-mirror", ports=ports, vnet=tuple(p for p in vnet if p in ports)) as rig:
        for what, value in steps:
            if what == "restart":
                rig.restart()
            elif what == "status":
                oracle.status = value
                rig.command(layout.CMD_STATUS, int(value))
            elif what == "connected":
                oracle.connected = value
                if has_outdev:
                    link(rig, "outdev", value)
            else:
                for frame in value:
                    oracle.packet(what, frame)
                rig.feed(what, *value)
                rig.run()
        for port in ports[2:]:
            assert rig.take(port) == oracle.out[port]
        assert rig.counters() == {**dict.fromkeys(rig.counters(), 0), **oracle.counters}


def test_a_packet_goes_to_both_or_waits():
    frames = [bytes([i]) * 1000 for i in range(20)]
    with Rig("filter-mirror", ports=("tx_in", "tx_out", "outdev"), ring_size=1 << 14) as rig:
        first, later = frames[:12], frames[12:]
        rig.feed("tx_in", *first)
        assert rig.run() == 12
        assert rig.take("tx_out") == first
        rig.feed("tx_in", *later)
        assert rig.run() == 4  # as many as outdev still took, whose reader sleeps
        assert rig.segment.w[layout.BLOCKED] == 1 << rig.kind.outputs.index("outdev")
        assert rig.take("outdev") == frames[:16]
        assert rig.run() == 4
        assert rig.take("tx_out") + rig.take("outdev") == later + frames[16:]


def test_a_full_direction_does_not_hold_the_other():
    with Rig("filter-mirror", ring_size=1 << 12) as rig:
        link(rig, "outdev", False)
        rig.feed("tx_in", *[b"t" * 1020] * 4)
        rig.run()
        rig.feed("tx_in", b"t" * 1020)
        rig.feed("rx_in", b"r")
        assert rig.run() == 1
        assert rig.take("rx_out") == [b"r"]


def test_a_full_outdev_holds_both_directions_because_no_copy_may_be_lost():
    with Rig("filter-mirror", ring_size=1 << 12) as rig:
        rig.feed("tx_in", *[b"t" * 1020] * 4)
        rig.run()
        rig.feed("rx_in", b"r")
        assert rig.run() == 0
        rig.take("outdev")
        assert rig.run() == 1
        assert rig.take("rx_out") == rig.take("outdev") == [b"r"]


MS = 1_000_000
FULL = [b"c" * 252] * 16  # all that outdev takes
HELD = bytes(1020)  # as much as four of them


def look_for(rig: Rig, since: int, ms: int, step: int = 10) -> int:
    """Duty cycles every ``step`` ms; frames moved."""
    return sum(rig.run(now=(since + at) * MS) for at in range(0, ms + 1, step))


def fill(rig: Rig, now: int) -> None:
    """Outdev is full from ``now`` (ms) on, and one more packet waits."""
    rig.feed("tx_in", *FULL)
    rig.run(now=now * MS)
    assert rig.take("tx_out") == FULL
    rig.feed("tx_in", HELD)
    assert rig.run(now=now * MS) == 0


def stalling(stall_timeout: int) -> Rig:
    return Rig("filter-mirror", {"stall_timeout": stall_timeout}, ring_size=1 << 12)


def test_a_peer_that_takes_nothing_is_not_waited_for_again_and_again():
    """Held for stall_timeout, then everything passes without copies, until outdev takes something."""
    with capture_logs() as logs, stalling(1000) as rig:
        fill(rig, 10_000)
        assert look_for(rig, 10_000, 990) == 0
        assert not logs
        assert look_for(rig, 11_000, 10) == 1
        assert rig.take("tx_out") == [HELD]
        rig.feed("rx_in", b"other")
        assert rig.run(now=90_000 * MS) == 1, "a minute of silence is no sign of life"
        assert rig.take("rx_out") == [b"other"]
        assert (rig.counters()["dropped_stalled"], rig.counters()["outdev_frames"]) == (2, 16)
        assert rig.take("outdev") == FULL
        rig.feed("tx_in", b"copied")
        assert rig.run(now=90_010 * MS) == 1
        assert rig.take("outdev") == rig.take("tx_out") == [b"copied"]
        fill(rig, 160_000)
        assert look_for(rig, 160_000, 990) == 0
    assert [line["event"] for line in logs] == [
        "outdev takes nothing: copies are dropped until it does",
        "outdev takes copies again",
    ]


def test_a_peer_that_takes_little_is_waited_for():
    """Every frame that it takes begins the time anew."""
    with stalling(1000) as rig:
        fill(rig, 0)
        for n in range(1, 5):
            assert look_for(rig, n * 1000, 900) == 0
            assert rig.take("outdev", 1) == FULL[:1]
        assert look_for(rig, 5000, 0) == 1
        assert rig.counters()["dropped_stalled"] == 0


@pytest.mark.parametrize("status", ["slept", "restarted"])
def test_a_mirror_that_was_not_running_has_seen_no_stall(status: str):
    with stalling(1000) as rig:
        fill(rig, 0)
        assert look_for(rig, 0, 900) == 0
        if status == "restarted":
            rig.restart()
            assert look_for(rig, 1000, 900) == 0
        else:
            assert rig.run(now=5_000_000 * MS) == 0
        assert rig.counters()["dropped_stalled"] == 0


def test_nobody_gives_up_where_it_is_switched_off():
    with stalling(0) as rig:
        fill(rig, 0)
        assert look_for(rig, 0, 100_000, 40) == 0


@pytest.mark.parametrize("before", [900, 1100], ids=["nearly given up", "given up"])
def test_a_peer_that_comes_back_is_waited_for_as_long_as_any(before: int):
    """What the connection before it has not taken says nothing of it, though the ring is as full as it was."""
    with stalling(1000) as rig:
        fill(rig, 0)
        look_for(rig, 0, before)
        link(rig, "outdev", False)
        rig.run(now=2000 * MS)
        rig.feed("tx_in", b"on while it is away")
        assert look_for(rig, 3000, 2000) == 1
        link(rig, "outdev", True)
        rig.feed("tx_in", HELD)
        dropped = rig.counters()["dropped_stalled"]
        assert look_for(rig, 70_000, 900) == 0
        assert rig.take("outdev", 4) == FULL[:4]
        assert look_for(rig, 70_910, 0) == 1
        assert rig.take("outdev") == [*FULL[4:], HELD]
        assert rig.counters()["dropped_stalled"] == dropped


def test_for_a_minute_after_a_stall_a_tenth_of_the_time_is_enough():
    """What the system buffers for a peer that reads nothing looks like one that reads, and so does each connection."""
    with stalling(1000) as rig:
        fill(rig, 0)
        assert look_for(rig, 0, 1010) == 1
        assert rig.take("tx_out") == [HELD]
        for now, least in ((2_000, 90), (30_000, 90), (80_000, 90), (150_000, 990)):
            if now == 30_000:
                link(rig, "outdev", False)
                link(rig, "outdev", True)
            rig.take("outdev")
            fill(rig, now)
            assert look_for(rig, now, least) == 0, now
            assert look_for(rig, now + least + 10, 10) == 1, now
            assert rig.take("tx_out") == [HELD]
