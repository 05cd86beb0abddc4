"""What a page says, and the hand that its messages make. Pure: bytes and moments in, no socket.

A page repeats its hand about 25 times a second, whether the dead-man is held or not, with a count and with the moment
that the newest status it has seen was sent: by that the server knows how old a message is, round trip and all, although
the page's clock is another. A page that falls silent, or whose messages come late, has let go; its dead-man must be
pressed anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from drivers.teleop import EVENTS, HAND, DeviceSilent, Event

SIZE = 1024  # bytes that a message may have
SILENCE = 0.2  # between messages of a page whose dead-man is held [s]
LATE = (
    0.6  # from the sending of a status to the coming of a message that has seen it [s]; every 0.1 s there is a status
)


@dataclass(frozen=True)
class HandMessage:
    """The hand, as the page has it now."""

    number: int
    seen: float  # when the newest status that the page has was sent, by the server's steady clock [s]
    held: bool  # the dead-man
    motion: tuple[float, ...]  # (6,) in [-1, 1]


@dataclass(frozen=True)
class FingersMessage:
    """The fingers shall close, or open."""

    closed: bool


@dataclass(frozen=True)
class EventMessage:
    """A button of the session."""

    event: Event


@dataclass(frozen=True)
class PictureMessage:
    """All pictures up to `number` are there: the page takes the next."""

    number: int


@dataclass(frozen=True)
class DriveMessage:
    """The page wants to be the one that drives."""


Message = HandMessage | FingersMessage | EventMessage | PictureMessage | DriveMessage


def parse(raw: str | bytes) -> Message | None:
    """The message in `raw`, whatever that is; None: it is none, and shall be ignored."""
    if not isinstance(raw, str) or len(raw) > SIZE:
        return None
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return _message(said) if isinstance(said, dict) else None


def _message(said: dict[str, Any]) -> Message | None:
    match said:
        case {"say": "hand", "n": n, "seen": seen, "held": bool(held), "motion": list(motion)}:
            shares = len(motion) == HAND - 1 and all(_is_number(share, -1.0, 1.0) for share in motion)
            if shares and _is_count(n) and _is_number(seen, 0.0, 2.0**53):
                return HandMessage(n, float(seen), held, tuple(map(float, motion)))
        case {"say": "fingers", "closed": bool(closed)}:
            return FingersMessage(closed)
        case {"say": "event", "event": event} if event in EVENTS:
            return EventMessage(event)
        case {"say": "picture", "n": n} if _is_count(n):
            return PictureMessage(n)
        case {"say": "drive"}:
            return DriveMessage()
    return None


def _is_number(value: Any, low: float, high: float) -> bool:
    """Of [low, high]; neither NaN, which JSON has in Python, nor a bool, which is an int there."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value, 0.0, 2.0**53)


class Grip:
    """The dead-man of one page that drives, and what the hand wants. Times are of the steady clock [s]."""

    def __init__(self, closed: float) -> None:
        self.closed = closed  # the fingers: +1 closed, -1 open
        self.must_release = True  # before holding counts: a page begins so, and one that had been silent
        self.late = False  # the last message had been on its way for too long
        self._number, self._heard, self._lost = -1, -np.inf, ""
        self._motion: tuple[float, ...] | None = None  # while the dead-man is held

    @property
    def held(self) -> bool:
        """The dead-man is, and it counts."""
        return self._motion is not None

    def hear(self, message: HandMessage, now: float) -> bool:
        """Take a message that came at `now`; False: it is older than one before, and ignored."""
        if message.number <= self._number:
            return False
        self._watch(now)
        self._number, self._heard = message.number, now
        self.late = not 0.0 <= now - message.seen <= LATE
        if self.held and self.late:
            self._lose(f"what the page says comes {now - message.seen:.1f} s late")
        elif self.late:
            self.must_release = True
        if not message.held and not self.late:
            self.must_release, self._lost, self._motion = False, "", None
        elif not self.must_release and not self.late:
            self._motion = message.motion
        return True

    def set_fingers(self, closed: bool) -> None:
        """The person closes or opens them, which needs the dead-man."""
        if self.held:
            self.closed = 1.0 if closed else -1.0

    def follow(self, closed: float) -> None:
        """While nobody holds the dead-man the fingers are as they are."""
        if not self.held and np.isfinite(closed):
            self.closed = 1.0 if closed > 0 else -1.0

    def hand(self, now: float) -> np.ndarray | None:
        """(7,) in [-1, 1]; None: the dead-man is not held. Raises `DeviceSilent` from a silence until it is let go."""
        self._watch(now)
        if self._lost:
            raise DeviceSilent(f"{self._lost}; let go of the page's dead-man and press it anew")
        return None if self._motion is None else np.array([*self._motion, self.closed], np.float64)

    def _watch(self, now: float) -> None:
        if self.held and now - self._heard > SILENCE:
            self._lose(f"the page said nothing for {now - self._heard:.2f} s")

    def _lose(self, why: str) -> None:
        self._lost, self._motion, self.must_release = why, None, True
