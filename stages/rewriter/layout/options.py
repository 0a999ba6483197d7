"""Options of a filter-rewriter."""

from __future__ import annotations

from typing import Final

from ring import layout
from ring.fields import Words

_OPTIONS = Words("worker", start=layout.OPTIONS)
TUNNELS: Final = _OPTIONS.word("tunnels", "whether packets inside of tunnels are rewritten: `networks.POLICIES`")
FIELDS: Final = _OPTIONS.fields
