"""colo-compare: releases the primary's packets where both outputs agree and asks for a checkpoint where they do not."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np

from ring import layout
from stages.base import Stage
from stages.kernels.table import format_table
from stages.layout import compare, packet, table


class Compare(Stage):
    """The compare's shell: lays out the tables of a fresh segment, and logs what the kernel found."""

    KIND = compare.KIND

    def options(self) -> dict[int, int]:
        """Places of the tables, and the keys of the config."""
        p = self.params
        at = compare.places(p, self.KIND.tables)
        words = {
            compare.O_TABLE: at["table"],
            compare.O_SLOTS: at["slots"],
            compare.O_EVENTS: at["events"],
            compare.O_RECYCLE: at["recycle"],
            compare.O_SCRATCH: at["scratch"],
            compare.O_TIMEOUT_NS: int(p["compare_timeout"]) * 1_000_000,
            compare.O_GRACE_NS: int(p["reorder_grace_ms"]) * 1_000_000,
            compare.O_MAX_QUEUE: int(p["max_queue_size"]),
            compare.O_STRICT: int(p["ack_policy"] == "strict"),
            compare.O_LOCAL: int(p["checkpoint"] == "local"),
            compare.O_STATE: at["state"],
            compare.O_RULES: at["rules"],
            compare.O_HISTORY: at["history"] if self._files() else 0,
            compare.O_RECORDS: at["records"],
            compare.O_RECORDS_TAKEN: self.scalar(compare.SC_RECORDS),
            compare.O_INTERVAL_NS: self._ns("checkpoint_interval_ms", compare.CHECKPOINT_INTERVAL_MS),
            compare.O_STORM_LIMIT: int(p.get("storm_checkpoints", compare.STORM_CHECKPOINTS)),
            compare.O_STORM_WINDOW_NS: self._ns("storm_window_ms", compare.STORM_WINDOW_MS),
            compare.O_STORM_NS: self._ns("storm_interval_ms", compare.STORM_INTERVAL_MS),
        }
        queue = at["queues"]
        for group in range(6):
            length = compare.queue_words(compare.slots(p)[group % 3])
            words[compare.O_QUEUES + group] = queue
            words[compare.O_MASKS + group] = length - 1
            queue += length
        return words

    def _ns(self, key: str, default: int) -> int:
        return int(self.params.get(key, default)) * 1_000_000

    def _files(self) -> int:
        return int(self.params.get("divergence_files", 64)) if self.params.get("divergences") else 0

    def on_start(self) -> None:
        """Lay out the tables if no incarnation has done so."""
        w, options = self.w, self.options()
        t = options[compare.O_TABLE]
        if int(w[t + table.T_CAPACITY]) == 0:
            self._format(w, t, options)
        self._logged = self.scalar(compare.SC_EVENTS)

    def _format(self, w: Any, t: int, options: dict[int, int]) -> None:
        counts = compare.slots(self.params)
        at = compare.places(self.params, self.KIND.tables)
        place, number = at["bytes"] * 8, 0
        row = layout.ROWS + layout.R_SCALARS  # nothing was committed yet: row A is the true one
        for group in range(6):
            count, size = counts[group % 3], compare.CLASS_BYTES[group % 3]
            numbers = np.arange(number, number + count)
            rows = at["slots"] + numbers * compare.SLOT_WORDS
            w[rows + compare.S_BYTES] = place + (numbers - number) * size
            w[rows + compare.S_GROUP] = group
            queue = options[compare.O_QUEUES + group]
            w[queue : queue + count] = numbers
            w[row + compare.SC_QUEUE_HEAD + group] = 0
            w[row + compare.SC_QUEUE_TAIL + group] = count
            place += count * size
            number += count
        capacity = int(self.params["max_connections"])
        format_table(w, t, capacity, table.buckets(capacity), compare.ROW_WORDS)  # last: it marks the layout as done

    def do_work(self, now: int) -> int:
        """One burst of both sides; then the log lines for what it found."""
        result = int(self.kernel.compare_burst(self.u8, self.w, now))
        if result and self.scalar(compare.SC_EVENTS) != self._logged:
            self._log_events()
        return result

    def _log_events(self) -> None:
        written = self.scalar(compare.SC_EVENTS)
        first = max(self._logged, written - compare.EVENTS)
        if first > self._logged:
            self.log.warning("differences not shown", count=first - self._logged)
        for n in range(first, written):
            at = int(self.w[compare.O_EVENTS]) + n % compare.EVENTS * compare.EVENT_WORDS
            self._log_event(np.array(self.w[at : at + compare.EVENT_WORDS]))
        self._logged = written

    def _log_event(self, e: Any) -> None:
        reason = int(e[compare.E_REASON])
        position = int(e[compare.E_POSITION])
        if reason == compare.R_CHECKPOINT:
            self.log.info("checkpoint: what was held is settled")
        elif reason == compare.R_LINK:
            self.log.warning("link lost, so packets are lost", input=("primary_in", "secondary_in")[position])
        elif reason == compare.R_ARMING:
            self._log_arming(position)
        elif reason == compare.R_STORM:
            self._log_storm(position)
        elif reason == compare.R_MESSAGE:
            text = _window(e, compare.E_P_BYTES, int(e[compare.E_P_LEN]))
            self.log.warning("message on notify_dev that means nothing here", message=repr(text))
        else:
            self._log_difference(e, reason)

    def _log_arming(self, state: int) -> None:
        name = compare.ARMING_STATES[state]
        if state == compare.IN_STEP:
            self.log.info("secondary in step: its output is compared", arming=name)
        elif state == compare.ARMING:
            self.log.warning("secondary is there, but no copy yet: uncompared until a checkpoint", arming=name)
        else:
            self.log.warning("secondary lost: the primary's packets leave uncompared", arming=name)

    def _log_storm(self, requests: int) -> None:
        if requests:
            self.log.warning(
                "differences come too often: checkpoints are periodic from now on",
                checkpoints=requests,
                within_ms=int(self.params.get("storm_window_ms", compare.STORM_WINDOW_MS)),
                every_ms=int(self.params.get("storm_interval_ms", compare.STORM_INTERVAL_MS)),
            )
        else:
            self.log.info("no differences any more: checkpoints are made on demand again")

    def _log_difference(self, e: Any, reason: int) -> None:
        shown: dict[str, Any] = {}
        if e[compare.E_CONN]:
            shown["flow"] = describe_flow(e[compare.E_KEY : compare.E_KEY + packet.KEY_WORDS])
        if reason in (compare.R_PAYLOAD, compare.R_FLAGS, compare.R_ORDER):
            at = int(e[compare.E_OFFSET])
            primary = _window(e, compare.E_P_BYTES, int(e[compare.E_P_LEN]))
            secondary = _window(e, compare.E_S_BYTES, int(e[compare.E_S_LEN]))
            shown |= {"position": int(e[compare.E_POSITION])}
            shown |= {"primary": _show(primary, at), "secondary": _show(secondary, at)}
        elif reason == compare.R_TIMEOUT:
            shown["waited_for"] = "secondary" if e[compare.E_P_LEN] else "primary"
        self.log.warning("outputs differ: checkpoint asked", rule=compare.REASONS[reason], **shown)


