"""filter-redirector against its oracle, and where the oracle has no rings: room, framing, fairness, restarts."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ring import layout
from tests.oracle.redirector import RedirectorOracle
from tests.rig import Rig

ALL = ("tx_in", "rx_in", "indev", "tx_out", "rx_out", "outdev")
SHAPES = (
    ALL,
    ("tx_in", "tx_out", "indev"),
    ("rx_in", "rx_out", "outdev"),
    ("rx_in", "rx_out", "indev", "outdev"),
    ("tx_in", "rx_in", "tx_out", "rx_out", "indev"),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(ALL[:3]), st.lists(st.binary(max_size=80), min_size=1, max_size=5)),
        st.tuples(st.just("status"), st.booleans()),
        st.tuples(st.just("connected"), st.booleans()),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=12,
)


def link(rig: Rig, port: str, up: bool) -> None:
    rig.rings[port].w[layout.C_LINK] += (int(rig.rings[port].w[layout.C_LINK]) & 1) != up


def balanced(rig: Rig) -> None:
    counters = rig.counters()
    for balance in rig.kind.balances:
        left, right = (sum(counters[name] for name in side) for side in (balance.left, balance.right))
        assert left == right, balance.label


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.sampled_from(SHAPES), st.sampled_from(((), ("indev", "outdev"), ALL[:2] + ALL[3:5], ALL)))
def test_does_what_the_oracle_does(steps, ports, vnet):
    oracle = RedirectorOracle(ports)
    with Rig("filter-redirector", ports=ports, vnet=tuple(p for p in vnet if p in ports)) as rig:
        for what, value in steps:
            if what == "restart":
                rig.restart()
            elif what == "status":
                oracle.status = value
                oracle.settle()
                rig.command(layout.CMD_STATUS, int(value))
                rig.run()
            elif what == "connected":
                oracle.connected = value
                if "outdev" in ports:
                    link(rig, "outdev", value)
            elif what in ports:
                for frame in value:
                    oracle.packet(what, frame)
                rig.feed(what, *value)
                rig.run()
            balanced(rig)
        for port in ports:
            if port in rig.kind.outputs:
                assert rig.take(port) == oracle.out[port]
        assert rig.counters() == {**dict.fromkeys(rig.counters(), 0), **oracle.counters}


def raw(rig: Rig, port: str) -> bytes:
    """The bytes of a ring between head and tail, length words included."""
    made = rig.rings[port]
    head, tail = int(made.w[layout.HEAD]), int(made.w[layout.TAIL])
    at = layout.PAGE + (head & (made.size - 1))
    return made.u8[at : at + tail - head].tobytes()


def test_the_framing_of_each_port_is_kept():
    with Rig("filter-redirector", vnet=("indev", "outdev")) as rig:
        rig.feed("tx_in", b"plain")
        rig.feed("indev", b"V" * 10 + b"frame", vnet_hdr_len=10)
        rig.run()
        assert raw(rig, "outdev") == b"\0\0\0\5\0\0\0\0plain"
        assert raw(rig, "tx_out") == raw(rig, "rx_out") == b"\0\0\0\x0f" + b"V" * 10 + b"frame"
    with Rig("filter-redirector", vnet=ALL) as rig:
        rig.feed("rx_in", b"V" * 12 + b"frame", vnet_hdr_len=12)
        rig.run()
        assert raw(rig, "outdev") == b"\0\0\0\x11\0\0\0\x0c" + b"V" * 12 + b"frame"


def test_a_frame_enters_both_directions_or_waits():
    with Rig("filter-redirector", ring_size=1 << 12) as rig:
        link(rig, "outdev", False)
        rig.feed("rx_in", *[b"r" * 1020] * 4)
        rig.run()
        rig.feed("indev", b"both")
        assert rig.run() == 0
        assert rig.take("tx_out") == []
        assert rig.segment.w[layout.BLOCKED] == 1 << rig.kind.outputs.index("rx_out")
        assert rig.take("rx_out") == [b"r" * 1020] * 4
        rig.run()
        assert rig.take("tx_out") == rig.take("rx_out") == [b"both"]


@pytest.mark.parametrize("vnet", [(), ("indev",)])
def test_two_inputs_that_want_one_output_both_get_on(vnet):
    frames = {port: [port.encode() + i.to_bytes(2, "big") * 250 for i in range(60)] for port in ("tx_in", "indev")}
    with Rig("filter-redirector", ports=("tx_in", "tx_out", "indev"), vnet=vnet, ring_size=1 << 12) as rig:
        left = {port: list(many) for port, many in frames.items()}
        came: list[bytes] = []
        while any(left.values()):
            for port, many in left.items():
                while many and rig._producers[port].try_send(many[0]):
                    many.pop(0)
            seen = len(came)
            rig.run()
            came += rig.take("tx_out")
            rig.run()
            came += rig.take("tx_out")
            kinds = {frame[:5] for frame in came[seen:]}
            assert len(kinds) == 2 or not all(left.values())
        rig.run()
        came += rig.take("tx_out")
        rig.run()
        came += rig.take("tx_out")
        for port, many in frames.items():
            assert [f for f in came if f.startswith(port.encode())] == many
        balanced(rig)


def test_status_off_leaves_indev_alone_and_the_chain_whole():
    with Rig("filter-redirector") as rig:
        rig.command(layout.CMD_STATUS, 0)
        rig.feed("indev", b"waits")
        rig.feed("tx_in", b"passes")
        rig.run()
        assert rig.take("tx_out") == [b"passes"]
        assert rig.take("outdev") == rig.take("rx_out") == []
        rig.command(layout.CMD_STATUS, 1)
        rig.run()
        assert rig.take("tx_out") == rig.take("rx_out") == [b"waits"]


def test_a_peer_that_goes_leaves_what_was_redirected_and_the_rest_passes_on():
    with Rig("filter-redirector", ports=("rx_in", "rx_out", "outdev")) as rig:
        rig.feed("rx_in", b"1", b"2")
        rig.run()
        link(rig, "outdev", False)
        rig.feed("rx_in", b"3")
        rig.run()
        assert rig.take("rx_out") == [b"3"]
        assert rig.take("outdev") == [b"1", b"2"]
        assert rig.counters()["passed_no_peer"] == 1
