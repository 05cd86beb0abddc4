"""A SpaceMouse through pyspacemouse: who pushes or turns its cap holds the dead-man."""

from __future__ import annotations

from typing import Any

import numpy as np

from drivers.teleop import DeadZone, DeviceLost, Event, Toggle
from robot_rl.types import RobotRLError

RULE = 'KERNEL=="hidraw*", ATTRS{idVendor}=="256f|046d", MODE="0666"'
ACCESS = (
    f"sudo apt install libhidapi-hidraw0, then echo '{RULE}' | sudo tee /etc/udev/rules.d/99-spacemouse.rules && "
    "sudo udevadm control --reload && sudo udevadm trigger, and plug it in again"
)
REPORTS = 50  # that wait at most; the newest counts


class SpaceMouse:
    """Implements `Device`. Of several `index` says which; without it there must be one."""

    keys = "push and turn the cap to move    left button  fingers"

    def __init__(self, index: int | None = None) -> None:
        self._mouse = _open(index)
        self.name = f"spacemouse:{index or 0}"
        self._zone, self._grip = DeadZone(), Toggle()

    def hand(self) -> np.ndarray | None:
        """See `Device`."""
        state = self._newest()
        motion = self._zone(np.array([state.x, state.y, state.z, state.roll, state.pitch, state.yaw]))
        pressed = bool(state.buttons[:1] and state.buttons[0])
        self._grip.press(pressed)
        return np.append(motion, self._grip.closed) if self._zone.moves or pressed else None

    def events(self) -> list[Event]:
        """None: the terminal's keys start and mark."""
        return []

    def fingers(self, closed: float) -> None:
        """See `Device`."""
        self._grip.follow(closed)

    def close(self) -> None:
        """See `Device`."""
        self._mouse.close()

    def _newest(self) -> Any:
        from easyhid.easyhid import HIDException  # what it reads through

        try:
            state = self._mouse.read()
            for _ in range(REPORTS):
                before, state = state.t, self._mouse.read()
                if state.t == before:
                    break
        except HIDException as error:
            raise DeviceLost(f"{self.name} was unplugged: {error}") from error
        return state


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
