"""colo-compare: resets, and what may leave before a SYN and behind a reset."""

from __future__ import annotations

import pytest

from tests.packets import ACK, FIN, RST, SYN
from tests.rig import Rig
from tests.stages.compare.audit import audit
from tests.stages.compare.test_compare import ASK, DONE, MS, check, handshake, rig, seg

RESET = seg(1001, flags=RST | ACK)


def opened_by_guest(g: Rig) -> None:
    """A connection of the guest's own: each side's SYN has no ACK."""
    for flags, ack, mine, theirs in ((SYN, 0, 1000, 77777), (ACK, 5000, 1001, 1001)):
        g.feed("primary_in", seg(mine, flags=flags, ack=ack))
        g.feed("secondary_in", seg(theirs, flags=flags, ack=ack))
        g.run(now=2)
    assert len(g.take("outdev")) == 2


@pytest.mark.parametrize("first", ["primary", "secondary"])
def test_a_reset_waits_for_no_acknowledgement_where_both_reset(first: str) -> None:
    """The secondary has reset before it read the client's last bytes: it will never acknowledge them."""
    before = [seg(1001, b"ab", ack=5200), seg(1003, ack=5200), seg(1003, flags=RST | ACK, ack=5200)]
    feeds = {"primary": before, "secondary": [seg(1001, b"ab", ack=5100), seg(1003, flags=RST, ack=0)]}
    for side in (first, *(set(feeds) - {first})):
        with rig() as g:
            handshake(g)
            for port in (side, *(set(feeds) - {side})):
                g.feed(f"{port}_in", *feeds[port])
                g.run(now=2)
            assert g.take("outdev") == before
            assert check(g)["held"] == 0
            g.run(now=4000 * MS)
            assert g.take("notify_out") == []
            audit(g)


def test_what_only_the_primary_acknowledges_waits_where_it_goes_on() -> None:
    """The secondary's reset alone makes no acknowledgement true."""
    with rig() as g:
        handshake(g)
        g.feed("secondary_in", RESET)
        g.feed("primary_in", seg(1001, ack=5200))
        g.run(now=2)
        assert g.take("outdev") == []


@pytest.mark.parametrize("first", ["primary", "secondary"])
def test_a_reset_before_bytes_that_the_secondary_has_sent_differs(first: str) -> None:
    """Both reset, but not at the same place."""
    feeds = {"primary": [RESET], "secondary": [seg(1001, b"data"), seg(1005, flags=RST | ACK)]}
    with rig() as g:
        handshake(g)
        for port in (first, *(set(feeds) - {first})):
            g.feed(f"{port}_in", *feeds[port])
            g.run(now=2)
        assert g.take("outdev") == []
        g.run(now=3100 * MS)
        assert g.take("notify_out") == [ASK] and check(g)["diverged_timeout"] == 1
        g.feed("notify_in", DONE)
        g.run(now=3101 * MS)
        assert g.take("outdev") == [RESET] and check(g)["held"] == 0


def test_a_guest_that_opens_anew_lets_no_reset_of_its_own_out() -> None:
    """The client has not begun anew: only a reset that both send may end its connection."""
    again = seg(9000, flags=SYN, ack=0)
    for agrees in (True, False):
        with rig() as g:
            opened_by_guest(g)
            g.feed("primary_in", RESET, again)
            g.run(now=3)
            assert g.take("outdev") == []
            if agrees:
                g.feed("secondary_in", RESET, seg(5, flags=SYN, ack=0))
                g.run(now=4)
                assert g.take("outdev") == [RESET, again] and check(g)["held"] == 0
            else:
                g.run(now=3100 * MS)
                assert g.take("outdev") == [] and g.take("notify_out") == [ASK]
            audit(g)


def test_a_reset_counts_though_the_secondary_has_begun_anew_since() -> None:
    with rig() as g:
        handshake(g)
        again = [seg(isn, flags=SYN | ACK, ack=9000) for isn in (500_000, 600_000)]
        g.feed("secondary_in", RESET, again[0])
        g.run(now=2)
        g.feed("primary_in", RESET)
        g.run(now=3)
        assert g.take("outdev") == [RESET]
        g.feed("primary_in", again[1])
        g.run(now=4)
        assert g.take("outdev") == [again[1]] and check(g)["held"] == 0
        audit(g)


def test_resets_after_which_both_go_on_were_no_end() -> None:
    """A handshake refuses a wrong acknowledgement with a reset, and stays (RFC 9293, 3.10.7.4)."""
    with rig() as g:
        handshake(g)
        for frame in (seg(123_456, flags=RST, ack=0), seg(1001, b"data"), seg(1005, b"more")):
            g.feed("primary_in", frame)
            g.feed("secondary_in", frame)
            g.run(now=2)
            assert g.take("outdev") == [frame]
        g.feed("primary_in", seg(1009, flags=RST | ACK))
        g.run(now=3)
        assert g.take("outdev") == []
        g.run(now=3100 * MS)
        assert g.take("notify_out") == [ASK]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("first", ["primary", "secondary"])
def test_resets_after_which_both_go_on_were_no_end_though_one_side_lags(first: str, times: int) -> None:
    """Also where a whole answer of one side came before any of the other's."""
    frames = [*[seg(123_456, flags=RST, ack=0)] * times, seg(1001, b"data")]
    with rig() as g:
        handshake(g)
        for port in (first, *({"primary", "secondary"} - {first})):
            g.feed(f"{port}_in", *frames)
            g.run(now=2)
        assert sorted(g.take("outdev")) == sorted(frames) and check(g)["held"] == 0
        g.run(now=3000 * MS)
        g.feed("primary_in", seg(1005, flags=RST | ACK))
        g.run(now=3001 * MS)
        assert g.take("outdev") == [] and check(g)["held"] == 1
        g.run(now=6100 * MS)
        assert g.take("notify_out") == [ASK]
        audit(g)


@pytest.mark.parametrize("first", ["primary", "secondary"])
def test_a_reset_behind_one_that_was_no_end_is_matched_though_one_side_lags(first: str) -> None:
    frames = [seg(123_456, flags=RST, ack=0), seg(1001, b"data"), seg(1005, flags=RST | ACK)]
    with rig() as g:
        handshake(g)
        for port in (first, *({"primary", "secondary"} - {first})):
            for frame in frames:
                g.feed(f"{port}_in", frame)
                g.run(now=2)
        assert sorted(g.take("outdev")) == sorted(frames) and check(g)["held"] == 0
        g.run(now=3100 * MS)
        assert g.take("notify_out") == []
        audit(g)


def test_what_the_secondary_acknowledged_before_a_syn_covers_nothing_behind_it() -> None:
    """The primary's new SYN waits; the secondary is still in the former life, with a higher number."""
    with rig() as g:
        handshake(g)
        for side in ("primary_in", "secondary_in"):
            g.feed(side, seg(1001, flags=FIN | ACK, ack=0x40000000))
        g.run(now=2)
        g.take("outdev")
        again, ack = seg(9000, flags=SYN | ACK, ack=0x30000001), seg(9001, ack=0x30000009)
        g.feed("primary_in", again, ack)
        g.feed("secondary_in", seg(1002, ack=0x40000001))
        g.run(now=3)
        assert g.take("outdev") == []
        g.feed("secondary_in", seg(5, flags=SYN | ACK, ack=0x30000001))
        g.run(now=4)
        assert g.take("outdev") == [again]
        g.feed("secondary_in", ack)
        g.run(now=5)
        assert g.take("outdev") == [ack]
