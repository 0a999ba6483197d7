"""Who may import whom."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from pipeline import tables
from stages import catalog
from stages.filter import Filter
from stages.kind import FRAMING_KEY
from tests.interpreter import fresh_python

ROOT = Path(__file__).resolve().parent.parent
PIPELINE = (tables.Pipeline, tables.Supervisor, tables.Log, tables.Placement)
OURS = ("ring", "pipeline", "stages", "tools", "tests")
ALLOWED = {
    "ring": {"ring"},
    "stages": {"ring", "stages"},
    "pipeline": {"ring", "stages", "pipeline"},
    "tools": {"ring", "stages", "pipeline", "tools"},
}
COMMON = {f"stages.{path.stem}" for path in (ROOT / "stages").glob("*.py")}
"""What stages have in common: all that the pipeline may import of them.  It knows no folder, so no kind by name."""


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
    """ring, above it stages, above them pipeline, above it tools: no layer is crossed."""
    crossed = []
    for path in _files(package):
        where = path.relative_to(ROOT)
        for line, module in _imports(path):
            top = module.partition(".")[0]
            if top in OURS and top not in ALLOWED[package]:
                crossed.append(f"{where}:{line} imports {module}")
    assert not crossed, "\n".join(crossed)


def test_the_pipeline_knows_no_kind() -> None:
    """It imports what stages have in common, and no text of it names a kind: the catalog is the one list."""
    known = []
    for path in _files("pipeline"):
        where = path.relative_to(ROOT)
        for line, module in _imports(path):
            names = {module, *_names_from(path, line, module)} if module == "stages" else {module}
            known += [f"{where}:{line} imports {name}" for name in names if not _is_common(name)]
        text = path.read_text()
        known += [f"{where} names {name}" for name in catalog.MODULES if name in text]
        known += [f"{where}:{line} says {said!r}" for line, said in _strings(path) if said in _words_of_kinds()]
    assert not known, "\n".join(known)


def _strings(path: Path) -> Iterator[tuple[int, str]]:
    """Every string constant of a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


@cache
def _words_of_kinds() -> frozenset[str]:
    """Words that kinds declare, and that nobody else may know: variants, keys and counters of their own."""
    words: set[str] = set()
    common = {f.name for f in fields(Filter)} | {FRAMING_KEY}
    for kind in catalog.kinds():
        words |= {kind.variant, *(link.key for link in kind.chardevs), *(counter.name for counter in kind.counters)}
        words |= {f.name for f in fields(kind.config)} - common - {f.name for cls in PIPELINE for f in fields(cls)}
    words |= {annex.table for _, annex in catalog.annexes()}
    return frozenset(words - {"", *_OTHERS})


_OTHERS = {"checkpoint"}
"""Words of kinds that have another meaning in pipeline/, too."""


def _names_from(path: Path, line: int, module: str) -> set[str]:
    """What a ``from module import ...`` at ``line`` takes, as modules."""
    nodes = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom) and n.lineno == line)
    return {f"{module}.{alias.name}" for node in nodes for alias in node.names}


def _is_common(module: str) -> bool:
    return not module.startswith("stages.") or module in COMMON


def test_a_stage_imports_downwards_only() -> None:
    """Between the folders of stages there is no circle of imports."""
    graph: dict[str, set[str]] = {}
    for path in _files("stages"):
        own = _room(path.relative_to(ROOT).with_suffix("").parts)
        for line, module in _imports(path):
            for name in {module, *_names_from(path, line, module)}:
                if name.startswith("stages.") and (other := _room(tuple(name.split(".")))) not in (own, ""):
                    graph.setdefault(own, set()).add(other)
    graphlib.TopologicalSorter(graph).prepare()


def _room(parts: tuple[str, ...]) -> str:
    """The folder of stages that a module lies in; empty for what stands beside the folders."""
    return parts[1] if len(parts) > 1 and (ROOT / "stages" / parts[1]).is_dir() else ""


def test_hot_code_has_an_address() -> None:
    """Only modules called kernels, or in a folder of that name, ring.atomics and ring.hot make compiled code."""
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
