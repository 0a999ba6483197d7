"""What the pipeline must know of a stream socket: a chardev, or one side of a netdev."""

from __future__ import annotations

from typing import Final

from stages.kind import Kind
from stages.socket.layout import counters, memory


def _kind(name: str, people: str) -> Kind:
    return Kind(
        name=name,
        type=people,
        shell="stages.socket.shell:Link",
        kernels=("stages.socket.kernels",),
        inputs=("send",),
        outputs=("receive",),
        counters=counters.COUNTERS,
        connects=True,
        table_words=lambda params: memory.SCRATCH_WORDS,
    )


KINDS: Final = {
    "chardev-socket": _kind("chardev-socket", "chardev"),
    "netdev-stream": _kind("netdev-stream", "netdev"),
}
