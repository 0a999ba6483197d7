"""colo-compare: what is released, held, dropped and asked for."""

from __future__ import annotations

from typing import Any

import pytest

from ring import layout
from tests.packets import ACK, FIN, PSH, RST, SYN, icmp_frame, tcp_frame, udp_frame
from tests.rig import Rig

PARAMS = {
    "compare_timeout": 3000,
    "expired_scan_cycle": 1000,
    "max_queue_size": 1024,
    "ack_policy": "strict",
    "checkpoint": "frame",
    "max_connections": 64,
    "reorder_grace_ms": 50,
    "hold_memory": 2 << 20,
    "vnet_hdr_support": False,
}
MS = 1_000_000
SERVER, CLIENT = "10.0.0.2", "10.0.0.1"
ASK, DONE = b"DO_CHECKPOINT", b"COLO_CHECKPOINT"


def rig(ring_size: int = 1 << 18, **params: Any) -> Rig:
    """A compare on a bench."""
    made = Rig("colo-compare", PARAMS | params, ring_size=ring_size)
    made.run(now=1)  # it looks at its links once
    return made


def seg(seq: int, data: bytes = b"", flags: int = ACK, ack: int = 5000, port: int = 4000, **more: Any) -> bytes:
    """A segment from the server to the client."""
    return tcp_frame(SERVER, CLIENT, 80, port, seq=seq & 0xFFFFFFFF, ack=ack, flags=flags, payload=data, **more)


def handshake(g: Rig, isn: int = 1000, other: int = 77777, port: int = 4000, now: int = 1) -> None:
    """SYN+ACK of both sides, each with an initial sequence number of its own."""
    g.feed("primary_in", seg(isn, flags=SYN | ACK, port=port))
    g.feed("secondary_in", seg(other, flags=SYN | ACK, port=port))
    g.run(now=now)
    assert g.take("outdev") == [seg(isn, flags=SYN | ACK, port=port)]


def check(g: Rig) -> dict[str, int]:
    """The counters, after every balance of the kind was checked."""
    c = g.counters()
    for balance in g.kind.balances:
        assert sum(c[n] for n in balance.left) == sum(c[n] for n in balance.right), (balance.label, c)
    return c


def test_equal_segments_release_the_primary() -> None:
    """The primary's packet leaves, the secondary's is dropped, whichever comes first."""
    with rig() as g:
        handshake(g)
        p = seg(1001, b"hello")
        g.feed("primary_in", p)
        g.run(now=2)
        assert g.take("outdev") == []
        g.feed("secondary_in", p)
        g.run(now=3)
        assert g.take("outdev") == [p]
        q = seg(1006, b"world")
        g.feed("secondary_in", q)
        g.run(now=4)
        assert g.take("outdev") == []
        g.feed("primary_in", q)
        g.run(now=5)
        assert g.take("outdev") == [q]
        c = check(g)
        assert (c["released"], c["matched"], c["held"], c["divergences"]) == (3, 3, 0, 0)


def test_a_keepalive_with_its_byte_of_garbage_says_not_where_the_stream_is() -> None:
    """No SYN was seen, and the connection rests: the probe's byte was sent long ago, and the secondary sends none."""
    with rig() as g:
        probe, data, more = seg(1003, b"\0"), seg(1004, b"hello"), seg(1009, b"\0")
        g.feed("secondary_in", seg(1003))
        g.feed("primary_in", probe)
        g.run(now=2)
        assert g.take("outdev") == [probe]
        g.feed("primary_in", data)
        g.run(now=3)
        assert g.take("outdev") == []
        g.feed("secondary_in", data, seg(1003, b"\0"))  # its own clock says so later
        g.run(now=4)
        assert g.take("outdev") == [data]
        # From here on the stream is known, and a zero is a byte like any other.
        g.feed("primary_in", more, probe)
        g.run(now=5)
        assert g.take("outdev") == [probe]
        g.feed("secondary_in", seg(1009, b"\1"))
        g.run(now=6)
        c = check(g)
        assert (c["divergences"], c["diverged_payload"]) == (1, 1)
        assert g.take("outdev") == []


