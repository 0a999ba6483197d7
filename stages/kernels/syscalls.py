"""recv(2) and send(2) between a socket and an arena, from compiled code: one call a burst, without Python.

Both never block, and return the bytes moved, or minus errno.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ring.hot import JIT

if TYPE_CHECKING or not JIT:

    def recv(u8: Any, fd: int, at: int, n: int) -> int:
        """Receive at most ``n`` bytes to byte ``at``; 0: the peer closed (the socket must be non-blocking)."""
        try:
            return os.readv(int(fd), [u8[at : at + n]])
        except OSError as error:
            return -(error.errno or 0)

    def send(u8: Any, fd: int, at: int, n: int) -> int:
        """Send at most ``n`` bytes from byte ``at`` (the socket must be non-blocking; SIGPIPE is ignored by Python)."""
        try:
            return os.write(int(fd), u8[at : at + n])
        except OSError as error:
            return -(error.errno or 0)

else:
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    from ring.hot import hot

    _DONTWAIT, _NOSIGNAL = 0x40, 0x4000
    _I8, _I32, _I64 = (ir.IntType(n) for n in (8, 32, 64))

    def _call(name, flags):
        @intrinsic
        def call(typingctx, u8, fd, at, n):
            def codegen(context, builder, signature, args):
                array = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=args[0])
                pointer = builder.gep(array.data, [args[2]], inbounds=True)
                kind = ir.FunctionType(_I64, [_I32, _I8.as_pointer(), _I64, _I32])
                function = cgutils.get_or_insert_function(builder.module, kind, name)
                moved = builder.call(function, [builder.trunc(args[1], _I32), pointer, args[3], _I32(flags)])
                where = cgutils.get_or_insert_function(
                    builder.module, ir.FunctionType(_I32.as_pointer(), []), "__errno_location"
                )
                number = builder.sext(builder.load(builder.call(where, [])), _I64)
                return builder.select(builder.icmp_signed("<", moved, _I64(0)), builder.neg(number), moved)

            return types.int64(u8, types.int64, types.int64, types.int64), codegen

        return call

    _recv, _send = _call("recv", _DONTWAIT), _call("send", _DONTWAIT | _NOSIGNAL)

    @hot
    def recv(u8, fd, at, n):
        return _recv(u8, fd, at, n)

    @hot
    def send(u8, fd, at, n):
        return _send(u8, fd, at, n)
