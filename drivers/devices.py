"""Devices by name: what `--device` takes; and the screen that goes with each."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from drivers.keyboard import Keyboard, Terminal, WithKeys
from drivers.robot_file import RobotFile
from drivers.teleop import Device, Screen, Status
from drivers.terminal_screen import TerminalScreen
from drivers.web_teleop import WebTeleop
from robot_rl.types import RobotRLError

NAMES = (
    "keyboard, gamepad[:INDEX], spacemouse[:INDEX], joy:TOPIC[,BUTTON], twist:TOPIC, leader:TOPIC, web[:[HOST:]PORT]"
)


@dataclass(frozen=True)
class Controls:
    """What a person has in front of him. Implements `Screen` too, by all that there are."""

    device: Device
    screens: tuple[Screen, ...]

    def show(self, status: Status) -> None:
        """See `Screen`."""
        for screen in self.screens:
            screen.show(status)

    def close(self) -> None:
        """Give it all back."""
        self.device.close()


def open_controls(name: str, robot: RobotFile | None = None) -> Controls:
    """The device called `name` and its screens; raises where it is not there or may not be opened.

    In a terminal its keys start and mark episodes whatever the device is. A leader arm needs the `robot`.
    """
    device, screens = open_device(name, robot), list[Screen]()
    if isinstance(device, WebTeleop):
        screens.append(device)
    if name != "keyboard" and sys.stdin.isatty():
        device = WithKeys(device, Terminal())
    return Controls(device, (*screens, TerminalScreen(device.keys)))


def open_device(name: str, robot: RobotFile | None = None) -> Device:
    """The device alone."""
    kind, _, rest = name.partition(":")
    if name == "keyboard":
        return Keyboard(Terminal())
    if kind == "web":
        return WebTeleop(rest)
    raise RobotRLError(f"no device is called '{name}'; there are {NAMES}")
