"""netdev-tap against the kernel, in a network namespace of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from ring import layout
from stages.capture import reader as captures
from stages.capture.reader import INBOUND, OUTBOUND
from stages.device import ours, preflight
from stages.device.netns import DeviceError
from stages.device.tap import open_tap
from tests.namespaces import gather, inside, ip, namespace, until
from tests.packets import arp_frame, read, udp_frame
from tests.rig import Rig

root = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/net/tun"),
    reason="TAP devices and namespaces need root and /dev/net/tun",
)


@pytest.fixture
def netns() -> Iterator[str]:
    """A namespace for one test."""
    with namespace() as name:
        yield name


def tap(netns: str, **params: Any) -> Rig:
    """A TAP stage ``t0`` in the namespace."""
    vnet = ("send", "receive") if params.get("vnet_hdr") else ()
    return Rig("netdev-tap", {"ifname": "t0", "netns": netns, **params}, vnet=vnet, ring_size=1 << 20)


def send_udp(netns: str, count: int, repeat: int = 1) -> None:
    """Datagrams ``hello N`` from a socket behind the device, all sent when this returns."""
    with inside(netns, SEND_UDP.format(count=count, repeat=repeat)):
        pass


SEND_UDP = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range({count}):
    s.sendto(b"hello %d" % n * {repeat}, ("10.9.0.2", 7777))
"""
RECEIVE_UDP = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.9.0.1", 8888))
print("bound", flush=True)
s.settimeout(100)
for n in range({count}):
    print(s.recv(100).decode(), flush=True)
"""


def configure(netns: str) -> bytes:
    """Addresses on the device and a fixed neighbour; the device's MAC address."""
    ip("-n", netns, "addr", "add", "10.9.0.1/24", "dev", "t0")
    ip("-n", netns, "neigh", "add", "10.9.0.2", "lladdr", "02:00:00:00:00:99", "dev", "t0")
    text = ip("-n", netns, "-o", "link", "show", "t0")
    return bytes.fromhex(text.split("link/ether ")[1].split()[0].replace(":", ""))


def to_host(mac: bytes, n: int) -> bytes:
    frame = udp_frame("10.9.0.2", "10.9.0.1", 7777, 8888, b"world %d" % n)
    return mac + frame[6:]


@root
@pytest.mark.parametrize("header", [0, 10, 12])
def test_frames_both_ways(netns: str, header: int) -> None:
    """UDP from a socket behind the device comes out of receive; frames put into send reach a socket."""
    with tap(netns, vnet_hdr=bool(header), vnet_hdr_len=header or 10) as rig:
        mac = configure(netns)
        assert rig.segment.w[layout.LIFE_FINISHED] == 0
        assert rig.stage.ready()
        with inside(netns, SEND_UDP.format(count=20, repeat=1)):
            got = gather(rig, 20)
        assert all(frame[:header] == bytes(header) for frame in got)
        seen = [read(frame[header:]) for frame in got]
        assert [p.payload for p in seen] == [b"hello %d" % n for n in range(20)]
        with inside(netns, RECEIVE_UDP.format(count=20)) as receiver:
            assert receiver.stdout is not None
            assert receiver.stdout.readline() == "bound\n"
            # Headers of every length reach the device as the one that it speaks.
            for n in range(20):
                own = (0, 10, 12)[n % 3] if header else 0
                rig.feed("send", bytes(own) + to_host(mac, n), vnet_hdr_len=own)
            rig.run()
            assert receiver.stdout.read().split("\n")[:20] == [f"world {n}" for n in range(20)]
        counters = rig.counters()
        assert (counters["send_frames"], counters["sent"], counters["dropped_refused"]) == (20, 20, 0)
        assert counters["receive_frames"] == len(got)


@root
def test_arp(netns: str) -> None:
    """The host's kernel answers an ARP request that comes through the device."""
    with tap(netns) as rig:
        mac = configure(netns)
        request = b"\xff" * 6 + arp_frame("10.9.0.7", "10.9.0.1")[6:]
        rig.feed("send", request)
        (reply,) = until(rig, lambda: [f for f in rig.take("receive") if f[12:14] == b"\x08\x06"])
        assert reply[6:12] == mac
        assert reply[20:22] == b"\0\2"
        assert reply[28:32] == bytes([10, 9, 0, 1])


