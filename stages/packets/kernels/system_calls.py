"""read(2), write(2) and recvmsg(2) from compiled code, straight into and out of an arena; -errno where they fail.

Descriptors are non-blocking, sockets too: a peer that is gone is EPIPE, as Python and the fork server ignore SIGPIPE.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ring.hot import JIT

if TYPE_CHECKING or not JIT:
    import ctypes

    _libc = ctypes.CDLL(None, use_errno=True)
    _libc.recvmsg.restype = ctypes.c_ssize_t

    def sys_read(u8: Any, fd: int, at: int, n: int) -> int:
        """Read at most ``n`` bytes to byte ``at``; how many, or -errno."""
        try:
            return os.readv(int(fd), [u8[at : at + n]])
        except OSError as error:
            return -(error.errno or 0)

    def sys_write(u8: Any, fd: int, at: int, n: int) -> int:
        """Write ``n`` bytes from byte ``at``; how many were taken, or -errno."""
        try:
            return os.write(int(fd), u8[at : at + n])
        except OSError as error:
            return -(error.errno or 0)

    def sys_recvmsg(u8: Any, fd: int, at: int, flags: int) -> int:
        """Receive by the struct msghdr at byte ``at``; how many bytes came, or -errno."""
        done: int = _libc.recvmsg(int(fd), ctypes.c_void_p(u8.ctypes.data + at), flags)
        return done if done >= 0 else -ctypes.get_errno()

else:
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    from ring.hot import hot

    _I32, _I64 = ir.IntType(32), ir.IntType(64)

    def _call(name, last=_I64):
        @intrinsic
        def call(typingctx, u8, fd, at, n):
            def codegen(context, builder, signature, args):
                module = builder.module
                data = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=args[0]).data
                pointer = builder.gep(data, [args[2]])
                shape = ir.FunctionType(_I64, [_I32, pointer.type, last])
                function = cgutils.get_or_insert_function(module, shape, name)
                n = args[3] if last == _I64 else builder.trunc(args[3], last)
                done = builder.call(function, [builder.trunc(args[1], _I32), pointer, n])
                result = cgutils.alloca_once_value(builder, done)
                with builder.if_then(builder.icmp_signed("<", done, _I64(0))):
                    # errno is a word of the thread; glibc and musl both give its address by this function.
                    shape = ir.FunctionType(_I32.as_pointer(), [])
                    where = cgutils.get_or_insert_function(module, shape, "__errno_location")
                    number = builder.sext(builder.load(builder.call(where, [])), _I64)
                    builder.store(builder.neg(number), result)
                return builder.load(result)

            return types.int64(u8, types.int64, types.int64, types.int64), codegen

        return call

    _read, _write, _recvmsg = _call("read"), _call("write"), _call("recvmsg", _I32)

    @hot
    def sys_read(u8, fd, at, n):
        return _read(u8, fd, at, n)

    @hot
    def sys_write(u8, fd, at, n):
        return _write(u8, fd, at, n)

    @hot
    def sys_recvmsg(u8, fd, at, flags):
        return _recvmsg(u8, fd, at, flags)
