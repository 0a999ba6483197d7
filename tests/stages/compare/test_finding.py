"""From the kernel's words to the bytes of a pcapng file that explains a difference."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.capture import reader as captures
from stages.capture.format import SNAPLEN
from stages.compare import finding
from stages.compare.finding import MARK, build, sentence
from stages.compare.layout import events, history, kept, reasons, records
from stages.packets.flow import describe_flow
from tests.packets import arp_frame, read, tcp_frame, udp_frame
from tests.stages.compare import evidence_words as words

WALL = 1_795_000_000_000_000_000
needs_tshark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark (Debian package tshark) is not installed")


def written(found: words.Found, path: Path, **more: Any) -> Path:
    path.write_bytes(b"".join(build(found.event(), found.record(), WALL, compare_id="comp0", **more)))
    return path


def verdict(path: Path) -> dict[str, Any]:
    prose, data = captures.comments(path)
    out: dict[str, Any] = json.loads(data)
    assert prose.startswith(sentence(out))
    return out


def test_packets_of_both_sides_stand_in_order_of_time_with_what_they_are(tmp_path: Path) -> None:
    """Interfaces are the sides; monotonic times have become wall-clock times; what was cut says so."""
    found = words.date()
    packets = captures.read(written(found, tmp_path / "a.pcapng"), cut=True)
    assert [p.ns for p in packets] == sorted(p.ns for p in packets)
    assert packets[-1].ns == WALL + words.NOW
    expected = sorted(found.packets, key=lambda p: (-p.before_ms, p.side))
    assert [p.interface for p in packets] == [("primary", "secondary")[p.side] for p in expected]
    for got, put in zip(packets, expected, strict=True):
        assert put.frame.startswith(got.data) and got.missing == len(put.frame) - len(got.data)
        assert got.missing == (0 if put.held else max(0, len(put.frame) - history.KEPT_BYTES))
        kind = "differs here" if put.at >= 0 else "held" if put.held else "passed before"
        assert got.comment.startswith(kind)
    differing = next(p for p in packets if p.comment.startswith("differs"))
    assert differing.comment == (
        "differs here (byte 128 of this frame): the streams differ at position 362: primary 0x31 '1', "
        "secondary 0x32 '2'; rule payload; flow tcp 10.0.0.2:80 > 10.0.0.1:4711"
    )


SENTENCES = {
    "date": "the streams differ at position 362: primary 0x31 '1', secondary 0x32 '2'",
    "flags": "at position 300 of the stream the primary ends (FIN), the secondary goes on with 14 bytes",
    "order": "the oldest datagrams that wait have no equal on the other side; position 27 of the IP payload: "
    "primary 0x37 '7', secondary 0x36 '6'",
    "timeout": "a packet of the primary waited longer than compare_timeout: the secondary has not sent the same",
    "stuck": "both inputs are blocked by full queues: each side waits for packets that the other does not send",
}


@pytest.mark.parametrize("name", SENTENCES)
def test_every_rule_has_a_sentence(name: str, tmp_path: Path) -> None:
    """Payload, flags, order, timeout and stuck: what they mean, for a person and as data."""
    found: words.Found = getattr(words, name)()
    v = verdict(written(found, tmp_path / "a.pcapng", mask="dates"))
    assert sentence(v) == SENTENCES[name]
    assert v[MARK] == finding.VERSION and v["compare"] == "comp0" and v["mask"] == "dates"
    assert v["rule"] == reasons.NAMES[found.reason] and v["time_ns"] == WALL + words.NOW
    assert [[int(p.held), p.at] for p in sorted(found.packets, key=lambda p: (-p.before_ms, p.side))] == v["packets"]


def test_a_secondary_that_resets_is_named() -> None:
    """Which side ended, and how, is told from the flags of its held packets."""
    mine, theirs = words.segment(300, b"more"), words.segment(300, flags=20)
    held = [words.Held(mine, 0, at=words.data_at(mine)), words.Held(theirs, 1, at=len(theirs))]
    found = words.Found(reasons.FLAGS, held, 300, (b"more", b""))
    v = finding.verdict(found.event(), list(finding.kept(found.record())), WALL)
    assert sentence(v) == "at position 300 of the stream the primary goes on with 4 bytes, the secondary ends (RST)"


def test_a_connection_whose_start_was_not_seen_has_no_position() -> None:
    """The kernel says -1."""
    found = words.date()
    found.position = -1
    v = finding.verdict(found.event(), list(finding.kept(found.record())), WALL)
    assert v["position"] is None
    assert sentence(v).startswith("the streams differ at a place of the stream, whose start was not seen: ")


def test_a_log_line_shows_the_byte_in_hex_and_the_text_around_it() -> None:
    """``0x31`` cannot be taken for a decimal number; one side may have ended."""
    v = finding.verdict(words.date().event(), (), WALL)
    shown = finding.sides(v)
    assert {side: text[:8] for side, text in shown.items()} == {"primary": "0x31 in ", "secondary": "0x32 in "}
    assert "7:34:31 GMT" in shown["primary"] and "7:34:32 GMT" in shown["secondary"]
    ended = finding.sides(finding.verdict(words.flags().event(), (), WALL))
    assert ended == {"primary": "end in ''", "secondary": "0x6f in 'one more line.'"}


def test_a_missing_syn_is_called_so() -> None:
    """Its position, one before the stream's first byte, is no number for a person."""
    found = words.timeout()
    found.position = 0xFFFFFFFF
    v = finding.verdict(found.event(), (), WALL)
    assert v["waits_for"] == "packet" and sentence(v).endswith("the secondary has not sent its SYN")


