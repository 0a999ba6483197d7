"""A QEMU command line to the tables of a config.toml, and the command line that QEMU needs from then on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from stages.kind import FILTER, VARIANT_KEYS, Claim, Kind
from stages.schema import FILE, ID, IDENT, Mistake, Reader
from tools.from_qemu import endpoints
from tools.from_qemu.endpoints import Names, switch, whole
from tools.from_qemu.model import Asked, Converted, Note, Table, Thing
from tools.from_qemu.options import Option, keys, options
from tools.from_qemu.properties import (
    KINDS,
    LINKS,
    OTHERS,
    PARTS,
    intended,
    is_foreign,
    kind_of,
    meant,
    unknown,
)
from tools.from_qemu.remains import Remains
from tools.from_qemu.words import CommandLine, Trouble, show

PRIMARY: Final = "primary"
SECONDARY: Final = "secondary"
_COMPARE: Final = "colo-compare"  # by its name, as others below, only where there is advice about it alone


def colo_objects(line: CommandLine) -> list[str]:
    """The types of the filters and compares that a command line has; a misspelt one is what it was meant to be."""
    found = (intended(kind_of(o)) for o in options(line.words) if o.name == "object" and o.value is not None)
    return [kind for kind in found if kind and (kind in PARTS or kind not in KINDS)]


def side_of(kinds: Iterable[str]) -> str:
    """Which side has objects of these types."""
    return PRIMARY if any(kind in KINDS and KINDS[kind].qemu.side == PRIMARY for kind in kinds) else SECONDARY


def _order(note: Note) -> int:
    """The number of a note's line or word; what has none stands last."""
    m = re.match(r"(?:process \d+, )?(?:line|word) (\d+)", note.place)
    return int(m[1]) if m else 1 << 30


class _Trial(NamedTuple):
    """What is wrong with an object for its kind, and what it takes."""

    mistakes: Sequence[str] = ()
    claims: Sequence[Claim] = ()


def convert(line: CommandLine, asked: Asked) -> Converted:
    """Convert one command line.  Raises `Trouble` where it cannot be understood."""
    return _Conversion(line, asked).run()


