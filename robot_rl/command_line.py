"""The words of a command become a verb and its values; what is wrong with them is said in one line, as all else is.

tyro draws a box around what it refuses, of lines or dashes, wrapped to the terminal's width. Its words are kept, the
box is not.
"""

from __future__ import annotations

import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from functools import partial, wraps
from typing import Any

import tyro

from robot_rl.types import RobotRLError

WIDE = "100000"  # columns of a terminal in which nothing is wrapped
FRAME = re.compile("\x1b\\[[0-9;]*m|[│╭╮╰╯─]")
EXPLAINED = 8  # spaces before a line that explains an option, within the frame
ENDS = ("Argument helptext", "Got errors", "For full helptext")  # what follows is for who has the room
GUESS, KNOWN = "Perhaps you meant", "Available subcommands"


def parsed(verbs: dict[str, Callable[..., Any]], arguments: Sequence[str], description: str) -> Callable[[], Any]:
    """The verb that `arguments` name, with its values: what is called to do it.

    Raises RobotRLError, in one line with the remedy, where no verb takes them. `--help` prints and exits.
    """
    _require_values(arguments)
    later = {name: _deferred(verb) for name, verb in verbs.items()}
    said, helps = io.StringIO(), not {"--help", "-h"}.isdisjoint(arguments)  # help is drawn for the terminal
    try:
        with nullcontext() if helps else _unwrapped(), redirect_stderr(said):
            call: Callable[[], Any] = tyro.extras.subcommand_cli_from_dict(
                later, prog="robot-rl", description=description, args=arguments
            )
    except SystemExit as end:
        if not end.code:
            raise
        verb = f"{arguments[0]} " if arguments and arguments[0] in verbs else ""
        raise RobotRLError(f"{in_a_line(said.getvalue())}. See `robot-rl {verb}--help`") from None
    sys.stderr.write(said.getvalue())
    return call


def _deferred(verb: Callable[..., Any]) -> Callable[..., Any]:
    """What tyro calls in place of a verb: it must have left before the verb speaks, or is stopped."""

    @wraps(verb)
    def later(*args: Any, **given: Any) -> Callable[[], Any]:
        return partial(verb, *args, **given)

    return later


def _require_values(arguments: Sequence[str]) -> None:
    """Raise where an option's value is empty, as of a shell's variable that is not set: "" as a path is here."""
    option = "the command"
    for word in arguments:
        name, equals, value = word.partition("=")
        named = word.startswith("--")
        option = name if named else option
        if not (value if named and equals else word).strip():
            raise RobotRLError(f"{option} is empty; give a value, or leave it out. The current folder is called '.'")


@contextmanager
def _unwrapped() -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDE  # shutil.get_terminal_size, which tyro asks, goes by it
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def in_a_line(box: str) -> str:
    """What tyro says in a `box`, without its frame, title, explanations of options, and where help is."""
    inner = [FRAME.sub("", line).rstrip() for line in box.splitlines()]
    title, *lines = [line for line in inner if line.strip(" -")] or ["the command cannot be understood"]
    lines = textwrap.dedent("\n".join(lines)).splitlines()
    told, guessed = list[str](), list[str]()
    into = told
    for line in lines:
        if line.startswith(ENDS):
            break
        if line.startswith(GUESS):
            into = guessed
        elif line.startswith(KNOWN):
            told.append("(there are" + line.removeprefix(KNOWN).removeprefix(":") + ")")
        elif len(line) - len(line.lstrip()) < EXPLAINED:
            into.append(line.strip())
    words = " ".join(told).strip(" .") or title.strip()
    return words + (f"; perhaps {' or '.join(guessed)} is meant" if guessed else "")
