"""An entry of a free queue, or of a recycle stack (see `memory`): a slot that nothing holds."""

from __future__ import annotations

from typing import Final

from ring.fields import Words

_ENTRY = Words("kernels")
SLOT: Final = _ENTRY.word("slot", "number of a slot")
FIELDS: Final = _ENTRY.fields
WORDS: Final = _ENTRY.end
