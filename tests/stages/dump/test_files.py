"""Files of a dump: their names, which are kept, and that a change of files can be done twice."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from stages.dump.files import Files


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def test_a_number_stands_before_the_ending(tmp_path: Path) -> None:
    """``a.b.pcapng`` becomes ``a.b.7.pcapng``; a name without an ending gets the number at its end.

    A dot at the start is no ending.
    """
    assert Files(str(tmp_path / "a.b.pcapng"), 2).aside(7) == str(tmp_path / "a.b.7.pcapng")
    assert Files(str(tmp_path / "dump"), 2).aside(7) == str(tmp_path / "dump.7")
    assert Files(str(tmp_path / ".dump"), 2).aside(7) == str(tmp_path / ".dump.7")


def test_only_its_own_files_are_counted(tmp_path: Path) -> None:
    """What another program left beside them is not touched."""
    others = ["d.0.pcapng", "d.001.pcapng", "d.3.pcap", "d.x.pcapng", "d.\u0663.pcapng", "dd.3.pcapng"]
    for name in ("d.1.pcapng", "d.12.pcapng", "d.pcapng", *others):
        _write(tmp_path / name, name)
    files = Files(str(tmp_path / "d.pcapng"), 1)
    assert files.numbers() == [1, 12]
    files.put_aside()
    assert files.clean_up() == []
    assert _names(tmp_path) == sorted(others)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    """Of many, so many less one lie aside: the present one counts, too."""
    files = Files(str(tmp_path / "d.pcapng"), keep)
    for number in range(1, 6):
        _write(tmp_path / "d.pcapng", str(number))
        files.put_aside()
        assert files.clean_up() == []
        assert not (tmp_path / "d.pcapng").exists()
        kept = list(range(max(1, number - keep + 2), number + 1))
        assert files.numbers() == kept
        assert [Path(files.aside(n)).read_text() for n in kept] == list(map(str, kept))


def test_a_change_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    """Killed between the two names: done once more, the file that was put aside is the same."""
    files = Files(str(tmp_path / "d.pcapng"), 3)
    _write(tmp_path / "d.pcapng", "whole")
    (tmp_path / "d.1.pcapng").hardlink_to(tmp_path / "d.pcapng")
    _write(tmp_path / "d.2.pcapng", "another's")
    files.put_aside()
    assert _names(tmp_path) == ["d.1.pcapng", "d.2.pcapng"]
    assert Path(files.aside(1)).read_text() == "whole"


@pytest.mark.parametrize("links", [True, False])
def test_what_is_in_the_way_is_never_written_over(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it came after the look, and on a file system without second names; no byte of either is lost."""
    if not links:

        def link(*_: Any, **__: Any) -> None:
            raise PermissionError(errno.EPERM, "no such thing as a link here")

        monkeypatch.setattr(os, "link", link)
    files = Files(str(tmp_path / "d.pcapng"), 9)
    for number in (1, 2):
        _write(tmp_path / f"d.{number}.pcapng", f"another's {number}")
    _write(tmp_path / "d.pcapng", "whole")
    monkeypatch.setattr(files, "numbers", list)
    files.put_aside()
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"d.1.pcapng": "another's 1", "d.2.pcapng": "another's 2", "d.3.pcapng": "whole"}


def test_a_file_that_cannot_be_put_aside_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gets no further name each time that it is tried."""
    files = Files(str(tmp_path / "d.pcapng"), 9)
    _write(tmp_path / "d.pcapng", "whole")
    with monkeypatch.context() as patch:

        def unlink(path: str) -> None:
            raise PermissionError(errno.EPERM, "a sticky folder", path)

        patch.setattr(os, "unlink", unlink)
        for _ in range(3):
            with pytest.raises(PermissionError):
                files.put_aside()
    assert _names(tmp_path) == ["d.1.pcapng", "d.pcapng"]
    files.put_aside()
    assert _names(tmp_path) == ["d.1.pcapng"]


def test_one_that_cannot_be_removed_keeps_no_other(tmp_path: Path) -> None:
    """All that can be removed is, and the rest is named."""
    (tmp_path / "d.1.pcapng").mkdir()
    for number in (2, 3, 4):
        _write(tmp_path / f"d.{number}.pcapng", "")
    failed = Files(str(tmp_path / "d.pcapng"), 3).clean_up()
    assert [error.filename for error in failed] == [str(tmp_path / "d.1.pcapng")]
    assert _names(tmp_path) == ["d.1.pcapng", "d.3.pcapng", "d.4.pcapng"]


def test_only_a_plain_file_is_looked_at(tmp_path: Path) -> None:
    """A FIFO would be waited for; it is neither read nor put aside."""
    os.mkfifo(tmp_path / "d.pcapng")
    with pytest.raises(OSError, match="no plain file"):
        Files(str(tmp_path / "d.pcapng"), 3).look(10)
