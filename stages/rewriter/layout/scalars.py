"""Scalars of a filter-rewriter: words of the ledger's row, from layout.ROW_SCALARS on."""

from __future__ import annotations

from typing import Final

from ring.fields import Words

_SCALARS = Words("kernels")
CHECKPOINTS: Final = _SCALARS.word("checkpoints", "CMD_CHECKPOINT as last taken")
FAILOVERS: Final = _SCALARS.word("failovers", "CMD_FAILOVER as last taken")
GENERATION: Final = _SCALARS.word("generation", "what rows learnt of the secondary in an older generation is ignored")
ALONE: Final = _SCALARS.word("alone", "1: failed over, this side is no secondary any more", "bool")
GUEST_ADDRESSES: Final = _SCALARS.word("guest_addresses", "rows of the table of addresses that are the guest's")
GUEST_MAC: Final = _SCALARS.word(
    "guest_mac", "word index of that of the MAC address that the guest sent from last, 0: none"
)
HEADER: Final = _SCALARS.word(
    "header", "bytes of the virtio-net header before the last frame: frames made here have it"
)
ANNOUNCES: Final = _SCALARS.word("announces", "CMD_ANNOUNCE as last taken")
ROUNDS_LEFT: Final = _SCALARS.word("rounds_left", "rounds of the present announcement that are still to be sent")
ROUND: Final = _SCALARS.word("round", "number of the next one, from 0")
ROUND_AT: Final = _SCALARS.word("round_at", "when it is due, monotonic", "ns")
CURSOR: Final = _SCALARS.word("cursor", "number + 1 of the row at which it goes on; 0: it has not begun")
IP_LEFT: Final = _SCALARS.word("ip_left", "rounds that still have IP addresses in them")
IP_AT: Final = _SCALARS.word("ip_at", "before that none has them again, monotonic", "ns")
WITH_IP: Final = _SCALARS.word("with_ip", "1: the round that has begun has them", "bool")
MACS: Final = _SCALARS.word("macs", "MAC addresses that the first round of the last announcement had in it")
IPS: Final = _SCALARS.word("ips", "IP addresses that it had in it")
SAID: Final = _SCALARS.word("said", "announcements whose first round was sent")
FIELDS: Final = _SCALARS.fields
