"""Frozen config dataclasses to plain data and back, strictly: an unknown or missing key is an error."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from robot_rl import ranges
from robot_rl.types import RobotRLError


def to_data(config: Any) -> Any:
    """A config as JSON-ready data; every dataclass carries its name under "type"."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        values = {f.name: to_data(getattr(config, f.name)) for f in dataclasses.fields(config)}
        return {"type": type(config).__name__, **values}
    if isinstance(config, (list, tuple)):
        return [to_data(v) for v in config]
    return config if isinstance(config, (int, float, bool, str, type(None))) else str(config)


def from_data(data: dict[str, Any], known: Sequence[type]) -> Any:
    """The inverse of `to_data` for the config classes in `known`; lists become tuples.

    A field whose default is None may be missing: it is of something that was not there yet when the data were written.
    """
    classes = {c.__name__: c for c in known}
    name = data.get("type")
    if name not in classes:
        raise RobotRLError(f"unknown config type {name!r}; known: {', '.join(sorted(classes))}")
    names = [f.name for f in dataclasses.fields(classes[name])]
    for key in data:
        if key not in names and key != "type":
            closest = difflib.get_close_matches(key, names, 1) or names
            raise RobotRLError(f"{name} has no field {key!r}; did you mean {closest[0]!r}?")
    if missing := [f.name for f in dataclasses.fields(classes[name]) if f.name not in data and f.default is not None]:
        raise RobotRLError(f"{name} lacks {missing}; the file was written by another version of robot-rl")
    built = classes[name](**{n: _value(data[n], known) for n in names if n in data})
    ranges.require(built)
    return built


def _value(value: Any, known: Sequence[type]) -> Any:
    if isinstance(value, dict):
        return from_data(value, known)
    return tuple(_value(v, known) for v in value) if isinstance(value, list) else value


def difference(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Lines "path: ours, theirs" for every place where two plain data differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [*ours, *(k for k in theirs if k not in ours)]
        return [line for k in keys for line in difference(ours.get(k), theirs.get(k), f"{path}.{k}" if path else k)]
    return [] if ours == theirs else [f"{path}: {ours!r} here, {theirs!r} there"]


def at(data: Any, path: str) -> Any:
    """What stands at a `path` such as `difference` gives; None where nothing does."""
    for key in path.split("."):
        data = data.get(key) if isinstance(data, dict) else None
    return data
