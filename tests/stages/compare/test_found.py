"""colo-compare: scenes in which an earlier version failed, or might have."""

from __future__ import annotations

from typing import Any

import pytest

from ring import layout
from stages.compare.layout import conns, events, options, reasons, scalars
from stages.packets.layout import table
from tests.packets import ACK, RST, SYN, fragments, ip_frame, tcp_frame, udp_frame, vnet_header
from tests.rig import Rig
from tests.stages.compare.audit import audit
from tests.stages.compare.scenes import CLIENT, SERVER
from tests.stages.compare.test_compare import ASK, DONE, MS, PARAMS, check, handshake, rig, seg


# --- checkpoints --------------------------------------------------------------------------------------------------
def test_a_checkpoint_also_settles_connections_that_hold_nothing() -> None:
    """The secondary, a copy now, has acknowledged no more than the primary, whatever it said before."""
    with rig() as g:
        handshake(g)
        g.feed("secondary_in", seg(1001, ack=9000))
        g.run(now=2)
        g.feed("notify_in", DONE)
        g.run(now=3)
        early = seg(1001, ack=9000)
        g.feed("primary_in", early)
        g.run(now=4)
        assert g.take("outdev") == []
        g.feed("secondary_in", early)
        g.run(now=5)
        assert g.take("outdev") == [early]


def test_a_checkpoint_ends_passing() -> None:
    """checkpoint = local, but somebody announced one: the connection is compared again."""
    with rig(checkpoint="local") as g:
        handshake(g)
        g.feed("primary_in", seg(1001, b"one"))
        g.feed("secondary_in", seg(1001, b"two"))
        g.run(now=2)
        assert g.take("outdev") == [seg(1001, b"one")]
        g.command(layout.CMD_CHECKPOINT, 1)
        g.run(now=3)
        g.feed("primary_in", seg(1004, b"next"))
        g.run(now=4)
        assert g.take("outdev") == []
        g.feed("secondary_in", seg(1004, b"next"))
        g.run(now=5)
        assert g.take("outdev") == [seg(1004, b"next")]


def test_a_checkpoint_with_a_full_outdev_goes_on_when_there_is_room() -> None:
    """Nothing new is read before everything held has left; and waiting for room is no work."""
    with rig(ring_size=1 << 17, max_connections=128) as g:
        mine = [udp_frame(SERVER, CLIENT, 53, 1000 + i, bytes(1400)) for i in range(80)]
        for i in range(0, 80, 40):
            g.feed("primary_in", *mine[i : i + 40])
            g.run(now=2)
        plain = [tcp_frame(SERVER, CLIENT, 1, 2)[:30] + bytes(60_000)]  # no IP that can be read: leaves at once
        g.feed("primary_in", *plain)
        g.feed("notify_in", DONE)
        got: list[bytes] = []
        g.run(now=3)
        for _ in range(100):
            assert g.run(now=3) == 0, "nothing was taken, yet there was work"
            more = g._consumers["outdev"].recv_many(3, timeout=0)
            got += more
            g.run(now=3)
            if not more:
                break
        assert got == mine + plain
        check(g)


# --- time ---------------------------------------------------------------------------------------------------------
def test_time_behind_a_full_outdev_is_no_difference() -> None:
    """A reader that stops for longer than compare_timeout must not make everything look overdue."""
    with rig(ring_size=1 << 17) as g:
        handshake(g)
        filler = [b"x" * 60_000, b"y" * 60_000, b"z" * 60_000]
        g.feed("primary_in", seg(1001, b"late"))
        g.run(now=1 * MS)
        for frame in filler[:2]:
            g.feed("primary_in", frame)
            g.run(now=2 * MS)
        udp = udp_frame(SERVER, CLIENT, 53, 9, bytes(20_000))
        g.feed("secondary_in", udp, seg(1001, b"late"))
        g.feed("primary_in", udp)
        for at in range(1000, 9000, 500):
            g.run(now=at * MS)
        g.take("outdev")
        g.run(now=9000 * MS)
        assert check(g)["divergences"] == 0 and check(g)["held"] == 0


