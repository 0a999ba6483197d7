"""The program around a supervisor: command line, config, segments, live view, summary, exit status.

Exit status: 0 a finite input was finished, or a signal asked to stop and all was drained; 1 a stage was given up, or
not everything could be drained; 2 the config is wrong, the name is in use, /dev/shm is too small, or
what a stage needs cannot be had (`pipeline.preflight`).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from importlib import import_module
from typing import Any

from pipeline import log, preflight, segments, signals
from pipeline.config import ConfigError, load
from pipeline.control_server import remove_dead
from pipeline.graph import plan
from pipeline.handlers import shortfall
from pipeline.supervisor import Supervisor
from ring import errors


def main(argv: list[str] | None = None) -> int:
    """``python -m pipeline.supervisor``; the exit status."""
    signals.caught()
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.supervisor", description="Run a pipeline until its input ends or a signal stops it."
    )
    parser.add_argument("config", help="a config.toml")
    parser.add_argument("--fresh", action="store_true", help="do not take over what a dead supervisor left")
    parser.add_argument("--log-format", choices=log.FORMATS, help="default: log.format of the config")
    parser.add_argument("--log-level", choices=list(log.LEVELS), help="default: log.level of the config")
    parser.add_argument("--no-view", action="store_true", help="no live view in a terminal: log lines only")
    given = parser.parse_args(argv)
    try:
        config = load(given.config)
        graph = plan(config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    form, level = log.resolve(given.log_format or config.log.format), given.log_level or config.log.level
    log.configure(form, level)
    logger = log.get(pipeline=config.pipeline.name)
    try:
        return _run(config, graph, logger, {"format": form, "level": level}, given)
    except preflight.NotReady as error:
        print(error, file=sys.stderr)
        return 2
    except (segments.InUse, errors.RingError, OSError, ValueError) as error:
        says = f"{config.pipeline.name} {error}" if isinstance(error, segments.InUse) else str(error)
        print(f"cannot start: {says}", file=sys.stderr)
        return 2


def _run(config: Any, graph: Any, logger: Any, logs: dict[str, Any], given: argparse.Namespace) -> int:
    name, folder = config.pipeline.name, config.pipeline.runtime_dir
    os.makedirs(folder, mode=0o700, exist_ok=True)
    planned = segments.plan(name, graph)
    with segments.locked(folder):
        where = (os.path.abspath(config.control_socket), os.path.abspath(given.config))
        segments.check_free(name)
        preflight.look(graph)
        digest = segments.plan_digest(graph.digest)
        opened = segments.open_all(name, planned, digest, logger, fresh=given.fresh, where=where)
    kinds = {stage.kind.name: stage.kind for stage in graph.stages}.values()
    hello = {
        "pipeline": name,
        "modules": sorted({module for kind in kinds for module in kind.kernels}),
        "shells": sorted({kind.shell.partition(":")[0] for kind in kinds}),
        "log": {**logs, "colors": sys.stderr.isatty()},
    }
    supervisor, code = None, 1
    try:
        supervisor = Supervisor(graph, opened, hello, logger)
        with _view(supervisor, given) as supervisor.view:
            code = supervisor.run(config.control_socket)
        _summarise(graph, supervisor, logger)
    finally:
        with contextlib.ExitStack() as stack:  # nobody may take over what is half removed
            with contextlib.suppress(OSError, segments.InUse):
                stack.enter_context(segments.locked(folder))
            opened.close(unlink=True)
            for stage in graph.stages:
                for path in stage.kind.leftovers(stage.params):
                    remove_dead(path)  # a stage that had to be killed could not remove it itself
            if supervisor:
                supervisor.goodbye(code)
    return code


def _view(supervisor: Supervisor, given: argparse.Namespace) -> contextlib.AbstractContextManager[Any]:
    """The live view, in a terminal."""
    if given.no_view or not sys.stdout.isatty():
        return contextlib.nullcontext()
    view: contextlib.AbstractContextManager[Any] = import_module("pipeline.view").run_view(supervisor.snapshot)
    return view


def _summarise(graph: Any, supervisor: Supervisor, logger: Any) -> None:
    summary = import_module("pipeline.summary").summarise(graph, supervisor.snapshot())
    print(summary.text, flush=True)
    if supervisor.undelivered:
        print(shortfall(supervisor.undelivered), flush=True)
    if not summary.balanced:
        logger.error("the books do not balance: see the summary")


if __name__ == "__main__":
    sys.exit(main())
