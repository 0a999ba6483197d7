"""What a kind of stage declares of itself: all that the pipeline knows of it, without importing its code.

One `Kind` stands in each folder's ``kind.py``; the pipeline loops over kinds and knows none by name.  Whatever a kind
does not declare is as the defaults here say.  Hooks are plain functions: they start no process and touch no segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from ring.fields import Field, Table
from ring.layout import COUNTERS, PORTS, ROW_SCALARS, UNDO, Counter, true_row
from stages.replies import Later, Reply
from stages.schema import Mistake

if TYPE_CHECKING:
    import argparse

    from ring.ledger import StageSegment

CHARDEV: Final = "chardev"
NETDEV: Final = "netdev"
FILTER: Final = "filter"
ConfigClass = type[Any]
"""A frozen dataclass whose fields are `stages.schema.key`s."""

VARIANT_KEYS: Final[Mapping[str, str]] = {CHARDEV: "backend", NETDEV: "backend", FILTER: "type"}
"""Tables of config.toml that several kinds share, and the key that says which kind one is."""

SEND: Final = "send"
RECEIVE: Final = "receive"
"""The ports of an endpoint: frames for the outside go in at the first, frames from there come out at the second."""

STAGE: Final = "stages.base:Stage"
"""The shell of a stage that needs none of its own: a duty cycle is the kind's burst."""

FRAMING_KEY: Final = "vnet_hdr_support"
"""The key of a table that says whether frames on all chardevs that it names carry a virtio-net header's length."""

CHECKPOINT: Final = "checkpoint"
FAILOVER: Final = "failover"
STATUS: Final = "status"
ANNOUNCE: Final = "announce"
"""What a stage can be told: a checkpoint was made, one host of the pair is gone, it is switched on or off, the network
is to be told where the guest is.
"""


PRIMARY: Final = "primary"
SECONDARY: Final = "secondary"
"""The two replicas of a service."""


class Balance(NamedTuple):
    """A conservation law of a kind: at every commit the counters on the left add up to those on the right."""

    label: str
    left: tuple[str, ...]
    right: tuple[str, ...]


class ChardevKey(NamedTuple):
    """A key of a kind's table that names a chardev.

    ``reads``: the port that takes frames from it, ``writes``: the port that gives it frames; empty: none.  ``text``: it
    carries lines of text to a peer outside, and no frames; else the table's ``vnet_hdr_support`` says how it is framed.
    ``of``: whose guest's frames have to come from it: `PRIMARY`, `SECONDARY`; empty: that cannot be said.
    """

    key: str
    reads: str = ""
    writes: str = ""
    text: bool = False
    of: str = ""


class Joint(NamedTuple):
    """Where a table meets its peer outside: equal ``where`` is one place, at which the ``server`` listens."""

    server: bool
    where: tuple[object, ...]


class Deaf(NamedTuple):
    """An event of which a stage is not told any more once it was told of ``after``."""

    event: str
    after: str


class Waits(NamedTuple):
    """An event of which a stage is not told before it was told of ``until``, and ``why``."""

    event: str
    until: str
    why: str


class Claim(NamedTuple):
    """Something outside that a stage uses, which no other stage of the pipeline may use as well.

    ``what``: equal for equal things.  ``shared``: it only looks at it, so others may look, too.  ``path``: what in the
    config says so, ``key``: of it the key to be named in a mistake.  ``found`` and ``expected`` are told where another
    has it, with that one's path put in for ``{taken}``.  ``covers(what)``: whether it takes that as well, of things
    that cannot be listed.
    """

    what: tuple[object, ...]
    path: str
    found: str
    expected: str
    key: str = ""
    shared: bool = False
    covers: Callable[[tuple[Any, ...]], bool] | None = None


class Derived(NamedTuple):
    """What a stage's parameters need beside its own table.

    ``vnet`` and ``text``: how its ring is framed (of the last ring on it), ``runtime``: start of the paths of files
    that a pipeline writes by itself, ``start_ns``: time of the earliest frame of all finite inputs. ``secondary``: its
    netdev is a secondary's, for a rewriter stands in its chain; ``gated``: it is that netdev's network, to which
    nothing may go before a failover was announced. ``pipeline``: the pipeline's name.
    Of a chardev to a peer outside, for messages: ``writer``, the key whose object gives it frames, and ``readers``, the
    other such chardevs from which frames are taken, each with its key.
    """

    vnet: bool
    text: bool
    runtime: str
    start_ns: int
    secondary: bool = False
    gated: bool = False
    pipeline: str = ""
    writer: str = ""
    readers: str = ""


