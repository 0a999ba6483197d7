"""A text converted as standard input, and the parts of which texts are made."""

from __future__ import annotations

import io
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.config import parse
from pipeline.draw import text as draw
from pipeline.graph import plan
from tools.from_qemu.__main__ import main

ROOT = Path(__file__).resolve().parents[3]
INPUTS = Path(__file__).parent
PAPER = "usage-2016.diff"
NETDEV = "-netdev tap,id=hn0,ifname=t0,script=no,downscript=no"
MIRROR = "-object filter-mirror,id=m0,netdev=hn0,queue=tx,outdev=c0"
CHARDEV = "-chardev socket,id=c0,host=10.0.0.1,port=9003,server=on,wait=off"
LINE = f"qemu-system-x86_64 -m 512 {NETDEV} {CHARDEV} {MIRROR} -device e1000,netdev=hn0"


def with_parts(netdev: str = NETDEV, chardev: str = CHARDEV, more: str = MIRROR) -> str:
    """Options without a program."""
    return f"{netdev} {chardev} {more}"


class Done(NamedTuple):
    """What a conversion gave."""

    status: int
    toml: str
    told: str

    @property
    def tables(self) -> dict[str, Any]:
        return tomllib.loads(self.toml)

    @property
    def qemu(self) -> str:
        """QEMU's new command line, out of the comment at the end."""
        return self.toml.partition("start the pipeline first:\n#\n")[2].replace("#   ", "")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Convert a text as standard input."""

    def convert(text: str | bytes, *options: str) -> Done:
        data = text.encode() if isinstance(text, str) else text
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        status = main([*options, "-"])
        out, told = capsys.readouterr()
        if status != 2:
            assert draw(plan(parse(out))).startswith("pipeline ")
        else:
            assert out == ""
            assert told.startswith("from_qemu: ") and told.count("\n") == 1
        return Done(status, out, " ".join(told.split()))

    return convert
