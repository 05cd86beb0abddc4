"""The session on a terminal: one line that is written over, and a bell when a stream lags."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from drivers.teleop import Status

EVERY = 0.1  # while nothing but numbers changes [s]
BELL = "\a"


class TerminalScreen:
    """Implements `Screen`. Where the output is no terminal, a line is printed when something but numbers changes."""

    def __init__(self, keys: str, out: TextIO = sys.stdout) -> None:
        self._out, self._told, self._at, self._lagging = out, ("", "", 0), 0.0, ""
        print(keys, file=out, flush=True)

    def show(self, status: Status) -> None:
        """See `Screen`."""
        told = (status.state, status.message, status.episodes)
        if status.lagging and not self._lagging:
            self._out.write(BELL)
        self._lagging = status.lagging
        if not self._out.isatty():
            if told != self._told:
                print(in_words(status), file=self._out, flush=True)
        elif told != self._told or time.monotonic() > self._at + EVERY:
            whole = in_words(status)
            line = whole[: shutil.get_terminal_size().columns - 1]
            changed = "\n" if told != self._told and self._told[0] else ""
            if told != self._told and line != whole:  # what is new is said whole once, then the line is kept short
                changed += f"\r\x1b[K{status.message}\n"
            self._out.write(f"{changed}\r\x1b[K{line}")
            self._out.flush()
            self._at = time.monotonic()
        self._told = told

    def close(self) -> None:
        """Leave the line."""
        if self._out.isatty():
            print(file=self._out, flush=True)


def in_words(status: Status) -> str:
    """One line."""
    wanted = f" of {status.wanted}" if status.wanted else ""
    rate = f"{status.rate:.1f} Hz, age {1000 * status.age:.0f} ms, {status.drops} late"
    held = "HELD" if status.held else "free"
    parts = [
        f"{status.state.upper()}: {status.episodes}{wanted} episodes", f"{status.steps} steps, {rate}", held,
        f"LAGS: {status.lagging}" if status.lagging else "", status.message,
    ]  # fmt: skip
    return " | ".join(part for part in parts if part)
