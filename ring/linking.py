"""How compiled code is put together: each kernel is one module, with all that it calls inside and hidden.

Numba makes a library of machine code, with wrappers for Python, of every function: it optimises each again with all
that it calls, and again in each caller.  And as such a function might be called from anywhere, LLVM must keep the call
as Numba made it, with seven words for each array.  Here a helper stays IR until a kernel is linked: then everything
that the kernel reaches comes into its module once, is marked internal, and is optimised once.  LLVM then drops the
arguments that nobody reads, and puts functions with one caller in their caller.

This stands on Numba's compiler passes and code libraries, which are not a stable interface.  So it is used only with
releases that the tests have seen (`ring.hot.SEEN`): a release is added there when tests/ring/test_linking.py and the
rest pass with it, and until then kernels are compiled plainly.
"""

from __future__ import annotations

from typing import Any, Final

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering


class HelperLibrary(JITCodeLibrary):
    """A helper's IR.  It is never optimised as a module, and never becomes machine code by itself."""

    def finalize(self) -> None:
        """Nothing can be added any more."""
        self._raise_if_finalized()
        self._finalized = True


class KernelLibrary(JITCodeLibrary):
    """What Python calls: machine code with everything that it reaches, of which only its own names are visible."""

    def finalize(self) -> None:
        """Link, optimise and make machine code."""
        self._visible = {f.name for f in self._final_module.functions if not f.is_declaration}
        reached: dict[Any, None] = {}
        _reach(self, reached)
        self._linking_libraries = list(reached)
        super().finalize()

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and function.name not in self._visible:
                function.linkage = "internal"
        super()._optimize_final_module()


def _reach(library: Any, reached: dict[Any, None]) -> None:
    """Add what ``library`` links, and what is linked by the helpers among it, to ``reached`` in a fixed order."""
    for linked in library._linking_libraries:
        if linked not in reached:
            reached[linked] = None
            if isinstance(linked, HelperLibrary):
                _reach(linked, reached)


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerHelper(NativeLowering):
    _name = "lower_helper"

    def run_pass(self, state: Any) -> bool:
        state.library = HelperLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True  # as Numba does with its own subroutines
        super().run_pass(state)
        lowered = state["cr"]
        # Callers find a callee by its entry point, which Numba wants to be a built-in function.  Nobody calls this one.
        entry_point: Any = [].append
        state.targetctx.insert_user_function(entry_point, lowered.fndesc, [state.library])
        state["cr"] = lowered._replace(cfunc=entry_point)
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerKernel(NativeLowering):
    _name = "lower_kernel"

    def run_pass(self, state: Any) -> bool:
        state.library = KernelLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()  # what Numba does to a library that it makes in this place
        return bool(super().run_pass(state))


def _compiler(lowering: Any) -> Any:
    """Numba's compiler with another last step."""

    class Compiler(CompilerBase):
        def define_pipelines(self) -> list[Any]:
            manager = DefaultPassBuilder.define_nopython_pipeline(self.state)
            manager.passes = [(lowering if step is NativeLowering else step, text) for step, text in manager.passes]
            manager.finalize()
            return [manager]

    return Compiler


HelperCompiler: Final[Any] = _compiler(_LowerHelper)
KernelCompiler: Final[Any] = _compiler(_LowerKernel)
