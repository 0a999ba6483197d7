"""Network namespaces for tests as root, programs in them, and a stage that runs until something holds."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.rig import Rig

PATIENCE_S = 120.0
_serial = itertools.count()
root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def ip(*words: str) -> str:
    """Run ip(8); what it said."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A network namespace without IPv6; removed at the end, with the interfaces in it."""
    name = f"colo-test-{os.getpid()}-{next(_serial)}"
    ip("netns", "add", name)
    try:
        # IPv6 would send its own packets into every test.
        file = "/proc/sys/net/ipv6/conf/default/disable_ipv6"  # not there in a system without it
        command = ["ip", "netns", "exec", name, "sh", "-c", f"test ! -e {file} || echo 1 >{file}"]
        subprocess.run(command, check=True)
        yield name
    finally:
        ip("netns", "delete", name)


def until(rig: Rig, condition: Callable[[], Any]) -> Any:
    """Turn duty cycles until the condition holds; what it said."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        rig.run()
        found = condition()
        if found:
            return found
        time.sleep(0.001)
    raise AssertionError("the condition never held")


def gather(rig: Rig, count: int) -> list[bytes]:
    """At least ``count`` frames from receive."""
    got: list[bytes] = []

    def enough() -> bool:
        got.extend(rig.take("receive"))
        return len(got) >= count

    until(rig, enough)
    return got


@contextlib.contextmanager
def inside(netns: str, code: str) -> Iterator[subprocess.Popen[str]]:
    """Python in the namespace; it must end well."""
    command = ["ip", "netns", "exec", netns, sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
            assert child.wait(PATIENCE_S) == 0
        finally:
            child.kill()
