"""Tables of a config about all stages of a kind together (`stages.kind.Annex`): their warnings, their life."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.tables import Config
from stages import catalog
from stages.kind import Annex, AnnexClient, AnnexCode, AnnexLive, Kind, LiveStage

if TYPE_CHECKING:
    from pipeline.graph import Graph
    from pipeline.segments import Segments


def code(annex: Annex) -> AnnexCode:
    """The code of an annex; imported here, so only where there is something to be done."""
    found: AnnexCode = import_module(annex.module)
    return found


def client(annex: Annex) -> AnnexClient:
    """The command line's part of an annex."""
    found: AnnexClient = import_module(annex.client)
    return found


def used(config: Config) -> Iterator[tuple[Kind, Annex, Mapping[str, Any]]]:
    """The annexes of which a config has tables, each with its kind and its tables."""
    for kind, annex in catalog.annexes():
        if config.annexes[annex.table]:
            yield kind, annex, config.annexes[annex.table]


def warnings(config: Config) -> dict[str, str]:
    """What a person may not have meant, by the path of the table."""
    return {
        f"{annex.table}.{name}": what
        for _, annex, tables in used(config)
        for name, what in code(annex).warnings(tables).items()
    }


def live(graph: Graph, opened: Segments, log: Any) -> dict[str, tuple[Kind, AnnexLive]]:
    """The annexes of a pipeline that starts, by name, with their kinds."""
    found = {}
    for kind, annex in catalog.annexes():
        stages = [LiveStage(s.id, s.params, opened.stages[s.id]) for s in graph.stages if s.kind is kind]
        tables = graph.config.annexes[annex.table]
        found[annex.table] = kind, code(annex).live(stages, tables, log, taken_over=opened.taken_over)
    return found
