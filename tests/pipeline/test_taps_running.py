"""TAP devices of a running pipeline: what kill -9 leaves of them, and what an end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.device import links
from stages.device.netns import in_netns
from tests.namespaces import ip, namespace
from tests.pipeline.running import Running, gone, until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/net/tun"),
    reason="TAP devices and namespaces need root and /dev/net/tun",
)
CONFIG = """
[pipeline]
name = "{name}"
runtime_dir = "{folder}"
ring_size = "256KiB"
[supervisor]
{supervisor}
[netdev.hn0]
network = {{ backend = "tap", ifname = "t0", {more} }}
"""


@pytest.fixture
def netns() -> Iterator[str]:
    """A namespace with a bridge that is up."""
    with namespace() as name:
        ip("-n", name, "link", "add", "br0", "type", "bridge")
        ip("-n", name, "link", "set", "br0", "up")
        yield name


def device(netns: str) -> tuple[str, str, str]:
    """The line of the device, with its MAC address; its IPv4 addresses; the bridge's ports."""
    with in_netns(netns):
        assert links.find("t0") is not None
    link = ip("-n", netns, "-o", "link", "show", "t0").split("link/ether ")[1].split()[0]
    return (
        link,
        ip("-n", netns, "-4", "-o", "addr", "show", "t0"),
        ip("-n", netns, "-br", "link", "show", "master", "br0"),
    )


def running(folder: Path, netns: str, more: str = "") -> Running:
    """A pipeline whose TAP device is in the namespace's bridge."""
    return Running(folder, more=f'netns = "{netns}", bridge = "br0"{more}', config=CONFIG)


def exists(netns: str) -> bool:
    """Whether there is the device."""
    return "t0:" in ip("-n", netns, "link")


def test_kills_leave_the_device_as_it_was_and_the_end_removes_it(tmp_path: Path, netns: str):
    """A stage's, then the supervisor's: MAC, address, bridge; the next supervisor takes it over and removes it."""
    it = running(tmp_path, netns)
    with it:
        it.running()
        ip("-n", netns, "addr", "add", "10.9.0.1/24", "dev", "t0")
        before = device(netns)
        assert "10.9.0.1" in before[1]
        assert before[2].startswith("t0 ")
        os.kill(it.pids()["hn0.network"], signal.SIGKILL)
        it.back("hn0.network", 2)
        assert device(netns)[:2] == before[:2]
        assert device(netns)[2].startswith("t0 ")
        pids = it.pids()
        assert it.process is not None
        it.process.kill()
        it.process.wait()
        assert it.process.stdout is not None
        it.process.stdout.close()
        until(lambda: all(gone(pid) for pid in pids.values()), "its stages are gone")
        assert device(netns)[:2] == before[:2]
        it.start().running()
        assert "taking over from a dead supervisor" in it.text()
        assert device(netns)[:2] == before[:2]
        assert device(netns)[2].startswith("t0 ")
        assert it.ask("restart", id="hn0.network")["ok"]
        assert device(netns)[:2] == before[:2]
        assert it.ask("stop")["ok"]
        assert it.end() == 0
    assert not exists(netns)


def test_persist_and_a_device_that_was_there_stay(tmp_path: Path, netns: str):
    """Each stays in the bridge when the pipeline has ended."""
    for n, more in enumerate((", persist = true", "")):
        folder = tmp_path / str(n)
        folder.mkdir()
        with running(folder, netns, more) as it:
            it.running()
        assert device(netns)[2].startswith("t0 ")
        if more:
            ip("-n", netns, "link", "delete", "t0")
            ip("-n", netns, "tuntap", "add", "dev", "t0", "mode", "tap")


def test_no_such_bridge_is_said_before_anything_is_made(tmp_path: Path, netns: str):
    """Exit status 2 and the mend."""
    ip("-n", netns, "link", "delete", "br0")
    with running(tmp_path, netns) as it:
        assert it.end() == 2
        assert f"cannot start: hn0.network: there is no bridge br0 in {netns}; there are: none" in it.text()
        assert f"(ip -n {netns} link add br0 type bridge; ip -n {netns} link set br0 up)" in it.text()
    assert not exists(netns)
