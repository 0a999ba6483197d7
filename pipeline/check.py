"""What is wrong with a config although each of its tables is right: ids, links, and what two stages cannot both have.

What is wrong within the table of a stage its kind says (`stages.kind.Kind.mistakes`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Final

from pipeline import annexes, replicas, wiring
from pipeline.tables import SIDES, Config, RingChardev
from stages import catalog
from stages.filter import Filter
from stages.kind import CHARDEV, FILTER, FRAMING_KEY, NETDEV, VARIANT_KEYS, Claim, Doubt
from stages.schema import SUN_PATH, Reader, likely, nearest, show

_CHARDEV_KEYS: Final = {link.key for kind in catalog.kinds() for link in kind.chardevs}
_CHARDEV_USERS: Final = {kind.table for kind in catalog.kinds() if kind.chardevs}
_OBJECTS: Final = tuple(dict.fromkeys(kind.table for kind in catalog.kinds() if not kind.endpoint))
_FRAME_KEYS: Final = [link for kind in catalog.kinds() for link in kind.chardevs if not link.text]
_READ_KEYS: Final = ", ".join(dict.fromkeys(link.key for link in _FRAME_KEYS if link.reads))
_WRITE_KEYS: Final = ", ".join(dict.fromkeys(link.key for link in _FRAME_KEYS if link.writes))
_CHAIN_KEYS: Final = {f.name for f in fields(Filter)} | set(VARIANT_KEYS.values())


def doubts(config: Config) -> dict[str, Doubt]:
    """What a person may not have meant, by the path of the key."""
    return {
        f"{path}.{doubt.key}": doubt
        for path, table in config.tables().items()
        for doubt in catalog.of(table).doubts(table)
    }


class Checker:
    """Looks over a config and notes what does not fit together.

    ``ids`` are all ids of each table (``filter`` ...), also of those whose table had mistakes.  Where a table had any,
    nothing is said about what could follow from them.
    """

    def __init__(self, config: Config, reader: Reader, ids: Mapping[str, tuple[str, ...]]) -> None:
        self.config, self.note, self.ids = config, reader.note, ids
        self._before = tuple(mistake.path for mistake in reader.mistakes)
        self.users = wiring.users(config)

    def run(self) -> None:
        """All checks."""
        self._tables()
        self._claims()
        self._headers()
        self._filters()
        self._annexes()
        self._chardevs()
        self._stages()
        self._supervisor()
        movers = [NETDEV, *(table for table in _OBJECTS if table != FILTER)]
        if not any(self.ids[table] for table in movers) and self._clean(*movers):
            some = " or a ".join(f"[{table}.ID]" for table in movers)
            self.note(NETDEV, "nothing", f"a {some}: without them no packet can move")
        if self._links_known() and not _CHAIN_KEYS & self._bad_keys():
            self._loop()
        if self._links_known():
            for mistake in replicas.mistaken(self.config):
                self.note(*mistake)

    def _clean(self, *paths: str) -> bool:
        """Whether the tables below ``paths`` had no mistake of their own, and no table was called something else."""
        return not any("." not in bad or f"{bad}.".startswith(f"{path}.") for bad in self._before for path in paths)

    def _bad_keys(self) -> set[str]:
        return {bad.rpartition(".")[2] for bad in self._before}

    def _links_known(self) -> bool:
        """Whether it is known who uses which chardev: no table or key that would say so is misspelt or wrong."""
        linked = [kind.config for kind in catalog.kinds() if kind.table in _CHARDEV_USERS]
        harmless = {f.name for cls in linked for f in fields(cls)} - _CHARDEV_KEYS
        tables = [bad for bad in self._before if bad.partition(".")[0] in _CHARDEV_USERS]
        return all("." in bad for bad in self._before) and all(bad.rpartition(".")[2] in harmless for bad in tables)

    # --- stages by themselves, and what they take outside ---------------------------------------------------------

    def _tables(self) -> None:
        for path, table in self.config.tables().items():
            for mistake in catalog.of(table).mistakes(table, path, self._clean(path)):
                self.note(*mistake)

    def _claims(self) -> None:
        claims = [
            claim for path, table in self.config.tables().items() for claim in catalog.of(table).claims(table, path)
        ]
        owners: dict[tuple[object, ...], str] = {}
        for claim in claims:
            if not claim.shared:
                self._taken(claim, owners.setdefault(claim.what, claim.path))
        for claim in claims:
            if claim.shared and claim.what in owners:
                self._taken(claim, owners[claim.what])
            for other in claims:
                if other.covers is not None and other.covers(claim.what):
                    self._taken(claim, other.path)

    def _taken(self, claim: Claim, owner: str) -> None:
        if owner != claim.path:
            path = f"{claim.path}.{claim.key}" if claim.key else claim.path
            self.note(path, claim.found.format(taken=owner), claim.expected.format(taken=owner))

    def _headers(self) -> None:
        """Both sides of a netdev agree on the virtio-net header, or one takes any."""
        for name, netdev in self.config.netdevs.items():
            says = {side: catalog.of(table).vnet(table) for side, table in netdev.sides.items()}
            for side, other in (SIDES, SIDES[::-1]):
                if says[side] and says[other] is False:
                    kinds = catalog.variants(NETDEV).values()
                    some = " or ".join(kind.variant for kind in kinds if kind.vnet_key)
                    key = catalog.of(netdev.sides[side]).vnet_key
                    what = f"false, or a {some} with {key} = true on the other side"
                    what += f", which is {catalog.of(netdev.sides[other]).variant} without"
                    path = f"{NETDEV}.{name}.{side}.{key}"
                    self.note(path, "true", f"{what}: packets would lose their header on the way")

    # --- objects --------------------------------------------------------------------------------------------------

    def _known(self, path: str, value: str | None, table: str, what: str) -> bool:
        """Whether the id ``value`` at ``path`` is one of ``table``'s; notes a mistake where not."""
        if not value:
            return False  # left out, or its mistake is noted already
        if value not in self.ids[table]:
            self.note(path, show(value), f"the id of a {what}: {nearest(value, self.ids[table])}")
        return value in self.ids[table]

    def _filters(self) -> None:
        seen: dict[str, str] = {}
        for name, made in self.config.filters.items():
            path = f"{FILTER}.{name}"
            self._known(f"{path}.netdev", made.netdev, NETDEV, NETDEV)
            self._position(path, name, made, seen)
            seen[name] = made.netdev

    def _position(self, path: str, name: str, made: Filter, seen: Mapping[str, str]) -> None:
        place, _, other = made.position.partition("=")
        if place != "id":
            return
        path = f"{path}.position"
        if other == name:
            self.note(path, show(made.position), "the id of another filter")
        elif other not in self.ids[FILTER]:
            self.note(path, show(made.position), f'"id=" and a filter: {nearest(other, self.ids[FILTER])}')
        elif other not in self.config.filters:
            return  # its table has mistakes of its own
        elif other not in seen:
            self.note(path, f"{show(made.position)}, which is defined later", f"[filter.{other}] above this table")
        elif seen[other] != made.netdev:
            found = f"{show(made.position)}, which is on netdev {show(seen[other])}"
            self.note(path, found, f"a filter on netdev {show(made.netdev)}")

    def _annexes(self) -> None:
        for kind, annex, tables in annexes.used(self.config):
            good = [name for name in tables if self._clean(f"{annex.table}.{name}")]
            sure, whole = self._clean(kind.table), self._clean(annex.table)
            for mistake in annexes.code(annex).mistakes(tables, good, self.ids[kind.table], sure=sure, whole=whole):
                self.note(*mistake)

    # --- chardevs -------------------------------------------------------------------------------------------------

    def _chardevs(self) -> None:
        used = self._links_known()
        for name, ends in self.users.items():
            for key in dict.fromkeys(use.key for use in (*ends.readers, *ends.writers)):
                self._known(key, name, CHARDEV, CHARDEV)
            for uses, verb in ((ends.readers, "reads"), (ends.writers, "writes")):
                for use in uses[1:]:
                    first = uses[0]
                    if first.port.stage != use.port.stage:  # within one object it is said where the object is checked
                        self.note(use.key, show(name), f"a chardev of its own; {first.key} {verb} this one")
            self._framing(name)
        for name, chardev in self.config.chardevs.items():
            ends = self.users.get(name, wiring.Users([], []))
            if isinstance(chardev, RingChardev):
                self._ring(name, ends, used=used)
            elif not ends.readers and not ends.writers and used and self._unhinted(name):
                found, keys = "a chardev that nobody uses", ", ".join(sorted(_CHARDEV_KEYS))
                self.note(f"{CHARDEV}.{name}", found, f"an object with it as one of {keys}, or no such table")

    def _unhinted(self, name: str) -> bool:
        """Whether no mistake names this chardev already: with its own table, or with an id meant to be this one."""
        unknown = [used for used in self.users if used not in self.ids[CHARDEV]]
        return self._clean(f"{CHARDEV}.{name}") and not any(likely(used, self.ids[CHARDEV]) == name for used in unknown)

    def _framing(self, name: str) -> None:
        ends = self.users[name]
        for writer in ends.writers[:1]:
            for reader in ends.readers[:1]:
                if writer.vnet != reader.vnet and writer.text == reader.text:
                    key = f"{reader.key.rpartition('.')[0]}.{FRAMING_KEY}"
                    what = f"the same at both ends of {name}: {writer.key.rpartition('.')[0]} has {show(writer.vnet)}"
                    self.note(key, show(reader.vnet), what)

    def _ring(self, name: str, ends: wiring.Users, *, used: bool) -> None:
        path = f"{CHARDEV}.{name}"
        talk = next((use.key.rpartition(".")[2] for use in (*ends.readers, *ends.writers) if use.text), "")
        if talk:
            self.note(f"{path}.backend", '"ring"', f'"socket": {talk} is for text to a peer outside')
        elif not used or not self._unhinted(name):
            return
        elif not ends.readers and not ends.writers:
            self.note(path, "a chardev that nobody uses", "one object that writes it and one that reads it")
        elif not ends.readers and len(ends.writers) == 1:  # with more, it is said what is wrong
            found = f"a ring that only {ends.writers[0].key} writes"
            self.note(path, found, f"an object that reads it ({_READ_KEYS})")
        elif not ends.writers and len(ends.readers) == 1:
            found = f"a ring that only {ends.readers[0].key} reads"
            self.note(path, found, f"an object that writes it ({_WRITE_KEYS})")

    # --- the rest -------------------------------------------------------------------------------------------------

    def _stages(self) -> None:
        rings = {name for name, chardev in self.config.chardevs.items() if isinstance(chardev, RingChardev)}
        owners: dict[str, str] = {}
        for table, names in self._stage_ids(rings):
            for name in names:
                taken = owners.setdefault(name, table)
                if taken != table:
                    self.note(f"{table}.{name}", f"the stage id {show(name)}", f"another id; a {taken} has this one")
        for name in self.config.stages:
            if name in rings and name not in owners:
                self.note(f"stage.{name}", f"{show(name)}, a chardev in memory", "a stage; a ring has no process")
            elif name not in owners:
                self.note(f"stage.{name}", show(name), f"the id of a stage: {nearest(name, owners)}")
        self._processes()

    def _stage_ids(self, rings: set[str]) -> Iterable[tuple[str, list[str]]]:
        yield NETDEV, [f"{name}.{side}" for name in self.ids[NETDEV] for side in SIDES]
        yield CHARDEV, [name for name in self.ids[CHARDEV] if name not in rings]
        for table in _OBJECTS:
            yield table, list(self.ids[table])

    def _processes(self) -> None:
        first: dict[tuple[str, str], str] = {}
        for name, placement in self.config.stages.items():
            process = process_of(self.config, name)
            for key in ("idle", "cpus"):
                value = getattr(placement, key)
                if value is None:
                    continue
                other = first.setdefault((process, key), name)
                theirs = getattr(self.config.stages[other], key)
                if theirs != value:
                    what = f"{show(theirs)}, as stage.{other}.{key} says: both run in process {process}"
                    self.note(f"stage.{name}.{key}", show(value), what)

    def _supervisor(self) -> None:
        first, cap = self.config.supervisor.backoff_initial_ms, self.config.supervisor.backoff_max_ms
        if first > cap:
            self.note("supervisor.backoff_initial_ms", str(first), f"at most backoff_max_ms, which is {cap}")
        socket = os.fsencode(self.config.control_socket)
        if len(socket) > SUN_PATH:
            found = f"a folder that makes the control socket's path {len(socket)} bytes long"
            self.note("pipeline.runtime_dir", found, f"a shorter one: at most {SUN_PATH} in all, see unix(7)")

    def _loop(self) -> None:
        found = wiring.loop(self.config)
        if not found:
            return
        stages = dict.fromkeys(port.stage for port in found)
        ring = {str(use.port): name for name, ends in self.users.items() for use in ends.writers}
        through = [ring[str(port)] for port in found if str(port) in ring]
        self.note(
            f"{CHARDEV}.{through[0]}",
            f"a loop: {' -> '.join(str(port) for port in found)}",
            f"a way that ends: frames would go round {' and '.join(stages)} for ever",
        )


def process_of(config: Config, stage: str) -> str:
    """Name of the process that runs a stage."""
    placement = config.stages.get(stage)
    if placement is not None and placement.process is not None:
        return placement.process
    return "pipeline" if config.pipeline.placement == "shared" else stage