@pytest.mark.parametrize("first", [b"\1", b"\0\0"])
def test_other_data_is_compared_from_its_first_byte_on_where_no_syn_was_seen(first: bytes) -> None:
    """One byte that is no zero, or two that are: nothing leaves before the secondary has said the same."""
    with rig() as g:
        g.feed("secondary_in", seg(1003))
        g.feed("primary_in", seg(1003, first))
        g.run(now=2)
        assert g.take("outdev") == []
        g.feed("secondary_in", seg(1003, first))
        g.run(now=3)
        assert g.take("outdev") == [seg(1003, first)]
        assert check(g)["divergences"] == 0


def test_syn_waits_for_the_secondary() -> None:
    """A SYN+ACK is not shown to the client before the secondary has answered too."""
    with rig() as g:
        g.feed("primary_in", seg(1000, flags=SYN | ACK))
        g.run(now=1)
        assert g.take("outdev") == []
        assert check(g)["held_primary"] == 1


@pytest.mark.parametrize("isn", [0, 0xFFFFFFFF, 0xFFFFFFF0, 0x7FFFFFFF, 0x80000000, 12345])
@pytest.mark.parametrize("cut", [1, 3, 700])
def test_segmentation_is_no_difference(isn: int, cut: int) -> None:
    """Streams are compared as bytes by serial number, whatever the segments and wherever they wrap."""
    data = bytes(range(256)) * 8
    with rig() as g:
        handshake(g, isn)
        first = [seg(isn + 1 + i, data[i : i + 100]) for i in range(0, len(data), 100)]
        second = [seg(isn + 1 + i, data[i : i + cut * 10]) for i in range(0, len(data), cut * 10)]
        g.feed("primary_in", *first)
        g.run(now=2)
        for frame in second:
            g.feed("secondary_in", frame)
            g.run(now=3)
        assert g.take("outdev") == first
        c = check(g)
        assert c["divergences"] == 0 and c["held"] == 0 and c["matched"] == 1 + len(second)


def test_secondary_out_of_order_is_reassembled() -> None:
    """Segments of the secondary may come in any order."""
    data = b"0123456789" * 5
    with rig() as g:
        handshake(g)
        g.feed("primary_in", seg(1001, data))
        for i in (40, 20, 30, 0, 10):
            g.feed("secondary_in", seg(1001 + i, data[i : i + 10]))
            g.run(now=2)
        assert g.take("outdev") == [seg(1001, data)]
        assert check(g)["divergences"] == 0


def test_retransmission_of_compared_data_leaves_at_once() -> None:
    """What was compared once need not be compared again."""
    with rig() as g:
        handshake(g)
        p = seg(1001, b"hello")
        g.feed("primary_in", p)
        g.feed("secondary_in", p)
        g.run(now=2)
        g.feed("primary_in", p)
        g.run(now=3)
        assert g.take("outdev") == [p, p]
        g.feed("secondary_in", p)
        g.run(now=4)
        assert check(g)["matched"] == 3


def test_acknowledgement_waits_for_the_secondary() -> None:
    """strict: the client is never told of data that only the primary has."""
    with rig() as g:
        handshake(g)
        a = seg(1001, ack=6000)
        g.feed("primary_in", a)
        g.run(now=2)
        assert g.take("outdev") == []
        g.feed("secondary_in", seg(1001, ack=5999))
        g.run(now=3)
        assert g.take("outdev") == []
        g.feed("secondary_in", seg(1001, ack=6000))
        g.run(now=4)
        assert g.take("outdev") == [a]
        assert check(g)["secondary_acks"] == 2


def test_relaxed_acknowledgement_goes_at_once() -> None:
    """relaxed: a pure ACK waits for nobody."""
    with rig(ack_policy="relaxed") as g:
        handshake(g)
        g.feed("primary_in", seg(1001, ack=6000))
        g.run(now=2)
        assert len(g.take("outdev")) == 1


