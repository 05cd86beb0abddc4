"""JSON of other projects, asked for by type: what is missing or something else is named with its file and its key."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_rl.formats import guard
from robot_rl.types import RobotRLError, Spec

LARGEST = 64 * 2**20  # bytes of a file of metadata


@dataclass(frozen=True)
class Metadata:
    """A JSON object, or a row of a table, and where it stands."""

    where: str  # the file, and the way to the object in it
    values: dict[str, Any]

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def name(self, key: str) -> str:
        """How to call `key` in an error."""
        return f"{self.where}: '{key}'"

    def text(self, key: str, default: str | None = None) -> str:
        """A string; `default` where it is missing or null."""
        return self._typed(key, str, "a string", default)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        return self._typed(key, bool, "true or false", default)

    def items(self, key: str, default: list[Any] | None = None) -> list[Any]:
        """A list."""
        return self._typed(key, list, "a list", default)

    def object(self, key: str, default: dict[str, Any] | None = None) -> Metadata:
        """A JSON object."""
        return Metadata(f"{self.where}: {key}", self._typed(key, dict, "an object", default))

    def whole(self, key: str, low: int = 0, high: int = 2**53, default: int | None = None) -> int:
        """A whole number in [low, high]; tables keep it as 3.0 where some rows are empty."""
        value = self._typed(key, (int, float), "a whole number", default)
        if isinstance(value, bool) or value != value or abs(value) > high or int(value) != value or value < low:
            raise RobotRLError(f"{self.name(key)} is {value!r:.60}; it must be a whole number from {low} to {high}")
        return int(value)

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """A finite number in [low, high]."""
        value = self._typed(key, (int, float), "a number", default)
        if isinstance(value, bool) or not abs(value) <= high or not math.isfinite(value) or value < low:
            raise RobotRLError(f"{self.name(key)} is {value!r:.60}; it must be a number from {low:g} to {high:g}")
        return float(value)

    def _typed(self, key: str, kind: Any, called: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, kind):
            what = "is missing" if key not in self.values else f"is {value!r:.60}"
            raise RobotRLError(f"{self.name(key)} {what}; it must be {called}. Mend the file, or convert the data anew")
        return value


def read_json(file: Path) -> Metadata:
    """The JSON object in `file`."""
    return parsed(text(file), str(file))


def read_json_lines(file: Path) -> list[Metadata]:
    """The JSON objects in `file`, one a line."""
    lines = text(file).splitlines()
    return [parsed(line, f"{file}: line {i}") for i, line in enumerate(lines, 1) if line.strip()]


def parsed(data: str | bytes, where: str) -> Metadata:
    """The JSON object `data`."""
    with guard.reading(f"{where} is no JSON and"):
        value = json.loads(data)
    if not isinstance(value, dict):
        raise RobotRLError(f"{where} is {type(value).__name__}, not a JSON object; copy it again, or convert it anew")
    return Metadata(where, value)


def spec(told: Metadata) -> Spec:
    """The Spec that a recording of our own tells."""
    try:
        return Spec.from_dict(told.values)
    except RobotRLError as error:
        raise RobotRLError(f"{told.where}: {error}") from error


def text(file: Path) -> str:
    """The text in `file`."""
    guard.require_file(file)
    if file.stat().st_size > LARGEST:
        raise RobotRLError(f"{file} has {file.stat().st_size} bytes; metadata of more than {LARGEST} are not read")
    with guard.reading(str(file)):
        return file.read_text(encoding="utf-8-sig")  # some editors of Windows begin with a mark
