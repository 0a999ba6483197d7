"""tools.explain: what a person sees of a difference, and that no file makes it fall over."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.capture import writer as capture_writer
from stages.compare.finding import MARK, SIDES
from stages.compare.layout import reasons
from tests.packets import tcp_frame
from tests.stages.compare import evidence_words as words
from tests.stages.compare.evidence_words import WALL, write
from tools import explain
from tools.divergence import NotExplainedError, load, pairs

ROOT = Path(__file__).resolve().parent.parent.parent
SCENES = ("date", "flags", "order", "timeout", "stuck")


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
        "The streams differ at position 362: primary 0x31 '1', secondary 0x32 '2'.",
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
        "Or, while NAME runs:",
        "    python -m pipeline.control NAME rule add date-header action=mask \\",
        "        protocol=tcp source_port=80 'regex=\\nDate: ([^\\r\\n]*)'",
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


CONTEXTS = {
    "the end of the line before": (b"a: close\r\n\r\nprimary!", b"a: close\r\n\r\nsecond.!", 0,
                                   ["a: close\\r\\n\\r\\nprimary!", "a: close\\r\\n\\r\\nsecond.!"], 16),
    "much text, cut": (b"x" * 40 + b"\\\t\nprimary!", b"x" * 40 + b"\\\t\nsecond.!", 0,
                       ["…" + "x" * 18 + "\\\\\\t\\nprimary!", "…" + "x" * 18 + "\\\\\\t\\nsecond.!"], 25),
    "nothing": (b"primary here", b"second. here", 0, ['"primary here"', '"second. here"'], 1),
    "no text": (b"\0\xff\n\nprimary!", b"\0\xff\n\nsecond.!", 0, ["\\n\\nprimary!", "\\n\\nsecond.!"], 4),
    "enough of the line": (b"\nprimary host 1", b"\nprimary host 2", 0, ["primary host 1", "primary host 2"], 13),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_line_is_told_from_the_names_of_the_sides(name: str, shown: Callable[..., list[str]]) -> None:
    """Bytes that may be a side's name stand with the text before them, escaped, or in quotes; the mark is below."""
    first, second, before, expected, mark = CONTEXTS[name]
    lines = shown(words.tcp_difference(first, second, before))
    at = next(i for i, line in enumerate(lines) if line.startswith("primary   │ "))
    assert [line.partition(" │ ")[2] for line in lines[at : at + 2]] == expected
    assert lines[at + 2] == " " * (len("primary   │ ") + mark) + "^"


def test_a_time_just_before_the_verdict_has_no_sign_of_zero(shown: Callable[..., list[str]]) -> None:
    """Less than half a microsecond is 0.000."""
    found = words.date()
    found.packets[-2].before_ms = 0.0004
    found.packets[-3].before_ms = 0.0002
    lines = shown(found)
    assert not any("-0.000" in line for line in lines) and sum("  0.000 " in line for line in lines) >= 2


@pytest.mark.parametrize("scene", SCENES)
def test_a_difference_of_bytes_ends_with_what_makes_it_none(scene: str, shown: Callable[..., list[str]]) -> None:
    """A command that adds a rule; a timeout is no case for one."""
    last = shown(getattr(words, scene)())[-2]
    assert "regex=" in last if scene in ("order", "date") else "rule" not in last


def test_equal_segments_stand_on_one_line(tmp_path: Path) -> None:
    """Whatever was sent again, came late or was cut otherwise; what differs stands on one line, too."""
    page = b"x" * 50
    frames = [words.segment(50 * i, page) for i in range(8)]
    primary = [words.Held(f, 0, 100 - 2 * i, held=False) for i, f in enumerate(frames)]
    late = [words.Held(frames[i], 1, 90 - 2 * n, held=False) for n, i in enumerate((0, 1, 1, 3, 2, 4, 5, 7))]
    mine, theirs = words.segment(400, b"abc"), words.segment(400, b"abd")
    last = [words.Held(mine, 0, 2, at=words.data_at(mine, 2)), words.Held(theirs, 1, 1, at=words.data_at(theirs, 2))]
    d = load(write(words.Found(reasons.PAYLOAD, primary + late + last, 402, (b"abc", b"abd"), 2), tmp_path / "x"))
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
    """Missing, empty, no capture, a capture without a verdict: one line each on stderr, exit status 2."""
    good = write(words.flags(), tmp_path / "good.pcapng")
    (tmp_path / "text").write_text("hello, world")
    with capture_writer.Writer(tmp_path / "other.pcapng") as out:
        out.write(tcp_frame("10.0.0.1", "10.0.0.2", 1, 2), WALL)
    (tmp_path / "empty").touch()
    done = run(tmp_path / "none", tmp_path / "empty", tmp_path / "text", tmp_path / "other.pcapng", good)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"tools.explain: {tmp_path}/none: the file cannot be read (No such file or directory)",
        f"tools.explain: {tmp_path}/empty: the file is empty",
        f"tools.explain: {tmp_path}/text: it starts with 68 65 6c 6c: neither pcap nor pcapng",
        f"tools.explain: {tmp_path}/other.pcapng: no verdict of colo-compare in it: "
        "not a file that explains a difference",
    ]
    assert "the primary ends (FIN)" in done.stdout


