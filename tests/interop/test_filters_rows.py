"""filter-rewriter where ours is better than QEMU 7.2 on purpose: the row, what QEMU gives, and what ours gives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stages.rewriter.layout import counters as counter_words
from tests.interop.filters_feed import TALLY, Both, Ours, Theirs, both, needs_qemu, scenario
from tests.interop.filters_talk import BY_NAME, GUEST_OPENED, Segment, Style, Talk
from tests.packets import (
    ACK,
    FIN,
    MOD,
    P_TCP,
    PSH,
    RST,
    SYN,
    checksum_faults,
    fragments,
    icmp_error,
    ip_frame,
    read,
    tcp_frame,
    vnet_header,
)
from tests.rig import Rig
from tools import qemu

__all__ = ["scenario"]
pytestmark = needs_qemu


@pytest.fixture
def pair() -> Iterator[Both]:
    with both("filter-rewriter") as made:
        yield made


def theirs_and_ours(pair: Both, s: Segment, row: str = "") -> tuple[bytes, bytes]:
    """What QEMU makes of a segment, and what ours makes of it: right, with right checksums."""
    theirs, ours = pair.apart(s.port, s.sent)
    assert ours == {s.out: [s.right]}
    assert checksum_faults(s.right) == []
    (out,) = theirs[s.out]
    if out != s.right:
        TALLY.note(s.row or row)
    return out, s.right


def same(pair: Both, *segments: Segment) -> None:
    """Steps in which QEMU is right as well."""
    for s in segments:
        assert pair.step(s.port, s.sent) == {s.out: [s.right]}


def differing(one: bytes, other: bytes) -> set[int]:
    """Places in which two frames of one size differ."""
    return {k for k, (a, b) in enumerate(zip(one, other, strict=True)) if a != b}


def moved(before: bytes, after: bytes) -> tuple[int, int]:
    """How far seq and ack were moved."""
    a, b = read(before), read(after)
    return (b.seq - a.seq) % MOD, (b.ack - a.ack) % MOD


@pytest.mark.parametrize("name", ["vlan", "ipv6", "ipv6 extended"])
def test_row_ipv6_and_vlan_qemu_leaves_the_numbers_ours_moves_them(pair: Both, name: str) -> None:
    """Row: IPv6 with extension headers, VLAN."""
    t = Talk(style=BY_NAME[name])
    for s in (*t.handshake(), t.up(ACK | PSH, 1, 1, b"up"), t.down(ACK | PSH, 1, 3, b"down")):
        theirs, ours = theirs_and_ours(pair, s)
        assert theirs == s.sent
        assert ours == s.right
    assert s.sent != s.right


def test_row_tags_ours_keeps_connections_of_two_vlans_apart_qemu_mixes_them(pair: Both) -> None:
    """Row: VLAN and QinQ.  The same addresses and ports in two QinQ networks are two connections."""
    a, b = Talk(style=BY_NAME["qinq"]), Talk((1_000, 9_000, 700_000), BY_NAME["qinq"])
    b.host, b.port, b.how = a.host, a.port, {"vlans": (7, 8)}
    same(pair, *a.handshake(), a.up(ACK, 1, 1), *b.handshake(), b.up(ACK, 1, 1))
    s = a.up(ACK, 1, 1)
    theirs, _ = theirs_and_ours(pair, s, "rewriter: VLAN")
    assert moved(s.sent, theirs) == (0, (b.secondary - b.primary) % MOD)


def test_row_sack_blocks_qemu_leaves_them_ours_moves_them_with_the_ack(pair: Both) -> None:
    """Row: SACK blocks and D-SACK."""
    t = Talk(style=BY_NAME["sack"])
    same(pair, *t.handshake(), t.down(ACK | PSH, 1, 1, b"lost"), t.down(ACK | PSH, 5, 1, b"came"))
    for edges in (((5, 9),), ((1, 5), (5, 9)), ((5, 9), (20, 30), (40, 50))):
        s = t.up(ACK, 1, 1, edges=edges)
        theirs, ours = theirs_and_ours(pair, s)
        sent, right, got = read(s.sent), read(ours), read(theirs)
        assert got.ack == right.ack
        assert got.options == sent.options != right.options
        assert [int.from_bytes(right.options[5][i : i + 4], "big") for i in (0, 4)] == [
            t.secondary + edge for edge in edges[0]
        ]


@pytest.mark.parametrize("clocks", [(900, 4_000_000_000), (MOD - 2, 3), (0, MOD - 1)])
def test_row_timestamps_qemu_leaves_them_ours_moves_them(pair: Both, clocks: tuple[int, int]) -> None:
    """Row: timestamps (`ts_offset`): the guest gets its own clock echoed, the peer sees the primary's clock."""
    t = Talk(style=BY_NAME["timestamps"], clocks=clocks)
    same(pair, *t.handshake()[:2])
    for tick, s in enumerate((t.up(ACK, 1, 1), t.up(ACK, 1, 1), t.down(ACK, 1, 1, b"d"), t.down(ACK, 2, 1, b"e"))):
        theirs, ours = theirs_and_ours(pair, s)
        assert moved(s.sent, theirs) == moved(s.sent, ours) != (0, 0)
        assert read(theirs).options == read(s.sent).options != read(ours).options
        assert checksum_faults(theirs) == []
        t.tick = tick


