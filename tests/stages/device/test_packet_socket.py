"""netdev-packet against the kernel: frames both ways, drops, refusals, and an interface that goes away."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ring import layout
from stages.capture import reader as captures
from stages.capture.reader import INBOUND, OUTBOUND
from stages.device import packet_socket as interface
from stages.device.netns import DeviceError
from stages.device.packet_socket import open_interface
from tests.namespaces import gather, inside, ip, root, until
from tests.packets import arp_frame, checksum_faults, read, udp_frame, vnet_header
from tests.rig import Rig
from tests.stages.device.veth import ETH_P_ALL, IGNORE_OUTGOING, INSIDE, OUTSIDE, Wire, mac, packet, raw, transmit, veth


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A veth pair between two namespaces."""
    with veth() as made:
        yield made


SEND_UDP = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(20):
    s.sendto(b"hello %d" % n, ("{INSIDE}", 7777))
"""


@root
@pytest.mark.parametrize("vnet_hdr", [False, True])
def test_frames_both_ways(wire: Wire, vnet_hdr: bool) -> None:
    """UDP of a local socket comes in, its checksum made or described by the header; what is sent arrives as it is."""
    with packet(wire, vnet_hdr=vnet_hdr) as rig:
        with inside(wire.there, SEND_UDP):
            got = gather(rig, 20)
        keep = 10 if vnet_hdr else 0
        assert [read(f[keep:]).payload for f in got] == [b"hello %d" % n for n in range(20)]
        assert all(checksum_faults(f[keep:], partial=vnet_hdr) == [] for f in got)
        if vnet_hdr:
            expected = vnet_header(needs_csum=True, csum_start=34, csum_offset=6)
            assert {f[:2] + f[4:10] for f in got} == {expected[:2] + expected[4:]}  # hdr_len is only a hint
        counters = rig.counters()
        assert (counters["receive_frames"], counters["checksums_finished"]) == (20, 0 if vnet_hdr else 20)
        sent = [mac(wire.there, "v1") + udp_frame(INSIDE, OUTSIDE, 1, 2, b"world %d" % n)[6:] for n in range(20)]
        with raw(wire.there, "v1") as far:
            for n, frame in enumerate(sent):
                own = (0, 10, 12)[n % 3] if vnet_hdr else 0
                rig.feed("send", bytes(own) + frame, vnet_hdr_len=own)
            rig.run()
            assert [far.recv(2000) for _ in sent] == sent
        counters = rig.counters()
        assert (counters["send_frames"], counters["sent"], counters["dropped_refused"]) == (20, 20, 0)


@root
def test_a_header_makes_the_kernel_finish_what_is_sent(wire: Wire) -> None:
    """A frame that is sent with a header that asks for its checksum gets it on the way to a socket."""
    frame = udp_frame(INSIDE, OUTSIDE, 7, 8888, b"partial", partial=True)
    frame = mac(wire.there, "v1") + frame[6:]
    code = (
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"s.bind(('{OUTSIDE}', 8888)); print('bound', flush=True); s.settimeout(100); print(s.recv(100).decode())"
    )
    with packet(wire, vnet_hdr=True) as rig, inside(wire.there, code) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "bound\n"
        rig.feed("send", vnet_header(needs_csum=True, csum_start=34, csum_offset=6) + frame, vnet_hdr_len=10)
        rig.run()
        assert child.stdout.readline() == "partial\n"


@root
def test_only_what_arrives_on_this_interface(wire: Wire) -> None:
    """Nothing of another interface, nothing that leaves (ours or another program's), whatever MAC it is for."""
    ip("-n", wire.here, "link", "add", "w0", "type", "veth", "peer", "name", "w1", "netns", wire.there)
    for netns, name in ((wire.here, "w0"), (wire.there, "w1")):
        ip("-n", netns, "link", "set", name, "up")
    with packet(wire) as rig:
        assert "promiscuity 1" in ip("-d", "-n", wire.here, "link", "show", "v0")
        transmit(wire.there, "w1", arp_frame(OUTSIDE, "10.9.0.66"))
        transmit(wire.here, "v0", arp_frame(INSIDE, "10.9.0.77"))
        rig.feed("send", arp_frame(INSIDE, "10.9.0.88"))
        rig.run()
        stranger = b"\x02\x12\x34\x56\x78\x9a" + udp_frame(OUTSIDE, INSIDE, 1, 2, b"last")[6:]
        transmit(wire.there, "v1", stranger)
        assert gather(rig, 1) == [stranger]
        assert rig.counters()["receive_frames"] == 1
    assert "promiscuity 0" in ip("-d", "-n", wire.here, "link", "show", "v0")


def test_nothing_is_received_before_the_bind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket is made with protocol 0 and bound last, after it ignores what leaves."""
    made: list[tuple[str, Any]] = []

    class Fake:
        def __init__(self, *args: int) -> None:
            made.append(("socket", args[2]))

        def setsockopt(self, level: int, option: int, value: Any) -> None:
            made.append(("option", option))

        def bind(self, address: tuple[str, int]) -> None:
            made.append(("bind", address))

    monkeypatch.setattr(interface.socket, "socket", Fake)
    monkeypatch.setattr(interface, "_number", lambda *_: 3)
    monkeypatch.setattr(interface, "_check", lambda *_: None)
    open_interface("v0")
    assert made[0] == ("socket", 0)
    assert made[-1] == ("bind", ("v0", ETH_P_ALL))
    assert ("option", IGNORE_OUTGOING) in made


@root
def test_drops_of_the_kernel_are_counted(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that found the socket's buffer full are in a counter: none is missing."""
    monkeypatch.setattr(interface, "_BUFFER", 10_000)
    frame = udp_frame(OUTSIDE, INSIDE, 1, 2, b"x" * 500)
    with packet(wire) as rig:
        transmit(wire.there, "v1", *[frame] * 500)

        def total() -> int:
            counters = rig.counters()
            return counters["receive_frames"] + counters["dropped_by_kernel"]

        until(rig, lambda: total() >= 500)
        assert total() == 500
        assert rig.counters()["dropped_by_kernel"] > 0
        # A drain asks once more, at once; what comes later is nobody's.
        transmit(wire.there, "v1", *[frame] * 500)
        rig.command(layout.CMD_DRAIN, 1)
        rig.run()
        seen = rig.counters()["dropped_by_kernel"]
        transmit(wire.there, "v1", *[frame] * 500)
        time.sleep(0.15)
        rig.run()
        assert rig.counters()["dropped_by_kernel"] == seen
        assert rig.segment.w[layout.LIFE_FINISHED] == 1


@root
def test_refused_frames(wire: Wire) -> None:
    """Too long, too short, or the interface is down: counted, explained once, and the rest goes on."""
    good = arp_frame(INSIDE, OUTSIDE)
    with capture_logs() as logs, packet(wire) as rig:
        rig.feed("send", b"short", udp_frame(INSIDE, OUTSIDE, 1, 2, bytes(3000)), good)
        rig.run()
        assert (rig.counters()["sent"], rig.counters()["dropped_refused"]) == (1, 2)
        rig.feed("send", udp_frame(INSIDE, OUTSIDE, 1, 2, bytes(3000)))
        until(rig, lambda: any("refused" in e["event"] and "mtu" in e for e in logs))
        ip("-n", wire.here, "link", "set", "v0", "down")
        rig.feed("send", good, good)
        until(rig, lambda: any("is down" in e["event"] for e in logs))
        assert (rig.counters()["sent"], rig.counters()["dropped_refused"]) == (1, 5)
        ip("-n", wire.here, "link", "set", "v0", "up")
        until(rig, lambda: any("up again" in e["event"] for e in logs))
        rig.feed("send", good)
        rig.run()
        assert rig.counters()["sent"] == 2
        transmit(wire.there, "v1", good)
        assert good in gather(rig, 1)
    assert len([e for e in logs if e["log_level"] == "warning"]) == 2


def answers(wire: Wire, rig: Rig) -> None:
    """Frames pass in both directions; each is sent until it is seen, as a link that comes up may lose some."""
    there, back = arp_frame(INSIDE, OUTSIDE), arp_frame(OUTSIDE, INSIDE)

    def seen() -> bool:
        transmit(wire.there, "v1", back)
        return back in rig.take("receive")

    until(rig, seen)
    with raw(wire.there, "v1") as far:
        far.setblocking(False)

        def arrived() -> bool:
            rig.feed("send", there)
            rig.run()
            with contextlib.suppress(BlockingIOError):
                return far.recv(2000) == there
            return False

        until(rig, arrived)


def plug(wire: Wire) -> None:
    """Make the pair again."""
    ip("-n", wire.here, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", wire.there)
    ip("-n", wire.here, "link", "set", "v0", "up")
    ip("-n", wire.there, "link", "set", "v1", "up")


@root
@pytest.mark.parametrize("sends", [False, True])
def test_a_deleted_interface_is_waited_for(wire: Wire, sends: bool) -> None:
    """Somebody deletes the interface and makes it again: told once each way, what is sent meanwhile is refused."""
    with capture_logs() as logs, packet(wire) as rig:
        answers(wire, rig)
        ip("-n", wire.here, "link", "delete", "v0")
        if sends:
            rig.feed("send", arp_frame(INSIDE, OUTSIDE))
        until(rig, lambda: any(e["event"] == "device is gone: waiting for it" for e in logs))
        assert int(rig.rings["receive"].w[layout.P_LINK]) & 1 == 0
        rig.feed("send", arp_frame(INSIDE, OUTSIDE), arp_frame(INSIDE, OUTSIDE))
        until(rig, lambda: rig.counters()["dropped_refused"] == 2 + sends)
        until(rig, lambda: any(e["event"] == "device is not there: waiting for it" for e in logs))
        assert rig.watched == {}
        plug(wire)
        answers(wire, rig)
        assert int(rig.rings["receive"].w[layout.P_LINK]) & 1
        counters = rig.counters()
        assert counters["sent"] + counters["dropped_refused"] == counters["send_frames"]
    assert sum(e["event"] == "device is gone: waiting for it" for e in logs) == 1


@root
@pytest.mark.parametrize("away", ["down", "deleted", "renamed", "moved"])
def test_a_stage_that_starts_again_waits_for_its_interface(wire: Wire, away: str) -> None:
    """A process that starts while the interface is not there, or is down, is not ready, and no failure."""
    set_v0 = ("-n", wire.here, "link", "set", "v0")
    with packet(wire) as rig:
        match away:
            case "down":
                ip(*set_v0, "down")
            case "deleted":
                ip("-n", wire.here, "link", "delete", "v0")
            case "renamed":
                ip(*set_v0, "down", "name", "w0")
            case "moved":
                ip(*set_v0, "netns", wire.there)
        rig.stage._socket.close()  # type: ignore[attr-defined]
        rig.restart()
        rig.run()
        assert not rig.stage.ready()
        rig.feed("send", arp_frame(INSIDE, OUTSIDE))
        rig.run()
        assert rig.counters()["dropped_refused"] == 1
        match away:
            case "down":
                ip(*set_v0, "up")
            case "deleted":
                plug(wire)
            case "renamed":
                ip("-n", wire.here, "link", "set", "w0", "name", "v0", "up")
            case "moved":
                ip("-n", wire.there, "link", "set", "v0", "netns", wire.here)
                ip(*set_v0, "up")
        until(rig, rig.stage.ready)
        answers(wire, rig)


@root
def test_an_interface_that_moves_away_is_gone(wire: Wire) -> None:
    """Moved into another namespace it is gone, too."""
    with capture_logs() as logs, packet(wire) as rig:
        ip("-n", wire.here, "link", "set", "v0", "netns", wire.there)
        until(rig, lambda: not rig.stage.ready())
    assert "moved" in next(e["reason"] for e in logs if e["event"] == "device is gone: waiting for it")


@root
def test_errors_say_what_to_do(wire: Wire) -> None:
    """Missing, down, no Ethernet, a wrong name or namespace: each error names its mend, and we are where we were."""
    here = os.readlink("/proc/self/ns/net")
    ip("-n", wire.here, "link", "add", "w0", "type", "veth", "peer", "name", "w1")
    ip("-n", wire.here, "link", "set", "lo", "up")
    for name, netns, said in (
        ("v9", wire.here, "there are: .*v0.*ip -n .* link add v9 type veth"),
        ("w0", wire.here, f"it is down; ip -n {wire.here} link set w0 up"),
        ("lo", wire.here, "no Ethernet interface"),
        ("a-name-that-is-too-long", None, "1 to 15 bytes"),
        ("v0", "colo-no-such", "ip netns add colo-no-such"),
    ):
        with pytest.raises(DeviceError, match=said):
            open_interface(name, netns)
    assert os.readlink("/proc/self/ns/net") == here


@root
def test_not_root() -> None:
    """Without privileges the error says how to go on."""
    code = (
        "import os\n"
        "from stages.device.netns import DeviceError\n"
        "from stages.device.packet_socket import open_interface\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: open_interface('lo')\n"
        "except DeviceError as error: print(error)\n"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment)
    assert "run as root" in done.stdout, done.stderr


@root
def test_an_address_of_its_own_is_warned_of(wire: Wire) -> None:
    """An interface with an address answers for itself: a warning says so."""
    ip("-n", wire.here, "addr", "add", "10.9.0.5/24", "dev", "v0")
    with capture_logs() as logs, packet(wire):
        pass
    (warning,) = [e for e in logs if e["log_level"] == "warning"]
    assert "addr flush" in warning["mend"]


@root
def test_recorded(wire: Wire, tmp_path: Path) -> None:
    """``record`` writes both directions, whole frames without the header, and goes on after a restart."""
    out = tmp_path / "side.pcapng"
    answer = arp_frame(INSIDE, OUTSIDE)
    tagged = udp_frame(OUTSIDE, INSIDE, 1, 2, b"y", vlans=(3,))
    with packet(wire, record=str(out), vnet_hdr=True) as rig:
        rig.feed("send", bytes(10) + answer, vnet_hdr_len=10)
        rig.run()
        rig.stage._socket.close()  # type: ignore[attr-defined]
        rig.restart()
        transmit(wire.there, "v1", tagged)
        until(rig, lambda: rig.counters()["vlan_tags_restored"])
        seen = [f[10:] for f in rig.take("receive")]
    recorded = captures.read(out)
    assert [p.data for p in recorded if p.direction == OUTBOUND] == [answer]
    assert [p.data for p in recorded if p.direction == INBOUND] == seen
    assert tagged in seen


@root
def test_link_words_and_events(wire: Wire) -> None:
    """The rings' link words are odd while it is open; it is watched for what there is room for."""
    with packet(wire, ring_size=1 << 17) as rig:
        words = [(rig.rings["receive"], layout.P_LINK), (rig.rings["send"], layout.C_LINK)]
        assert all(int(r.w[word]) & 1 for r, word in words)
        frames = [udp_frame(OUTSIDE, INSIDE, 1, 2, b"%d" % n * 400) for n in range(200)]
        transmit(wire.there, "v1", *frames)
        until(rig, lambda: rig.segment.w[layout.BLOCKED] == 1)  # a busy kernel may take its time with what was sent
        assert rig.watched == {}
        assert gather(rig, 200) == frames
        rig.run()
        assert len(rig.watched) == 1
        rig.stage.on_close()
        assert all(int(r.w[word]) & 1 == 0 for r, word in words)
