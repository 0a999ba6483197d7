"""Options of a filter-rewriter."""

from __future__ import annotations

from typing import Final

from ring import layout
from ring.fields import Words

_OPTIONS = Words("worker", start=layout.OPTIONS)
TUNNELS: Final = _OPTIONS.word("tunnels", "whether packets inside of tunnels are rewritten: `networks.POLICIES`")
ADDRESSES: Final = _OPTIONS.word("addresses", "word index of the table of addresses")
AGE_NS: Final = _OPTIONS.word("age_ns", "ns for which a neighbour's address is good for an answer; 0: none is")
ROUNDS: Final = _OPTIONS.word("rounds", "how often an announcement is sent; 0: only where it is asked for, once")
INITIAL_NS: Final = _OPTIONS.word("initial_ns", "ns from the first round to the second")
STEP_NS: Final = _OPTIONS.word("step_ns", "by how many ns each pause is longer than the one before it")
MOST_NS: Final = _OPTIONS.word("most_ns", "the longest pause in ns")
FIELDS: Final = _OPTIONS.fields
