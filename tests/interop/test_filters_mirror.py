"""filter-mirror, QEMU's and ours: the same frames, the same outputs at every step."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.interop.filters_feed import TALLY, Both, both, by_origin, marked, needs_qemu, receive, scenario, sending
from tests.packets import FIN, SYN, arp_frame, fragments, icmp_frame, tcp_frame, udp_frame

__all__ = ["scenario"]
pytestmark = needs_qemu
A, B = "198.51.100.9", "10.0.0.1"
MIXED = [
    marked("net", 1), arp_frame(A, B), udp_frame(A, B, 53, 4000, b"q"), icmp_frame(A, B),
    tcp_frame(A, B, 1, 80, flags=SYN), tcp_frame(A, B, 1, 80, flags=FIN, vlans=(5,), payload=b"x"),
    tcp_frame("2001:db8::9", "2001:db8::1", 1, 80), *fragments(A, B, 17, bytes(3000), 1480),
]  # fmt: skip
SIZES = (1, 13, 14, 15, 59, 60, 1514, 1515, 9014, 65_535, 65_536, 69_631, 69_632)


def mirror(queue: str = "all", *, vnet: bool = False) -> Both:
    return both("filter-mirror", queue, ("outdev",), vnet=vnet)


@pytest.mark.parametrize("vnet", [False, True])
@pytest.mark.parametrize("queue", ["tx", "rx", "all"])
def test_each_packet_goes_on_and_a_copy_of_its_direction_to_outdev(queue: str, vnet: bool) -> None:
    with mirror(queue, vnet=vnet) as pair:
        for frame in MIXED:
            for port, way, other in (("net", "tx", "guest"), ("guest", "rx", "net")):
                out = pair.step(port, frame)
                copied = queue in (way, "all")
                assert out == {other: [frame], **({"outdev": [frame]} if copied else {})}


def test_one_message_goes_through() -> None:
    """What QEMU's own test of its mirror does: one message in, the same out of outdev."""
    with mirror("tx") as pair:
        assert pair.step("net", b"hello, mirror") == {"guest": [b"hello, mirror"], "outdev": [b"hello, mirror"]}


def test_every_size_from_one_byte_to_the_largest() -> None:
    with mirror() as pair:
        for size in SIZES:
            frame = bytes(i & 0xFF for i in range(size))
            assert pair.step("net", frame) == {"guest": [frame], "outdev": [frame]}


def test_status_off_copies_nothing_and_on_copies_again() -> None:
    with mirror() as pair:
        for i, on in enumerate((True, False, False, True, False, True)):
            pair.status(on)
            for port in ("net", "guest"):
                frame = marked(port, i)
                assert ("outdev" in pair.step(port, frame)) == on


def test_a_peer_that_leaves_outdev_stops_nothing_and_the_next_one_gets_copies_from_then_on() -> None:
    with mirror() as pair:
        for i in range(3):
            assert "outdev" in pair.step("net", marked("net", 3 * i))
            pair.drop("outdev")
            assert pair.step("net", marked("net", 3 * i + 1)) == {"guest": [marked("net", 3 * i + 1)]}
            pair.join("outdev")
            assert "outdev" in pair.step("guest", marked("guest", 3 * i + 2))


def test_what_the_peer_of_outdev_sends_goes_nowhere() -> None:
    with mirror() as pair:
        pair.theirs.links["outdev"].send(marked("wrong", 1))
        assert pair.theirs.turned() == {}
        assert "indev" not in pair.ours.rig.kind.inputs


def test_full_speed_gives_what_one_at_a_time_gives() -> None:
    frames = {port: [marked(port, i, 60 + i * 7 % 1400) for i in range(1500)] for port in ("net", "guest")}
    with mirror() as pair:
        links = pair.theirs.links
        with sending(links, frames):
            got = receive(links, {"net": 1500, "guest": 1500, "outdev": 3000})
        assert pair.theirs.turned() == {}
        ours = {"net": [], "guest": [], "outdev": []}
        for i in range(0, 1500, 50):
            for port, way in (("net", "tx_in"), ("guest", "rx_in")):
                pair.ours.rig.feed(way, *frames[port][i : i + 50])
            for name, many in pair.ours.turned().items():
                ours[name] += many
        assert {name: by_origin(many) for name, many in got.items()} == {
            name: by_origin(many) for name, many in ours.items()
        }
        assert by_origin(ours["outdev"]) == frames


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["net", "guest"]), st.binary(min_size=1, max_size=90)),
        st.tuples(st.just("status"), st.booleans()),
        st.tuples(st.sampled_from(["drop", "join"]), st.none()),
    ),
    max_size=12,
)


def run(steps: list[tuple[str, object]], pair: Both) -> None:
    TALLY.scenarios += 1
    there = True
    for what, value in steps:
        if what == "status":
            pair.status(bool(value))
        elif what in ("drop", "join"):
            if there == (what == "drop"):
                getattr(pair, what)("outdev")
                there = not there
        else:
            assert isinstance(value, bytes)
            pair.step(what, value)


@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.sampled_from(["tx", "rx", "all"]), st.booleans())
def test_any_sequence_gives_the_same_outputs(steps: list[tuple[str, object]], queue: str, vnet: bool) -> None:
    with mirror(queue, vnet=vnet) as pair:
        run(steps, pair)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.sampled_from(["tx", "rx", "all"]), st.booleans())
def test_any_sequence_gives_the_same_outputs_long(steps: list[tuple[str, object]], queue: str, vnet: bool) -> None:
    with mirror(queue, vnet=vnet) as pair:
        run(steps, pair)
