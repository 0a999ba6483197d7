"""filter-rewriter, QEMU's and ours, where QEMU is right: byte for byte the same output at every step.

Connections by hand here, by hypothesis in test_filters_campaign.py; where ours is better on purpose, in
test_filters_rows.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from tests.interop.filters_feed import TALLY, Both, both, needs_qemu, receive, scenario, sending
from tests.interop.filters_talk import BY_NAME, Play, Segment, Style, Talk, untouched
from tests.packets import (
    ACK,
    FIN,
    MOD,
    PSH,
    RST,
    SYN,
    arp_frame,
    checksum_faults,
    ether,
    icmp_frame,
    tcp_frame,
    udp_frame,
)

__all__ = ["scenario"]
pytestmark = needs_qemu
A, B = "198.51.100.9", "10.0.0.1"
RIGHT = [BY_NAME[name] for name in ("plain", "padded", "tos", "qinq")]
EDGES = (0, 1, 2, MOD - 1, MOD - 2, MOD // 2, MOD // 2 - 1, MOD // 2 + 1, 0xFFFF, 0x1_0000, 0xFFFF_0000)


@pytest.fixture
def pair() -> Iterator[Both]:
    with both("filter-rewriter") as made:
        yield made


def play(pair: Both, segments: Iterable[Segment]) -> None:
    """Each segment through both: ours is right, and QEMU's is the same."""
    for s in segments:
        assert s.row is None, s.row
        assert pair.step(s.port, s.sent) == {s.out: [s.right]}
        assert s.sent == s.right or checksum_faults(s.right) == []


def whole(t: Talk) -> list[Segment]:
    """A connection with data both ways, closed by the client."""
    return [
        *t.handshake(), t.up(ACK | PSH, 1, 1, b"GET /"), t.down(ACK, 1, 6), t.down(ACK | PSH, 1, 6, b"an answer"),
        t.up(ACK, 6, 10), t.up(FIN | ACK, 6, 10), t.down(FIN | ACK, 10, 7), t.up(ACK, 7, 11),
    ]  # fmt: skip


@pytest.mark.parametrize("style", RIGHT, ids=lambda style: style.name)
def test_a_connection_from_the_first_segment_to_the_last(pair: Both, style: Style) -> None:
    play(pair, whole(Talk(style=style)))


def test_every_edge_of_the_three_isns(pair: Both) -> None:
    for edge in EDGES:
        for other in (edge, 77_777):
            play(pair, whole(Talk((edge, other, 1_234_567))))
            play(pair, whole(Talk((other, edge, 1_234_567))))
            play(pair, whole(Talk((other, 1_234_567, edge))))


@pytest.mark.parametrize("who", ["client", "primary", "secondary"])
def test_every_wrap_of_seq_and_ack_at_each_byte(pair: Both, who: str) -> None:
    """ISNs from 2^32 - 20 to 2^32, and data byte by byte across the wrap, both ways."""
    for k in range(21):
        isns = {"client": 500, "primary": 900, "secondary": 2**31 + 5, who: (MOD - k) % MOD}
        t = Talk((isns["client"], isns["primary"], isns["secondary"]))
        play(pair, t.handshake())
        for i in range(1, k + 2):
            play(pair, [t.up(ACK | PSH, i, i, b"u"), t.down(ACK | PSH, i, i + 1, b"d")])
        play(pair, [t.up(FIN | ACK, k + 2, k + 2), t.down(FIN | ACK, k + 2, k + 3), t.up(ACK, k + 3, k + 3)])


def test_equal_isns_leave_everything_as_it_is(pair: Both) -> None:
    for isn in (0, 5_000, MOD - 1):
        segments = whole(Talk((7, isn, isn)))
        assert all(s.sent == s.right for s in segments)
        play(pair, segments)


def test_an_odd_and_an_even_payload_and_every_checksum_carry(pair: Both) -> None:
    """Offsets that make each 16-bit half wrap, on payloads of every parity: sums fold once, twice, or not at all."""
    for offset in (1, 0xFFFF, 0x1_0000, 0xFFFF_FFFF, 0x8000_0000, 0xFFFF_0001, 0x0001_FFFF):
        t = Talk((3, 0xFFFF_FF00, (0xFFFF_FF00 + offset) % MOD))
        play(pair, t.handshake())
        for size in range(8):
            play(pair, [t.up(ACK, 1, 1, b"\xff" * size), t.down(ACK, 1, 1, b"\xff" * size)])


