"""Where verbs write: one process at a time, and a place that cannot be written to is refused before any work.

One mechanism for all: a file locked with flock(2), which the kernel frees when its holder dies, and which says who it
is. Of a run's folder there are two, `.lock-play` and `.lock-learn`: an actor holds the first, a learner the second, and
every other verb both. What is made whole and then renamed into place, or is one file, has `.lock-<name>` beside it. A
store has `.lock` (`episodes.py`).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import sys
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from robot_rl.atomic import discard
from robot_rl.types import RobotRLError

PLAY, LEARN = "play", "learn"  # the parts of a run's folder
WHOLE = (PLAY, LEARN)
MIB = 2**20
ROOM = 10 * MIB  # that must be free for a small file
STORE, MARK = b'"robot-rl episodes"', 4096  # what the .zattrs of a store says of it, in so many first bytes
OPENED = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Lock:
    """An exclusive lock on `file`, held until `close`; `what` is what it guards, for errors.

    Raises RobotRLError with who holds it, and OSError where it cannot be made.
    """

    def __init__(self, file: Path, what: Path, *, keep: bool = False) -> None:
        self._file, self._keep = Path(file), keep
        self._fd: int | None = None
        while self._fd is None:  # a holder that just left has removed the file that was opened: again
            fd = os.open(self._file, OPENED, 0o666)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                who = _who(fd)
                os.close(fd)
                raise RobotRLError(
                    f"{what} is being written by {who}: wait for it, stop it, or write to another place"
                ) from None
            except OSError:
                os.close(fd)
                raise
            if _is_still(self._file, fd):
                self._fd = fd
            else:
                os.close(fd)
        os.ftruncate(self._fd, 0)
        os.write(self._fd, json.dumps(_myself()).encode())
        _held.add(self)

    def close(self) -> None:
        """Let another process write."""
        if self._fd is None:
            return
        with suppress(OSError):  # a folder that is gone, or has become read-only
            os.ftruncate(self._fd, 0)
            if not self._keep:
                os.unlink(self._file)
        self.forget()

    def forget(self) -> None:
        """Close the file without a word to others."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", None) is not None:
            self.close()


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _let_go() -> None:
    """A forked child (a data loader's worker) shares the locks: it would keep them when the writer is killed."""
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_let_go)