def test_a_held_packet_that_the_history_has_too_stands_once(tmp_path: Path) -> None:
    """The history holds every packet that was taken, those that wait now among them."""
    found = words.date()
    again = [words.Held(p.frame, p.side, p.before_ms, held=False) for p in found.packets if p.held]
    before = len(found.packets)
    found.packets += again
    packets = captures.read(written(found, tmp_path / "a.pcapng"), cut=True)
    assert len(again) == 3 and len(packets) == before
    assert sum(p.comment != "passed before" for p in packets) == 3


def test_a_checksum_is_not_what_differs(tmp_path: Path) -> None:
    """Datagrams that the kernel found to differ in their checksum, too: the bytes behind it are shown."""
    found = words.order()
    for p in found.packets[2:]:
        p.at -= 27 - 7
    bodies = [read(p.frame).body for p in found.packets[2:]]
    assert bodies[0][6:8] != bodies[1][6:8]
    found.position, found.offset, found.windows = 7, 7, (bodies[0], bodies[1])
    assert sentence(verdict(written(found, tmp_path / "a.pcapng"))) == SENTENCES["order"]
    marked = [p.comment for p in captures.read(tmp_path / "a.pcapng") if p.comment.startswith("differs")]
    assert len(marked) == 2 and all(text.startswith("differs here (byte 61 of this frame)") for text in marked)


def test_a_checksum_alone_stays(tmp_path: Path) -> None:
    """Equal data and another checksum: then the checksum it is; one that ends earlier differs at its end."""
    found = words.order()
    same = found.packets[2].frame
    wrong = bytearray(same)
    wrong[40] ^= 1
    found.packets[2:] = [words.Held(same, 0, at=40), words.Held(bytes(wrong), 1, at=40)]
    found.position, found.offset, found.windows = 6, 6, (read(same).body, read(bytes(wrong)).body)
    assert verdict(written(found, tmp_path / "a.pcapng"))["position"] == 6
    short = udp_frame(words.SERVER, words.CLIENT, 53, 4711, read(same).payload[:-2])
    found.packets[3] = words.Held(short, 1, at=40)
    v = verdict(written(found, tmp_path / "a.pcapng"))
    assert v["position"] == len(read(short).body) and sentence(v).endswith("primary 0x2e '.', secondary nothing")


def test_an_unmarked_timeout_marks_the_oldest_that_waits(tmp_path: Path) -> None:
    """Where the kernel names no packet, it is the waiting side's oldest."""
    packets = captures.read(written(words.timeout(marked=False), tmp_path / "a.pcapng"), cut=True)
    assert [p.comment.partition(":")[0] for p in packets] == ["passed before", "passed before", "waits"]


