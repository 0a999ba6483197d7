"""Who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interpreter import fresh_python

ROOT = Path(__file__).resolve().parent.parent
OURS = ("ring", "pipeline", "stages", "tools", "tests")
# pipeline.registry reaches stages by name; stages.layout is data that both sides share.
ALLOWED = {
    "ring": {"ring"},
    "pipeline": {"ring", "pipeline"},
    "stages": {"ring", "stages"},
    "tools": {"ring", "pipeline", "stages", "tools"},
}


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module named by an import statement or by a call with a literal, anywhere in the file."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0] if node.args else None
            if name in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield node.lineno, str(first.value)


def _files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    """ring imports nothing of ours, pipeline only ring, stages only ring: no layer is crossed."""
    crossed = []
    for path in _files(package):
        where = path.relative_to(ROOT)
        for line, module in _imports(path):
            top = module.partition(".")[0]
            registry = str(where) == "pipeline/registry.py" and top == "stages"
            if top in OURS and top not in ALLOWED[package] and not registry:
                crossed.append(f"{where}:{line} imports {module}")
    assert not crossed, "\n".join(crossed)


def test_hot_code_has_an_address() -> None:
    """Only modules under a kernels folder, ring.atomics and ring.hot make compiled code."""
    users = []
    for package in ("ring", "pipeline", "stages"):
        for path in _files(package):
            where = path.relative_to(ROOT)
            if (
                path.parent.name == "kernels"
                or path.name == "kernels.py"
                or str(where) in ("ring/atomics.py", "ring/hot.py")
            ):
                continue
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                named = isinstance(node, ast.FunctionDef) and {
                    d.id for d in node.decorator_list if isinstance(d, ast.Name)
                } & {"hot", "kernel"}
                if named:
                    users.append(f"{where}: {node.name}")  # type: ignore[attr-defined]
    assert not users


def _loaded(module: str, *unwanted: str) -> str:
    """Which of ``unwanted`` a fresh interpreter has loaded after importing ``module``."""
    code = f"import sys, {module}; print(*(name for name in {unwanted!r} if name in sys.modules))"
    done = fresh_python(code, NUMBA_DISABLE_JIT=None)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_ring_is_cheap() -> None:
    """``import ring`` loads neither NumPy nor Numba."""
    assert _loaded("ring", "numpy", "numba", "llvmlite", "posix_ipc") == ""


@pytest.mark.parametrize("module", ["ring.layout", "ring.errors", "ring.sizes"])
def test_what_a_config_needs_of_ring_is_cheap(module: str) -> None:
    """Sizes, layout and errors load neither NumPy nor Numba."""
    assert _loaded(module, "numpy", "numba", "llvmlite", "posix_ipc") == ""


@pytest.mark.parametrize("module", ["ring.ledger", "ring.headers", "ring.segment", "ring.doorbell"])
def test_what_the_supervisor_needs_of_ring_has_no_numba(module: str) -> None:
    """The supervisor's side of segments, ledgers and doorbells never imports Numba."""
    assert _loaded(module, "numba", "llvmlite") == ""


@pytest.mark.parametrize("module", ["pipeline.supervisor", "pipeline.config", "pipeline.graph", "stages.catalog"])
def test_the_supervisor_process_never_imports_numba(module: str) -> None:
    """The supervisor, and all that it plans with, starts without compiling or loading anything compiled."""
    assert _loaded(module, "numba", "llvmlite") == ""


def test_the_catalog_of_kinds_needs_no_numba() -> None:
    """Every kind that the catalog names can be looked up as data: layouts import no kernels."""
    code = (
        "import sys; from stages import catalog; kinds = [catalog.kind(name) for name in catalog.MODULES]; "
        "assert all(k.name == n for k, n in zip(kinds, catalog.MODULES)), kinds; assert 'numba' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