def test_retransmissions_in_every_place(pair: Both) -> None:
    t = Talk()
    syn, answer, ack = t.handshake()
    data, reply = t.up(ACK | PSH, 1, 1, b"abc"), t.down(ACK | PSH, 1, 4, b"defg")
    play(pair, [syn, syn, answer, answer, syn, answer, ack, ack, data, data, reply, reply, data, answer, ack, reply])
    fins = [t.up(FIN | ACK, 4, 5), t.down(FIN | ACK, 5, 5), t.up(ACK, 5, 6)]
    play(pair, [fins[0], *fins, *fins, data, reply])


@pytest.mark.parametrize("order", ["client first", "guest first", "at once", "half closed", "fin with data"])
def test_every_way_to_close(pair: Both, order: str) -> None:
    t = Talk()
    up_fin, down_fin = t.up(FIN | ACK, 1, 1), t.down(FIN | ACK, 1, 1)
    ways = {
        "client first": [up_fin, t.down(ACK, 1, 2), t.down(FIN | ACK, 1, 2), t.up(ACK, 2, 2)],
        "guest first": [down_fin, t.up(ACK, 1, 2), t.up(FIN | ACK, 1, 2), t.down(ACK, 2, 2)],
        "at once": [up_fin, down_fin, t.down(ACK, 2, 2), t.up(ACK, 2, 2)],
        "half closed": [
            down_fin, t.up(ACK, 1, 2, b"more"), t.down(ACK, 2, 5), t.up(ACK | FIN, 5, 2), t.down(ACK, 2, 6)
        ],
        "fin with data": [
            t.up(FIN | ACK | PSH, 1, 1, b"bye"), t.down(FIN | ACK | PSH, 1, 5, b"bye bye"), t.up(ACK, 5, 9)
        ],
    }  # fmt: skip
    late = [t.up(ACK, 2, 2), t.down(ACK, 2, 2), up_fin, down_fin]
    play(pair, [*t.handshake(), *ways[order], *late])


def test_resets_with_ack_from_both_sides(pair: Both) -> None:
    for side in ("up", "down"):
        t = Talk()
        play(pair, [*t.handshake(), getattr(t, side)(RST | ACK, 1, 1), t.up(ACK, 1, 1), t.down(ACK, 1, 1)])
    t = Talk()
    play(pair, [*t.handshake(), t.up(RST, 1), t.down(ACK, 1, 1)])
    refused = Talk()
    play(pair, [refused.up(SYN, 0), refused.down(RST | ACK, 0, 1, known=False)])


def test_many_connections_side_by_side(pair: Both) -> None:
    talks = [Talk((i * 1_000_003 % MOD, i * 77_777_777 % MOD, i * 999_999_937 % MOD)) for i in range(50)]
    for segments in zip(*(whole(t) for t in talks), strict=True):
        play(pair, segments)


def test_the_same_addresses_again_with_other_numbers(pair: Both) -> None:
    one = Play(Talk())
    for i, end in enumerate(("fin up", "reset down", "reset up", "fins cross")):
        for op in ("up", "down", end, "fin down" if end == "fin up" else "late", "late"):
            play(pair, one.do(op, 9, (0, 0, 0)))
        play(pair, one.do("reopen", 9, (i * 7, MOD - i, 12_345 * i)))
    play(pair, one.do("up", 9, (0, 0, 0)))


def test_what_is_not_tcp_passes_untouched(pair: Both) -> None:
    t = Talk()
    play(pair, t.handshake())
    strays = [
        arp_frame(A, B), icmp_frame(A, B), icmp_frame("2001:db8::9", "2001:db8::1"), udp_frame(t.host, B, t.port, 80),
        udp_frame(A, B, 53, 53, b"x" * 1400), ether(b"\xaa" * 46, 0x0027), ether(b"", 0x0800), ether(b"E", 0x0800),
    ]  # fmt: skip
    for frame in strays:
        play(pair, [untouched("net", frame), untouched("guest", frame)])
    play(pair, [t.up(ACK, 1, 1), t.down(ACK, 1, 1)])


