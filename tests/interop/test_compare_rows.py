"""Where ours is deliberately better: QEMU's behaviour as seen, ours as promised, row by row of behaviour.md, section 5.

A test's id names its row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.interop.compare_pair import MS, SERVER, Ours, Reference, Scenario
from tests.interop.compare_rows import Row, row
from tests.interop.test_compare_tcp import handshake
from tests.packets import ACK, FIN, MOD, P_TCP, RST, SYN, fragments, hop_by_hop, ip_frame, tcp, udp, udp_frame
from tools import qemu

pytest_plugins = ("tests.interop.compare_plugin",)
pytestmark = pytest.mark.skipif(not qemu.available(), reason=f"needs Debian's package {qemu.PACKAGE}")
Make = Callable[..., Scenario]


@row(Row.OUT_OF_ORDER)
def test_the_secondarys_segments_are_reassembled(scenario: Make, row: Row) -> None:
    """QEMU asks for a checkpoint; ours waits for the missing one."""
    with scenario() as s:
        handshake(s, 1_000)
        p = s.seg(1_001, b"helloworld")
        s.primary(p)
        early = s.secondary(s.seg(1_006, b"world"))
        assert (early.out, early.asks) == (([], []), (1, 0))
        assert s.secondary(s.seg(1_001, b"hello")).out == ([p], [p])


@row(Row.RETRANSMIT)
def test_a_retransmission_of_compared_bytes_leaves_at_once(scenario: Make, row: Row) -> None:
    """QEMU holds it until the secondary says anything."""
    with scenario() as s:
        handshake(s, 1_000)
        p = s.seg(1_001, b"hello")
        s.secondary(p)
        s.primary(p)
        assert s.primary(p).out == ([], [p])
        assert s.secondary(s.seg(1_006)).out == ([p], [])


@row(Row.ACKS)
def test_an_acknowledgement_waits_for_the_secondarys(scenario: Make, row: Row) -> None:
    """QEMU tells the client that 1,000 bytes are safe which the secondary has not acknowledged; ours does not."""
    with scenario({row}) as s:
        handshake(s, 1_000)
        data, pure = s.seg(1_001, b"hello", ack=6_000), s.seg(1_006, ack=7_000)
        s.primary(data)
        assert s.secondary(s.seg(1_001, b"hello", ack=5_000)).out == ([data], [])
        assert s.secondary(s.seg(1_006, ack=6_000)).out == ([], [data])
        assert s.primary(pure).out == ([pure], [])
        assert s.secondary(s.seg(1_006, ack=7_000)).out == ([], [pure])
        assert s.used[row] == 2 and s.asked == [0, 0]


@row(Row.ACKS)
def test_relaxed_a_pure_acknowledgement_goes_at_once(scenario: Make, row: Row) -> None:
    """QEMU holds it until the secondary says anything, be it old."""
    with scenario(ack_policy="relaxed") as s:
        handshake(s, 1_000)
        pure = s.seg(1_001, ack=7_000)
        assert s.primary(pure).out == ([], [pure])
        assert s.secondary(s.seg(1_001, ack=1)).out == ([pure], [])


@row(Row.FLAGS)
@pytest.mark.parametrize("flags", [FIN | ACK, RST | ACK, RST, SYN | ACK])
def test_a_flag_waits_until_the_secondary_sends_it_too(scenario: Make, row: Row, flags: int) -> None:
    """QEMU releases it with whatever the secondary sends."""
    with scenario({row}) as s:
        seq, frame = 1_000, s.seg(1_000, flags=SYN | ACK)
        if flags != SYN | ACK:
            handshake(s, 1_000)
            seq, frame = 1_001, s.seg(1_001, flags=flags)
        assert s.primary(frame).out == ([], [])
        assert s.secondary(s.seg(seq)).out == ([frame], [])
        assert s.secondary(s.seg(seq if flags != SYN | ACK else 9, flags=flags)).out == ([], [frame])
        assert s.used[row] >= 1 and s.asked == [0, 0]


@row(Row.FLAGS)
def test_a_fin_where_the_other_side_goes_on_is_a_difference(scenario: Make, row: Row) -> None:
    """QEMU lets the FIN out and asks for nothing; the client is told that the stream has ended."""
    with scenario({row}) as s:
        handshake(s, 1_000)
        fin = s.seg(1_001, flags=FIN | ACK)
        s.primary(fin)
        step = s.secondary(s.seg(1_001, b"more"))
        assert (step.out, step.asks) == (([fin], []), (0, 1))


@row(Row.SERIAL)
def test_an_acknowledgement_beyond_the_wrap(scenario: Make, row: Row) -> None:
    """The primary acknowledges past 2^32, the secondary not yet: to QEMU 3 is less, and it releases; ours waits.

    Without a wrap in between QEMU holds such a segment too (and asks).
    """
    with scenario({Row.ACKS}) as s:
        handshake(s, 1_000, ack=MOD - 10)
        p = s.seg(1_001, b"hello", ack=3)
        s.primary(p)
        step = s.secondary(s.seg(1_001, b"helloworld", ack=MOD - 5))
        assert (step.out, step.asks) == (([p], []), (0, 0))
        assert s.secondary(s.seg(1_011, ack=3)).out == ([], [p])
    with scenario() as s:
        handshake(s, 1_000)
        p = s.seg(1_001, b"hello", ack=6_000)
        s.primary(p)
        step = s.secondary(s.seg(1_001, b"helloworld", ack=5_500))
        assert (step.out, step.asks) == (([], []), (1, 0))


@row(Row.SERIAL)
def test_position_zero_is_an_ordinary_one(scenario: Make, row: Row) -> None:
    """What was compared ends at 0 exactly: QEMU takes 0 for "nothing yet" and asks about a repetition of it."""
    with scenario() as s:
        handshake(s, MOD - 6)
        last = s.seg(MOD - 5, b"hello")
        s.primary(last)
        s.secondary(last)
        s.primary(last)
        step = s.secondary(s.seg(0, b"world"))
        assert step.asks == (1, 0) and last not in step.out[0]
        assert s.all[1].count(last) == 2


@row(Row.UDP_ORDER)
def test_waiting_datagrams_leave_oldest_first(scenario: Make, row: Row) -> None:
    """QEMU compares the newest first and asks for a checkpoint although nothing differs."""
    with scenario() as s:
        frames = [s.datagram(b"%d" % i) for i in range(3)]
        s.primary(*frames)
        step = s.secondary(*frames)
        assert step.out == (frames[::-1], frames) and step.asks == (2, 0)


@row(Row.UDP_ORDER)
def test_an_overtaken_datagram_gets_a_grace(scenario: Make, row: Row) -> None:
    """QEMU asks at once; ours when ``reorder_grace_ms`` are over and nothing equal has come."""
    with scenario() as s:
        s.primary(s.datagram(b"one"))
        assert s.secondary(s.datagram(b"two")).asks == (1, 0)
        assert s.wait(49 * MS).asks == (0, 0)
        assert s.wait(2 * MS).asks == (0, 1)


@row(Row.ONE_REQUEST)
def test_one_divergence_is_one_request(scenario: Make, row: Row) -> None:
    """QEMU asks again with each further packet of the connection."""
    with scenario() as s:
        handshake(s, 1_000)
        s.primary(s.seg(1_001, b"hello"))
        s.secondary(s.seg(1_001, b"HELLO"))
        for i in range(10):
            s.primary(s.seg(1_006 + 5 * i, b"again"))
        assert s.asked == [11, 1]


@row(Row.TAGS)
@pytest.mark.parametrize("kind", ["IPv6", "IPv6 with extension header", "VLAN", "VLAN over IPv6"])
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_what_qemu_does_not_compare(scenario: Make, row: Row, kind: str, proto: str) -> None:
    """QEMU lets the primary's out unseen; ours compares, and asks where it differs."""
    more: dict[str, Any] = {"vlans": {"VLAN": [5], "VLAN over IPv6": [7]}.get(kind, [])}
    if kind == "IPv6 with extension header":
        more["extensions"] = [hop_by_hop()]
    with scenario({row}) as s:
        src, dst = (f"fd00::{s.number}:2", f"fd00::{s.number}:1") if "IPv6" in kind else (SERVER, s.client())

        def packet(data: bytes, seq: int = 1_001, flags: int = ACK) -> bytes:
            if proto == "udp":
                return udp_frame(src, dst, 53, 5000, data, **more)
            body = tcp(src, dst, 80, 4000, seq=seq, ack=5, flags=flags, payload=data)
            return ip_frame(src, dst, P_TCP, body, **more)

        if proto == "tcp":
            syn = packet(b"", 1_000, SYN | ACK)
            s.primary(syn)
            s.secondary(syn)
        good = packet(b"the same")
        assert s.primary(good).out == ([good], [])
        assert s.secondary(good).out == ([], [good])
        assert set(s.used) == {row}
        bad = packet(b"mine", 1_009)
        assert s.primary(bad).out == ([bad], [])
        s.reference.feed("secondary_in", s.header + packet(b"her.", 1_009), v=len(s.header))
        assert s.reference.settle().asks == 0
        s.ours.feed("secondary_in", s.header + packet(b"her.", 1_009), v=len(s.header))
        seen = s.ours.settle(60 * MS)
        seen.asks += s.ours.settle(60 * MS).asks
        assert (seen.out, seen.asks) == ([], 1)
        assert s.ours.checkpoint().out == [s.header + bad]
        s.all[1].append(bad)


