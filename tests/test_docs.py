"""The documents say what is there: links, modules, configs, properties, moves, messages, counters, quoted code."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.config import parse
from pipeline.graph import plan
from stages import catalog
from stages.compare.layout import arming
from stages.kind import CHARDEV, FILTER, VARIANT_KEYS
from tools import reference

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".", "docs", "ring", "pipeline", "stages", "tools", "tests", "samples", "examples")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
IDS = [str(page.relative_to(ROOT)) for page in PAGES]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_BEHAVIOUR = ROOT / "docs" / "behaviour.md"
_LEVELS = ("debug", "info", "warning", "error")


def _prose(text: str) -> str:
    return _FENCE.sub("", text)


def _blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in _FENCE.findall(page.read_text()) if kind == language]


def _section(page: Path, title: str) -> str:
    """What stands under the heading ``title``, up to the next heading of its rank."""
    found = re.search(rf"^(#+) {re.escape(title)}$\n", page.read_text(), re.MULTILINE)
    assert found, f"{page.name} has no heading {title!r}"
    return re.split(rf"^{found[1]} ", page.read_text()[found.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def _rows(text: str) -> list[list[str]]:
    """The cells of every table row, without the heads of tables."""
    lines = text.splitlines()
    heads = {i - 1 for i, line in enumerate(lines) if line.startswith("|---")}
    rows = (line for i, line in enumerate(lines) if line.startswith("| ") and i not in heads)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = (title.lower() for title in _HEADING.findall(_prose(page.read_text())))
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_leads_somewhere(page: Path) -> None:
    """A relative link names a file that exists, and an anchor a heading of that page."""
    wrong = []
    for link in _LINK.findall(_prose(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            wrong.append(link)
    assert not wrong


def test_the_readme_is_short() -> None:
    """A first-time operator reads it whole."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_every_page_can_be_found() -> None:
    """Whoever starts at README.md and follows links comes to every page."""
    found, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in found:
            continue
        found.add(page)
        links = (link.partition("#")[0] for link in _LINK.findall(_prose(page.read_text())))
        todo += [(page.parent / link).resolve() for link in links if link.endswith(".md") and ":" not in link]
    assert {page for page in PAGES if page.name != "CHANGELOG.md"} <= found


def test_the_glossary_is_in_order_and_says_each_word_once() -> None:
    """One row a word, by the alphabet; a row of two words has both in bold."""
    words = [re.findall(r"\*\*(.+?)\*\*", row[0]) for row in _rows(_section(ROOT / "docs" / "design.md", "Glossary"))]
    assert all(words)
    said = [word for row in words for word in row]
    assert len(said) == len(set(said)) >= 30
    assert [row[0].lower() for row in words] == sorted(row[0].lower() for row in words)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_module_that_is_run_exists(page: Path) -> None:
    """``python -m X`` with an X of this repository is a module, or a package with a ``__main__``."""
    named = set(re.findall(r"python -m ((?:ring|pipeline|stages|tools|tests)[\w.]*\w)", page.read_text()))
    for name in named:
        spec = find_spec(name)
        assert spec is not None, name
        assert not spec.submodule_search_locations or find_spec(f"{name}.__main__"), name


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_make_target_exists(page: Path) -> None:
    """``make X`` at the start of a command line is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^(?:    |\$ )make ([a-z]+)", page.read_text(), re.MULTILINE)) <= targets


def _configs() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for n, block in enumerate(_blocks(page, "toml")):
            yield f"{page.relative_to(ROOT)}#{n}", block


@pytest.mark.parametrize("block", [block for _, block in _configs()], ids=[name for name, _ in _configs()])
def test_every_config_block_is_a_whole_config(block: str) -> None:
    """What stands in a ```toml block can be run as it is."""
    assert plan(parse(block, ROOT / "block.toml")).stages


def test_the_examples_are_right() -> None:
    """Each file in examples/ is a config without a mistake."""
    examples = sorted((ROOT / "examples").glob("*.toml"))
    assert examples
    for example in examples:
        assert plan(parse(example.read_text(), example)).stages
        assert tomllib.loads(example.read_text())


@pytest.mark.parametrize("name", catalog.MODULES)
def test_every_counter_is_explained(name: str) -> None:
    """docs/behaviour.md has each counter of a kind, with its sentence, under the kind's heading."""
    text = _section(_BEHAVIOUR, "Counters")
    section = "".join(part for part in text.split("\n### ") if name in part.partition("\n")[0])
    rows = set(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE))
    assert rows == {tuple(counter) for counter in catalog.kind(name).counters}


def test_the_moves_of_arming_are_those_of_the_code() -> None:
    """Each allowed and each prohibited move, with its reason."""
    told = {(a, b, word): why for a, b, word, why in _rows(_section(_BEHAVIOUR, "Arming"))}
    tables = {"allowed": arming.MOVES, "never": arming.PROHIBITED}
    states = arming.NAMES
    assert told == {
        (states[a], states[b], word): why for word, moves in tables.items() for (a, b), why in moves.items()
    }


_PARTS = {
    "Links: chardev socket, netdev stream": reference.heading(CHARDEV, "socket"),
    **{name: reference.heading(FILTER, name) for name in catalog.variants(FILTER)},
    **{kind.name: f"[{kind.table}.ID]" for kind in catalog.kinds() if kind.table not in VARIANT_KEYS},
}
"""What docs/behaviour.md has a heading for, and the heading of its keys in docs/config.md."""


@pytest.mark.parametrize(("title", "table"), _PARTS.items(), ids=_PARTS)
def test_properties_have_the_defaults_of_the_reference(title: str, table: str) -> None:
    """The list of an object's properties says what docs/config.md says; the compare's is complete."""
    page = ROOT / "docs" / "config.md"
    place = table.partition(":")[0]
    common = _rows(_section(page, f"[{place}.ID]")) if ":" in table else []
    defaults = {row[0].strip("`"): row[1] for row in [*common, *_rows(_section(page, table))]}
    listed = re.search(r"^(?:Properties:|Chardev) .*?\n\n", _section(_BEHAVIOUR, title), re.MULTILINE | re.DOTALL)
    assert listed
    told = {}
    for names, default in re.findall(r"((?:`\w+`,\s)*`\w+`)\s\(([^()]+)\)", listed[0]):
        told |= dict.fromkeys(re.findall(r"\w+", names), default.removeprefix("only "))
    assert len(told) >= 2
    for name, default in told.items():
        if not defaults[name].startswith("see "):
            assert default == defaults[name] or (default, name) == ("required", "outdev"), name
    if title == "colo-compare":
        assert told.keys() == defaults.keys()


