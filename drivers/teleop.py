"""A person's hand on the controls, whatever the device: what it wants now, or that nobody holds the dead-man.

A device gives a `hand` (7,): moving x y z and turning about x y z in the base's frame, as shares of the largest action,
and the fingers, +1 closed and -1 open. `action_of_hand` makes it the action of a world. Where the dead-man is let go
there is no hand; a device that is gone raises `DeviceLost`, which is not the same: then the arm holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from robot_rl.types import Channel, RobotRLError

Event = Literal["start", "success", "failure", "discard", "pause", "quit"]
EVENTS: tuple[Event, ...] = ("start", "success", "failure", "discard", "pause", "quit")
State = Literal["waiting", "recording", "paused", "judging", "correcting", "done", "lost"]
HAND = 7  # numbers of a hand
ON, OFF = 0.1, 0.05  # norm of a motion at which it begins, and below which it ends
AXES = ("_x", "_y", "_z", "_rx", "_ry", "_rz")


class DeviceLost(RobotRLError):  # noqa: N818
    """The device was unplugged, or its page or publisher fell silent, while somebody held the dead-man or not."""


class DeviceSilent(DeviceLost):
    """It may come back by itself, as a page does whose network failed: whoever can hold and wait need not end."""


class Device(Protocol):
    """One device. Nothing here blocks."""

    name: str  # as the user chose it: "keyboard", "web:8080"
    keys: str  # what does what, for the screen, a line each

    def hand(self) -> np.ndarray | None:
        """(7,) in [-1, 1], see the module's docstring; None: the dead-man is not held. Raises `DeviceLost`."""

    def events(self) -> list[Event]:
        """What was pressed since the last call, in order."""

    def fingers(self, closed: float) -> None:
        """While nobody holds the dead-man: so the fingers are now, +1 closed and -1 open.

        What only toggles them goes on from there, so that who takes over drops nothing; who has a position, as a
        leader arm, keeps its own.
        """

    def close(self) -> None:
        """Give it back."""


def hint_of(device: Device) -> str:
    """Why the dead-man of `device` does not count though somebody holds it, and what to do; "": it does, or is up.

    Devices that can say so have it as `hint`.
    """
    return str(getattr(device, "hint", ""))


@dataclass(frozen=True)
class Status:
    """What the person at the controls should know now."""

    state: State
    """waiting: nothing moves until "start"; recording: steps are kept; paused: the arm holds and nothing is kept;
    judging: the episode is over and wants "success", "failure" or "discard"; correcting: a policy plays, and the
    person may take over; done: all episodes are there; lost: the device or the arm is gone, `message` says which"""
    episodes: int = 0
    """that the store holds"""
    wanted: int = 0
    """that it shall hold; 0: as many as come"""
    steps: int = 0
    """of the running episode, or of the one just over"""
    held: bool = False
    """somebody holds the dead-man"""
    rate: float = 0.0
    """control steps a second, measured over the last second [Hz]; 0: no step is made"""
    age: float = 0.0
    """of the newest observation when it was used [s]"""
    drops: int = 0
    """ticks that came late, in all episodes of this session"""
    lagging: str = ""
    """the stream that lags, in words; "": none does. The screen rings when it becomes so"""
    message: str = ""
    """what was done last, or what is wanted of the person"""
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    """the newest picture (see `CameraSpec`) of each camera by its name; empty where there is none"""


Human = Callable[[np.ndarray], np.ndarray | None]  # from what was executed last (A,) to what is wanted now


def nobody(_executed: np.ndarray) -> None:
    """The human where there is none."""


class Screen(Protocol):
    """What shows the session to the person: a terminal, a web page."""

    def show(self, status: Status) -> None:
        """Show it. Called every control step and a few times a second between; returns at once, and may skip."""


class DeadZone:
    """Lets motion through, and no drift: it begins where its norm passes `on`, and ends where it falls below `off`."""

    def __init__(self, on: float = ON, off: float = OFF) -> None:
        self._on, self._off, self.moves = on, off, False

    def __call__(self, motion: np.ndarray) -> np.ndarray:
        """What of `motion` (6,) is meant: counted from `off` on, so that it begins small. Zeros while nothing moves."""
        norm = float(np.linalg.norm(motion))
        self.moves = norm > (self._off if self.moves else self._on)
        if not self.moves:
            return np.zeros(len(motion))
        return np.clip(motion * (norm - self._off) / (norm * (1.0 - self._off)), -1.0, 1.0)


class Toggle:
    """A button that closes the fingers and opens them, in turn."""

    def __init__(self) -> None:
        self.closed, self._down = -1.0, False

    def press(self, down: bool) -> None:
        """The button is down, or not; they move when it goes down."""
        if down and not self._down:
            self.closed = -self.closed
        self._down = down

    def follow(self, closed: float) -> None:
        """They are so now."""
        self.closed = 1.0 if closed > 0 else -1.0


def action_of_hand(hand: np.ndarray, channels: Sequence[Channel]) -> np.ndarray:
    """What `hand` (7,) means as an action (A,) in [-1, 1] of `channels`; raises where those are no such motion."""
    indices = [_index(channel) for channel in channels]
    if unknown := [c.name for c, index in zip(channels, indices, strict=True) if index is None]:
        raise RobotRLError(
            f"a hand moves a tool and fingers; it cannot give {', '.join(unknown)}. Choose actions of OSC_POSE or "
            "OSC_POSITION, or a scripted operator."
        )
    return np.clip(hand[[int(i) for i in indices if i is not None]], -1.0, 1.0).astype(np.float32)


def _index(channel: Channel) -> int | None:
    """Where a channel's number stands in a hand."""
    if channel.name.endswith("gripper"):
        return HAND - 1
    if "_delta_" not in channel.name:
        return None
    ends = [i for i, axis in enumerate(AXES) if channel.name.endswith(axis)]
    return ends[0] if ends else None
