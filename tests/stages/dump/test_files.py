"""Files of a dump: their names, which are kept, and that a change of files can be done twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.dump.files import Files


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def test_a_number_stands_before_the_ending(tmp_path: Path) -> None:
    """``a.b.pcapng`` becomes ``a.b.7.pcapng``; a name without an ending gets the number at its end."""
    assert Files(str(tmp_path / "a.b.pcapng"), 2).aside(7) == str(tmp_path / "a.b.7.pcapng")
    assert Files(str(tmp_path / "dump"), 2).aside(7) == str(tmp_path / "dump.7")


def test_only_its_own_files_are_counted(tmp_path: Path) -> None:
    """What another program left beside them is not touched."""
    for name in ("d.1.pcapng", "d.12.pcapng", "d.x.pcapng", "d.pcapng", "dd.3.pcapng", "d.3.pcap"):
        _write(tmp_path / name, name)
    files = Files(str(tmp_path / "d.pcapng"), 1)
    assert files.numbers() == [1, 12]
    files.put_aside(12)
    assert _names(tmp_path) == ["d.3.pcap", "d.x.pcapng", "dd.3.pcapng"]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    """Of many, so many less one lie aside: the present one counts, too."""
    files = Files(str(tmp_path / "d.pcapng"), keep)
    for number in range(1, 6):
        _write(tmp_path / "d.pcapng", str(number))
        files.put_aside(number)
        assert not (tmp_path / "d.pcapng").exists()
        kept = list(range(max(1, number - keep + 2), number + 1))
        assert files.numbers() == kept
        assert [Path(files.aside(n)).read_text() for n in kept] == list(map(str, kept))


def test_a_change_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    """Killed between the two names: done once more, the file that was put aside is the same."""
    files = Files(str(tmp_path / "d.pcapng"), 3)
    _write(tmp_path / "d.pcapng", "whole")
    (tmp_path / "d.1.pcapng").hardlink_to(tmp_path / "d.pcapng")
    files.put_aside(1)
    assert _names(tmp_path) == ["d.1.pcapng"]
    assert Path(files.aside(1)).read_text() == "whole"
