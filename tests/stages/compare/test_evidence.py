"""What the compare's kernel keeps of a difference, as the file that explains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.capture import reader as captures
from stages.compare import evidence_files as evidence
from stages.compare import finding
from stages.compare.layout import events, history, options, records, scalars
from stages.compare.layout import kept as kept_words
from tests.packets import ACK, FIN, PSH, SYN, read, udp_frame, vnet_header
from tests.rig import Rig
from tests.stages.compare.test_compare import CLIENT, MS, PARAMS, SERVER, handshake, rig, seg
from tests.tunnels import gre, vxlan
from tools import explain
from tools.advice import advise
from tools.divergence import Divergence, around, line_of, load, written

OLD = bytes(range(200))


@pytest.fixture
def keeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(evidence, "_CLOSE_S", 60.0)  # of a compare that must not hold the end of its pipeline up

    def make(**params: Any) -> Rig:
        made = rig(divergences=str(tmp_path / "differences"), divergence_files=8, **params)
        made.stage._evidence._clock = lambda: 100_000_000_000  # type: ignore[attr-defined]  # no second passes
        return made

    return make


def last(g: Rig, path: Path) -> Divergence:
    """The newest event that has a record, through the file and back."""
    w = g.stage.w
    written = g.stage.scalar(scalars.EVENTS)
    for n in range(written - 1, -1, -1):
        e = int(w[options.EVENTS]) + n % events.COUNT * events.WORDS
        if number := int(w[e + events.RECORD]):
            r = int(w[options.RECORDS]) + (number - 1) % records.COUNT * records.WORDS
            assert int(w[r + records.EVENT]) == n
            event, record = np.array(w[e : e + events.WORDS]), np.array(w[r : r + records.WORDS])
            path.write_bytes(b"".join(finding.build(event, record, 10**18, compare_id="it")))
            d = load(path)
            assert explain.picture(d, 80)
            return d
    raise AssertionError("no event has a record")


def shown(d: Divergence) -> list[tuple[str, str, bytes]]:
    """(side, first words of the comment, frame) of every packet."""
    return [(p.interface, p.comment.partition(" ")[0], p.data) for p in captures.read(d.path, cut=True)]


def talk(g: Rig) -> bytes:
    """A connection whose first bytes both sides have sent; the next segment may begin at 1,201."""
    handshake(g)
    old = seg(1001, OLD)
    g.feed("primary_in", old)
    g.run(now=2 * MS)
    g.feed("secondary_in", old)
    g.run(now=3 * MS)
    assert g.take("outdev") == [old]
    return old


def test_a_byte_that_differs(keeping: Any, tmp_path: Path) -> None:
    """Position, both bytes, the differing packets whole, those before by their beginnings."""
    with keeping() as g:
        old = talk(g)
        mine, theirs = seg(1201, b"the date is 31.", PSH | ACK), seg(1201, b"the date is 32.", PSH | ACK)
        g.feed("primary_in", mine)
        g.run(now=4 * MS)
        g.feed("secondary_in", theirs)
        g.run(now=5 * MS)
        d = last(g, tmp_path / "x.pcapng")
    assert d.meaning == "the streams differ at position 213: primary 0x31 '1', secondary 0x32 '2'"
    assert d.verdict["flow"] == "tcp 10.0.0.2:80 > 10.0.0.1:4000" and d.place == 213
    kept = old[: history.KEPT_BYTES]
    assert [row[:2] for row in shown(d)] == [
        ("primary", "passed"), ("secondary", "passed"), ("primary", "passed"), ("secondary", "passed"),
        ("primary", "differs"), ("secondary", "differs"),
    ]  # fmt: skip
    assert [row[2] for row in shown(d)[2:]] == [kept, kept, mine, theirs]
    assert [p.ns - 10**18 for p in d.packets][2:] == [2 * MS, 3 * MS, 4 * MS, 5 * MS]
    assert [p.data[p.at] for p in d.packets if p.at >= 0] == [ord("1"), ord("2")]


def test_the_first_byte_of_a_segment_of_its_own(keeping: Any, tmp_path: Path) -> None:
    """Each side cuts its stream elsewhere: the marks stand at the same position all the same."""
    with keeping() as g:
        talk(g)
        g.feed("primary_in", seg(1201, b"abcdefgh"), seg(1209, b"ijkl"))
        g.run(now=4 * MS)
        g.feed("secondary_in", seg(1201, b"abc"), seg(1204, b"defghi"), seg(1210, b"Xkl"))
        g.run(now=5 * MS)
        d = last(g, tmp_path / "x.pcapng")
    marked = [p for p in d.packets if p.at >= 0]
    assert [(p.side, d.relative(p), p.body) for p in marked] == [(0, 208, b"ijkl"), (1, 209, b"Xkl")]
    assert [d.relative(p) + p.at - p.start for p in marked] == [209, 209] and d.place == 209


def test_a_fin_that_one_side_sends(keeping: Any, tmp_path: Path) -> None:
    """The rule is flags; which side ended is told."""
    with keeping() as g:
        talk(g)
        g.feed("primary_in", seg(1201, b"more of it"))
        g.run(now=4 * MS)
        g.feed("secondary_in", seg(1201, flags=FIN | ACK))
        g.run(now=5 * MS)
        d = last(g, tmp_path / "x.pcapng")
    assert d.meaning == ("at position 200 of the stream the primary goes on with 10 bytes, the secondary ends (FIN)")
    assert [(p.side, p.flags & FIN) for p in d.packets if p.at >= 0] == [(0, 0), (1, FIN)]


def test_datagrams_without_an_equal(keeping: Any, tmp_path: Path) -> None:
    """The oldest of both sides, after their grace; what differs is not only the checksum."""
    with keeping() as g:
        frames = [udp_frame(SERVER, CLIENT, 53, 9, body) for body in (b"answer 7", b"answer 8")]
        g.feed("primary_in", frames[0])
        g.feed("secondary_in", frames[1])
        g.run(now=2 * MS)
        g.run(now=100 * MS)
        d = last(g, tmp_path / "x.pcapng")
    assert (d.verdict["rule"], d.verdict["kind"], d.place) == ("order", "udp", 15)
    assert [row[1:] for row in shown(d)] == [("differs", frames[0]), ("differs", frames[1])]


@pytest.mark.parametrize("side", [0, 1])
def test_a_packet_that_waits_alone(keeping: Any, tmp_path: Path, side: int) -> None:
    """A timeout names the side that waits, and marks its packet."""
    with keeping() as g:
        talk(g)
        alone = seg(1201, b"said by one")
        g.feed(("primary_in", "secondary_in")[side], alone)
        g.run(now=10 * MS)
        g.run(now=5_000 * MS)
        d = last(g, tmp_path / "x.pcapng")
    name = ("primary", "secondary")[side]
    assert (d.verdict["rule"], d.verdict["waits"]) == ("timeout", name)
    assert [row for row in shown(d) if row[1] == "waits:"] == [(name, "waits:", alone)]
    assert d.place == 200


def test_frames_behind_a_virtio_net_header(tmp_path: Path) -> None:
    """With vnet_hdr_support the file holds Ethernet frames, and the marks fit them."""
    ports = ("primary_in", "secondary_in", "outdev")
    params = PARAMS | {"vnet_hdr_support": True, "divergences": str(tmp_path / "differences")}
    with Rig("colo-compare", params, vnet=ports) as g:
        g.run(now=1)
        header = vnet_header(size=12)
        for flags, data, isns in ((SYN | ACK, (b"", b""), (1000, 7777)), (ACK, (b"same 1", b"same 2"), (1001, 1001))):
            for port, body, seq in zip(ports, data, isns, strict=False):
                g.feed(port, header + seg(seq, body, flags), vnet_hdr_len=12)
            g.run(now=3 * MS)
        d = last(g, tmp_path / "x.pcapng")
    assert [row[1:] for row in shown(d)][-2:] == [("differs", seg(1001, b"same 1")), ("differs", seg(1001, b"same 2"))]
    assert d.place == 5 and [p.data[p.at] for p in d.packets if p.at >= 0] == [ord("1"), ord("2")]


def test_other_connections_are_not_in_it(keeping: Any, tmp_path: Path) -> None:
    """A record holds the packets of one connection."""
    with keeping() as g:
        talk(g)
        for n in range(5):
            handshake(g, port=5000 + n)
            g.feed("primary_in", seg(1001, b"held elsewhere", port=5000 + n))
        g.feed("primary_in", seg(1201, b"a"))
        g.feed("secondary_in", seg(1201, b"b"))
        g.run(now=5 * MS)
        d = last(g, tmp_path / "x.pcapng")
    assert {read(frame).dport for _, _, frame in shown(d) if len(frame) < history.KEPT_BYTES} == {4000}
    assert len(d.packets) == 6


def test_a_record_is_bounded(keeping: Any, tmp_path: Path) -> None:
    """Hundreds of held packets: what does not fit is counted."""
    with keeping() as g:
        talk(g)
        g.feed("primary_in", *(seg(1201 + 700 * n, b"p" * 700) for n in range(100)))
        g.run(now=4 * MS)
        g.feed("secondary_in", seg(1201, b"s" * 700))
        g.run(now=5 * MS)
        d = last(g, tmp_path / "x.pcapng")
        (tmp_path / "x.pcapng").stat()
    held = [p for p in d.packets if p.held and p.side == 0]
    assert len(held) == 1 + kept_words.MOST_HELD and d.verdict["packets_left_out"] == 100 - len(held)
    assert (tmp_path / "x.pcapng").stat().st_size < 100_000


def test_more_differences_than_records_lose_their_packets_only(keeping: Any) -> None:
    """The events stay; what was skipped is counted, and nobody waits."""
    with keeping(checkpoint="local") as g:
        count = records.COUNT + 3
        for n in range(count):
            handshake(g, port=5000 + n)
        g.stage.w[options.RECORDS_TAKEN] = g.stage.scalar(scalars.RECORDS)
        g.feed("primary_in", *(seg(1001, b"a", port=5000 + n) for n in range(count)))
        g.feed("secondary_in", *(seg(1001, b"b", port=5000 + n) for n in range(count)))
        while g.stage.kernel.compare_burst(g.stage.u8, g.stage.w, 5 * MS):
            pass  # no shell takes a record meanwhile
        c = g.counters()
        assert (c["divergences"], c["records"], c["records_skipped"]) == (count, records.COUNT, 3)


def test_the_shell_writes_a_file_for_each_difference(keeping: Any, tmp_path: Path) -> None:
    """One after the other, more than there are records: each is taken, written, and named in the log line."""
    with keeping(checkpoint="local") as g:
        count = records.COUNT + 2
        for n in range(count):
            handshake(g, port=5000 + n)
        for n in range(count):
            g.feed("primary_in", seg(1001, b"a", port=5000 + n))
            g.feed("secondary_in", seg(1001, b"b", port=5000 + n))
            g.run(now=(5 + n) * MS)
        c = g.counters()
        assert (c["divergences"], c["records"], c["records_skipped"]) == (count, count, 0)
        g.stage.on_close()
    files = [path for _, path in written(tmp_path / "differences")]
    assert len(files) == 4  # at once: then one a second
    flows = {load(path).verdict["flow"] for path in files}
    assert flows == {f"tcp 10.0.0.2:80 > 10.0.0.1:{5000 + n}" for n in range(4)}


@pytest.mark.parametrize("tunnel", ["vxlan 42", "gre 42"])
def test_a_file_about_a_tunnel_is_about_what_is_inside(keeping: Any, tmp_path: Path, tunnel: str) -> None:
    """Its verdict names the tunnel; positions, flags and numbers are those of the packets inside."""

    def wrap(frame: bytes) -> bytes:
        return vxlan(frame, vni=42) if tunnel == "vxlan 42" else gre(frame, key=42)

    with keeping(checkpoint="local") as g:
        for port, isn in (("primary_in", 1000), ("secondary_in", 3000)):
            g.feed(port, wrap(seg(isn, flags=SYN | ACK)), wrap(seg(1001, b"equal, ")))
        g.run(now=2 * MS)
        g.feed("primary_in", wrap(seg(1008, b"then one, ")))
        g.feed("secondary_in", wrap(seg(1008, b"then two, ")))
        g.run(now=3 * MS)
        assert g.counters()["divergences"] == 1
        g.stage.on_close()
    ((_, path),) = written(tmp_path / "differences")
    d = load(path)
    assert d.verdict["tunnel"] == tunnel
    assert d.verdict["flow"] == f"tcp 10.0.0.2:80 > 10.0.0.1:4000 in {tunnel}"
    assert d.is_tcp and d.place == 12 and {p.tcp for p in d.packets} == {True}
    assert [line_of(side, d.place)[0] for side in around(d)] == [b"equal, then one, ", b"equal, then two, "]
    assert [d.relative(p) for p in d.of(0)] == [-1, 0, 7] and [p.seq for p in d.of(1)] == [3000, 1001, 1008]
    assert advise(d).keys[:2] == (("action", "mask"), ("protocol", "tcp"))


def test_nothing_is_kept_where_no_files_are_asked_for() -> None:
    """Without the key `divergences` the kernel copies nothing."""
    with rig() as g:
        talk(g)
        g.feed("primary_in", seg(1201, b"a"))
        g.feed("secondary_in", seg(1201, b"b"))
        g.run(now=5 * MS)
        c = g.counters()
        assert (c["divergences"], c["records"], c["records_skipped"]) == (1, 0, 0)
