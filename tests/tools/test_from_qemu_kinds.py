"""What kinds of stages say of QEMU's objects: which make COLO, and which only go along with those."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from pipeline.config import parse
from stages import catalog
from tests.tools.from_qemu import converting
from tests.tools.from_qemu.converting import CHARDEV, LINE, NETDEV
from tools.from_qemu.__main__ import main
from tools.from_qemu.properties import KINDS, LINKS, PARTS

run = converting.run


def dump(number: int, file: str, more: str = "") -> str:
    """A filter-dump on the netdev of the mirror."""
    return f"-object filter-dump,id=d{number},netdev=hn0,file={file}{more}"


def test_the_property_that_is_told_is_the_same_in_every_run(run) -> None:
    """Its order is that of the kinds' chardevs, so no hash decides about it."""
    assert LINKS == ("outdev", "indev", "primary_in", "secondary_in", "notify_dev")
    done = run(f"qemu {CHARDEV} {NETDEV} -object filter-redirector,id=r0,netdev=hn0,indev=c00,outdev=c00")
    assert done.status == 2
    assert "filter-redirector r0: outdev=c00: there is none of that id; c0, perhaps" in done.told


def test_what_is_known_of_qemus_objects_is_what_the_kinds_declare() -> None:
    sides = {name: (kind.qemu.side, kind.qemu.part) for name, kind in KINDS.items()}
    assert sides == {
        "filter-mirror": ("primary", True),
        "filter-redirector": ("", True),
        "filter-rewriter": ("secondary", True),
        "filter-dump": ("", False),
        "colo-compare": ("primary", True),
    }
    assert tuple(sides) == (*PARTS[:-1], "filter-dump", PARTS[-1])
    for kind in catalog.kinds():
        assert set(kind.qemu.properties) <= {f.name for f in fields(kind.config)}
        assert not set(kind.qemu.properties) & set(kind.qemu.ignored)
        assert {link.key for link in kind.chardevs} <= set(kind.qemu.properties)


def test_a_netdev_with_nothing_but_a_dump_stays_in_qemu(run) -> None:
    """The guest keeps its management network, and QEMU its dump of it."""
    kept = ("-netdev user,id=mgmt", "-object filter-dump,id=d0,netdev=mgmt,file=/tmp/mgmt.pcap")
    done = run(f"{LINE} {' '.join(kept)} {dump(1, '/tmp/1.pcap')}")
    assert done.status == 0
    assert list(done.tables["netdev"]) == ["hn0"]
    assert list(done.tables["filter"]) == ["m0", "d1"]
    assert "filter-dump d0: no part of COLO is on its netdev: it stays in QEMU" in done.told
    for option in kept:
        assert option in done.qemu
    assert "id=d1" not in done.qemu


@pytest.mark.parametrize("netdev", ["", ",netdev=hn9"])
def test_a_dump_on_no_netdev_stays_in_qemu_too(run, netdev: str) -> None:
    done = run(f"{LINE} -object filter-dump,id=d0{netdev},file=/tmp/0.pcap")
    assert done.status == 0
    assert list(done.tables["netdev"]) == ["hn0"]
    assert f"-object filter-dump,id=d0{netdev},file=/tmp/0.pcap" in done.qemu


@pytest.mark.parametrize("kept", ["filter-buffer,id=b0,netdev=hn0", "filter-dump,id=d0,netdev=hn0,file=/none/here/x"])
def test_what_stays_in_qemu_next_to_a_filter_that_does_not_is_left_to_the_user(run, kept: str) -> None:
    done = run(f"{LINE} -object {kept},position=id=m0,insert=before")
    assert "position=id=m0: that filter is not in QEMU any more, which will refuse this one" in done.told