def test_steady_disorder_is_no_difference() -> None:
    """A flow in which both sides always hold something, but nothing for longer than reorder_grace_ms."""
    names = [b"%04d" % i for i in range(60)]
    other = [names[i ^ 1] for i in range(60)]
    with rig() as g:
        g.feed("primary_in", udp_frame(SERVER, CLIENT, 53, 9, names[0]))
        for i in range(1, 60):
            g.feed("primary_in", udp_frame(SERVER, CLIENT, 53, 9, names[i]))
            g.feed("secondary_in", udp_frame(SERVER, CLIENT, 53, 9, other[i - 1]))
            g.run(now=i * 20 * MS)
        g.feed("secondary_in", udp_frame(SERVER, CLIENT, 53, 9, other[59]))
        g.run(now=60 * 20 * MS)
        c = check(g)
        assert (c["divergences"], c["held"]) == (0, 0)


def test_local_mode_gives_up_a_secondary_life_that_the_primary_never_begins() -> None:
    """The secondary alone answers a SYN and sends: counted once, dropped, and then there is nothing to do."""
    with rig(checkpoint="local") as g:
        handshake(g)
        g.feed("secondary_in", seg(5, flags=SYN | ACK), seg(9001, b"alone"))
        g.run(now=10 * MS)
        g.run(now=4000 * MS, cycles=50)
        assert g.run(now=4000 * MS) == 0
        c = check(g)
        assert (c["divergences"], c["held"]) == (1, 0)


# --- memory, room, tables -----------------------------------------------------------------------------------------
def test_queues_full_by_turns_are_not_stuck() -> None:
    """The primary's queue fills, the secondary empties it and runs ahead, all in one burst: no deadlock, no request."""
    mine = [seg(1001 + i, b"x") for i in range(200)]
    with rig(max_queue_size=16) as g:
        handshake(g)
        g.feed("primary_in", *mine)
        g.run(now=2)
        g.feed("secondary_in", *mine)
        g.run(now=3)
        assert g.take("outdev") == mine
        c = check(g)
        assert (c["divergences"], c["checkpoints_asked"], c["held"]) == (0, 0, 0)


def test_a_row_on_the_work_list_is_not_evicted() -> None:
    """checkpoint = local, a table with every row in use, and a new connection in the very next packet."""
    with rig(checkpoint="local", max_connections=4) as g:
        for port in range(4):
            handshake(g, port=4000 + port)
        for turn in range(40):
            port = 4000 + turn % 4
            g.feed("primary_in", seg(1001, b"one", port=port))
            g.feed("secondary_in", seg(1001, b"two", port=port))
            g.run(now=10 + turn)
            fresh = udp_frame(SERVER, CLIENT, 53, turn, b"u")
            g.feed("primary_in", seg(1001 + turn, b"1", port=port), fresh)
            g.feed("secondary_in", fresh)
            g.run(now=10 + turn)
            check(g)
            audit(g)
        assert check(g)["connections"] == 4


def test_an_acknowledgement_counts_while_its_segment_waits_for_room() -> None:
    """The secondary's queue is full: the ACK in the segment that waits still frees the primary's."""
    with rig(max_queue_size=4) as g:
        handshake(g)
        waiting = seg(1001, ack=9000)
        g.feed("primary_in", waiting)
        for i in range(4):
            g.feed("secondary_in", seg(1001 + i, b"x"))
        g.feed("secondary_in", seg(1005, b"x", ack=9000))
        g.run(now=2)
        assert g.take("outdev") == [waiting]
        check(g)


# --- segments with odd numbers ------------------------------------------------------------------------------------
def test_keepalives_and_resets_do_not_say_where_a_stream_is() -> None:
    """Picked up in the middle: the first packet is one byte back, or a reset with number 0."""
    for first in (seg(1000), seg(0, flags=RST)):
        with rig(ack_policy="relaxed") as g:
            g.feed("primary_in", first)
            g.feed("secondary_in", first)
            g.run(now=1)
            data = seg(1001, b"data")
            g.feed("primary_in", data)
            g.run(now=2)
            assert data not in g.take("outdev")
            g.feed("secondary_in", data)
            g.run(now=3)
            assert g.take("outdev")[-1] == data
            assert check(g)["held"] == 0


def test_a_reset_does_not_overtake_data() -> None:
    """FIFO: the client must get what was sent before the reset."""
    with rig() as g:
        handshake(g)
        data, reset = seg(1001, b"data"), seg(1005, flags=RST | ACK)
        g.feed("primary_in", data)
        g.feed("secondary_in", reset)
        g.run(now=2)
        g.feed("primary_in", reset)
        g.run(now=3)
        assert g.take("outdev") == []
        g.feed("secondary_in", data)
        g.run(now=4)
        assert g.take("outdev") == [data, reset]


