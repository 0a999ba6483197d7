"""The shared memory of a pipeline: planned, made or taken over, read, removed.

Planning and deciding are pure; `open_all` applies.  Either all planned segments are taken over from a dead supervisor,
or all are made new: a ring and the stages at its ends must agree on every cursor.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.graph import Graph
from ring import errors, holding, layout, segment
from ring.headers import check_header, format_header
from ring.ledger import StageSegment
from stages.kind import STATUS

SHM: Final = Path("/dev/shm")
_OTHER_DESCRIPTORS: Final = 512  # pidfds, clients, doorbells
LOCK_S: Final = 10.0  # who holds the lock waits for two seconds at most
_ROOT: Final = Path(__file__).resolve().parent.parent
_LAYOUTS: Final = (
    "ring/fields.py",
    "ring/layout.py",
    "stages/**/layout.py",
    "stages/**/layout/*.py",
    "stages/packets/kernels/table.py",  # the hash of a key: another one looks in other buckets
)


class InUse(Exception):
    """The pipeline's name belongs to somebody who lives."""


@dataclass(frozen=True)
class Planned:
    """One segment to be: ``nbytes`` in all; ``ring``, ``vnet``, ``kind`` and ``linked`` say which header it gets."""

    name: str
    id: str
    nbytes: int
    ring: bool
    vnet: bool = False
    ends: tuple[str, str] = ("", "")
    status: int = 1
    kind: str = ""
    linked: tuple[bool, bool] = (True, True)


@dataclass(frozen=True)
class Found:
    """A segment that exists: what its header says.  ``good`` is False where it is not one of ours or half made."""

    name: str
    nbytes: int
    owner: int
    owner_alive: bool
    digest: int
    good: bool


def plan(pipeline: str, graph: Graph) -> list[Planned]:
    """Every segment of a graph: rings first."""
    connects = {stage.id for stage in graph.stages if stage.kind.connects}
    made = [
        Planned(
            f"{pipeline}.r.{r.id}",
            r.id,
            layout.PAGE + r.size,
            True,
            r.vnet,
            (str(r.producer[0]), str(r.consumer[0])),
            linked=(r.producer[0] not in connects, r.consumer[0] not in connects),
        )
        for r in graph.rings
    ]
    for stage in graph.stages:
        status = int(STATUS not in stage.kind.hears or stage.params[STATUS] == "on")
        made.append(
            Planned(f"{pipeline}.s.{stage.id}", stage.id, stage.words * 8, False, status=status, kind=stage.kind.name)
        )
    return made


def plan_digest(graph_digest: int) -> int:
    """A graph's digest mixed with the sources that say what the words mean: another version takes nothing over."""
    sha = hashlib.sha256(str(graph_digest).encode())
    for path in sorted(path for pattern in _LAYOUTS for path in _ROOT.glob(pattern)):
        sha.update(path.read_bytes())
    return int.from_bytes(sha.digest()[:8], "big") >> 1


def find(pipeline: str) -> list[Found]:
    """All segments that bear the pipeline's name, planned or not."""
    names = [p.name for mark in ("r", "s") for p in SHM.glob(f"{pipeline}.{mark}.*")]
    found = []
    for name in sorted(names):
        with contextlib.suppress(errors.SegmentMissing):  # its owner was just removing it
            found.append(_look(name))
    return found


def _look(name: str) -> Found:
    magic = layout.RING_MAGIC if name.split(".")[1] == "r" else layout.STAGE_MAGIC
    seg = segment.Segment.attach(name)
    nbytes = seg.nbytes
    if nbytes < layout.PAGE:
        seg.close()
        return Found(name, nbytes, 0, False, 0, False)
    with _header(seg) as w:
        good = True
        try:
            check_header(name, w, nbytes, magic)
        except errors.LayoutMismatch:
            good = False
        if good and magic == layout.RING_MAGIC:
            # A ring that was draining has a producer that stopped for good: see layout.RING_PROHIBITED.
            good = int(w[layout.STATE]) == layout.RING_OPEN and int(w[layout.SIZE]) == nbytes - layout.PAGE
        elif good:
            good = int(w[layout.STAGE_WORDS]) * 8 == nbytes
        owner, start = int(w[layout.OWNER_PID]), int(w[layout.OWNER_START])
        return Found(name, nbytes, owner, segment.alive(owner, start), int(w[layout.DIGEST]), good)


@contextlib.contextmanager
def _header(seg: segment.Segment) -> Iterator[Any]:
    """The words of a segment's first page; closes the segment."""
    arena = segment.Arena(layout.PAGE)
    try:
        _map_header(arena, seg)
        yield arena.w
    finally:
        arena.close()
        seg.close()


