"""filter-dump, killed anywhere: no frame lost, none twice, neither on the way nor in the file."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ring import layout
from stages.base import Stage
from stages.capture import reader as captures
from stages.capture import writer
from stages.dump import files as dump_files
from stages.dump import shell
from tests.crash.harness import Outcome, kill_at_every_store
from tests.rig import Rig

FIRST = b"first" * 20
FRAMES = [bytes([n]) * (20 + 7 * n) for n in range(5)]
BACK = [bytes([100 + n]) * 33 for n in range(3)]


def _feed(rig: Rig) -> None:
    rig.feed("tx_in", *FRAMES)
    rig.feed("rx_in", *BACK)


@pytest.mark.parametrize("large", [False, True], ids=["one file", "between two files"])
def test_a_dump_killed_at_any_store_loses_and_repeats_nothing(
    tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever kill -9 strikes a burst, the outputs and the files hold the frames in order, once."""
    monkeypatch.setattr(shell, "new_run", lambda: 7)  # else no two runs would be equal
    numbers = itertools.count()

    def make() -> Rig:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        rig = Rig(
            "filter-dump", {"netdev": "n", "file": str(folder / "d.pcapng"), "file_size": 150 if large else 1 << 20}
        )
        rig.command(layout.CMD_STATUS, 1)
        rig.feed("tx_in", FIRST)  # so that there is a file with something in it
        rig.run()
        assert rig.take("tx_out") == [FIRST]
        return rig

    def check(rig: Rig, outcome: Outcome) -> None:
        assert outcome.frames["tx_out"] == FRAMES
        assert outcome.frames["rx_out"] == BACK
        folder = Path(rig.params["file"]).parent
        aside = sorted(folder.glob("d.*.pcapng"), key=lambda path: int(path.name.split(".")[1]))
        found = [p.data for path in (*aside, folder / "d.pcapng") for p in captures.read(path)]
        assert sorted(found) == sorted([FIRST, *FRAMES, *BACK])
        assert len(aside) == int(large)
        assert [data for data in found if data in FRAMES] == FRAMES
        assert outcome.counters["recorded"] == 9

    assert kill_at_every_store(make, _feed, check=check) > 15


# --- at every call of the system ------------------------------------------------------------------------------------
_CALLS = ("open", "link", "unlink", "rename", "ftruncate", "write", "pread", "close")
_MANY = [n.to_bytes(2, "big") * 3 for n in range(600)]  # three bursts
_OLDER = [b"older %d" % n for n in range(4)]


