"""The command ``rule``: what its lists look like."""

from __future__ import annotations

import tomllib
from argparse import Namespace

from stages.compare.rules import client


def test_live_rules_are_written_as_tables_of_a_config():
    """Whatever an expression holds; a name with a dot is quoted."""
    table = {
        "action": "mask",
        "source_port": [80, "8000-8999"],
        "regex": ["\\r\\nDate: ([^\\r]*)", "it's \\d", 'é"(x)'],
    }
    rules = [{"name": "a.b", "table": table}, {"name": "c", "table": {"action": "pass"}}]
    text = client.listed(Namespace(what="list", toml=True), {"rules": rules})
    assert isinstance(text, str)
    assert tomllib.loads(text)["rule"] == {one["name"]: one["table"] for one in rules}
    assert "'\\r\\nDate: ([^\\r]*)'" in text