@pytest.mark.parametrize("primary_first", [True, False])
def test_data_in_a_syn_is_compared(primary_first: bool) -> None:
    """RFC 7413, a connection that the guest opens: each SYN has an ISN of its own, their data must be equal."""
    for theirs, equal in ((b"hello", True), (b"jello", False)):
        with rig() as g:
            mine = seg(1000, b"hello", flags=SYN, ack=0)
            both = [("primary_in", mine), ("secondary_in", seg(70_000, theirs, flags=SYN, ack=0))]
            for port, frame in both if primary_first else both[::-1]:
                g.feed(port, frame)
                g.run(now=2)
            assert g.take("outdev") == ([mine] if equal else [])
            assert check(g)["diverged_payload"] == (not equal)


def test_a_syn_sent_again_takes_back_no_acknowledgement() -> None:
    """The secondary's SYN+ACK comes once more, late, with the old ACK."""
    with rig() as g:
        handshake(g)
        g.feed("secondary_in", seg(1001, ack=9000), seg(77777, flags=SYN | ACK))
        g.run(now=2)
        g.feed("primary_in", seg(1001, ack=9000))
        g.run(now=3)
        assert g.take("outdev") == [seg(1001, ack=9000)]


# --- not TCP, other framings --------------------------------------------------------------------------------------
def test_fragments_and_empty_payloads_are_compared() -> None:
    """Fragments of a datagram by their bytes, a datagram without any too; ports 0 and 0 are another conversation."""
    body = udp_frame(SERVER, CLIENT, 53, 9, bytes(range(256)) * 12)[34:]
    frames = fragments(SERVER, CLIENT, 17, body, 800)
    frames += [udp_frame(SERVER, CLIENT, 53, 9), ip_frame(SERVER, CLIENT, 99, b""), tcp_frame(SERVER, CLIENT, 0, 0)]
    frames += fragments(SERVER, CLIENT, 6, bytes(64), 32)
    with rig(ack_policy="relaxed") as g:
        g.feed("primary_in", *frames)
        g.run(now=1)
        g.take("outdev")
        held = check(g)["held_primary"]
        assert held == len(frames) - 1  # all but the bare TCP segment
        g.feed("secondary_in", *frames)
        g.run(now=2)
        assert len(g.take("outdev")) == held
        assert check(g)["held"] == 0 and check(g)["divergences"] == 0


@pytest.mark.parametrize("size", [0, 10, 12])
def test_frames_with_a_vnet_header(size: int) -> None:
    """V from 0 to 12: the header is not compared, and it leaves with the primary's frame."""
    ports = ("primary_in", "secondary_in", "outdev")
    with Rig("colo-compare", PARAMS, ports=ports, vnet=ports) as g:
        g.run(now=1)
        mine = [
            vnet_header(needs_csum=True, size=size)[:size] + f for f in (seg(1000, flags=SYN | ACK), seg(1001, b"a"))
        ]
        theirs = [bytes(size) + f for f in (seg(5, flags=SYN | ACK), seg(1001, b"a"))]
        for i in range(2):
            g.feed("primary_in", mine[i], vnet_hdr_len=size)
            g.feed("secondary_in", theirs[i], vnet_hdr_len=size)
        g.run(now=2)
        assert g.take("outdev") == mine
        assert check(g)["held"] == 0


def test_the_largest_frame_is_held_and_released() -> None:
    """69,632 bytes, padding beyond the datagram included."""
    frame = udp_frame(SERVER, CLIENT, 53, 9, bytes(65_000)).ljust(69_632, b"\1")
    with rig() as g:
        g.feed("primary_in", frame)
        g.run(now=1)
        g.feed("secondary_in", frame)
        g.run(now=2)
        assert g.take("outdev") == [frame]


def test_twins_must_be_as_long_as_they_say() -> None:
    """IPv6: equal frames but for the payload length are no twins."""
    six = {"src": "fd00::2", "dst": "fd00::1", "sport": 80, "dport": 9}

    def make(data: bytes, flags: int = ACK, seq: int = 1001) -> bytes:
        return tcp_frame(seq=seq, ack=5000, flags=flags, payload=data, **six)  # type: ignore[arg-type]

    with rig() as g:
        for data, flags, seq in ((b"", SYN | ACK, 1000), (b"first", ACK, 1001)):
            g.feed("primary_in", make(data, flags, seq))
            g.feed("secondary_in", make(data, flags, seq))
            g.run(now=2)
        assert len(g.take("outdev")) == 2
        long, short = make(b"0123456789", seq=1006), make(b"01234", seq=1006) + b"56789"
        g.feed("primary_in", long)
        g.feed("secondary_in", short)
        g.run(now=3)
        assert g.take("outdev") == []