class _Calls:
    """The module ``os``, whose ``at``-th call of those that matter is another one; with no links, as vfat has none."""

    def __init__(self, at: int, instead: Any, links: bool = True) -> None:
        self.at, self.calls, self._instead, self._links = at, 0, instead, links

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in _CALLS:
            return real

        def call(*args: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                self._instead(name, args)
            if name == "link" and not self._links:
                raise PermissionError("no links here")
            return real(*args, **more)

        return call

    def put(self, patch: Any) -> None:
        """Take the place of the module in whatever writes or moves a dump's files."""
        for module in (dump_files, writer):
            patch(module, "os", self)


def _killed(name: str, args: tuple[Any, ...]) -> None:
    if name == "write":  # half of it is in the file
        os.write(args[0], bytes(args[1])[: len(args[1]) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


class _Killed(Rig):
    """A dump that has frames to move, and whose first processes are killed, each at one call."""

    def __init__(self, params: dict[str, Any], kills: tuple[int, ...], links: bool) -> None:
        self._kills, self._links = kills, links
        self.left: list[int] = []  # how each of them ended: 0, it had nothing more to do
        super().__init__("filter-dump", params)

    def _start(self) -> Stage:
        self.feed("tx_in", *_MANY)
        for at in self._kills:
            pid = os.fork()
            if pid == 0:
                try:
                    _Calls(at, _killed, self._links).put(setattr)
                    self.stage = super()._start()
                    self.run()
                    os._exit(0)
                finally:
                    os._exit(99)
            self.epoch += 1
            self.left.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return super()._start()


def _older(folder: Path, name: str) -> None:
    """Files of an older run: three that were put aside, and its last one."""
    folder.mkdir()
    with Rig("filter-dump", {"netdev": "n", "file": str(folder / name), "file_size": 1}) as rig:
        for frame in _OLDER:
            rig.feed("rx_in", frame)
            rig.run()


def _contents(folder: Path) -> dict[str, list[bytes]]:
    return {path.name: [p.data for p in captures.read(path)] for path in folder.iterdir()}


def _in_order(folder: Path) -> list[bytes]:
    found = _contents(folder)
    names = sorted(found, key=lambda name: int(name.split(".")[1]) if name.count(".") == 2 else 1 << 30)
    return [data for name in names for data in found[name]]


@pytest.mark.parametrize(
    ("name", "keep", "links", "twice"),
    [
        ("d.pcapng", 9, True, True),
        ("d.pcapng", 2, True, False),
        ("d.pcapng", 1, True, False),
        ("d.pcap", 9, False, True),
        ("d.pcap", 3, False, False),
    ],
)
def test_killed_at_any_call_of_the_system_no_packet_is_lost_or_twice(
    tmp_path: Path, name: str, keep: int, links: bool, twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also as the first process starts, and again as the next one mends it: the files are those of a run in peace."""
    folder = tmp_path / "run"
    _older(tmp_path / "older", name)
    params = {"netdev": "n", "file": str(folder / name), "file_size": 1, "files": keep}
    calls = _Calls(0, None, links)
    calls.put(monkeypatch.setattr)

    def run(*kills: int) -> tuple[list[int], dict[str, list[bytes]]]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "older", folder)
        with _Killed(params, kills, links) as rig:
            rig.run()
            assert rig.take("tx_out") == _MANY, kills
            assert rig.counters()["recorded"] == len(_MANY), kills
        return rig.left, _contents(folder)

    _, expected = run()
    assert len(expected) == min(keep, 7)
    everything = _OLDER + _MANY
    found = _in_order(folder)
    assert found == everything[len(everything) - len(found) :]
    total = calls.calls
    for at in range(1, total + 1):
        left, contents = run(at)
        assert left[0] in (-signal.SIGKILL, 0), at
        assert contents == expected, at
        if left == [0]:
            break
        if twice and at % 3 == 0:
            for again in (2, 4, 5, 7, 9):
                assert run(at, again)[1] == expected, (at, again)
    assert at > 25


@pytest.mark.parametrize(("name", "links"), [("d.pcapng", True), ("d.pcap", False)])
def test_whatever_call_of_the_system_fails_costs_a_burst_of_the_dump(
    tmp_path: Path, name: str, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every packet passes; those that count as recorded are in the files, once; older files stay."""
    folder = tmp_path / "run"
    _older(tmp_path / "older", name)

    def fails(name: str, args: tuple[Any, ...]) -> None:
        raise OSError(5, f"{name} failed")

    params = {"netdev": "n", "file": str(folder / name), "file_size": 1, "files": 99}
    at, total = 0, 1
    while at <= total:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "older", folder)
        with monkeypatch.context() as patch:
            calls = _Calls(at, fails, links)
            calls.put(patch.setattr)
            with Rig("filter-dump", params) as rig:
                rig.feed("tx_in", *_MANY)
                for n in range(1, 9):
                    if n == 7 and at == 0:  # so that a failure has a try after it
                        total = calls.calls
                    rig.run(time.monotonic_ns() + n * 6_000_000_000, cycles=1)
                    rig.feed("tx_in", b"burst %d" % n)
                rig.run()
                passed = rig.take("tx_out")
                counters = rig.counters()
        found = _in_order(folder)
        assert found[:4] == _OLDER, at
        assert len(passed) == len(_MANY) + 8
        assert [frame for frame in passed if frame in set(found)] == found[4:], at
        assert counters["recorded"] == len(found) - 4, at
        assert counters["unrecorded"] <= 256, at
        at += 1
    assert total > 40
