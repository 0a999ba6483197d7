"""The compiler's cache."""

from __future__ import annotations

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
