"""Two Linux hosts that offer each other MPTCP, and a pipeline with a mirror between them."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.namespaces import PATIENCE_S, inside, ip, namespace, root
from tests.packets import ACK, SYN, read
from tests.pipeline.running import Running, read_frames

IPPROTO_MPTCP = 262
CONFIG = """
[pipeline]
name = "{name}"
runtime_dir = "{folder}"
ring_size = "256KiB"
[supervisor]
{supervisor}
[chardev.c0]
backend = "socket"
path = "{folder}/c0"
server = true
[netdev.hn0]
network = {{ backend = "tap", ifname = "t0", netns = "NETWORK" }}
guest = {{ backend = "tap", ifname = "t1", netns = "GUEST" }}
[filter.m0]
type = "filter-mirror"
netdev = "hn0"
queue = "tx"
outdev = "c0"
{more}
"""
_COMMON = f"""
import json, socket
IPPROTO_MPTCP, TCP_IS_MPTCP = {IPPROTO_MPTCP}, 43
socket.setdefaulttimeout({PATIENCE_S})
def told(sock):
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, TCP_IS_MPTCP)
    except OSError:
        return 0
sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
"""
# Each says at the end whether the connection is one of MPTCP, and what it was told.
SERVER = (
    _COMMON
    + """
sock.bind(("ADDRESS", 80))
sock.listen()
print("ready", flush=True)
peer, _ = sock.accept()
heard = peer.recv(100).decode()
peer.sendall(b"answer")
print(json.dumps([told(peer), heard]), flush=True)
peer.recv(1)
"""
)
CLIENT = (
    _COMMON
    + """
sock.connect(("ADDRESS", 80))
sock.sendall(b"question")
heard = sock.recv(100).decode()
print(json.dumps([told(sock), heard]), flush=True)
"""
)


def _has_mptcp() -> str:
    """Why this kernel cannot be tried, or nothing."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError as error:
        return f"this kernel opens no MPTCP socket ({errno.errorcode.get(error.errno or 0, error.errno)})"
    return ""


pytestmark = [root, pytest.mark.skipif(bool(_has_mptcp()), reason=_has_mptcp() or "-")]


@pytest.fixture
def hosts() -> Iterator[dict[str, str]]:
    """Two network namespaces, by the side of the netdev that they are on."""
    with namespace() as network, namespace() as guest:
        yield {"network": network, "guest": guest}


def talk(folder: Path, hosts: dict[str, str], opens: str, strip: bool) -> tuple[list[int], list[bytes], int]:
    """A connection that the host ``opens`` opens: what both say of it, frames copied, the mirror's count."""
    config = CONFIG.replace("NETWORK", hosts["network"]).replace("GUEST", hosts["guest"])
    addresses = {"network": "10.9.0.1", "guest": "10.9.0.2"}
    answers = "guest" if opens == "network" else "network"
    with Running(folder, config=config, more=f"strip_mptcp = {str(strip).lower()}") as it:
        it.running()
        for side, device in (("network", "t0"), ("guest", "t1")):
            ip("-n", hosts[side], "addr", "add", f"{addresses[side]}/24", "dev", device)
            ip("-n", hosts[side], "link", "set", device, "up")
        with (
            it.connect("c0") as copies,
            inside(hosts[answers], SERVER.replace("ADDRESS", addresses[answers])) as server,
        ):
            assert server.stdout is not None and server.stdout.readline() == "ready\n"
            with inside(hosts[opens], CLIENT.replace("ADDRESS", addresses[answers])) as client:
                assert client.stdout is not None
                said = [json.loads(server.stdout.readline()), json.loads(client.stdout.readline())]
                assert [text for _, text in said] == ["question", "answer"]
            frames: list[bytes] = []
            while not any(read(f).flags & SYN for f in frames):
                frames += read_frames(copies, 1)
        return [is_mptcp for is_mptcp, _ in said], frames, int(it.status()["counters"]["m0"]["mptcp_taken_out"])


@pytest.mark.parametrize("opens", ["network", "guest"])
def test_two_hosts_with_mptcp_fall_back_to_tcp(tmp_path: Path, hosts: dict[str, str], opens: str) -> None:
    """Whoever opens it, the connection works, and neither end has an MPTCP connection."""
    said, frames, taken_out = talk(tmp_path, hosts, opens, strip=True)
    assert said == [0, 0] and taken_out >= 1
    for opening in (read(f) for f in frames if read(f).flags & SYN):  # several, where it was sent again
        assert opening.flags & ACK == (0 if opens == "network" else ACK) and 30 not in opening.options


def test_without_the_mirrors_help_they_speak_mptcp(tmp_path: Path, hosts: dict[str, str]) -> None:
    """So the test above is about something."""
    said, frames, taken_out = talk(tmp_path, hosts, "network", strip=False)
    assert said == [1, 1] and taken_out == 0
    assert 30 in next(read(f) for f in frames if read(f).flags & SYN).options
