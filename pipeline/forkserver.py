"""The fork server: imports and compiles everything once, then every stage process is a fork of it.

    supervisor ──exec──► fork server ──fork──► intermediate (leaves at once) ──fork──► stage
        ▲                                                                               │
        └────────── subreaper: the stage becomes the supervisor's child ◄───────────────┘

So a stage is at work a few milliseconds after a request, shares compiled code with its siblings, and does not depend on
the fork server: the supervisor reaps it, and its parent-death signal is the supervisor's death.

Requests and replies are msgpack maps over a SOCK_SEQPACKET pair: one message each, never partial.  The descriptors of
all segments are inherited from the supervisor, and every stage has them from here: no process opens one by its name.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import socket
import struct
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NoReturn

from pipeline import log, messages

MAX_MESSAGE: Final = 160 * 1024  # below the default net.core.wmem_max
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36  # prctl(2)

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: Any) -> None:
    """prctl(2) with one argument.  Raises OSError."""
    if _libc.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


def become_subreaper() -> None:
    """Orphaned descendants of this process become its children."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> bool:
    """Be killed when the parent dies; False if ``parent`` is not (no longer) the parent."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def name_process(name: str) -> None:
    """What ps and top show, 15 bytes of it."""
    with contextlib.suppress(OSError):
        prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]))


def warm(modules: list[str], shells: list[str], logger: Any, *, again: bool = False) -> float:
    """Import the code of the kinds in use and compile it, or load it from the cache; seconds that it took.

    ``again``: not this pipeline's first fork server; how kernels are compiled has been said.
    """
    from ring import hot

    start = time.monotonic()
    if not again:
        _say_how(hot, logger)
    cache = hot.cache_dir()
    if hot.KEPT and not all((cache / f"{module}.done").exists() for module in modules):
        logger.info("compiling kernels, once", cache=str(cache), processes=min(len(modules), os.cpu_count() or 1))
        _compile(modules, cache)
    for module in ("ring.kernels.ledger", "ring.kernels.frames", *modules):
        import_module(module)
    kernels = hot.warm()
    _call_once()
    for module in ("pipeline.worker", *shells):
        import_module(module)
    took = time.monotonic() - start
    (logger.info if took > 3 else logger.debug)("kernels are ready", kernels=kernels, took_s=round(took, 2))
    return took


def _say_how(hot: Any, logger: Any) -> None:
    """One line where kernels are not compiled, or kept, as usual."""
    if hot.PLAIN and hot.ASKED:
        logger.info("plain compilation, as asked: a slower first start, slower kernels", reason=hot.PLAIN)
    elif hot.PLAIN:
        logger.warning("plain compilation: a slower first start, slower kernels", reason=hot.PLAIN)
    if hot.JIT and not hot.KEPT:
        logger.warning("compiled kernels cannot be kept: every start compiles them", cache=str(hot.cache_dir()))


def _compile(modules: list[str], cache: Path) -> None:
    """Fill the cache from child processes, one a processor: this one then only loads, and stays small.

    The modules to do lie in a pipe, a byte each; whoever is free takes the next, the longest source first.  What a
    child cannot do (killed, no memory) is compiled, or fails with its reason, when this process imports the module.
    """
    from ring import hot

    order = sorted(modules, key=lambda module: -_source_size(module))
    jar, fill = os.pipe()
    os.write(fill, bytes(range(len(order))))
    os.close(fill)
    children, server = [], os.getpid()
    for _ in range(min(len(order), os.cpu_count() or 1)):
        pid = os.fork()
        if pid == 0:
            try:
                if not die_with(server):  # a fork does not inherit it
                    os._exit(1)
                while took := os.read(jar, 1):
                    module = order[took[0]]
                    import_module(module)
                    hot.warm()
                    (cache / f"{module}.done").touch()
            finally:
                os._exit(0)
        children.append(pid)
    os.close(jar)
    for pid in children:
        os.waitpid(pid, 0)


def _source_size(module: str) -> int:
    """Bytes of a module's source and of those kernels that it imports from its own package: how long it will take."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return 0
    source = Path(spec.origin)
    text = source.read_text()
    return len(text) + sum(
        path.stat().st_size for path in source.parent.glob("*.py") if f"kernels.{path.stem} import" in text
    )


