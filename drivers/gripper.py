"""How the fingers are told what to do: positions on a topic, or goals of an action of control_msgs.

Like setpoints, both are sent from the servo's tick, which waits for nobody: an action's answers are looked at in later
ticks. A goal that runs is cancelled before another is sent, since not every server replaces it by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from drivers.robot_file import GripperFile, RobotFile
from robot_rl.types import RobotRLError

if TYPE_CHECKING:
    from rclpy.node import Node

REPEAT = 1.0  # positions on a topic are sent again after so long, and goals that nobody took [s]
PAUSE = 0.5  # between two calls, after which they begin anew [s]
SAME = 0.02  # share of the way from closed to open that makes no new goal
ACTIONS = {"gripper_command": "GripperCommand", "parallel_gripper_command": "ParallelGripperCommand"}


class Gripper(Protocol):
    """Fingers."""

    def send(self, opening: float, now: float) -> None:
        """Open so far, 0 to 1; at once."""


class GripperTopic:
    """Positions of the gripper's joint, Float64MultiArray; sent when they change, and once a second.

    After a pause in which nothing was asked the second begins anew: whoever has just taken command asks first.
    """

    def __init__(self, node: Node, file: GripperFile) -> None:
        from std_msgs.msg import Float64MultiArray

        self._file, self._sent, self._at, self._called = file, np.nan, -np.inf, -np.inf
        self._publisher = node.create_publisher(Float64MultiArray, file.topic, 1)

    def send(self, opening: float, now: float) -> None:
        """See `Gripper`."""
        from std_msgs.msg import Float64MultiArray

        if now > self._called + PAUSE:
            self._at = now
        self._called = now
        if opening != self._sent or now > self._at + REPEAT:
            self._publisher.publish(Float64MultiArray(data=[position_of(self._file, opening)]))
            self._sent, self._at = opening, now


class GripperAction:
    """Goals, one at a time: the newest opening, once the goal before it was cancelled or is over."""

    def __init__(self, client: Any, goal_of: Callable[[float], Any]) -> None:
        self._client, self._goal_of = client, goal_of
        self._asked = np.nan  # opening of the goal that runs, or ran last; NaN: none was taken
        self._answer: Any = None  # to a goal or a cancellation; a future
        self._goal: Any = None  # that was taken; a handle
        self._over: Any = None  # its result; a future
        self._at = -np.inf  # when something was sent last [s]

    def send(self, opening: float, now: float) -> None:
        """See `Gripper`."""
        if self._answer is not None:
            if not self._answer.done() and now < self._at + REPEAT:
                return
            self._take(self._answer)
        again = np.isnan(self._asked) and now < self._at + REPEAT  # nobody took the last one
        if again or abs(opening - self._asked) <= SAME or not self._client.server_is_ready():
            return
        self._at = now
        if self._goal is not None and not self._over.done():
            self._answer, self._goal = self._goal.cancel_goal_async(), None
        else:
            self._answer, self._asked = self._client.send_goal_async(self._goal_of(opening)), opening

    def _take(self, answer: Any) -> None:
        self._answer = None
        result = answer.result() if answer.done() else SimpleNamespace(accepted=False)  # it hangs, or is gone
        if not hasattr(result, "accepted"):
            return  # to a cancellation: whatever it says, the next goal may come
        if result.accepted:
            self._goal, self._over = result, result.get_result_async()
        else:
            self._asked = np.nan  # and is asked again


def position_of(file: GripperFile, opening: float) -> float:
    """Of the gripper's joint [m] or [rad]."""
    return file.closed + opening * (file.open - file.closed)


def goal_of(kind: Any, file: GripperFile, opening: float) -> Any:
    """The goal that `kind`, one of `ACTIONS`, has for `opening`."""
    goal, position = kind.Goal(), position_of(file, opening)
    if file.profile == "gripper_command":
        goal.command.position, goal.command.max_effort = position, file.effort
    else:
        goal.command.name, goal.command.position = [file.joint], [position]
        goal.command.effort = [file.effort] if file.effort else []
    return goal


def gripper_for(node: Node, robot: RobotFile) -> Gripper:
    """The gripper of the robot's file; raises where its action's messages are not installed."""
    file = robot.gripper
    if file.profile == "commands":
        return GripperTopic(node, file)
    from rclpy.action import ActionClient

    kind = _action(ACTIONS[file.profile])
    return GripperAction(ActionClient(node, kind, file.topic), partial(goal_of, kind, file))


def _action(name: str) -> Any:
    try:
        actions = import_module("control_msgs.action")
    except ImportError as error:
        raise RobotRLError(
            f"a gripper with the action {name} needs control_msgs, which PyPI does not have ({error}): "
            "`sudo apt install ros-$ROS_DISTRO-control-msgs`, or give it the profile 'commands' and a topic"
        ) from error
    if not hasattr(actions, name):
        raise RobotRLError(f"this control_msgs has no {name} yet; the profile 'gripper_command' is the older one")
    return getattr(actions, name)
