"""Files appear whole or not at all, and what lies in their place beforehand leads the writer nowhere else."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robot_rl.types import RobotRLError


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, flush it to the disk, and rename it into place.

    That file has a name which nobody can foresee, and `write` is given the open file itself, as a path in /proc: a
    symbolic link that somebody left there, or puts there meanwhile, is never written through.
    """
    path = Path(path)
    part = ""
    try:
        _sweep(path)
        handle, part = tempfile.mkstemp(prefix=f".part-{path.name}-", dir=path.parent)  # O_EXCL and O_NOFOLLOW
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # tells it from one that a killed writer left
            os.fchmod(handle, 0o666 & ~_umask())  # an actor of another user reads what a learner writes
            write(Path(f"/proc/self/fd/{handle}"))
            os.fsync(handle)
            os.replace(part, path)
        finally:
            os.close(handle)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        if part:
            Path(part).unlink(missing_ok=True)
        free = (
            f"{shutil.disk_usage(path.parent).free / 2**20:.0f} MiB are free" if path.parent.is_dir() else "no folder"
        )
        raise RobotRLError(f"could not write {path} ({error}); {free}. What was there before is untouched.") from error
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def discard(path: Path) -> None:
    """Remove whatever is at `path`; of a symbolic link the link, and nothing that it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove what killed writers of `path` left: files that nobody holds any more."""
    for left in path.parent.glob(f".part-{path.name}-*"):
        try:
            handle = os.open(left, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # a link, or just renamed
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink(missing_ok=True)
        except BlockingIOError:  # being written
            continue
        finally:
            os.close(handle)


def _umask() -> int:
    """Of this process; there is no way to ask but this file and setting it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 8) for line in lines if line.startswith("Umask:"))
