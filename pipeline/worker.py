"""A stage process from its fork to its exit: build the stages of a request and run them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from pipeline import log, messages, runner
from pipeline.idle import STRATEGIES
from ring import layout, segment
from ring.doorbell import Doorbell, Ringer

MAX_REASON = 500


def main(request: Mapping[str, Any], reasons: int, segments: Mapping[str, int]) -> int:
    """Run the stages of ``request`` (see `pipeline.supervisor`); the process's exit status.

    ``reasons`` is a datagram socket of the supervisor: the last words of a process that fails.  ``segments`` are the
    descriptors of all segments of the pipeline, by name; here they are closed once the stages have theirs.
    """
    logger = log.get(pipeline=request["pipeline"], stage=request["process"])
    doing = "start"
    try:
        pin(request.get("cpus"), logger)
        live = build(request, segments)
        doing = "run"
        why = live.run()
        doing = "close"
        live.close()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:MAX_REASON]
        logger.error("stage failed", doing=doing, reason=reason)
        logger.debug("traceback", exc_info=True)
        _last_words(reasons, reason)
        return 1
    if why == runner.SUPERSEDED:
        logger.warning("a newer incarnation runs: left")
    return 0


def _last_words(reasons: int, reason: str) -> None:
    try:
        with socket.socket(fileno=os.dup(reasons)) as out:
            out.send(messages.pack({"pid": os.getpid(), "reason": reason}), socket.MSG_DONTWAIT)
    except OSError:
        pass  # the supervisor then knows the exit status only


def pin(cpus: list[int] | None, logger: Any) -> None:
    """Bind this process to processors; those that the machine lacks are left out with a warning."""
    if not cpus:
        return
    here = set(os.sched_getaffinity(0))
    usable = here & set(cpus)
    if usable != set(cpus):
        logger.warning("this machine lacks a processor", cpus=sorted(cpus), usable=sorted(here))
    if usable:
        os.sched_setaffinity(0, usable)


def build(request: Mapping[str, Any], segments: Mapping[str, int]) -> runner.Runner:
    """The runner over all stages of a request, each attached and started."""
    from stages import base, catalog  # here: `stages.base` imports Numba, which the supervisor never does

    used = {name for given in request["stages"] for name in (given["segment"], *(port[1] for port in given["ports"]))}
    _close(fd for name, fd in segments.items() if name not in used)  # first: descriptors of this process stay small

    def attach(name: str) -> segment.Segment:
        return segment.Segment.of(name, segments[name])

    bell, ringer, watch = Doorbell(), Ringer(), runner.Watch()
    stages = []
    for given in request["stages"]:
        spec = base.StageSpec(
            id=given["id"],
            kind=given["kind"],
            segment=given["segment"],
            epoch=given["epoch"],
            ports=tuple(base.Port(*port) for port in given["ports"]),
            params=given["params"],
        )
        kind = catalog.kind(spec.kind)
        logger = log.get(pipeline=request["pipeline"], stage=spec.id, type=kind.type, epoch=spec.epoch)
        module, _, name = kind.shell.partition(":")
        stage = getattr(import_module(module), name)(spec, base.Context(logger, bell, ringer, watch.watch, attach))
        words = stage.w
        words[layout.LIFE_PID] = os.getpid()
        words[layout.LIFE_FINISHED] = 0
        stage.on_start()
        stages.append(stage)
    _close(segments[name] for name in used)
    supervisor = request["bell"]
    return runner.Runner(stages, STRATEGIES[request["idle"]], watch, bell, tell=lambda: ringer.ring(*supervisor))


def _close(descriptors: Iterable[int]) -> None:
    for fd in descriptors:
        os.close(fd)
