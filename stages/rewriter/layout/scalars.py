"""Scalars of a filter-rewriter: words of the ledger's row, from layout.ROW_SCALARS on."""

from __future__ import annotations

from typing import Final

from ring.fields import Words

_SCALARS = Words("kernels")
CHECKPOINTS: Final = _SCALARS.word("checkpoints", "CMD_CHECKPOINT as last taken")
FAILOVERS: Final = _SCALARS.word("failovers", "CMD_FAILOVER as last taken")
GENERATION: Final = _SCALARS.word("generation", "what rows learnt of the secondary in an older generation is ignored")
ALONE: Final = _SCALARS.word("alone", "1: failed over, this side is no secondary any more", "bool")
FIELDS: Final = _SCALARS.fields
