"""filter-dump: what passes is in its file, whatever happens to the stage; what happens to the file costs no packet."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ring import layout
from stages.capture import reader as captures
from stages.capture import writer
from stages.capture.reader import INBOUND, OUTBOUND
from stages.dump import files as dump_files
from tests.rig import Rig

PORTS = {"tx_in": ("tx_out", INBOUND), "rx_in": ("rx_out", OUTBOUND)}


class Altered:
    """The module ``os`` with other functions in it."""

    def __init__(self, **functions: Any) -> None:
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def rig(file: Path, **params: Any) -> Rig:
    return Rig("filter-dump", {"netdev": "hn0", "file": str(file), **params})


def recorded(file: Path) -> list[tuple[bytes, int]]:
    """Frames of a file with their directions."""
    return [(p.data, p.direction) for p in captures.read(file)]


def balanced(g: Rig) -> dict[str, int]:
    """The counters, which add up."""
    counters = g.counters()
    for law in g.kind.balances:
        assert sum(counters[name] for name in law.left) == sum(counters[name] for name in law.right), law.label
    return counters


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(list(PORTS)), st.lists(st.binary(max_size=90), min_size=1, max_size=4)),
        st.tuples(st.just("status"), st.booleans()),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, vnet=st.booleans())
def test_every_frame_goes_on_and_is_in_the_file_in_order(tmp_path: Path, steps: Any, vnet: bool) -> None:
    """Both ways, on and off, over restarts: each direction's frames, once; with V the header is not in the file."""
    file = tmp_path / f"{os.urandom(4).hex()}.pcapng"
    out: dict[str, list[bytes]] = {port: [] for port, _ in PORTS.values()}
    want: dict[int, list[bytes]] = {INBOUND: [], OUTBOUND: []}
    on = True
    names = tuple(name for port in PORTS for name in (port, PORTS[port][0]))
    with Rig("filter-dump", {"netdev": "n", "file": str(file)}, vnet=names if vnet else ()) as g:
        g.command(layout.CMD_STATUS, 1)
        for what, value in steps:
            if what == "restart":
                g.restart()
            elif what == "status":
                on = value
                g.command(layout.CMD_STATUS, int(value))
            else:
                target, direction = PORTS[what]
                g.feed(what, *value)
                g.run()
                out[target] += value
                want[direction] += value if on else []
        assert {port: g.take(port) for port in out} == out
        balanced(g)
    found = recorded(file)
    assert {way: [data for data, direction in found if direction == way] for way in want} == want


def test_long_frames_are_cut_and_their_length_is_noted(tmp_path: Path) -> None:
    """``maxlen`` bytes are kept; what follows in the file stays readable; what leaves is whole."""
    for name in ("d.pcapng", "d.pcap"):
        with rig(tmp_path / name, maxlen=61) as g:
            g.command(layout.CMD_STATUS, 1)
            frames = [bytes([n % 256]) * n for n in (10, 61, 62, 1500)]
            g.feed("tx_in", *frames)
            g.run()
            assert g.take("tx_out") == frames
        found = captures.read(tmp_path / name, cut=True)
        assert [p.data for p in found] == [frame[:61] for frame in frames]
        assert [p.missing for p in found] == [0, 0, 1, 1439]


def test_a_large_file_is_put_aside_and_the_oldest_go(tmp_path: Path) -> None:
    """Together the files hold the newest frames without a hole, and there are no more of them than were asked for."""
    file = tmp_path / "d.pcapng"
    frames = [n.to_bytes(4, "big") * 250 for n in range(5_000)]
    with rig(file, file_size=1 << 20, files=3) as g:
        g.command(layout.CMD_STATUS, 1)
        for at in range(0, len(frames), 50):
            g.feed("tx_in", *frames[at : at + 50])
            g.run()
            assert g.take("tx_out") == frames[at : at + 50]
            if at == 2_500:
                g.restart()
        assert balanced(g)["recorded"] == len(frames)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["d.3.pcapng", "d.4.pcapng", "d.pcapng"]
    found = [p.data for name in names for p in captures.read(tmp_path / name)]
    assert found == frames[len(frames) - len(found) :]
    assert len(found) > 2_000
    for name in names[:2]:
        assert 1 << 20 <= (tmp_path / name).stat().st_size < (1 << 20) + 60_000