class _Conversion:
    def __init__(self, line: CommandLine, asked: Asked) -> None:
        self.asked = asked
        self.items = list(options(line.words))
        self.notes = [Note(*said) for said in line.said]
        self.foreign: list[Option] = []
        self.chardevs: dict[str, Thing] = {}
        self.netdevs: dict[str, Thing] = {}
        self.objects: dict[str, Thing] = {}  # all of them: QEMU's objects share one namespace
        self.names = Names(asked.hosts, asked.taps)
        self.guest = line.guest
        self._collect()
        self.names.used |= {n.values["ifname"] for n in self.netdevs.values() if "ifname" in n.values}
        self.names.used |= set(asked.taps.values())
        found = [o for o in self.objects.values() if o.kind in KINDS]
        self.ours = [o for o in found if KINDS[o.kind].qemu.part]
        extras = self._extras([o for o in found if o not in self.ours])
        self.ours = [o for o in found if o in self.ours or o in extras]
        self.side = self._side(line.place)
        self.name = self._name()

    def run(self) -> Converted:
        if not any(o.kind in PARTS for o in self.ours):
            other = f", only {keys(self.foreign[0])['qom-type']}" if self.foreign else ""
            missing = f"no {', '.join(PARTS[:-1])} or {PARTS[-1]} in the command line{other}"
            raise Trouble("", missing, "give one that has them")
        self._unknown_properties()
        wanted = {v: None for o in self.ours for k, v in o.values.items() if k in LINKS and v}
        used = [n for n in self.chardevs if n in wanted] + [n for n in wanted if n not in self.chardevs]
        addresses = {name: self._chardev(name) for name in used}
        chardevs = {name: self.chardevs[name] for name in used if name in self.chardevs}
        self.remains = Remains(
            self.items, self.objects, self.ours, chardevs, self._filtered(), self.asked, self.name,
            self.foreign,
        )  # fmt: skip
        rings = self._rings(addresses)
        for name in chardevs.keys() - rings.keys():
            self._resolve(addresses[name], chardevs[name])
        names = self._stage_names(addresses, rings)
        filters_first = sorted(self.ours, key=lambda thing: KINDS[thing.kind].table != FILTER)
        objects: dict[tuple[str, ...], Table] = {}
        for thing in filters_first:
            objects[KINDS[thing.kind].table, thing.id] = self._object(thing, names)
        netdevs = {name: self._netdev(name) | self._gate(name) for name in self._filtered()}
        self._missing_parts()
        tables: dict[tuple[str, ...], Table] = {("pipeline",): {"name": self.name, "runtime_dir": self.asked.runtime}}
        for name in used:
            if rings.get(name, name) == name:
                tables["chardev", names[name]] = {"backend": "ring"} if name in rings else addresses[name]
        tables |= {("netdev", name): table for name, table in netdevs.items()}
        tables |= objects
        for name in sorted(self.asked.hosts.keys() - self.names.replaced):
            self._note("note", "--replace-host", f"no host {show(name)} in what is carried over")
        qemu, notes = self.remains.options(self.netdevs)
        places: dict[tuple[str, ...], str] = {path: self.objects[path[1]].place for path in objects}
        places |= {("netdev", name): self.netdevs[name].place for name in netdevs if name in self.netdevs}
        places |= {("chardev", names[name]): chardevs[name].place for name in used if name in chardevs}
        return Converted(self.side, tables, sorted(self.notes + notes, key=_order), qemu, places)

    def _note(self, kind: str, place: str, text: str) -> None:
        self.notes.append(Note(kind, place, text))

    # --- reading --------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        tables = {"chardev": self.chardevs, "netdev": self.netdevs, "nic": self.netdevs, "object": self.objects}
        for option in self.items:
            if option.mended:
                self._note("note", option.place, option.mended)
            if option.name == "readconfig" and option.value is not None:
                self._note("lost", option.place, f"{show(option.value.value)} is not read: put its options here")
            elif option.name == "name" and option.value is not None:
                self.guest = keys(option).get("guest", "")
            elif not option.name and option.word.value and not option.word.unknown:
                self._note(
                    "note", option.place, f"{show(option.word.value)} belongs to no option; QEMU gets it as it is"
                )
            elif option.name in tables and option.value is not None:
                self._keep(tables[option.name], option)

    def _keep(self, table: dict[str, Thing], option: Option) -> None:
        assert option.value is not None
        values = keys(option)
        name = values.get("id", "")
        kind = values.get("qom-type", "")
        if option.name == "object" and is_foreign(option, kind):
            self.foreign.append(option)
            place = " ".join(filter(None, (f"{option.word.place}, {kind}", name)))
            text = "QEMU 7.2 has no such object, it is a patched QEMU's: it is left out here, and in QEMU's new command"
            self._note("lost", place, f"{text} line, where it would stand between the guest and the pipeline")
            return
        if not name:
            if kind in KINDS:
                raise Trouble(option.place, f"{kind} without an id", "give it one: id=NAME")
            return
        if name in table:
            raise Trouble(option.place, f"a second {show(name)}", f"another id; {table[name].place} has this one")
        table[name] = Thing(name, option, values)

    def _known(self, thing: Thing) -> None:
        """Raise `Trouble` where a variable without a value stands in what is carried over."""
        value = thing.option.value
        if value is not None and value.unknown:
            name = value.unknown[0]
            plain = re.sub(r"[${}]", "", name)
            mend = f"give it: --define {plain}=VALUE" if re.fullmatch(r"\w+", plain) else "write its value instead"
            raise Trouble(thing.place, f"the value of {show(name)} is not known here", mend)

    def _side(self, place: str) -> str:
        """Whose command line it is.  Raises `Trouble` where its objects are the other side's than what is asked for."""
        found = side_of(o.kind for o in self.ours)
        told_first = sorted(self.ours, key=lambda thing: KINDS[thing.kind].table == FILTER)  # of a side that has both
        primary, secondary = (
            [o for o in told_first if KINDS[o.kind].qemu.side == side] for side in (PRIMARY, SECONDARY)
        )
        if self.asked.side in (None, found) or bool(primary) == bool(secondary):  # both: one that has taken over
            return self.asked.side or found
        shown = (primary or secondary)[0]
        what = f"{place} is the {found}'s ({shown.kind} {show(shown.id)[1:-1]}), not the {self.asked.side}'s"
        raise Trouble("", what, f"give the {self.asked.side}'s command line, or leave --side out")

    def _name(self) -> str:
        if self.asked.name:
            return self.asked.name
        name = re.sub(r"[^a-z0-9-]+", "-", self.guest.lower()).strip("-")[:32].rstrip("-")
        if name and name != self.guest:
            self._note("note", "-name", f"the pipeline is called {name}: a-z, 0-9 and - are what its name can have")
        return name or self.side

    # --- chardevs -------------------------------------------------------------------------------------------------

    def _chardev(self, name: str) -> Table:
        stand_in = {"path": f"{self.asked.runtime}/{self.name}-{name}.sock", "server": True}
        thing = self.chardevs.get(name)
        if thing is None:
            user, key = next((o, key) for o in self.ours for key in LINKS if o.values.get(key) == name)
            self._near(user, key, self.chardevs)
            text = f"no -chardev has the id {show(name)}; a unix socket, {stand_in['path']}, stands in for it"
            self._note("lost", user.place, text)
            return {"backend": "socket", **stand_in}
        self._known(thing)
        table, notes = endpoints.chardev(name, thing.values, thing.place, stand_in, self.names)
        self.notes += notes
        return table

    def _resolve(self, table: Table, thing: Thing) -> None:
        """Relative paths of sockets start from the folder that QEMU runs in."""
        if table.get("path") is not None:
            table["path"] = self._path(table["path"], thing.place, "path")

    def _rings(self, addresses: Mapping[str, Table]) -> dict[str, str]:
        """Both ends of each pair that only joins two objects of this command line, by the server's id."""
        rings: dict[str, str] = {}
        notify = {o.values.get("notify_dev") for o in self.ours}
        servers = [n for n, table in addresses.items() if table.get("server") and n not in notify]
        clients = [n for n, table in addresses.items() if not table.get("server") and n not in notify]
        for server in servers:
            pair = [n for n in clients if n not in rings and endpoints.same_place(addresses[server], addresses[n])]
            if len(pair) == 1 and self._one_way(server, pair[0]):
                rings[server] = rings[pair[0]] = server
                at = addresses[server].get("path") or f"port {addresses[server]['port']}"
                text = f"{server} and {pair[0]} only join two objects of this QEMU ({at}): one ring, {server}"
                self._note("note", self.chardevs[server].place, text)
        return rings

    def _one_way(self, server: str, client: str) -> bool:
        """Whether one end is only written and the other only read."""

        def ways(name: str) -> set[str]:
            return {
                "write" if key == "outdev" else "read"
                for o in self.ours
                for key in LINKS
                if o.values.get(key) == name and key != "notify_dev"
            }

        return sorted(map(sorted, (ways(server), ways(client)))) == [["read"], ["write"]]

    def _stage_names(self, addresses: Mapping[str, Table], rings: Mapping[str, str]) -> dict[str, str]:
        """What each chardev is called here: an object may have the same id in QEMU, but not here."""
        taken = {o.id for o in self.ours} | {f"{n}.{s}" for n in self._filtered() for s in ("network", "guest")}
        names: dict[str, str] = {}
        for name in addresses:
            called = rings.get(name, name)
            while called in taken:
                called += "-chardev"
            if called != rings.get(name, name) and name == rings.get(name, name):
                self._note("note", "", f"chardev {name} is called {called}: an object has its id")
            names[name] = called
        return names

    # --- objects --------------------------------------------------------------------------------------------------

    def _extras(self, found: Sequence[Thing]) -> list[Thing]:
        """Those of the objects that are no part of COLO which go along with the parts on their netdev."""
        netdevs, along = self._filtered(), []
        beside = {thing.id: thing.values.get("netdev", "") in netdevs for thing in found}
        trials = {thing.id: self._trial(thing, beside[thing.id]) for thing in found}
        for thing in found:
            wrong = [*trials[thing.id].mistakes, *self._taken(thing.id, trials)]
            if not beside[thing.id]:
                self._note("note", thing.place, "no part of COLO is on its netdev: it stays in QEMU")
            elif wrong:
                text = "it stays in QEMU, between the guest and the pipeline"
                self._note("lost", thing.place, "; ".join([*wrong, text]))
            else:
                along.append(thing)
        return along

    def _trial(self, thing: Thing, beside: bool) -> _Trial:
        """What its kind says of an object: what is right for QEMU, perhaps on another host, may be wrong here.

        Raises `Trouble` for what QEMU would refuse of one that stands ``beside`` a part of COLO.
        """
        try:
            self._known(thing)
        except Trouble as trouble:
            return _Trial([str(trouble).removeprefix(f"{thing.place}: ")])
        kind, told = KINDS[thing.kind], len(self.notes)
        try:
            unknown(thing)
            table, mistakes = self._read(kind, self._properties(thing, {}))
        except Trouble:
            if beside:
                raise
            return _Trial()
        del self.notes[told:]
        mistakes += kind.mistakes(table, "", not mistakes)
        if not re.fullmatch(ID, thing.id):
            mistakes.append(Mistake(".id", show(thing.id), IDENT.expected))
        return _Trial([str(mistake).removeprefix(".") for mistake in mistakes], list(kind.claims(table, "")))

    def _taken(self, name: str, trials: Mapping[str, _Trial]) -> Iterable[str]:
        """What others take, too.  Also what stays in QEMU takes it, so then both stay there."""
        for claim in trials[name].claims:
            others = (n for n, t in trials.items() if n != name and any(c.what == claim.what for c in t.claims))
            for other in others:
                taken = self.objects[other].place
                found, expected = claim.found.format(taken=taken), claim.expected.format(taken=taken)
                yield str(Mistake(claim.path, found, expected)).removeprefix(".")

    def _read(self, kind: Kind, table: Table) -> tuple[Any, list[Mistake]]:
        """A table as its kind's class, and what is wrong with its keys."""
        reader = Reader(Path(self.asked.base).absolute(), [])
        return reader.read(kind.config, table, ""), reader.mistakes

    def _object(self, thing: Thing, names: Mapping[str, str]) -> Table:
        kind, table = KINDS[thing.kind], self._properties(thing, names)
        made, mistakes = self._read(kind, table)
        if not mistakes:
            for text in kind.qemu.differs(made):
                self._note("note", thing.place, text)
        if kind.variant:
            table = {VARIANT_KEYS[kind.table]: kind.variant, **table}
        position = table.get("position", "")
        if position.startswith("id=") and position[3:] not in {o.id for o in self.ours}:
            del table["position"]
            table.pop("insert", None)
            text = f"position={position}: that filter is not in the pipeline; it stands at the tail"
            self._note("lost", thing.place, text)
        if thing.kind == _COMPARE and "notify_dev" not in table:
            table["checkpoint"] = "local"
            text = "it asked the COLO frame inside QEMU for checkpoints, which a pipeline cannot reach: a difference is"
            text += ' logged and that connection goes on uncompared (checkpoint = "local") until you join a COLO frame'
            self._note("lost", thing.place, f"{text} with notify_dev")
        return table

    def _properties(self, thing: Thing, names: Mapping[str, str]) -> Table:
        """The properties of an object that its kind has, too, as the kind's table takes them."""
        self._known(thing)
        kind, table = KINDS[thing.kind], Table()
        checks = {f.name: f for f in fields(kind.config)}
        for key in kind.qemu.properties:
            value, usual = thing.values.get(key, ""), checks[key].default
            if isinstance(usual, bool):
                if switch(thing.values, key, False, thing.place):
                    table[key] = True
            elif isinstance(usual, int):
                if key in thing.values:
                    table[key] = self._number(thing, kind, key)
            elif value and checks[key].metadata["check"] is FILE:
                table[key] = self._path(value, thing.place, key)
            elif value:
                table[key] = names[value] if key in LINKS else value
        return table

    def _number(self, thing: Thing, kind: Kind, key: str) -> int:
        value = whole(thing.values[key], key, thing.place)
        most = kind.qemu.most.get(key, value)
        if value > most:
            self._note("note", thing.place, f"{key}={value} is {most} here: more would change nothing")
        return min(value, most)

    def _path(self, path: str, place: str, key: str) -> str:
        """Relative paths start from the folder that QEMU runs in."""
        if path.startswith("/") or self.asked.folder is None:
            if not path.startswith("/"):
                self._note("do", place, f"{key}={path} is relative: it starts from the config's folder now")
            return path
        return f"{self.asked.folder}/{path}"

    def _unknown_properties(self) -> None:
        for thing in self.ours:
            for key in unknown(thing):
                self._note("lost", thing.place, f"{key}={thing.values[key]}; no such property here")

    def _near(self, thing: Thing, key: str, known: Mapping[str, Thing]) -> None:
        """Raise `Trouble` where an id that is not there was meant to be one that nobody of ours names."""
        value = thing.values[key]
        named = {o.values.get(k, "") for o in self.ours for k in (*LINKS, "netdev")}
        near = meant(value, known.keys() - named)
        if near is not None:
            raise Trouble(thing.place, f"{key}={show(value)[1:-1]}: there is none of that id", f"{near}, perhaps")

    def _missing_parts(self) -> None:
        for thing in self.ours:
            thread = thing.values.get("iothread", "")
            if thread and thread not in self.objects:
                self._note(
                    "note",
                    thing.place,
                    f"no -object has the id {show(thread)}: QEMU would refuse it, here it needs none",
                )
        kinds = {o.kind for o in self.ours}
        wrong = next(iter(self.asked.taps.keys() - set(self._filtered())), None)
        if wrong is not None:
            raise Trouble("--tap", f"no filter is on a netdev {show(wrong)}", f"one of: {', '.join(self._filtered())}")
        if any("vnet_hdr_support" in o.values for o in self.ours):
            text = "vnet_hdr_support: the links keep QEMU's framing, but a -netdev stream has no virtio-net header:"
            self._note("note", "", f"{text} its length is 0; convert both sides, not one")
        if self.side == SECONDARY and "filter-rewriter" not in kinds:
            text = "no filter-rewriter: sequence numbers of the two guests differ, so every TCP connection will be a"
            self._note("do", "", f"{text} difference; add one with queue=all behind them")
        compare = next((o for o in self.ours if o.kind == _COMPARE), None)
        if compare is not None and "filter-mirror" not in kinds:
            text = "no filter-mirror: the secondary's guest gets none of the packets that clients send; add one"
            self._note("do", compare.place, f"{text} with queue=tx and outdev=")
        if self.side == PRIMARY and compare is None:
            self._note("note", "", "no colo-compare in this command line: nothing is compared here")
        for thing in self.objects.values():
            if thing.kind in OTHERS:
                text = "it has no counterpart: it stays in QEMU, between the guest and the pipeline"
                self._note("lost", thing.place, text)
            position = thing.values.get("position", "")
            if thing not in self.ours and any(position == f"id={o.id}" for o in self.ours):
                text = f"position={position}: that filter is not in QEMU any more, which will refuse this one: take its"
                self._note("do", thing.place, f"{text} position and insert out")

    # --- netdevs --------------------------------------------------------------------------------------------------

    def _filtered(self) -> list[str]:
        """The netdevs that have one of our filters, in QEMU's order."""
        used = {o.values.get("netdev", "") for o in self.ours if KINDS[o.kind].table == FILTER} - {""}
        return [n for n in self.netdevs if n in used] + sorted(used - self.netdevs.keys())

    def _netdev(self, name: str) -> Table:
        thing = self.netdevs.get(name)
        guest: Table = {"backend": "stream", **self.remains.guest_address(name)}
        if not self.asked.listens:
            guest["server"] = True
        if thing is None:
            user = next(o for o in self.ours if o.values.get("netdev") == name)
            self._near(user, "netdev", self.netdevs)
            table: Table = {"backend": "null"}
            if name in self.asked.taps:
                table = {"backend": "tap", "ifname": self.names.tap(name, "")}
            else:
                text = f"no -netdev has the id {show(name)}; the network side is null until you say what it is"
                self._note("lost", user.place, text)
            stream = self.remains.stream(name)
            self._note("do", user.place, f"where {name} is made for QEMU, it becomes `-netdev {stream}`")
            return {"network": table, "guest": guest}
        self._known(thing)
        values = dict(thing.values)
        if values.get("type") == "tap" and self.asked.running and name not in self.asked.taps:
            taps = [n for n in self._filtered() if self._is_tap(n)]
            if len(taps) == len(self.asked.running):
                values["ifname"] = self.asked.running[taps.index(name)]
        if values.get("type") == "tap" and self.asked.hidden and not (values.get("ifname") or name in self.asked.taps):
            text = (
                f"only QEMU's user and root may see which TAP device it has: ask as one of them, or --tap {name}=NAME"
            )
            self._note("lost", thing.place, text)
        made = endpoints.network(name, values, thing.place, self.names)
        self.notes += made.notes
        self._resolve(made.table, thing)
        return {"network": made.table, "guest": guest}

    def _gate(self, name: str) -> Table:
        """What ``[netdev.ID]`` has besides its sides: a secondary's guest reaches the network as QEMU lets it."""
        for thing in self.ours:
            if KINDS[thing.kind].marks_secondary and thing.values.get("netdev") == name:
                text = 'before_failover = "pass", as QEMU does: while the link to the primary is down, two hosts answer'
                text += f" for one address; without that line {name} is closed until `control {self.name} failover`"
                self._note("note", thing.place, text)
                return {"before_failover": "pass"}
        return {}

    def _is_tap(self, name: str) -> bool:
        return name in self.netdevs and self.netdevs[name].values.get("type") == "tap"
