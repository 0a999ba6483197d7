"""config.toml as a frozen value; every mistake in it at once.

`load` and `parse` give a `Config` or raise `ConfigError`, which lists each mistake with the path of its key, what was
found, and what would be right.  The keys stand in `pipeline.tables`, what must fit together in `pipeline.check`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pipeline import text
from pipeline.check import Checker
from pipeline.tables import RING, SIDES, Config, Log, Netdev, Pipeline, Placement, RingChardev, Supervisor, default_side
from stages import catalog
from stages.kind import CHARDEV, FILTER, NETDEV, VARIANT_KEYS
from stages.schema import ID, ConfigError, Mistake, Reader, likely, nearest, one_of, show

__all__ = ["Config", "ConfigError", "Mistake", "default_runtime_dir", "load", "parse"]

T = TypeVar("T")


def _classes(table: str) -> dict[str, type[Any]]:
    return {variant: kind.config for variant, kind in catalog.variants(table).items()}


_OBJECTS = {kind.table: kind.config for kind in catalog.kinds() if kind.table not in VARIANT_KEYS}
_ANNEXES = {annex.table: annex.config for _, annex in catalog.annexes()}
_IN_TABLES = (CHARDEV, NETDEV, FILTER, *_OBJECTS, *_ANNEXES, "stage")
_TABLES = ("pipeline", "supervisor", "log", *_IN_TABLES)
_NETDEV_KEYS = tuple(f.name for f in fields(Netdev) if f.name not in SIDES)
_CHARDEVS = {**_classes(CHARDEV), RING: RingChardev}


def load(path: str | os.PathLike[str]) -> Config:
    """Read the config file at ``path``.  Raises `ConfigError`."""
    try:
        data = Path(path).read_bytes()
        if wide := text.wide_encoding(data):
            expected = f"text in UTF-8, as TOML asks for: {text.mend(wide)}"
            raise ConfigError(str(path), [Mistake(str(path), f"text in {wide}", expected)])
        said = data.decode()
    except OSError as error:
        raise ConfigError(str(path), [Mistake(str(path), error.strerror or "no file", "a file to read")]) from None
    except UnicodeDecodeError as error:
        found = f"the byte 0x{error.object[error.start]:02x} at offset {error.start}"
        raise ConfigError(str(path), [Mistake(str(path), found, "text in UTF-8, as TOML asks for")]) from None
    return parse(said, path=path)


def parse(said: str, path: str | os.PathLike[str] = "config.toml") -> Config:
    """The config that a text says; relative paths of files start from the folder of ``path``.  Raises `ConfigError`."""
    said = said.removeprefix(text.MARK)
    try:
        raw = tomllib.loads(said)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), [_syntax(said, str(error))]) from None
    reader = Reader(Path(path).absolute().parent, [])
    for name, value in raw.items():
        if name not in _TABLES:
            reader.note(
                name, "an unknown table" if isinstance(value, dict) else "an unknown key", nearest(name, _TABLES)
            )
    config, ids = _read(raw, str(path), reader)
    Checker(config, reader, ids).run()
    if reader.mistakes:
        raise ConfigError(str(path), reader.mistakes)
    return config


def default_runtime_dir(environ: Mapping[str, str] = os.environ) -> str:
    """Where control sockets are when the config does not say: $XDG_RUNTIME_DIR/colo, /run/colo, or a folder in /tmp.

    Raises `OSError` where the folder in /tmp belongs to somebody else.  Nothing is made here.
    """
    session = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(session) and os.access(session, os.W_OK):
        return f"{session}/colo"
    if os.access("/run/colo" if os.path.exists("/run/colo") else "/run", os.W_OK):
        return "/run/colo"
    own = f"/tmp/colo-{os.getuid()}"
    if os.path.lexists(own) and (os.lstat(own).st_uid != os.getuid() or not os.path.isdir(own) or os.path.islink(own)):
        raise FileExistsError(f"{own} is not a folder of this user")
    return own


def _syntax(said: str, message: str) -> Mistake:
    at = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    if at is None:
        return Mistake("toml", message, "valid TOML, see toml.io")
    lines = said.splitlines() or [""]
    line = int(at[1] or len(lines))
    column = int(at[2] or len(lines[-1]) + 1)
    stands = lines[line - 1].strip() if line <= len(lines) else ""
    found = f"{message[: at.start()]}: {show(stands)}" if stands else message[: at.start()]
    mend = "valid TOML, see toml.io"
    if message.startswith("Unescaped '\\'"):
        mend = "single quotes around the string (in them a backslash is one), or two backslashes for each"
    return Mistake(f"line {line}, column {column}", found, mend)


def _read(raw: Mapping[str, Any], path: str, reader: Reader) -> tuple[Config, dict[str, tuple[str, ...]]]:
    """The config with every wrong value left out, and the ids of all tables, right or wrong."""
    # [pipeline] must be there: its absence is the absence of its required key.
    pipeline = reader.read(Pipeline, raw.get("pipeline", {}), "pipeline")
    if not pipeline.runtime_dir:
        try:
            pipeline = replace(pipeline, runtime_dir=default_runtime_dir())
        except OSError as error:
            reader.note("pipeline.runtime_dir", f"nothing, and {error}", "a folder for the control socket")
    supervisor = reader.read(Supervisor, raw.get("supervisor", {}), "supervisor")
    log = reader.read(Log, raw.get("log", {}), "log")
    tables = {name: reader.table(raw.get(name, {}), name) for name in _IN_TABLES}

    def each(table: str, read: Callable[[Any, str], T | None]) -> dict[str, T]:
        found: dict[str, T] = {}
        for name, value in tables[table].items():
            at = f"{table}.{name}"
            if not re.fullmatch(ID, name):
                reader.note(at, f"the id {show(name)}", "an id: 1 to 64 of A-Z a-z 0-9 _ . -")
            made = read(value, at)
            if made is not None:
                found[name] = made
        return found

    config = Config(
        path=path,
        pipeline=pipeline,
        supervisor=supervisor,
        log=log,
        chardevs=each(CHARDEV, lambda value, at: _variant(reader, _CHARDEVS, CHARDEV, value, at)),
        netdevs=each(NETDEV, lambda value, at: _netdev(reader, value, at)),
        filters=each(FILTER, lambda value, at: _variant(reader, _classes(FILTER), FILTER, value, at)),
        objects={table: each(table, partial(reader.read, cls)) for table, cls in _OBJECTS.items()},
        annexes={table: each(table, partial(reader.read, cls)) for table, cls in _ANNEXES.items()},
        stages=each("stage", lambda value, at: reader.read(Placement, value, at)),
    )
    return config, {name: tuple(table) for name, table in tables.items()}


def _variant(reader: Reader, classes: Mapping[str, type[Any]], place: str, value: Any, path: str) -> Any:
    """A table of which a key says which of ``classes`` it is; None where that cannot be said."""
    table, key = reader.table(value, path), VARIANT_KEYS[place]
    kind = table.get(key)
    if isinstance(kind, str) and kind in classes:
        return reader.read(classes[kind], table, path, given=(key,), others=classes)
    if isinstance(value, dict):
        expected = nearest(kind, classes) if isinstance(kind, str) else one_of(*classes).expected
        # Why it is absent: a misspelt key, or a dot in the id, most likely.
        close = next((name for name in table if likely(name, (key,))), None)
        inner = next((name for name in table if isinstance(table[name], dict)), None)
        if key in table:
            found = show(kind)
        elif inner is not None:
            top, _, name = path.partition(".")
            found, expected = (
                f'nothing, but a table "{inner}"',
                f'{expected}; an id with a dot: [{top}."{name}.{inner}"]',
            )
        else:
            found = "nothing" if close is None else f'nothing, but a key "{close}"'
        reader.note(f"{path}.{key}", found, expected)
        told = {key, close, inner} if key not in table else {key}
        reader.shared(classes, table, path, {name for name in told if name is not None})
    return None


def _netdev(reader: Reader, value: Any, path: str) -> Netdev:
    table = reader.table(value, path)
    own = {name: value for name, value in table.items() if name not in SIDES}
    for name, found in own.items():
        if name not in _NETDEV_KEYS:
            reader.note(
                f"{path}.{name}",
                "a table" if isinstance(found, dict) else "an unknown key",
                nearest(name, (*SIDES, *_NETDEV_KEYS)),
            )
    sides = {
        side: _variant(reader, _classes(NETDEV), NETDEV, table[side], f"{path}.{side}") or default_side()
        for side in SIDES
        if side in table
    }
    made = reader.read(Netdev, {name: value for name, value in own.items() if name in _NETDEV_KEYS}, path)
    return replace(made, **sides)
