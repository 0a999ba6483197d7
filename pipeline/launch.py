"""The program around a supervisor: command line, config, segments, live view, summary, exit status.

Exit status: 0 a finite input was finished, or a signal asked to stop and all was drained; 1 a stage was given up, not
everything could be drained, the account does not add up, or nothing ran unasked; 2 the config is wrong, the name is in
use, /dev/shm is too small, or what a stage needs cannot be had (`pipeline.preflight`).  What cannot be written, and
to where, has no part in it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from importlib import import_module
from typing import Any

from pipeline import check, log, preflight, segments, signals
from pipeline.config import Config, ConfigError, load
from pipeline.control_server import remove_dead
from pipeline.graph import Graph, plan
from pipeline.lines import LAST_S, Lines
from pipeline.outlet import Outlet
from pipeline.streams import SHOWN, complain
from pipeline.supervisor import Supervisor
from ring import cache, errors


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
        complain(str(error))
        return 2
    form, level = log.resolve(given.log_format or config.log.format), given.log_level or config.log.level
    lines = Lines()
    told = {"format": form, "level": level, "colors": sys.stderr.isatty()}
    log.configure(form, level, lines, colors=sys.stderr.isatty())
    logger = log.get(pipeline=config.pipeline.name)
    try:
        return _run(config, graph, logger, told, given, lines)
    except preflight.NotReady as error:
        lines.say(str(error))
        return 2
    except (segments.InUse, errors.RingError, OSError, ValueError) as error:
        says = f"{config.pipeline.name} {error}" if isinstance(error, segments.InUse) else str(error)
        lines.say(f"cannot start: {says}")
        return 2
    except Exception:  # the interpreter would write to standard error itself, and wait for it
        lines.say(traceback.format_exc())
        return 1
    finally:
        lines.close()


def _run(
    config: Config, graph: Graph, logger: Any, logs: dict[str, Any], given: argparse.Namespace, lines: Lines
) -> int:
    name, folder = config.pipeline.name, config.pipeline.runtime_dir
    os.makedirs(folder, mode=0o700, exist_ok=True)
    planned = segments.plan(name, graph)
    with segments.locked(folder):
        where = (os.path.abspath(config.control_socket), os.path.abspath(given.config))
        segments.check_free(name)
        preflight.look(graph)
        digest = segments.plan_digest(graph.digest)
        opened = segments.open_all(name, planned, digest, logger, fresh=given.fresh, where=where)
    for path, doubt in check.doubts(config).items():
        logger.warning("this may not be meant", key=path, what=doubt.what, hint=doubt.mend)
    kinds = {stage.kind.name: stage.kind for stage in graph.stages}.values()
    hello = {
        "pipeline": name,
        "modules": sorted({module for kind in kinds for module in kind.kernels}),
        "shells": sorted({kind.shell.partition(":")[0] for kind in kinds}),
        "log": logs,
        "cache": _cache(folder, logger),
    }
    supervisor, code, out, text = None, 1, Outlet(1), ""
    try:
        supervisor = Supervisor(graph, opened, hello, logger, lines)
        with _view(supervisor, given, out):
            code = _supervise(supervisor, config.control_socket, logger)
        text, code = _summary(graph, supervisor, logger, code)
    finally:
        with contextlib.ExitStack() as stack:  # nobody may take over what is half removed
            with contextlib.suppress(OSError, segments.InUse):
                stack.enter_context(segments.locked(folder))
            for stage in graph.stages:
                for line in stage.kind.ended(stage.params):
                    logger.warning("what a stage made outside could not be removed", stage=stage.id, reason=line)
            opened.close(unlink=True)
            for stage in graph.stages:
                for path in stage.kind.leftovers(stage.params):
                    remove_dead(path)  # a stage that had to be killed could not remove it itself
            if supervisor:
                supervisor.goodbye(code)
    _show(text, out, lines)
    return code


def _cache(folder: str, logger: Any) -> str:
    """Where compiled code goes if not to its usual place; empty if it goes there."""
    other = cache.instead(folder) if os.environ.get("NUMBA_DISABLE_JIT", "0") != "1" else None
    if other is None:
        return ""
    logger.warning(
        "compiled kernels are kept in the runtime folder: the usual one cannot be written",
        cache=str(other), usual=str(cache.root()),
    )  # fmt: skip
    return str(other)


def _supervise(supervisor: Supervisor, control_socket: str, logger: Any) -> int:
    """Run it to its end; the exit status.  Raises where it could not be started."""
    try:
        return supervisor.run(control_socket)
    except (errors.RingError, OSError, ValueError) as error:
        if supervisor.state == "STARTING":
            raise
        logger.error("the supervisor failed", reason=f"{type(error).__name__}: {error}")
        logger.debug("traceback", exc_info=True)
        supervisor.failure = supervisor.failure or f"the supervisor: {error}"
        return 1


@contextlib.contextmanager
def _view(supervisor: Supervisor, given: argparse.Namespace, out: Outlet) -> Any:
    """The live view, in a terminal; log lines appear above it, unless they go elsewhere."""
    if given.no_view or not sys.stdout.isatty():
        yield
        return
    view = import_module("pipeline.view")
    console = import_module("rich.console").Console(file=view.Screen(out))
    try:
        with view.run_view(supervisor.snapshot, console) as supervisor.view:
            if sys.stderr.isatty():
                supervisor.lines.above = supervisor.view.above
            yield
    finally:
        supervisor.view = supervisor.lines.above = None
        out.flush(LAST_S)


def _summary(graph: Graph, supervisor: Supervisor, logger: Any, code: int) -> tuple[str, int]:
    """What is printed at the end, and the exit status."""
    summary = import_module("pipeline.summary").summarise(graph, supervisor.snapshot(), ran=supervisor.ran)
    if not supervisor.ran and not supervisor.called_off:
        logger.error(
            "nothing ran: the pipeline ended before every stage was ready", reason=supervisor.failure or "stopped"
        )
    if not summary.balanced:
        logger.error("the books do not balance: see the summary")
        code = 1
    supervisor.unbalanced = len(summary.wrong)
    lost = supervisor.lines.outlet
    ending = import_module("pipeline.ending").ending(graph, supervisor, summary, lost=lost.lost, why_lost=lost.reason)
    return "\n\n".join(filter(None, (summary.text, graph.config.pipeline.note, ending))) + "\n", code


def _show(text: str, out: Outlet, lines: Lines) -> None:
    """Print it behind what is on standard error by now.  Its reader may take as long as he likes, until a signal."""
    lines.flush()
    lines.outlet.flush(LAST_S)
    lost = out.lost
    out.offer(text.encode(sys.stdout.encoding or "utf-8", SHOWN))
    why = ""
    while not out.flush(0.1):
        if signals.caught().read():
            why = "nobody reads it"
            break
    if why or out.lost > lost:
        lines.say(f"the summary cannot be shown: {why or out.reason}")


if __name__ == "__main__":
    sys.exit(main())
