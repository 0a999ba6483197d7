"""What is wrong with a config although each of its tables is right: ids, links, addresses, files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path

from pipeline import wiring
from pipeline.tables import (
    FILTERS,
    Compare,
    Config,
    Filter,
    Link,
    Null,
    Packet,
    Pcap,
    Redirector,
    Rewriter,
    Socket,
    Stream,
    Tap,
)
from stages.compare.rules import rule_set as rules
from stages.schema import Reader, likely, nearest, show

_SUN_PATH = 107  # bytes of a unix socket's path, unix(7)
_LINKS = {"indev", "outdev", "primary_in", "secondary_in", "notify_dev"}


class Checker:
    """Looks over a config and notes what does not fit together.

    ``ids`` are all ids of each table (``filter`` ...), also of those whose table had mistakes.  Where a table had any,
    nothing is said about what could follow from them.
    """

    def __init__(self, config: Config, reader: Reader, ids: Mapping[str, tuple[str, ...]]) -> None:
        self.config, self.note, self.ids = config, reader.note, ids
        self._before = tuple(mistake.path for mistake in reader.mistakes)
        self.users = wiring.users(config.filters, config.compares)

    def run(self) -> None:
        """All checks."""
        self._addresses()
        self._sides()
        self._captures()
        self._filters()
        self._compares()
        self._rules()
        self._chardevs()
        self._stages()
        self._supervisor()
        if not self.ids["compare"] and not self.ids["netdev"] and self._clean("netdev", "compare"):
            self.note("netdev", "nothing", "a [netdev.ID] or a [compare.ID]: without them no packet can move")
        if self._links_known() and not {"queue", "netdev", "position", "insert", "backend"} & self._bad_keys():
            self._loop()

    def _clean(self, *paths: str) -> bool:
        """Whether the tables below ``paths`` had no mistake of their own, and no table was called something else."""
        return not any("." not in bad or f"{bad}.".startswith(f"{path}.") for bad in self._before for path in paths)

    def _bad_keys(self) -> set[str]:
        return {bad.rpartition(".")[2] for bad in self._before}

    def _links_known(self) -> bool:
        """Whether it is known who uses which chardev: no table or key that would say so is misspelt or wrong."""
        harmless = {f.name for cls in (*FILTERS.values(), Compare) for f in fields(cls)} - _LINKS
        tables = [bad for bad in self._before if bad.partition(".")[0] in ("filter", "compare")]
        return all("." in bad for bad in self._before) and all(bad.rpartition(".")[2] in harmless for bad in tables)

    # --- endpoints ----------------------------------------------------------------------------------------------

    def _addresses(self) -> None:
        ends: list[tuple[str, Socket | Stream]] = []
        ends += [(f"chardev.{name}", dev) for name, dev in self.config.chardevs.items() if isinstance(dev, Socket)]
        for name, netdev in self.config.netdevs.items():
            ends += [(f"netdev.{name}.{s}", side) for s, side in netdev.sides.items() if isinstance(side, Stream)]
        listening: dict[tuple[str | int | None, ...], str] = {}
        for path, end in ends:
            if not self._address(path, end) or not end.server:
                continue
            taken = listening.setdefault((end.host, end.port, end.path), path)
            if taken != path:
                at = end.path or f"{end.host}:{end.port}"
                self.note(path, f"a second server at {at}", f"an address of its own; {taken} listens there")

    def _address(self, path: str, end: Socket | Stream) -> bool:
        if end.path is not None:
            if end.host is not None or end.port is not None:
                self.note(path, "path and host or port", "either path, or host and port")
                return False
            size = len(os.fsencode(end.path))
            if size > _SUN_PATH:
                self.note(f"{path}.path", f"{size} bytes: {show(end.path)}", f"at most {_SUN_PATH} bytes, see unix(7)")
            return size <= _SUN_PATH
        if end.host is None or end.port is None:
            found = "only a host" if end.host is not None else "only a port" if end.port is not None else "no address"
            if self._clean(path):
                self.note(path, found, "host and port, or path")
            return False
        return True

    def _sides(self) -> None:
        taps: dict[tuple[str, str | None], str] = {}
        for name, netdev in self.config.netdevs.items():
            for label, side in netdev.sides.items():
                path, other = f"netdev.{name}.{label}", netdev.guest if label == "network" else netdev.network
                if isinstance(side, Tap | Packet) and side.ifname:
                    taken = taps.setdefault((side.ifname, side.netns), path)
                    if taken != path:
                        self.note(f"{path}.ifname", show(side.ifname), f"another interface; {taken} has this one")
                if isinstance(side, Tap | Packet) and side.vnet_hdr and not self._takes_vnet(other):
                    what = "false, or a tap or packet with vnet_hdr = true on the other side"
                    what += f", which is {other.BACKEND} without"
                    self.note(f"{path}.vnet_hdr", "true", f"{what}: packets would lose their header on the way")

    @staticmethod
    def _takes_vnet(side: object) -> bool:
        return isinstance(side, Null) or (isinstance(side, Tap | Packet) and side.vnet_hdr)

    def _captures(self) -> None:
        sides = [
            (f"netdev.{name}.{label}", side)
            for name, netdev in self.config.netdevs.items()
            for label, side in netdev.sides.items()
        ]
        written: dict[str, str] = {}
        for path, side in sides:
            if isinstance(side, Pcap) and side.write is not None:
                self._written(f"{path}.write", side.write, written)
            if isinstance(side, Tap | Packet) and side.record is not None:
                self._written(f"{path}.record", side.record, written)
        for path, side in sides:
            if not isinstance(side, Pcap):
                continue
            if side.read is None and side.write is None and self._clean(path):
                self.note(path, "neither read nor write", 'a capture to read or to write, or backend = "null"')
            if side.read is not None and not Path(side.read).is_file():
                self.note(f"{path}.read", f"no file {show(side.read)}", "a capture (pcap or pcapng) that is there")
            if side.read in written:
                found = f"{show(side.read)}, which {written[side.read]} overwrites"
                self.note(f"{path}.read", found, "a capture that stays as it is")

    def _written(self, key: str, file: str, written: dict[str, str]) -> None:
        folder = os.path.dirname(file)
        if not os.path.isdir(folder):
            self.note(key, f"no folder {show(folder)}", "a file in a folder that is there")
        taken = written.setdefault(file, key)
        if taken != key:
            self.note(key, show(file), f"a file of its own; {taken} writes this one")

    # --- objects ------------------------------------------------------------------------------------------------

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
            path = f"filter.{name}"
            self._known(f"{path}.netdev", made.netdev, "netdev", "netdev")
            self._position(path, name, made, seen)
            seen[name] = made.netdev
            if isinstance(made, Rewriter) and made.queue != "all":
                self.note(f"{path}.queue", show(made.queue), '"all": a rewriter has to see both directions')
            if isinstance(made, Redirector):
                if made.indev is None and made.outdev is None and self._clean(path):
                    self.note(path, "neither indev nor outdev", "indev, outdev, or two different ones")
                elif made.indev is not None and made.indev == made.outdev:
                    self.note(
                        f"{path}.outdev", f"{show(made.outdev)}, which is indev too", "another chardev than indev"
                    )

    def _position(self, path: str, name: str, made: Filter, seen: Mapping[str, str]) -> None:
        place, _, other = made.position.partition("=")
        if place != "id":
            return
        path = f"{path}.position"
        if other == name:
            self.note(path, show(made.position), "the id of another filter")
        elif other not in self.ids["filter"]:
            self.note(path, show(made.position), f'"id=" and a filter: {nearest(other, self.ids["filter"])}')
        elif other not in self.config.filters:
            return  # its table has mistakes of its own
        elif other not in seen:
            self.note(path, f"{show(made.position)}, which is defined later", f"[filter.{other}] above this table")
        elif seen[other] != made.netdev:
            found = f"{show(made.position)}, which is on netdev {show(seen[other])}"
            self.note(path, found, f"a filter on netdev {show(made.netdev)}")

    def _compares(self) -> None:
        for name, compare in self.config.compares.items():
            folder = compare.divergences
            if folder and os.path.lexists(folder) and not os.path.isdir(folder):
                self.note(
                    f"compare.{name}.divergences", f"a file, {folder}", "a folder, or a path where one can be made"
                )
            taken: dict[str, str] = {}
            for port in ("primary_in", "secondary_in", "outdev", "notify_dev"):
                value = getattr(compare, port)
                if not value:
                    continue
                other = taken.setdefault(value, port)
                if other != port:
                    self.note(f"compare.{name}.{port}", f"{show(value)}, which is {other} too", "a chardev of its own")

    def _rules(self) -> None:
        sure, found = self._clean("compare"), not self._clean("rule")
        for name, rule in self.config.rules.items():
            if self._clean(f"rule.{name}"):
                for mistake in rules.mistakes(name, rule, self.ids["compare"], sure=sure):
                    self.note(*mistake)
                    found = True
        if self.config.rules and not found:
            try:
                made = rules.RuleSet().extended(self.config.rules)
                for compare in self.config.compares:
                    made.words(compare)
            except rules.TooMuch as error:
                self.note("rule", *error.args)

    # --- chardevs -----------------------------------------------------------------------------------------------

    def _chardevs(self) -> None:
        used = self._links_known()
        for name, ends in self.users.items():
            for key in dict.fromkeys(use.key for use in (*ends.readers, *ends.writers)):
                self._known(key, name, "chardev", "chardev")
            for uses, verb in ((ends.readers, "reads"), (ends.writers, "writes")):
                for use in uses[1:]:
                    first = uses[0]
                    if first.port.stage != use.port.stage:  # within one object it is said where the object is checked
                        self.note(use.key, show(name), f"a chardev of its own; {first.key} {verb} this one")
            self._framing(name)
        for name, chardev in self.config.chardevs.items():
            ends = self.users.get(name, wiring.Users((), ()))
            if isinstance(chardev, Link):
                self._link(name, ends, used=used)
            elif not ends.readers and not ends.writers and used and self._unhinted(name):
                found = "a chardev that nobody uses"
                self.note(f"chardev.{name}", found, "an object with it as indev, outdev ..., or no such table")

    def _unhinted(self, name: str) -> bool:
        """Whether no mistake names this chardev already: with its own table, or with an id meant to be this one."""
        unknown = [used for used in self.users if used not in self.ids["chardev"]]
        return self._clean(f"chardev.{name}") and not any(likely(used, self.ids["chardev"]) == name for used in unknown)

    def _framing(self, name: str) -> None:
        ends = self.users[name]
        for writer in ends.writers[:1]:
            for reader in ends.readers[:1]:
                if writer.vnet != reader.vnet and writer.notify == reader.notify:
                    key = f"{reader.key.rpartition('.')[0]}.vnet_hdr_support"
                    what = f"the same at both ends of {name}: {writer.key.rpartition('.')[0]} has {show(writer.vnet)}"
                    self.note(key, show(reader.vnet), what)

    def _link(self, name: str, ends: wiring.Users, *, used: bool) -> None:
        path = f"chardev.{name}"
        if any(use.notify for use in ends.readers):
            self.note(
                f"{path}.backend", '"ring"', '"socket": notify_dev speaks with the COLO frame, outside the pipeline'
            )
        elif not used or not self._unhinted(name):
            return
        elif not ends.readers and not ends.writers:
            self.note(path, "a chardev that nobody uses", "one object that writes it and one that reads it")
        elif not ends.readers and len(ends.writers) == 1:  # with more, it is said what is wrong
            self.note(path, f"a ring that only {ends.writers[0].key} writes", "an object that reads it (indev ...)")
        elif not ends.writers and len(ends.readers) == 1:
            self.note(path, f"a ring that only {ends.readers[0].key} reads", "an object that writes it (outdev)")

    # --- the rest -----------------------------------------------------------------------------------------------

    def _stages(self) -> None:
        rings = {name for name, chardev in self.config.chardevs.items() if isinstance(chardev, Link)}
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
        yield "netdev", [f"{name}.{side}" for name in self.ids["netdev"] for side in ("network", "guest")]
        yield "chardev", [name for name in self.ids["chardev"] if name not in rings]
        yield "filter", list(self.ids["filter"])
        yield "compare", list(self.ids["compare"])

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
        if len(socket) > _SUN_PATH:
            found = f"a folder that makes the control socket's path {len(socket)} bytes long"
            self.note("pipeline.runtime_dir", found, f"a shorter one: at most {_SUN_PATH} in all, see unix(7)")

    def _loop(self) -> None:
        found = wiring.loop(self.config)
        if not found:
            return
        stages = dict.fromkeys(port.stage for port in found)
        ring = {str(use.port): name for name, ends in self.users.items() for use in ends.writers}
        through = [ring[str(port)] for port in found if str(port) in ring]
        self.note(
            f"chardev.{through[0]}",
            f"a loop: {' -> '.join(str(port) for port in found)}",
            f"a way that ends: frames would go round {' and '.join(stages)} for ever",
        )


def process_of(config: Config, stage: str) -> str:
    """Name of the process that runs a stage."""
    placement = config.stages.get(stage)
    if placement is not None and placement.process is not None:
        return placement.process
    return "pipeline" if config.pipeline.placement == "shared" else stage