# --- links and messages -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "lost"), [((1,), 0), ((0, 1), 0), ((0, 2), 1), ((0, 3), 1), ((1, 3), 1), ((1, 2, 3), 1)]
)
def test_every_loss_of_a_link_counts(values: tuple[int, ...], lost: int) -> None:
    """Also one that came and went between two looks; the first connect is none."""
    made: Any = Rig("colo-compare", PARAMS)
    with made as g:
        for value in values:
            g.rings["primary_in"].w[layout.P_LINK] = value
            g.run(now=2)
        assert check(g)["links_lost"] == lost and len(g.take("notify_out")) == min(lost, 1)


def test_one_request_while_it_is_in_flight() -> None:
    """A link lost, a difference, a timeout: one DO_CHECKPOINT; after the answer the next one may be asked."""
    with rig() as g:
        handshake(g)
        handshake(g, port=4001)
        g.feed("primary_in", seg(1001, b"one"), udp_frame(SERVER, CLIENT, 53, 1, b"never"))
        g.feed("secondary_in", seg(1001, b"two"))
        g.run(now=10 * MS)
        assert g.take("notify_out") == [ASK]
        g.rings["primary_in"].w[layout.P_LINK] += 2
        g.run(now=20 * MS)
        g.run(now=3005 * MS)
        assert g.take("notify_out") == []
        g.run(now=3012 * MS)
        assert g.take("notify_out") == [ASK] and check(g)["checkpoints_asked_again"] == 1
        g.feed("notify_in", DONE, DONE)
        g.run(now=3013 * MS)
        assert check(g)["held"] == 0 and g.take("notify_out") == []
        g.feed("primary_in", seg(1001, b"one", port=4001))
        g.feed("secondary_in", seg(1001, b"two", port=4001))
        g.run(now=3014 * MS)
        assert g.take("notify_out") == []  # checkpoint_interval_ms
        g.run(now=3033 * MS)
        assert g.take("notify_out") == [ASK]


def test_what_the_secondary_sent_twice_does_not_stay_behind() -> None:
    """Both copies wait, the primary's segment is the equal of both: nothing is left to become overdue."""
    with rig() as g:
        handshake(g)
        g.feed("secondary_in", seg(1001, b"twice"), seg(1001, b"twice"))
        g.run(now=2)
        g.feed("primary_in", seg(1001, b"twice"))
        g.run(now=3)
        assert check(g)["held"] == 0


def test_a_reset_that_came_before_the_primarys_syn_still_counts() -> None:
    """The secondary has lived the whole connection before the primary begins."""
    with rig() as g:
        frames = [seg(1000, flags=SYN | ACK), seg(1001, b"all"), seg(1004, flags=RST | ACK)]
        g.feed("secondary_in", *frames)
        g.run(now=2)
        g.feed("primary_in", *frames)
        g.run(now=3)
        assert g.take("outdev") == frames
        assert check(g)["held"] == 0


def test_positions_count_from_the_syn_past_two_gib_and_are_unknown_without_one() -> None:
    """Modulo 2^32; -1 where no SYN was seen."""
    for syn, seq, expected in ((True, 1001 + (3 << 30), 3 << 30), (False, 5, -1)):
        with rig() as g:
            if syn:
                handshake(g)
                for k in range(1, 4):  # a stream that is compared in steps of a GiB, as far as numbers go
                    row = (
                        int(g.stage.w[options.TABLE])
                        + table.DESCRIPTOR
                        + int(g.stage.w[int(g.stage.w[options.TABLE]) + 1])
                    )
                    g.stage.w[row + conns.COMPARED] = g.stage.w[row + conns.PRIMARY_NEXT] = 1001 + (k << 30)
            g.feed("primary_in", seg(seq, b"one"))
            g.feed("secondary_in", seg(seq, b"two"))
            g.run(now=2)
            e = int(g.stage.w[options.EVENTS]) + (g.stage.scalar(scalars.EVENTS) - 1) * events.WORDS
            assert (g.stage.w[e + events.REASON], g.stage.w[e + events.POSITION]) == (reasons.PAYLOAD, expected)
