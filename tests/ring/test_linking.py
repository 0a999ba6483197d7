"""How compiled code is put together: what stands on Numba's internals, in a fresh process with a cache of its own."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from ring import hot
from tests.interpreter import fresh_python

pytestmark = [
    pytest.mark.skipif(not hot.JIT or hot.ASKED, reason="JIT is off, or kernels are compiled plainly, as asked"),
    # No excuse on CI: the Numba of constraints.txt is to be one of `hot.SEEN`.
    pytest.mark.skipif(bool(hot.PLAIN) and not hot.ASKED, reason=hot.PLAIN),
]

KERNEL = """
    from ring.hot import hot, kernel

    @hot
    def deepest(w, i):
        return w[i] * 3

    @hot
    def helper(u8, w, i):
        return deepest(w, i) + deepest(w, i + 1)

    @kernel
    def burst(u8, w, now):
        return helper(u8, w, 0) + helper(u8, w, 1) + deepest(w, now)
"""


def compiled(folder: Path, source: str, code: str) -> str:
    """What ``code`` prints, to whom ``source`` is the module ``made``; or the errors."""
    (folder / "made.py").write_text(textwrap.dedent(source))
    begin = f"import sys; sys.path.insert(0, {str(folder)!r}); import numpy as np, made; from ring.hot import warm\n"
    done = fresh_python(begin + textwrap.dedent(code), COLO_CACHE_DIR=str(folder / "cache"))
    return done.stdout.strip() or done.stderr


def test_a_kernel_holds_all_that_it_calls_and_shows_only_itself(tmp_path: Path) -> None:
    """One visible function and Python's wrapper of it; the helpers became no machine code of their own."""
    code = """
        warm()
        (result,) = made.burst.overloads.values()
        defined = [f for f in result.library._final_module.functions if not f.is_declaration]
        visible = [f.name for f in defined if f.linkage.name != "internal"]
        print(len(visible), all("burst" in name for name in visible), len(made.helper.overloads))
    """
    assert compiled(tmp_path, KERNEL, code) == "2 True 0"


def test_a_kernel_and_its_helpers_are_loaded_from_the_cache(tmp_path: Path) -> None:
    """The second process compiles nothing, and gets the same results; a helper may be called from Python too."""
    code = """
        u8, w = np.zeros(8, np.uint8), np.arange(1, 5)
        print(made.burst(u8, w, 3), made.helper(u8, w, 2), sum(made.burst.stats.cache_misses.values()))
    """
    assert compiled(tmp_path, KERNEL, code) == "36 21 1"
    assert compiled(tmp_path, KERNEL, code) == "36 21 0"


def test_a_helper_that_allocates_does_not_compile(tmp_path: Path) -> None:
    """Numba's runtime, which would count references, is not there: an array can only come from the caller."""
    source = KERNEL.replace("    from ring", "    import numpy as np\n    from ring").replace(
        "w[i] * 3", "np.zeros(i)[i]"
    )
    assert "Only accept returning of array passed" in compiled(tmp_path, source, "warm()")
