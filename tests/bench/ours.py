"""Our compare behind four unix sockets, as a program: ``python -m pipeline.supervisor bench.toml``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pipeline.control import ask
from tests.bench.load import wait_through
from tools.qemu import Link, connect

_ROOT: Final = Path(__file__).resolve().parents[2]
_NAMES: Final = ("primary_in", "secondary_in", "outdev", "notify")


class Ours:
    """A running pipeline with one compare; ``links`` as those of `tools.qemu.compare`."""

    def __init__(self, placement: str = "dedicated", **options: int) -> None:
        """``options`` are further keys of the compare."""
        self.links: dict[str, Link] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="colo-bench-")
        folder = Path(self._folder.name)
        config = folder / "bench.toml"
        config.write_text(self._config(folder, placement, options))
        self._log = (folder / "log").open("wb+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.supervisor", str(config)],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        try:
            for name in _NAMES:
                self.links[name] = connect(name, folder / name, check=self.check, timeout=600)  # a first start compiles
            wait_through(self.links, self.check)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _config(folder: Path, placement: str, options: Mapping[str, int]) -> str:
        head = (
            f'[pipeline]\nname = "bench-{os.getpid()}"\nruntime_dir = "{folder}"\nplacement = "{placement}"\n'
            "[supervisor]\nshutdown_ms = 1000\n"
        )
        chardevs = [f'[chardev.{n}]\nbackend = "socket"\npath = "{folder / n}"\nserver = true\n' for n in _NAMES]
        ports = 'primary_in = "primary_in"\nsecondary_in = "secondary_in"\noutdev = "outdev"\nnotify_dev = "notify"\n'
        more = "".join(f"{key} = {value}\n" for key, value in options.items())
        return "".join([head, *chardevs, "[compare.comp0]\n", ports, more])

    @property
    def pid(self) -> int:
        """The supervisor; its stages are its descendants."""
        return self.process.pid

    def check(self) -> None:
        """Raise with the log if the pipeline has left."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the pipeline left with status {self.process.returncode}:\n{self.log()}")

    def log(self) -> str:
        """What it has logged so far."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")

    def compared(self) -> int:
        """Primary packets that were released after comparison; not those that passed for another reason."""
        [path] = Path(self._folder.name).glob("bench-*.sock")
        return int(ask(str(path), "status")["counters"]["comp0"]["released"])

    def close(self) -> None:
        """Close the sockets, ask it to leave, and wait."""
        for link in self.links.values():
            link.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
