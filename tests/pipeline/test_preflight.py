"""What cannot get better by itself is looked at before anything is made: one line each, exit status 2."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stages import catalog
from stages.device.tap import open_tap
from tests.namespaces import ip, namespace
from tests.pipeline.running import Running


def said(kind: str, **params: Any) -> list[str]:
    """What a kind says of parameters."""
    address = {"host": None, "port": None, "path": None, "server": True}
    device: Mapping[str, Any] = {"netns": None, "vnet_hdr": False, "bridge": None}
    return list(catalog.kind(kind).preflight({**address, **device, **params}))


def test_a_pipeline_that_cannot_start_says_why_and_makes_nothing(tmp_path: Path):
    """Two servers whose places are taken: two lines, no segment, no control socket, no process."""
    (tmp_path / "net").write_text("a file")
    with closing(socket.socket(socket.AF_UNIX)) as taken:
        taken.bind(f"{tmp_path}/c0")
        taken.listen(1)
        with Running(tmp_path) as it:
            assert it.end() == 2
            assert [line for line in it.text().splitlines() if line] == [
                f"cannot start: c0: somebody listens at {tmp_path}/c0: ss -lxp says who",
                f"cannot start: hn0.network: {tmp_path}/net exists and is no socket",
            ]
            assert it.left() == ["c0"]
        taken.setblocking(False)
        with pytest.raises(BlockingIOError):
            taken.accept()  # it was not connected to
        os.unlink(f"{tmp_path}/c0")


def test_a_port_in_use_and_one_that_is_free():
    """Looking takes nothing away: the free one is free after it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        (line,) = said("chardev-socket", host="127.0.0.1", port=port)
        assert line == f"port {port} of 127.0.0.1 is in use: ss -ltnp 'sport = :{port}' says by whom"
        assert said("chardev-socket", host="127.0.0.1", port=port, server=False) == []
    for _ in range(2):
        assert said("netdev-stream", host="127.0.0.1", port=port) == []


def test_what_may_come_is_waited_for(tmp_path: Path):
    """A folder that is not there, an address of another machine, a name; a socket that a dead server left."""
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(f"{tmp_path}/dead")
    assert said("chardev-socket", path=f"{tmp_path}/dead") == []
    assert said("chardev-socket", path=f"{tmp_path}/none/s") == []
    assert said("chardev-socket", host="203.0.113.1", port=9) == []
    assert said("chardev-socket", host="no-such-host.invalid", port=9) == []
    os.unlink(f"{tmp_path}/dead")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_devices_that_cannot_be_had():
    """No such namespace, no such interface, one that is no TAP device."""
    for kind in ("netdev-tap", "netdev-packet"):
        (line,) = said(kind, ifname="x0", netns="no-such-netns")
        assert "network namespace /run/netns/no-such-netns: No such file or directory" in line
    (line,) = said("netdev-packet", ifname="no-such-if0")
    assert line.startswith("there is no interface no-such-if0; there are: ")
    if os.path.exists("/dev/net/tun"):
        (line,) = said("netdev-tap", ifname="lo")
        assert "lo is no TAP device" in line
        assert said("netdev-tap", ifname="colo-free0") == []
        assert "colo-free0" not in [name for _, name in socket.if_nameindex()]
        with namespace() as netns:
            fd = open_tap("held0", netns)
            (line,) = said("netdev-tap", ifname="held0", netns=netns)
            assert line == "TAP device held0: another process holds it: stop that one, or choose another ifname"
            os.close(fd)
            ip("-n", netns, "link", "add", "down0", "type", "veth", "peer", "name", "down1")
            (line,) = said("netdev-packet", ifname="down0", netns=netns)
            assert line == f"interface down0 is down; ip -n {netns} link set down0 up"
