"""netdev-packet: what the system does to frames on a veth, and how they come in whole."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import numpy as np
import pytest
from structlog.testing import capture_logs

from stages.device import packet_socket as interface
from stages.device.kernels.checksums import crc32c, ones_sum
from tests import packets
from tests.namespaces import gather, ip, root
from tests.packets import QINQ, VLAN, checksum_faults, read, tcp_frame, udp_frame, vnet_header
from tests.stages.device.veth import AUXDATA, INSIDE, OUTSIDE, SOL_PACKET, Wire, packet, raw, transmit, veth


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A veth pair between two namespaces."""
    with veth() as made:
        yield made


TAGS = [
    struct.pack("!HH", VLAN, 7),
    struct.pack("!HH", VLAN, 0xF001),  # priority 7, DEI
    struct.pack("!HH", VLAN, 0),  # priority only
    struct.pack("!HH", QINQ, 5),
    struct.pack("!HHHH", QINQ, 100, VLAN, 200),
    struct.pack("!HHHH", VLAN, 1, VLAN, 2),
    b"",
]


@root
@pytest.mark.parametrize("vnet_hdr", [False, True])
def test_vlan_tags_come_back(wire: Wire, vnet_hdr: bool) -> None:
    """The tag that the system takes out of a frame stands in it again: any kind, identifier and priority."""
    plain = udp_frame(OUTSIDE, INSIDE, 1, 2, b"x" * 1400)
    frames = [plain[:12] + tag + plain[12:] for tag in TAGS]
    keep = 10 if vnet_hdr else 0
    with packet(wire, vnet_hdr=vnet_hdr) as rig:
        transmit(wire.there, "v1", *frames)
        assert [f[keep:] for f in gather(rig, len(frames))] == frames
        assert rig.counters()["vlan_tags_restored"] == len(frames) - 1
        # And out again: tags go through as they are.
        with raw(wire.there, "v1", header=True) as far:
            far.setsockopt(SOL_PACKET, AUXDATA, 1)
            rig.feed("send", frames[1])
            rig.run()
            data, control, _, _ = far.recvmsg(3000, 100)
            tci, tpid = struct.unpack_from("HH", control[0][2], 16)
            assert data[10:22] + struct.pack("!HH", tpid, tci) + data[22:] == frames[1]


@root
@pytest.mark.parametrize("vnet_hdr", [False, True])
def test_a_tag_moves_the_place_of_the_checksum(wire: Wire, vnet_hdr: bool) -> None:
    """A tagged frame whose checksum is left to a card: made at the right place, or the header says the right place."""
    frame = tcp_frame(OUTSIDE, INSIDE, 1, 2, payload=b"odd length", vlans=(9,), partial=True)
    with packet(wire, vnet_hdr=vnet_hdr) as rig:
        header = vnet_header(needs_csum=True, csum_start=38, csum_offset=16)
        transmit(wire.there, "v1", header + frame, header=True)
        (got,) = gather(rig, 1)
        if vnet_hdr:
            assert struct.unpack_from("<HH", got, 6) == (38, 16)
            assert got[10:] == frame
        else:
            assert checksum_faults(got) == []
            assert read(got).payload == b"odd length"
            assert rig.counters()["checksums_finished"] == 1


@root
def test_a_zero_checksum_is_never_written(wire: Wire) -> None:
    """UDP whose sum comes out as zero gets 0xFFFF, since 0 would mean that there is none."""
    probe = read(udp_frame(OUTSIDE, INSIDE, 1, 2, b"\0\0")).body
    payload = probe[6:8]  # the checksum of the rest: with it as payload, the sum is zero
    frame = udp_frame(OUTSIDE, INSIDE, 1, 2, payload, partial=True)
    with packet(wire) as rig:
        header = vnet_header(needs_csum=True, csum_start=34, csum_offset=6)
        transmit(wire.there, "v1", header + frame, header=True)
        (got,) = gather(rig, 1)
    assert read(got).body[6:8] == b"\xff\xff"


