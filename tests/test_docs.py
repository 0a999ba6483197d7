"""The documents say what is there: links, modules, files, config blocks, counters and quoted code."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.config import parse
from pipeline.graph import plan
from stages import catalog

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".", "docs", "ring", "pipeline", "stages", "tools", "tests", "samples", "examples")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
IDS = [str(page.relative_to(ROOT)) for page in PAGES]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def _prose(text: str) -> str:
    return _FENCE.sub("", text)


def _blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in _FENCE.findall(page.read_text()) if kind == language]


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
    text = (ROOT / "docs" / "behaviour.md").read_text()
    section = "".join(part for part in text.split("\n### ") if name in part.partition("\n")[0])
    rows = set(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE))
    assert rows == {tuple(counter) for counter in catalog.kind(name).counters}


def test_named_tests_exist() -> None:
    """A test or a test file that docs/behaviour.md names is there."""
    files = list((ROOT / "tests").rglob("test_*.py"))
    sources = [path.read_text() for path in files]
    text = (ROOT / "docs" / "behaviour.md").read_text()
    for name in re.findall(r"`(test_\w+?)`", text):
        assert any(f"def {name}(" in source for source in sources), name
    for name in re.findall(r"`(test_\w+\.py)`", text):
        assert any(path.name == name for path in files), name


def test_quoted_code_is_the_code() -> None:
    """The python blocks of stages/README.md that name a file stand in it, line after line."""
    blocks = [b for b in _blocks(ROOT / "stages" / "README.md", "python") if b.startswith("# ")]
    assert len(blocks) == 3
    for block in blocks:
        first, *lines = block.splitlines()
        source = iter((ROOT / first.removeprefix("# ")).read_text().splitlines())
        for line in lines:
            assert line in source, f"{first}: {line}"