def test_row_equal_clocks_or_none_move_no_timestamps(pair: Both) -> None:
    """Row: timestamps.  With one clock on both replicas QEMU is right, too."""
    t = Talk(style=BY_NAME["timestamps"], clocks=(900, 900))
    same(pair, *t.handshake(), t.up(ACK, 1, 1), t.down(ACK, 1, 1, b"d"))


def test_row_reset_without_ack_from_the_guest_qemu_leaves_it_ours_moves_it(pair: Both) -> None:
    """Row: RST without ACK (RFC 9293, 3.5.2: it carries a number of the guest's)."""
    t = Talk()
    same(pair, *t.handshake())
    s = t.down(RST, 1)
    theirs, ours = theirs_and_ours(pair, s)
    assert (theirs, moved(s.sent, ours)) == (s.sent, ((t.primary - t.secondary) % MOD, 0))


@pytest.mark.parametrize("size", [8, 700])
def test_row_icmp_errors_qemu_leaves_them_ours_moves_the_quoted_number(pair: Both, size: int) -> None:
    """Row: "packet too big" about the guest's segment quotes the primary's number, which is not one of the guest's."""
    t = Talk()
    same(pair, *t.handshake(), t.up(ACK, 1, 1))
    s = t.down(ACK, 1, 1, b"d" * 600)
    same(pair, s)
    too_big, of_its_own = (icmp_error("192.0.2.1", f, (3, 4), quote=20 + size) for f in (s.right, s.sent))
    theirs, ours = pair.apart("net", too_big)
    assert (theirs, ours) == ({"guest": [too_big]}, {"guest": [of_its_own]})


def test_row_syn_sent_again_on_a_live_connection_qemu_loses_the_offset_ours_keeps_it(pair: Both) -> None:
    """Row: SYN retransmitted.  A late or forged copy of the SYN makes QEMU learn a wrong offset at the next ACK."""
    t = Talk()
    same(pair, *t.handshake(), t.up(ACK, 1, 1), t.up(SYN, 0))
    s = t.up(ACK, 1, 1)
    theirs, ours = theirs_and_ours(pair, s, "rewriter: SYN sent again on a live connection")
    assert moved(s.sent, theirs) != moved(s.sent, ours) == (0, t.secondary - t.primary)


def test_row_syn_sent_again_with_another_isn_before_the_answer_both_take_the_last(pair: Both) -> None:
    """Row: SYN retransmitted with another ISN: the client gave up and began anew; QEMU is right here, too."""
    t = Talk()
    same(pair, *t.handshake()[:2])
    t.client, t.primary, t.secondary = 50_000, 60_000, 3
    same(pair, *t.handshake(), t.up(ACK, 1, 1), t.down(ACK, 1, 1))


