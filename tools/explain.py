"""Show why two replicas' outputs differed: ``python -m tools.explain FILE...``.

A FILE is what the compare writes at a difference (`divergences` in config.toml); of folders the files are listed, the
newest first.  Exit status: 0, or 2 where something cannot be read.  Nothing is coloured where output is no terminal,
with ``--no-color``, or where NO_COLOR is set.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from pipeline.stdout import show
from pipeline.streams import complain
from stages.capture.reader import CaptureError
from stages.compare.finding import SIDES
from tools.advice import Advice, advise
from tools.divergence import Divergence, NotExplainedError, Seen, around, line_of, load, pairs, written

_LISTED: Final = 20  # files, where a person looks
_CONTEXT: Final = 8  # bytes of text that should stand before the one that differs
_ESCAPES: Final = {9: "\\t", 10: "\\n", 13: "\\r", 92: "\\\\"}
_ROWS_BEFORE: Final = 2  # of bytes, around the one that differs
_ROWS_BEHIND: Final = 3
_LINES_BEFORE: Final = 12  # of packets
_LINES_BEHIND: Final = 6
_WIDEST: Final = 160
_MAY_DIFFER: Final = "If it may differ: a rule, docs/rules.md"
_LETTERS: Final = ((2, "S"), (1, "F"), (4, "R"), (8, "P"), (16, "A"))
_BETWEEN: Final = " │ "
_STYLES: Final = ("cyan", "magenta")  # of the sides


# --- pieces -------------------------------------------------------------------------------------------------------
def plain(path: str) -> str:
    """A path that a terminal takes for text, whatever characters are in it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in path)


