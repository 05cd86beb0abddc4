"""The one reader of YAML: bounded in size, depth and number of nodes, and without what YAML means against its look.

396 bytes of aliases of aliases stand for 10^9 nodes, and a loader that follows them is busy for ever. So the nodes are
counted with every alias replaced by what it stands for, before anything is built. Refused, too: a key given twice, of
which YAML would take the last; `010`, which it reads as 8, and `1:30`, which it reads as 90.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from robot_rl.types import RobotRLError

SIZE = 256 * 1024  # of a file [bytes]
NODES = 20_000  # values, lists and maps, each alias counted as what it stands for
DEPTH = 32  # of lists and maps in one another
DIGITS = 30  # of a whole number
ODD_NUMBER = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+(:[0-9_]+)+)$")


class _Loader(yaml.SafeLoader):
    """Refuses what is given twice, and numbers that are not what they look like."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.MarkedYAMLError(problem=f"the key '{twice[0]}' is given twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = self.construct_scalar(node)
        if ODD_NUMBER.match(value) or len(value) > DIGITS:
            problem = f"'{value[:DIGITS]}' is no plain whole number: write 8, not 010 or 0:08; words in quotes"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return int(super().construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read(path: Path, what: str) -> Any:
    """The content of a file, which `what` names in errors; raises where it is none or beyond the bounds."""
    text = _bytes(Path(path), what, SIZE)
    try:
        _bound(text, NODES)
        return yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a date of 2001-99-99 is a ValueError
        raise RobotRLError(f"{what} {path} is no YAML: {_in_a_line(error)}") from error


def require_bounded(path: Path, what: str, times: int = 1) -> None:
    """Raise where a file that a library reads is beyond `times` the bounds."""
    try:
        _bound(_bytes(Path(path), what, times * SIZE), times * NODES)
    except yaml.YAMLError as error:
        raise RobotRLError(f"{what} {path} is no YAML: {_in_a_line(error)}") from error


def _bytes(path: Path, what: str, size: int) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise RobotRLError(f"{what} {path} cannot be read: it is no regular file")
        with path.open("rb") as file:
            text = file.read(size + 1)
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise RobotRLError(f"{what} {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(text) > size:
        raise RobotRLError(f"{what} {path} is longer than {size // 1024} kiB; is it that file?")
    return text


def _bound(text: bytes, most: int) -> None:
    """Go through the events, which takes no recursion, and raise at the first excess."""
    anchors: dict[str, int] = {}  # nodes that each stands for
    open_: list[tuple[str | None, int]] = []  # lists and maps that are not over: anchor, nodes before
    nodes = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, nodes))
            nodes += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor is not None:
                anchors[anchor] = nodes - before
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor is not None:
                anchors[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:  # within what it names: it would never end
                raise yaml.MarkedYAMLError(problem=f"the alias *{event.anchor} stands for nothing that is complete")
            nodes += anchors[event.anchor]
        if len(open_) > DEPTH:
            raise yaml.MarkedYAMLError(problem=f"more than {DEPTH} lists and maps in one another")
        if nodes > most:
            raise yaml.MarkedYAMLError(problem=f"more than {most} values, aliases resolved")


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())