def test_row_guests_segment_before_the_offset_is_known_qemu_subtracts_the_isn_ours_passes_it(pair: Both) -> None:
    """Row: seq_offset.  Between SYN+ACK and the client's ACK the offset is unknown; QEMU subtracts half of it."""
    t = Talk()
    same(pair, *t.handshake()[:2])
    s = t.down(ACK, 1, 1, b"early", known=False)
    theirs, ours = theirs_and_ours(pair, s, "rewriter: guest's segment before seq_offset is known")
    assert moved(s.sent, theirs) == ((-t.secondary) % MOD, 0)
    assert ours == s.sent
    same(pair, t.up(ACK, 1, 1), t.down(ACK, 1, 1))


def test_row_syn_not_seen_qemu_rewrites_nothing_ours_learns_from_the_answer(pair: Both) -> None:
    """Row: seq_offset is learnt from SYN+ACK and ACK alone, so a SYN that was lost before us does no harm."""
    t = Talk()
    same(pair, t.handshake()[1])
    for s in (t.up(ACK, 1, 1), t.down(ACK, 1, 1, b"d")):
        theirs, ours = theirs_and_ours(pair, s, "rewriter: SYN not seen")
        assert theirs == s.sent != ours


def test_row_ip_options_qemu_makes_a_wrong_checksum_ours_a_right_one(pair: Both) -> None:
    """Row: checksum updated.  QEMU sums from byte 20 of the IP header on, wherever TCP begins."""
    t = Talk(style=BY_NAME["ip options"])
    same(pair, *t.handshake()[:2])
    for s in (t.up(ACK, 1, 1, b"u"), t.down(ACK, 1, 2, b"d")):
        theirs, ours = theirs_and_ours(pair, s)
        assert moved(s.sent, theirs) == moved(s.sent, ours) != (0, 0)
        assert checksum_faults(theirs) == ["transport"]


def test_row_a_wrong_checksum_qemu_makes_it_right_ours_leaves_it_wrong(pair: Both) -> None:
    """Row: checksum updated by the difference (RFC 1624): a segment damaged on its way stays visibly damaged."""
    t = Talk()
    same(pair, *t.handshake())
    for s in (t.up(ACK, 1, 1, b"data"), t.down(ACK, 1, 1, b"data")):
        theirs, ours = pair.apart(s.port, s.sent[:-1] + b"\xff")
        assert checksum_faults(theirs[s.out][0]) == []
        assert ours == {s.out: [s.right[:-1] + b"\xff"]}
        assert checksum_faults(ours[s.out][0]) == ["transport"]
        TALLY.note("rewriter: wrong checksums")


def whole(pieces: list[bytes]) -> bytes:
    """The TCP segment in fragments that come in order."""
    return b"".join(read(piece).body for piece in pieces)


def test_row_fragments_qemu_ruins_the_checksum_ours_keeps_it_right(pair: Both) -> None:
    """Row: IP fragments.  QEMU changes the first one's ack and not its checksum, so the datagram is lost for sure."""
    t = Talk()
    same(pair, *t.handshake())
    body = read(t.up(ACK, 1, 1, bytes(100)).sent).body
    pieces, out = fragments(t.host, t.guest, P_TCP, body, 40), ([], [])
    for piece in pieces:
        for got, outputs in zip(out, pair.apart("net", piece), strict=True):
            got.extend(outputs["guest"])
    theirs, ours = ([ip_frame(t.host, t.guest, P_TCP, whole(one))] for one in out)
    assert checksum_faults(ours[0]) == []
    assert read(ours[0]).ack in (t.primary + 1, t.secondary + 1)
    assert read(theirs[0]).ack == t.secondary + 1
    assert checksum_faults(theirs[0]) == ["transport"]
    TALLY.note("rewriter: IP fragments", len(pieces))
    same(pair, t.up(ACK, 1, 1), t.down(ACK, 1, 1))


GUEST_OPENS = any(counter.name == "passed_unasked" for counter in counter_words.COUNTERS)


