"""What processes of a pipeline, and its control socket, say to each other: msgpack.

A path is text here, with surrogates for what in it is no UTF-8 (PEP 383): a file may have any name.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

_ERRORS: Final = "surrogateescape"


def pack(value: Any) -> bytes:
    """A value as a message."""
    return bytes(msgpack.packb(value, unicode_errors=_ERRORS))


def unpack(message: bytes) -> Any:
    """The value of a message.  Raises ValueError where it is none."""
    return msgpack.unpackb(message, unicode_errors=_ERRORS)


def unpacker(**limits: Any) -> Any:
    """A `msgpack.Unpacker` of a stream of messages."""
    return msgpack.Unpacker(unicode_errors=_ERRORS, **limits)
