"""colo-compare: releases the primary's packets where both outputs agree and asks for a checkpoint where they do not."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ring import layout
from stages.base import Stage
from stages.compare import finding
from stages.compare.evidence_files import Evidence
from stages.compare.kind import KIND
from stages.compare.layout import evidence, rules
from stages.compare.layout import words as compare
from stages.packets.kernels.table import format_table
from stages.packets.layout import table

_LINES: Final = 32  # differences that get a log line at once; after them one each _LINE_NS
_LINE_NS: Final = 100_000_000


class Compare(Stage):
    """The compare's shell: lays out the tables of a fresh segment, and logs what the kernel found."""

    KIND = KIND

    def options(self) -> dict[int, int]:
        """Places of the tables, and the keys of the config."""
        p = self.params
        at = compare.places(p, self.KIND.tables_at)
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
        self._said_until, self._unsaid = -_LINES * _LINE_NS, 0
        self._evidence = Evidence(str(self.params.get("divergences", "")), self.spec.id, self._files(), self.log)

    def _format(self, w: Any, t: int, options: dict[int, int]) -> None:
        counts = compare.slots(self.params)
        at = compare.places(self.params, self.KIND.tables_at)
        place, number = at["bytes"] * 8, 0
        row = layout.ROWS + layout.ROW_SCALARS  # nothing was committed yet: row A is the true one
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

    def next_deadline(self, now: int) -> int:
        """When time alone gives the kernel something to do (monotonic ns), 0: never.  After a cycle at ``now``.

        What was due by ``now`` was done, or waits for something else: for room, or for the answer to a request.
        """
        w, at = self.w, []
        timeout = int(w[compare.O_TIMEOUT_NS])
        for side in range(2):
            n = self.scalar(compare.SC_OLDEST + side) - 1
            if n >= 0:
                x = int(w[compare.O_SLOTS]) + n * compare.SLOT_WORDS
                at.append(max(int(w[x + compare.S_TIME]), int(w[compare.O_RESUMED])) + timeout)
        c = self.scalar(compare.SC_GRACE_FIRST)
        if c:
            at.append(int(w[c + compare.C_GRACE_SINCE]) + int(w[compare.O_GRACE_NS]))
        asked = self.scalar(compare.SC_ASKED)
        if asked:
            at.append(asked + timeout)
        at.append(self.scalar(compare.SC_WANTED))
        return min((time for time in at if time > now), default=0)

    def _log_events(self) -> None:
        written = self.scalar(compare.SC_EVENTS)
        first = max(self._logged, written - compare.EVENTS)
        if first > self._logged:
            self.log.warning("differences not shown", count=first - self._logged)
        for n in range(first, written):
            at = int(self.w[compare.O_EVENTS]) + n % compare.EVENTS * compare.EVENT_WORDS
            self._log_event(np.array(self.w[at : at + compare.EVENT_WORDS]))
        self._logged = written
        self.w[compare.O_RECORDS_TAKEN] = self.scalar(compare.SC_RECORDS)  # partner: `evidence.keep_packets`

    def _keep(self, e: Any, mask: str) -> str | None:
        """Hand the packets of a difference over to be written; the file's path, or None."""
        number = int(e[compare.E_RECORD]) - 1
        if number < 0:
            return None
        at = int(self.w[compare.O_RECORDS]) + number % evidence.RECORDS * evidence.RECORD_WORDS
        return self._evidence.offer(e, np.array(self.w[at : at + int(self.w[at + evidence.R_USED])]), mask)

    def on_close(self) -> None:
        """Say and write what is known of differences."""
        self._say_unsaid()
        self._evidence.close()

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
            text = finding.window(e, compare.E_P_BYTES, int(e[compare.E_P_LEN]))
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

    def _may_say(self, now: int) -> bool:
        """Whether a difference gets a line: a few at once, then one in a while, or a log would be all that we do."""
        self._said_until = max(self._said_until, now - _LINES * _LINE_NS) + _LINE_NS
        if self._said_until <= now:
            return True
        self._said_until -= _LINE_NS
        return False

    def _say_unsaid(self) -> None:
        if self._unsaid:
            self.log.warning("differences not shown", count=self._unsaid)
            self._unsaid = 0

    def _log_difference(self, e: Any, reason: int) -> None:
        mask = rules.rule_name(
            self.w, int(self.w[compare.O_RULES]), self.scalar(compare.SC_RULES_SEEN), int(e[compare.E_RULE])
        )
        found = finding.verdict(e, (), 0, mask=mask)
        shown = {"flow": found["flow"]} if found["flow"] else {}
        if found["position"] is not None:
            shown["position"] = found["position"]
        shown |= finding.sides(found)
        for key in ("waits", "waits_for"):
            if key in found:
                shown[key] = found[key]
        if mask:
            shown["mask"] = mask
        path = self._keep(e, mask)
        if path:
            shown["explained_in"] = path
        if not self._may_say(int(e[compare.E_TIME])):
            self._unsaid += 1
            return
        self._say_unsaid()
        self.log.warning("outputs differ: checkpoint asked", rule=compare.REASONS[reason], **shown)
