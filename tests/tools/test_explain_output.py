"""tools.explain on narrow terminals, in pipes, on a full disk, and over files that the compare did not write."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.capture import writer as capture_writer
from tests.stages.compare import evidence_words as words
from tests.stages.compare.evidence_words import write
from tools import explain
from tools.divergence import load

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLE = ROOT / "samples" / "divergence.pcapng"
COMMAND = [sys.executable, "-m", "tools.explain"]


@pytest.mark.parametrize("width", [40, 60])
@pytest.mark.parametrize("scene", ["date", "flags", "order", "timeout", "stuck"])
def test_a_narrow_terminal_gets_lines_of_its_width(scene: str, width: int, tmp_path: Path) -> None:
    """Heading, sentences, tables and legend; but for what is copied as it stands: a rule, a command."""
    path = write(getattr(words, scene)(), tmp_path / "x.pcapng")
    lines = [line.plain for line in explain.picture(load(path), width)]
    assert lines
    assert [line for line in lines if len(line) > width and not line.startswith("    ")] == []


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_has_seen_enough_is_no_error(options: list[str], tmp_path: Path) -> None:
    """``| head -1``: no traceback, status 0; more is written than a pipe holds."""
    for n in range(400):
        shutil.copy(SAMPLE, tmp_path / f"{'x' * 100}{n}.pcapng")
    with subprocess.Popen(
        [*COMMAND, *options, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_full_disk_is_one_line() -> None:
    """Where the output goes there is no room: status 2."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, str(SAMPLE)], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "tools.explain: the output cannot be written (No space left on device)\n"


def test_a_file_is_read_from_a_pipe() -> None:
    """Once, for it cannot be read twice."""
    done = subprocess.run(
        [*COMMAND, "/dev/stdin"], cwd=ROOT, input=SAMPLE.read_bytes(), capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"The streams differ at position 99" in done.stdout


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor a device without an end; in a folder it is passed over."""
    huge = tmp_path / "huge.pcapng"
    shutil.copy(SAMPLE, huge)
    os.truncate(huge, 1 << 33)
    assert explain.main([str(huge), "/dev/zero"]) == 2
    said = capsys.readouterr()
    assert said.err.splitlines() == [f"tools.explain: {p}: more than 16,777,216 bytes" for p in (huge, "/dev/zero")]
    assert explain.main([str(tmp_path)]) == 0


def test_a_folder_in_which_nothing_explains_a_difference_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, not silence; of one with files that do, the others are not counted as shown."""
    for n in range(30):
        (tmp_path / f"other{n}.pcapng").write_bytes(capture_writer.header(["a"]))
    assert explain.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: no file that explains a difference\n"
    shutil.copy(SAMPLE, tmp_path / "oldest.pcapng")
    os.utime(tmp_path / "oldest.pcapng", (1, 1))
    assert explain.main([str(tmp_path)]) == 0
    assert f"{tmp_path}/oldest.pcapng  payload" in capsys.readouterr().out


def test_a_name_of_a_file_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An escape sequence in it is shown, not sent: in a listing, a heading, an error."""
    name = "a\x1b[2Jb.pcapng"
    shutil.copy(SAMPLE, tmp_path / name)
    assert explain.main([str(tmp_path), str(tmp_path / name), str(tmp_path / f"no{name}")]) == 2
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert said.out.count("a\\x1b[2Jb.pcapng") == 2
    assert "noa\\x1b[2Jb.pcapng" in said.err
