"""colo-compare: releases the primary's packets where both outputs agree and asks for a checkpoint where they do not."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, Final

import numpy as np

from ring import layout
from stages.base import Stage
from stages.compare import finding
from stages.compare.config import JOIN, silence_ms
from stages.compare.evidence_files import Evidence
from stages.compare.layout import arming, conns, events, memory, options, reasons, records, rules, scalars, slots
from stages.packets.kernels.table import format_table
from stages.packets.layout import networks, table

_LINES: Final = 32  # differences that get a log line at once; after them one each _LINE_NS
_LINE_NS: Final = 100_000_000


class Compare(Stage):
    """The compare's shell: lays out the tables of a fresh segment, and logs what the kernel found."""

    def options(self) -> dict[int, int]:
        """Places of the tables, and the keys of the config."""
        p = self.params
        at = memory.places(p, self.kind.tables_at)
        words = {
            options.TABLE: at["table"],
            options.SLOTS: at["slots"],
            options.EVENTS: at["events"],
            options.RECYCLE: at["recycle"],
            options.SCRATCH: at["scratch"],
            options.TIMEOUT_NS: int(p["compare_timeout"]) * 1_000_000,
            options.GRACE_NS: int(p["reorder_grace_ms"]) * 1_000_000,
            options.MAX_QUEUE: int(p["max_queue_size"]),
            options.STRICT: int(p["ack_policy"] == "strict"),
            options.LOCAL: int(p["checkpoint"] == "local"),
            options.CHECKPOINTS: at["checkpoints"],
            options.RULES: at["rules"],
            options.HISTORY: at["history"] if self._files() else 0,
            options.RECORDS: at["records"],
            options.RECORDS_TAKEN: self.scalar(scalars.RECORDS),
            options.INTERVAL_NS: self._ns("checkpoint_interval_ms"),
            options.STORM_LIMIT: int(p["storm_checkpoints"]),
            options.STORM_WINDOW_NS: self._ns("storm_window_ms"),
            options.STORM_NS: self._ns("storm_interval_ms"),
            options.TUNNELS: networks.POLICIES.index(str(p["tunnels"])),
            options.CHECKPOINT_NS: self._ns("checkpoint_timeout"),
            options.OVERDUE: options.OVERDUE_NAMES.index(p["checkpoint_overdue"]),
            options.SILENCE_NS: silence_ms(p) * 1_000_000,
        }
        queue = at["queues"]
        for g in range(options.QUEUE_COUNT):
            length = memory.queue_words(memory.slots(p)[g % 3])
            words[options.QUEUES + g] = queue
            words[options.MASKS + g] = length - 1
            queue += length
        return words

    def _ns(self, key: str) -> int:
        return int(self.params[key]) * 1_000_000

    def _files(self) -> int:
        return int(self.params["divergence_files"]) if self.params["divergences"] else 0

    def on_start(self) -> None:
        """Lay out the tables if no incarnation has done so."""
        w, words = self.w, self.options()
        t = words[options.TABLE]
        if int(w[t + table.CAPACITY]) == 0:
            self._format(w, t, words)
        self._logged = self.scalar(scalars.EVENTS)
        self._said_until, self._unsaid = -_LINES * _LINE_NS, 0
        self._evidence = Evidence(str(self.params["divergences"]), self.spec.id, self._files(), self.log)

    def _format(self, w: Any, t: int, words: dict[int, int]) -> None:
        counts = memory.slots(self.params)
        at = memory.places(self.params, self.kind.tables_at)
        place, number = at["bytes"] * 8, 0
        row = layout.ROWS + layout.ROW_SCALARS  # nothing was committed yet: row A is the true one
        for g in range(options.QUEUE_COUNT):
            count, size = counts[g % 3], memory.CLASS_BYTES[g % 3]
            numbers = np.arange(number, number + count)
            rows = at["slots"] + numbers * slots.WORDS
            w[rows + slots.BYTES] = place + (numbers - number) * size
            w[rows + slots.QUEUE] = g
            queue = words[options.QUEUES + g]
            w[queue : queue + count] = numbers
            w[row + scalars.QUEUE_HEAD + g] = 0
            w[row + scalars.QUEUE_TAIL + g] = count
            place += count * size
            number += count
        capacity = int(self.params["max_connections"])
        format_table(w, t, capacity, table.buckets(capacity), conns.WORDS)  # last: it marks the layout as done

    def do_work(self, now: int) -> int:
        """One burst of both sides; then the log lines for what it found."""
        result = int(self.kernel.compare_burst(self.u8, self.w, now))
        if result and self.scalar(scalars.EVENTS) != self._logged:
            self._log_events()
        return result

    def went_on(self, now: int, after: int) -> None:
        """Packets have not waited for their counterparts while nobody here could have taken those.

        In a container that was paused, or a machine that was, those may still be on their way to us.
        """
        if after >= int(self.w[options.TIMEOUT_NS]) // 2:
            self.w[options.WOKE] = now

    def next_deadline(self, now: int) -> int:
        """When time alone gives the kernel something to do (monotonic ns), 0: never.  After a cycle at ``now``.

        What was due by ``now`` was done, or waits for something else: for room, or for the answer to a request.
        """
        w, at = self.w, []
        woke = int(w[options.WOKE])
        timeout = int(w[options.TIMEOUT_NS])
        for side in range(2):
            n = self.scalar(scalars.OLDEST + side) - 1
            if n >= 0:
                x = int(w[options.SLOTS]) + n * slots.WORDS
                at.append(max(int(w[x + slots.TIME]), int(w[options.RESUMED]), woke) + timeout)
        c = self.scalar(scalars.GRACE_FIRST)
        if c:
            at.append(max(int(w[c + conns.GRACE_SINCE]), woke) + int(w[options.GRACE_NS]))
        asked = self.scalar(scalars.ASKED)
        if asked:
            at.append(asked + timeout)
        at.append(self.scalar(scalars.WANTED))
        at.append(self.scalar(scalars.GIVES_UP_AT))
        if self.scalar(scalars.WAITS_SINCE) and w[options.SILENCE_NS]:
            left = int(w[options.SILENCE_NS]) - self.scalar(scalars.SILENT_NS)
            at.append(self.scalar(scalars.WAITS_SINCE) + left)
        if w[options.OFFER_SINCE]:
            at.append(int(w[options.OFFER_SINCE]) + timeout)
        return min((time for time in at if time > now), default=0)

    def _log_events(self) -> None:
        written = self.scalar(scalars.EVENTS)
        first = max(self._logged, written - events.COUNT)
        if first > self._logged:
            self.log.warning("differences not shown", count=first - self._logged)
        for n in range(first, written):
            at = int(self.w[options.EVENTS]) + n % events.COUNT * events.WORDS
            self._log_event(np.array(self.w[at : at + events.WORDS]))
        self._logged = written
        self.w[options.RECORDS_TAKEN] = self.scalar(scalars.RECORDS)  # partner: `evidence.keep_packets`

    def _keep(self, e: Any, mask: str) -> str | None:
        """Hand the packets of a difference over to be written; the file's path, or None."""
        number = int(e[events.RECORD]) - 1
        if number < 0:
            return None
        at = int(self.w[options.RECORDS]) + number % records.COUNT * records.WORDS
        return self._evidence.offer(e, np.array(self.w[at : at + int(self.w[at + records.USED])]), mask)

    def on_close(self) -> None:
        """Say and write what is known of differences."""
        self._say_unsaid()
        self._evidence.close()

    def _log_event(self, e: Any) -> None:
        reason = int(e[events.REASON])
        position = int(e[events.POSITION])
        if reason == reasons.CHECKPOINT:
            self.log.info("checkpoint: what was held is settled")
        elif reason == reasons.LINK:
            self.log.warning("link lost, so packets are lost", input=("primary_in", "secondary_in")[position])
        elif reason == reasons.ARMING:
            self._log_arming(position, int(e[events.TIME]))
        elif reason == reasons.UNJOINED:
            self.log.warning("a checkpoint is asked for, but nobody is joined who could make it", hint=JOIN)
        elif reason == reasons.GIVEN_UP:
            why = "it does not answer" if self._joined() else "nobody is joined"
            self.log.warning(
                "no checkpoint: what waits goes on uncompared until one is made",
                waited_s=round(position / 1e9, 1),
                notify_dev=why,
                hint=JOIN,
            )
        elif reason == reasons.STORM:
            self._log_storm(position)
        elif reason == reasons.MESSAGE:
            text = finding.window(e, events.PRIMARY_BYTES, int(e[events.PRIMARY_LEN]))
            self.log.warning("message on notify_dev that means nothing here", message=repr(text))
        else:
            self._log_difference(e, reason)

    def _joined(self) -> bool:
        return self.scalar(scalars.ALONE) == 0

    def _log_arming(self, state: int, at: int) -> None:
        name = arming.NAMES[state]
        if state == arming.IN_STEP:
            self.log.info("secondary in step: its output is compared", arming=name)
        elif state == arming.ARMING:
            self.log.warning("secondary is there, but no copy yet: uncompared until a checkpoint", arming=name)
        elif state == arming.SILENT:
            since = datetime.fromtimestamp(time.time() - (at - self.scalar(scalars.HEARD)) / 1e9).astimezone()
            self.log.warning(
                "secondary answers nothing: the primary's packets leave uncompared until it does",
                arming=name,
                since=since.isoformat(timespec="seconds"),
            )
        else:
            self.log.warning("secondary lost: the primary's packets leave uncompared", arming=name)

    def _log_storm(self, requests: int) -> None:
        if requests:
            self.log.warning(
                "differences come too often: checkpoints are periodic from now on",
                checkpoints=requests,
                within_ms=int(self.params["storm_window_ms"]),
                every_ms=int(self.params["storm_interval_ms"]),
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
        mask = rules.rule_name(self.w, int(self.w[options.RULES]), self.scalar(scalars.RULES_SEEN), int(e[events.RULE]))
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
        if not self._may_say(int(e[events.TIME])):
            self._unsaid += 1
            return
        self._say_unsaid()
        local = bool(self.w[options.LOCAL] or self.scalar(scalars.GIVEN_UP))
        if local and found["flow"]:
            alone = "that datagram alone is given up"
            shown["then"] = "its connection goes on uncompared" if found["kind"] == "tcp" else alone
        self.log.warning(
            "outputs differ: nobody makes checkpoints" if local else "outputs differ: checkpoint asked",
            rule=reasons.NAMES[reason],
            **shown,
        )
