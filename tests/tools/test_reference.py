"""The tables of keys in docs/config.md, made from the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import reference


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of docs/config.md, which the tool takes for the page."""
    copy = tmp_path / "config.md"
    copy.write_text(reference.PAGE.read_text())
    monkeypatch.setattr(reference, "PAGE", copy)
    return copy


def test_a_page_as_the_code_has_it(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to say, status 0."""
    assert reference.main([]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_table_that_differs_is_named_and_written(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1, and nothing is changed; with --write it is what it was."""
    right = page.read_text()
    wrong = right.replace("| `ifname` | required |", "| `ifname` | optional |", 1)
    page.write_text(wrong)
    assert reference.main([]) == 1
    assert capsys.readouterr().out == 'netdev: backend = "tap": differs from the code\n'
    assert page.read_text() == wrong
    assert reference.main(["--write"]) == 0
    assert capsys.readouterr().out == 'netdev: backend = "tap": written\n'
    assert page.read_text() == right


@pytest.mark.parametrize(
    ("there", "instead", "told"),
    [
        ("# [log]\n", "# [logs]\n", "docs/config.md has no heading '[log]': write it, with an empty table under it"),
        ("| key |", "| name |", "docs/config.md has no table of keys under '[pipeline]': write its first two lines"),
    ],
)
@pytest.mark.parametrize("arguments", [[], ["--write"]])
def test_a_page_without_a_place_for_a_table(
    arguments: list[str], there: str, instead: str, told: str, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clear line, status 2; nothing is written."""
    text = page.read_text().replace(there, instead)
    page.write_text(text)
    assert reference.main(arguments) == 2
    assert capsys.readouterr() == ("", f"tools.reference: {told}\n")
    assert page.read_text() == text
