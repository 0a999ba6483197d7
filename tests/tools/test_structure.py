"""Rooms, floors and arrows: of a made-up package, and of stages as docs/design.md shows it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import structure

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package ``made`` of four rooms: two folders in a circle, one that imports them, and what stands beside them."""
    monkeypatch.setattr(structure, "ROOT", tmp_path)
    files = {
        "base.py": "import sys",
        "left/a.py": "from made import base\nfrom made.right.b import Thing",
        "left/kernels/deep.py": "from made.left import a",
        "right/b.py": "def late():\n    from made.left import a",
        "top/c.py": "import made.left.a\nfrom made.right import b",
        "top/__init__.py": "from made.left import a",
    }
    for name, text in files.items():
        path = tmp_path / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "made"


def test_rooms_are_folders(house: Path) -> None:
    """Arrows, floors and circles; an import counts wherever it stands, one within a room does not."""
    found = structure.build(house, modules=False)
    assert found.arrows == {
        "made": set(),
        "made.left": {"made", "made.right"},
        "made.right": {"made.left"},
        "made.top": {"made.left", "made.right"},
    }
    assert found.floors == {"made": 0, "made.left": 1, "made.right": 1, "made.top": 2}
    assert [sorted(circle) for circle in found.circles] == [["made.left", "made.right"]]


def test_rooms_are_modules_where_asked(house: Path) -> None:
    """Then what is in one folder has arrows, too."""
    found = structure.build(house, modules=True)
    assert found.arrows["made.left.kernels.deep"] == {"made.left.a"}
    assert found.floors["made.left.kernels.deep"] == found.floors["made.top.c"] == 2
    assert "made.top" not in found.arrows  # an __init__ is no room


def test_the_report(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sum, each circle, and the rooms from the top."""
    assert structure.main(["made", "--arrows"]) == 0
    first, circle, heads, *rows = capsys.readouterr().out.splitlines()
    assert first == "4 rooms on 3 floors, 5 arrows, 1 circles"
    assert circle.startswith("circle: made.")
    assert heads.split() == ["floor", "room", "imports"]
    assert [row.split()[:2] for row in rows] == [
        ["2", "made.top"], ["1", "made.left"], ["1", "made.right"], ["0", "made"],
    ]  # fmt: skip


@pytest.mark.parametrize("folder", ["unknown", "docs", "..", ".", "/"])
def test_a_folder_that_is_no_package_of_this_repository(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One clear line, status 2."""
    assert structure.main([folder]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == f"{folder}: found no folder; expected a package of this repository, such as stages\n"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """A closed pipe: no traceback, status 0."""
    command = [sys.executable, "-m", "tools.structure", "--modules"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_the_house_in_the_design_is_the_house() -> None:
    """docs/design.md: the figures of the last row, and the list of rooms."""
    text = (ROOT / "docs" / "design.md").read_text()
    found = structure.build(ROOT / "stages", modules=False)
    figures = re.search(r"^\| now, a room a folder \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert figures
    assert [int(n) for n in figures.groups()] == [
        len(found.arrows),
        max(found.floors.values()) + 1,
        sum(map(len, found.arrows.values())),
        len(found.circles),
    ]
    listed = re.search(r"^```\n(floor .*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert listed
    assert listed[1].splitlines() == structure.report(found, arrows=True)[1:]
