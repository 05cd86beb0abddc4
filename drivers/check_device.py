"""Is a device ready? First nobody touches it, then it is used; what it said, and how to mend what is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from drivers.teleop import AXES, Device, DeviceLost, Event, hint_of

PERIOD = 0.02  # between two looks [s]
TOLD = 0.5  # between two lines [s]
SLOW = 0.01  # looks of which one in twenty takes longer would keep the arm's loop waiting [s]


@dataclass
class Read:
    """What a device said in some time."""

    looks: int = 0
    held: int = 0
    """looks at which somebody held the dead-man"""
    largest: np.ndarray = field(default_factory=lambda: np.zeros(6))
    """of each motion, by its size"""
    grips: set[bool] = field(default_factory=set)
    """ways the fingers were wanted"""
    events: list[Event] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    """each look [s]"""
    lost: str = ""
    hint: str = ""
    """the last one that the device gave"""

    def add(self, hand: np.ndarray | None, events: list[Event], took: float) -> None:
        """One look."""
        self.looks += 1
        self.took.append(took)
        self.events += events
        if hand is not None:
            self.held += 1
            self.largest = np.maximum(self.largest, np.abs(hand[:6]))
            self.grips.add(bool(hand[6] > 0))


def run(device: Device, seconds: float, tell: Callable[[str], None] = print) -> tuple[str, bool]:
    """Look at it twice for so long [s]; what was found, and whether it is ready."""
    tell(f"{seconds:g} s: hands off, do not touch it")
    rest = _read(device, seconds, tell)
    if rest.lost:
        return f"PROBLEM: {rest.lost}\nnot ready", False
    tell(f"{seconds:g} s: hold the dead-man, and move everything")
    return verdict(rest, _read(device, seconds, tell))


def verdict(rest: Read, used: Read) -> tuple[str, bool]:
    """In words, and whether it is ready."""
    problems = []
    if rest.held:
        share = 100 * rest.held / rest.looks
        drift = float(np.linalg.norm(rest.largest))
        problems.append(f"at rest it moves in {share:.0f} % of the time, by {drift:.3f}: calibrate it, or clean it")
    if not used.held:
        problems.append(used.hint or "nobody held the dead-man: is it the right button, and the right device?")
    if used.lost:
        problems.append(used.lost)
    if (slow := float(np.quantile(rest.took + used.took, 0.95))) > SLOW:
        problems.append(f"a look takes {1000 * slow:.0f} ms; it would keep the arm's loop waiting")
    axes = ", ".join(f"{axis[1:]} {most:.2f}" for axis, most in zip(AXES, used.largest, strict=True))
    grips = "both ways" if len(used.grips) > 1 else "one way only" if used.grips else "not"
    lines = [
        f"dead-man held in {100 * used.held / max(used.looks, 1):.0f} % of {used.looks} looks; largest motion: {axes}",
        f"fingers: {grips}; pressed: {', '.join(rest.events + used.events) or 'nothing'}",
        *(f"PROBLEM: {problem}" for problem in problems), "not ready" if problems else "ready",
    ]  # fmt: skip
    return "\n".join(lines), not problems


def _read(device: Device, seconds: float, tell: Callable[[str], None]) -> Read:
    read, end, told = Read(), time.monotonic() + seconds, 0.0
    while (now := time.monotonic()) < end:
        try:
            hand, events = device.hand(), device.events()
        except DeviceLost as error:
            read.lost = str(error)
            break
        read.add(hand, events, time.monotonic() - now)
        read.hint = hint_of(device) or read.hint
        if now > told + TOLD:
            free = f"  free; {hint}" if (hint := hint_of(device)) else "  free"
            tell(free if hand is None else f"  held {np.round(hand[:6], 2)} {'closed' if hand[6] > 0 else 'open'}")
            told = now
        time.sleep(PERIOD)
    return read
