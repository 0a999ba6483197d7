"""A compare whose inputs are exchanged, as far as the config alone shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.config import ConfigError, load, parse
from pipeline.graph import plan
from tests.pipeline.running import ROOT

EXAMPLES = ROOT / "examples"
EXCHANGED = "packets; primary_in and secondary_in are exchanged, perhaps"
# As QEMU's command lines have it: two sockets at one address for what is a ring here.
QEMU = """
[chardev.compare0]
backend = "socket"
host = "0.0.0.0"
port = 9001
server = true
[chardev.compare0-0]
backend = "socket"
host = "127.0.0.1"
port = 9001
"""


def text(name: str) -> str:
    """An example's config."""
    return (EXAMPLES / f"{name}.toml").read_text()


def exchanged(config: str) -> str:
    """With primary_in and secondary_in exchanged."""
    return config.replace("primary_in = ", "x = ").replace("secondary_in = ", "primary_in = ").replace(
        "x = ", "secondary_in = "
    )  # fmt: skip


def mistakes(config: str) -> dict[str, tuple[str, str]]:
    """What is wrong with it, by its place: what was found, and what expected."""
    with pytest.raises(ConfigError) as caught:
        parse(config)
    return {m.path: (m.found, m.expected) for m in caught.value.mistakes}


def sockets(config: str) -> str:
    """The primary's ring to the compare as two sockets at one address."""
    ring = re.compile(r'\[chardev.compare0\].*\nbackend = "ring"\n')
    assert ring.search(config)
    return ring.sub(QEMU, config).replace('outdev = "compare0"', 'outdev = "compare0-0"')


@pytest.mark.parametrize("name", ["primary", "primary-stream"])
def test_the_primarys_packets_as_the_secondarys(name: str):
    """The compare's output leads to the netdev whose packets come as the secondary's."""
    own = 'packets of netdev "hn0", to which its own output leads: they are the primary\'s'
    assert mistakes(exchanged(text(name))) == {"compare.comp0.secondary_in": (own, f"the secondary's {EXCHANGED}")}


def test_over_two_sockets_at_one_address():
    """A server at every address and a client of this machine's own are one link."""
    assert "compare.comp0.secondary_in" in mistakes(exchanged(sockets(text("primary"))))
    plan(parse(sockets(text("primary"))))


def test_both_sides_in_one_config():
    """Both inputs are named: one has a rewriter's packets, the other those of where the output leads."""
    found = mistakes(exchanged(text("lab")))
    other = 'packets of netdev "hn1", in whose chain a rewriter stands: they are the secondary\'s'
    assert found["compare.comp0.primary_in"] == (other, f"the primary's {EXCHANGED}")
    assert "compare.comp0.secondary_in" in found


def test_the_mirrors_copies_as_the_secondarys():
    """What goes to the primary's guest is nobody's answer."""
    config = (
        text("primary").replace("[chardev.mirror0] ", "[chardev.none] ").replace('outdev = "mirror0"', 'outdev = "m"')
    )
    head, _, rest = config.partition("[chardev.none]")
    _, _, rest = rest.partition("[chardev.compare1]")
    config = f'{head}[chardev.m]\nbackend = "socket"\nhost = "3.3.3.3"\nport = 9004\n[chardev.compare1]{rest}'
    assert "compare.comp0.secondary_in" in mistakes(config)


@pytest.mark.parametrize("path", sorted([*EXAMPLES.glob("*.toml"), ROOT / "config.toml"]), ids=lambda path: path.stem)
def test_every_example_is_right(path: Path):
    """Nothing is said where nothing is exchanged."""
    plan(load(path))


def test_a_secondary_that_became_a_primary_is_one() -> None:
    """It keeps its rewriter for the connections that it took over, and gets a mirror and a compare beside it."""
    promoted = text("primary") + '\n[filter.rew0]\ntype = "filter-rewriter"\nnetdev = "hn0"\nqueue = "all"\n'
    assert "rew0" in plan(parse(promoted)).by_id


def test_two_clients_at_one_address():
    """A server has one peer: the second client would wait for ever."""
    found = mistakes(text("secondary").replace("port = 9004", "port = 9003"))
    assert found == {
        "chardev.red1": (
            "a second client of 3.3.3.3:9003",
            "an address of its own; chardev.red0 connects there, and a server has one peer",
        )
    }
