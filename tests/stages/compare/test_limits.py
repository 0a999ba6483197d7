"""colo-compare at its limits: full queues, a full outdev, a full table, lost links, messages, restarts."""

from __future__ import annotations

from ring import layout
from stages.compare import finding
from stages.compare.layout import events, options, scalars
from tests.packets import ACK, RST, SYN, udp_frame
from tests.stages.compare.test_compare import ASK, CLIENT, DONE, SERVER, check, handshake, rig, seg


def test_a_full_queue_is_back_pressure_and_nothing_is_lost() -> None:
    """One side far ahead: the rest waits in the ring; when the other side comes everything leaves, in order."""
    with rig(max_queue_size=16) as g:
        handshake(g)
        mine = [seg(1001 + i, b"x") for i in range(200)]
        g.feed("primary_in", *mine)
        g.run(now=2)
        assert check(g)["held_primary"] == 16
        got = []
        for frame in mine:
            g.feed("secondary_in", frame)
            g.run(now=3)
            got += g.take("outdev")
        assert got == mine
        c = check(g)
        assert c["divergences"] == 0 and c["held"] == 0


def test_slow_outdev_keeps_the_order() -> None:
    """A full outdev holds everything back; first in, first out."""
    with rig(ring_size=1 << 17) as g:
        g.stage.params = g.params
        mine = [udp_frame(SERVER, CLIENT, 53, 9, b"%05d" % i + bytes(1200)) for i in range(90)]
        got: list[bytes] = []
        for k in range(0, 90, 30):
            g.feed("primary_in", *mine[k : k + 30])
            g.feed("secondary_in", *mine[k : k + 30])
            g.run(now=1)
        for _ in range(100):
            got += g._consumers["outdev"].recv_many(7, timeout=0)
            g.run(now=2)
        assert got == mine
        check(g)


def test_full_table_evicts_the_silent() -> None:
    """More connections than rows: the one silent longest is forgotten and counted, none that holds a packet."""
    with rig(max_connections=64) as g:
        g.feed("primary_in", udp_frame(SERVER, CLIENT, 53, 1, b"held"))
        g.run(now=1)
        for i in range(200):
            frame = udp_frame(SERVER, CLIENT, 53, 100 + i, b"x")
            g.feed("primary_in", frame)
            g.feed("secondary_in", frame)
            g.run(now=2 + i)
        c = check(g)
        assert c["connections"] == 64 and c["connections_evicted"] == 201 - 64 and c["held_primary"] == 1
        g.feed("secondary_in", udp_frame(SERVER, CLIENT, 53, 1, b"held"))
        g.run(now=500)
        assert g.take("outdev")[-1] == udp_frame(SERVER, CLIENT, 53, 1, b"held")


def test_lost_link_asks_for_a_checkpoint() -> None:
    """A link that was lost has lost packets."""
    with rig() as g:
        w = g.rings["secondary_in"].w
        w[layout.P_LINK] = 2
        g.run(now=2)
        assert g.take("notify_out") == [ASK]
        w[layout.P_LINK] = 3
        g.run(now=3)
        assert g.take("notify_out") == [ASK]  # again: who answered the first might have done without this secondary
        assert check(g)["links_lost"] == 1


def test_notify_protocol() -> None:
    """The Xen hello is answered, unknown messages are counted, an unasked checkpoint is taken."""
    with rig() as g:
        g.feed("notify_in", b"COLO_USERSPACE_PROXY_INIT", b"nonsense", b"", DONE, b"COLO_CHECKPOINT\0")
        g.run(now=2)
        assert g.take("notify_out") == [b"COLO_COMPARE_GET_XEN_INIT"]
        c = check(g)
        assert (c["notify_unknown"], c["checkpoints"]) == (3, 1)


def test_restart_between_any_two_bursts_changes_nothing() -> None:
    """Everything that the compare knows is in shared memory."""
    data = b"abcdefghij" * 20
    frames = [seg(1001 + i, data[i : i + 10]) for i in range(0, 200, 10)]
    with rig() as g:
        handshake(g)
        got = []
        for frame in frames:
            g.feed("primary_in", frame)
            g.run(now=2)
            g.restart()
            g.feed("secondary_in", frame)
            g.run(now=3)
            g.restart()
            got += g.take("outdev")
        assert got == frames
        check(g)


def test_a_timeout_says_whose_packets_wait_and_for_what() -> None:
    """Of TCP what is missing may be a byte of the side whose later packets wait, or an acknowledgement."""
    scenes = {
        ("primary", "packet", 0): [("primary_in", seg(1001, b"ab"))],
        ("secondary", "packet", 0): [("secondary_in", seg(1001, b"ab"))],
        ("primary", "packet", None): [("primary_in", seg(9000, flags=SYN | ACK))],
        # The secondary's packet is the older one, but a byte of its own is missing before it.
        ("primary", "packet", 1): [
            ("secondary_in", seg(1005, b"later")), ("primary_in", seg(1001, b"a")), ("secondary_in", seg(1001, b"a")),
            ("primary_in", seg(1002, b"bcd")),
        ],
        ("primary", "acknowledgement", 2): [
            ("primary_in", seg(1001, b"ab", ack=6000)), ("secondary_in", seg(1001, b"ab")),
        ],
        ("primary", "packet", 3): [
            ("primary_in", seg(1001, b"abc")), ("secondary_in", seg(1001, b"abc")),
            ("primary_in", seg(1004, flags=RST | ACK)),
        ],
    }  # fmt: skip
    for (side, what, position), feeds in scenes.items():
        with rig() as g:
            handshake(g)
            for port, frame in feeds:
                g.feed(port, frame)
                g.run(now=2)
            g.run(now=5_000_000_000)
            at = int(g.stage.w[options.EVENTS]) + (g.stage.scalar(scalars.EVENTS) - 1) * events.WORDS
            found = finding.verdict(g.stage.w[at : at + events.WORDS].copy(), (), 0)
            assert found["rule"] == "timeout"
            assert (found["waits"], found["waits_for"], found["position"]) == (side, what, position)
            assert side in finding.sentence(found)