def test_a_folder_is_listed_newest_first(tmp_path: Path) -> None:
    """Path and rule, then flow and verdict; other captures in it are passed over."""
    for n, scene in enumerate(SCENES):
        os.utime(write(getattr(words, scene)(), tmp_path / f"{scene}.pcapng"), (n, n))
    (tmp_path / "other.pcapng").write_bytes(capture_writer.header(["a"]))
    (tmp_path / "notes.txt").write_text("no")
    done = run(tmp_path, COLUMNS="100")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and done.stderr == ""
    assert lines[::2] == [
        f"{tmp_path}/{scene}.pcapng  {rule}"
        for scene, rule in zip(SCENES[::-1], ("stuck", "timeout", "order", "flags", "payload"), strict=True)
    ]
    assert lines[-1].startswith("    tcp 10.0.0.2:80 > 10.0.0.1:4711  the streams differ at position 362:")
    as_data = [json.loads(line) for line in run("--json", tmp_path).stdout.splitlines()]
    assert [d["rule"] for d in as_data] == ["stuck", "timeout", "order", "flags", "payload"]


def listed(*args: str | Path) -> list[str]:
    done = run(*args, COLUMNS="60")
    assert done.returncode == 0
    return [line.partition(".pcapng")[0].rpartition("/")[2] for line in done.stdout.splitlines() if ".pcapng" in line]


def test_several_folders_are_one_list(tmp_path: Path) -> None:
    """The newest first over all of them, once each; a folder that is gone does not hide the others."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for n in range(4):
        os.utime(write(words.flags(), tmp_path / "ab"[n % 2] / f"f{n}.pcapng"), (n, n))
    assert listed(tmp_path / "a", tmp_path / "b", tmp_path / "a") == ["f3", "f2", "f1", "f0"]
    done = run(tmp_path / "a", tmp_path / "c")
    assert done.returncode == 2 and "f2.pcapng" in done.stdout and done.stderr.count("\n") == 1


def test_a_pipe_gets_every_file_and_whole_lines(tmp_path: Path) -> None:
    """More than a terminal would list, longer than it is wide."""
    for n in range(23):
        os.utime(write(words.date(), tmp_path / f"f{n}.pcapng"), (n, n))
    assert listed(tmp_path) == [f"f{n}" for n in range(22, -1, -1)]
    done = run(tmp_path, COLUMNS="60")
    assert done.stdout.count("secondary 0x32 '2'\n") == 23 and "…" not in done.stdout


def test_a_terminal_gets_as_much_as_one_looks_at(tmp_path: Path) -> None:
    """Twenty files, lines of its width, and how to see the rest; --all and --json have everything."""
    for n in range(23):
        os.utime(write(words.date(), tmp_path / f"f{n}.pcapng"), (n, n))
    lines = terminal(tmp_path).splitlines()
    assert lines[-1] == "… 3 older: --all" and sum(line.startswith("    tcp ") for line in lines) == 20
    assert all(len(line) <= 60 for line in lines if line.startswith("    tcp "))
    assert terminal("--all", tmp_path).count("f0.pcapng") == 1
    assert len(terminal("--json", tmp_path).splitlines()) == 23


def terminal(*args: str | Path) -> str:
    """What the program writes to a terminal of 60 columns, without colours."""
    ours, its = pty.openpty()
    environment = {**os.environ, "COLUMNS": "60", "NO_COLOR": "1", "TERM": "xterm"}
    command = [sys.executable, "-m", "tools.explain", *map(str, args)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=its, stderr=its)
    os.close(its)
    said = b""
    try:
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # EIO: nobody has its end open any more
                break
            if not piece:
                break
            said += piece
    finally:
        os.close(ours)
        assert process.wait(60) == 0
    return said.decode().replace("\r\n", "\n")


def test_json_has_all_that_the_picture_shows(tmp_path: Path) -> None:
    """Verdict, meaning, advice and packets, as one object a line."""
    done = run("--json", write(words.date(), tmp_path / "a.pcapng"), write(words.order(), tmp_path / "b.pcapng"))
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["rule"], first["position"], first["flow"]) == ("payload", 362, "tcp 10.0.0.2:80 > 10.0.0.1:4711")
    assert first["meaning"].startswith("the streams differ at position 362")
    assert first["config"][0] == "[rule.date-header]" and first["command"].endswith("'regex=\\nDate: ([^\\r\\n]*)'")
    assert [p["side"] for p in first["packets"] if p["at"] >= 0] == ["primary", "secondary"]
    assert [p["position"] for p in first["packets"] if p["at"] >= 0] == [300, 317]
    assert second["rule"] == "order" and all("position" not in p for p in second["packets"])


def test_another_version_is_named(tmp_path: Path) -> None:
    """A file of a later program says so."""
    path = tmp_path / "x"
    path.write_bytes(capture_writer.header(SIDES, comment=["prose", json.dumps({MARK: 2})]))
    with pytest.raises(NotExplainedError, match="format 2: 1 is known"):
        load(path)


def test_the_example_of_the_docs_is_what_it_prints() -> None:
    """docs/explain.md shows samples/divergence.pcapng at 80 columns."""
    done = run("samples/divergence.pcapng", COLUMNS="80")
    assert done.returncode == 0
    assert f"\n```\n{done.stdout.rstrip()}\n```\n" in (ROOT / "docs" / "explain.md").read_text()