def _map_header(arena: segment.Arena, seg: segment.Segment) -> None:
    """Map the first page only: what lies behind it costs address space and page tables, and nobody looks at it here."""
    arena.map_plain(segment.Segment(seg.name, os.dup(seg.fd), layout.PAGE))


def decide(planned: Sequence[Planned], found: Sequence[Found], digest: int, *, fresh: bool) -> tuple[bool, str]:
    """Whether to take everything over, and if not, why not (empty: there is nothing).  Raises `InUse`."""
    for one in found:
        if one.owner_alive:
            raise InUse(f"is running as pid {one.owner}")
    if not found:
        return False, ""
    if fresh:
        return False, "--fresh was asked for"
    there = {one.name: one for one in found}
    for want in planned:
        if want.name not in there:
            return False, f"{want.name} is missing"
        one = there.pop(want.name)
        if not one.good or one.nbytes != want.nbytes:
            return False, f"{want.name} has another layout or was left while draining"
        if one.digest != digest:
            return False, "they belong to another config or version"
    return not there, f"{next(iter(there))} is not in the plan" if there else ""


class RingHeader:
    """A ring's header page as the supervisor sees it; the data is not mapped here."""

    def __init__(self, planned: Planned, seg: segment.Segment) -> None:
        self.name, self.size = planned.name, planned.nbytes - layout.PAGE
        self._arena = segment.Arena(layout.PAGE)
        _map_header(self._arena, seg)
        self.w: Any = self._arena.w

    @property
    def used(self) -> int:
        """Bytes between head and tail."""
        head = int(self.w[layout.HEAD])  # first: the tail may move on meanwhile, the head never passes it
        return int(self.w[layout.TAIL]) - head

    def move(self, state: int) -> None:
        """Move the ring's state, as far as layout.RING_MOVES allows it."""
        if (int(self.w[layout.STATE]), state) in layout.RING_MOVES:
            self.w[layout.STATE] = state

    def bell(self, *, producer: bool) -> tuple[int, int, int]:
        """Address of an end's doorbell: pid, descriptor, inode."""
        pid, fd = (layout.P_PID, layout.P_BELL_FD) if producer else (layout.C_PID, layout.C_BELL_FD)
        return int(self.w[pid]), int(self.w[fd]), int(self.w[fd + 1])

    def close(self) -> None:
        """Unmap."""
        self.w = None
        self._arena.close()


class Segments:
    """All segments of a running pipeline, by the id of their ring or stage.

    ``kept`` has the descriptor of each, by name: new incarnations get their memory by it.  The names in /dev/shm are
    for the next supervisor, and for people.
    """

    def __init__(self) -> None:
        self.kept: dict[str, segment.Segment] = {}
        self.rings: dict[str, RingHeader] = {}
        self.stages: dict[str, StageSegment] = {}
        self.taken_over = False

    def descriptors(self) -> dict[str, int]:
        """The descriptor of each segment, by name."""
        return {name: seg.fd for name, seg in self.kept.items()}

    def close(self, *, unlink: bool) -> None:
        """Detach, and (``unlink``) remove the names, but not one that somebody else has made anew."""
        for header in self.rings.values():
            if unlink:
                header.move(layout.RING_CLOSED)
            header.close()
        for seg in self.kept.values():
            if unlink:
                seg.unlink()
        for stage in self.stages.values():
            stage.close()
        for seg in self.kept.values():
            seg.close()
        self.rings.clear()
        self.stages.clear()
        self.kept.clear()


