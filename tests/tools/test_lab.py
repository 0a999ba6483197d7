"""The lab end to end: real nginx, real curl, the whole pipeline.  Needs root, TAP devices and the Debian packages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.capture import reader as captures
from tests import packets
from tests.oracle.rewriter import serial
from tools.lab import host, state

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--requests", "30", "--download", "5MB", "--upload", "500KB")


def _missing() -> str:
    try:
        host.require_root()
        host.require_programs()
        host.run("ip", "netns", "add", f"colo-probe-{os.getpid()}")
        host.run("ip", "netns", "del", f"colo-probe-{os.getpid()}")
    except host.LabError as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(_missing()), reason=f"no lab on this machine: {_missing()}")


def _lab(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tools.lab", *arguments]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _patient(folder: Path) -> tuple[str, str]:
    """The lab's config, in which no deadline calls a busy machine a difference or a dead stage."""
    text = (ROOT / "examples" / "lab.toml").read_text()
    assert text.index("[compare.comp0]") > max(text.index("[netdev."), text.index("[filter."))  # so its keys are last
    config = folder / "patient.toml"
    config.write_text(f"{text}compare_timeout = 60000\n[supervisor]\nheartbeat_timeout_ms = 60000\n")
    return "--config", str(config)


def _left(prefix: str) -> list[str]:
    """Whatever of a lab is still on this machine."""
    own = re.compile(rb"%b(?!\d)" % prefix.encode())  # colo-12 is not colo-123
    names = [path.name for path in state.NAMESPACES.glob(f"{prefix}-*")]
    names += [str(path) for path in state.segments(prefix)]
    names += [str(path) for path in (*state.FOLDER.glob(f"{prefix}.*"), *Path("/tmp").glob(f"{prefix}-*"))]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if own.search(words):
            names.append(f"{process.name}: {words!r}")
    return names


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Labs that a test starts; what it leaves is removed, and fails it."""
    labs: list[subprocess.Popen[str]] = []
    yield labs
    for process in labs:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=120)
    left = [name for process in labs for name in _left(f"colo-{process.pid}")]
    state.remove_leftovers()
    assert not left


def test_real_traffic_passes_kills_and_each_lie_is_explained(started: list, tmp_path: Path) -> None:
    """Right bytes, both replicas answer, kills cost nothing, three differences are explained, the books balance."""
    # Large, so that a download is still under way when its stage is killed.
    lab = _lab(*SMALL, *_patient(tmp_path), "--download", "50MB", "--kill", "--json", "--record", str(tmp_path))
    started.append(lab)
    out, told = lab.communicate(timeout=900)
    assert lab.returncode == 0, told
    data = json.loads(out)
    assert data["ok"]
    assert all(check["ok"] for check in data["checks"])
    assert data["figures"]["requests"] == 1 + 3 * 30 + 1 + 1 + 7 + 3
    assert data["figures"]["divergences"] >= 3
    assert data["figures"]["checkpoints asked"] >= 3
    for role in ("client", "primary", "secondary"):
        # The magic number of a section header block: draft-ietf-opsawg-pcapng, section 4.1.
        assert (tmp_path / f"{role}.pcapng").read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"


def _segments(file: Path) -> list[packets.Packet]:
    """The TCP segments of a capture, whose checksums must all be right."""
    frames = [packet.data for packet in captures.read(file)]
    assert not any(packets.checksum_faults(frame) for frame in frames)
    return [p for p in map(packets.read, frames) if p.proto == packets.P_TCP]


def _blocks(segment: packets.Packet) -> list[tuple[int, int]]:
    """The SACK blocks of a segment."""
    data = segment.options.get(5, b"")
    edges = [int.from_bytes(data[i : i + 4], "big") for i in range(0, len(data), 4)]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _acknowledged_but_never_sent(segments: list[packets.Packet], host: str) -> tuple[int, list[packets.Packet]]:
    """How many SACK blocks ``host`` got, and the segments that it got whose ack or block is beyond what it had sent."""
    sent: dict[tuple[int, int], int] = {}
    blocks, wrong = 0, []
    for p in segments:
        if p.src == host:
            end = (p.seq + len(p.payload) + bool(p.flags & packets.SYN) + bool(p.flags & packets.FIN)) % packets.MOD
            before = sent.get((p.sport, p.dport))
            if before is None or p.flags & packets.SYN or serial(end, before) > 0:
                sent[p.sport, p.dport] = end
        elif p.flags & packets.ACK and (end := sent.get((p.dport, p.sport), -1)) >= 0:
            edges = [right for _, right in _blocks(p)]
            blocks += len(edges)
            if any(serial(number, end) > 0 for number in (p.ack, *edges)):
                wrong.append(p)
    return blocks, wrong


def test_under_loss_and_reordering_both_replicas_stay_in_step(started: list, tmp_path: Path) -> None:
    """1 % lost and 1 % reordered, timestamps and SACK on: right bytes, right checksums, no difference but the wanted.

    The captures stand where the pipeline meets each host, so the secondary's shows what the rewriter has made: every
    number that it is sent is one that it has sent itself.
    """
    wire = (*_patient(tmp_path), "--loss", "1%", "--reorder", "1%", "--delay", "2ms", "--seed", "11")
    lab = _lab("--requests", "15", "--download", "6MB", "--upload", "1MB", *wire, "--json", "--record", str(tmp_path))
    started.append(lab)
    out, told = lab.communicate(timeout=900)
    assert lab.returncode == 0, told
    data = json.loads(out)
    figures = data["figures"]
    assert figures["divergences"] == 3
    for way in ("egress", "ingress"):
        counts = dict(reversed(part.split()) for part in figures[f"the client's {way}"].split(", "))
        assert int(counts["lost"]) > 0
        assert int(counts["early"]) > 0
    for role, host_address in (("client", "10.77.0.1"), ("primary", "10.77.0.2"), ("secondary", "10.77.0.2")):
        segments = _segments(tmp_path / f"{role}.pcapng")
        blocks, wrong = _acknowledged_but_never_sent(segments, host_address)
        assert blocks > 10
        assert not wrong, role
        assert all(8 in p.options for p in segments if not p.flags & (packets.SYN | packets.RST))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["Namespaces", "two nginx", "the pipeline is ready", "a keep-alive series"])
def test_a_signal_at_any_step_leaves_nothing(started: list, number: signal.Signals, moment: str) -> None:
    """Ctrl-C and SIGTERM: the exit status says which, and all is removed (the fixture looks)."""
    lab = _lab(*SMALL)
    started.append(lab)
    for line in lab.stdout:
        if moment in line:
            break
    lab.send_signal(number)
    _, told = lab.communicate(timeout=120)
    assert lab.returncode == 128 + number, told


def test_an_error_on_the_way_leaves_nothing(started: list, tmp_path: Path) -> None:
    """A pipeline that cannot start: its own words are shown."""
    config = tmp_path / "lab.toml"
    example = (ROOT / "examples" / "lab.toml").read_text()
    config.write_text(
        example.replace('netns = "colo-lab-primary", ifname = "colo0"', 'netns = "colo-lab-primary", ifname = "lo"')
    )
    lab = _lab(*SMALL, "--config", str(config))
    started.append(lab)
    told, _ = lab.communicate(timeout=900)
    assert lab.returncode == 1
    assert "the pipeline" in told


def test_a_killed_labs_leavings_are_removed_later(started: list) -> None:
    """After kill -9 nobody clears up until somebody says --remove."""
    lab = _lab(*SMALL)
    started.append(lab)
    for line in lab.stdout:
        if "the pipeline is ready" in line:
            break
    lab.kill()
    lab.communicate(timeout=120)
    prefix = f"colo-{lab.pid}"
    assert _left(prefix)
    remover = _lab("--remove")
    out, _ = remover.communicate(timeout=120)
    assert remover.returncode == 0
    assert prefix in out
    assert not _left(prefix)


def test_a_running_lab_is_not_removed(started: list) -> None:
    """--remove takes the dead and the kept only."""
    lab = _lab(*SMALL)
    started.append(lab)
    for line in lab.stdout:
        if "two nginx" in line:
            break
    out, _ = _lab("--remove").communicate(timeout=120)
    assert f"colo-{lab.pid}" not in out
    assert (state.FOLDER / f"colo-{lab.pid}.json").exists()
