"""The lab's pipeline config: examples/lab.toml with a unique name in it, and captures where they are asked for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.lab.host import LabError
from tools.lab.scene import ROLES, WIRE_TAP

PLACEHOLDER = "colo-lab"
_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")


def render(
    config: Mapping[str, Any], prefix: str, runtime_dir: Path, record: Path | None = None, wired: Sequence[str] = ()
) -> dict[str, Any]:
    """The config of the lab called ``prefix``: every ``colo-lab`` replaced, captures of the three taps in ``record``.

    ``wired``: the roles that have a wire, at whose end another TAP is.  LabError where ``config`` has no tap in one of
    the three namespaces.
    """
    made: dict[str, Any] = _renamed(config, prefix)
    made.setdefault("pipeline", {}).update(name=prefix, runtime_dir=str(runtime_dir))
    taps = _taps(made)
    for role in ROLES:
        namespace = f"{prefix}-{role}"
        if namespace not in taps:
            raise LabError(f'the config has no tap with netns = "{PLACEHOLDER}-{role}"')
        if role in wired:
            taps[namespace]["ifname"] = WIRE_TAP
        if record is not None:
            taps[namespace]["record"] = str(record / f"{role}.pcapng")
    return made


def _renamed(value: Any, prefix: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _renamed(inner, prefix) for key, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, prefix) for inner in value]
    if isinstance(value, str) and (value == PLACEHOLDER or value.startswith(f"{PLACEHOLDER}-")):
        return prefix + value[len(PLACEHOLDER) :]
    return value


def _taps(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    sides = (net.get(side, {}) for net in config.get("netdev", {}).values() for side in ("network", "guest"))
    return {side["netns"]: side for side in sides if side.get("backend") == "tap" and "netns" in side}


def compare_id(config: Mapping[str, Any]) -> str:
    """The id of the config's one compare."""
    ids = list(config.get("compare", {}))
    if len(ids) != 1:
        raise LabError(f"the lab watches one compare, the config has {len(ids)}: {', '.join(ids) or 'none'}")
    return str(ids[0])


def to_toml(config: Mapping[str, Any]) -> str:
    """The same config as text.  A key whose values are all tables becomes sub-tables; deeper tables are inline."""
    parts = []
    for key, table in config.items():
        if not isinstance(table, Mapping):
            raise LabError(f"key {key} stands outside of any table")
        nested = bool(table) and all(isinstance(value, Mapping) for value in table.values())
        tables = {f"{_key(key)}.{_key(k)}": body for k, body in table.items()} if nested else {_key(key): table}
        for name, body in tables.items():
            parts.append("\n".join([f"[{name}]", *(f"{_key(k)} = {_value(v)}" for k, v in body.items())]) + "\n")
    return "\n".join(parts)


def _key(key: str) -> str:
    return key if _BARE.match(key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        # TOML wants DEL escaped, JSON does not; for all else JSON's escapes are TOML's.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(k)} = {_value(v)}' for k, v in value.items())} }}" if value else "{}"
    raise LabError(f"cannot write {value!r} as TOML")