@contextlib.contextmanager
def locked(runtime_dir: str) -> Iterator[None]:
    """One supervisor at a time makes its segments or removes them; the lock is on the folder.  Raises `InUse`."""
    fd = os.open(runtime_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise InUse(f"cannot lock {runtime_dir}: another supervisor starts or ends there") from None
            time.sleep(0.005)
        yield
    finally:
        os.close(fd)


def check_free(pipeline: str) -> None:
    """Be sure that nobody runs under the name: no supervisor, nor a stage of a dead one.  Raises `InUse`."""
    try:
        found = find(pipeline)
    except (PermissionError, errors.LayoutMismatch) as error:
        raise InUse(f"belongs to another user ({error})") from None
    decide((), found, 0, fresh=True)
    _wait_for_ends(pipeline, found)


def open_all(
    pipeline: str,
    planned: Sequence[Planned],
    digest: int,
    logger: Any,
    *,
    fresh: bool,
    where: tuple[str, str] = ("", ""),
) -> Segments:
    """Take the planned segments over, or remove what is left and make them.  Raises `InUse`, `NoSpace`.

    ``where``: paths of the control socket and of the config, for those who look for this pipeline (`pipeline.known`).
    """
    try:
        found = find(pipeline)
    except (PermissionError, errors.LayoutMismatch) as error:
        raise InUse(f"belongs to another user ({error})") from None
    take, why = decide(planned, found, digest, fresh=fresh)
    if found:
        _wait_for_ends(pipeline, found)
    if found and not take:
        for one in found:
            segment.unlink(one.name)
        logger.warning("removed what a dead supervisor left", segments=len(found), why=why, owner=found[0].owner)
    result = Segments()
    _allow_descriptors(len(planned))
    if take:
        logger.warning("taking over from a dead supervisor", segments=len(found), owner=found[0].owner)
        result.taken_over = True
    else:
        _check_space(planned)
    try:
        for want in planned:
            (_attach if take else _create)(result, want, digest)
        for stage in result.stages.values():
            stage.say_where(*where)
    except BaseException:
        result.close(unlink=not take)
        raise
    return result


def _allow_descriptors(count: int) -> None:
    """The supervisor and fork server hold a descriptor of each segment: raise a soft limit that is in the way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = count + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < need:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need if hard == resource.RLIM_INFINITY else min(need, hard), hard))


def _check_space(planned: Sequence[Planned]) -> None:
    need = sum(-(-one.nbytes // layout.PAGE) * layout.PAGE for one in planned)
    free = segment.free_space()
    if need > free:
        raise errors.NoSpace(
            f"/dev/shm cannot hold this pipeline: {need:,} bytes needed ({len(planned)} segments), {free:,} free; "
            "make it larger (mount -o remount,size=...) or pipeline.ring_size smaller"
        )


def _wait_for_ends(pipeline: str, found: Sequence[Found], seconds: float = 2.0) -> None:
    """Stages of a dead supervisor are being killed by the kernel; be sure that they are gone.  Raises `InUse`.

    Those whose pids mean nothing here, too: in another container that has the same /dev/shm nobody has died.
    """
    until = time.monotonic() + seconds
    for one in found:
        if f"{pipeline}.r." not in one.name or one.nbytes < layout.PAGE:
            continue
        try:
            seg = segment.Segment.attach(one.name)
        except errors.SegmentMissing:
            continue
        with _header(seg) as w:
            for pid in (layout.P_PID, layout.C_PID):
                while segment.alive(int(w[pid]), int(w[pid + 1])):
                    if time.monotonic() > until:
                        raise InUse(f"has a stage left: pid {int(w[pid])} still uses ring {one.name}")
                    time.sleep(0.005)
    for one in found:
        try:
            seg = segment.Segment.attach(one.name)
        except errors.SegmentMissing:
            continue
        try:
            while holding.held(seg.fd):
                if time.monotonic() > until:
                    raise InUse(
                        f"is running as pid {one.owner} of another pid namespace: a container that shares this /dev/shm"
                    )
                time.sleep(0.005)
        finally:
            seg.close()


def _hold(seg: segment.Segment) -> None:
    if not holding.hold(seg.fd):
        raise InUse(f"has just been started by somebody else: {seg.name} is held")


def _create(into: Segments, one: Planned, digest: int) -> None:
    if not one.ring:
        stage = StageSegment.create(one.name, one.nbytes // 8, digest, kind=one.kind)
        into.kept[one.name] = stage.segment
        _hold(stage.segment)
        into.stages[one.id] = stage
        stage.w[layout.CMD_STATUS] = one.status
        return
    seg = into.kept[one.name] = segment.Segment.create(one.name, one.nbytes)
    _hold(seg)
    header = into.rings[one.id] = RingHeader(one, seg)
    names = b"".join(end.encode()[:63].ljust(64, b"\0") for end in one.ends)
    header._arena.bytes[layout.NAMES_BYTE : layout.NAMES_BYTE + 128] = names
    format_header(header.w, header.size, vnet=one.vnet, owner=os.getpid(), digest=digest, linked=one.linked)


def _attach(into: Segments, one: Planned, _digest: int) -> None:
    if one.ring:
        seg = into.kept[one.name] = segment.Segment.attach(one.name)
        _hold(seg)
        header = into.rings[one.id] = RingHeader(one, seg)
        w = header.w
    else:
        stage = into.stages[one.id] = StageSegment.attach(one.name)
        into.kept[one.name] = stage.segment
        _hold(stage.segment)
        w = stage.w
        w[layout.CMD_DRAIN] = w[layout.CMD_STOP] = 0
    w[layout.OWNER_START] = segment.process_start(os.getpid())
    w[layout.OWNER_PID] = os.getpid()