def test_what_an_older_run_left_is_put_aside(tmp_path: Path) -> None:
    """Its last file keeps its frames under the next free number; a file that is empty is simply used."""
    file = tmp_path / "d.pcapng"
    for run in range(3):
        with rig(file) as g:
            g.command(layout.CMD_STATUS, 1)
            g.feed("rx_in", b"run %d" % run)
            g.run()
    assert recorded(file) == [(b"run 2", OUTBOUND)]
    assert [recorded(tmp_path / f"d.{n}.pcapng") for n in (1, 2)] == [[(b"run %d" % n, OUTBOUND)] for n in range(2)]


def test_a_file_that_cannot_be_written_costs_no_packet(tmp_path: Path) -> None:
    """One line says so; packets pass and are counted; after a while it is tried again, and said."""
    folder = tmp_path / "gone"
    folder.mkdir()
    with rig(folder / "d.pcapng") as g, capture_logs() as logs:
        g.command(layout.CMD_STATUS, 1)
        g.stage.log = structlog.get_logger()
        g.feed("tx_in", b"first")
        g.run(now=1)
        present = g.stage._recorder._writer  # type: ignore[attr-defined]
        os.dup2(os.open("/dev/full", os.O_WRONLY), present._fd)
        for n in range(3):
            g.feed("tx_in", b"lost %d" % n)
            g.run(now=2 + n)
        (folder / "d.pcapng").unlink()
        g.feed("tx_in", b"again")
        g.run(now=6_000_000_000)
        assert g.take("tx_out") == [b"first", b"lost 0", b"lost 1", b"lost 2", b"again"]
        counters = balanced(g)
        assert (counters["recorded"], counters["unrecorded"]) == (2, 3)
    told = [line["event"] for line in logs if "dump" in line["event"]]
    assert told == [
        "the dump cannot be written: packets pass without it",
        "the dump's file was cut, removed or replaced: a new one begins",
        "the dump is written again",
    ]
    assert recorded(folder / "d.pcapng") == [(b"again", INBOUND)]


def test_a_full_disk_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is tried again; that it is written is said when something was, and no descriptor is left."""
    full = True

    def write(fd: int, data: Any) -> int:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(fd, data)

    with rig(tmp_path / "d.pcapng") as g, capture_logs() as logs:
        g.stage.log = structlog.get_logger()
        monkeypatch.setattr(writer, "os", Altered(write=write))
        before = os.listdir("/proc/self/fd")
        for n in range(8):
            full = n < 5
            g.feed("tx_in", b"frame %d" % n)
            g.run(now=1 + n * 6_000_000_000)
        assert len(os.listdir("/proc/self/fd")) == len(before)
        counters = balanced(g)
        assert (counters["recorded"], counters["unrecorded"]) == (3, 5)
    told = [line["event"] for line in logs if "dump" in line["event"]]
    assert told == ["the dump cannot be written: packets pass without it", "the dump is written again"]
    assert recorded(tmp_path / "d.pcapng") == [(b"frame %d" % n, INBOUND) for n in (5, 6, 7)]


def test_after_a_failed_start_the_older_file_is_put_aside_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is not tried before its time."""
    file = tmp_path / "d.pcapng"
    with rig(file) as g:
        g.feed("tx_in", b"older")
        g.run()

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EACCES, "not now")

    with monkeypatch.context() as patch:
        patch.setattr(dump_files, "os", Altered(link=refuse, rename=refuse))
        g = rig(file)
    with g:
        g.feed("tx_in", b"too early")
        g.run()
        assert balanced(g)["unrecorded"] == 1
        g.feed("tx_in", b"newer")
        g.run(now=time.monotonic_ns() + 6_000_000_000)
        assert balanced(g)["recorded"] == 1
    assert recorded(file) == [(b"newer", INBOUND)]
    assert recorded(tmp_path / "d.1.pcapng") == [(b"older", INBOUND)]


