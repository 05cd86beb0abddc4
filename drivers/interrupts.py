"""How the process of a node hears that it shall end, from its first line to its last. Imports nothing that takes time.

A terminal's Ctrl-C reaches every process of its group, and ros2 launch sends its children one more: two signals are one
wish, and neither may break the orderly stop of an arm. While modules are imported nothing has begun, and the process
ends at once with 0. After that signals are only remembered, and whoever spins ends in order. The way out of a process
that hangs: the third signal, 2 s or more after the first; and nothing of ROS takes longer than 5 s, see `end_ros`.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from robot_rl.start import SIGNALS, open_closed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

OUT, GRACE = 3, 2.0  # this signal ends the process whatever it does, so long after the first at the earliest [s]

_received: list[float] = []  # when, by the steady clock [s]


def begin() -> None:
    """Before the imports of `python -m drivers.NODE`: a signal ends it at once, and what is printed goes nowhere else.

    DDS opens sockets: one that got the number of a closed stdout would be sent every line that is printed.
    """
    if sys.argv[:1] == ["-m"]:  # runpy imports a module's package while it still looks for the module
        open_closed()
        for number in SIGNALS:
            signal.signal(number, _leave)


def listen() -> Callable[[], bool]:
    """Remember signals from now on; returns what says whether one came."""
    for number in SIGNALS:
        signal.signal(number, _remember)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    atexit.unregister(_ignore)
    atexit.register(_ignore)  # while it is finalised Python gives signals back to the system, which would kill it
    return lambda: bool(_received)


@contextmanager
def kept_from_children() -> Iterator[None]:
    """A process that is started within gets no SIGINT before it listens."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _remember(number: int, _frame: FrameType | None) -> None:
    _received.append(time.monotonic())
    if len(_received) >= OUT and _received[-1] - _received[0] >= GRACE:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
