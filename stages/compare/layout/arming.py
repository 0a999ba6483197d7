"""Whether there is a secondary to compare with: the states of scalars.ARMING, and the moves between them."""

from __future__ import annotations

from typing import Final

from ring.fields import Values

_STATE = Values()
ABSENT: Final = _STATE.value("absent")
ARMING: Final = _STATE.value("arming")
IN_STEP: Final = _STATE.value("in step")
LOST: Final = _STATE.value("lost")
SILENT: Final = _STATE.value("silent")
NAMES: Final = _STATE.names
MOVES: Final = {
    (ABSENT, IN_STEP): "it came before the primary had said anything, so it has missed nothing",
    (ABSENT, ARMING): "it came, but has missed what the primary said before: a checkpoint is needed",
    (ARMING, IN_STEP): "a checkpoint made it a copy of the primary (local: its new connections are compared)",
    (ARMING, LOST): "its link went before it was in step",
    (IN_STEP, LOST): "its link went, or a failover was announced: what it says next can mean nothing",
    (LOST, ARMING): "its link is back, or a checkpoint was made while the link is up",
    (IN_STEP, SILENT): "it has answered nothing for silence_timeout while the primary's packets waited for it",
    (SILENT, ARMING): "it has answered again: a copy only after a checkpoint (local: its new connections are compared)",
    (SILENT, LOST): "its link went, or a failover was announced",
}
PROHIBITED: Final = {
    (LOST, IN_STEP): "packets were lost with the link: it is a copy again only after a checkpoint, in ARMING",
    (IN_STEP, ARMING): "nothing takes it out of step but its loss",
    (ARMING, ABSENT): "it was there: from then on it is lost, not absent",
    (IN_STEP, ABSENT): "as above",
    (LOST, ABSENT): "as above",
    (ABSENT, LOST): "what never was there cannot be lost",
    (SILENT, IN_STEP): "the primary's packets left uncompared meanwhile: through ARMING",
    (SILENT, ABSENT): "it was there: as above",
    (ABSENT, SILENT): "only of a secondary in step is an answer awaited",
    (ARMING, SILENT): "as above",
    (LOST, SILENT): "as above",
}
