"""A gamepad through SDL's table of controllers (pygame), so that buttons are called alike whatever the maker."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from drivers.teleop import DeadZone, DeviceLost, Event, Toggle
from robot_rl.types import RobotRLError

FULL = 32767.0  # SDL's number for an axis at its end
KEYS = (
    "hold the right shoulder button to move    left stick  x and y    right, left trigger  up, down\n"
    "right stick  turn about z and y    left, right of the cross  about x    A  fingers\n"
    "Start start   Y success   X failure   B discard   Back pause"
)


class Gamepad:
    """Implements `Device`. Of several pads `index` says which; without it there must be one."""

    def __init__(self, index: int | None = None) -> None:
        self._pygame, self._pads = _sdl()
        names = [self._pads.name_forindex(i) for i in range(self._pads.get_count())]
        if not names:
            raise RobotRLError(
                "no gamepad was found: plug it in, and look whether `ls -l /dev/input/event*` may be read by you "
                "(else `sudo usermod -aG input $USER`, and log in again)"
            )
        if index is None and names[1:]:
            listed = ", ".join(f"gamepad:{i} ({name})" for i, name in enumerate(names))
            raise RobotRLError(f"{len(names)} gamepads were found: choose one, {listed}")
        if not 0 <= (index or 0) < len(names):
            raise RobotRLError(f"there is no gamepad:{index}; there are gamepad:0 to gamepad:{len(names) - 1}")
        self.name, self.keys = f"gamepad:{index or 0}", KEYS
        self._pad = self._pads.Controller(index or 0)
        self._zone, self._grip = DeadZone(), Toggle()
        self._down: set[int] = set()  # buttons at the last look
        self._events: list[Event] = []

    def hand(self) -> np.ndarray | None:
        """See `Device`."""
        self._look()
        motion = self._zone(self._motion())
        if not self._pad.get_button(self._pygame.CONTROLLER_BUTTON_RIGHTSHOULDER):
            return None
        return np.append(motion, self._grip.closed)

    def events(self) -> list[Event]:
        """See `Device`."""
        self._look()
        events, self._events = self._events, []
        return events

    def fingers(self, closed: float) -> None:
        """See `Device`."""
        self._grip.follow(closed)

    def close(self) -> None:
        """See `Device`."""
        self._pad.quit()
        self._pads.quit()

    def _look(self) -> None:
        self._pygame.event.pump()
        if not self._pad.attached():
            raise DeviceLost(f"{self.name} was unplugged")
        sdl = self._pygame
        meanings: dict[int, Event] = {
            sdl.CONTROLLER_BUTTON_START: "start", sdl.CONTROLLER_BUTTON_BACK: "pause",
            sdl.CONTROLLER_BUTTON_Y: "success", sdl.CONTROLLER_BUTTON_X: "failure", sdl.CONTROLLER_BUTTON_B: "discard",
        }  # fmt: skip
        down = {button for button in meanings if self._pad.get_button(button)}
        self._events += [meanings[button] for button in sorted(down - self._down)]
        self._down = down
        self._grip.press(bool(self._pad.get_button(sdl.CONTROLLER_BUTTON_A)))

    def _motion(self) -> np.ndarray:
        """(6,) in [-1, 1]; SDL's sticks count right and down."""
        sdl, pad = self._pygame, self._pad
        left, right, up, down = (
            pad.get_axis(axis) / FULL
            for axis in (
                sdl.CONTROLLER_AXIS_LEFTX, sdl.CONTROLLER_AXIS_RIGHTX, sdl.CONTROLLER_AXIS_LEFTY,
                sdl.CONTROLLER_AXIS_RIGHTY,
            )
        )  # fmt: skip
        lift = pad.get_axis(sdl.CONTROLLER_AXIS_TRIGGERRIGHT) - pad.get_axis(sdl.CONTROLLER_AXIS_TRIGGERLEFT)
        roll = pad.get_button(sdl.CONTROLLER_BUTTON_DPAD_RIGHT) - pad.get_button(sdl.CONTROLLER_BUTTON_DPAD_LEFT)
        return np.array([-up, -left, lift / FULL, roll, -down, -right])


def _sdl() -> tuple[Any, Any]:
    """pygame and its controllers, without a window."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "1")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
        from pygame._sdl2 import controller
    except ImportError as error:
        raise RobotRLError(f"a gamepad needs pygame: pip install 'robot-rl[teleop]' ({error})") from error
    pygame.display.init()
    controller.init()
    return pygame, controller
