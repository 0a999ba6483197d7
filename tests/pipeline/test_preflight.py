"""What cannot get better by itself is looked at before anything is made: one line each, exit status 2."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stages import catalog
from stages.device.tap import open_tap
from tests.namespaces import ip, namespace, root
from tests.pipeline.running import PATIENCE_S, ROOT, Running
from tests.seccomp import REFUSING


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


def started(tmp_path: Path, *before: str, **more: Any) -> tuple[int, list[str], list[str]]:
    """Start a supervisor by the program ``before``: its exit status, its lines, what it left."""
    it = Running(tmp_path)
    done = subprocess.run(
        [*before, sys.executable, "-m", "pipeline.supervisor", str(it.config)],
        cwd=ROOT, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, check=False,
        timeout=PATIENCE_S, **more,
    )  # fmt: skip
    return done.returncode, done.stderr.splitlines(), it.left()


@pytest.mark.parametrize("call", ["pidfd_open", "pidfd_send_signal", "memfd_create"])
def test_a_call_that_a_seccomp_profile_refuses_is_named(tmp_path: Path, call: str):
    """One line with the call and the mend, nothing made: an errno alone says to nobody what to do."""
    code, lines, left = started(tmp_path, sys.executable, "-c", REFUSING, call)
    assert (code, left) == (2, [])
    (line,) = lines
    assert line.startswith(f"cannot start: the system refuses {call}(2): Operation not permitted; a seccomp profile")


@root
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("mount -t tmpfs -o ro x /dev/shm", "cannot start: /dev/shm cannot be written: it is read-only"),
        ("mount -t tmpfs x /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9", "/dev/shm is not there: mount"),
        ("mount -t tmpfs x /proc", "cannot start: /proc is not there: stages wake each other through it; mount"),
    ],
)
def test_mounts_that_are_missing_or_read_only_are_named(tmp_path: Path, script: str, said: str):
    """What a container or a chroot may lack."""
    before = ("unshare", "--mount", "sh", "-c", f'{script} && exec "$@"', "sh")
    code, lines, left = started(tmp_path, *before)
    assert (code, left) == (2, [])
    (line,) = lines
    assert said in line


def test_a_limit_of_the_size_of_files_is_named(tmp_path: Path):
    """It holds for shared memory, too: there is room, and the system says that the file is too large."""
    least = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # noqa: E731
    code, lines, left = started(tmp_path, preexec_fn=least)
    assert (code, left) == (2, [])
    (line,) = lines
    assert "266,240 bytes needed, and no file may be so large; ulimit -f unlimited" in line
