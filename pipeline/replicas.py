"""Whether each input of a compare gets its own replica's packets, as far as a config by itself shows that.  Pure.

It shows where objects of the same config feed an input: over memory, or over an address at which both ends meet.  What
comes from another host cannot be told by a config, nor by the packets: equal outputs are what COLO is there for.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline import wiring
from pipeline.tables import Config
from stages import catalog
from stages.filter import Filter
from stages.kind import FILTER, PRIMARY
from stages.schema import Mistake, show


def mistaken(config: Config) -> Iterable[Mistake]:
    """Inputs that get the other replica's packets; of a config whose links are all known."""
    filters = {f"{FILTER}.{name}": made for name, made in config.filters.items()}
    secondaries = {made.netdev for made in filters.values() if catalog.of(made).marks_secondary}
    givers: dict[str, Filter] = {}  # by the key that takes frames
    leads: dict[str, str] = {}  # by the key that gives them: to which netdev
    for writer, reader in wiring.joined(config):
        if (giver := filters.get(_path(writer))) is not None:
            givers[reader.key] = giver
        if (taker := filters.get(_path(reader))) is not None:
            leads[writer.key] = taker.netdev
    for path, table in config.computing().items():
        links = catalog.of(table).chardevs
        out = {leads.get(f"{path}.{link.key}", "") for link in links if link.writes and not link.text} - {""}
        inputs = {link.of: f"{path}.{link.key}" for link in links if link.of}
        exchanged = " and ".join(key.rpartition(".")[2] for key in inputs.values()) + " are exchanged, perhaps"
        fed = {of: givers[key] for of, key in inputs.items() if key in givers}
        for of, giver in fed.items():
            brings = f"packets of netdev {show(giver.netdev)}"
            # Where its own output leads back there, that is a secondary which became the primary of another one.
            if of == PRIMARY and giver.netdev in secondaries - out:
                why = f"{brings}, in whose chain a rewriter stands: they are the secondary's"
            elif of != PRIMARY and giver.netdev in out - secondaries and not _both(fed, giver):
                why = f"{brings}, to which its own output leads: they are the primary's"
            else:
                continue
            yield Mistake(inputs[of], why, f"the {of}'s packets; {exchanged}")


def _path(use: wiring.Use) -> str:
    return use.key.rpartition(".")[0]


def _both(fed: dict[str, Filter], giver: Filter) -> bool:
    """Whether the primary's input is fed from the same place: a guest compared with itself, as somebody may want it."""
    primary = fed.get(PRIMARY)
    return primary is not None and (primary.netdev, primary.directions) == (giver.netdev, giver.directions)
