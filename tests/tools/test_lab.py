"""The lab end to end: real nginx, real curl, the whole pipeline.  Needs root, TAP devices and the Debian packages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def _left(prefix: str) -> list[str]:
    """Whatever of a lab is still on this machine."""
    names = [path.name for path in state.NAMESPACES.glob(f"{prefix}-*")]
    names += [str(path) for path in state.segments(prefix)]
    names += [str(path) for path in (*state.FOLDER.glob(f"{prefix}.*"), *Path("/tmp").glob(f"{prefix}-*"))]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if prefix.encode() in words:
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
    lab = _lab(*SMALL, "--download", "50MB", "--kill", "--json", "--record", str(tmp_path))
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
    lab.communicate(timeout=60)
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
    out, _ = _lab("--remove").communicate(timeout=60)
    assert f"colo-{lab.pid}" not in out
    assert (state.FOLDER / f"colo-{lab.pid}.json").exists()