def test_data_with_a_newer_ack_waits_too() -> None:
    """Equal payload is not enough: the ACK of the same segment must be covered."""
    with rig() as g:
        handshake(g)
        p = seg(1001, b"hello", ack=9000)
        g.feed("primary_in", p)
        g.feed("secondary_in", seg(1001, b"hello", ack=8000))
        g.run(now=2)
        assert g.take("outdev") == []
        g.feed("secondary_in", seg(1006, ack=9000))
        g.run(now=3)
        assert g.take("outdev") == [p]
        check(g)


def test_difference_asks_once_and_the_checkpoint_settles_it() -> None:
    """One DO_CHECKPOINT however many packets differ; COLO_CHECKPOINT releases the primary's, drops the secondary's."""
    with rig() as g:
        handshake(g)
        mine = [seg(1001 + 5 * i, b"aaaaa") for i in range(20)]
        g.feed("primary_in", *mine)
        g.feed("secondary_in", *[seg(1001 + 5 * i, b"aaXaa") for i in range(20)])
        g.run(now=2)
        assert g.take("outdev") == []
        assert g.take("notify_out") == [ASK]
        g.feed("notify_in", DONE)
        g.run(now=3)
        assert g.take("outdev") == mine
        c = check(g)
        assert (c["divergences"], c["diverged_payload"], c["checkpoints_asked"], c["checkpoints"]) == (1, 1, 1, 1)
        assert c["dropped_at_checkpoint"] == 20 and c["held"] == 0
        # Both are copies now: the next bytes are compared again.
        g.feed("primary_in", seg(1101, b"next"))
        g.feed("secondary_in", seg(1101, b"next"))
        g.run(now=4)
        assert g.take("outdev") == [seg(1101, b"next")]


def test_checkpoint_announced_by_command() -> None:
    """`control NAME checkpoint` settles what is held, once, also over a restart."""
    with rig() as g:
        handshake(g)
        g.feed("primary_in", seg(1001, b"held"))
        g.run(now=2)
        g.command(layout.CMD_CHECKPOINT, 1)
        g.run(now=3)
        assert g.take("outdev") == [seg(1001, b"held")]
        g.restart()
        g.run(now=4)
        assert check(g)["checkpoints"] == 1


def test_local_checkpoint_lets_the_connection_pass() -> None:
    """checkpoint = local: the differing connection goes on uncompared, the others are compared as before."""
    with rig(checkpoint="local") as g:
        handshake(g)
        handshake(g, port=4001)
        g.feed("primary_in", seg(1001, b"primary"), seg(1008, b"more"))
        g.feed("secondary_in", seg(1001, b"secondary"))
        g.run(now=2)
        assert g.take("outdev") == [seg(1001, b"primary"), seg(1008, b"more")]
        g.feed("secondary_in", seg(1010, b"x"))
        g.feed("primary_in", seg(1012, b"tail"), seg(1001, b"waits", port=4001))
        g.run(now=3)
        assert g.take("outdev") == [seg(1012, b"tail")]
        c = check(g)
        assert (c["divergences"], c["dropped_diverged"], c["held_primary"]) == (1, 2, 1)
        # A new connection with the same ports is compared again.
        handshake(g, isn=900000, other=3, now=4)


def test_fin_must_be_sent_by_both() -> None:
    """A FIN where the other side sends data is a difference; at the same place it is none."""
    with rig() as g:
        handshake(g)
        bye = seg(1001, b"bye", FIN | ACK)
        g.feed("primary_in", bye)
        g.feed("secondary_in", seg(1001, b"bye"))
        g.run(now=2)
        assert g.take("outdev") == []
        g.feed("secondary_in", seg(1004, b"", FIN | ACK))
        g.run(now=3)
        assert g.take("outdev") == [bye]
        assert check(g)["divergences"] == 0
    with rig() as g:
        handshake(g)
        g.feed("primary_in", seg(1001, b"bye", FIN | ACK))
        g.feed("secondary_in", seg(1001, b"bye and more"))
        g.run(now=2)
        assert check(g)["diverged_flags"] == 1


