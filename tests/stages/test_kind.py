"""What a kind cannot say of itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stages import catalog
from stages.kind import Balance, ChardevKey, Deaf, Headline, Waits


@pytest.mark.parametrize(
    ("kind", "changed", "why"),
    [
        ("netdev-null", {"inputs": ("in",)}, "an endpoint has the ports send and receive"),
        ("netdev-null", {"burst": ""}, "no burst, and no shell of its own"),
        ("filter-mirror", {"inputs": ("tx_in",)}, "a filter has the inputs tx_in and rx_in"),
        ("filter-mirror", {"outputs": ("tx_out",)}, "a filter has the outputs tx_out and rx_out"),
        ("filter-mirror", {"outputs": tuple(f"o{i}" for i in range(99))}, "more ports or counters than"),
        ("filter-mirror", {"ways": (("tx_in", "nowhere"),)}, "no port nowhere"),
        ("filter-mirror", {"chardevs": (ChardevKey("outdev", writes="nowhere"),)}, "no port nowhere"),
        ("filter-mirror", {"chardevs": (ChardevKey("indev", reads="tx_in"),)}, "no key indev in its table"),
        ("filter-mirror", {"hears": ("lunch",)}, "no event lunch"),
        ("filter-mirror", {"deaf": (Deaf("checkpoint", "lunch"),)}, "no event lunch"),
        ("filter-mirror", {"waits": (Waits("announce", "lunch", "we are hungry"),)}, "no event lunch"),
        ("filter-mirror", {"balances": (Balance("x", ("lost",), ()),)}, "no counter lost"),
        ("filter-mirror", {"gauges": ("lost",)}, "no counter lost"),
        ("filter-mirror", {"headlines": (Headline("lost", ("lost",)),)}, "no counter lost"),
    ],
)
def test_what_cannot_be_is_refused_where_the_kind_is_made(kind: str, changed: dict[str, Any], why: str) -> None:
    """So a stage's folder with a slip in it cannot be imported, and the message names kind and slip."""
    with pytest.raises(ValueError, match=f"kind {kind}.*{why}"):
        replace(catalog.kind(kind), **changed)
