"""How the fingers are told what to do: positions on a topic, or goals of an action of control_msgs.

Like setpoints, both are sent from the servo's tick, which waits for nobody: an action's answers and results are looked
at in later ticks. A goal that runs is cancelled before another is sent, since not every server replaces it by itself.
One that came to nothing is sent again, three times at most; a stall ends it, as that is how fingers hold a part. What
is wrong is the gripper's `problem`, which the arm's node tells.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from drivers.robot_file import GripperFile, RobotFile
from robot_rl.types import RobotRLError

if TYPE_CHECKING:
    from rclpy.node import Node

LOOK = 0.25  # between looks for who listens, or the server [s]
TRIES = 3  # of a goal that comes to nothing
LONG = 5.0  # a goal that runs for so long is told [s]
DISCOVERY = 2.0  # nobody is missed within so long of the start [s]
SUCCEEDED, CANCELED = 4, 5  # action_msgs/GoalStatus
REPEAT = 1.0  # positions on a topic are sent again after so long, and goals that nobody took [s]
PAUSE = 0.5  # between two calls, after which they begin anew [s]
SAME = 0.02  # share of the way from closed to open that makes no new goal
ACTIONS = {"gripper_command": "GripperCommand", "parallel_gripper_command": "ParallelGripperCommand"}


class Gripper(Protocol):
    """Fingers."""

    problem: str  # why they do not do what was asked of them; "": nothing is known against it

    def send(self, opening: float, now: float) -> None:
        """Open so far, 0 to 1; at once. `now` is of the steady clock [s]."""

    def watch(self, now: float) -> None:
        """Look at what became of it, and whether somebody is there to take it; sends nothing."""

    def begin(self) -> None:
        """Somebody takes command: what was given up is tried again."""


class GripperTopic:
    """Positions of the gripper's joint, Float64MultiArray; sent when they change, and once a second.

    After a pause in which nothing was asked the second begins anew: whoever has just taken command asks first.
    """

    def __init__(self, node: Node, file: GripperFile) -> None:
        from std_msgs.msg import Float64MultiArray

        self._file, self._sent, self._at, self._called = file, np.nan, -np.inf, -np.inf
        self._looked, self.problem = np.nan, ""
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

    def watch(self, now: float) -> None:
        """See `Gripper`."""
        if np.isnan(self._looked):
            self._looked = now + DISCOVERY
        if now > self._looked + LOOK:
            self._looked, there = now, self._publisher.get_subscription_count()
            nobody = f"nobody listens on {self._file.topic}: is the gripper's controller active?"
            self.problem = "" if there else nobody

    def begin(self) -> None:
        """See `Gripper`."""


class GripperAction:
    """Goals, one at a time: the newest opening, once the goal before it was cancelled or is over."""

    def __init__(self, client: Any, goal_of: Callable[[float], Any], name: str = "the gripper") -> None:
        self._client, self._goal_of, self._name = client, goal_of, name
        self._asked = np.nan  # opening of the goal that runs, or ran last; NaN: it is to be sent again
        self._failed, self._tries = np.nan, 0  # the opening that came to nothing, and how often in a row
        self._answer: Any = None  # to a goal or a cancellation; a future
        self._goal: Any = None  # that was taken; a handle
        self._over: Any = None  # its result; a future
        self._at = -np.inf  # when something was sent last, or came to nothing [s]
        self._looked, self._there = np.nan, True
        self.problem = ""

    def send(self, opening: float, now: float) -> None:
        """See `Gripper`."""
        self.watch(now)
        if self._answer is not None or abs(opening - self._asked) <= SAME:
            return
        if abs(opening - self._failed) <= SAME and self._tries >= TRIES:
            return
        if np.isnan(self._asked) and now < self._at + REPEAT:  # nobody took the last one, or it came to nothing
            return
        self._look_for_server()
        if not self._there:
            return
        self._at = now
        if self._goal is not None:
            self._answer, self._goal = self._goal.cancel_goal_async(), None
        else:
            self._answer, self._asked = self._client.send_goal_async(self._goal_of(opening)), opening

    def watch(self, now: float) -> None:
        """See `Gripper`."""
        if np.isnan(self._looked):
            self._looked = now + DISCOVERY
        if now > self._looked + LOOK:
            self._looked = now
            self._look_for_server()
        if self._answer is not None and self._answer.done():
            answer, self._answer = self._answer, None
            self._take(answer.result(), now)
        elif self._answer is not None and now > self._at + REPEAT:  # it hangs
            self._answer = None
            self._fail("is not answered")
        if self._goal is not None and self._over.done():
            self._goal = None
            self._end(self._over.result())
        elif self._goal is not None and now > self._at + LONG:
            self.problem = f"{self._told(self._asked)} runs for {now - self._at:.0f} s without a result"

    def begin(self) -> None:
        """See `Gripper`."""
        self._tries = 0

    def _look_for_server(self) -> None:
        there = bool(self._client.server_is_ready())
        if not there:  # whoever comes in its place knows nothing of what was asked
            self._asked, self._tries, self._answer, self._goal = np.nan, 0, None, None
            self.problem = f"there is no server of the action {self._name}: is the gripper's driver running?"
        elif not self._there:
            self.problem = ""
        self._there = there

    def _take(self, answer: Any, now: float) -> None:
        if not hasattr(answer, "accepted"):
            return  # to a cancellation: whatever it says, the next goal may come
        if answer.accepted:
            self._goal, self._over, self._at = answer, answer.get_result_async(), now
        else:
            self._fail("was refused")

    def _end(self, over: Any) -> None:
        """What the result means."""
        stalled, reached = getattr(over.result, "stalled", False), getattr(over.result, "reached_goal", True)
        if over.status == SUCCEEDED and (reached or stalled):
            self.problem, self._tries = "", 0
        elif stalled:
            self.problem = f"{self._told(self._asked)} was aborted: stalled, so they hold a part, or are stuck"
        elif over.status == SUCCEEDED:
            self._fail("ended short of it")
        else:
            self._fail("was cancelled by somebody else" if over.status == CANCELED else "was aborted")

    def _fail(self, how: str) -> None:
        same = abs(self._asked - self._failed) <= SAME
        self._tries = self._tries + 1 if same else 1
        tries = f"tried {self._tries} of {TRIES} times"
        if self._tries >= TRIES:
            tries = f"given up after {TRIES}: ask for another opening, or arm it anew"
        self.problem = f"{self._told(self._asked)} {how}, {tries}"
        self._failed, self._asked = self._asked, np.nan

    def _told(self, opening: float) -> str:
        return f"the fingers do not obey: the goal {opening:.2f} (0 closed, 1 open) of {self._name}"


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
        goal.command.effort = [file.effort]
    return goal


def gripper_for(node: Node, robot: RobotFile) -> Gripper:
    """The gripper of the robot's file; raises where its action's messages are not installed."""
    file = robot.gripper
    if file.profile == "commands":
        return GripperTopic(node, file)
    from rclpy.action import ActionClient

    kind = _action(ACTIONS[file.profile])
    client = ActionClient(node, kind, file.topic)
    return GripperAction(client, partial(goal_of, kind, file), node.resolve_topic_name(file.topic))


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
