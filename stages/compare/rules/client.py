"""The command ``rule`` of `pipeline.control`, as its user sees it: what is typed, and what a list looks like."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

HELP = "list rules of the compares, add one or delete one, while it runs (docs/rules.md)"
_HEADS = ("RULE", "ACTION", "COMPARE", "CONNECTIONS", "HITS", "MATCH", "MASKS")


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("what", choices=("list", "add", "del"))
    parser.add_argument("rule", nargs="?", metavar="NAME")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="as in [rule.NAME]; before=NAME: its place")
    parser.add_argument("--json", action="store_true", help="with list: for programs")
    parser.add_argument("--toml", action="store_true", help="with list: for a config")


def request(parser: argparse.ArgumentParser, given: argparse.Namespace) -> dict[str, Any]:
    """The request's arguments; a key that is given twice is a list."""
    if given.what == "list" and given.rule is None:
        return {"what": "list"}
    if given.what == "list" or given.rule is None or (given.what == "del" and given.keys):
        parser.error("rule list, rule del NAME, or rule add NAME KEY=VALUE ...")
    table: dict[str, Any] = {}
    for word in given.keys:
        key, equals, value = word.partition("=")
        if not equals:
            parser.error(f"a rule has keys and values, such as protocol=tcp, not {word!r}")
        before = table.get(key)
        table[key] = value if before is None else [*(before if isinstance(before, list) else [before]), value]
    place = table.pop("before", None)
    return {"what": given.what, "name": given.rule} | ({"table": table, "before": place} if given.keys else {})


def listed(given: argparse.Namespace, reply: Mapping[str, Any]) -> str | Sequence[Sequence[str]]:
    """What a reply says: a text, or rows behind their heads, in the order in which rules are tried."""
    if given.what != "list":
        return str(reply.get("text", "done"))
    if given.toml:
        return "\n\n".join(_tables(reply))
    rows = []
    for r in reply["rules"]:
        masks = " and ".join(r["masks"]) or "-"
        rows.append([r["name"], r["action"], r["compare"], str(r["connections"]), str(r["hits"]), r["match"], masks])
    return [_HEADS, *rows] if rows else "no rules"


def _tables(reply: Mapping[str, Any]) -> Iterator[str]:
    """Each rule as a table for a config."""
    for rule in reply["rules"]:
        name = f'"{rule["name"]}"' if "." in rule["name"] else rule["name"]
        yield "\n".join([f"[rule.{name}]", *(f"{key} = {_toml(value)}" for key, value in rule["table"].items())])


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str) and "\\" in value and "'" not in value and value.isprintable():
        return f"'{value}'"  # an expression, as a person would write it
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # a TOML string, or a whole number
