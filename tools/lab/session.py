"""What the client does, and what must hold after it: right bytes, both replicas at work, each difference explained."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tools.lab import host, stack, web
from tools.lab.browser import Browser, Visit
from tools.lab.outgoing import Outgoing, Seen
from tools.lab.proxy import Proxy
from tools.lab.report import Report
from tools.lab.scene import CLIENT, PRIMARY, REPLICAS, ROLES, SECONDARY, Scene

# Requests for the page that differs between the replicas.
HOST_REQUESTS = 3


@dataclass(frozen=True)
class Load:
    """What the client asks for: short requests, bytes of the upload; how fast; whether stages are killed meanwhile."""

    requests: int
    upload: int
    rate: int = 0
    kill: bool = False


class Session:
    """Drives the scene and notes what it sees in the report."""

    def __init__(self, scene: Scene, servers: web.Servers, proxy: Proxy, report: Report, load: Load) -> None:
        self._scene = scene
        self._servers = servers
        self._proxy = proxy
        self._report = report
        self._load = load
        self._browser = Browser(scene, load.rate)
        self._visits: list[Visit] = []
        self._before = 0
        self._began = time.monotonic()

    def run(self) -> None:
        """All of it, in order; LabError where nothing sensible can follow."""
        self._first()
        self._short()
        self._at_once()
        self._keep_alive()
        self._download()
        self._upload()
        self._outgoing()
        if self._load.kill:
            self._kills()
        self._agreed()
        self._host_page()
        self._both_answered()
        self._books()
        self._stacks()
        self._sums()

    def _note(self, name: str, visit: Visit, detail: str, codes: Sequence[int], *, wrong: str = "") -> bool:
        self._visits.append(visit)
        trouble = visit.failed(codes) or wrong
        return self._report.check(name, not trouble, trouble or detail)

    def _first(self) -> None:
        visit = self._browser.get(["/page-00.html"])
        if not self._note("the client reaches the server through the pipeline", visit, _ms(sum(visit.times)), [200]):
            raise host.LabError(f"no request gets through; the end of the pipeline's log:\n{self._proxy.tail()}")

    def _pages(self, name: str, count: int, connections: int, *, keep_alive: bool = False, at_once: int = 1) -> Visit:
        visit = self._browser.get([web.page_path(i) for i in range(count)], keep_alive=keep_alive, at_once=at_once)
        bad = sum(not _holds(body, web.page_body(i)) for i, body in enumerate(visit.bodies))
        wrong = f"{bad} of {count} bodies are wrong" if bad else ""
        if not wrong and visit.connections != connections:
            wrong = f"{visit.connections} connections, {connections} expected"
        detail = f"{count} requests on {visit.connections} connections, {_rate(count, visit.elapsed)}"
        self._note(name, visit, detail, [200] * count, wrong=wrong)
        return visit

    def _short(self) -> None:
        count = self._load.requests
        times = sorted(self._pages("short requests, a connection each", count, count).times)
        spread = f"p50 {_ms(median(times))}, p99 {_ms(quantiles(times, n=100)[98])}" if len(times) > 1 else ""
        self._report.figures["a short request"] = spread

    def _at_once(self) -> None:
        count = self._load.requests
        self._pages("short requests, eight side by side", count, count, at_once=8)

    def _keep_alive(self) -> None:
        self._pages("a keep-alive series", self._load.requests, 1, keep_alive=True)

    def _download(self) -> None:
        visit = self._browser.get(["/bulk.bin"])
        right = _holds_digest(visit.bodies[0], self._servers.bulk_digest)
        speed = visit.received / visit.elapsed
        detail = f"{_bytes(visit.received)} in {visit.elapsed:.2f} s, {_bytes(speed)}/s, SHA-256 right"
        self._note("a large download", visit, detail, [200], wrong="" if right else "SHA-256 is wrong")
        self._report.figures["download"] = f"{_bytes(visit.received)}, {_bytes(speed)}/s"

    def _upload(self) -> None:
        file = self._scene.directory / CLIENT / "upload.bin"
        file.write_bytes(web.bulk_bytes(self._load.upload, seed=51))
        visit = self._browser.put("/upload/one.bin", file)
        digest = _digest(file.read_bytes())
        self._eventually(lambda: all(self._servers.uploaded(role, "one.bin") == digest for role in REPLICAS))
        wrong = [role for role in REPLICAS if self._servers.uploaded(role, "one.bin") != digest]
        trouble = f"the {' and '.join(wrong)} got other bytes" if wrong else ""
        speed = visit.sent / visit.elapsed
        detail = f"{_bytes(visit.sent)}, {_bytes(speed)}/s, both replicas have the same bytes"
        self._note("an upload", visit, detail, [201], wrong=trouble)
        self._report.figures["upload"] = f"{_bytes(visit.sent)}, {_bytes(speed)}/s"

    def _outgoing(self) -> None:
        """The replicas open connections themselves, the same ones, and bytes go both ways."""
        before = self._rewriter()
        visits = Outgoing(self._scene, self._load.upload // 4)
        began = time.monotonic()
        seen = visits.run()
        count = len(visits.expected["guest"])
        for role, side in ((PRIMARY, "server"), (SECONDARY, "server"), (CLIENT, "guest")):
            self._saw(role, seen[role], visits.expected[side])
        after = self._rewriter()
        learnt = after["connections_opened"] - before["connections_opened"]
        unasked = after["passed_unasked"] - before["passed_unasked"]
        ok = learnt == count and not unasked and after["rewritten_in"] > before["rewritten_in"]
        detail = f"{learnt} of {count} connections, {time.monotonic() - began:.2f} s"
        self._report.check("the rewriter follows connections that the guest opens", ok, detail)

    def _rewriter(self) -> dict[str, int]:
        return self._proxy.counters("filter-rewriter")

    def _saw(self, role: str, seen: Seen, expected: Mapping[int, str]) -> None:
        wrong = "" if seen.digests == expected else f"{seen.digests} instead of {expected}"
        name = "the outside server gets" if role == CLIENT else f"the {role} opens connections and gets"
        self._report.check(f"{name} the right bytes", not (seen.trouble or wrong), seen.trouble or wrong)

    def _stacks(self) -> None:
        """Nobody was sent wrong numbers.  The primary, whose numbers nobody moves, shows what is usual on the wire."""
        self._report.step("What the hosts' own TCP says")
        told = {role: stack.read(self._scene, role) for role in ROLES}
        for role, counters in told.items():
            wrong = stack.some(counters, stack.NEVER)
            again, by_sack = counters[stack.RETRANSMITTED], counters[stack.BY_SACK]
            said = f"{again} segments sent again, {by_sack} recoveries by SACK, {counters[stack.DUPLICATES]} D-SACKs"
            self._report.check(f"the {role} got right checksums and handshakes", not wrong, wrong or said)
            seldom = stack.some(counters, (*stack.SELDOM, stack.DUBIOUS))
            self._report.figures[f"the {role}'s TCP"] = f"{said}{seldom and ', '}{seldom}"
        primary, secondary = (stack.discarded(told[role]) for role in REPLICAS)
        ok = secondary <= primary + told[SECONDARY][stack.RECEIVED] // 100
        detail = f"{secondary} discarded, {primary} by the primary"
        self._report.check("the secondary got its own SACK blocks and timestamps", ok, detail)
        counters = self._rewriter()
        self._report.figures["segments rewritten"] = (
            f"{counters['rewritten_in']:,} in, {counters['rewritten_out']:,} out"
        )

    def _kills(self) -> None:
        """kill -9 of each compute stage, each in the middle of a download of its own."""
        self._report.step("kill -9 in the middle of a download")
        compute = [s["id"] for s in self._proxy.status()["stages"] if s["type"] not in ("netdev", "chardev")]
        for stage in compute:
            self._kill(stage)

    def _kill(self, stage: str) -> None:
        done: list[Visit] = []
        pid = self._proxy.stage(stage)["pid"]
        body = self._browser.next_body
        download = threading.Thread(target=lambda: done.append(self._browser.get(["/bulk.bin"])))
        download.start()
        self._eventually(lambda: body.exists() and body.stat().st_size > 0)
        os.kill(pid, signal.SIGKILL)
        under_way = download.is_alive()
        download.join()
        back = self._eventually(lambda: self._returned(stage, pid))
        visit = done[0]
        wrong = ""
        if not _holds_digest(visit.bodies[0], self._servers.bulk_digest):
            wrong = "SHA-256 is wrong"
        elif not (back and under_way):
            wrong = "the stage is not back" if under_way else "the download was over before: make it larger"
        restarts = self._proxy.stage(stage)["restarts"]
        self._note(stage, visit, f"SHA-256 right, {visit.elapsed:.2f} s, {restarts} restart", [200], wrong=wrong)

    def _returned(self, stage: str, pid: int) -> bool:
        now = self._proxy.stage(stage)
        return bool(now["state"] == "RUNNING" and now["pid"] != pid)

    def _agreed(self) -> None:
        """Everything so far is the same on both replicas, so nothing may have been called different."""
        counters = self._settled()
        count = counters["divergences"]
        if web.has_headers_more():
            self._report.check("no divergence so far", count == 0, f"{counters['matched']} segments matched")
        else:
            self._report.step(f"  (nginx without {web.HEADERS_MORE_PACKAGE} sends Date: {count} divergences so far)")
        self._before = count

    def _host_page(self) -> None:
        self._report.step("The page with the host's name: a true difference")
        visit = self._browser.get(["/host"] * HOST_REQUESTS)
        primary = f"{web.HOST_PAGE[PRIMARY]}\n".encode()
        right = all(_holds(body, primary) for body in visit.bodies)
        said = f'"{web.HOST_PAGE[PRIMARY].strip()}" {HOST_REQUESTS} times'
        self._note(
            "the client gets the primary's answer",
            visit,
            said,
            [200] * HOST_REQUESTS,
            wrong="" if right else "it does not",
        )
        counters = self._settled()
        found = counters["divergences"] - self._before
        exact = found == HOST_REQUESTS if web.has_headers_more() else found >= HOST_REQUESTS
        self._report.check("each is a divergence", exact, f"{found} of {HOST_REQUESTS}")
        asked = counters["checkpoints_asked"]
        self._report.check("each asks for a checkpoint", asked >= HOST_REQUESTS, f"{asked} asked")
        about = [record for record in self._proxy.explained() if _names_both_hosts(record)]
        self._report.check("the log explains each", len(about) >= HOST_REQUESTS, f"{len(about)} records, such as")
        if about:
            shown = {key: about[-1].get(key) for key in ("event", "rule", "flow", "position", *REPLICAS)}
            self._report.step("".join(f"      {key:<10} {value}\n" for key, value in shown.items()).rstrip("\n"))

    def _both_answered(self) -> None:
        self._report.step("The replicas' access logs")
        wanted = sum(len(visit.codes) for visit in self._visits)

        def complete() -> bool:
            return all(len(self._servers.served(role)) >= wanted for role in REPLICAS)

        self._eventually(complete)
        logs = {role: Counter(self._servers.served(role)) for role in REPLICAS}
        for role in REPLICAS:
            count = logs[role].total()
            self._report.check(f"the {role} answered every request", count == wanted, f"{count} of {wanted}")
        only = (logs[PRIMARY] - logs[SECONDARY], logs[SECONDARY] - logs[PRIMARY])
        detail = "; ".join(f"only {role}: {line}" for role, some in zip(REPLICAS, only, strict=True) for line in some)
        self._report.check("both list the same requests, statuses and sizes", not any(only), detail[:300])

    def _books(self) -> None:
        self._report.step("The books")
        status = self._settled_status()
        held = status["counters"][self._proxy.compare]["held"]
        used = sum(ring["used"] for ring in status["rings"])
        self._report.check("nothing is held, every ring is empty", not held and not used, f"{held} held, {used} B")
        law = self._proxy.unbalanced(status)
        self._report.check("conservation: every packet is accounted for", not law, "; ".join(law)[:600])

    def _settled(self) -> dict[str, int]:
        """The compare's counters once all is quiet."""
        return dict(self._settled_status()["counters"][self._proxy.compare])

    def _settled_status(self) -> dict[str, Any]:
        """The status once nothing is held or under way, or as it is after a minute."""
        last: list[dict[str, Any]] = [self._proxy.status()]

        def quiet() -> bool:
            before = last[0]
            last[0] = status = self._proxy.status()
            idle = not status["counters"][self._proxy.compare]["held"] and not any(r["used"] for r in status["rings"])
            return idle and status["counters"] == before["counters"]

        self._eventually(quiet)
        return last[0]

    @staticmethod
    def _eventually(seen: Callable[[], bool]) -> bool:
        try:
            return bool(host.wait_until(seen, 60, "it"))
        except host.LabError:
            return False

    def _sums(self) -> None:
        counters = self._settled()
        self._report.figures |= {
            "requests": sum(len(visit.codes) for visit in self._visits),
            "connections": sum(visit.connections for visit in self._visits),
            "bytes to the client": f"{sum(visit.received for visit in self._visits):,}",
            "bytes from the client": f"{sum(visit.sent for visit in self._visits):,}",
            "time": f"{time.monotonic() - self._began:.1f} s",
            "divergences": counters["divergences"],
            "checkpoints asked": counters["checkpoints_asked"],
        }


def _names_both_hosts(record: Mapping[str, Any]) -> bool:
    """Whether a record of a difference shows what each replica called itself, as far as its window goes."""
    return all(web.HOST_PAGE[role][:4] in str(record.get(role, "")) for role in REPLICAS)


def _holds(file: Path, body: bytes) -> bool:
    return file.exists() and file.read_bytes() == body


def _holds_digest(file: Path, digest: str) -> bool:
    return file.exists() and _digest(file.read_bytes()) == digest


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f}/s"


def _bytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count:.0f} B"
