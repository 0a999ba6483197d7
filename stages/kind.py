"""What a kind of stage declares of itself: all that the pipeline knows of it, without importing its code.

One `Kind` stands in each folder's ``kind.py``; the pipeline loops over kinds and knows none by name.  Whatever a kind
does not declare is as the defaults here say.  Hooks are plain functions: they start no process and touch no segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from ring.fields import Field
from ring.layout import COUNTERS, PORTS, UNDO
from stages.replies import Later, Reply
from stages.schema import Mistake

if TYPE_CHECKING:
    from ring.ledger import StageSegment

OWN_COUNTERS: Final = 2 * PORTS
"""Counters 0 to 7 are frames taken from each input, 8 to 15 frames put into each output; a kind's own follow."""

CHARDEV: Final = "chardev"
NETDEV: Final = "netdev"
FILTER: Final = "filter"
ConfigClass = type[Any]
"""A frozen dataclass whose fields are `stages.schema.key`s."""

VARIANT_KEYS: Final[Mapping[str, str]] = {CHARDEV: "backend", NETDEV: "backend", FILTER: "type"}
"""Tables of config.toml that several kinds share, and the key that says which kind one is."""


class Counter(NamedTuple):
    """A counter's name and one sentence that says what it counts."""

    name: str
    sentence: str


class Counters:
    """Counters of a kind in the making: each `counter` takes the next index of a row's counters.

    One line a counter is its constant, its name and its sentence: ``SENT: Final = _OWN.counter("sent", "frames ...")``.
    """

    def __init__(self) -> None:
        self._listed: list[Counter] = []

    def counter(self, name: str, sentence: str) -> int:
        """The index of a new counter."""
        self._listed.append(Counter(name, sentence))
        return OWN_COUNTERS + len(self._listed) - 1

    @property
    def listed(self) -> tuple[Counter, ...]:
        """Those made so far, in the order of their indices."""
        return tuple(self._listed)


class Balance(NamedTuple):
    """A conservation law of a kind: at every commit the counters on the left add up to those on the right."""

    label: str
    left: tuple[str, ...]
    right: tuple[str, ...]


class ChardevKey(NamedTuple):
    """A key of a kind's table that names a chardev.

    ``reads``: the port that takes frames from it, ``writes``: the port that gives it frames; empty: none.  ``text``: it
    carries lines of text to a peer outside, and no frames; else the table's ``vnet_hdr_support`` says how it is framed.
    """

    key: str
    reads: str = ""
    writes: str = ""
    text: bool = False


class Claim(NamedTuple):
    """Something outside that a stage uses, which no other stage of the pipeline may use as well.

    ``what``: equal for equal things.  ``shared``: it only looks at it, so others may look, too.  ``path``: what in the
    config says so, ``key``: of it the key to be named in a mistake.  ``found`` and ``expected`` are told where another
    has it, with that one's path put in for ``{taken}``.
    """

    what: tuple[object, ...]
    path: str
    found: str
    expected: str
    key: str = ""
    shared: bool = False


