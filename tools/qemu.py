"""Debian's QEMU as a peer: its colo-compare or its filters on unix sockets, no guest.

``with compare() as q`` starts a QEMU whose colo-compare reads ``primary_in`` and ``secondary_in`` and writes ``outdev``
and ``notify``; ``with filters([...], chardevs=[...]) as q`` starts one whose filters stand between the stream netdevs
``net`` (what is written there is tx) and ``guest`` (rx).  ``q.links`` holds one connected `Link` for each socket.

From a shell: ``python -m tools.qemu`` feeds a few frames and shows what comes out.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from pipeline.streams import complain

BINARY: Final = "qemu-system-x86_64"
PACKAGE: Final = "qemu-system-x86"
MAX_FRAME: Final = 69_632  # the largest L that QEMU takes
_PR_SET_PDEATHSIG: Final = 1
_START_S: Final = 60.0
_ANSWER_S: Final = 10.0  # until another one is started in its place


class QemuError(RuntimeError):
    """QEMU is missing, did not start, or left."""


def binary() -> str:
    """Path of the QEMU binary.  Raises `QemuError` that names the Debian package where there is none."""
    found = shutil.which(os.environ.get("COLO_QEMU", BINARY))
    if found is None:
        raise QemuError(f"no {BINARY} here: install Debian's package {PACKAGE} (apt-get install {PACKAGE})")
    return found


def available() -> bool:
    """Whether there is a QEMU to start."""
    try:
        binary()
    except QemuError:
        return False
    return True


def version() -> str:
    """``7.2.22`` of ``QEMU emulator version 7.2.22 (Debian ...)``."""
    text = subprocess.run([binary(), "--version"], capture_output=True, text=True, check=True).stdout
    words = text.split()
    return words[words.index("version") + 1] if "version" in words else text.strip()


class Link:
    """One connected stream socket that carries chardev frames: ``uint32`` L, with ``vnet`` a second ``uint32`` V."""

    def __init__(self, name: str, sock: socket.socket, *, vnet: bool = False) -> None:
        self.name, self.sock, self.vnet = name, sock, vnet
        self._rest = b""

    def send(self, *frames: bytes, vnet_hdr_len: int = 0) -> None:
        """Write frames; blocks while the peer does not read."""
        lead = vnet_hdr_len.to_bytes(4, "big") if self.vnet else b""
        self.sock.sendall(b"".join(len(frame).to_bytes(4, "big") + lead + frame for frame in frames))

    def take(self, count: int | None = None, timeout: float = 60.0, quiet: float = 0.05) -> list[bytes]:
        """Frames that came out (a virtio-net header is left in place).

        With ``count``: waits for that many, at most ``timeout`` seconds.  Without: until ``quiet`` seconds were quiet.
        Raises `QemuError` where the stream ends inside a frame.
        """
        frames: list[bytes] = self._whole()
        deadline = time.monotonic() + timeout
        while count is None or len(frames) < count:
            left = quiet if count is None else deadline - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                break
            data = self.sock.recv(1 << 20)
            if not data:
                if self._rest:
                    raise QemuError(f"{self.name} ended inside a frame: {len(self._rest)} bytes of it had come")
                break
            self._rest += data
            frames += self._whole()
        return frames

    def _whole(self) -> list[bytes]:
        frames, at, lead = [], 0, 8 if self.vnet else 4
        while len(self._rest) - at >= lead:
            length = int.from_bytes(self._rest[at : at + 4], "big")
            if length > MAX_FRAME:
                raise QemuError(f"{self.name} sent a frame of {length:,} bytes: that is no chardev frame")
            if len(self._rest) - at < lead + length:
                break
            frames.append(self._rest[at + lead : at + lead + length])
            at += lead + length
        self._rest = self._rest[at:]
        return frames

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()


def connect(
    name: str, path: Path, *, vnet: bool = False, check: Callable[[], None] | None = None, timeout: float = _START_S
) -> Link:
    """Connect to the unix socket ``path`` as soon as somebody listens there.

    ``check`` is called at each try and raises where waiting is in vain.  Raises `TimeoutError` after ``timeout``
    seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(path))
            return Link(name, sock, vnet=vnet)
        except OSError as problem:
            sock.close()
            if check is not None:
                check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody listens on {path} after {timeout:g} s") from problem
            time.sleep(0.01)


