"""Which directories of compiled kernels stay on disk: real directories, and real processes that hold them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ring import cache
from tests.interpreter import ROOT, fresh_python


def kernels(folder: Path, number: int, age_days: float = 0.0) -> Path:
    """A directory as an earlier version of the sources left it, last used ``age_days`` ago."""
    path = folder / f"kernels-{number:016x}"
    (path / "frames_0").mkdir(parents=True)
    (path / "frames_0" / "claim.nbc").write_bytes(b"code")
    then = time.time() - age_days * 86400
    os.utime(path, (then, then))
    return path


def claimed(directory: Path) -> bool:
    """What `cache.claim` says in a process of its own, which ends at once and so holds nothing."""
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            status = 0 if cache.claim(directory) else 1
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 1)
    return status == 0


def new(folder: Path) -> Path:
    """The name of a directory that is not there yet."""
    return folder / f"kernels-{0xABC:016x}"


def test_a_new_directory_takes_the_place_of_the_one_used_longest_ago(tmp_path: Path) -> None:
    """Of KEEP and two more, the new one and the most recently used stay."""
    old = [kernels(tmp_path, number, age_days=number) for number in range(1, cache.KEEP + 2)]
    assert claimed(new(tmp_path))
    assert [path.exists() for path in old] == [True] * (cache.KEEP - 1) + [False, False]
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (new(tmp_path), *old[:-2])}


def test_a_directory_that_was_not_used_for_long_goes(tmp_path: Path) -> None:
    """However few there are."""
    recent, old = kernels(tmp_path, 1, cache.DAYS - 1), kernels(tmp_path, 2, cache.DAYS + 1)
    assert claimed(new(tmp_path))
    assert recent.exists()
    assert not old.exists()


def test_only_a_new_directory_removes_others(tmp_path: Path) -> None:
    """A process that finds its own removes nothing, and says by the directory's time that it is in use."""
    mine, old = kernels(tmp_path, 1, cache.DAYS + 1), kernels(tmp_path, 2, cache.DAYS + 1)
    assert claimed(mine)
    assert old.exists()
    assert claimed(new(tmp_path))
    assert mine.exists()
    assert not old.exists()


def test_a_directory_that_a_process_or_its_fork_holds_is_never_removed(tmp_path: Path) -> None:
    """Not for its age; but once the last of them is dead, killed or not."""
    old = kernels(tmp_path, 1)
    ready, say = os.pipe()
    wait, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        cache.claim(old)
        if os.fork() == 0:
            os.write(say, b"!")
            os.read(wait, 1)  # until the test closes its end
        os._exit(0)
    os.close(say)
    os.close(wait)
    os.waitpid(pid, 0)  # who claimed it is gone; its fork is not
    assert os.read(ready, 1) == b"!"
    os.utime(old, (0, 0))
    assert claimed(new(tmp_path))
    assert old.exists()
    os.close(end)
    assert os.read(ready, 1) == b""  # the fork is dead
    os.close(ready)
    new(tmp_path).rmdir()
    assert claimed(new(tmp_path))
    assert not old.exists()


def test_only_directories_of_ours_are_removed(tmp_path: Path) -> None:
    """Another name, a file, a link and what it points to stay; what a killed remover left goes."""
    ours = kernels(tmp_path / "elsewhere", 1, cache.DAYS + 1)
    left = kernels(tmp_path, 2).rename(tmp_path / f"kernels-{2:016x}.123.removed")
    (tmp_path / "kernels-notes").mkdir()
    (tmp_path / f"kernels-{3:016x}").write_text("a file")
    (tmp_path / f"kernels-{4:016x}").symlink_to(ours)
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0), follow_symlinks=False)
    before = set(tmp_path.iterdir()) - {left}
    assert claimed(new(tmp_path))
    assert set(tmp_path.iterdir()) == before | {new(tmp_path)}
    assert ours.exists()


def test_processes_that_make_and_remove_at_the_same_time_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has claimed a directory can write into it until it ends, while five others remove all that they may."""
    monkeypatch.setattr(cache, "KEEP", 1)
    pids = []
    for worker in range(6):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for turn in range(40):
                    mine = tmp_path / f"kernels-{(worker + turn) % 4:016x}"
                    assert cache.claim(mine)
                    assert claimed(tmp_path / f"kernels-{100 + 40 * worker + turn:016x}")
                    (mine / "file").write_bytes(b"code")
                    os.close(cache._held.pop(mine))
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * 6
    assert not list(tmp_path.glob("*.removed"))


@pytest.mark.parametrize("root", ["file/below", "~/.cache"])
def test_where_nothing_can_be_written_nothing_is_kept(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A root that cannot be made, and the home of a user without one, are no error, and nothing appears."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert not claimed(Path(root) / f"kernels-{1:016x}")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_root_is_where_the_user_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """COLO_CACHE_DIR, NUMBA_CACHE_DIR, XDG_CACHE_HOME where it is absolute, the home: the first that is said."""
    monkeypatch.chdir(tmp_path)
    for name in ("COLO_CACHE_DIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/it")
    assert cache.root() == Path("/home/it/.cache/colo-proxy")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.root() == Path("/home/it/.cache/colo-proxy")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.root() == Path("/xdg/colo-proxy")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "numba")
    assert cache.root() == tmp_path / "numba"
    monkeypatch.setenv("NUMBA_CACHE_DIR", f"/numba/{new(tmp_path).name}")  # a process of ours has said it to its child
    assert cache.root() == Path("/numba")
    monkeypatch.setenv("COLO_CACHE_DIR", "own")
    assert cache.root() == tmp_path / "own"


def test_a_root_that_cannot_be_written_has_a_folder_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the runtime folder, for us alone; none where the root is of use, or the folder is not ours alone."""
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    monkeypatch.setenv("COLO_CACHE_DIR", str(tmp_path / "good"))
    assert cache.instead(str(runtime)) is None
    assert list((tmp_path / "good").iterdir()) == list(runtime.iterdir()) == []
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COLO_CACHE_DIR", str(tmp_path / "file" / "below"))
    found = cache.instead(str(runtime))
    assert found == runtime / "compiled" and found.stat().st_mode & 0o777 == 0o700
    assert cache.instead(str(runtime)) == found
    found.chmod(0o777)
    assert cache.instead(str(runtime)) is None
    found.rmdir()
    found.symlink_to(tmp_path)
    assert cache.instead(str(runtime)) is None
    assert cache.instead(str(tmp_path / "file")) is None


def test_a_home_that_is_none_is_not_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without an entry in passwd has the home "~"; /sys takes no folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("COLO_CACHE_DIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for home in ("~", "somewhere", "/sys"):
        monkeypatch.setenv("HOME", home)
        assert not cache.usable(cache.root())
    assert list(tmp_path.iterdir()) == []


def test_kernels_compile_where_nothing_can_be_kept(tmp_path: Path) -> None:
    """Nothing is written beside the sources instead, where a later version would find stale code."""
    (tmp_path / "file").write_text("")
    code = "from ring import hot; from ring.kernels import frames; import numpy as np\n"
    code += "print(hot.KEPT, frames.prefix(np.zeros(512, np.int64), 0))"
    before = set(ROOT.rglob("*.nb?"))
    done = fresh_python(code, COLO_CACHE_DIR=str(tmp_path / "file" / "below"), NUMBA_DISABLE_JIT="0")
    assert done.stdout.split() == ["False", "4"], done.stderr
    assert set(ROOT.rglob("*.nb?")) == before