@root
def test_refused_frames(netns: str) -> None:
    """Frames that the device refuses are counted and dropped: while its link is down, or no Ethernet frames."""
    with tap(netns) as rig:
        mac = configure(netns)
        rig.feed("send", b"short", to_host(mac, 1))
        rig.run()
        assert rig.counters()["dropped_refused"] == 1
        ip("-n", netns, "link", "set", "t0", "down")
        rig.feed("send", to_host(mac, 2), to_host(mac, 3))
        rig.run()
        ip("-n", netns, "link", "set", "t0", "up")
        rig.feed("send", to_host(mac, 4))
        rig.run()
        assert (rig.counters()["sent"], rig.counters()["dropped_refused"]) == (2, 3)


@root
def test_link_words_and_events(netns: str) -> None:
    """The rings' link words are odd while the device is open; the device is watched for what there is room for."""
    with tap(netns) as rig:
        words = [(rig.rings["receive"], layout.P_LINK), (rig.rings["send"], layout.C_LINK)]
        before = [int(r.w[word]) for r, word in words]
        assert all(n & 1 for n in before)
        assert len(rig.watched) == 1
        rig.command(layout.CMD_DRAIN, 1)
        rig.run()
        assert rig.watched == {}
        assert rig.segment.w[layout.LIFE_FINISHED] == 1
        rig.stage.on_close()
        assert all(int(r.w[word]) & 1 == 0 for r, word in words)


@root
def test_drained_takes_no_more(netns: str) -> None:
    """A drained device is not read any more, and still takes frames."""
    with tap(netns) as rig:
        mac = configure(netns)
        rig.run()
        rig.take("receive")
        rig.command(layout.CMD_DRAIN, 1)
        send_udp(netns, 3)
        rig.feed("send", to_host(mac, 1))
        rig.run()
        assert rig.take("receive") == []
        assert rig.counters()["sent"] == 1


@root
def test_full_ring(netns: str) -> None:
    """While the ring has no room the device keeps the frames, unwatched; afterwards they come, in order."""
    with Rig("netdev-tap", {"ifname": "t0", "netns": netns}, ring_size=1 << 17) as rig:
        configure(netns)
        rig.run()
        rig.take("receive")
        send_udp(netns, 400, repeat=50)
        rig.run()
        assert rig.segment.w[layout.BLOCKED] == 1
        assert rig.watched == {}
        got = gather(rig, 400)
        assert [read(f).payload for f in got] == [b"hello %d" % n * 50 for n in range(400)]
        rig.run()
        assert len(rig.watched) == 1


@root
def test_recorded(netns: str, tmp_path: Path) -> None:
    """``record`` writes both directions with the wall clock's time, and goes on after a restart."""
    out = tmp_path / "side.pcapng"
    start = time.time_ns()
    with tap(netns, record=str(out), pipeline="p0") as rig:
        mac = configure(netns)
        rig.feed("send", to_host(mac, 1))
        rig.run()
        os.close(rig.stage._fd)  # type: ignore[attr-defined]
        rig.restart()
        rig.feed("send", to_host(mac, 2))
        send_udp(netns, 3)
        got = gather(rig, 3)
    packets = captures.read(out)
    assert [p.data for p in packets if p.direction == OUTBOUND] == [to_host(mac, 1), to_host(mac, 2)]
    assert [p.data for p in packets if p.direction == INBOUND] == got
    assert all(start <= p.ns <= time.time_ns() for p in packets)
    assert {p.interface for p in packets} == {"it"}


@root
def test_a_device_outlives_the_process_and_bears_its_pipelines_mark(netns: str) -> None:
    """A new incarnation finds MAC and addresses; the pipeline's end removes it, another pipeline's or `persist` not."""
    with tap(netns, pipeline="p0") as rig:
        mac = configure(netns)
        os.close(rig.stage._fd)  # type: ignore[attr-defined]
        rig.restart()
        shown = ip("-n", netns, "addr", "show", "t0")
        assert mac.hex(":") in shown
        assert "10.9.0.1" in shown
        assert "alias colo-proxy p0" in ip("-n", netns, "link", "show", "t0")
    fd = open_tap("t0", netns)
    (line,) = ours.remove(rig.params)
    assert line == f"TAP device t0 stays: Device or resource busy; ip -n {netns} link delete t0"
    os.close(fd)
    for params, stays in ({"pipeline": "p1"}, True), ({"persist": True}, True), ({}, False):
        assert list(ours.remove({**rig.params, **params})) == []
        assert ("t0" in ip("-n", netns, "link")) is stays
    assert list(ours.remove(rig.params)) == []
    assert list(ours.remove({**rig.params, "netns": "colo-no-such"})) == []