def _call_once() -> None:
    """Call compiled code: a process's first call makes Numba work out the arguments' types, 40 ms and 8 MB of it."""
    import numpy as np

    from ring import layout
    from ring.kernels import ledger

    w = np.zeros(layout.UNDO, np.int64)  # a stage without rings: there is nothing to do
    kernels: tuple[Any, ...] = (ledger.recover, ledger.doze, ledger.wake)
    for kernel in kernels:
        kernel(w.view(np.uint8), w, 0)


class Server:
    """The fork server's process."""

    def __init__(
        self, channel: socket.socket, reasons: int, supervisor: int, lines: log.Channel, segments: dict[str, int]
    ) -> None:
        self._channel, self._reasons, self._supervisor = channel, reasons, supervisor
        self._lines, self._segments = lines, segments

    def serve(self) -> None:
        """Fork a process for each request until the supervisor closes its end."""
        gc.collect()
        gc.freeze()  # the collector never touches, and so never unshares, what is here now
        while True:
            data = self._channel.recv(MAX_MESSAGE)
            if not data:
                return
            request = messages.unpack(data)
            try:
                pid, error = self._fork(request), ""
            except OSError as refused:
                pid, error = 0, str(refused)
            self._channel.send(messages.pack({"serial": request["serial"], "pid": pid, "error": error}))

    def _fork(self, request: dict[str, Any]) -> int:
        """Fork twice; the stage's pid, once the intermediate is gone and the stage is the supervisor's child."""
        read, write = os.pipe()
        middle = os.fork()
        if middle == 0:
            status = 1
            try:
                stage = os.fork()
                if stage == 0:
                    os.close(read)
                    os.close(write)
                    self._become_stage(request)
                os.write(write, struct.pack("q", stage))
                status = 0
            finally:
                os._exit(status)
        os.close(write)
        with open(read, "rb", buffering=0) as answer:
            data = answer.read(8)
        os.waitpid(middle, 0)
        if len(data or b"") != 8:
            raise OSError("the system refused a process (fork)")
        return int(struct.unpack("q", data)[0])

    def _become_stage(self, request: dict[str, Any]) -> NoReturn:
        status = 1
        try:
            self._channel.close()
            middle = os.getppid()
            while os.getppid() != self._supervisor:  # until the intermediate is gone
                if os.getppid() not in (middle, self._supervisor):
                    os._exit(1)  # the supervisor died meanwhile
                time.sleep(0.0001)
            if not die_with(self._supervisor):
                os._exit(1)
            for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN if number == signal.SIGPIPE else signal.SIG_DFL)
            # A terminal's Ctrl-C reaches the whole group; stages leave when the supervisor says so, in its order.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            name_process(request["process"])
            from pipeline import worker

            self._lines.forked(pipeline=request["pipeline"], stage=request["process"])
            status = worker.main(request, self._reasons, self._segments)
            self._lines.close()
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)  # no atexit handlers, no buffers of the fork server


def main(argv: list[str]) -> int:
    """``python -m pipeline.forkserver CHANNEL REASONS SUPERVISOR``: descriptors and a pid, from the supervisor."""
    descriptor, reasons, supervisor = (int(arg) for arg in argv)
    if not die_with(supervisor):
        return 1
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    name_process("colo-forkserver")
    channel = socket.socket(fileno=descriptor)
    hello = messages.unpack(channel.recv(MAX_MESSAGE))
    lines = log.Channel(pipeline=hello["pipeline"])
    log.configure(hello["log"]["format"], hello["log"]["level"], lines, colors=hello["log"]["colors"])
    logger = log.get(pipeline=hello["pipeline"])
    if hello["cache"]:
        os.environ["COLO_CACHE_DIR"] = hello["cache"]  # before `ring.hot` is imported
    try:
        took = warm(hello["modules"], hello["shells"], logger, again=hello["again"])
    except Exception as error:
        logger.error("the fork server cannot import or compile a stage", reason=f"{type(error).__name__}: {error}")
        logger.debug("traceback", exc_info=True)
        channel.send(messages.pack({"warm_s": -1.0, "error": f"{type(error).__name__}: {error}"}))
        return 1
    channel.send(messages.pack({"warm_s": took, "error": ""}))
    Server(channel, reasons, supervisor, lines, hello["segments"]).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