def clock(ns: int) -> str:
    """``2026-11-23 07:34:31.123456 UTC`` of ns since 1970."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(ns // 10**9))}.{ns // 1000 % 10**6:06} UTC"


def _heading(d: Divergence, width: int) -> Iterator[Text]:
    v = d.verdict
    name, when = plain(os.path.basename(d.path)), clock(v["time_ns"])
    gap = width - len(name) - len(when)
    yield Text.assemble((name, "bold"), " " * gap if gap > 1 else "\n", (when, "dim"))
    parts = [Text.assemble(("rule ", "dim"), (v["rule"], "bold red"))]
    if v["flow"]:
        parts.append(Text(v["flow"]))
    parts += [Text.assemble((f"{k} ", "dim"), v[k]) for k in ("compare", "mask") if v.get(k)]
    yield from _row(parts, width)


def _row(parts: Sequence[Text], width: int) -> Iterator[Text]:
    """Pieces on one line, or on as many as they need."""
    line = parts[0]
    for part in parts[1:]:
        if line.cell_len + 3 + part.cell_len > width:
            yield line
            line = part
        else:
            line = Text("   ").join((line, part))
    yield line


def _printable(value: int) -> str:
    return chr(value) if 32 <= value < 127 else "."


def _byte_rows(d: Divergence, width: int) -> Iterator[Text]:
    """Both streams around the difference: position, hex and text, primary left."""
    known = around(d)
    place = d.place
    if place is None or not (known[0] or known[1]):
        return
    waits = d.verdict["rule"] == "timeout"
    label = len(f"{place + 64:,}")
    count = next((n for n in (16, 12, 8, 4, 3) if label + 5 + 2 * (4 * n + 1) <= width), 3)
    first = place // count * count
    near = range(first - _ROWS_BEFORE * count, first + (_ROWS_BEHIND + 1) * count, count)
    rows = [r for r in near if any(p in side for side in known for p in range(r, r + count))]
    titles = [f"{s} (waits alone)" if waits and d.verdict["waits"] == s else s for s in SIDES]
    heads = [(f"{title:<{4 * count + 1}}", f"bold {style}") for title, style in zip(titles, _STYLES, strict=True)]
    yield Text.assemble(" " * (label + 2), heads[0], _BETWEEN, heads[1])
    for row in rows:
        yield _byte_row(known, row, count, label, -1 if waits else place)
        if row == first and not waits:
            mark = " " * 3 * (place - row) + "^^"
            text = " " * (3 * count + 1 + place - row - len(mark)) + "^"
            half = f"{mark}{text}"
            yield Text(f"{'':{label + 2}}{half:<{4 * count + 1}}{'':{len(_BETWEEN)}}{half}", "bold red")


def _text_rows(d: Divergence, width: int) -> Iterator[Text]:
    """The lines of text that differ, where they are text."""
    known = around(d)
    if d.place is None or d.verdict["rule"] == "timeout" or not all(d.place in side for side in known):
        return
    lines = [line_of(side, d.place) for side in known]
    if any(len(line) < 8 or sum(32 <= b < 127 or b in b"\t\r" for b in line) < len(line) for line, _ in lines):
        return
    label = len(f"secondary{_BETWEEN}")
    room = width - label - 1
    before = min(*(at for _, at in lines), max(room // 2, room - max(len(line) - at for line, at in lines)))
    behind, quote = "", ""
    if before < _CONTEXT:  # a word alone, beside the side's name, does not look like data
        behind = _behind(known, d.place - before) if {at for _, at in lines} == {before} else ""
        quote = "" if behind else '"'
        room -= len(behind) + 2 * len(quote)
    for name, style, (line, at), (other, same) in zip(SIDES, _STYLES, lines, lines[::-1], strict=True):
        text = Text.assemble((f"{name:<9}", f"bold {style}"), (_BETWEEN, "dim"), (behind or quote, "dim"))
        for i, value in enumerate(line[at - before : at - before + room].rstrip(b"\r"), -before):
            twin = other[same + i] if same + i < len(other) else -1
            text.append(_printable(value), "bold red" if i >= 0 and value != twin else "")
        yield text.append(quote, "dim")
    yield Text(" " * (label + len(behind or quote) + before) + "^", "bold red")


def _behind(known: tuple[dict[int, int], dict[int, int]], place: int) -> str:
    """The text, escaped, that stands before position ``place`` on both sides; empty where there is none."""
    out, at = "", place - 1
    while (value := known[0].get(at)) is not None and known[1].get(at) == value:
        if not 32 <= value < 127 and value not in _ESCAPES:
            break
        if len(out) >= 3 * _CONTEXT:
            return f"…{out}"
        out, at = _ESCAPES.get(value, chr(value)) + out, at - 1
    return out


def _byte_row(known: tuple[dict[int, int], dict[int, int]], row: int, count: int, label: int, place: int) -> Text:
    out = Text.assemble((f"{row:>{label},}" if row >= 0 else " " * label, "dim"), "  ")
    for n, side in enumerate(known):
        hexes, text = Text(), Text()
        for p in range(row, row + count):
            value, other = side.get(p), known[1 - n].get(p)
            differs = place >= 0 and (p == place or (p > place and None not in (value, other) and value != other))
            style = "bold reverse red" if p == place else "bold red" if differs else ""
            if value is None:
                hexes.append("··" if p >= 0 else "  ", style or "dim")
            else:
                hexes.append(f"{value:02x}", style)
            text.append(" " if value is None else _printable(value), style)
            if p < row + count - 1:
                hexes.append(" ")
        out.append_text(hexes).append("  ").append_text(text)
        if n == 0:
            out.append(_BETWEEN, "dim")
    return out


def letters(flags: int) -> str:
    """``SA`` of SYN and ACK."""
    return "".join(letter for bit, letter in _LETTERS if flags & bit)


def _cells(d: Divergence, p: Seen | None, zero_ns: int) -> list[str]:
    """Time, flags, position, acknowledgement, length: those of a datagram are its length alone."""
    if p is None:
        return [""] * 5
    when = f"{(p.ns - zero_ns) / 1e6:z.3f}"
    if not p.tcp:
        return [when, "", "", "", f"{p.size}"]
    ack = str((p.ack - d.ack_zero) % (1 << 32)) if p.flags & 16 else ""
    return [when, letters(p.flags), "" if p.flags & 2 else str(d.relative(p)), ack, str(p.size)]


def _packet_rows(d: Divergence, width: int, everything: bool) -> Iterator[Text]:
    lines = list(pairs(d))
    if not lines:
        return
    here = next((i for i, pair in enumerate(lines) if any(p and p.at >= 0 for p in pair)), len(lines) - 1)
    first = 0 if everything else max(0, here - _LINES_BEFORE)
    last = len(lines) if everything else min(len(lines), here + _LINES_BEHIND + 1)
    table = [[_cells(d, p, d.verdict["time_ns"]) for p in pair] for pair in lines[first:last]]
    titles = ["ms", "flags", "pos", "ack", "len"] if d.is_tcp else ["ms", "", "", "", "len"]
    each = (width - len(_BETWEEN)) // 2
    sizes = [max(len(row[s][i]) for row in [[titles, titles], *table] for s in range(2)) for i in range(5)]
    if 1 + sum(sizes) + sum(1 for x in sizes if x) - 1 > each:
        sizes[3] = 0  # the acknowledgement is what one can do without
    used = 1 + sum(sizes) + sum(1 for x in sizes if x) - 1
    text = each - used - 1 if each - used > 8 else 0

    def half(cells: list[str], p: Seen | None, style: str) -> Text:
        mark = " " if p is None else "▸" if p.at >= 0 else "•" if p.held else " "
        shown = mark + " ".join(f"{c:>{n}}" for c, n in zip(cells, sizes, strict=True) if n)
        skip = 8 if p is not None and d.verdict["kind"] == "udp" else 0
        if text and p is not None:
            shown += " " + "".join(map(_printable, p.body[skip : skip + text]))
        return Text(f"{shown:<{each}}"[:each], style)

    def line(left: Text, right: Text) -> Text:
        return Text.assemble(left, (_BETWEEN, "dim"), right)

    names = [Text(f"{f' {name}':<{each}}", f"bold {style}") for name, style in zip(SIDES, _STYLES, strict=True)]
    yield line(*names)
    yield line(half(titles, None, "dim"), half(titles, None, "dim"))
    if first:
        yield Text(f" … {first} lines before: --all", "dim")
    for cells, pair in zip(table, lines[first:last], strict=True):
        styles = ["" if p is None or p.held else "dim" for p in pair]
        styles = ["bold red" if p is not None and p.at >= 0 else s for p, s in zip(pair, styles, strict=True)]
        yield line(half(cells[0], pair[0], styles[0]), half(cells[1], pair[1], styles[1]))
    if last < len(lines):
        yield Text(f" … {len(lines) - last} lines behind: --all", "dim")
    marked = "waits alone" if d.verdict["rule"] == "timeout" else "differs"
    legend = (f" ▸ {marked}", "• waits", "others: passed before", "ms: counted from the verdict")
    for row in _row([Text(text) for text in legend], width):
        yield Text(row.plain if row.plain.startswith(" ") else f" {row.plain}", "dim")


def _notes(d: Divergence) -> Iterator[Text]:
    v = d.verdict
    if n := v.get("packets_left_out", 0):
        yield Text(f"{n:,} more packets of this connection did not fit into the record.", "dim")
    if n := v.get("left_out", 0):
        yield Text(f"{n:,} differences before this one have no file: they came too fast.", "dim")


def _sentences(text: str, width: int, style: str = "") -> Iterator[Text]:
    for line in textwrap.wrap(text, width):
        yield Text(line, style)


def _advice(advice: Advice, width: int) -> Iterator[Text]:
    yield from _sentences(advice.text, width)
    for line in advice.config:
        yield Text(f"    {line}", "green")
    if advice.command:
        yield from _sentences(f"Or, while {advice.pipeline[-1]} runs:", width)
        for line in _command(advice.command, width):
            yield Text(line, "green")


def _command(words: Sequence[str], width: int) -> Iterator[str]:
    """A command on as many lines as it needs, for a shell to take as it stands."""
    line = "   "
    for word in words:
        if len(line) + len(word) + 3 > width and line.strip():
            yield f"{line} \\"
            line = "       "
        line += f" {word}"
    yield line


def picture(d: Divergence, width: int, *, everything: bool = False) -> list[Text]:
    """All lines for a terminal ``width`` columns wide."""
    width = max(40, min(width, _WIDEST))
    meaning, advice = d.meaning[:1].upper() + d.meaning[1:] + ".", advise(d)
    may_differ = d.verdict["rule"] in ("payload", "order") and not advice.config
    parts = [
        list(_heading(d, width)),
        list(_sentences(meaning, width, "bold")),
        list(_text_rows(d, width)),
        list(_byte_rows(d, width)),
        list(_packet_rows(d, width, everything)),
        [*_notes(d), *_advice(advice, width), *([Text(_MAY_DIFFER)] if may_differ else [])],
    ]
    out: list[Text] = []
    for part in parts:
        if part:
            out += [*part, Text("")]
    for line in out:
        line.rstrip()
    return out


# --- other answers ------------------------------------------------------------------------------------------------
def as_json(d: Divergence) -> dict[str, Any]:
    """Everything that the picture shows, as data."""
    advice = advise(d)
    packets = [
        {"time_ns": p.ns, "side": SIDES[p.side], "held": p.held, "at": p.at, "length": p.length}
        | ({"position": d.relative(p), "flags": letters(p.flags), "size": p.size} if p.tcp else {"size": p.size})
        for p in d.packets
    ]
    verdict = {k: v for k, v in d.verdict.items() if k != "packets"}
    return {
        "file": d.path, **verdict, "meaning": d.meaning, "advice": advice.text, "config": list(advice.config),
        "command": " ".join(advice.command), "packets": packets,
    }  # fmt: skip


def _listing(folders: Sequence[str], console: Console, *, everything: bool, data: bool) -> int:
    """The files of all folders, the newest first; the exit status."""
    found: set[tuple[int, str]] = set()
    status = 0
    for folder in folders:
        try:
            here = written(folder)
        except NotExplainedError as error:
            status = _refused(folder, error)
            continue
        found |= set(here)
        if not here and not data:
            console.print(f"{plain(folder)}: no pcapng files", soft_wrap=True)
    paths = [path for _, path in sorted(found, reverse=True)]
    looked_at = sys.stdout.isatty()
    most = _LISTED if looked_at and not everything and not data else len(paths)
    shown = 0
    for at, path in enumerate(paths):
        if shown == most:
            console.print(Text(f"… {len(paths) - at} older: --all", "dim"))
            break
        try:
            d = load(path)
        except (CaptureError, NotExplainedError):
            continue  # a folder may hold other captures
        shown += 1
        if data:
            print(json.dumps(as_json(d)))
            continue
        first = Text.assemble((plain(path), "bold"), "  ", (d.verdict["rule"], "red"))
        console.print(first, soft_wrap=True)
        second = Text(f"    {d.verdict['flow']}  {d.meaning}" if d.verdict["flow"] else f"    {d.meaning}", "dim")
        if looked_at:
            second.truncate(console.width, overflow="ellipsis")
        console.print(second, soft_wrap=True)
    if paths and not shown and not data:
        console.print(f"{', '.join(map(plain, folders))}: no file that explains a difference", soft_wrap=True)
    return status


def _refused(path: str, error: Exception) -> int:
    where = "" if isinstance(error, CaptureError) else f"{path}: "
    complain(f"tools.explain: {plain(f'{where}{error}')}")
    return 2


class _Console(Console):
    """Rich's console, which leaves it to us what happens when the reader (head, less) has seen enough."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.explain", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file that the compare wrote, or a folder of them")
    parser.add_argument("--all", action="store_true", help="every packet, every file of a folder")
    parser.add_argument("--json", action="store_true", help="data, one object a line")
    parser.add_argument("--no-color", action="store_true", help="plain text")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; the exit status."""
    args = _arguments(argv)
    return show("tools.explain", lambda: _explain(args))


def _explain(args: argparse.Namespace) -> int:
    colours = not (args.no_color or os.environ.get("NO_COLOR"))
    console = _Console(highlight=False, markup=False, emoji=False, color_system="auto" if colours else None)
    folders = [path for path in args.files if os.path.isdir(path)]
    status = _listing(folders, console, everything=args.all, data=args.json) if folders else 0
    for path in args.files:
        if path in folders:
            continue
        try:
            d = load(path)
        except (CaptureError, NotExplainedError) as error:
            status = _refused(path, error)
            continue
        if args.json:
            print(json.dumps(as_json(d)))
            continue
        for line in picture(d, console.width, everything=args.all):
            console.print(line, soft_wrap=True)  # a rule is copied as it stands
    return status


if __name__ == "__main__":
    sys.exit(main())