class Derived(NamedTuple):
    """What a stage's parameters need beside its own table.

    ``vnet`` and ``text``: how its ring is framed (of the last ring on it), ``side``: of a netdev, ``runtime``: start of
    the paths of files that a pipeline writes by itself, ``start_ns``: time of the earliest frame of all finite inputs.
    """

    vnet: bool
    text: bool
    side: str
    runtime: str
    start_ns: int


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
    """

    word: str
    counters: tuple[str, ...]
    once: bool = False


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


class Annex(NamedTuple):
    """Tables of config.toml about all stages of a kind together, such as ``[rule.NAME]``.

    ``table``: their name, and that of the control command; ``title``: their heading in `pipeline.graph`; ``config``:
    the class of one; ``module``: an `AnnexCode`, imported only where there are such tables or stages.
    """

    table: str
    title: str
    config: ConfigClass
    module: str


class Table(NamedTuple):
    """A table in a stage's segment, for `tools.inspect`: its fields, and where its rows are.

    ``start`` and ``rows`` take the segment's words; ``row_words``: from one row to the next; ``live``: a field that is
    not 0 in rows that are in use, empty: all are.
    """

    name: str
    meaning: str
    fields: tuple[Field, ...]
    start: Callable[[Any], int]
    rows: Callable[[Any], int] = lambda w: 1
    row_words: int = 0
    live: str = ""


@dataclass(frozen=True)
class Kind:
    """One kind of stage.

    ``name`` is unique (``netdev-pcap``), ``type`` is what people see (``netdev``); ``table`` and ``variant``: where its
    tables stand in config.toml (``[filter.ID]`` with ``type = VARIANT``), ``config`` the class of one; ``default``: it
    is what stands there where the config says nothing.

    ``kernels`` are the modules that the fork server warms; ``burst`` is the function of the first that a duty cycle
    calls, where ``shell`` (``module:Class``) is no class of its own.  The place of a port in ``inputs`` or ``outputs``
    is its index in the kernels.

    ``chardevs``: the keys that name them.  ``ways``: from which input a frame can reach which output.  ``connects``: it
    has an outside peer and keeps the link words of its rings.  ``hears``: events and settings of the control socket
    (``checkpoint``, ``failover``, ``status``); ``deaf``: an event, and one after which it is told of it no more.
    ``finite``: its input ends, and goes by the clock that starts when all stages are ready.  ``gauges``: counters that
    are 0 when nothing is left to be done.  ``losses``: counters that say, where they grow, that something is lost or
    left undone now, and so that the pipeline is not healthy.

    ``words_of``: words of the kind's tables for a stage's parameters; ``sized_by``: parameters that say how its tables
    are to be read, so segments of other values are not taken over.  ``tables``: for `tools.inspect`.

    ``mistakes(table, path, clean)``: what is wrong with a table although each key is right (``clean``: each was).
    ``claims(table, path)``: see `Claim`.  ``gives(table)``: frames come in through it from outside.  ``vnet(table)``:
    whether frames at this side of a netdev carry a virtio-net header; None: it takes both.  ``start_ns(table)``: time
    of a finite input's first frame, 0: it has none; raises ValueError with the reason where it cannot be read, of the
    key ``start_key``.  ``derive(table, derived)``: parameters that do not stand in the table.  ``address(params)``:
    what an endpoint is joined to outside.  ``leftovers(params)``: sockets that a killed process leaves behind.
    ``preflight(params)``: what keeps a stage from starting and cannot get better by itself, a line each; it makes
    nothing, and is asked before anything is made.

    ``shows(counters)``, ``headlines``, ``summary(id, counters)``: what people see in `status`, in the live view's last
    line, and in the summary at the end.  ``annex``: see `Annex`.  ``qemu``: QEMU's names for those of its properties
    that stand in config.toml as they are; empty: QEMU has no such object.
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
    shell: str = "stages.base:Stage"
    burst: str = ""
    counters: tuple[Counter, ...] = ()
    balances: tuple[Balance, ...] = ()
    chardevs: tuple[ChardevKey, ...] = ()
    ways: tuple[tuple[str, str], ...] = ()
    connects: bool = False
    hears: tuple[str, ...] = ()
    deaf: tuple[str, str] = ("", "")
    finite: bool = False
    gauges: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    undo_entries: int = 0
    words_of: Callable[[Mapping[str, Any]], int] = lambda params: 0
    sized_by: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    mistakes: Callable[[Any, str, bool], Iterable[Mistake]] = lambda table, path, clean: ()
    claims: Callable[[Any, str], Iterable[Claim]] = lambda table, path: ()
    gives: Callable[[Any], bool] = lambda table: True
    vnet: Callable[[Any], bool | None] = lambda table: False
    start_ns: Callable[[Any], int] = lambda table: 0
    start_key: str = ""
    derive: Callable[[Any, Derived], Mapping[str, Any]] = lambda table, derived: {}
    address: Callable[[Mapping[str, Any]], str] = lambda params: ""
    leftovers: Callable[[Mapping[str, Any]], Iterable[str]] = lambda params: ()
    preflight: Callable[[Mapping[str, Any]], Iterable[str]] = lambda params: ()
    shows: Callable[[Mapping[str, int]], Shown] = lambda counters: Shown()
    headlines: tuple[Headline, ...] = ()
    summary: Callable[[str, Mapping[str, int]], str] | None = None
    annex: Annex | None = None
    qemu: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if len(self.inputs) > PORTS or len(self.outputs) > PORTS or len(self.all_counters) > COUNTERS:
            raise ValueError(f"kind {self.name} has more ports or counters than a row has places")

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
