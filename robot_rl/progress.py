"""How far a verb is: a bar in a terminal, and where there is none a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

EVERY = 30.0  # between lines [s]
T = TypeVar("T")


class Progress(Protocol):
    """Counts steps, episodes or whatever is done."""

    def update(self, n: float = 1) -> Any:
        """So many more are done."""

    def set_postfix_str(self, s: str = "") -> Any:
        """What else to say."""

    def close(self) -> Any:
        """The end."""


def progress(what: str, total: int | None, done: int = 0) -> Progress:
    """Of `what`, of which `done` are done already, of `total` if that is known."""
    if sys.stderr is not None and sys.stderr.isatty():
        return tqdm(total=total, initial=done, desc=what)
    return Lines(what, total, done)


def told(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items, with their progress."""
    shown = progress(what, total)
    try:
        for item in items:
            yield item
            shown.update()
    finally:
        shown.close()


class Lines:
    """A line on stderr every `EVERY` seconds, so that a log stays short; what is over sooner says nothing."""

    def __init__(self, what: str, total: int | None, done: int = 0) -> None:
        self._what, self._total, self._done, self._first = what, total, done, done
        self._start = self._last = time.monotonic()
        self._more = ""

    def update(self, n: float = 1) -> None:
        """So many more are done."""
        self._done += int(n)
        now = time.monotonic()
        if now - self._last >= EVERY:
            self._last = now
            print(self._line(now - self._start), file=sys.stderr, flush=True)

    def set_postfix_str(self, s: str = "") -> None:
        """What else to say."""
        self._more = f", {s}" if s else ""

    def close(self) -> None:
        """The end; nothing more is said."""

    def _line(self, passed: float) -> str:
        of = "" if self._total is None else f" of {self._total:,}"
        left = ""
        if self._total is not None and self._done > self._first:
            seconds = passed * (self._total - self._done) / (self._done - self._first)
            left = f", about {max(seconds, 0):.0f} s to go"
        return f"{self._what}: {self._done:,}{of} after {passed:.0f} s{left}{self._more}"
