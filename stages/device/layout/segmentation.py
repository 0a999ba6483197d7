"""A frame that is being cut into segments: words from memory.SEGMENTATION on.

It lies whole at memory.WHOLE until its last segment is in the ring, which may take several bursts.  Offsets are bytes
from its first.
"""

from __future__ import annotations

from typing import Final

from ring.fields import Values, Words

_SEGMENTATION = Words("kernels")
NEXT: Final = _SEGMENTATION.word("next", "which segment is made next, from 0; not below `segments`: nothing waits")
SEGMENTS: Final = _SEGMENTATION.word("segments", "into how many it is cut")
AT: Final = _SEGMENTATION.word("at", "byte index of the frame")
HEADERS: Final = _SEGMENTATION.word("headers", "bytes of headers, which each segment gets", "bytes")
DATA: Final = _SEGMENTATION.word("data", "bytes of payload behind them", "bytes")
SIZE: Final = _SEGMENTATION.word("size", "bytes of payload of each segment but the last", "bytes")
PROTOCOL: Final = _SEGMENTATION.word("protocol", "protocol number of the transport, TCP or UDP")
TRANSPORT: Final = _SEGMENTATION.word("transport", "offset of the transport header")
ECN: Final = _SEGMENTATION.word("ecn", "1: CWR is for the first segment alone (RFC 3168)", "bool")
CHECKED: Final = _SEGMENTATION.word("checked", "0: UDP without a checksum (RFC 768)", "bool")
SUM: Final = _SEGMENTATION.word("sum", "one's complement sum of the pseudo header, without the length")
LAYERS_N: Final = _SEGMENTATION.word("layers_n", "how many layers have a length of their own")
MOST_LAYERS: Final = 8
LAYERS: Final = _SEGMENTATION.word(
    "layers", "from outside in: offset << 2 | IPV4, IPV6 or the TUNNEL that is UDP", size=MOST_LAYERS
)
FIELDS: Final = _SEGMENTATION.fields
WORDS: Final = _SEGMENTATION.end

_LAYER = Values()
IPV4: Final = _LAYER.value("ipv4")
IPV6: Final = _LAYER.value("ipv6")
TUNNEL: Final = _LAYER.value("tunnel")

_WHY = Values(1)
UNSAID: Final = _WHY.value("the system cannot say in a virtio-net header how")
UNKNOWN: Final = _WHY.value("its kind of segmentation is none of TCP over IPv4, TCP over IPv6, UDP")
NO_SIZE: Final = _WHY.value("its segments would be empty, or longer than any frame here")
NO_MATCH: Final = _WHY.value("its headers are not what its virtio-net header says, or not known here")
WHY: Final = _WHY.names
"""Why a frame was not cut, by number; 0: it can be."""
