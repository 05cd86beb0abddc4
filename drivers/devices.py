"""Devices by name: what `--device` takes; and the screen that goes with each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from drivers.keyboard import Keyboard, Terminal, WithKeys, has_terminal
from drivers.robot_file import RobotFile
from drivers.teleop import Device, Screen, Status
from drivers.terminal_screen import TerminalScreen
from drivers.web_teleop import WebTeleop
from drivers.web_tls import PLAIN, WebConfig, refuse_unused
from robot_rl.types import RobotRLError, Spec

NAMES = (
    "keyboard, gamepad[:INDEX], spacemouse[:INDEX], joy:TOPIC[,BUTTON[,REST]], twist:TOPIC, leader:TOPIC, "
    "web[:[HOST:]PORT]"
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


def open_controls(name: str, spec: Spec, robot: RobotFile | None = None, web: WebConfig = PLAIN) -> Controls:
    """The device called `name` and its screens; raises where it is not there or may not be opened.

    In a terminal its keys start and mark episodes whatever the device is. `spec` says how far an action goes.
    """
    device, screens = open_device(name, spec, robot, web), list[Screen]()
    if isinstance(device, WebTeleop):
        screens.append(device)
    if name != "keyboard" and has_terminal():
        device = WithKeys(device, Terminal())
    return Controls(device, (*screens, TerminalScreen(device.keys)))


def open_device(name: str, spec: Spec, robot: RobotFile | None = None, web: WebConfig = PLAIN) -> Device:
    """The device alone. What speaks ROS, or has a library of its own, is imported only here."""
    kind, _, rest = name.partition(":")
    refuse_unused(web, name)
    if name == "keyboard":
        return Keyboard(Terminal())
    if kind == "gamepad":
        from drivers.gamepad import Gamepad

        return Gamepad(_number(name, rest))
    if kind == "spacemouse":
        from drivers.spacemouse import SpaceMouse

        return SpaceMouse(_number(name, rest))
    if kind == "web":
        return WebTeleop(rest, web)
    if kind in ("joy", "twist", "leader") and rest:
        return _listening(name, kind, rest, spec, robot)
    raise RobotRLError(f"no device is called '{name}'; there are {NAMES}")


def _listening(name: str, kind: str, rest: str, spec: Spec, robot: RobotFile | None) -> Device:
    from drivers.ros_devices import Leader, Twist

    if find_spec("rclpy") is None:
        raise RobotRLError(f"{name} needs ROS 2: source its setup, or pip install 'robot-rl[ros]'")
    if kind == "joy":
        return _joy(name, *rest.split(","))
    if kind == "twist":
        return Twist(rest, spec, robot.base_frame if robot else "base")
    if robot is None:
        raise RobotRLError("a leader arm leads a robot: say which with --robot")
    return Leader(rest, spec, robot)


def _joy(name: str, topic: str, button: str = "5", rest: str = "1", *more: str) -> Device:
    from drivers.ros_devices import Joy

    if more or rest not in ("1", "0", "-1"):
        raise RobotRLError(f"'{name}': TOPIC[,BUTTON[,REST]] is wanted, where REST, of a trigger, is 1, 0 or -1")
    return Joy(topic, _number(name, button) or 0, float(rest))


def _number(name: str, text: str) -> int | None:
    if text and not text.isdecimal():
        raise RobotRLError(f"the device '{name}' ends in no whole number; there are {NAMES}")
    return int(text) if text else None