class Doubt(NamedTuple):
    """What a person may not have meant, of a table that is right: which key, what comes of it, and the mend."""

    key: str
    what: str
    mend: str


class Look(NamedTuple):
    """A stage as of its last commit: parameters, counters, scalars by index; ``now``: monotonic ns of the look."""

    params: Mapping[str, Any]
    counters: Mapping[str, int]
    scalars: Sequence[int]
    now: int


class Shown(NamedTuple):
    """What people see of a stage beside its counters.

    ``fields`` go into ``status --json``; ``short`` (for the live view) and ``long`` (for ``status``) say what is not as
    it should be, empty where all is well.
    """

    fields: Mapping[str, str] = {}
    short: str = ""
    long: str = ""


class Headline(NamedTuple):
    """A figure of the live view's last line: its word, and the counters that are added up for it.

    ``once``: stages of the kind all count the same events, so the greatest of them is shown and not their sum.
    ``warns``: it is no good sign where it is not 0.
    """

    word: str
    counters: tuple[str, ...]
    once: bool = False
    warns: bool = False


class LiveStage(NamedTuple):
    """A running stage as an `Annex` sees it."""

    id: str
    params: Mapping[str, Any]
    segment: StageSegment


class AnnexLive(Protocol):
    """The tables of an `Annex` in a running pipeline, and the command that changes them."""

    def command(self, args: Mapping[str, Any], stopped: Sequence[str], wake: Callable[[], object]) -> Reply | Later:
        """Do the command; ``stopped`` are stages of the kind that do not run, ``wake()`` wakes those that do."""