@row(Row.FRAGMENTS)
def test_fragments_in_another_order(scenario: Make, row: Row) -> None:
    """QEMU takes payload for ports, and asks where the newest fragment is not the next; ours compares the datagrams."""
    with scenario({row}) as s:
        mine = fragments(SERVER, s.client(), 17, udp(SERVER, s.client(), 53, 5000, b"q" * 64), 32)
        s.primary(*mine)
        step = s.secondary(*mine)
        assert sorted(step.out[0]) == sorted(step.out[1]) == sorted(mine)
        assert step.asks[0] >= 1 and step.asks[1] == 0


@row(Row.OVERLAP)
@pytest.mark.parametrize("who", ["primary", "secondary"])
def test_segments_that_overlap_what_was_compared(scenario: Make, row: Row, who: str) -> None:
    """A repetition that carries on past what was compared: QEMU compares wrong places and asks, for ever after."""
    with scenario() as s:
        handshake(s, 1_000)
        if who == "secondary":
            p = s.seg(1_001, b"helloworld")
            s.primary(p)
            s.secondary(s.seg(1_001, b"hello"))
            step = s.secondary(s.seg(1_003, b"lloworld"))
        else:
            s.secondary(s.seg(1_001, b"helloworld"))
            s.primary(s.seg(1_001, b"hello"))
            p = s.seg(1_003, b"lloworld")
            step = s.primary(p)
        assert (step.out, step.asks) == (([], [p]), (1, 0))
        further = s.seg(1_011, b"more")
        s.primary(further)
        after = s.secondary(further)
        assert after.out == ([], [further]) and after.asks[1] == 0


