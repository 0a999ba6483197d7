"""Two hosts behind two veth pairs, joined by a running pipeline: netdev backend packet on both sides."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.device.netns import in_netns
from tests.namespaces import ip, namespace, root
from tests.pipeline.running import PATIENCE_S, Running, until

CONFIG = """
[pipeline]
name = "{name}"
runtime_dir = "{folder}"
ring_size = "1MiB"
[supervisor]
{supervisor}
[netdev.hn0]
network = {{ backend = "packet", ifname = "l0", {more} }}
guest = {{ backend = "packet", ifname = "r0", {more} }}
"""
LEFT, RIGHT = "10.8.0.1", "10.8.0.2"


@pytest.fixture
def hosts() -> Iterator[tuple[str, str, str]]:
    """Namespaces left, middle, right: l1 in the left one, l0 and r0 in the middle, r1 in the right one."""
    with namespace() as left, namespace() as middle, namespace() as right:
        for netns, mine, its, address in ((left, "l0", "l1", LEFT), (right, "r0", "r1", RIGHT)):
            ip("-n", middle, "link", "add", mine, "type", "veth", "peer", "name", its, "netns", netns)
            ip("-n", middle, "link", "set", mine, "up")
            ip("-n", netns, "link", "set", its, "up")
            ip("-n", netns, "addr", "add", f"{address}/24", "dev", its)
        yield left, middle, right


def offloads(hosts: tuple[str, str, str], state: str) -> None:
    """``off``: nobody puts frames together, or leaves it to a card to cut them; ``on``, as it is by itself."""
    left, middle, right = hosts
    for netns, name in ((left, "l1"), (middle, "l0"), (middle, "r0"), (right, "r1")):
        command = ["ip", "netns", "exec", netns, "ethtool", "-K", name, "gro", state, "tso", state, "gso", state]
        subprocess.run(command, check=True, capture_output=True)


def socket_in(netns: str, kind: socket.SocketKind) -> socket.socket:
    """A socket of another host."""
    with in_netns(netns):
        made = socket.socket(socket.AF_INET, kind)
    made.settimeout(PATIENCE_S)
    return made


def ping(left: str, right: str, count: int = 3) -> None:
    """Datagrams there and back; each is repeated until it is answered, as ARP and restarts may cost one."""
    with socket_in(left, socket.SOCK_DGRAM) as near, socket_in(right, socket.SOCK_DGRAM) as far:
        far.bind((RIGHT, 7))
        far.setblocking(False)
        near.connect((RIGHT, 7))
        near.setblocking(False)
        for n in range(count):
            text = b"ping %d" % n

            def answered(text: bytes = text) -> bool:
                # OSError: while nobody answers ARP a host is said to be unreachable.
                with contextlib.suppress(OSError):
                    near.send(text)
                with contextlib.suppress(OSError):
                    while True:
                        far.sendto(*far.recvfrom(100))
                with contextlib.suppress(OSError):
                    while True:
                        if near.recv(100) == text:
                            return True
                return False

            until(answered, "an answer")


def transfer(left: str, right: str, size: int, address: str = RIGHT) -> None:
    """``size`` bytes over TCP to the right and back again."""
    data = os.urandom(size)
    with socket_in(right, socket.SOCK_STREAM) as server, socket_in(left, socket.SOCK_STREAM) as client:
        server.bind((address, 8000))
        server.listen()

        def echo() -> None:
            peer, _ = server.accept()
            with peer:
                got = b""
                while len(got) < size and (part := peer.recv(1 << 16)):
                    got += part
                peer.sendall(got)

        thread = threading.Thread(target=echo)
        thread.start()
        try:
            client.connect((address, 8000))
            client.sendall(data)
            got = b""
            while len(got) < size:
                part = client.recv(1 << 16)
                assert part
                got += part
            assert got == data
        finally:
            client.close()
            thread.join()


@root
@pytest.mark.parametrize(("vnet_hdr", "offload"), [(False, "off"), (False, "on"), (True, "on")])
def test_two_hosts_through_a_pipeline(
    tmp_path: Path, hosts: tuple[str, str, str], vnet_hdr: bool, offload: str
) -> None:
    """ARP, datagrams and a TCP transfer pass; an endpoint that is killed comes back; the summary adds up.

    What comes over the MTU leaves cut, or its header says how: an interface refuses any other frame over the MTU.
    """
    left, middle, right = hosts
    offloads(hosts, offload)
    more = f'netns = "{middle}", vnet_hdr = {str(vnet_hdr).lower()}'
    with Running(tmp_path, more=more, config=CONFIG) as it:
        it.running()
        ping(left, right)
        transfer(left, right, 300_000)
        before = it.status()["counters"]["hn0.network"]
        os.kill(it.stage("hn0.network")["pid"], signal.SIGKILL)
        it.back("hn0.network", 2)
        ping(left, right)
        counters = it.status()["counters"]
        assert counters["hn0.network"]["receive_frames"] > before["receive_frames"]
        assert {c: n for side in counters.values() for c, n in side.items() if c.startswith("dropped_") and n} == {}
        assert counters["hn0.network"]["checksums_finished"] == 0 or not vnet_hdr
        assert (counters["hn0.network"]["received_over_mtu"] > 0) == (offload == "on")
        assert (counters["hn0.network"]["frames_cut"] > 0) == (offload == "on" and not vnet_hdr)
        it.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        assert it.end() == 0
        assert "≠" not in it.out
        assert it.left() == []


@root
def test_an_interface_that_comes_back_late_costs_no_pipeline(tmp_path: Path, hosts: tuple[str, str, str]) -> None:
    """Deleted, and its stage killed on top of it: nobody is given up, `status` says what it waits for, and it goes on.

    The supervisor would allow one restart only.
    """
    left, middle, right = hosts
    policy = "intensity = 1\nperiod_ms = 600000"
    with Running(tmp_path, policy, more=f'netns = "{middle}"', config=CONFIG) as it:
        it.running()
        ping(left, right)
        ip("-n", middle, "link", "delete", "l0")
        until(lambda: any("not connected: packet l0" in why for why in it.status()["reasons"]), "the loss in status")
        os.kill(it.stage("hn0.network")["pid"], signal.SIGKILL)
        until(lambda: "device is not there: waiting for it" in (it.folder / "log").read_text(), "the wait")
        assert it.stage("hn0.network")["state"] == "STARTING"
        ip("-n", middle, "link", "add", "l0", "type", "veth", "peer", "name", "l1", "netns", left)
        ip("-n", middle, "link", "set", "l0", "up")
        ip("-n", left, "link", "set", "l1", "up")
        ip("-n", left, "addr", "add", f"{LEFT}/24", "dev", "l1")
        it.back("hn0.network", 2)
        ping(left, right)
        it.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        assert it.end() == 0
        assert it.left() == []


@root
def test_segments_of_an_overlay(tmp_path: Path, hosts: tuple[str, str, str]) -> None:
    """TCP in VXLAN, put together with its tunnel around it, leaves as packets of the tunnel, each with its own."""
    left, middle, right = hosts
    for netns, name, mine, its, address in ((left, "l1", LEFT, RIGHT, "1"), (right, "r1", RIGHT, LEFT, "2")):
        vxlan = ("type", "vxlan", "id", "7", "local", mine, "remote", its, "dstport", "4789", "dev", name, "udpcsum")
        ip("-n", netns, "link", "add", "x0", *vxlan)
        ip("-n", netns, "addr", "add", f"10.7.0.{address}/24", "dev", "x0")
        ip("-n", netns, "link", "set", "x0", "up")
    with Running(tmp_path, more=f'netns = "{middle}"', config=CONFIG) as it:
        it.running()
        ping(left, right)
        transfer(left, right, 1_000_000, "10.7.0.2")
        for side, counters in it.status()["counters"].items():
            assert {c: n for c, n in counters.items() if c.startswith("dropped_") and n} == {}, side
            assert counters["frames_cut"] > 0, side