def _is_still(file: Path, fd: int) -> bool:
    try:
        there, mine = os.lstat(file), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _myself() -> dict[str, Any]:
    words = [Path(sys.argv[0] or "python").name, *sys.argv[1:2]]
    verb = words[-1] if words[0] in ("robot-rl", "cli.py", "__main__.py") else words[0]
    return {"pid": os.getpid(), "host": socket.gethostname(), "verb": verb, "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _who(fd: int) -> str:
    """The holder of a lock, as it says of itself; it may just be writing that."""
    text = b""
    for _ in range(20):
        if text := os.pread(fd, 1000, 0).strip():
            break
        time.sleep(0.01)
    try:
        told = json.loads(text)
    except ValueError:
        return "another process"
    if not isinstance(told, dict):
        return f"process {told}"
    host = "" if told.get("host") == socket.gethostname() else f" on {told.get('host')}"
    return f"process {told.get('pid')}{host} ({told.get('verb')}, since {told.get('since')})"


# -------------------------------------------------------------------------------------------------------------- places


@contextmanager
def folder(path: Path, parts: Sequence[str] = WHOLE, room: int = ROOM) -> Iterator[None]:
    """Hold `parts` of the folder `path`, which is made where there is none; in one process it may be held again.

    A folder that was made and into which nothing was written is removed again.
    """
    path = Path(path).absolute()
    with ExitStack() as stack:
        with _named(path):
            _require_outside_stores(path)
            made = folders_made(path)
            stack.callback(remove_empty, made)
            for part in parts:
                if not _again[path, part]:
                    stack.enter_context(Lock(path / f".lock-{part}", path))
        _require_room(path, room)
        _again.update((path, part) for part in parts)
        stack.callback(_again.subtract, [(path, part) for part in parts])
        yield


_again: Counter[tuple[Path, str]] = Counter()  # how often this process holds what


@contextmanager
def new(path: Path, room: int = ROOM) -> Iterator[Path]:
    """Hold the place of `path`, a file or folder that is made beside and renamed; raises where something is there.

    Gives the place to make it in, where nothing is.
    """
    path = Path(path).absolute()
    with ExitStack() as stack:
        with _named(path):
            if os.path.lexists(path):
                raise RobotRLError(f"{path} exists and is not overwritten; remove it or choose another place")
            _require_outside_stores(path)
            made = folders_made(path.parent)
            stack.callback(remove_empty, made)
            stack.enter_context(Lock(path.with_name(f".lock-{path.name}"), path))
            if os.path.lexists(path):  # made while the lock was waited for
                raise RobotRLError(f"{path} exists and is not overwritten; remove it or choose another place")
            part = path.with_name(f".part-{path.name}")
            discard(part)
            stack.callback(discard, part)
        _require_room(path.parent, room)
        yield part


@contextmanager
def file(path: Path, room: int = ROOM) -> Iterator[None]:
    """Hold the file `path`, which is replaced at the end; raises where it cannot be."""
    path = Path(path).absolute()
    if path.is_dir():
        raise RobotRLError(f"{path} is a folder; name a file to write, such as {path / 'result.json'}")
    with ExitStack() as stack:
        with _named(path):
            _require_outside_stores(path)
            made = folders_made(path.parent)
            stack.callback(remove_empty, made)
            stack.enter_context(Lock(path.with_name(f".lock-{path.name}"), path))
        _require_room(path.parent, room)
        yield


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What the system says against writing at `path`, in words."""
    try:
        yield
    except OSError as error:
        raise RobotRLError(refusal(path, error)) from error


def refusal(path: Path, error: OSError) -> str:
    """Why nothing can be written at `path`, and what to do."""
    if stood := next((p for p in (path, *path.parents) if p.exists() and not p.is_dir()), None):
        return f"{stood} is a file, so nothing can be written {'there' if stood == path else 'below it'}; " + ELSEWHERE
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {path} is full ({error.strerror}): free some space, or " + ELSEWHERE
    return f"{path} cannot be written ({error.strerror}); " + ELSEWHERE


ELSEWHERE = "choose another place"


def _require_outside_stores(path: Path) -> None:
    """Raise where `path` is a store of episodes, or lies in one: what is written there may pass for an episode."""
    path = path.resolve()
    if store := next((p for p in (path, *path.parents) if _is_store(p)), None):
        what = "is a store of episodes, which" if store == path else f"lies in the store of episodes {store}, which"
        raise RobotRLError(f"{path} {what} holds nothing else; {ELSEWHERE}")


def _is_store(path: Path) -> bool:
    """Whether the folder `path` is one of `episodes.py`, whatever else is missing in it."""
    root = path / ".zattrs"
    try:
        if not root.is_file() or (path / ".lock").exists():
            return root.is_file()
        with root.open("rb") as file:
            return STORE in file.read(MARK)
    except OSError:
        return False


def require_no_run(path: Path) -> None:
    """Raise where `path` is the folder of a run, which holds what the run wrote and nothing else."""
    if (Path(path) / "config.json").is_file():
        raise RobotRLError(f"{path} is the folder of a run, which holds nothing else; {ELSEWHERE}")


def folders_made(path: Path) -> list[Path]:
    """Make the folder `path`; returns which folders there were not, the deepest first."""
    missing = [p for p in (path, *path.parents) if not os.path.lexists(p)]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of `folders`, the deepest first, in which nothing is."""
    for made in folders:
        try:
            made.rmdir()
        except OSError:
            return


def _require_room(path: Path, room: int) -> None:
    if (free := shutil.disk_usage(path).free) < room:
        raise RobotRLError(
            f"only {free / MIB:.0f} MiB are free at {path}, and {room / MIB:.0f} are needed: free some space, or "
            + ELSEWHERE
        )
