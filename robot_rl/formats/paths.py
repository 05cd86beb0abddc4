"""Where a dataset's files may lie: in its own folder, whatever its metadata, its links and its path patterns say.

A dataset comes from somebody else. An absolute path, a `..`, a symbolic link to elsewhere, a device or a pipe in it
would let it read, or wait for, what its user never meant to hand over. Links that the Hugging Face cache makes are
followed: `snapshots/<revision>/...` points to files in the folder `blobs` beside `snapshots`.
"""

from __future__ import annotations

import os
import re
import stat
import string
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from robot_rl.types import RobotRLError

LONGEST = 1024  # characters of a path inside a dataset
PADDING = re.compile(r"(0?[1-9]?\d)?d?")  # format specifications that a path may use: "", "d", "03d", "06d"


def inside(root: Path | str, relative: Path | str) -> Path:
    """The path of `relative` below the folder `root`; it need not exist.

    Raises RobotRLError where the path is absolute, climbs with `..`, leads out of `root` through a symbolic link, or is
    neither a regular file nor a folder. `root` itself may be a link.
    """
    root, text = Path(root), str(relative)
    if not text or len(text) > LONGEST or "\0" in text:
        raise RobotRLError(f"{root} names a file by {text[:60]!r}: a path of 1 to {LONGEST} characters is needed")
    if PurePosixPath(text).is_absolute() or ".." in PurePosixPath(text).parts:
        raise RobotRLError(f"{root} names the file {text!r} outside its own folder; nothing outside it is read")
    path = root / text
    _require_contained(root.resolve(), path)
    return path


def require_contained(root: Path | str) -> None:
    """Raise RobotRLError where anything below the folder `root` is a link out of it, a device, a pipe or a socket."""
    root = Path(root)
    real = root.resolve()
    for folder, folders, files in os.walk(real):
        for name in [*folders, *files]:
            _require_contained(real, Path(folder, name))


def filled(pattern: str, values: Mapping[str, int | str], origin: str) -> str:
    """`pattern` with its fields in braces replaced, as `str.format` does; `origin` names the source in errors.

    Only fields in `values` with a zero-padded width below 100 are taken: a width of 2e9 would take 2 GB of memory, and
    `{key.attribute}` would read what nobody meant to show.
    """
    parts: list[str] = []
    try:
        fields = list(string.Formatter().parse(pattern))
    except (ValueError, TypeError) as error:
        raise RobotRLError(f"{origin}: {pattern!r:.80} is no pattern of a path ({error})") from error
    for text, name, padding, conversion in fields:
        parts.append(text)
        if name is None:
            continue
        if name not in values or conversion or not PADDING.fullmatch(padding or ""):
            raise RobotRLError(
                f"{origin}: the pattern {pattern!r:.80} asks for '{name:.40}:{padding or '':.20}'; known are "
                f"{', '.join(sorted(values))}, with at most two digits of width"
            )
        value = values[name]
        if padding and not isinstance(value, int):
            raise RobotRLError(f"{origin}: the pattern {pattern!r:.80} pads '{name}', which is no whole number")
        parts.append(format(value, padding or ""))
    return "".join(parts)


def _require_contained(root: Path, path: Path) -> None:
    """Raise unless `path` leads to something in `root`, which is free of links itself."""
    try:
        real = path.resolve()
        kind = real.stat().st_mode
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        if isinstance(error, FileNotFoundError):
            return _require_below(root, path, path.resolve())
        raise RobotRLError(f"{path} cannot be read ({error}); copy the dataset again") from error
    _require_below(root, path, real)
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise RobotRLError(f"{path} is a device, a pipe or a socket; a dataset holds files and folders. Remove it")
    return None


def _require_below(root: Path, path: Path, real: Path) -> None:
    if real.is_relative_to(root) or any(real.is_relative_to(blobs) for blobs in _blobs(root)):
        return
    raise RobotRLError(
        f"{path} is a link out of its dataset, to {real}; nothing outside {root} is read. Copy the file itself there, "
        "or remove the link"
    )


def _blobs(root: Path) -> list[Path]:
    """Where the Hugging Face cache keeps the files of the snapshot that `root` is, or lies in; not resolved, so that a
    `blobs` that is a link itself opens nothing."""
    return [up.parent.parent / "blobs" for up in (root, *root.parents) if up.parent.name == "snapshots"]