@root
def test_a_device_that_was_there_is_not_ours_to_remove(netns: str) -> None:
    """Made by root for us, it gets no mark and stays; so does one of that name that bears it but is no TAP device."""
    ip("-n", netns, "tuntap", "add", "dev", "t0", "mode", "tap")
    with tap(netns, pipeline="p0") as rig:
        assert "alias" not in ip("-n", netns, "link", "show", "t0")
    assert list(ours.remove(rig.params)) == []
    assert "t0" in ip("-n", netns, "link")
    ip("-n", netns, "link", "delete", "t0")
    ip("-n", netns, "link", "add", "t0", "type", "bridge")
    ip("-n", netns, "link", "set", "t0", "alias", "colo-proxy p0")
    assert list(ours.remove(rig.params)) == []
    assert "t0" in ip("-n", netns, "link")


@root
def test_a_bridge_gets_the_device(netns: str) -> None:
    """It is put in, taken out of another one, and a bridge that is down is told of."""
    for name in ("br0", "br1"):
        ip("-n", netns, "link", "add", name, "type", "bridge")
    with structlog.testing.capture_logs() as logs, tap(netns, pipeline="p0", bridge="br0") as rig:
        assert "master br0" in ip("-n", netns, "link", "show", "t0")
        (warning,) = [line for line in logs if line["log_level"] == "warning"]
        assert warning["event"] == "the bridge is down: nothing passes it"
        assert warning["mend"] == f"ip -n {netns} link set br0 up"
        ip("-n", netns, "link", "set", "t0", "master", "br1")
        os.close(rig.stage._fd)  # type: ignore[attr-defined]
        rig.restart()
        assert "master br0" in ip("-n", netns, "link", "show", "t0")


@root
def test_a_bridge_that_is_none_is_refused_before_anything_is_made(netns: str) -> None:
    """Missing, or another kind of interface: the mend is said, and no device is left."""
    ip("-n", netns, "link", "add", "br1", "type", "bridge")
    for name, said in ("br0", f"ip -n {netns} link add br0 type bridge"), ("lo", "is no bridge of the system's"):
        with pytest.raises(DeviceError, match=re.escape(said)):
            open_tap("t0", netns, mark="colo-proxy p0", into=name)
        (line,) = preflight.tap({"ifname": "t0", "netns": netns, "vnet_hdr": False, "bridge": name})
        assert said in line
        assert "there are: br1" in line
    assert "t0" not in ip("-n", netns, "link")


@root
def test_a_deleted_device(netns: str) -> None:
    """A device that somebody deletes ends the stage with its name, for the supervisor to start it anew."""
    with tap(netns) as rig:
        ip("-n", netns, "link", "delete", "t0")
        with pytest.raises(DeviceError, match="t0 is gone"):
            rig.run()


@root
def test_errors_say_what_to_do(netns: str) -> None:
    """Names, namespaces, devices in use and other interfaces: each error names its mend, and we are where we were."""
    here = os.readlink("/proc/self/ns/net")
    fd = open_tap("t0", netns)
    try:
        for name, where, said in (
            ("t0", netns, "another process holds it"),
            ("lo", netns, "no TAP device"),
            ("a-name-that-is-too-long", netns, "1 to 15 bytes"),
            ("t0", "colo-no-such", "ip netns add colo-no-such"),
        ):
            with pytest.raises(DeviceError, match=said):
                open_tap(name, where)
    finally:
        os.close(fd)
    assert os.readlink("/proc/self/ns/net") == here


@root
def test_not_root() -> None:
    """Without privileges the error says how to go on."""
    code = (
        "import os\n"
        "from stages.device.netns import DeviceError\n"
        "from stages.device.tap import open_tap\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: open_tap('colo-x0')\n"
        "except DeviceError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
    )
    assert "run as root" in done.stdout, done.stderr


@root
def test_a_ring_with_headers_needs_a_device_with_them(netns: str) -> None:
    """Nobody would do what a header asks (make a checksum, cut a frame): refused before a frame is sent."""
    with tap(netns) as rig:
        rig.rings["send"].w[layout.VNET] = 1
        with pytest.raises(DeviceError, match="vnet_hdr = false"):
            rig.stage.options()


def test_header_length_is_checked() -> None:
    """A header that virtio-net does not have is refused before the device is touched."""
    with pytest.raises(DeviceError, match="10 or 12"):
        open_tap("t0", header=11)