STAYS = "it stays in QEMU, between the guest and the pipeline"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (dump(0, "/none/here/x"), 'file: found no folder "/none/here"; expected a file in a folder that is there'),
        (dump(0, "none/x", ",maxlen=96"), "file: found no folder"),
        (dump(0, "$where/x"), 'the value of "where" is not known here; give it: --define where=VALUE'),
        (dump(0, ""), "file: found nothing; expected the path of a file"),
        ("-object filter-dump,id=d0,netdev=hn0", "file: found nothing; expected the path of a file"),
        (dump(0, "/tmp/x", ",maxlen=0"), "maxlen: found 0; expected a whole number from 1 to 69632 bytes"),
        (f"-object filter-dump,id={'d' * 65},netdev=hn0,file=/tmp/x", 'id: found "ddd'),
    ],
)
def test_a_dump_whose_table_would_be_wrong_here_stays_in_qemu(run, more: str, why: str) -> None:
    """The command line may be another host's; all else is converted."""
    done = run(f"{LINE} {more}")
    assert done.status == 1, done.told
    assert list(done.tables["filter"]) == ["m0"]
    assert re.search(rf"Not carried over: - line 1, filter-dump d+0?: {re.escape(why)}.*; {STAYS}", done.told)
    assert more.replace(" -", " \\ -") in done.qemu
    assert "is relative" not in done.told


def test_two_dumps_to_one_file_both_stay_in_qemu(run) -> None:
    """One of them here and one there would write over each other."""
    done = run(f"{LINE} \\\n {dump(1, '/tmp/x')} \\\n {dump(2, '/tmp/./x')} \\\n {dump(3, '/tmp/y')}")
    assert done.status == 1
    assert list(done.tables["filter"]) == ["m0", "d3"]
    for mine, other in ((1, 2), (2, 1)):
        told = f"a file of its own; line {other + 1}, filter-dump d{other} writes this one; {STAYS}"
        assert f'line {mine + 1}, filter-dump d{mine}: file: found "/tmp/x"; expected {told}' in done.told
    away = "-netdev user,id=u0 -object filter-dump,id=u1,netdev=u0,file=/tmp/y"
    assert list(run(f"{LINE} {dump(3, '/tmp/y')} {away}").tables["filter"]) == ["m0"]


def test_a_relative_file_of_a_dump_starts_from_the_configs_folder(tmp_path, capsys) -> None:
    (tmp_path / "dumps").mkdir()
    out = tmp_path / "config.toml"
    assert main(["-o", str(out), "--", *LINE.split(), *dump(0, "dumps/x.pcap").split()]) == 0
    assert parse(out.read_text(), out).filters["d0"].file == str(tmp_path / "dumps" / "x.pcap")
    assert "file=dumps/x.pcap is relative" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("maxlen", "kept"), [("69632", 69_632), ("69633", 69_632), ("0xffffffff", 69_632)])
def test_more_bytes_of_a_packet_than_it_can_have_are_not_asked_for(run, maxlen: str, kept: int) -> None:
    done = run(f"{LINE} {dump(0, '/tmp/x.pcap', f',maxlen={maxlen}')}")
    assert done.status == 0
    assert done.tables["filter"]["d0"]["maxlen"] == kept
    assert (f"maxlen={int(maxlen, 0)} is 69632 here: more would change nothing" in done.told) == (maxlen != "69632")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (",maxlne=96", "maxlne: unknown; maxlen, perhaps"),
        (",outdev=c9", '"outdev" is a property of filter-mirror'),
        (",maxlen=all", 'maxlen="all"; write maxlen= and a whole number'),
    ],
)
def test_what_qemu_refuses_of_a_dump_is_refused_here_unless_it_stays_there(run, more: str, told: str) -> None:
    done = run(f"{LINE} {dump(0, '/tmp/x.pcap', more)}")
    assert done.status == 2
    assert told in done.told
    away = f"-object filter-dump,id=u1,netdev=u0,file=/tmp/x{more}"
    done = run(f"{LINE} -netdev user,id=u0 {away}")
    assert done.status == 0
    assert away in done.qemu


@pytest.mark.parametrize(("name", "pcapng"), [("a", True), ("a.pcapng", True), ("a.pcap", False), ("a.cap", False)])
def test_it_is_told_what_of_a_dump_is_otherwise_than_with_qemu(run, name: str, pcapng: bool) -> None:
    done = run(f"{LINE} {dump(0, f'/tmp/{name}')}")
    assert done.status == 0
    note = "line 1, filter-dump d0: 8 files of 64MiB are kept at most, the oldest are removed (files, file_size)"
    assert f"{note}: QEMU's grows for ever" in done.told.partition("To know:")[2]
    assert ("d0: it is written as pcapng, because its name ends neither in .pcap nor in .cap" in done.told) == pcapng
    assert "grows for ever" not in run(f"{LINE} {dump(0, f'/none/here/{name}')}").told  # it stays QEMU's
