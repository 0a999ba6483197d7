"""Converted configs at work: both sides of the documentation's example pass packets; a running QEMU is converted."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.config import load, parse
from stages.device.netns import in_netns
from tests.namespaces import namespace, root
from tests.packets import udp_frame
from tests.pipeline.running import PATIENCE_S, Running, frame, read_frames, until
from tools import qemu
from tools.from_qemu.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
INPUTS = Path(__file__).with_name("from_qemu")
ASKS = udp_frame("10.0.0.9", "10.0.0.1", 40000, 53, b"a question")
ANSWER = udp_frame("10.0.0.1", "10.0.0.9", 53, 40000, b"the same answer")
LATER = udp_frame("10.0.0.1", "10.0.0.9", 53, 40000, b"the answer after that")
needs_qemu = pytest.mark.skipif(not qemu.available(), reason=f"needs Debian's package {qemu.PACKAGE}")


def _convert(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.from_qemu", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Four TCP ports, kept for the test by sockets that do not listen (SO_REUSEADDR lets its servers in, socket(7))."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(4)]
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
        yield [sock.getsockname()[1] for sock in socks]


def _side(source: Path, line: int, side: str, folder: Path, netns: str) -> Running:
    """The pipeline of the command line in which that line stands, its TAP device in a namespace of its own."""
    folder.mkdir()
    made = Running(folder, config="")
    made.config.unlink()
    words = ["--line", str(line), "--name", made.name, "--runtime", str(folder), "--replace-host", "3.3.3.3=127.0.0.1"]
    done = _convert(*words, str(source), "-o", str(made.config))
    assert done.returncode == (1 if side == "primary" else 0), done.stderr
    text = made.config.read_text()
    assert text.count('ifname = "colo0"') == 1
    text = text.replace('ifname = "colo0"', f'ifname = "colo0", netns = "{netns}"')
    made.config.write_text(text.replace("[pipeline]\n", '[pipeline]\nring_size = "256KiB"\n'))
    return made


@contextlib.contextmanager
def _tap(netns: str) -> Iterator[socket.socket]:
    """What the network sends to a TAP device, and gets from it."""
    with in_netns(netns):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.bind(("colo0", 0))
    with sock:
        yield sock


def _received(sock: socket.socket, seconds: float) -> list[bytes]:
    """UDP frames that came out of a TAP device, until none came for so long; what was sent into it is no answer."""
    found = []
    while select.select([sock], [], [], seconds)[0]:
        data, (_, _, kind, *_) = sock.recvfrom(65536)
        if kind != socket.PACKET_OUTGOING and data[12:14] == b"\x08\x00":
            found.append(data)
    return found


def _until_frames(sock: socket.socket, count: int) -> list[bytes]:
    got: list[bytes] = []
    until(lambda: got.extend(_received(sock, 0.02)) or len(got) >= count, "frames out of the TAP device")
    return got


def _links_up(*sides: Running) -> Callable[[], bool]:
    def up() -> bool:
        stages = [stage for side in sides for stage in side.status().get("stages", [])]
        # A compare's first packet of the primary waits for who is connected as the secondary.
        return bool(stages) and all(not stage["link"] for stage in stages)

    return up


@root
@pytest.mark.parametrize(
    ("file", "lines"),
    [
        ("usage-2016.diff", (2, 16)),
        ("usage-now.txt", (2, 17)),
        ("usage-now.txt", (26, 40)),
        ("typed-2020.txt", (5, 40)),
        ("typed-now.txt", (5, 40)),
    ],
    ids=[
        "usage of 2016",
        "usage of today",
        "usage with virtio-net headers",
        "procedure of QEMU 5",
        "procedure of today",
    ],
)
def test_both_sides_of_an_example_pass_a_packet_and_release_equal_answers_once(
    tmp_path: Path, ports: list[int], file: str, lines: tuple[int, int]
) -> None:
    text = (INPUTS / file).read_text()
    for old, new in zip(("9003", "9004", "9001", "9005"), ports, strict=True):
        text = text.replace(f"port={old}", f"port={new}")
    source = tmp_path / "lines"
    source.write_text(text)
    with namespace() as here, namespace() as there:
        primary = _side(source, lines[0], "primary", tmp_path / "p", here)
        secondary = _side(source, lines[1], "secondary", tmp_path / "s", there)
        with primary, secondary:
            primary.running()
            secondary.running()
            with (
                primary.connect(f"{primary.name}-hn0.sock") as guest,
                secondary.connect(f"{secondary.name}-hn0.sock") as twin,
                _tap(here) as client,
                _tap(there) as nobody,
            ):
                until(_links_up(primary, secondary), "all links are up")
                client.send(ASKS)
                assert read_frames(guest, 1) == [ASKS]
                assert read_frames(twin, 1) == [ASKS]
                guest.sendall(frame(ANSWER))
                assert _received(client, 0.2) == []  # held until the secondary says the same
                twin.sendall(frame(ANSWER))
                assert _until_frames(client, 1) == [ANSWER]
                twin.sendall(frame(LATER))
                guest.sendall(frame(LATER))
                assert _until_frames(client, 1) == [LATER]
                assert _received(client, 0.1) == _received(nobody, 0.1) == []
        assert primary.left() == secondary.left() == []


@needs_qemu
@pytest.mark.parametrize("listens", [False, True], ids=["pipeline listens", "qemu listens"])
def test_a_running_qemu_is_converted_and_its_new_command_line_joins_the_pipeline(tmp_path: Path, listens: bool) -> None:
    """QEMU with filters runs; --pid makes the config; QEMU with the new options and the pipeline do the same.

    A QEMU 7.2 that listens gets its guest back after the guest's stage was killed.
    """
    with qemu.filters(["filter-mirror,id=m0,queue=tx,outdev=mirror0"], ["mirror0"]) as q:
        q.links["net"].send(ASKS)
        assert q.links["mirror0"].take(1) == [ASKS]
        made = Running(tmp_path, config="")
        made.config.unlink()
        words = ["--name", made.name, "--runtime", str(tmp_path), "--qemu-out", str(tmp_path / "qemu.sh")]
        words += ["--qemu-listens"] if listens else []
        done = _convert("--pid", str(q.pid), *words, "-o", str(made.config))
        assert done.returncode == 0, done.stderr
        assert f"Process {q.pid} still has its sockets" in done.stderr
        folder = q._folder.name
    got = load(made.config)
    assert [got.chardevs["mirror0"].path, got.netdevs["net"].network.path] == [f"{folder}/mirror0", f"{folder}/net"]
    config = made.config.read_text().replace(folder, str(tmp_path))
    made.config.write_text(config.replace("[pipeline]\n", '[pipeline]\nring_size = "256KiB"\n'))
    line = (tmp_path / "qemu.sh").read_text().replace(folder, str(tmp_path))
    assert "filter-mirror" not in line and "-chardev" not in line and "id=h1,hubid=0,netdev=guest" in line
    with made, _shell(line, tmp_path) if made.running() else contextlib.nullcontext():
        net, mirror = made.connect("net"), made.connect("mirror0")
        guest = qemu.connect("guest", tmp_path / "guest")
        with net, mirror, contextlib.closing(guest):
            until(_links_up(made), "all links are up")
            net.sendall(frame(ASKS))
            assert read_frames(mirror, 1) == [ASKS]
            assert guest.take(1) == [ASKS]
            guest.send(ANSWER)
            assert read_frames(net, 1) == [ANSWER]
            if listens:
                os.kill(made.stage("net.guest")["pid"], signal.SIGKILL)
                made.back("net.guest", 2)
                until(lambda: (net.sendall(frame(LATER)), guest.take(1, 0.2))[1] == [LATER], "the guest is back")
    for name in ("guest", "qmp", f"{made.name}-net.sock"):
        (tmp_path / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _shell(line: str, folder: Path) -> Iterator[None]:
    """A command line as a user would copy it into a shell."""
    with (folder / "qemu.log").open("wb") as log:
        command = "\n".join(words for words in line.splitlines() if not words.startswith("#"))  # or it ends sh alone
        process = subprocess.Popen(["sh", "-c", f"exec {command}"], stdout=log, stderr=log)
    try:
        yield
        assert process.poll() is None, (folder / "qemu.log").read_text()
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@root
@needs_qemu
def test_the_name_of_a_running_qemus_tap_device_is_found(tmp_path: Path) -> None:
    with namespace() as netns:
        words = ["ip", "netns", "exec", netns, qemu.binary(), "-machine", "none", "-nodefaults", "-display", "none"]
        words += ["-netdev", "tap,id=hn0,script=no,downscript=no"]
        words += ["-chardev", "socket,id=c0,path=c0,server=on,wait=off"]
        words += ["-object", "filter-mirror,id=m0,netdev=hn0,queue=tx,outdev=c0"]
        with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
            try:
                until(lambda: (tmp_path / "c0").exists() or process.poll() is not None, "QEMU listens")
                assert process.poll() is None
                done = _convert("--pid", str(process.pid))
            finally:
                process.kill()
        (tmp_path / "c0").unlink()
    assert done.returncode == 0, done.stderr
    got = parse(done.stdout)
    assert re.fullmatch(r"tap\d+", got.netdevs["hn0"].network.ifname)
    assert got.chardevs["c0"].path == str(tmp_path / "c0")


@root
def test_of_another_users_process_it_is_said_that_its_tap_device_is_not_seen(capsys) -> None:
    """Its command line is for everybody, its open files are not: a name that was guessed would be the wrong one."""
    words = (
        "-netdev tap,id=hn0,script=no -chardev socket,id=c0,path=/c0 -object filter-mirror,id=m0,netdev=hn0,outdev=c0"
    )
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", *words.split()]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        until(lambda: b"hn0" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), "it is that program")
        try:
            os.seteuid(65534)
            status = main(["--pid", str(process.pid)])
        finally:
            os.seteuid(0)
            process.communicate()
    assert status == 1
    assert "only QEMU's user and root may see which TAP device it has" in capsys.readouterr().err


def test_a_process_that_is_no_qemu_is_called_by_its_name(capsys) -> None:
    assert main(["--pid", str(os.getpid())]) == 2
    assert "without a filter or colo-compare; give a QEMU that has some" in capsys.readouterr().err


def test_a_process_that_is_none_is_one_clear_line() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    done = _convert("--pid", str(process.pid))
    assert done.returncode == 2
    assert done.stderr.startswith(f"from_qemu: process {process.pid}") and done.stderr.count("\n") == 1
    done = _convert("--pid", str(1 << 40))
    assert done.returncode == 2
    assert _convert("--pid", "1").returncode == 2  # whatever it is, it is no QEMU