def _replaced(file: Path) -> None:
    with rig(file.parent / f"other{file.suffix}") as g:
        g.feed("tx_in", *[b"other" * 20] * 20)
        g.run()
    (file.parent / f"other{file.suffix}").replace(file)


def _cut(file: Path) -> None:
    os.truncate(file, os.path.getsize(file) - 3)


@pytest.mark.parametrize("name", ["d.pcapng", "d.pcap"])
@pytest.mark.parametrize("change", [_replaced, _cut], ids=["replaced", "cut"])
def test_a_file_that_somebody_else_put_there_is_put_aside(tmp_path: Path, name: str, change: Any) -> None:
    """While no process of the dump ran: a longer file is not taken for its own, and not a byte of it is written."""
    file = tmp_path / name
    with rig(file) as g, capture_logs() as logs:
        g.feed("tx_in", b"first", b"second")
        g.run()
        change(file)
        there = file.read_bytes()
        g.restart()
        g.feed("tx_in", b"third")
        g.run()
        g.restart()
    (aside,) = tmp_path.glob("d.1.*")
    assert aside.read_bytes() == there
    assert [data for data, _ in recorded(file)] == [b"third"]
    assert [line["event"] for line in logs if "dump" in line["event"]] == [
        "the dump's file was cut, removed or replaced: a new one begins"
    ]


def test_its_own_file_is_known_whatever_its_inode(tmp_path: Path) -> None:
    """A copy in its place, as a restored backup is, is gone on with."""
    file = tmp_path / "d.pcap"
    with rig(file) as g:
        g.feed("tx_in", b"first")
        g.run()
        shutil.copy(file, tmp_path / "copy")
        (tmp_path / "copy").replace(file)
        g.restart()
        g.feed("tx_in", b"second")
        g.run()
    assert [data for data, _ in recorded(file)] == [b"first", b"second"]
    assert [path.name for path in tmp_path.iterdir()] == ["d.pcap"]


@pytest.mark.parametrize("at_first", [True, False])
def test_the_status_of_a_burst_is_read_once(tmp_path: Path, at_first: bool) -> None:
    """Switched between the kernel and the shell: what is counted as recorded is in the file, and nothing else."""
    with rig(tmp_path / "d.pcapng") as g:
        g.command(layout.CMD_STATUS, int(at_first))
        kernel = g.stage.kernel

        def open_and_switch(u8: Any, w: Any, now: int) -> int:
            moved = int(kernel.dump_open(u8, w, now))
            w[layout.CMD_STATUS] = int(not at_first)
            return moved

        g.stage.kernel = SimpleNamespace(dump_open=open_and_switch, dump_commit=kernel.dump_commit)  # type: ignore[assignment]
        g.feed("tx_in", b"one", b"two")
        g.run(cycles=1)
        assert balanced(g)["recorded"] == 2 * at_first
    assert len(recorded(tmp_path / "d.pcapng")) == 2 * at_first