@pytest.mark.xfail(not GUEST_OPENS, strict=True, reason="this rewriter does not know guest-opened connections yet")
@pytest.mark.parametrize("name", ["plain", "qinq", "vlan", "ipv6", "timestamps"])
def test_row_guest_opened_qemu_leaves_the_numbers_ours_moves_them(pair: Both, name: str) -> None:
    """Row: guest-opened connections.  The peer answers the primary's SYN; the secondary gets the answer to its own."""
    t = Talk(style=BY_NAME[name])
    same(pair, t.down(SYN, 0))
    for s in (
        t.up(SYN | ACK, 0, 1, answer=True), t.down(ACK, 1, 1), t.down(ACK | PSH, 1, 1, b"request"),
        t.up(ACK | PSH, 1, 8, b"reply"), t.down(FIN | ACK, 8, 6), t.up(FIN | ACK, 6, 9), t.down(ACK, 9, 7),
    ):  # fmt: skip
        theirs, ours = pair.apart(s.port, s.sent)
        assert ours == {s.out: [s.right]}
        assert checksum_faults(s.right) == []
        assert theirs == {s.out: [s.sent]}
        TALLY.note(GUEST_OPENED)


@pytest.mark.parametrize("side", ["up", "down"])
def test_row_truncated_at_every_length_qemu_changes_a_number_ours_passes_the_frame(pair: Both, side: str) -> None:
    """Row: a frame shorter than its headers say.  QEMU moves a number and leaves the checksum, from 48 bytes on."""
    t = Talk()
    same(pair, *t.handshake())
    s = getattr(t, side)(ACK, 1, 1, b"cut short")
    field = range(38, 42) if side == "down" else range(42, 46)
    for size in range(1, len(s.sent)):
        frame = s.sent[:size]
        theirs, ours = pair.apart(s.port, frame)
        assert ours == {s.out: [frame]}
        (out,) = theirs[s.out]
        changed = differing(out, frame)
        assert changed <= set(field)
        assert bool(changed) == (size >= 48)
        if changed:
            TALLY.note("rewriter: truncated frames")
    same(pair, t.up(ACK, 1, 1), t.down(ACK, 1, 1))


LIES = ((46, range(256)), (23, range(256)), (16, range(1, 256)), (17, range(20, 256)), (14, range(5, 256, 16)))


def test_row_header_lengths_that_lie_change_no_more_than_a_number_and_the_checksum(pair: Both) -> None:
    """Row: bad packets.  Every data offset, protocol, IP version, and total length from 20 on.

    A frame of the same size comes out of both; ours rewrites what it can read and leaves the rest as it was.
    """
    t = Talk()
    same(pair, *t.handshake())
    s = t.up(ACK, 1, 1, b"sixteen bytes!!!")
    for at, values in LIES:
        for value in values:
            frame = s.sent[:at] + bytes([value]) + s.sent[at + 1 :]
            theirs, ours = pair.apart("net", frame)
            assert [len(f) for f in theirs["guest"]] == [len(f) for f in ours["guest"]] == [len(frame)]
            assert differing(ours["guest"][0], frame) <= {*range(42, 46), 50, 51}
            if theirs != ours:
                TALLY.note("rewriter: header lengths that lie")
    same(pair, t.up(ACK, 1, 1), t.down(ACK, 1, 1))


def test_row_every_version_and_header_length_of_ip_passes_ours(pair: Both) -> None:
    """Row: bad packets.  Not fed to QEMU: an IHL that leads out of the frame makes it write there (it then dies)."""
    t, ours = Talk(), pair.ours
    same(pair, *t.handshake())
    s = t.up(ACK, 1, 1, b"sixteen bytes!!!")
    for value in range(256):
        frame = s.sent[:14] + bytes([value]) + s.sent[15:]
        assert ours.step("net", frame) == {"guest": [s.right if value == 0x45 else frame]}
    same(pair, t.up(ACK, 1, 1), t.down(ACK, 1, 1))


def survives(theirs: Theirs, port: str, frame: bytes) -> bool:
    """Whether QEMU still passes frames after this one."""
    try:
        theirs.step(port, frame)
    except (qemu.QemuError, OSError, AssertionError):
        return False
    return True


