"""Who connects to a server is a peer with its first byte, or when it is the newest and there is something to send."""

from __future__ import annotations

import structlog

from ring import layout
from stages.socket import dial
from tests.peers import collect, die, join, links, offered, read, server, turn, until, up, wire


def p_offered(rig) -> int:
    return int(rig.rings["receive"].w[layout.P_OFFERED])


def test_who_only_looks_is_never_a_peer(tmp_path):
    """Ten that connect and leave: nothing is counted, logged or left of them but that somebody was there."""
    with structlog.testing.capture_logs() as logs, server(tmp_path / "s") as (rig, connect):
        before = links(rig)[0]
        for _ in range(10):
            probe = connect()
            assert offered(rig)
            probe.close()
            until(rig, lambda: not offered(rig))
        assert links(rig)[0] == before
        assert (rig.counters()["connects"], rig.counters()["disconnects"]) == (0, 0)
    assert [line["event"] for line in logs] == ["listening"]


def test_the_first_byte_makes_a_peer_beside_one_that_only_looks(tmp_path):
    """A monitor that stays refuses nobody."""
    with server(tmp_path / "s") as (rig, connect):
        probe, peer = connect(), connect(wait=False)
        before = links(rig)
        assert (before[0] & 1, before[1] & 1, p_offered(rig)) == (0, 1, 1)
        join(rig, peer)
        assert (links(rig)[0] & 1, links(rig)[1], p_offered(rig)) == (1, before[1], 0)
        probe.close()
        turn(rig)
        assert up(rig)
        assert rig.counters()["disconnects"] == 0


def test_the_newest_gets_what_there_is_to_send(tmp_path):
    """A peer that never says anything: the outdev of a mirror, of a redirector, of a compare."""
    with server(tmp_path / "s") as (rig, connect):
        old, new = connect(), connect(wait=False)
        until(rig, lambda: len(rig.stage._dialer._offers) == 2)
        rig.feed("send", b"copy")
        assert read(rig, new, 8) == wire(b"copy")
        old.close()
        turn(rig)
        rig.feed("send", b"more")
        assert read(rig, new, 8) == wire(b"more")
        assert rig.counters()["connects"] == 1


def test_who_waited_behind_a_peer_is_the_next(tmp_path):
    """What it had said meanwhile is not lost; the sender's link word has both edges in between."""
    with server(tmp_path / "s") as (rig, connect):
        waiting, peer = connect(), connect(wait=False)
        join(rig, peer)
        waiting.sendall(wire(b"later"))
        before = links(rig)
        peer.close()
        assert collect(rig, 1) == [b"later"]
        assert links(rig) == [word + 2 for word in before]


def test_one_that_has_left_is_not_sent_anything(tmp_path):
    """Frames stay in the ring for the next."""
    with server(tmp_path / "s") as (rig, connect):
        connect().close()
        rig.feed("send", b"kept")
        until(rig, lambda: not offered(rig))
        assert rig.rings["send"].used == 8
        assert read(rig, connect(), 8) == wire(b"kept")


def test_of_many_that_stay_the_oldest_goes(tmp_path):
    """No flood of silent connections keeps a peer out."""
    with server(tmp_path / "s") as (rig, connect):
        probes = [connect(wait=False)]
        for n in range(2, dial._OFFERS + 2):
            until(rig, lambda n=n: len(rig.stage._dialer._offers) == n - 1)
            probes.append(connect(wait=False))
        until(rig, lambda: _closed(probes[0]))
        join(rig, connect(wait=False))


def _closed(sock) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


def test_a_new_incarnation_forgets_who_was_offered(tmp_path):
    """Their connections went with the process."""
    with server(tmp_path / "s") as (rig, connect):
        connect()
        assert p_offered(rig) == 1
        die(rig)
        rig.restart()
        assert (p_offered(rig), [word & 1 for word in links(rig)]) == (0, [0, 0])
