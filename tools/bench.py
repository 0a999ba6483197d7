"""Run tests/bench and compare its ratios with the saved baseline: ``python -m tools.bench [--save] [-k WORD]``.

Only ratios against a peer measured in the same run are compared: they hold on any machine, more or less.  A ratio that
fell by more than the tolerance is measured up to twice more, the best counts; if it is still low, the status is 1.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parent.parent
_BENCH: Final = _ROOT / "tests" / "bench"
BASELINE: Final = _BENCH / "baseline.json"
_AGAIN: Final = 2

Results = dict[str, dict[str, Any]]
"""By pytest node: ``ratios``, ``figures`` and ``peers`` of one benchmark."""


def machine() -> dict[str, Any]:
    """What a figure was taken on."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numba": importlib.metadata.version("numba"),
        "load": os.getloadavg()[0],
    }


def run(targets: Iterable[str], words: str = "") -> tuple[int, Results]:
    """Run benchmarks; pytest's status and what they found."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench.json"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-s",
            "-c",
            str(_BENCH / "pytest.ini"),
            "--rootdir",
            str(_ROOT),
        ]
        command += ["--benchmark-json", str(out), "--benchmark-columns", "median,rounds", "-p", "no:cacheprovider"]
        command += [*(["-k", words] if words else []), *targets]
        status = subprocess.run(command, cwd=_ROOT, check=False).returncode
        found = json.loads(out.read_text())["benchmarks"] if out.exists() and out.stat().st_size else []
    return status, {b["fullname"]: b["extra_info"] for b in found}


def regressions(found: Results, baseline: Mapping[str, Mapping[str, float]], tolerance: float) -> dict[str, list[str]]:
    """For each benchmark the ratios that are lower than the baseline's by more than ``tolerance`` (0.3: 30 %)."""
    fallen: dict[str, list[str]] = {}
    for node, result in found.items():
        for name, ratio in result.get("ratios", {}).items():
            before = baseline.get(node, {}).get(name)
            if before is not None and ratio < before * (1 - tolerance):
                fallen.setdefault(node, []).append(f"{name}: {ratio:.3g}, was {before:.3g}")
    return fallen


def better(one: Results, other: Results) -> Results:
    """The results of ``one``, each ratio replaced by ``other``'s where that is higher."""
    merged = {node: dict(result) for node, result in one.items()}
    for node, result in other.items():
        mine = merged.setdefault(node, dict(result))
        ratios = result.get("ratios", {})
        if ratios:
            old = mine.get("ratios", {})
            mine["ratios"] = {name: max(ratio, old.get(name, ratio)) for name, ratio in ratios.items()}
    return merged


def _print(found: Results, baseline: Mapping[str, Mapping[str, float]]) -> None:
    for node, result in found.items():
        print(node.removeprefix("tests/bench/"))
        for what in ("figures", "peers"):
            values = result.get(what, {})
            if values:
                print(f"  {what:8}" + ", ".join(f"{name} {_number(value)}" for name, value in values.items()))
        for name, ratio in result.get("ratios", {}).items():
            before = baseline.get(node, {}).get(name)
            print(f"  ratio   {ratio:9.3g} {name}" + (f"  (baseline {before:.3g})" if before is not None else ""))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


def main(arguments: list[str] | None = None) -> int:
    """Status 0: no ratio fell; 1: one did, or a benchmark failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description="Run the benchmarks.")
    parser.add_argument(
        "--save", action="store_true", help=f"make this run the baseline ({BASELINE.relative_to(_ROOT)})"
    )
    parser.add_argument("--tolerance", type=float, default=0.3, help="how far a ratio may fall (default 0.3: 30 %%)")
    parser.add_argument("-k", dest="words", default="", help="only benchmarks that match, as pytest -k")
    asked = parser.parse_args(arguments)
    here = machine()
    print(", ".join(f"{key} {value}" for key, value in here.items()), flush=True)
    saved = json.loads(BASELINE.read_text()) if BASELINE.exists() else {"ratios": {}}
    baseline: dict[str, dict[str, float]] = saved["ratios"]
    status, found = run([str(p) for p in sorted(_BENCH.glob("bench_*.py"))], asked.words)
    fallen = {} if asked.save else regressions(found, baseline, asked.tolerance)
    for _ in range(_AGAIN):
        if not fallen:
            break
        print(f"measuring {len(fallen)} again: {', '.join(fallen)}", flush=True)
        again, more = run(fallen)
        status, found = status or again, better(found, more)
        fallen = regressions(found, baseline, asked.tolerance)
    print()
    _print(found, baseline)
    if asked.save and status == 0 and found:
        ratios = {node: result["ratios"] for node, result in found.items() if result.get("ratios")}
        text = json.dumps({"machine": here, "ratios": {**baseline, **ratios}}, indent=2, ensure_ascii=False)
        BASELINE.write_text(text + "\n")
        print(f"\nsaved {len(ratios)} benchmarks in {BASELINE.relative_to(_ROOT)}")
    for node, what in fallen.items():
        print(f"\nSLOWER: {node}\n  " + "\n  ".join(what))
    if not found:
        print("no benchmark gave a result")
        return 1
    return 1 if status or fallen else 0


if __name__ == "__main__":
    sys.exit(main())