def test_the_reference_is_made_from_the_code() -> None:
    """docs/config.md has every table of keys as the kinds declare it: python -m tools.reference --write."""
    assert reference.updated(reference.PAGE.read_text())[1] == []


def _texts(node: ast.expr) -> list[str]:
    """What an expression may say; … for what is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in parts)]
        case ast.IfExp(body=body, orelse=orelse):
            return _texts(body) + _texts(orelse)
    return []


def _messages() -> Iterator[tuple[str, str, set[str]]]:
    """Event, level and fields of each log line in the code of stages and pipeline."""
    for path in (*(ROOT / "stages").rglob("*.py"), *(ROOT / "pipeline").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_COMPLAINT":  # `stages.socket.dial`
                yield from ((text, "warning", {"address", "reason"}) for text in _texts(node.value))
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            fields = {word.arg for word in node.keywords if word.arg and word.arg != "exc_info"}
            name, logger = node.func.attr, ast.unparse(node.func.value).rpartition(".")[2]
            if name in _LEVELS and logger in ("log", "_log", "logger"):
                yield from ((text, name, fields) for text in _texts(node.args[0]))
            elif name == "_warn":  # `stages.device.packet_socket`
                yield from ((text, "warning", fields | {"interface"}) for text in _texts(node.args[0]))


def test_every_message_is_explained() -> None:
    """docs/behaviour.md has each event of the log, with its level and its fields, and no other."""
    told: dict[str, tuple[str, set[str]]] = {}
    for events, level, _when, fields in _rows(_section(_BEHAVIOUR, "Messages")):
        for event in re.findall(r"`([^`]+)`", events):
            told[event] = (level, set(re.findall(r"`(\w+)`", fields)))
    said = list(_messages())
    assert len(said) > 40
    assert told.keys() == {event for event, _, _ in said}
    for event, level, fields in said:
        assert told[event][0] == level, event
        assert fields <= told[event][1], event


def test_named_tests_exist() -> None:
    """A test or a test file that docs/behaviour.md names is there."""
    files = list((ROOT / "tests").rglob("test_*.py"))
    sources = [path.read_text() for path in files]
    text = _BEHAVIOUR.read_text()
    for name in re.findall(r"`(test_\w+?)`", text):
        assert any(f"def {name}(" in source for source in sources), name
    for name in re.findall(r"`(test_\w+\.py)`", text):
        assert any(path.name == name for path in files), name


def test_every_deviation_from_qemu_has_its_test() -> None:
    """Each row names one, and each test of tests/interop that shows a deviation stands in a row."""
    section = _section(_BEHAVIOUR, "Deviations from QEMU 7.2")
    rows = [row for row in _rows(section) if len(row) == 4]
    assert len(rows) > 40
    for case, _qemu, _here, tests in rows:
        assert "`test_" in tests or "](#" in tests, case
    shown = []
    for path in (ROOT / "tests" / "interop").glob("test_*.py"):
        shown += re.findall(r"def (test_row_\w+)\(", path.read_text())
        shown += re.findall(r"@row\(.*\n(?:@.*\n)*def (test_\w+)\(", path.read_text())
    assert len(shown) > 40
    assert [name for name in shown if f"`{name}`" not in section] == []


def test_what_is_said_of_oddities_kept_is_true() -> None:
    """docs/behaviour.md says that the code has no ``quirk(qemu)``."""
    assert "no `quirk(qemu)`" in re.sub(r"\s+", " ", _BEHAVIOUR.read_text())
    code = (path for folder in ("stages", "pipeline", "ring") for path in (ROOT / folder).rglob("*.py"))
    assert not [path for path in code if "quirk(qemu)" in path.read_text()]


def test_operations_says_who_is_told_of_an_event() -> None:
    """``checkpoint`` and ``failover`` of the control socket, in the table of commands of docs/operations.md."""
    told = {
        row[0]: row[1] for row in _rows(_section(ROOT / "docs" / "operations.md", "Look and steer")) if len(row) == 2
    }
    for command in ("checkpoint", "failover"):
        for name, people in (("filter-rewriter", "rewriters"), ("colo-compare", "compares")):
            assert (people in told[f"`{command}`"]) == (command in catalog.kind(name).hears), (command, people)


def test_quoted_code_is_the_code() -> None:
    """The python blocks of stages/README.md that name a file stand in it, line after line."""
    blocks = [b for b in _blocks(ROOT / "stages" / "README.md", "python") if b.startswith("# ")]
    assert len(blocks) == 4
    for block in blocks:
        first, *lines = block.splitlines()
        source = iter((ROOT / first.removeprefix("# ")).read_text().splitlines())
        for line in lines:
            assert line in source, f"{first}: {line}"
