"""Fixtures of the differential suite of colo-compare, and its last line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.interop.compare_pair import Reference, Scenario, Tally
from tools import qemu


@pytest.fixture(scope="session", params=[False, True], ids=["plain", "vnet"])
def shared_reference(request: pytest.FixtureRequest) -> Iterator[Reference]:
    """A QEMU for many scenarios; one each with and without virtio-net headers."""
    made = Reference(vnet=request.param)
    yield made
    made.close()


@pytest.fixture
def reference(shared_reference: Reference) -> Iterator[Reference]:
    """The shared QEMU, or another where that one has left or is worn."""
    if not shared_reference.worn:
        yield shared_reference
        return
    made = Reference(vnet=shared_reference.vnet)
    yield made
    made.close()


@pytest.fixture
def scenario(reference: Reference) -> Callable[..., Scenario]:
    """Make a scenario: a context manager."""
    return lambda *args, **options: Scenario(reference, *args, **options)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how much was compared."""
    if Tally.scenarios:
        version = ".".join(qemu.version().split(".")[:2])
        line = f"interop compare: {Tally.scenarios:,} scenarios, {Tally.frames:,} frames against QEMU {version}"
        terminalreporter.write_line(f"{line} ({Tally.starts} starts)")
        for row, count in Tally.rows.most_common():
            terminalreporter.write_line(f"  in {count:,} of them ours holds what QEMU released: {row.value}")
