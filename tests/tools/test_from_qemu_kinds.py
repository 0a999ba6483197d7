"""What kinds of stages say of QEMU's objects: which make COLO, and which only go along with those."""

from __future__ import annotations

from dataclasses import fields

from stages import catalog
from tests.tools.from_qemu import converting
from tests.tools.from_qemu.converting import CHARDEV, NETDEV
from tools.from_qemu.properties import KINDS, LINKS, PARTS

run = converting.run


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
