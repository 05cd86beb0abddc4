"""A run's files of JSON: rows of numbers, and settings. What is cut is mended and said, what is wrong is named.

A process that is killed, or a disk that fills up, can leave the last line half written. That half is cut off before
anything is written behind it, and the user is told; anywhere else a line that is no row is an error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robot_rl.atomic import atomically
from robot_rl.types import RobotRLError

Row = dict[str, Any]
LONGEST = 2**20  # bytes of a line


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Write one more row behind those in `path`."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    with open(handle, "r+b") as file:
        _cut_torn_line(file, path)
        file.write(json.dumps(row).encode() + b"\n")


def rows(path: Path) -> list[Row]:
    """The rows of `path`, each with its "step"; raises where a line is none. A torn last line is left out, and said."""
    whole, torn = _split(path)
    if torn:
        _say(path, torn, "left out")
    return [_row(path, number, line) for number, line in enumerate(whole, 1)]


def rewind(path: Path, step: int) -> None:
    """Forget the rows of `path` past `step`, which a resumed run writes again."""
    if not path.exists():
        return
    whole, torn = _split(path)
    if torn:
        _say(path, torn, "removed, and written again if it belongs to what is done again")
    kept = [line for number, line in enumerate(whole, 1) if _row(path, number, line)["step"] <= step]
    if torn or len(kept) < len(whole):
        atomically(path, lambda part: part.write_bytes(b"".join(line + b"\n" for line in kept)))


def settings(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, such as a `config.json`; raises where there is none."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RobotRLError(
            f"{path} cannot be read as JSON ({error}); put back a copy, or name another folder"
        ) from error
    if not isinstance(data, dict):
        raise RobotRLError(
            f"{path} holds a {type(data).__name__}, no settings; put back a copy, or name another folder"
        )
    return data


def _split(path: Path) -> tuple[list[bytes], bytes]:
    """The whole lines, and what stands behind the last of them."""
    *whole, torn = path.read_bytes().split(b"\n")
    return whole, torn


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RobotRLError(f"{path}, line {number} is no JSON ({error}); {REMEDY}") from error
    step = row.get("step") if isinstance(row, dict) else None
    if isinstance(step, bool) or not isinstance(step, (int, float)):
        raise RobotRLError(f"{path}, line {number} is no row with a step: {line[:60]!r}; {REMEDY}")
    return row


REMEDY = "remove that line"


def _cut_torn_line(file: Any, path: Path) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - LONGEST, 0))
    tail = file.read()
    torn = tail[tail.rfind(b"\n") + 1 :]
    if torn:
        _say(path, torn, "removed")
        file.truncate(size - len(torn))


def _say(path: Path, torn: bytes, done: str) -> None:
    print(
        f"{path}: its last line was cut off after {len(torn)} bytes, by a crash or a full disk; {done}", file=sys.stderr
    )