class AnnexCode(Protocol):
    """What a module named by `Annex.module` holds."""

    def mistakes(
        self, tables: Mapping[str, Any], good: Sequence[str], stages: Sequence[str], *, sure: bool, whole: bool
    ) -> Iterable[Mistake]:
        """What is wrong with ``tables`` although each of their keys is right.

        ``good``: names of tables without a mistake of their own; ``sure``: all ids of ``stages`` are known; ``whole``:
        every table was read without a mistake.
        """

    def warnings(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        """What a person may not have meant, by table."""

    def rows(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
        """The tables for `pipeline.graph`, a row each."""

    def live(self, stages: Sequence[LiveStage], tables: Mapping[str, Any], log: Any, *, taken_over: bool) -> AnnexLive:
        """The tables in a pipeline that starts; ``taken_over``: its segments are a dead one's."""


class AnnexClient(Protocol):
    """What a module named by `Annex.client` holds: the command of `pipeline.control`, as its user sees it."""

    HELP: str

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add what the command line takes."""

    def request(self, parser: argparse.ArgumentParser, given: argparse.Namespace) -> dict[str, Any]:
        """The request's arguments; ``parser.error`` where they make no sense."""

    def listed(self, given: argparse.Namespace, reply: Mapping[str, Any]) -> str | Sequence[Sequence[str]]:
        """What a reply says: a text, or rows behind their heads."""


class Annex(NamedTuple):
    """Tables of config.toml about all stages of a kind together, such as ``[rule.NAME]``.

    ``table``: their name, and that of the control command; ``title``: their heading in `pipeline.graph`; ``config``:
    the class of one; ``module``: an `AnnexCode`, not imported to read a config without such tables; ``client``: an
    `AnnexClient`.
    """

    table: str
    title: str
    config: ConfigClass
    module: str
    client: str


class Qemu(NamedTuple):
    """QEMU's object of a kind, for `tools.from_qemu`.

    ``properties``: QEMU's names for those that stand in config.toml as they are, empty: QEMU has no such object;
    ``ignored``: those that nothing here needs.  ``side``: whose command line it is that has one (``primary``,
    ``secondary``), empty: it may be either's.  ``part``: it is a part of COLO; what is none is carried over only beside
    a part on its netdev, and stays in QEMU where it cannot be.  ``most``: of a property, beyond which more changes
    nothing here and is not taken.  ``differs(table)``: what comes out otherwise here than with QEMU, each in words.
    """

    properties: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    side: str = ""
    part: bool = True
    most: Mapping[str, int] = {}
    differs: Callable[[Any], Iterable[str]] = lambda table: ()


def scalars_table(fields: tuple[Field, ...], **more: Any) -> Table:
    """A kind's scalars, which lie in the committed row; ``more`` are fields of `Table`."""
    meaning = "the kind's own state, as of the last commit"
    return Table("scalars", meaning, fields, lambda w: true_row(w) + ROW_SCALARS, **more)


def options_table(fields: tuple[Field, ...], **more: Any) -> Table:
    """A kind's options and notes, which count from the start of the segment; ``more`` are fields of `Table`."""
    meaning = "options, and notes that end with the stage's process"
    return Table("options", meaning, fields, lambda w: 0, **more)


@dataclass(frozen=True)
class Kind:
    """One kind of stage.

    ``name`` is unique (``netdev-pcap``), ``type`` is what people see (``netdev``); ``table`` and ``variant``: where its
    tables stand in config.toml (``[filter.ID]`` with ``type = VARIANT``), ``config`` the class of one; ``default``: it
    is what stands there where the config says nothing.

    ``kernels`` are the modules that the fork server warms; ``burst`` is the function of the first that a duty cycle
    calls, empty: ``shell`` (``module:Class``) has a ``do_work`` of its own.  The place of a port in ``inputs`` or
    ``outputs`` is its index in the kernels.

    ``chardevs``: the keys that name them.  ``ways``: from which input a frame can reach which output.  ``connects``: it
    has an outside peer and keeps the link words of its rings.  ``hears``: events and settings of the control socket
    (``checkpoint``, ``failover``, ``status``, ``announce``), where the parameter ``hears_if`` is true, if one is named;
    ``deaf``: see `Deaf`, ``waits``: see `Waits`.  ``marks_secondary``: a netdev in whose chain it stands is a
    secondary's.

    ``finite``: its input ends, and goes by the clock that starts when all stages are ready.  ``gauges``: counters that
    are 0 when nothing is left to be done.  ``losses``: counters that say, where they grow, that something is lost or
    left undone now, and so that the pipeline is not healthy.

    ``words_of``: words of the kind's tables for a stage's parameters; ``sized_by``: parameters that say how its tables
    are to be read, so segments of other values are not taken over.  ``tables``: for `tools.inspect`.

    ``mistakes(table, path, clean)``: what is wrong with a table although each key is right (``clean``: each was).
    ``doubts(table)``: see `Doubt`.  ``claims(table, path)``: see `Claim`.  ``joint(table)``: see `Joint`.
    ``gives(table)``: frames come in through it from outside.  ``vnet(table)``: whether frames at this side of a netdev
    carry a virtio-net header, as its key ``vnet_key`` says; None: it takes both.  ``start_ns(table)``: time of a finite
    input's first frame, 0: it has none; raises ValueError with the reason where it cannot be read, of the key
    ``start_key``, for which ``start_expected`` would be right.
    ``derive(table, derived)``: parameters that do not stand in the table.  ``options(params)``: words of the
    parameter area, where ``shell`` is no class of its own.  ``address(params)``: what an endpoint is joined to outside.
    ``leftovers(params)``: sockets that a killed process leaves behind.  ``ended(params)``: undoes what stages of the
    kind made outside and left there over their restarts, when the pipeline has ended; what it could not, a line each.
    ``preflight(params)``: what keeps a stage from starting and cannot get better by itself, a line each; it makes
    nothing, and is asked before anything is made.

    ``shows(look)``, ``headlines``, ``summary(id, counters)``: what people see in `status`, in the live view's last
    line, and in the summary at the end; ``outcome(params, counters)``: what the last line of all says of a stage, and
    what to type to see more of it.  ``annex``: see `Annex`.  ``qemu``: see `Qemu`.
    """

    name: str
    type: str
    table: str
    config: ConfigClass
    kernels: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    variant: str = ""
    default: bool = False
    shell: str = STAGE
    burst: str = ""
    counters: tuple[Counter, ...] = ()
    balances: tuple[Balance, ...] = ()
    chardevs: tuple[ChardevKey, ...] = ()
    ways: tuple[tuple[str, str], ...] = ()
    connects: bool = False
    hears: tuple[str, ...] = ()
    hears_if: str = ""
    deaf: tuple[Deaf, ...] = ()
    waits: tuple[Waits, ...] = ()
    marks_secondary: bool = False
    finite: bool = False
    gauges: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    undo_entries: int = 0
    words_of: Callable[[Mapping[str, Any]], int] = lambda params: 0
    sized_by: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    mistakes: Callable[[Any, str, bool], Iterable[Mistake]] = lambda table, path, clean: ()
    doubts: Callable[[Any], Iterable[Doubt]] = lambda table: ()
    claims: Callable[[Any, str], Iterable[Claim]] = lambda table, path: ()
    joint: Callable[[Any], Joint | None] = lambda table: None
    gives: Callable[[Any], bool] = lambda table: True
    vnet: Callable[[Any], bool | None] = lambda table: False
    start_ns: Callable[[Any], int] = lambda table: 0
    start_key: str = ""
    start_expected: str = ""
    vnet_key: str = ""
    derive: Callable[[Any, Derived], Mapping[str, Any]] = lambda table, derived: {}
    options: Callable[[Mapping[str, Any]], Mapping[int, int]] = lambda params: {}
    address: Callable[[Mapping[str, Any]], str] = lambda params: ""
    leftovers: Callable[[Mapping[str, Any]], Iterable[str]] = lambda params: ()
    ended: Callable[[Mapping[str, Any]], Iterable[str]] = lambda params: ()
    preflight: Callable[[Mapping[str, Any]], Iterable[str]] = lambda params: ()
    shows: Callable[[Look], Shown] = lambda look: Shown()
    headlines: tuple[Headline, ...] = ()
    summary: Callable[[str, Mapping[str, int]], str] | None = None
    outcome: Callable[[Mapping[str, Any], Mapping[str, int]], str] = lambda params, counters: ""
    annex: Annex | None = None
    qemu: Qemu = field(default=Qemu())

    def __post_init__(self) -> None:
        """Raises ValueError where the kind says what cannot be."""
        if len(self.inputs) > PORTS or len(self.outputs) > PORTS or len(self.all_counters) > COUNTERS:
            raise ValueError(f"kind {self.name} has more ports or counters than a row has places")
        for wrong in self._mistaken():
            raise ValueError(f"kind {self.name}: {wrong}")

    def _mistaken(self) -> Iterable[str]:
        if self.endpoint and (self.inputs, self.outputs) != ((SEND,), (RECEIVE,)):
            yield f"an endpoint has the ports {SEND} and {RECEIVE}"
        if not self.burst and self.shell == STAGE:
            yield "no burst, and no shell of its own whose do_work does without"
        if self.table == FILTER and not {"tx_in", "rx_in"} <= set(self.inputs):
            yield "a filter has the inputs tx_in and rx_in"
        if self.table == FILTER and not {"tx_out", "rx_out"} <= set(self.outputs):
            yield "a filter has the outputs tx_out and rx_out"
        keys = {f.name for f in fields(self.config)}
        framed = {FRAMING_KEY} if any(not link.text for link in self.chardevs) else set()
        yield from (f"no key {key} in its table" for key in ({link.key for link in self.chardevs} | framed) - keys)
        ports = {*self.inputs, *self.outputs, ""}
        named = [port for way in self.ways for port in way]
        named += [port for link in self.chardevs for port in (link.reads, link.writes)]
        yield from (f"no port {port}" for port in named if port not in ports)
        told = {*self.hears, *(name for deaf in self.deaf for name in deaf)}
        told |= {name for waits in self.waits for name in waits[:2]}
        yield from (f"no event {event}" for event in told - {CHECKPOINT, FAILOVER, STATUS, ANNOUNCE})
        counted = {counter.name for counter in self.all_counters if counter is not None}
        used = {name for law in self.balances for name in (*law.left, *law.right)} | set(self.gauges)
        used |= {name for line in self.headlines for name in line.counters}
        yield from (f"no counter {name}" for name in used - counted)

    @property
    def endpoint(self) -> bool:
        """Whether it speaks with the outside: chardevs and the sides of netdevs."""
        return self.table in (CHARDEV, NETDEV)

    @property
    def all_counters(self) -> tuple[Counter | None, ...]:
        """Counters by index, None where the index has no port."""
        inputs = [Counter(f"{port}_frames", f"frames taken from {port}") for port in self.inputs]
        outputs = [Counter(f"{port}_frames", f"frames put into {port}") for port in self.outputs]
        pad = [None] * PORTS
        return (*(inputs + pad)[:PORTS], *(outputs + pad)[:PORTS], *self.counters)

    @property
    def tables_at(self) -> int:
        """Word index at which the kind's tables start."""
        return UNDO + 2 * self.undo_entries

    def words(self, params: Mapping[str, Any]) -> int:
        """Length of a stage's segment in words."""
        return self.tables_at + self.words_of(params)

    def params(self, table: Any, derived: Derived) -> dict[str, Any]:
        """The parameters of a stage: its table's keys and values, and what was derived."""
        own = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(table).items()}
        return {**own, **self.derive(table, derived)}
