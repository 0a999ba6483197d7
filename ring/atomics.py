"""Words shared between processes, and raw bytes, for compiled code and for plain Python.

A plain re-read of a shared word is hoisted out of a loop by LLVM and never sees the other process, so a word that
another process writes is read by `load_acquire` and written by `store_release`, each naming its partner in a comment.

The byte helpers exist because a NumPy index costs a wrap-around test a byte; these become one unaligned instruction.
All take ``u8``, the byte view of an arena, or ``w``, the int64 view of the same memory, and a non-negative index.

Without JIT, loads and stores have the order that the processor gives them: enough on x86 (only a store and a later load
may change places there, and `fence_full` is a real one); on ARM, plain Python is for tests within one process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ring.hot import JIT
from ring.memory_fence import fence

if TYPE_CHECKING or not JIT:

    def load_acquire(w: Any, i: int) -> int:
        """Word ``w[i]``, read now; what its writer stored before it is visible after it."""
        return int(w[i])

    def store_release(w: Any, i: int, v: int) -> None:
        """``w[i] = v``, visible to other processes after everything stored before it."""
        w[i] = v

    def fence_full() -> None:
        """Nothing moves across it, in the compiler or in the processor (a store then a load: doorbells)."""
        fence()

    def fence_order() -> None:
        """The compiler keeps the stores before it before the stores after it.

        That is all that a crash needs: the stores that a killed process had executed are visible to whoever comes
        later, on every architecture; only the compiler could have changed their order in the program.
        """

    def byte(u8: Any, i: int) -> int:
        """Byte ``u8[i]`` as an int."""
        return int(u8[i])

    def put_byte(u8: Any, i: int, v: int) -> None:
        """``u8[i] = v`` (0 to 255)."""
        u8[i] = v

    def be16(u8: Any, i: int) -> int:
        """Unsigned 16-bit big-endian at byte ``i``."""
        return int(u8[i]) << 8 | int(u8[i + 1])

    def be32(u8: Any, i: int) -> int:
        """Unsigned 32-bit big-endian at byte ``i``."""
        return int.from_bytes(u8[i : i + 4].tobytes(), "big")

    def be64(u8: Any, i: int) -> int:
        """64-bit big-endian at byte ``i``, as a signed int64 (for keys: only equality and bits matter)."""
        return int.from_bytes(u8[i : i + 8].tobytes(), "big", signed=True)

    def put_be16(u8: Any, i: int, v: int) -> None:
        """Store the low 16 bits of ``v`` big-endian at byte ``i``."""
        u8[i] = v >> 8 & 0xFF
        u8[i + 1] = v & 0xFF

    def put_be32(u8: Any, i: int, v: int) -> None:
        """Store the low 32 bits of ``v`` big-endian at byte ``i``."""
        put_be16(u8, i, v >> 16)
        put_be16(u8, i + 2, v)

    def copy(u8: Any, dst: int, src: int, n: int) -> None:
        """Copy ``n`` bytes from ``src`` to ``dst``; the two must not overlap."""
        u8[dst : dst + n] = u8[src : src + n]

    def common_prefix(u8: Any, a: int, b: int, n: int) -> int:
        """How many of the ``n`` bytes at ``a`` and ``b`` are equal before the first that differs."""
        x, y = u8[a : a + n].tobytes(), u8[b : b + n].tobytes()
        if x == y:
            return n
        return next(i for i in range(n) if x[i] != y[i])

else:
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    _I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (8, 16, 32, 64))

    def _word(context, builder, array_type, array, index):
        data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
        return builder.gep(data, [index], inbounds=True)

    def _int(value):
        return types.int64 if isinstance(value, types.Integer) else None

    @intrinsic
    def _load_acquire(typingctx, w, i):
        def codegen(context, builder, signature, args):
            return builder.load_atomic(_word(context, builder, signature.args[0], *args), "acquire", 8)

        return types.int64(w, types.int64), codegen

    @intrinsic
    def _store_release(typingctx, w, i, v):
        def codegen(context, builder, signature, args):
            pointer = _word(context, builder, signature.args[0], args[0], args[1])
            builder.store_atomic(args[2], pointer, "release", 8)
            return context.get_dummy_value()

        return types.void(w, types.int64, types.int64), codegen

    @intrinsic
    def _fence_full(typingctx):
        def codegen(context, builder, signature, args):
            builder.fence("seq_cst")
            return context.get_dummy_value()

        return types.void(), codegen

    @intrinsic
    def _fence_order(typingctx):
        def codegen(context, builder, signature, args):
            builder.fence("acq_rel", targetscope="singlethread")
            return context.get_dummy_value()

        return types.void(), codegen

    def _loader(bits, swap=True):
        kind = ir.IntType(bits)

        @intrinsic
        def load(typingctx, u8, i):
            def codegen(context, builder, signature, args):
                pointer = builder.bitcast(_word(context, builder, signature.args[0], *args), kind.as_pointer())
                value = builder.load(pointer)
                value.align = 1
                if bits > 8 and swap:
                    value = builder.bswap(value)
                return value if bits == 64 else builder.zext(value, _I64)

            return types.int64(u8, types.int64), codegen

        return load

    def _storer(bits):
        kind = ir.IntType(bits)

        @intrinsic
        def store(typingctx, u8, i, v):
            def codegen(context, builder, signature, args):
                pointer = builder.bitcast(
                    _word(context, builder, signature.args[0], args[0], args[1]), kind.as_pointer()
                )
                value = builder.trunc(args[2], kind)
                builder.store(builder.bswap(value) if bits > 8 else value, pointer).align = 1
                return context.get_dummy_value()

            return types.void(u8, types.int64, types.int64), codegen

        return store

    @intrinsic
    def _copy(typingctx, u8, dst, src, n):
        def codegen(context, builder, signature, args):
            kind = signature.args[0]
            target, source = (_word(context, builder, kind, args[0], at) for at in (args[1], args[2]))
            cgutils.raw_memcpy(builder, target, source, args[3], 1)
            return context.get_dummy_value()

        return types.void(u8, types.int64, types.int64, types.int64), codegen

    @intrinsic
    def _memcmp(typingctx, u8, a, b, n):
        def codegen(context, builder, signature, args):
            kind = signature.args[0]
            x, y = (_word(context, builder, kind, args[0], at) for at in (args[1], args[2]))
            pointer = _I8.as_pointer()
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_I32, [pointer, pointer, _I64]), "memcmp"
            )
            return builder.sext(builder.call(function, [x, y, args[3]]), _I64)

        return types.int64(u8, types.int64, types.int64, types.int64), codegen

    from ring.hot import hot

    _load8, _load16, _load32, _load64 = (_loader(n) for n in (8, 16, 32, 64))
    _store8, _store16, _store32 = (_storer(n) for n in (8, 16, 32))

    # Thin functions: they fix the integer type of the arguments (an intrinsic sees whatever type the caller has).
    @hot
    def load_acquire(w, i):
        return _load_acquire(w, i)

    @hot
    def store_release(w, i, v):
        _store_release(w, i, v)

    @hot
    def fence_full():
        _fence_full()

    @hot
    def fence_order():
        _fence_order()

    @hot
    def byte(u8, i):
        return _load8(u8, i)

    @hot
    def put_byte(u8, i, v):
        _store8(u8, i, v)

    @hot
    def be16(u8, i):
        return _load16(u8, i)

    @hot
    def be32(u8, i):
        return _load32(u8, i)

    @hot
    def be64(u8, i):
        return _load64(u8, i)

    @hot
    def put_be16(u8, i, v):
        _store16(u8, i, v)

    @hot
    def put_be32(u8, i, v):
        _store32(u8, i, v)

    @hot
    def copy(u8, dst, src, n):
        _copy(u8, dst, src, n)

    @hot
    def common_prefix(u8, a, b, n):
        if _memcmp(u8, a, b, n) == 0:
            return n
        i = 0
        while _load8(u8, a + i) == _load8(u8, b + i):
            i += 1
        return i