@root
def test_sctp_gets_its_own_checksum(wire: Wire) -> None:
    """SCTP's CRC-32C, in its own byte order (RFC 9260, 6.8 and appendix A)."""
    body = struct.pack("!HHII", 5, 6, 7, 0) + b"chunk of data."
    frame = packets.ip_frame(OUTSIDE, INSIDE, 132, body)
    with packet(wire) as rig:
        header = vnet_header(needs_csum=True, csum_start=34, csum_offset=8)
        # Linux put a sum into the field where it was asked for one; SCTP's own stack leaves zero.
        transmit(wire.there, "v1", header + frame, header=True)
        (got,) = gather(rig, 1)
    assert got[42:46] == slow_crc32c(body).to_bytes(4, "little")


def slow_crc32c(data: bytes) -> int:
    """By polynomial division of bits."""
    bits = [byte >> i & 1 for byte in data for i in range(8)] + [0] * 32
    bits[:32] = [b ^ 1 for b in bits[:32]]
    for i in range(len(bits) - 32):
        if bits[i]:
            for k, one in enumerate(f"{0x11EDC6F41:033b}"):
                bits[i + k] ^= one == "1"
    return sum((b ^ 1) << i for i, b in enumerate(bits[-32:]))


def test_checksums_of_any_length() -> None:
    """The kernel's sums are those of a slow second opinion, at every alignment and length; and the published CRC."""
    data = np.frombuffer(bytes(range(255, 0, -1)) * 3, np.uint8).copy()
    for at in range(4):
        for n in (0, 1, 2, 3, 4, 5, 20, 21, 22, 23, 601):
            part = data[at : at + n].tobytes()
            assert ones_sum(data, at, n) % 0xFFFF == packets.ones_sum(part) % 0xFFFF
            assert n < 4 or crc32c(data, at, n) == slow_crc32c(part)
    full = np.full(69_632, 0xFF, np.uint8)
    assert ones_sum(full, 0, len(full)) == 0xFFFF
    text = np.frombuffer(b"123456789", np.uint8).copy()
    assert crc32c(text, 0, 9) == 0xE3069283


@root
@pytest.mark.parametrize("vnet_hdr", [False, True])
def test_frames_longer_than_the_mtu(wire: Wire, vnet_hdr: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some drivers give them, they come whole and are counted; one warning, where no header may explain them."""
    frames = [udp_frame(OUTSIDE, INSIDE, 1, 2, bytes(range(250)) * 20, vlans=vlans) for vlans in ((), (7,))]
    keep = 10 if vnet_hdr else 0
    with capture_logs() as logs, packet(wire, vnet_hdr=vnet_hdr) as rig:
        larger_mtu(wire, 9000)
        monkeypatch.setattr(interface, "_number", lambda *_: 1500)  # a veth refuses what it says is too long
        for n in range(1, 3):
            transmit(wire.there, "v1", *frames)
            assert [got[keep:] for got in gather(rig, 2)] == frames
            assert rig.counters()["received_over_mtu"] == 2 * n
            time.sleep(0.11)
            rig.run()
        assert rig.counters()["frames_cut"] == 0
    warnings = [e for e in logs if e["log_level"] == "warning"]
    assert len(warnings) == (0 if vnet_hdr else 1)
    assert vnet_hdr or ("the same MTU" in warnings[0]["mend"] and warnings[0]["bytes"] == len(frames[0]))


@root
def test_a_frame_longer_than_any_record(wire: Wire) -> None:
    """What does not fit is dropped whole and counted, and the next one comes."""
    small = udp_frame(OUTSIDE, INSIDE, 1, 2, b"small")
    with packet(wire, ring_size=1 << 14) as rig:
        larger_mtu(wire, 40_000)
        transmit(wire.there, "v1", udp_frame(OUTSIDE, INSIDE, 1, 2, bytes(30_000)), small)
        assert gather(rig, 1) == [small]
        assert rig.counters()["dropped_unreadable"] == 1
        assert rig.counters()["receive_frames"] == 1


def larger_mtu(wire: Wire, mtu: int) -> None:
    """Both ends of the pair take longer frames from now on."""
    for netns, name in ((wire.here, "v0"), (wire.there, "v1")):
        ip("-n", netns, "link", "set", name, "mtu", str(mtu))
