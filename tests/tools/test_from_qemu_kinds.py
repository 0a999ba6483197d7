"""What kinds of stages say of QEMU's objects: which make COLO, and which only go along with those."""

from __future__ import annotations

from dataclasses import fields

import pytest

from stages import catalog
from tests.tools.from_qemu import converting
from tests.tools.from_qemu.converting import CHARDEV, LINE, NETDEV
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


@pytest.mark.parametrize("kept", ["filter-buffer,id=b0,netdev=hn0"])
def test_what_stays_in_qemu_next_to_a_filter_that_does_not_is_left_to_the_user(run, kept: str) -> None:
    done = run(f"{LINE} -object {kept},position=id=m0,insert=before")
    assert "position=id=m0: that filter is not in QEMU any more, which will refuse this one" in done.told