def test_an_old_file_that_cannot_be_removed_is_told_once(tmp_path: Path) -> None:
    """And keeps no other from being put aside or removed."""
    (tmp_path / "d.1.pcapng").mkdir()
    with rig(tmp_path / "d.pcapng", file_size=1, files=2) as g, capture_logs() as logs:
        g.stage.log = structlog.get_logger()
        for n in range(4):
            g.feed("tx_in", b"%d" % n)
            g.run()
        assert balanced(g)["recorded"] == 4
    assert [line["file"] for line in logs if "removed" in line["event"]] == [str(tmp_path / "d.1.pcapng")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.1.pcapng", "d.4.pcapng", "d.pcapng"]
    assert recorded(tmp_path / "d.4.pcapng") == [(b"2", INBOUND)]


@pytest.mark.parametrize(
    ("table", "key", "expected"),
    [
        ("", "file", "the path of a file"),
        ('file = "/nowhere/d.pcapng"', "file", "a folder that is there"),
        ('file = "d.pcapng"\nmaxlen = 0', "maxlen", "from 1 to"),
        ('file = "d.pcapng"\nfile_size = "10KiB"', "file_size", "1MiB"),
        ('file = "d.pcapng"\noutdev = "x"', "outdev", "belongs to"),
    ],
)
def test_mistakes_in_its_table_are_named(tmp_path: Path, table: str, key: str, expected: str) -> None:
    """As those of any filter."""
    from pipeline.config import ConfigError, parse

    text = f'[pipeline]\nname = "t"\n[netdev.n]\n[filter.d0]\ntype = "filter-dump"\nnetdev = "n"\n{table}\n'
    with pytest.raises(ConfigError) as wrong:
        parse(text, tmp_path / "config.toml")
    (mistake,) = wrong.value.mistakes
    assert mistake.path == f"filter.d0.{key}"
    assert expected in mistake.expected


def test_two_cannot_write_one_file(tmp_path: Path) -> None:
    """Nor can a dump write a capture that is replayed."""
    from pipeline.config import ConfigError, parse

    (tmp_path / "in.pcap").write_bytes(b"")
    text = (
        '[pipeline]\nname = "t"\n[netdev.n]\nnetwork = { backend = "pcap", read = "in.pcap" }\n'
        + "".join(f'[filter.d{n}]\ntype = "filter-dump"\nnetdev = "n"\nfile = "x.pcapng"\n' for n in range(2))
        + '[filter.d2]\ntype = "filter-dump"\nnetdev = "n"\nfile = "in.pcap"\n'
    )
    with pytest.raises(ConfigError) as wrong:
        parse(text, tmp_path / "config.toml")
    assert {m.path for m in wrong.value.mistakes} == {"filter.d1.file", "netdev.n.network.read"}


@pytest.mark.parametrize(
    ("file", "side", "bad"),
    [
        ("d.1.pcapng", "", {"filter.d1.file"}),
        ("sub/../d.20261128.pcapng", "", {"filter.d1.file"}),
        ("x.pcapng", 'write = "d.3.pcapng"', {"netdev.n.network.write"}),
        ("x.pcapng", 'read = "d.7.pcapng"', {"netdev.n.network.read"}),
        ("d.01.pcapng", 'read = "d.7.pcap"', set()),
        ("d.1.pcap", "", set()),
    ],
)
def test_nobody_else_may_use_a_name_of_files_that_are_put_aside(
    tmp_path: Path, file: str, side: str, bad: set[str]
) -> None:
    """They would be removed, or be in the way; other names beside them are free."""
    from pipeline.config import ConfigError, parse

    (tmp_path / "sub").mkdir()
    for name in ("d.7.pcapng", "d.7.pcap"):
        with writer.Writer(tmp_path / name) as out:
            out.write(b"frame", 1)
    network = f'network = {{ backend = "pcap", {side} }}' if side else ""
    text = f'[pipeline]\nname = "t"\n[netdev.n]\n{network}\n' + "".join(
        f'[filter.d{n}]\ntype = "filter-dump"\nnetdev = "n"\nfile = "{name}"\n'
        for n, name in enumerate(("d.pcapng", file))
    )
    if not bad:
        parse(text, tmp_path / "config.toml")
        return
    with pytest.raises(ConfigError) as wrong:
        parse(text, tmp_path / "config.toml")
    assert {m.path for m in wrong.value.mistakes} == bad
    assert all("filter.d0.file" in m.expected + m.found for m in wrong.value.mistakes)
