"""Reasons of events."""

from __future__ import annotations

from typing import Final

from ring.fields import Values

_REASON = Values(start=1)
PAYLOAD: Final = _REASON.value("payload")
FLAGS: Final = _REASON.value("flags")
ORDER: Final = _REASON.value("order")
TIMEOUT: Final = _REASON.value("timeout")
STUCK: Final = _REASON.value("stuck")
LINK: Final = _REASON.value("link lost")
CHECKPOINT: Final = _REASON.value("checkpoint")
MESSAGE: Final = _REASON.value("unknown message")
ARMING: Final = _REASON.value("arming")
STORM: Final = _REASON.value("storm")
UNJOINED: Final = _REASON.value("nobody joined")
GIVEN_UP: Final = _REASON.value("checkpoint given up")
NAMES: Final = _REASON.names
