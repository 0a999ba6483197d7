"""Finding a pipeline: by its segments, without a connection to anything but its own control socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline import control, known
from ring import layout, segment
from ring.ledger import StageSegment
from tests.pipeline.running import ROOT, Running
from tests.ring.names import fresh


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Running]:
    """A pipeline that runs, in a folder where nobody looks."""
    with Running(tmp_path) as made:
        yield made.running()


def test_a_pipeline_is_found_without_its_runtime_dir(it: Running, capsys: pytest.CaptureFixture[str]):
    """Its segments say where it listens; an unknown name lists it."""
    assert control.main([it.name, "set", "m0", "status=off"]) == 0
    assert control.main(["nix", "status"]) == 2
    assert f"{it.name} (in {it.folder})" in capsys.readouterr().err
    assert control.main(["--runtime-dir", "/tmp", it.name, "status"]) == 2
    assert f"it listens at {it.folder}/{it.name}.sock: leave --runtime-dir /tmp out" in capsys.readouterr().err


def test_a_command_connects_to_one_socket(it: Running, capsys: pytest.CaptureFixture[str]):
    """Others in the folder belong to stages: c0, net and guest see nobody, nor does a foreign one."""
    with closing(socket.socket(socket.AF_UNIX)) as other:
        other.bind(f"{it.folder}/other.sock")
        other.listen(1)
        other.setblocking(False)
        for words in ([it.name, "profile"], ["nix", "profile"], ["--runtime-dir", str(it.folder), "nix", "profile"]):
            control.main(words)
        capsys.readouterr()
        with pytest.raises(BlockingIOError):
            other.accept()
        os.unlink(f"{it.folder}/other.sock")
    counters = it.status()["counters"]
    assert [counters[stage]["connects"] for stage in ("c0", "hn0.network", "hn0.guest")] == [0, 0, 0]


def test_after_the_supervisors_death_the_way_on_is_said(it: Running, capsys: pytest.CaptureFixture[str]):
    """The socket is there, the segments are there: what to type takes them over."""
    pid, segments = it.pid, len(list(Path("/dev/shm").glob(f"{it.name}.*")))
    os.kill(pid, signal.SIGKILL)
    it.end()
    for words in ([it.name, "status"], ["--runtime-dir", str(it.folder), it.name, "status"]):
        assert control.main(words) == 1
        said = capsys.readouterr().err
        assert f"its supervisor (pid {pid}) has died; {segments} segments of it are in /dev/shm" in said
        assert f"python -m pipeline.supervisor {it.config}; to begin anew: the same with --fresh" in said
    for path in Path("/dev/shm").glob(f"{it.name}.*"):
        path.unlink()
    assert control.main(["--runtime-dir", str(it.folder), it.name, "status"]) == 1
    assert "left of a supervisor that has died, and nothing else of it" in capsys.readouterr().err
    it.start().running()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody else")
def test_another_user_is_told_whose_it_is(it: Running):
    """Not that there is no such pipeline."""
    code = (
        "import os, sys; from pipeline import control; control.main(['nix', 'profile']); "  # imports, while it may
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); "
        f"sys.exit(max(control.main([{it.name!r}, 'profile']), "
        f"control.main(['--runtime-dir', {str(it.folder)!r}, {it.name!r}, 'profile'])))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    _nix, mine, folder = done.stderr.splitlines()
    assert mine == f"{it.name}: permission denied: it is a pipeline of root; run this as root (sudo -u root ...)"
    assert folder.startswith(f"{it.name}: permission denied: {it.folder}/{it.name}.sock belongs to root")


def test_what_is_half_made_or_of_somebody_else_says_nothing(monkeypatch: pytest.MonkeyPatch):
    """A first segment without a magic word is passed over; of another user's only root believes anything."""
    name = fresh()
    Path(f"/dev/shm/{name}.s.a").write_bytes(b"")
    made = StageSegment.create(f"{name}.s.b", layout.UNDO)
    made.say_where("/run/x.sock", "/etc/" + "x" * 2000)
    try:
        one = known.known()[name]
        assert (one.control, one.config, one.segments, one.alive, one.readable) == ("/run/x.sock", "", 2, True, True)
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        one = known.known()[name]
        assert (one.control, one.readable) == ("", False)
    finally:
        made.close()
        for end in ("a", "b"):
            segment.unlink(f"{name}.s.{end}")
