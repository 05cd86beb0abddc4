"""The keyboard of a terminal as a device, and its keys beside any other device. It works over ssh.

A terminal tells which key came, never that one was let go; a key that is held repeats. So a key moves for `HOLD` after
it came last, and nobody holds the dead-man when no key moves. Keys of two axes that follow one another within that time
move along both. How soon a held key begins to repeat, and how often, is the person's computer's to say
(`xset r rate 200 30`): where that takes longer than `HOLD`, the arm pauses once. A key may have come at any time since
the last look, and counts from there: what waited while nobody looked moves nothing.
"""

from __future__ import annotations

import atexit
import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import numpy as np

from drivers.teleop import HAND, Device, DeviceLost, Event, Toggle, hint_of
from robot_rl.types import RobotRLError

HOLD = 0.3  # a key moves for so long after it came [s]
SPEED = 0.3  # share of the largest action at first
KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Za-z]|[\s\S]")
AXES: dict[str, tuple[int, int]] = {  # which number of a hand, and which way
    "w": (0, 1), "s": (0, -1), "a": (1, 1), "d": (1, -1), "r": (2, 1), "f": (2, -1),
    "\x1b[A": (0, 1), "\x1b[B": (0, -1), "\x1b[D": (1, 1), "\x1b[C": (1, -1), "\x1b[5~": (2, 1), "\x1b[6~": (2, -1),
    "l": (3, 1), "j": (3, -1), "i": (4, 1), "k": (4, -1), "u": (5, 1), "o": (5, -1),
}  # fmt: skip
EVENTS: dict[str, Event] = {
    "\n": "start", "\r": "start", "y": "success", "n": "failure", "x": "discard", "\x7f": "discard", "p": "pause",
    "q": "quit",
}  # fmt: skip
SESSION_KEYS = "Enter start   y success   n failure   x discard   p pause   q quit"
MOTION_KEYS = (
    "w s  forward, back (+x -x)    a d  left, right (+y -y)    r f  up, down (+z -z); or arrows and PageUp PageDown\n"
    "l j  turn about x    i k  about y    u o  about z    Space  fingers    1 to 9  speed 10 to 90 %, 0  100 %"
)


class Keys(Protocol):
    """Where keys come from."""

    def read(self) -> list[str]:
        """The keys that came since the last call, in order; raises `DeviceLost` where none can come any more."""

    def close(self) -> None:
        """Give it back."""


def has_terminal() -> bool:
    """Standard input is one; it may be closed, or be something else."""
    try:
        return sys.stdin is not None and os.isatty(sys.stdin.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False


class Terminal:
    """Implements `Keys` by standard input. Keys are neither echoed nor waited for; Ctrl-C is what it always is."""

    def __init__(self) -> None:
        if not has_terminal():
            raise RobotRLError("keys need a terminal: start this in one, or over `ssh -t`, with nothing piped into it")
        self._fd = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        atexit.register(self.close)  # else a person who types blind is left behind

    def read(self) -> list[str]:
        """See `Keys`."""
        text = b""
        try:
            while select.select([self._fd], [], [], 0)[0]:
                came = os.read(self._fd, 1024)
                if not came:
                    raise DeviceLost("the terminal was closed")
                text += came
        except OSError as error:
            raise DeviceLost(f"the terminal is gone: {error.strerror}") from error
        return KEY.findall(text.decode(errors="ignore"))

    def close(self) -> None:
        """The terminal as it was, where it is there yet."""
        atexit.unregister(self.close)
        with suppress(OSError, termios.error):
            if os.isatty(self._fd):
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)


class Keyboard:
    """Implements `Device`."""

    name = "keyboard"
    keys = f"{MOTION_KEYS}\n{SESSION_KEYS}"

    def __init__(self, keys: Keys, now: Callable[[], float] = time.monotonic) -> None:
        self._source, self._now = keys, now
        self._until = np.full(HAND, -np.inf)  # when each axis stops [s]; the last one: when the fingers' key is let go
        self._way = np.zeros(HAND - 1)
        self._grip, self._speed = Toggle(), SPEED
        self._events: list[Event] = []
        self._looked = now()

    def hand(self) -> np.ndarray | None:
        """See `Device`."""
        self._read()
        moving = self._until > self._now()
        if not moving.any():
            return None
        return np.append(self._speed * self._way * moving[:-1], self._grip.closed)

    def events(self) -> list[Event]:
        """See `Device`."""
        self._read()
        events, self._events = self._events, []
        return events

    def fingers(self, closed: float) -> None:
        """See `Device`."""
        self._grip.follow(closed)

    def close(self) -> None:
        """See `Device`."""
        self._source.close()

    def _read(self) -> None:
        now = self._now()
        earliest, self._looked = self._looked, now
        for key in self._source.read():
            if key in AXES:
                axis, way = AXES[key]
                self._way[axis], self._until[axis] = way, earliest + HOLD
            elif key == " ":
                self._grip.press(True)
                self._grip.press(False)
                self._until[-1] = now + HOLD
            elif key.isdecimal():
                self._speed = (int(key) or 10) / 10
            elif key in EVENTS:
                self._events.append(EVENTS[key])


class WithKeys:
    """Implements `Device`: another device's hand, with the terminal's keys for the session beside its own buttons."""

    def __init__(self, device: Device, keys: Keys) -> None:
        self._device, self._source = device, keys
        self.name, self.keys = device.name, f"{device.keys}\n{SESSION_KEYS}"
        self.hand, self.fingers = device.hand, device.fingers

    @property
    def hint(self) -> str:
        """See `hint_of`."""
        return hint_of(self._device)

    def events(self) -> list[Event]:
        """Of both."""
        return self._device.events() + [EVENTS[key] for key in self._source.read() if key in EVENTS]

    def close(self) -> None:
        """Both."""
        self._device.close()
        self._source.close()