@pytest.mark.parametrize("side", ["up", "down"])
@pytest.mark.parametrize("total", [0, 19])
def test_row_a_total_length_under_20_passes_ours_where_qemu_dies(side: str, total: int) -> None:
    """Row: bad packets.  One segment of a known connection with such a length, and QEMU 7.2 dies (SIGSEGV).

    It sums memory until there is none left; where that ends is chance, so its death is counted and not asserted.
    """
    t, ours = Talk(), Ours("filter-rewriter")
    theirs = Theirs(["filter-rewriter,id=f0,queue=all"])
    try:
        same(Both(theirs, ours), *t.handshake())
        s = getattr(t, side)(ACK, 1, 1, b"x")
        frame = s.sent[:16] + total.to_bytes(2, "big") + s.sent[18:]
        assert ours.step(s.port, frame) == {s.out: [frame]}
        for later in (t.up(ACK, 1, 1), t.down(ACK, 1, 1)):
            assert ours.step(later.port, later.sent) == {later.out: [later.right]}
        if not survives(theirs, s.port, frame):
            TALLY.note("rewriter: IP total length under 20 (QEMU dies)")
    finally:
        ours.close()
        theirs.q.close()


def test_row_more_connections_than_fit_qemu_wipes_its_table_ours_evicts_the_silent() -> None:
    """Row: more than 16,384 connections.  A live one loses its offset in QEMU; ours gives up silent ones, counted."""
    theirs, live = Theirs(["filter-rewriter,id=f0,queue=all"]), Talk()
    with Both(theirs, Ours("filter-rewriter", ring_size=1 << 22)) as pair:
        same(pair, *live.handshake())
        for start in range(0, 17_000, 1_000):
            syns = [
                tcp_frame(f"203.0.113.{k // 100}", live.guest, 20_000 + k, 80, seq=k, flags=SYN)
                for k in range(start, start + 1_000)
            ]
            assert pair.theirs.step("net", *syns) == {"guest": syns}
            pair.ours.rig.feed("tx_in", *syns)
            assert pair.ours.turned() == {"guest": syns}
            if start < 16_000:
                same(pair, live.up(ACK, 1, 1))
        s = live.up(ACK, 1, 1)
        theirs_out, _ = theirs_and_ours(pair, s, "rewriter: more than 16,384 connections")
        assert theirs_out == s.sent
        counters = pair.ours.rig.counters()
        evicted = sum(n for name, n in counters.items() if name.endswith("_evicted"))  # half-open ones may count apart
        assert evicted == 17_001 - 16_384
        assert counters["connections"] == 16_384


# --- partial checksums: no stream netdev of QEMU's has a virtio-net header, so these are ours alone -------------------
@pytest.mark.parametrize("size", [10, 12])
@pytest.mark.parametrize("name", ["plain", "vlan", "ipv6 extended", "sack", "timestamps"])
def test_row_partial_checksums_stay_partial_and_right(name: str, size: int) -> None:
    """Row: checksums still partial (NEEDS_CSUM): the numbers move, the sum of the pseudo-header stays."""
    ports = ("tx_in", "tx_out", "rx_in", "rx_out")
    style: Style = BY_NAME[name]
    t = Talk(style=style)
    head = vnet_header(needs_csum=True, csum_start=34, size=size)
    with Rig("filter-rewriter", ports=ports, vnet=ports) as rig:
        for s in (
            *t.handshake(), t.up(ACK | PSH, 1, 1, b"u", partial=True), t.down(ACK | PSH, 1, 2, b"d", partial=True),
            t.up(ACK, 2, 2, edges=((5, 9),), partial=True), t.down(RST | ACK, 2, 2, partial=True),
        ):  # fmt: skip
            partial = checksum_faults(s.sent) != []
            lead = head if partial else vnet_header(size=size)
            rig.feed("tx_in" if s.port == "net" else "rx_in", lead + s.sent, vnet_hdr_len=size)
            rig.run(now=1)
            assert rig.take("tx_out" if s.port == "net" else "rx_out") == [lead + s.right]
            assert checksum_faults(s.right, partial=partial) == []
        assert rig.counters()["rewritten_in"] + rig.counters()["rewritten_out"] == 5
