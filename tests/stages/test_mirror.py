"""filter-mirror against its oracle, and where the oracle has no rings: room, framing, restarts."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