def test_rst_waits_for_rst() -> None:
    """An RST leaves when the secondary has reset too."""
    with rig() as g:
        handshake(g)
        g.feed("primary_in", seg(1001, flags=RST | ACK))
        g.run(now=2)
        assert g.take("outdev") == []
        g.feed("secondary_in", seg(1001, flags=RST | ACK))
        g.run(now=3)
        assert g.take("outdev") == [seg(1001, flags=RST | ACK)]


def test_timeout_asks_for_a_checkpoint() -> None:
    """A packet that waited longer than compare_timeout is a difference; the request is repeated if nobody answers."""
    with rig() as g:
        handshake(g)
        g.feed("primary_in", seg(1001, b"alone"))
        g.run(now=10 * MS)
        g.run(now=3009 * MS)
        assert g.take("notify_out") == []
        g.run(now=3011 * MS)
        assert g.take("notify_out") == [ASK]
        g.run(now=6000 * MS)
        assert g.take("notify_out") == []
        g.run(now=6012 * MS)
        assert g.take("notify_out") == [ASK]
        c = check(g)
        assert (c["divergences"], c["checkpoints_asked"], c["checkpoints_asked_again"]) == (1, 1, 1)


def test_timeout_of_the_secondary_in_local_mode() -> None:
    """A secondary that says what the primary does not is a difference too."""
    with rig(checkpoint="local") as g:
        handshake(g)
        g.feed("secondary_in", seg(1001, b"alone"))
        g.run(now=10 * MS)
        g.run(now=3011 * MS)
        c = check(g)
        assert (c["diverged_timeout"], c["dropped_diverged"], c["held"]) == (1, 1, 0)


def test_datagrams_are_matched_oldest_first() -> None:
    """Several equal packets of one flow leave in the order in which they came."""
    with rig() as g:
        mine = [udp_frame(SERVER, CLIENT, 53, 9, b"q%d" % i) for i in range(5)]
        g.feed("primary_in", *mine)
        g.run(now=1)
        g.feed("secondary_in", *mine)
        g.run(now=2)
        assert g.take("outdev") == mine
        assert check(g)["divergences"] == 0


def test_overtaken_datagram_gets_a_grace() -> None:
    """A packet that another overtook is no difference within reorder_grace_ms, and one after it."""
    a, b = (udp_frame(SERVER, CLIENT, 53, 9, x) for x in (b"a", b"b"))
    with rig() as g:
        g.feed("primary_in", a, b)
        g.feed("secondary_in", b)
        g.run(now=1 * MS)
        g.run(now=40 * MS)
        g.feed("secondary_in", a)
        g.run(now=45 * MS)
        assert sorted(g.take("outdev")) == sorted([a, b])
        assert check(g)["divergences"] == 0
        g.feed("primary_in", a)
        g.feed("secondary_in", b)
        g.run(now=60 * MS)
        g.run(now=109 * MS)
        assert g.take("notify_out") == []
        g.run(now=111 * MS)
        assert g.take("notify_out") == [ASK]
        assert check(g)["diverged_order"] == 1


def test_icmp_and_ipv6_and_vlan_are_compared() -> None:
    """Payloads count, not the headers below them."""
    frames = [
        icmp_frame(SERVER, CLIENT),
        tcp_frame("fd00::2", "fd00::1", 80, 9, seq=5, flags=ACK | PSH, payload=b"six"),
        udp_frame(SERVER, CLIENT, 53, 9, b"tagged", vlans=(7,)),
    ]
    with rig(ack_policy="relaxed") as g:
        g.feed("primary_in", *frames)
        g.run(now=1)
        assert g.take("outdev") == []
        g.feed("secondary_in", *frames)
        g.run(now=2)
        assert g.take("outdev") == frames
        check(g)
