"""tools.explain: what a person sees of a difference, and that no file makes it fall over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.automaton import compile_mask
from pipeline.rules import from_table
from pipeline.tables import Rule
from stages import captures
from stages.finding import MARK, SIDES, VERSION, build
from stages.layout import compare
from tests.packets import icmp_frame, tcp_frame, udp_frame
from tests.stages import evidence_words as words
from tools import explain
from tools.advice import advise
from tools.divergence import NotExplainedError, load, pairs

ROOT = Path(__file__).resolve().parent.parent.parent
WALL = 1_795_000_000_000_000_000
SCENES = ("date", "flags", "order", "timeout", "stuck")


def content(found: words.Found) -> bytes:
    return b"".join(build(found.event(), found.record(), WALL, compare_id="comp0", number=17))


def write(found: words.Found, path: Path) -> Path:
    path.write_bytes(content(found))
    return path


@pytest.fixture
def shown(tmp_path: Path) -> Callable[..., list[str]]:
    def show(found: words.Found, width: int = 80, **more: Any) -> list[str]:
        path = write(found, tmp_path / "x.pcapng")
        return [line.plain for line in explain.picture(load(path), width, **more)]

    return show


# --- the picture --------------------------------------------------------------------------------------------------
def test_a_date_is_shown_side_by_side_with_what_to_do(shown: Callable[..., list[str]]) -> None:
    """At 80 columns: verdict, the line of text, bytes with a mark below, packets on common lines, a mask."""
    assert shown(words.date()) == [
        "x.pcapng                                          2026-11-18 11:06:45.000000 UTC",
        "rule payload   tcp 10.0.0.2:80 > 10.0.0.1:4711   compare comp0",
        "",
        "The streams differ at position 362: primary 31 '1', secondary 32 '2'.",
        "",
        "primary   │ Date: Mon, 23 Nov 2026 07:34:31 GMT",
        "secondary │ Date: Mon, 23 Nov 2026 07:34:32 GMT",
        "                                          ^",
        "",
        "     primary                           │ secondary",
        "344  33 20 4e 6f 76 20 32 30  3 Nov 20 │ 33 20 4e 6f 76 20 32 30  3 Nov 20",
        "352  32 36 20 30 37 3a 33 34  26 07:34 │ 32 36 20 30 37 3a 33 34  26 07:34",
        "360  3a 33 31 20 47 4d 54 0d  :31 GMT. │ 3a 33 32 20 47 4d 54 0d  :32 GMT.",
        "           ^^                   ^              ^^                   ^",
        "368  0a 43 6f 6e 74 65 6e 74  .Content │ 0a 43 6f 6e 74 65 6e 74  .Content",
        "376  2d 54 79 70 65 3a 20 74  -Type: t │ 2d 54 79 70 65 3a 20 74  -Type: t",
        "384  65 78 74 2f 68 74 6d 6c  ext/html │ 65 78 74 2f 68 74 6d 6c  ext/html",
        "",
        " primary                               │  secondary",
        "      ms flags pos ack len             │       ms flags pos ack len",
        " -31.500    SA       0   0             │  -31.250    SA       0   0",
        " -28.500     A   0 119   0             │",
        " -28.000    PA   0 119 300 ........... │",
        "                                       │  -27.250    PA   0 119 200 ...........",
        "                                       │  -27.200    PA 200 119 100 ...........",
        "                                       │   -0.100    PA 300 119  17 HTTP/1.1 20",
        "▸ -0.750    PA 300 119 192 HTTP/1.1 20 │ ▸  0.000    PA 317 119 175 Server: ngi",
        "• -0.250     A 492 239   0             │",
        " ▸ differs   • waits   others: passed before   ms: counted from the verdict",
        "",
        "This looks like the date of an HTTP answer: the replicas' clocks are not the",
        "same. If nothing else differs, a mask makes the compare skip it:",
        "    [rule.date-header]",
        '    action = "mask"',
        '    protocol = "tcp"',
        "    source_port = 80",
        "    regex = '\\nDate: ([^\\r\\n]*)'",
        "",
    ]


@pytest.mark.parametrize("width", [60, 80, 100, 140, 300])
@pytest.mark.parametrize("scene", SCENES)
def test_no_table_is_wider_than_the_terminal(scene: str, width: int, shown: Callable[..., list[str]]) -> None:
    """Sentences wrap; tables fit."""
    lines = shown(getattr(words, scene)(), width)
    assert lines and all(len(line) <= width for line in lines if "│" in line)
    if width >= 140 and scene == "date":
        assert any("76 65 72 3a 20 6e 67 69 6e 78 0d 0a 44 61 74 65  ver: nginx..Date │" in line for line in lines)


def test_equal_segments_stand_on_one_line(tmp_path: Path) -> None:
    """Whatever was sent again, came late or was cut otherwise; what differs stands on one line, too."""
    page = b"x" * 50
    frames = [words.segment(50 * i, page) for i in range(8)]
    primary = [words.Held(f, 0, 100 - 2 * i, held=False) for i, f in enumerate(frames)]
    late = [words.Held(frames[i], 1, 90 - 2 * n, held=False) for n, i in enumerate((0, 1, 1, 3, 2, 4, 5, 7))]
    mine, theirs = words.segment(400, b"abc"), words.segment(400, b"abd")
    last = [words.Held(mine, 0, 2, at=words.data_at(mine, 2)), words.Held(theirs, 1, 1, at=words.data_at(theirs, 2))]
    d = load(write(words.Found(compare.R_PAYLOAD, primary + late + last, 402, (b"abc", b"abd"), 2), tmp_path / "x"))
    rows = [tuple(None if p is None else d.relative(p) for p in pair) for pair in pairs(d)]
    assert [(a, b) for a, b in rows if a is not None and b is not None] == [
        (0, 0), (50, 50), (150, 150), (200, 200), (250, 250), (350, 350), (400, 400),
    ]  # fmt: skip
    assert rows[-1] == (400, 400)
    assert sorted(a for a, _ in rows if a is not None) == [50 * i for i in range(9)]
    assert [b for _, b in rows if b is not None] == [0, 50, 50, 150, 100, 200, 250, 350, 400]


def test_many_packets_are_cut_to_those_near_the_difference(shown: Callable[..., list[str]]) -> None:
    """``--all`` shows the rest."""
    found = words.date()
    more = [words.Held(words.segment(0, bytes([i] * 9)), 0, 60 + i, held=False) for i in range(16)]
    more += [words.Held(words.segment(600 + i, b"later"), 0, 0.01 * i) for i in range(12)]
    found.packets += more
    few, all_of_them = shown(found), shown(found, everything=True)
    assert any(line.startswith(" … 10 lines before: --all") for line in few)
    assert any(line.startswith(" … 7 lines behind: --all") for line in few)
    assert len(all_of_them) == len(few) + 15 and not any("--all" in line for line in all_of_them)


def test_what_one_side_did_not_send_is_blank(shown: Callable[..., list[str]]) -> None:
    """A timeout shows the packet that waits, and nothing on the other side."""
    lines = shown(words.timeout())
    assert "304  20 62 79 20 6f 6e 65 20   by one  │ ·· ·· ·· ·· ·· ·· ·· ··" in lines
    assert "     primary (waits alone)             │ secondary" in lines


def test_without_packets_the_bytes_of_the_event_are_shown(shown: Callable[..., list[str]]) -> None:
    """32 bytes around the difference are in the verdict itself."""
    found = words.date()
    found.of, found.packets = words.read(found.packets[0].frame), []
    lines = shown(found)
    assert "360  3a 33 31 20 47 4d 54 0d  :31 GMT. │ 3a 33 32 20 47 4d 54 0d  :32 GMT." in lines
    assert not any("▸" in line for line in lines)


# --- advice -------------------------------------------------------------------------------------------------------
ANSWERS = {
    "cookie": (b"A: b\r\nSet-Cookie: sid=ab12cd; Path=/\r\n", b"A: b\r\nSet-Cookie: sid=ff12cd; Path=/\r\n",
               "a cookie", "\\nSet-Cookie: ([^\\r\\n]*)"),
    "header": (b"X-Trace-Id: 77\r\n", b"X-Trace-Id: 78\r\n", "X-Trace-Id", "X-Trace-Id: ([^\\r\\n]*)"),
    "iso date": (b'{"at": "2026-11-23T07:34:31"}', b'{"at": "2026-11-23T07:34:32"}', "a date",
                 '\\{"at": "([0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2})'),
    "uuid": (b"[id]=0d3e5b7a-1111-4222-8333-123456789abc.", b"[id]=9d3e5b7a-1111-4222-8333-123456789abc.", "a UUID",
             "\\[id\\]=([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})"),
    "time stamp": (b'{"ts":1795000000123}', b'{"ts":1795000000124}', "a long number", '\\{"ts":([0-9]{13})'),
    "token": (b"\n<i value=00aa11bb22cc33dd>", b"\n<i value=00aa11bb22cc33de>", "hexadecimal",
              "\\n<i value=([0-9a-fA-F]{16})"),
    "no fixed text": (b"00aa11bb22cc33dd>", b"00aa11bb22cc33de>", "fixed text", None),
    "length": (b"Content-Length: 512\r\n", b"Content-Length: 513\r\n", "would not help", None),
    "prose": (b"<p>I am replica one</p>", b"<p>I am replica two</p>", "said something different", None),
    "header only on one side": (b"Date: today\r\n", b"Dato: today\r\n", "said something different", None),
}  # fmt: skip


def rule_of(config: Sequence[str]) -> Rule:
    """The rule that lines for config.toml make; they must be without a mistake."""
    ((name, table),) = tomllib.loads("\n".join(config))["rule"].items()
    rule, mistakes = from_table(name, table, ["comp0"])
    assert mistakes == []
    return rule


def masked(regex: tuple[str, ...], stream: bytes) -> set[int]:
    """The bytes of a stream that a mask covers."""
    automaton, state, found = compile_mask(regex), 0, set()
    for i, value in enumerate(stream):
        state, hit = divmod(automaton.rows[state][automaton.classes[value]], 2)
        found |= {i} if hit else set()
    return found


@pytest.mark.parametrize("name", ANSWERS)
def test_a_mask_is_suggested_where_the_bytes_look_like_something(name: str, tmp_path: Path) -> None:
    """Dates, cookies, random ids: the rule can be used as it stands, covers what differs, and no text before it."""
    first, second, text, regex = ANSWERS[name]
    advice = advise(load(write(words.tcp_difference(first, second), tmp_path / "x")))
    assert text in advice.text and bool(advice.config) == (regex is not None)
    if regex is None:
        return
    rule = rule_of(advice.config)
    assert rule.action == "mask" and rule.regex == (regex,)
    differ = {i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b}
    fixed = regex.partition("([")[0].replace("\\n", "\n").replace("\\", "").encode()
    for stream in (first, second):
        covered = masked(rule.regex, stream)
        assert differ <= covered and min(covered) == stream.index(fixed) + len(fixed)


def test_what_is_encrypted_may_pass(tmp_path: Path) -> None:
    """TLS: no mask, a rule that lets the service pass."""
    first, second = (b"\x16\x03\x03\0\x40" + bytes(60) + last for last in (b"a", b"b"))
    advice = advise(load(write(words.tcp_difference(first, second), tmp_path / "x")))
    assert "TLS" in advice.text and rule_of(advice.config).action == "pass"


def test_advice_for_what_is_no_byte(tmp_path: Path) -> None:
    """FIN on one side, datagrams, a silent and a talking secondary, full queues."""
    late = words.timeout()
    talking = words.timeout()
    talking.packets.append(words.Held(words.segment(400, b"else"), 1, 100))
    texts = [advise(load(write(f, tmp_path / "x"))).text for f in (words.flags(), words.order(), late, talking)]
    assert "closed by the primary alone" in texts[0] and "reorder_grace_ms" in texts[1]
    assert texts[2].startswith("Nothing of the secondary waits") and texts[3].startswith("The secondary has sent other")
    assert "max_queue_size" in advise(load(write(words.stuck(), tmp_path / "x"))).text


# --- the program --------------------------------------------------------------------------------------------------
def run(*args: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "PYTHONIOENCODING")}
    return subprocess.run(
        [sys.executable, "-m", "tools.explain", *map(str, args)],
        cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_pipe_gets_plain_text_and_a_terminal_colours(tmp_path: Path) -> None:
    """No escape in a pipe, with --no-color and with NO_COLOR; colours where a terminal is said to be."""
    path = write(words.date(), tmp_path / "a.pcapng")
    plain = run(path, COLUMNS="80")
    assert plain.returncode == 0 and plain.stderr == "" and "\x1b" not in plain.stdout
    assert "│ 3a 33 32 20 47 4d 54 0d  :32 GMT." in plain.stdout
    assert max(map(len, plain.stdout.splitlines())) <= 80
    coloured = run(path, COLUMNS="80", FORCE_COLOR="1", TERM="xterm-256color")
    assert "\x1b[" in coloured.stdout
    for args, more in ((["--no-color"], {}), ([], {"NO_COLOR": "1"})):
        quiet = run(path, *args, COLUMNS="80", FORCE_COLOR="1", TERM="xterm-256color", **more)
        assert quiet.stdout == plain.stdout
    ascii_only = run(path, PYTHONIOENCODING="ascii")
    assert ascii_only.returncode == 0 and ascii_only.stderr == ""


def test_a_bad_file_is_one_line_and_the_others_are_shown(tmp_path: Path) -> None:
    """Missing, no capture, a capture without a verdict: one line each on stderr, exit status 2."""
    good = write(words.flags(), tmp_path / "good.pcapng")
    (tmp_path / "text").write_text("hello, world")
    with captures.Writer(tmp_path / "other.pcapng") as out:
        out.write(tcp_frame("10.0.0.1", "10.0.0.2", 1, 2), WALL)
    done = run(tmp_path / "none", tmp_path / "text", tmp_path / "other.pcapng", good)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"tools.explain: {tmp_path}/none, byte 0: the file cannot be read (No such file or directory)",
        f"tools.explain: {tmp_path}/text, byte 0: it starts with 68 65 6c 6c: neither pcap nor pcapng",
        f"tools.explain: {tmp_path}/other.pcapng: no verdict of colo-compare in it: "
        "not a file that explains a difference",
    ]
    assert "the primary ends (FIN)" in done.stdout


def test_a_folder_is_listed_newest_first(tmp_path: Path) -> None:
    """Path and rule, then flow and verdict; other captures in it are passed over."""
    for n, scene in enumerate(SCENES):
        os.utime(write(getattr(words, scene)(), tmp_path / f"{scene}.pcapng"), (n, n))
    (tmp_path / "other.pcapng").write_bytes(captures.header(["a"]))
    (tmp_path / "notes.txt").write_text("no")
    done = run(tmp_path, COLUMNS="100")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and done.stderr == ""
    assert lines[::2] == [
        f"{tmp_path}/{scene}.pcapng  {rule}"
        for scene, rule in zip(SCENES[::-1], ("stuck", "timeout", "order", "flags", "payload"), strict=True)
    ]
    assert lines[-1].startswith("    tcp 10.0.0.2:80 > 10.0.0.1:4711  the streams differ at position 362:")
    assert all(len(line) <= 100 for line in lines[1::2])
    as_data = [json.loads(line) for line in run("--json", tmp_path).stdout.splitlines()]
    assert [d["rule"] for d in as_data] == ["stuck", "timeout", "order", "flags", "payload"]


def test_json_has_all_that_the_picture_shows(tmp_path: Path) -> None:
    """Verdict, meaning, advice and packets, as one object a line."""
    done = run("--json", write(words.date(), tmp_path / "a.pcapng"), write(words.order(), tmp_path / "b.pcapng"))
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["rule"], first["position"], first["flow"]) == ("payload", 362, "tcp 10.0.0.2:80 > 10.0.0.1:4711")
    assert first["meaning"].startswith("the streams differ at position 362")
    assert first["config"][0] == "[rule.date-header]" and rule_of(first["config"]).action == "mask"
    assert [p["side"] for p in first["packets"] if p["at"] >= 0] == ["primary", "secondary"]
    assert [p["position"] for p in first["packets"] if p["at"] >= 0] == [300, 317]
    assert second["rule"] == "order" and all("position" not in p for p in second["packets"])


# --- whatever the file --------------------------------------------------------------------------------------------
def survives(path: Path) -> bool:
    """Whether it can be shown; a typed error is the only other thing that may happen."""
    try:
        d = load(path)
    except (captures.CaptureError, NotExplainedError):
        return False
    for width in (40, 80, 140):
        lines = explain.picture(d, width, everything=width == 140)
        assert lines and all("\x1b" not in line.plain for line in lines)
    assert json.dumps(explain.as_json(d))
    return True


quick = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(
    st.sampled_from(SCENES), st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=8), st.data()
)
def test_a_damaged_file_is_a_line_not_a_traceback(
    tmp_path: Path, scene: str, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Bytes changed, cut or added anywhere."""
    blob = bytearray(content(getattr(words, scene)()))
    for at, value in changes:
        blob[at % len(blob)] = value
    cut = data.draw(st.integers(0, len(blob)) | st.just(len(blob)))
    path = tmp_path / "x.pcapng"
    path.write_bytes(bytes(blob[:cut]))
    shown = survives(path)
    assert shown or changes or cut < len(blob)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(SIDES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


@quick
@given(st.sampled_from(SCENES), st.data())
def test_a_wrong_verdict_is_a_line_not_a_traceback(tmp_path: Path, scene: str, data: st.DataObject) -> None:
    """The JSON object with any value in any field, over the same packets or none."""
    path = write(getattr(words, scene)(), tmp_path / "x.pcapng")
    packets = captures.read(path, cut=True)
    verdict = json.loads(captures.comments(path)[1])
    for name in data.draw(st.lists(st.sampled_from(sorted(verdict)), max_size=3)):
        inner = verdict[name]
        if isinstance(inner, dict) and inner and data.draw(st.booleans()):
            inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(anything)
        else:
            verdict[name] = data.draw(anything)
    for name in data.draw(st.lists(st.sampled_from(sorted(verdict)), max_size=1)):
        del verdict[name]
    out = captures.header(SIDES, comment=["prose", json.dumps(verdict)])
    for p in packets[: data.draw(st.integers(0, len(packets)))]:
        out += captures.record(p.data, p.ns, interface=SIDES.index(p.interface), missing=p.missing)
    path.write_bytes(out)
    survives(path)


frames_and_marks = st.lists(
    st.tuples(st.binary(max_size=90), st.integers(0, 1), st.booleans(), st.integers(-2, 1 << 40)), max_size=9
)
kinds = st.sampled_from(["tcp", "udp", "icmp", "ip", "fragment", ""])


@quick
@given(frames_and_marks, kinds, st.none() | st.integers(0, 1 << 40))
def test_any_packets_can_be_shown(
    tmp_path: Path, frames: list[tuple[bytes, int, bool, int]], kind: str, position: int | None
) -> None:
    """Frames that are none, differences behind their ends, kinds that do not fit."""
    heads = [tcp_frame("10.0.0.2", "10.0.0.1", 80, 9, seq=5, payload=b"abc")[:54], icmp_frame("10.0.0.2", "10.0.0.1")]
    heads += [udp_frame("2001:db8::2", "2001:db8::1", 53, 9, b"x"), b""]
    window = {"bytes": "00ff", "length": 2}
    verdict = {
        MARK: VERSION, "rule": "payload", "time_ns": WALL, "kind": kind, "position": position, "offset": 1,
        "primary": window, "secondary": window, "packets": [[int(held), at] for _, _, held, at in frames],
    }  # fmt: skip
    out = captures.header(SIDES, comment=["prose", json.dumps(verdict)])
    for n, (data, side, _, _) in enumerate(frames):
        out += captures.record(heads[n % 4] + data, WALL + n, interface=side, missing=n)
    path = tmp_path / "x.pcapng"
    path.write_bytes(out)
    assert survives(path)


def test_another_version_is_named(tmp_path: Path) -> None:
    """A file of a later program says so."""
    path = tmp_path / "x"
    path.write_bytes(captures.header(SIDES, comment=["prose", json.dumps({MARK: 2})]))
    with pytest.raises(NotExplainedError, match="format 2: 1 is known"):
        load(path)


def test_the_example_of_the_docs_is_what_it_prints() -> None:
    """docs/explain.md shows samples/divergence.pcapng at 80 columns."""
    done = run("samples/divergence.pcapng", COLUMNS="80")
    assert done.returncode == 0
    assert f"\n```\n{done.stdout.rstrip()}\n```\n" in (ROOT / "docs" / "explain.md").read_text()
