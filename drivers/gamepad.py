"""A gamepad through SDL's table of controllers (pygame), so that buttons are called alike whatever the maker.

A pad tells changes only, so a stick held at its end is silence too: it lives while the system says that it is attached,
which a cable ends at once and radio late. Therefore a hand that moves the arm and does not change by a single count for
`STILL` is not believed: no thumb holds six axes so still.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from drivers.dead_man import DeadMan, Presses
from drivers.teleop import DeadZone, DeviceLost, Event, Toggle
from robot_rl.types import RobotRLError

FULL = 32767.0  # SDL's number for an axis at its end
RESTED = 0.1  # share of its way at which a trigger counts as let go; SDL reads 0.5 until some are touched
STILL = 2.0  # [s]
KEYS = (
    "hold the right shoulder button to move    left stick  x and y    right, left trigger  up, down\n"
    "right stick  turn about z and y    left, right of the cross  about x    A  fingers\n"
    "Start start   Y success   X failure   B discard   Back pause"
)


class Gamepad:
    """Implements `Device`. Of several pads `index` says which; without it there must be one."""

    def __init__(self, index: int | None = None, now: Callable[[], float] = time.monotonic) -> None:
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
        self._dead_man, self._now = DeadMan(self.name, speaks_at_rest=False), now
        self._zone, self._grip, self._presses = DeadZone(), Toggle(), Presses()
        self._events: list[Event] = []
        self._before, self._changed = np.zeros(0), now()  # what all said, and since when

    @property
    def hint(self) -> str:
        """See `hint_of`."""
        return self._dead_man.hint

    def hand(self) -> np.ndarray | None:
        """See `Device`."""
        self._look()
        motion = self._dead_man.motion(self._now())
        return None if motion is None else np.append(motion, self._grip.closed)

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
        fingers, shoulder = sdl.CONTROLLER_BUTTON_A, sdl.CONTROLLER_BUTTON_RIGHTSHOULDER
        down = frozenset(button for button in (*meanings, fingers, shoulder) if self._pad.get_button(button))
        pressed = self._presses(down)
        self._events += [meanings[button] for button in sorted(pressed) if button in meanings]
        self._grip.press(fingers in pressed)
        self._report(shoulder in down)

    def _report(self, held: bool) -> None:
        now, axes = self._now(), self._axes()
        motion = self._zone(self._motion(*axes))
        if not np.array_equal(axes, self._before):
            self._before, self._changed = axes, now
        pulled = [side for side, pull in zip(("left", "right"), axes[4:6], strict=True) if abs(pull) > RESTED]
        at_rest = f"the {' and the '.join(pulled)} trigger is not at rest: pull it, and let it go" if pulled else ""
        self._dead_man.report(now, held, motion, at_rest)
        if self._dead_man.held and motion.any() and now - self._changed > STILL:
            self._dead_man.lose(f"{self.name} tells the same to the last count for {now - self._changed:.1f} s")

    def _axes(self) -> np.ndarray:
        """(7,) Left x and y, right x and y, left and right trigger, and the cross, in [-1, 1]."""
        sdl, pad = self._pygame, self._pad
        axes = (
            sdl.CONTROLLER_AXIS_LEFTX, sdl.CONTROLLER_AXIS_LEFTY, sdl.CONTROLLER_AXIS_RIGHTX,
            sdl.CONTROLLER_AXIS_RIGHTY, sdl.CONTROLLER_AXIS_TRIGGERLEFT, sdl.CONTROLLER_AXIS_TRIGGERRIGHT,
        )  # fmt: skip
        roll = pad.get_button(sdl.CONTROLLER_BUTTON_DPAD_RIGHT) - pad.get_button(sdl.CONTROLLER_BUTTON_DPAD_LEFT)
        return np.clip([*(pad.get_axis(axis) / FULL for axis in axes), roll], -1.0, 1.0)

    @staticmethod
    def _motion(
        left: float, up: float, right: float, down: float, lower: float, lift: float, roll: float
    ) -> np.ndarray:
        """(6,) in [-1, 1]; SDL's sticks count right and down."""
        return np.array([-up, -left, lift - lower, roll, -down, -right])


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
