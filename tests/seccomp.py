"""A program for tests that refuses a system call to what it then executes, as a container's seccomp profile does."""

from __future__ import annotations

REFUSING = """
import ctypes, os, struct, sys

NUMBERS = {"memfd_create": 319, "pidfd_send_signal": 424, "pidfd_open": 434}  # x86-64
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
ALLOW, ERRNO, EPERM = 0x7FFF0000, 0x00050000, 1  # linux/seccomp.h
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2

program = b"".join(
    struct.pack("=HBBI", *words)
    for words in (
        (LOAD, 0, 0, 0),  # the number of the call, struct seccomp_data
        (JUMP_IF_EQUAL, 0, 1, NUMBERS[sys.argv[1]]),
        (RETURN, 0, 0, ERRNO | EPERM),
        (RETURN, 0, 0, ALLOW),
    )
)
held = ctypes.create_string_buffer(program)
given = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, FILTER, given, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[2], sys.argv[2:])
"""
"""``python -c REFUSING CALL PROGRAM ARGUMENT...``: in PROGRAM the call fails with EPERM."""
