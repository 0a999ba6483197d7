"""What the pipeline must know of a TAP device or an existing interface as one side of a netdev."""

from __future__ import annotations

from typing import Final

from stages.kind import Balance, Counter, Kind

_SENT: Final = Counter("sent", "frames that the device took")
_BALANCE: Final = Balance("every frame is sent or refused", ("send_frames",), ("sent", "dropped_refused"))
_KERNELS: Final = ("stages.device.kernels.device", "stages.capture.kernels.pcap_blocks")

TAP: Final = Kind(
    name="netdev-tap",
    type="netdev",
    shell="stages.device.tap:Tap",
    kernels=_KERNELS,
    inputs=("send",),
    outputs=("receive",),
    counters=(
        _SENT,
        Counter("dropped_refused", "frames that the TAP device refused: its link is down, or it is no Ethernet frame"),
    ),
    connects=True,
    balances=(_BALANCE,),
)

PACKET: Final = Kind(
    name="netdev-packet",
    type="netdev",
    shell="stages.device.packet_socket:Interface",
    kernels=_KERNELS,
    inputs=("send",),
    outputs=("receive",),
    counters=(
        _SENT,
        Counter("dropped_refused", "frames that the interface refused: it is down, it is full, or they exceed its MTU"),
        Counter("dropped_by_kernel", "frames for us that the system dropped, because its buffer for us was full"),
        Counter("dropped_unreadable", "frames over 69,632 bytes, or cut in a way that no virtio-net header can say"),
        Counter("vlan_tags_restored", "frames whose VLAN tag the system had taken out, put back"),
        Counter("checksums_finished", "frames of a local sender whose checksum was left to a card, made here"),
        Counter("received_over_mtu", "frames longer than the MTU: segments that the system had put together"),
    ),
    connects=True,
    balances=(_BALANCE,),
)

KINDS: Final = {kind.name: kind for kind in (TAP, PACKET)}
