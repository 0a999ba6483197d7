"""Counters of a colo-compare."""

from __future__ import annotations

from typing import Final

from ring.layout import Counters

_OWN = Counters()
RELEASED: Final = _OWN.counter("released", "primary packets sent to outdev after comparison")
RELEASED_AT_CHECKPOINT: Final = _OWN.counter(
    "released_at_checkpoint", "primary packets sent to outdev because a checkpoint made the replicas equal"
)
RELEASED_UNCOMPARED: Final = _OWN.counter(
    "released_uncompared",
    "primary packets never compared (signalling of the link: ARP, neighbour discovery, MLD, IGMP, routers; what has no"
    " IP key)",
)
RELEASED_UNARMED: Final = _OWN.counter(
    "released_unarmed", "primary packets sent uncompared while no secondary was in step"
)
RELEASED_BY_RULE: Final = _OWN.counter("released_by_rule", "primary packets sent uncompared because a rule says so")
HELD: Final = _OWN.counter("held", "packets of both sides that wait for their counterpart now")
HELD_PRIMARY: Final = _OWN.counter("held_primary", "primary packets that wait now")
HELD_SECONDARY: Final = _OWN.counter("held_secondary", "secondary packets that wait now")
MATCHED: Final = _OWN.counter("matched", "secondary packets whose payload the primary sent too")
SECONDARY_ACKS: Final = _OWN.counter(
    "secondary_acks", "secondary segments without data: only their acknowledgement counts"
)
DROPPED_AT_CHECKPOINT: Final = _OWN.counter(
    "dropped_at_checkpoint", "secondary packets dropped because a checkpoint made the replicas equal"
)
DROPPED_DIVERGED: Final = _OWN.counter(
    "dropped_diverged", "secondary packets of a connection that differed, or is no copy (checkpoint = local)"
)
DROPPED_UNCOMPARED: Final = _OWN.counter("dropped_uncompared", "secondary packets that are not compared")
UNCOMPARED_ENCAPSULATED: Final = _OWN.counter(
    "uncompared_encapsulated",
    "of both sides' uncompared packets those whose IP header may stand behind headers that are not read: MPLS, a fifth"
    " VLAN tag",
)
UNCOMPARED_TUNNEL: Final = _OWN.counter(
    "uncompared_tunnel", "of both sides' uncompared packets those of tunnels, because `tunnels` is `pass`"
)
DROPPED_UNARMED: Final = _OWN.counter(
    "dropped_unarmed", "secondary packets that came while the secondary was not in step"
)
DROPPED_BY_RULE: Final = _OWN.counter("dropped_by_rule", "secondary packets that a rule says not to compare")
CONNECTIONS: Final = _OWN.counter("connections", "connections known now")
CONNECTIONS_OPENED: Final = _OWN.counter("connections_opened", "connections seen so far")
CONNECTIONS_EVICTED: Final = _OWN.counter("connections_evicted", "silent connections forgotten to make room")
DIVERGENCES: Final = _OWN.counter("divergences", "differences between the two outputs")
DIVERGED_PAYLOAD: Final = _OWN.counter("diverged_payload", "differences in a byte of the payload")
DIVERGED_FLAGS: Final = _OWN.counter("diverged_flags", "differences in FIN or RST")
DIVERGED_ORDER: Final = _OWN.counter("diverged_order", "datagrams that had no equal within reorder_grace_ms")
DIVERGED_TIMEOUT: Final = _OWN.counter("diverged_timeout", "packets that waited longer than compare_timeout")
DIVERGED_STUCK: Final = _OWN.counter("diverged_stuck", "times that both inputs were blocked by full queues")
CHECKPOINTS_ASKED: Final = _OWN.counter("checkpoints_asked", "requests for a checkpoint")
CHECKPOINTS_ASKED_AGAIN: Final = _OWN.counter("checkpoints_asked_again", "requests repeated because nobody answered")
CHECKPOINTS_PERIODIC: Final = _OWN.counter(
    "checkpoints_periodic", "requests made because time had come, in a storm of differences"
)
CHECKPOINTS: Final = _OWN.counter("checkpoints", "checkpoints that were answered or announced")
CHECKPOINTS_GIVEN_UP: Final = _OWN.counter(
    "checkpoints_given_up", "times that connections went on because no checkpoint came within checkpoint_timeout"
)
STORMS: Final = _OWN.counter("storms", "times that differences came so often that checkpoints became periodic")
ARMING_STATE: Final = _OWN.counter(
    "arming_state", "0 absent, 1 arming, 2 in step, 3 lost, 4 silent: whether the secondary is compared with"
)
TIMES_IN_STEP: Final = _OWN.counter("times_in_step", "times that the secondary came into step")
SILENCES: Final = _OWN.counter("silences", "times that the secondary answered nothing for silence_timeout")
LINKS_LOST: Final = _OWN.counter("links_lost", "times that the link to a replica was lost")
FRAGMENTS: Final = _OWN.counter("fragments", "IP fragments that were put together before comparison")
FRAGMENTS_UNFINISHED: Final = _OWN.counter(
    "fragments_unfinished", "IP fragments of datagrams that never became whole, and were the same on both sides"
)
MASKED: Final = _OWN.counter("masked", "differences in bytes that a mask covers")
RECORDS: Final = _OWN.counter("records", "differences of which the packets were kept, for a file that explains them")
RECORDS_SKIPPED: Final = _OWN.counter(
    "records_skipped", "differences of which no packets were kept, because others were not yet written"
)
NOTIFY_UNKNOWN: Final = _OWN.counter("notify_unknown", "messages on notify_dev that mean nothing to us")
BACKPRESSURE: Final = _OWN.counter("backpressure", "duty cycles in which an input waited because a queue was full")
COUNTERS: Final = _OWN.listed