def _window(e: Any, first: int, length: int) -> bytes:
    words = e[first : first + compare.EVENT_BYTES // 8]
    return bytes(words.tobytes()[: max(0, min(length, compare.EVENT_BYTES))])


def _show(window: bytes, at: int) -> str:
    """``…text[X]…``: hex of the byte that differs, and the text around it."""
    text = "".join(chr(b) if 32 <= b < 127 else "." for b in window)
    differs = f"{window[at]:02x}" if at < len(window) else "end"
    return f"{differs} in {text!r}"


def describe_flow(key: Any) -> str:
    """``tcp 10.0.0.2:80 > 10.0.0.1:4711`` from the six key words of a connection (see stages.layout.packet)."""
    numbers = [int(x) & 0xFFFFFFFFFFFFFFFF for x in key]
    ends: list[str] = []
    six = numbers[packet.F_VLAN] >> 32 == 6
    for first in (packet.F_SRC, packet.F_DST):
        if six:
            ends.append(f"[{ipaddress.IPv6Address(numbers[first] << 64 | numbers[first + 1])}]")
        else:
            ends.append(str(ipaddress.IPv4Address(numbers[first + 1])))
    ports = numbers[packet.F_PORTS]
    proto = ports >> 32 & 0xFF
    name = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6"}.get(proto, f"protocol {proto}")
    if ports >> 40:  # a mark of stages.kernels.fragments
        return f"{name} in fragments {ends[0]} > {ends[1]}"
    if proto in (6, 17):
        return f"{name} {ends[0]}:{ports >> 16 & 0xFFFF} > {ends[1]}:{ports & 0xFFFF}"
    return f"{name} {ends[0]} > {ends[1]}"