def test_what_was_left_out_is_said(tmp_path: Path) -> None:
    """Packets that did not fit the record, and differences that came too fast, are numbers of the verdict."""
    found = words.date()
    found.left_out = 5
    v = verdict(written(found, tmp_path / "a.pcapng", left_out=3, number=17))
    assert (v["packets_left_out"], v["left_out"], v["number"]) == (5, 3, 17)


@given(st.data())
def test_a_damaged_record_makes_a_file_all_the_same(data: st.DataObject) -> None:
    """Words of shared memory may say anything: no length of them is believed."""
    found = words.date()
    event, record = found.event(), found.record()
    value = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-3, 2000)
    for _ in range(data.draw(st.integers(1, 6))):
        record[data.draw(st.integers(0, len(record) - 1))] = data.draw(value)
    for at in data.draw(st.lists(st.sampled_from([events.POSITION, events.PRIMARY_LEN, events.OFFSET]), max_size=2)):
        event[at] = data.draw(value)
    blob = b"".join(build(event, record, WALL))
    sizes = [span.length + span.missing for span in captures.walk(blob, "x", cut=True)]
    assert len(sizes) <= len(found.packets) and all(size <= SNAPLEN for size in sizes)


@pytest.mark.parametrize("ns", [-(1 << 63), -1, 1 << 62, (1 << 63) - 1])
def test_a_time_that_cannot_be_leaves_a_file_that_can_be_read(ns: int, tmp_path: Path) -> None:
    found = words.date()
    record = found.record()
    record[records.HEADER + kept.TIME] = ns
    path = tmp_path / "a.pcapng"
    path.write_bytes(b"".join(build(found.event(), record, WALL)))
    assert len(captures.read(path, cut=True)) == len(found.packets)


@needs_tshark
@pytest.mark.parametrize("name", SENTENCES)
def test_wireshark_opens_it_without_complaint(name: str, tmp_path: Path) -> None:
    """tshark shows each packet's side and comment, capinfos the verdict; neither finds anything wrong."""
    found: words.Found = getattr(words, name)()
    path = written(found, tmp_path / "a.pcapng")
    fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment", "-e", "frame.cap_len"]
    done = subprocess.run(["tshark", "-r", str(path), *fields], capture_output=True, text=True, timeout=120, check=True)
    said = [line for line in done.stderr.splitlines() if line and not line.startswith("Running as user")]
    assert said == []
    ours = captures.read(path, cut=True)
    assert [line.split("\t") for line in done.stdout.splitlines()] == [
        [p.interface, p.comment, str(len(p.data))] for p in ours
    ]
    info = subprocess.run(["capinfos", str(path)], capture_output=True, text=True, timeout=120, check=True)
    assert SENTENCES[name] in info.stdout and "Strict time order:   True" in info.stdout
    assert "colo-compare" in info.stdout


FRAMES = {
    "tcp 10.0.0.2:80 > 10.0.0.1:4711": tcp_frame("10.0.0.2", "10.0.0.1", 80, 4711),
    "udp [2001:db8::2]:53 > [2001:db8::1]:9": udp_frame("2001:db8::2", "2001:db8::1", 53, 9, b"x"),
}


@pytest.mark.parametrize("text", FRAMES)
def test_a_flow_is_shown_as_people_write_it(text: str) -> None:
    """IPv4, and IPv6 in brackets."""
    assert describe_flow(words.key(read(FRAMES[text]))) == text


@given(
    st.sampled_from(sorted(FRAMES)), st.integers(0, 60), st.lists(st.tuples(st.integers(0, 59), st.integers(0, 255)))
)
def test_no_frame_is_too_broken_to_be_looked_at(name: str, size: int, changes: list[tuple[int, int]]) -> None:
    """Cut anywhere, changed anywhere: offsets or None, no error."""
    frame = bytearray(FRAMES[name])
    for at, value in changes:
        frame[at % len(frame)] = value
    found = finding.tcp_at(bytes(frame[:size]))
    assert found is None or (14 <= found[2] <= found[3])
    assert finding.tcp_at(arp_frame("10.0.0.1", "10.0.0.2")) is None