def test_segments_of_connections_never_seen_pass_untouched(pair: Both) -> None:
    t = Talk()
    for flags in (ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, 0, FIN, PSH):
        for port in ("net", "guest"):
            hosts = (t.host, t.guest, t.port, 80) if port == "net" else (t.guest, t.host, 80, t.port)
            play(pair, [untouched(port, tcp_frame(*hosts, seq=9, ack=9, flags=flags, payload=b"p"))])


def test_flags_that_make_no_sense_pass_and_change_nothing(pair: Both) -> None:
    t = Talk()
    play(pair, t.handshake())
    for flags in (0, FIN, PSH, FIN | PSH | 32, SYN | FIN, SYN | RST, SYN | FIN | RST):
        if flags & SYN:  # from the guest only: from the client QEMU takes any SYN without ACK for a new connection
            play(pair, [untouched("guest", t.down(flags, 1).sent)])
        else:
            play(pair, [untouched("net", t.up(flags, 1).sent), untouched("guest", t.down(flags, 1).sent)])
        play(pair, [t.up(ACK, 1, 1), t.down(ACK, 1, 1)])


def test_a_runt_of_every_size_passes_and_harms_nothing(pair: Both) -> None:
    """Up to 47 bytes: too short for Ethernet, IP and TCP headers together as QEMU reads them."""
    t = Talk()
    play(pair, t.handshake())
    for size in range(1, 48):
        play(pair, [untouched("net", t.up(ACK, 1, 1).sent[:size]), untouched("guest", t.down(ACK, 1, 1).sent[:size])])
    play(pair, [t.up(ACK, 1, 1), t.down(ACK, 1, 1)])


def test_the_largest_segments_are_rewritten(pair: Both) -> None:
    t = Talk()
    play(pair, t.handshake())
    for size in (1460, 8960, 65_494, 65_495):
        play(pair, [t.up(ACK, 1, 1, b"\x5a" * size), t.down(ACK, 1, 1, b"\xa5" * size)])
    play(pair, [untouched("net", ether(b"\xee" * (69_632 - 14), 0x0800)), t.up(ACK, 1, 1)])


def test_status_off_rewrites_nothing_and_learns_nothing(pair: Both) -> None:
    t, unseen = Talk(), Talk()
    play(pair, t.handshake())
    pair.status(False)
    for s in (t.up(ACK, 1, 1), t.down(ACK, 1, 1), *unseen.handshake()):
        play(pair, [untouched(s.port, s.sent)])
    pair.status(True)
    play(pair, [t.up(ACK, 1, 1), t.down(ACK, 1, 1)])
    play(pair, [untouched(s.port, s.sent) for s in (unseen.up(ACK, 1, 1), unseen.down(ACK, 1, 1))])


def test_full_speed_gives_what_one_at_a_time_gives(pair: Both) -> None:
    talks = [Talk((i, i * 1_000_003, i * 77_777_777 % MOD)) for i in range(20)]
    for t in talks:
        play(pair, t.handshake())
    up = [t.up(ACK, 1 + i, 1 + i, bytes([i & 255]) * (i % 1400)) for i in range(60) for t in talks]
    down = [t.down(ACK, 1 + i, 1 + i, bytes([i & 255]) * (i * 7 % 1400)) for i in range(60) for t in talks]
    with sending(pair.theirs.links, {"net": [s.sent for s in up], "guest": [s.sent for s in down]}):
        got = receive(pair.theirs.links, {"guest": len(up), "net": len(down)})
    assert pair.theirs.turned() == {}
    ours: dict[str, list[bytes]] = {"guest": [], "net": []}
    for i in range(0, len(up), 100):
        pair.ours.rig.feed("tx_in", *(s.sent for s in up[i : i + 100]))
        pair.ours.rig.feed("rx_in", *(s.sent for s in down[i : i + 100]))
        for name, many in pair.ours.turned().items():
            ours[name] += many
    assert got == ours == {"guest": [s.right for s in up], "net": [s.right for s in down]}
    assert TALLY.frames > 0
