"""The one way to compile: ``@hot`` makes a Python function a Numba kernel.

Every kernel takes the same arguments, ``(u8, w, now)`` or a prefix of them followed by integers, and returns an
int.  What compiled code calls becomes a part of it (`ring.linking`).  With ``NUMBA_DISABLE_JIT=1`` the decorator
returns the function as it is and Numba is never imported: tests, coverage and fuzzing run the same text as plain
Python.

Numba's own disk cache looks only at the file that holds a kernel.  It does not see that a called kernel or an imported
constant changed, and would run stale code.  So the cache directory is named by a digest of every hot source.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., object])

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") != "1"

_ROOT = Path(__file__).resolve().parent.parent
_HOT = ("kernels.py", "kernels/*.py", "layout.py", "layout/*.py")
_SOURCES = ("ring/*.py", *(f"{package}/**/{file}" for package in ("ring", "stages", "tests") for file in _HOT))
_warmable: list[Callable[..., object]] = []


def digest() -> str:
    """Hex digest of all sources that end up in compiled code: `ring`, and every package's kernels and layouts."""
    sha = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for path in sorted({path for pattern in _SOURCES for path in _ROOT.glob(pattern)}):
        sha.update(path.relative_to(_ROOT).as_posix().encode())
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


def cache_dir() -> Path:
    """Where the machine code of this version of the sources is kept (``COLO_CACHE_DIR`` overrides the root)."""
    base = os.environ.get("COLO_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "colo-proxy"
    )
    return Path(base) / f"kernels-{digest()}"


if JIT:
    # Numba reads both when it is imported; a BLAS thread pool would make the fork server multi-threaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Not setdefault: a directory from the environment, or of a parent with other sources, would give stale code.
    os.environ["NUMBA_CACHE_DIR"] = str(cache_dir())
    import numba

    # Somebody may have imported Numba before us.
    numba.config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]  # type: ignore[attr-defined]

    from ring import linking

    _unliteral: Any = numba.types.unliteral
    # Nothing is allocated, so nothing is counted: without Numba's runtime, code that allocates does not compile.
    _njit: Any = partial(
        numba.njit, nogil=True, boundscheck=False, error_model="numpy", no_cfunc_wrapper=True, _nrt=False
    )
    _for_python = _njit(cache=True, pipeline_class=linking.KernelCompiler)
    _for_kernels = _njit(no_cpython_wrapper=True, pipeline_class=linking.HelperCompiler)

    def hot(function: F) -> F:
        """Compile ``function``: no fastmath, no bounds checks, no exceptions, no allocation.

        As Python calls it, it is a kernel, cached on disk; as compiled code calls it, a part of that code.
        """
        compiled, helper = _for_python(function), _for_kernels(function)

        # Numba would compile a helper anew for every constant that some caller passes: `count` 27 times.
        def without_literals(args: Any, kws: Any) -> Any:
            return helper.get_call_template(tuple(_unliteral(a) for a in args), kws)

        compiled.get_call_template = without_literals
        compiled.get_overload = helper.get_overload
        return compiled  # type: ignore[no-any-return]

    def kernel(function: F) -> F:
        """A ``hot`` function that a stage calls once a burst, as ``f(u8, w, now) -> int``; `warm` compiles it."""
        compiled = hot(function)
        _warmable.append(compiled)
        return compiled

    def warm() -> int:
        """Compile, or load from the cache, every `kernel` imported so far; return how many there are."""
        signature = (numba.types.uint8[::1], numba.types.int64[::1], numba.types.int64)
        for compiled in _warmable:
            compiled.compile(signature)  # type: ignore[attr-defined]
        return len(_warmable)

else:

    def hot(function: F) -> F:
        """JIT is off: the function as it is."""
        return function

    def kernel(function: F) -> F:
        """JIT is off: the function as it is."""
        _warmable.append(function)
        return function

    def warm() -> int:
        """JIT is off: nothing to compile."""
        return len(_warmable)