class Qmp:
    """QEMU's machine protocol on a unix socket: commands, and the events that came meanwhile."""

    def __init__(self, sock: socket.socket, patience: float = _START_S) -> None:
        """Raises `TimeoutError` where QEMU does not answer within ``patience`` seconds."""
        self._sock, self._file = sock, sock.makefile("rb")
        self.events: list[dict[str, Any]] = []
        self._sock.settimeout(patience)
        try:
            self._file.readline()  # the greeting
            self.run("qmp_capabilities")
        except BaseException:
            self.close()
            raise
        self._sock.settimeout(_START_S)

    def run(self, command: str, **arguments: Any) -> Any:
        """What a command returns.  Raises `QemuError` with QEMU's words where it refuses."""
        self._sock.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            message = self._read()
            if "error" in message:
                raise QemuError(f"{command}: {message['error'].get('desc', message['error'])}")
            if "return" in message:
                return message["return"]

    def wait_events(self, name: str, count: int) -> None:
        """Wait until ``count`` events of that name have come since the start."""
        while sum(event["event"] == name for event in self.events) < count:
            self._read()

    def _read(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise QemuError("QEMU closed its monitor")
        message: dict[str, Any] = json.loads(line)
        if "event" in message:
            self.events.append(message)
        return message

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._sock.close()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def start(words: Sequence[str], monitor: Path, log: IO[bytes]) -> tuple[subprocess.Popen[bytes], Qmp]:
    """Start QEMU without a machine, ``words`` being its options; the process, and its monitor on a unix socket.

    On a busy machine QEMU 7.2 may read the first command of its monitor and never answer any (seen once in some 2,500
    starts): then it is killed and another one started.  Raises `QemuError` where it leaves, with what it said.
    """
    for patience in (_ANSWER_S, 2 * _ANSWER_S):
        with contextlib.suppress(TimeoutError):
            return _start(words, monitor, log, patience)
    return _start(words, monitor, log, _START_S)


def _start(words: Sequence[str], monitor: Path, log: IO[bytes], patience: float) -> tuple[subprocess.Popen[bytes], Qmp]:
    monitor.unlink(missing_ok=True)  # nobody is to connect to one that is gone
    command = [binary(), "-machine", "none", "-nodefaults", "-display", "none", *words]
    process = subprocess.Popen(
        [*command, "-qmp", f"unix:{monitor},server=on,wait=off"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=_die_with_parent,  # noqa: PLW1509  it only calls prctl
    )
    try:
        return process, Qmp(connect("qmp", monitor, check=partial(check, process, log)).sock, patience)
    except BaseException:
        process.kill()
        process.wait()
        raise


def check(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    """Raise `QemuError` with what QEMU said if it has left."""
    if process.poll() is not None:
        raise QemuError(f"QEMU left with status {process.returncode}: {said(log).strip() or 'it said nothing'}")


def said(log: IO[bytes]) -> str:
    """What QEMU wrote so far."""
    return os.pread(log.fileno(), 1 << 16, 0).decode(errors="replace")


class Qemu:
    """A running QEMU and one `Link` for each of its sockets; as a context manager it ends with its block."""

    def __init__(self, arguments: Callable[[Path], list[str]], sockets: Mapping[str, bool]) -> None:
        """``arguments(folder)`` gives the command line; ``sockets``: each one's name, and whether it carries V."""
        self.links: dict[str, Link] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="colo-qemu-")
        folder = Path(self._folder.name)
        try:
            self._log = (folder / "log").open("wb+")
            self.process, self.qmp = start(arguments(folder), folder / "qmp", self._log)
            for name, vnet in sockets.items():
                self.links[name] = connect(name, folder / name, vnet=vnet, check=self.check)
            self._wait_accepted()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """QEMU's process."""
        return self.process.pid

    def _wait_accepted(self) -> None:
        """Wait until QEMU has accepted every connection: what it sends to a chardev before that is lost."""
        netdevs = len({"net", "guest"} & self.links.keys())
        self.qmp.wait_events("NETDEV_STREAM_CONNECTED", netdevs)
        deadline = time.monotonic() + _START_S
        while waiting := [
            c["label"] for c in self.qmp.run("query-chardev") if c["filename"].startswith("disconnected")
        ]:
            if time.monotonic() > deadline:
                raise QemuError(f"QEMU did not accept the connection to {', '.join(waiting)}")
            time.sleep(0.005)

    def check(self) -> None:
        """Raise `QemuError` with what QEMU said if it has left."""
        check(self.process, self._log)

    def said(self) -> str:
        """What QEMU wrote so far."""
        return said(self._log)

    def close(self) -> None:
        """Close the sockets, end the process, remove the folder."""
        for link in self.links.values():
            link.close()
        if hasattr(self, "qmp"):
            self.qmp.close()
        process = getattr(self, "process", None)
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with contextlib.suppress(AttributeError):
            self._log.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _chardev(name: str, folder: Path) -> list[str]:
    return ["-chardev", f"socket,id={name},path={folder / name},server=on,wait=off"]


def compare(*, notify: bool = True, vnet: bool = False, **options: str | int) -> Qemu:
    """A QEMU with one colo-compare: links ``primary_in``, ``secondary_in``, ``outdev`` and, if asked for, ``notify``.

    ``options`` are further properties of the object (``compare_timeout=3000``; an underscore stands as it is).  QEMU
    expects V on incoming notify frames where ``vnet`` is on and sends none there; the link's framing is that of what it
    sends.
    """
    names = ["primary_in", "secondary_in", "outdev", *(["notify"] if notify else [])]

    def arguments(folder: Path) -> list[str]:
        more = {f"{k}": f"{v}" for k, v in options.items()}
        if notify:
            more["notify_dev"] = "notify"
        if vnet:
            more["vnet_hdr_support"] = "on"
        tail = "".join(f",{key}={value}" for key, value in more.items())
        chardevs = [word for name in names for word in _chardev(name, folder)]
        ports = "primary_in=primary_in,secondary_in=secondary_in,outdev=outdev"
        thing = f"colo-compare,id=c0,{ports},iothread=io0{tail}"
        return [*chardevs, "-object", "iothread,id=io0", "-object", thing]

    return Qemu(arguments, {name: vnet and name != "notify" for name in names})


def filters(objects: Sequence[str], chardevs: Iterable[str] = (), vnet: Iterable[str] = ()) -> Qemu:
    """A QEMU with filters between the links ``net`` and ``guest``, and a link for each of ``chardevs``.

    ``objects`` are ``-object`` values without their netdev, in chain order
    (``filter-mirror,id=m0,queue=tx,outdev=mirror0``).  ``vnet`` names the chardevs that carry V (the filter needs
    ``vnet_hdr_support=on`` for that).
    """
    outside, with_vnet = list(chardevs), set(vnet)

    def arguments(folder: Path) -> list[str]:
        words = [word for name in outside for word in _chardev(name, folder)]
        for i, name in enumerate(("net", "guest")):
            words += ["-netdev", f"stream,id={name},server=on,addr.type=unix,addr.path={folder / name}"]
            words += ["-netdev", f"hubport,id=h{i},hubid=0,netdev={name}"]
        for thing in objects:
            words += ["-object", f"{thing},netdev=net"]
        return words

    return Qemu(arguments, {"net": False, "guest": False, **{name: name in with_vnet for name in outside}})


def _show(title: str, links: Mapping[str, Link]) -> None:
    print(title)
    for name, link in links.items():
        for frame in link.take():
            print(f"  {name:13} {len(frame):5} bytes  {frame[:32].hex(' ')}")


def main() -> int:
    """Feed an ARP-like frame to a compare and to a mirror, and show everything that comes out."""
    frame = bytes.fromhex("ffffffffffff525400000001") + b"\x08\x06" + bytes(46)
    try:
        with compare() as q:
            q.links["primary_in"].send(frame)
            q.links["secondary_in"].send(frame)
            _show(f"QEMU {version()}, colo-compare: the same frame on both sides", q.links)
            q.links["notify"].send(b"COLO_USERSPACE_PROXY_INIT")
            _show("  told COLO_USERSPACE_PROXY_INIT", q.links)
        with filters(["filter-mirror,id=m0,queue=tx,outdev=mirror0"], ["mirror0"]) as q:
            q.links["net"].send(frame)
            _show("filter-mirror queue=tx: the same frame from the network", q.links)
    except QemuError as problem:
        complain(problem)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
