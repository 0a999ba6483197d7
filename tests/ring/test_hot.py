"""How kernels are compiled, and the compiler's cache."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from ring import hot
from tests.interpreter import fresh_python

ROOT = Path(__file__).resolve().parents[2]


def test_the_digest_changes_with_any_hot_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed callee, constant or new kernel gives another cache directory; a changed shell does not."""
    for file in (
        "ring/layout.py",
        "ring/kernels/frames.py",
        "stages/mirror/kernels.py",
        "stages/mirror/layout.py",
        "stages/mirror/shell.py",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("x = 1\n")
    monkeypatch.setattr(hot, "_ROOT", tmp_path)
    seen = {hot.digest()}
    (tmp_path / "stages/mirror/shell.py").write_text("x = 2\n")
    assert hot.digest() in seen
    for file in ("ring/layout.py", "ring/kernels/frames.py", "stages/mirror/kernels.py", "stages/mirror/layout.py"):
        (tmp_path / file).write_text("x = 2\n")
        assert hot.digest() not in seen
        seen.add(hot.digest())


def test_the_cache_directory_is_named_by_the_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """COLO_CACHE_DIR moves its root."""
    monkeypatch.setenv("COLO_CACHE_DIR", str(tmp_path))
    assert hot.cache_dir() == tmp_path / f"kernels-{hot.digest()}"


@pytest.mark.parametrize("before", ["", "import numba; "])
def test_no_cache_directory_from_outside_is_believed(before: str, tmp_path: Path) -> None:
    """NUMBA_CACHE_DIR of a parent with other sources, or a Numba that was imported before, gives no stale code."""
    code = f"{before}from ring import hot; import numba; print(numba.config.CACHE_DIR == str(hot.cache_dir()))"
    done = fresh_python(code, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_DISABLE_JIT="0")
    assert done.stdout.strip() == "True", done.stderr


def test_without_jit_numba_is_never_imported() -> None:
    """NUMBA_DISABLE_JIT=1: kernels are plain functions, and Numba stays out of the process."""
    code = "import sys; from ring.kernels import ledger; print('numba' in sys.modules, ledger.begin.__name__)"
    done = fresh_python(code, NUMBA_DISABLE_JIT="1")
    assert done.stdout.split() == ["False", "begin"], done.stderr


PAIR = """
    from ring.hot import hot, kernel

    @hot
    def helper(u8, w, i):
        return w[i] * 3

    @kernel
    def burst(u8, w, now):
        return helper(u8, w, 0) + helper(u8, w, now)
"""
compiled = pytest.mark.skipif(not hot.JIT, reason="NUMBA_DISABLE_JIT=1: nothing is compiled")


def run_pair(folder: Path, before: str = "", **environment: str | None) -> list[str]:
    """Compile and call two kernels in a fresh process: why plainly, their results, the digest."""
    if not (folder / "pair.py").exists():  # some releases of Numba go by a source's time
        (folder / "pair.py").write_text(textwrap.dedent(PAIR))
    code = f"""
        import sys; sys.path.insert(0, {str(folder)!r}); {before}
        import numpy as np, pair; from ring import hot
        u8, w = np.zeros(8, np.uint8), np.arange(1, 5)
        print(hot.PLAIN, pair.burst(u8, w, 3), pair.helper(u8, w, 2), hot.digest(), sep="|")
    """
    done = fresh_python(textwrap.dedent(code), COLO_CACHE_DIR=str(folder / "cache"), **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("|")


@compiled
def test_plain_compilation_can_be_asked_for(tmp_path: Path) -> None:
    """COLO_PLAIN_COMPILE=1: the same results; the second process loads from the cache what the first has compiled."""

    def kept() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.nbc")}

    first = run_pair(tmp_path, COLO_PLAIN_COMPILE="1")
    assert first[:3] == ["COLO_PLAIN_COMPILE=1", "15", "9"]
    files = kept()
    assert len(files) == 2  # the kernel, and the helper as Python calls it
    assert run_pair(tmp_path, COLO_PLAIN_COMPILE="1") == first
    assert kept() == files


@compiled
@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (
            "import numba; numba.__version__ = '0.99.1'",
            "Numba 0.99.1 is not one that the tests have seen (0.68)",
        ),
        (
            "import numba; numba.__version__ = '0.680.0'",
            "Numba 0.680.0 is not one that the tests have seen (0.68)",
        ),
        (
            "import numba; numba.__version__ = '0.68.9'; del __import__('numba.core.typed_passes').core"
            ".typed_passes.NativeLowering",
            "ring.linking does not fit Numba 0.68.9: ImportError: cannot import name 'NativeLowering'",
        ),
    ],
    ids=["a later release", "one whose name begins the same", "a private part is gone"],
)
def test_a_numba_that_the_tests_have_not_seen_compiles_plainly(before: str, reason: str, tmp_path: Path) -> None:
    """And one whose private parts have changed: the same results, and the reason."""
    why, *results, _ = run_pair(tmp_path, before, COLO_PLAIN_COMPILE=None)
    assert why.startswith(reason)
    assert results == ["15", "9"]


@compiled
def test_the_ways_of_compiling_share_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linked or plain, Numba's and llvmlite's release, Python's: each has a digest of its own."""
    seen = {hot.digest()}
    assert {"numba", "llvmlite"} <= set(hot._COMPILER.split())
    for other in ("numba 0.1 llvmlite 0.1 plain", "numba 0.1 llvmlite 0.1 linked", "numba 0.2 llvmlite 0.1 linked"):
        monkeypatch.setattr(hot, "_COMPILER", other)
        seen.add(hot.digest())
    monkeypatch.setattr(sys.implementation, "cache_tag", "cpython-399")
    assert len(seen | {hot.digest()}) == 5
