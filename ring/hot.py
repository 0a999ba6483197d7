"""The one way to compile: ``@hot`` makes a Python function a Numba kernel.

Every kernel takes the same arguments, ``(u8, w, now)`` or a prefix of them followed by integers, and returns an
int.  What compiled code calls becomes a part of it.  With ``NUMBA_DISABLE_JIT=1`` the decorator returns the function as
it is and Numba is never imported: tests, coverage and fuzzing run the same text as plain Python.

There are two ways to compile, with the same results.  *Linked* (`ring.linking`) stands on private parts of Numba, and
is used with the releases that the tests have seen, `SEEN`.  *Plain* needs only what Numba documents: it compiles
longer, and the code is slower.  It is used with every other release, and where ``COLO_PLAIN_COMPILE=1`` asks for it.

Numba's own disk cache looks only at the file that holds a kernel.  It does not see that a called kernel or an imported
constant changed, and would run stale code.  So the cache directory is named by a digest of every hot source, and of
all else that machine code depends on; `ring.cache` keeps few of them.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, Final, TypeVar

from ring import cache

F = TypeVar("F", bound=Callable[..., object])

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") != "1"
ASKED = os.environ.get("COLO_PLAIN_COMPILE", "0") == "1"  # for plain compilation
# Releases of Numba with which tests/ring/test_linking.py and all else has passed.  A new one is added when CI runs with
# it (constraints.txt).
SEEN: Final = ((0, 68),)

_ROOT = Path(__file__).resolve().parent.parent
_HOT = ("kernels.py", "kernels/*.py", "layout.py", "layout/*.py")
_SOURCES = ("ring/*.py", *(f"{package}/**/{file}" for package in ("ring", "stages") for file in _HOT))
_warmable: list[Callable[..., object]] = []


def why_plain(found: str) -> str:
    """Why kernels are compiled plainly with Numba ``found``; empty if they are linked."""
    if ASKED:
        return "COLO_PLAIN_COMPILE=1"
    if tuple(found.split(".")[:2]) not in {(str(major), str(minor)) for major, minor in SEEN}:
        known = ", ".join(f"{major}.{minor}" for major, minor in SEEN)
        return f"Numba {found} is not one that the tests have seen ({known})"
    try:
        from ring import linking  # noqa: F401
    except Exception as error:  # whatever a private part that is gone may raise
        return f"ring.linking does not fit Numba {found}: {type(error).__name__}: {error}"
    return ""


def digest() -> str:
    """Hex digest of all that compiled code depends on: Python, Numba, the way of compiling, and the sources.

    These are all that end up in it: `ring`, and the kernels and layouts of every stage.
    """
    sha = hashlib.sha256(f"{sys.implementation.cache_tag} {_COMPILER}".encode())
    for path in sorted({path for pattern in _SOURCES for path in _ROOT.glob(pattern)}):
        sha.update(path.relative_to(_ROOT).as_posix().encode())
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


def cache_dir() -> Path:
    """Where the machine code of this version of the sources is kept (`ring.cache.root`)."""
    return cache.root() / f"kernels-{digest()}"


if JIT:
    # A BLAS thread pool would make the fork server multi-threaded; Numba's import is NumPy's.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import llvmlite
    import numba

    PLAIN: str = why_plain(numba.__version__)
    """Why kernels are compiled plainly; empty if they are linked."""

    _COMPILER: str = f"numba {numba.__version__} llvmlite {llvmlite.__version__} {'plain' if PLAIN else 'linked'}"

    # Not setdefault: a directory from the environment, or of a parent with other sources, would give stale code.
    _folder = cache_dir()
    numba.config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"] = str(_folder)  # type: ignore[attr-defined]

    KEPT: bool = cache.claim(_folder)
    """Whether what is compiled is kept on disk.  Without our directory Numba would write beside the sources."""

    _options: Any = {"nogil": True, "boundscheck": False, "error_model": "numpy"}

    if PLAIN:
        # All that this stands on is documented: njit and overload.
        from numba.extending import overload

        def hot(function: F) -> F:
            """Compile ``function``: no fastmath, no bounds checks, no exceptions.

            As Python calls it, it is a kernel, cached on disk; as compiled code calls it, it is compiled for that
            code, once for each types of arguments.  So a file of the cache holds only what Python calls, of one type:
            Numba mixes up types that several processes save at once.
            """
            compiled = numba.njit(cache=KEPT, **_options)(function)

            @wraps(function)
            def called(*args: Any) -> Any:
                return compiled(*args)

            called.compile = compiled.compile  # type: ignore[attr-defined]
            overload(called, jit_options=_options, strict=False)(lambda *_types: function)
            return called  # type: ignore[return-value]

    else:
        from ring import linking

        # Nothing is allocated, so nothing is counted: without Numba's runtime, code that allocates does not compile.
        _njit: Any = partial(numba.njit, no_cfunc_wrapper=True, _nrt=False, **_options)
        _for_python = _njit(cache=KEPT, pipeline_class=linking.KernelCompiler)
        _for_kernels = _njit(no_cpython_wrapper=True, pipeline_class=linking.HelperCompiler)
        _unliteral: Any = numba.types.unliteral

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
    PLAIN, KEPT, _COMPILER = "", False, "none"

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
