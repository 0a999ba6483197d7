"""A TAP device, or an existing interface, as one side of a netdev."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ring.layout import Counter
from stages.capture import files
from stages.capture.layout import recording
from stages.device import ours, preflight
from stages.device.layout import counters, options
from stages.kind import NETDEV, Balance, Claim, Kind, options_table
from stages.schema import BOOLEAN, FILE, IFNAME, TEXT, VNET_LEN, Mistake, key, show

_BALANCE: Final = Balance(
    "every frame is sent, refused, or kept from the network",
    ("send_frames",),
    ("sent", "dropped_refused", "dropped_before_failover"),
)

_RECORD: Final = "a pcapng file into which everything that passes is written"
_NETNS: Final = "the network namespace that it is in"


@dataclass(frozen=True, kw_only=True)
class Tap:
    """``backend = "tap"``: a TAP device, created where missing."""

    ifname: str = key(IFNAME, required=True, doc="name of the TAP device, 1 to 15 characters; created where missing")
    netns: str | None = key(TEXT, doc=_NETNS)
    vnet_hdr: bool = key(
        BOOLEAN,
        False,
        doc="frames with a virtio-net header (checksum and segmentation offload); the other side must be a `tap` or"
        " `packet` with it, too, or `null`",
    )
    vnet_hdr_len: int = key(VNET_LEN, 10, doc="bytes of that header, 10 or 12")
    bridge: str | None = key(IFNAME, doc="the bridge, in the same namespace, into which the device is put")
    persist: bool = key(BOOLEAN, False, doc="`true`: a device that was made here stays when the pipeline has ended")
    record: str | None = key(FILE, doc=_RECORD)


@dataclass(frozen=True, kw_only=True)
class Packet:
    """``backend = "packet"``: an existing interface through AF_PACKET."""

    ifname: str = key(IFNAME, required=True, doc="name of the interface")
    netns: str | None = key(TEXT, doc=_NETNS)
    vnet_hdr: bool = key(BOOLEAN, False, doc="frames with a virtio-net header, as above (10 bytes)")
    record: str | None = key(FILE, doc=_RECORD)


def _mistakes(table: Tap | Packet, path: str, clean: bool) -> Iterable[Mistake]:
    if table.record is not None:
        yield from files.folder_missing(table.record, f"{path}.record")


def _claims(table: Tap | Packet, path: str) -> Iterable[Claim]:
    if table.ifname:
        what = ("interface", table.ifname, table.netns)
        yield Claim(what, path, show(table.ifname), "another interface; {taken} has this one", key="ifname")
    if table.record is not None:
        yield files.writes(table.record, f"{path}.record")


def _address(params: Mapping[str, Any]) -> str:
    return f"{params['ifname']}" + (f" in {params['netns']}" if params["netns"] else "")


def _kind(
    variant: str,
    config: type[Any],
    shell: str,
    own: tuple[Counter, ...],
    look: Callable[[Mapping[str, Any]], Iterable[str]],
    ended: Callable[[Mapping[str, Any]], Iterable[str]] = lambda params: (),
) -> Kind:
    return Kind(
        name=f"netdev-{variant}",
        type="netdev",
        table=NETDEV,
        variant=variant,
        config=config,
        shell=shell,
        kernels=("stages.device.kernels.device", "stages.capture.kernels.pcap_blocks"),
        inputs=("send",),
        outputs=("receive",),
        counters=own,
        tables=(options_table((*options.FIELDS, *recording.OPTION_FIELDS)),),
        balances=(_BALANCE,),
        connects=True,
        losses=tuple(c.name for c in own if c.name.startswith("dropped_")),
        derive=lambda table, derived: {
            "gated": derived.gated,
            **({"pipeline": derived.pipeline} if config is Tap else {}),
        },
        hears=("failover",),
        hears_if="gated",
        mistakes=_mistakes,
        claims=_claims,
        vnet=lambda table: bool(table.vnet_hdr),
        vnet_key="vnet_hdr",
        address=lambda params: f"{variant} {_address(params)}",
        preflight=look,
        ended=ended,
    )


KINDS: Final = {
    "netdev-tap": _kind("tap", Tap, "stages.device.tap:Tap", counters.TAP_COUNTERS, preflight.tap, ours.remove),
    "netdev-packet": _kind(
        "packet", Packet, "stages.device.packet_socket:Interface", counters.COUNTERS, preflight.packet
    ),
}