@row(Row.PADDING)
def test_ethernet_padding_is_no_data(reference: Reference, row: Row) -> None:
    """QEMU takes the padding of a short acknowledgement for data, and lets a difference out behind it."""
    ours = Ours(vnet=reference.vnet)
    s = Scenario(reference, {row})
    try:
        pad, mine, theirs = s.seg(1_001, pad=True), s.seg(1_001, b"abc"), s.seg(1_001, b"xyz")
        seen = []
        for side in (reference, ours):
            shown, asks = [], 0
            for port, frame in (
                ("primary_in", s.seg(1_000, flags=SYN | ACK)), ("secondary_in", s.seg(9, flags=SYN | ACK)),
                ("primary_in", pad), ("secondary_in", pad), ("primary_in", mine), ("secondary_in", theirs),
            ):  # fmt: skip
                side.feed(port, s.header + frame, v=len(s.header))
                now = side.settle()
                shown += now.out
                asks += now.asks
            seen.append((s.header + mine in shown, asks))
            assert s.header + pad in shown
            side.checkpoint()
        assert seen == [(True, 0), (False, 1)]
    finally:
        ours.close()
        s.ours.close()


@row(Row.OTHER_IP)
def test_the_ip_header_of_other_protocols_may_differ(scenario: Make, row: Row) -> None:
    """QEMU compares the whole frame and asks where the identification differs; ours compares the IP payload."""
    with scenario() as s:
        mine, theirs = (ip_frame(SERVER, s.client(), 47, b"tunnelled", ident=i) for i in (1, 2))
        s.primary(mine)
        step = s.secondary(theirs)
        assert (step.out, step.asks) == (([], [mine]), (1, 0))


def test_without_its_row_a_deviation_fails(scenario: Make) -> None:
    """The relation is held: where no row allows it, ours may not hold what QEMU has released."""

    def acknowledges() -> None:
        with scenario() as s:
            handshake(s, 1_000)
            s.primary(s.seg(1_001, b"hello", ack=6_000))
            s.secondary(s.seg(1_001, b"hello", ack=5_000))

    def ends() -> None:
        with scenario() as s:
            handshake(s, 1_000)
            s.primary(s.seg(1_001, flags=FIN | ACK))
            s.secondary(s.seg(1_001, b"goes on"))

    with pytest.raises(AssertionError, match="row 'acknowledgements'"):
        acknowledges()
    with pytest.raises(AssertionError, match="row 'SYN, FIN, RST and flags'"):
        ends()
