"""A SpaceMouse through pyspacemouse: who pushes or turns its cap holds the dead-man.

It reports at 60 Hz and more while its cap is out of its rest, and is silent at rest. pyspacemouse goes on giving the
last report: only one with a new time counts. Some models report the translation and the rotation one after the other,
so the cap is at rest when it says so twice, or once and then nothing more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from drivers.dead_man import QUIET, DeadMan, Presses
from drivers.teleop import HAND, DeadZone, DeviceLost, Event, Toggle
from robot_rl.types import RobotRLError

RULE = 'KERNEL=="hidraw*", ATTRS{idVendor}=="256f|046d", MODE="0666"'
ACCESS = (
    f"sudo apt install libhidapi-hidraw0, then echo '{RULE}' | sudo tee /etc/udev/rules.d/99-spacemouse.rules && "
    "sudo udevadm control --reload && sudo udevadm trigger, and plug it in again"
)
REPORTS = 100  # that are read in one look; the kernel keeps 64
LARGEST = 2.0  # of an axis; a cap pushed hard goes a little beyond 1
NOT_AT_REST = "the cap was not yet seen at rest: push it once, and let it go"


class SpaceMouse:
    """Implements `Device`. Of several `index` says which; without it there must be one."""

    keys = "push and turn the cap to move, after it was let go once    left button  fingers"

    def __init__(self, index: int | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._mouse, self._now = _open(index), now
        self.name = f"spacemouse:{index or 0}"
        self._dead_man = DeadMan(self.name, speaks_at_rest=False)
        self._zone, self._grip, self._presses = DeadZone(), Toggle(), Presses()
        self._presses(frozenset())
        self._fingers_until = -np.inf  # their button moves nothing else, and counts for so long [s]
        self._looked, self._heard, self._time = now(), now(), -1.0  # the last is the report's own
        self._rests = 0  # reports at rest, one after the other, until now

    @property
    def hint(self) -> str:
        """See `hint_of`."""
        return self._dead_man.hint

    def hand(self) -> np.ndarray | None:
        """See `Device`."""
        self._look()
        motion = self._dead_man.motion(self._now())
        if motion is None and self._now() < self._fingers_until:
            motion = np.zeros(HAND - 1)
        return None if motion is None else np.append(motion, self._grip.closed)

    def events(self) -> list[Event]:
        """None: the terminal's keys start and mark."""
        return []

    def fingers(self, closed: float) -> None:
        """See `Device`."""
        self._grip.follow(closed)

    def close(self) -> None:
        """See `Device`."""
        self._mouse.close()

    def _look(self) -> None:
        """Take all reports that came. When is not known: they count as of the look before, and bridge no silence."""
        now = self._now()
        since, self._looked = self._looked, now
        unseen = now - since
        if unseen > QUIET and self._dead_man.held:
            self._dead_man.doubt(f"nobody looked at it for {unseen:.1f} s")
        self._dead_man.watch(now)
        for state in self._reports():
            self._heard = now
            self._hear(since, state)
            if unseen > QUIET:
                self._dead_man.doubt(f"nobody looked at it for {unseen:.1f} s")
        if self._rests and now - self._heard > QUIET:
            self._rests = 0
            self._dead_man.report(now, False, np.zeros(HAND - 1))

    def _reports(self) -> Iterator[Any]:
        from easyhid.easyhid import HIDException  # what it reads through

        try:
            for _ in range(REPORTS):
                state = self._mouse.read()
                if state.t == self._time:
                    return
                self._time = state.t
                yield state
        except HIDException as error:
            raise DeviceLost(f"{self.name} was unplugged: {error}") from error

    def _hear(self, at: float, state: Any) -> None:
        axes = np.array([state.x, state.y, state.z, state.roll, state.pitch, state.yaw], float)
        if not (np.abs(axes) <= LARGEST).all():  # false for NaN too
            self._rests = 0
            self._dead_man.doubt(f"an axis is no number of -1 to 1: {axes}")
            return
        motion = self._zone(axes)
        self._rests = 0 if self._zone.moves else self._rests + 1
        self._dead_man.report(at, self._zone.moves, motion, "" if self._rests > 1 else NOT_AT_REST)
        if self._presses(frozenset(i for i, down in enumerate(state.buttons) if down)) & {0} and self._dead_man.ready:
            self._grip.press(True)
            self._grip.press(False)
            self._fingers_until = at + QUIET


def _open(index: int | None) -> Any:
    try:
        import pyspacemouse
    except ImportError as error:
        raise RobotRLError(f"a SpaceMouse needs pyspacemouse: pip install 'robot-rl[teleop]' ({error})") from error
    try:
        names = pyspacemouse.get_connected_devices()
    except RuntimeError as error:
        raise RobotRLError(f"a SpaceMouse needs the library hidapi ({error}): {ACCESS}") from error
    if not names:
        raise RobotRLError(f"no SpaceMouse was found: plug it in; where it is, you may lack the permission: {ACCESS}")
    if index is None and names[1:]:
        listed = ", ".join(f"spacemouse:{i} ({name})" for i, name in enumerate(names))
        raise RobotRLError(f"{len(names)} SpaceMice were found: choose one, {listed}")
    if not 0 <= (index or 0) < len(names):
        raise RobotRLError(f"there is no spacemouse:{index}; there are spacemouse:0 to spacemouse:{len(names) - 1}")
    name, nth = names[index or 0], names[: index or 0].count(names[index or 0])
    try:
        return pyspacemouse.open(device=name, device_index=nth, axis_convention=pyspacemouse.AxisConvention.ROS)
    except RuntimeError as error:
        raise RobotRLError(f"{name} is there and may not be opened ({error}): {ACCESS}") from error
