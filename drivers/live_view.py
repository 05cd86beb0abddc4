"""The process that shows what a robot's topics say: cameras, tool, setpoint, wishes, plans, values, who commands.

    python -m drivers.live_view --robot ROBOT.yaml [--out FILE.rrd | --serve PORT]    # or `robot-rl view`

It only listens, so it cannot slow whoever acts; it looks at the newest readings a few times a second and leaves out
what came between.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from drivers import interrupts, robot_file
from drivers.arm_listener import HISTORY
from drivers.messages import one_number, path_of, sound_pose_of, stamp_of, status_of, status_wrong
from drivers.node_process import end_ros, make_node, place, split_ros_arguments, start_ros
from drivers.robot_file import RobotFile
from drivers.ros_robot import RosStreams, spin_in_thread
from drivers.stamps import SYSTEM, Clocks
from drivers.subscriptions import NodeClocks
from drivers.sync import Stream
from robot_rl.screen import Screen, ScreenConfig
from robot_rl.types import RobotRLError

if TYPE_CHECKING:
    from rclpy.node import Node

PERIOD = 0.05  # [s]
LATE = 0.5  # a stream that brings nothing usable for so long is told [s]
WISHES = ("policy", "teleop")
ASKED = {"setpoint": "setpoint"} | {f"{source}/target_pose": f"wishes/{source}" for source in WISHES}


class LiveView:
    """Shows streams; each reading once at most."""

    def __init__(self, screen: Screen, streams: Any, clocks: Clocks = SYSTEM) -> None:
        self._screen, self._streams = screen, streams
        self.asked = {n: Stream[np.ndarray](n, HISTORY, clocks=clocks) for n in ASKED.values()}  # positions (3,)
        self.plan = Stream[np.ndarray]("policy/plan", HISTORY, clocks=clocks)  # (h, 3)
        self.value = Stream[float]("policy/value", HISTORY, clocks=clocks)
        self._refused: dict[str, str] = {}  # why nothing new of a stream is shown
        self.status: tuple[str, str] = ("", "the arm's node says nothing")  # who commands, or why nobody does
        self._shown: dict[str, float] = {}
        self._told: tuple[str, str] | None = None

    def show(self) -> None:
        """What is new since the last call."""
        streams, screen = self._streams, self._screen
        arm = streams.listener.readings
        if self._is_new("arm", arm):
            here = arm.last
            screen.pose("space/tool", here.position, here.turn)
            joints = {f"joint{i}": q for i, q in enumerate(here.joints)}
            screen.numbers("arm", {**joints, "gripper": here.gripper, "force": float(np.linalg.norm(here.wrench[:3]))})
            self._show_state()
        for name, stream in self.asked.items():
            if self._is_new(name, stream):
                screen.point(f"space/{name}", stream.last)
        if self._is_new("policy/plan", self.plan):
            screen.path("space/plan", self.plan.last)
        if self._is_new("policy/value", self.value):
            screen.numbers("policy", {"value": self.value.last})
        for name, stream in streams.sensors.items():
            if name != "joint_states" and self._is_new(name, stream):
                screen.numbers(f"sensors/{name}", stream.last)
        for name, stream in streams.shown.items():
            if self._is_new(f"camera {name}", stream):
                screen.picture(f"cameras/{name}", stream.last)
        for name, stream in {"arm": arm, **streams.sensors, **streams.shown}.items():
            self._say_refused(name, stream)

    def _say_refused(self, name: str, stream: Stream[Any]) -> None:
        """Once why a stream brings nothing that can be shown; its numbers may change from one to the next."""
        why = stream.refused if stream.wrong(LATE) else ""
        if bool(why) != bool(self._refused.get(name)):
            self._refused[name] = why
            self._screen.words("log", f"{name}: {why}" if why else f"{name} is seen again")

    def _is_new(self, name: str, stream: Stream[Any]) -> bool:
        """Whether it has a reading that was not shown; then the screen stands at its moment."""
        newest = stream.newest
        if not np.isfinite(newest) or newest == self._shown.get(name):  # a clock that was set back begins anew
            return False
        self._shown[name] = newest
        self._screen.at(newest)
        return True

    def _show_state(self) -> None:
        """Who commands, and whether the task is solved."""
        holder, stopped = self.status
        flags = {"human": holder == "teleop", "policy": holder == "policy", "success": self._streams.success}
        self._screen.numbers("episode", {**flags, "stopped": bool(stopped)})
        if self.status != self._told:
            self._told = self.status
            self._screen.words("log", stopped or f"'{holder}' commands the arm")


def connect(node: Node, robot: RobotFile, screen: Screen) -> LiveView:
    """A view of what `node` hears."""
    from diagnostic_msgs.msg import DiagnosticStatus
    from geometry_msgs.msg import PoseArray, PoseStamped
    from sensor_msgs.msg import JointState

    view = LiveView(screen, RosStreams(node, robot, watched=True), NodeClocks(node))

    def take_pose(name: str, message: Any) -> None:
        if (pose := sound_pose_of(message)) is not None:
            view.asked[name].add(stamp_of(message.header), pose[0])

    def take_status(message: Any) -> None:
        status, stopped = status_of(message)
        if not status_wrong(status):
            view.status = (status["holder"], stopped)

    for topic, name in ASKED.items():
        node.create_subscription(PoseStamped, topic, partial(take_pose, name), 1)

    def take_plan(message: Any) -> None:
        if len(path := path_of(message)) and np.isfinite(path).all():
            view.plan.add(stamp_of(message.header), path)

    def take_value(message: Any) -> None:
        if math.isfinite(value := one_number(message.position)):
            view.value.add(stamp_of(message.header), value)

    node.create_subscription(DiagnosticStatus, "arm_status", take_status, 1)
    node.create_subscription(PoseArray, "policy/plan", take_plan, 1)
    node.create_subscription(JointState, "policy/value", take_value, 1)
    return view


def run(robot: RobotFile, screen: Screen, asked: Callable[[], bool]) -> None:
    """Show the robot until `asked()`; all its cameras, those that policies do not see too."""
    with ExitStack() as stack:
        stack.callback(screen.close)
        stack.callback(end_ros, node := make_node("view"))
        view = connect(node, robot, screen)
        stack.callback(spin_in_thread(node))
        while not asked():
            view.show()
            time.sleep(PERIOD)


def main(arguments: list[str] | None = None) -> int:
    """Run the process until it is asked to end."""
    interrupts.listen()
    own, ros = split_ros_arguments(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", type=place, required=True, help="the robot's YAML file")
    parser.add_argument("--out", type=place, help="write a recording *.rrd instead of opening a window")
    parser.add_argument("--serve", type=int, default=0, help="let viewers on other machines read from this port")
    given = parser.parse_args(own)
    try:
        robot = robot_file.load(given.robot)
        run(robot, ScreenConfig(given.out, given.serve).build(robot.world), start_ros(ros))
    except RobotRLError as error:
        print(f"view: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
