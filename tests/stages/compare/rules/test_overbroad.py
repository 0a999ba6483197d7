"""Rules that leave nothing to compare are told of, at the start, when one is added, and when a config is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import graph
from stages.compare.config import Rule
from stages.compare.rules import overbroad
from stages.compare.rules.rule_set import from_table
from tests.pipeline.wrong import COMPARE


def rule(**table: Any) -> Rule:
    """A rule without a mistake."""
    made, wrong = from_table("r", table, ["comp0"])
    assert not wrong
    return made


PASS: dict[str, Any] = {"action": "pass"}
MASK: dict[str, Any] = {"action": "mask"}
UNNOTICED = "reaches the clients, and no checkpoint is asked for"


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (PASS, "lets every packet pass uncompared"),
        (PASS | {"protocol": "*", "source_port": "any", "vlan": ["5", "*"]}, "lets every packet pass"),
        (PASS | {"compare": "comp0"}, "lets every packet of comp0 pass"),
        (PASS | {"protocol": ["tcp", "udp", "icmp"]}, "lets every packet of tcp,udp,icmp pass"),
        (PASS | {"protocol": list(range(256))}, "lets every packet pass"),
        (PASS | {"source_port": "1-65535"}, "lets every packet of tcp and udp pass"),
        (PASS | {"destination_port": ["30000-65535", "1-29999"]}, "lets every packet of tcp and udp pass"),
        (PASS | {"source": "0.0.0.0/0"}, "lets every IPv4 packet pass"),
        (PASS | {"source": ["0.0.0.0/1", "128.0.0.0/1", "::/0"], "destination": "::/0"}, "lets every IPv6 packet pass"),
        (PASS | {"source": ["0.0.0.0/0", "::/0"], "vlan": "0-4095"}, "lets every packet pass"),
        (MASK | {"regex": ".*"}, "masks every byte but 0x0a in every packet"),
        (MASK | {"regex": "(?s).*"}, "masks every byte in every packet"),
        (MASK | {"regex": "(?s)^(.*)"}, "masks every byte in every packet"),
        (MASK | {"regex": ["x(y)", r"[^\r\n]+"]}, "masks every byte but 0x0a 0x0d in"),
        (MASK | {"regex": r"[ -~]"}, "masks 95 of the 256 bytes, all letters and digits among them"),
        (MASK | {"bytes": "0-65535"}, "masks bytes 0-65,535, all of an ordinary datagram"),
        (MASK | {"bytes": ["0-700", "600-1471"], "regex": "x(y)"}, "masks bytes 0-1,471, all of"),
    ],
)
def test_a_rule_that_leaves_nothing_to_compare_is_told_of(table: dict[str, Any], says: str) -> None:
    """With what it takes in, and what that does."""
    told = overbroad.warning(rule(**table), behind=False)
    assert says in told
    assert UNNOTICED in told


@pytest.mark.parametrize(
    "table",
    [
        PASS | {"protocol": "udp"},
        PASS | {"protocol": "tcp"},
        PASS | {"source_port": 80},
        PASS | {"source_port": "2-65535"},
        PASS | {"source": "10.0.0.0/8"},
        PASS | {"source": ["0.0.0.0/1", "128.0.0.0/2"]},
        PASS | {"vlan": 0},
        MASK | {"regex": ".*", "source_port": 80},
        MASK | {"regex": r"\r\nDate: ([^\r\n]*)"},
        MASK | {"regex": "[0-9]{13}"},
        MASK | {"regex": r"(?s)\r\n\r\n(.*)"},  # the header is compared
        MASK | {"bytes": "0-1470"},
        MASK | {"bytes": "1-65535"},
        MASK | {"bytes": "0-65535", "destination": "10.0.0.1"},
    ],
)
def test_a_rule_that_leaves_something_is_not_told_of(table: dict[str, Any]) -> None:
    """Who names an address, a port or one protocol means it."""
    assert overbroad.warning(rule(**table), behind=False) == ""


def test_a_rule_behind_others_gets_what_they_leave() -> None:
    """It is not said that every packet falls under it."""
    told = overbroad.warnings({"a": rule(action="mask", bytes=1), "b": rule(action="pass")})
    assert list(told) == ["b"]
    assert "every packet that no rule before it takes" in told["b"]


def test_looking_at_a_config_names_the_rule_and_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line on stderr, and the drawing as ever."""
    path = tmp_path / "config.toml"
    rules = '[rule.all]\naction = "pass"\n[rule.dns]\naction = "mask"\nbytes = "0-1"\n'
    path.write_text(f'{COMPARE}checkpoint = "local"\n{rules}')
    assert graph.main([str(path)]) == 0
    said = capsys.readouterr()
    assert "comp0" in said.out
    [line] = said.err.splitlines()
    assert line.startswith(f"{path}: warning: rule.all: it lets every packet pass uncompared")
