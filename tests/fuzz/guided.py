"""Coverage-guided fuzzing of what reads bytes from outside, as plain Python: ``python -m tests.fuzz.guided TARGET``.

Needs atheris (``pip install -e '.[fuzz]'``).  Targets: ``packet`` the frame parser, ``capture`` pcap and pcapng files,
``link`` the length words of a stream, ``command`` QEMU command lines.  Further arguments are libFuzzer's: a folder with
a corpus, ``-max_total_time=60``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

os.environ["NUMBA_DISABLE_JIT"] = "1"  # before anything compiled is imported

import atheris

with atheris.instrument_imports(include=["stages", "ring.kernels", "tools.from_qemu"]):
    import numpy as np

    from ring import layout
    from ring.kernels.frames import scan
    from stages.capture import reader as captures
    from stages.packets.kernels.parse import parse
    from stages.packets.layout import parsed, transports
    from tools.from_qemu.convert import convert
    from tools.from_qemu.model import Asked
    from tools.from_qemu.sources import command_lines
    from tools.from_qemu.words import Trouble

_AT = parsed.SCRATCH * 8


def packet(data: bytes) -> None:
    """Whatever the frame says of itself, its fields lie within it."""
    data = data[:2048]
    w = np.zeros(parsed.SCRATCH + -(-len(data) // 8), np.int64)
    u8 = w.view(np.uint8)
    u8[_AT : _AT + len(data)] = np.frombuffer(data, np.uint8)
    transport = parse(u8, w, _AT, len(data), 0)
    if transport == transports.OTHER:
        return
    l3, l4, end = int(w[parsed.L3]), int(w[parsed.L4]), int(w[parsed.END])
    assert 14 <= l3 < l4 and end <= len(data)
    if transport != transports.FRAGMENT:
        assert l4 <= end and int(w[parsed.DATA]) + int(w[parsed.DATA_LEN]) == end and int(w[parsed.DATA_LEN]) >= 0


def capture(data: bytes) -> None:
    """A capture is read or refused with a place, and each frame lies within the file: all of it, or what is whole."""
    for left in (None, captures.Left()):
        place = end = 0
        try:
            for span in captures.walk(data, "fuzzed", left=left):
                assert 0 <= span.start <= span.start + span.length <= span.end <= len(data)
                end = span.end
        except captures.CaptureError as error:
            place = error.offset
        assert 0 <= place <= len(data)
        assert left is None or left.end < 0 or left.end >= end


def link(data: bytes) -> None:
    """The walk over length words stays within what has come, and says where it is impossible."""
    size = 4096
    w = np.zeros((layout.PAGE + 2 * size) // 8, np.int64)
    u8 = w.view(np.uint8)
    data = data[: size - 1]
    w[layout.SIZE], w[layout.VNET] = size, len(data) & 1
    u8[layout.PAGE : layout.PAGE + len(data)] = np.frombuffer(data, np.uint8)
    position, frames, bad = scan(u8, w, 0, 0, len(data), 1 << 30)
    assert 0 <= position <= len(data) and frames <= position // 4 and bad >= -1


def command(data: bytes) -> None:
    """A text is converted, or refused with a place and a mend."""
    try:
        for line in command_lines(data.decode("latin-1"), {}):
            convert(line, Asked())
    except Trouble:
        pass


TARGETS: dict[str, Callable[[bytes], None]] = {"packet": packet, "capture": capture, "link": link, "command": command}


def main(argv: list[str]) -> None:
    """Fuzz a target until libFuzzer's arguments say that it is enough."""
    if len(argv) < 2 or argv[1] not in TARGETS:
        raise SystemExit(f"usage: python -m tests.fuzz.guided {{{','.join(TARGETS)}}} [libFuzzer arguments]")
    target: Any = TARGETS[argv[1]]
    atheris.Setup([argv[0], *argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
