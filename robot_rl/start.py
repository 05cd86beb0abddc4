"""Where a command begins and ends: signals, closed pipes, full disks. It imports nothing that takes time.

The verbs take seconds to import (torch). Until they are there nothing has been done, and Ctrl-C ends the process at
once; from then on it ends the verb, which puts away what it holds. The third one ends the process whatever it does.
"""

from __future__ import annotations

import errno
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 3  # signals that a process is asked to end by before it is made to
CLOSED = 128 + signal.SIGPIPE  # what a shell reports of a process that SIGPIPE ended
OF_PLACES = {  # what the system says of a place and not of this program
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EISDIR,
    errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ESTALE,
}  # fmt: skip

_received: list[int] = []


def expect_interrupts() -> None:
    """From now on a signal ends this process quietly and at once: it has done nothing yet."""
    for number in SIGNALS:
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"robot-rl: interrupted\n")
    os._exit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if len(_received) == PATIENCE:
        os._exit(128 + number)
    raise KeyboardInterrupt


def main() -> None:
    """The command `robot-rl`."""
    expect_interrupts()
    open_closed()
    from robot_rl.cli import main as run  # here, because it takes seconds

    sys.exit(run())


def open_closed() -> None:
    """Whoever starts this with stdin, stdout or stderr closed wants none of it; else the next file would be stdout."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def guarded(run: Callable[[], None], resumes: bool = False) -> int:
    """Do a verb's work; what a user can mend, or has done, is said in one line. Returns the process's exit code.

    `resumes`: the same command again goes on where this one was stopped, and that is said.
    """
    _received.clear()
    before = _handle(_interrupt)
    try:
        return _guarded(run, resumes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle(handler: Any) -> dict[signal.Signals, Any]:
    """Set the handlers; returns what they were. Only the main thread can, and only it is interrupted."""
    try:
        return {n: signal.signal(n, handler) for n in SIGNALS}
    except ValueError:
        return {}


def _guarded(run: Callable[[], None], resumes: bool) -> int:
    from robot_rl.types import RobotRLError

    code = 2
    try:
        try:
            run()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
    except RobotRLError as error:
        _say(str(error))
    except KeyboardInterrupt:
        _handle(signal.SIG_IGN)
        _say("interrupted" + ("; run the same command again to go on" if resumes else ""))
        code = 128 + (_received or [signal.SIGINT])[0]
    except BrokenPipeError:
        code = CLOSED
        with open(os.devnull, "w") as nowhere:  # else Python complains of it once more when it ends
            os.dup2(nowhere.fileno(), 1)
    except OSError as error:
        if error.errno not in OF_PLACES:
            raise
        where = f"{error.filename}: " if error.filename else "while writing: "
        _say(f"{where}{error.strerror}. What was saved before is kept; free some space, or name another place.")
    except (MemoryError, RuntimeError) as error:  # torch's is a RuntimeError
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        _say("there is not enough memory for this: take smaller networks, batches or pictures, or fewer workers")
    return code


def plain(words: str) -> str:
    """`words` without the codes that steer a terminal: names in files of others may hold them."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in words)


def _say(words: str) -> None:
    try:
        print(f"robot-rl: {plain(words)}", file=sys.stderr, flush=True)
    except OSError:  # nobody listens
        return
