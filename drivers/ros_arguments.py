"""What a command line says to ROS, after --ros-args: parameters, their files, log levels, other names.

ROS takes a misspelt parameter without a word, and tells what it refuses in a traceback. Here each is one line.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from robot_rl import bounded_yaml
from robot_rl.types import RobotRLError

if TYPE_CHECKING:
    from rclpy.node import Node

OURS = ("speed_scale", "free_gib", "seed", "frame_id")  # parameters of our nodes: of one, but all may be given them
ROS = ("use_sim_time", "start_type_description_service")
PLACE = re.compile(r",? at \S+:\d+")  # in rcl's source


def place(word: str) -> Path:
    """The path that a node's option names, for argparse: "" would be the current folder, which nobody meant."""
    if not word.strip():
        raise argparse.ArgumentTypeError("it is empty; name a file or folder, the current folder is called '.'")
    return Path(word)


def split_ros_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What is ours, and what is ROS's: from --ros-args on, up to the next --."""
    own: list[str] = []
    ros: list[str] = []
    of_ros = False
    for word in arguments:
        of_ros = of_ros or word == "--ros-args"
        (ros if of_ros else own).append(word)
        of_ros = of_ros and word != "--"
    return own, ros


def require_known(arguments: list[str]) -> None:
    """Raise where a parameter is none of ours, or a file of them is none."""
    for flag, word in zip(arguments, arguments[1:], strict=False):
        if flag in ("-p", "--param"):
            name = word.partition(":=")[0].split(":")[-1]
            if name not in (*OURS, *ROS) and not name.startswith("qos_overrides."):
                known = ", ".join((*OURS, *ROS))
                raise RobotRLError(f"there is no parameter '{name}'{_guess(name)}; there are: {known}")
        elif flag == "--params-file":
            _require_file(Path(word))


def _require_file(path: Path) -> None:
    """A file may be for other nodes too, so only what looks like one of ours is refused."""
    data = bounded_yaml.read(path, "the file of parameters")
    sections = list(_sections(data))
    if not sections:
        raise RobotRLError(f"the file of parameters {path} holds none: it takes NODE: {{ros__parameters: {{...}}}}")
    for name in (name for section in sections for name in section):
        if name not in OURS and (close := _guess(str(name))):
            raise RobotRLError(f"the file of parameters {path} has '{name}', which is none{close}")


def _sections(data: Any) -> Iterator[dict[Any, Any]]:
    """The parameters of each node in it."""
    for key, value in data.items() if isinstance(data, dict) else ():
        if key == "ros__parameters" and isinstance(value, dict):
            yield value
        else:
            yield from _sections(value)


def _guess(name: str) -> str:
    close = get_close_matches(name, (*OURS, *ROS), 1, 0.75)
    return f": did you mean '{close[0]}'?" if close and close[0] != name else ""


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """What rclpy refuses within, as an error that a user can mend."""
    from rclpy.exceptions import NameValidationException, ParameterException

    try:
        yield
    except RobotRLError:
        raise
    except (RuntimeError, ParameterException, NameValidationException) as error:
        said = " ".join(PLACE.sub("", str(error)).split()).removeprefix("failed to initialize rcl: ")
        if type(error).__name__ == "UnknownROSArgsError":  # which says the words only
            said = f"there is nothing called {said.strip('[]')} after --ros-args"
        raise RobotRLError(f"ROS refuses what it was told: {said}") from error


@contextmanager
def said_once() -> Iterator[None]:
    """What C code prints within is passed on only where nothing is raised: the error says it better."""
    sys.stderr.flush()
    with TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        os.write(2, file.read())


def declare(node: Node, name: str, default: Any, descriptor: Any) -> Any:
    """The value of the parameter `name`; raises where the command line gives it one that it cannot have."""
    from rclpy.exceptions import ParameterException

    assert name in OURS, "else the command line could not name it"
    try:
        return node.declare_parameter(name, default, descriptor).value
    except ParameterException as error:
        said = str(error).removesuffix(f": {name}").rstrip(".")
        raise RobotRLError(f"the parameter {name} takes {_range(default, descriptor)}: {said}") from error


def _range(default: Any, descriptor: Any) -> str:
    kinds = {float: "a number with a point", int: "a whole number", str: "a word"}
    spans = [*descriptor.floating_point_range, *descriptor.integer_range]
    span = "".join(f", from {s.from_value:g} to {s.to_value:g}" for s in spans)
    return f"{kinds[type(default)]}{span}"
