"""The node beside the controller: whoever wants to move the arm goes through its gate, and it holds the arm by itself.

    python -m drivers.arm_node --robot ROBOT.yaml [--ros-args ...]

Of each source (teleop goes before policy) it takes `<source>/target_pose` (geometry_msgs/PoseStamped, whose stamp is
that of the observation it came from) and `<source>/target_gripper` (sensor_msgs/JointState, one position, 0 closed to
1 open). `<source>/arm` lets a source command and answers with the number of its lease, `<source>/release` and `stop`
hold the arm for good, `homing/arm` takes it home. `arm_status` says at 10 Hz who commands, or why nobody does; see
servo.py and gate.py for what is obeyed. What is sent to whatever controller is told on `setpoint` (PoseStamped) and
`setpoint_gripper` (JointState) too, stamped with the time of sending.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drivers import robot_file
from drivers.arm_listener import ArmListener
from drivers.controllers import controller_for
from drivers.gate import Gate, Ruling
from drivers.gripper import gripper_for
from drivers.messages import numbers_msg, pose_msg, pose_of, stamp_of
from drivers.node_process import spin, split_ros_arguments, start_ros
from drivers.robot_file import RobotFile
from drivers.servo import HOMING, Servo
from drivers.subscriptions import controllers_of, listen, name_of
from robot_rl.types import RobotRLError, Target

if TYPE_CHECKING:
    from rclpy.node import Node

SOURCES = ("teleop", "policy")  # the first goes before
STATUS, CHECKS = 0.1, 0.5  # periods [s]
PATIENCE = 1.4  # periods of the policy; whoever says nothing for so long is not followed until the next word
APART = (0.02, 0.1)  # measured pose and that of the measured joints, at most [m], [rad]
UNKNOWN = "_UNKNOWN_"  # in rmw's name of a node whose own has not come yet
LAST_TICKS = 1.0  # to come to rest in when it is shut down [s]


class ArmNode:
    """Joins topics and services to a `Servo`; `tick` runs on the steady clock."""

    def __init__(self, node: Node, robot: RobotFile) -> None:
        from rclpy.clock import Clock
        from rclpy.clock_type import ClockType

        self.node, self.robot = node, robot
        self.period = 1.0 / robot.servo_rate
        self.listener = ArmListener(node, robot)
        self.controller, self.gripper = controller_for(node, robot), gripper_for(node, robot)
        self.servo = self._new_servo(1.0)
        self._openings: dict[str, float] = {}  # that each source wants
        self._heard = dict.fromkeys(SOURCES, -np.inf)  # when a source last said something, by the steady clock [s]
        self._logged = ""
        self._controllers: tuple[str, ...] = ()  # who listens to the setpoints, as far as was looked
        self.overruns: deque[float] = deque(maxlen=1000)  # how much later than due each tick came [s]
        self._due, self.ticks = time.monotonic(), 0
        self._declare()
        self._offer_services()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(self.period, self.tick, clock=steady)
        node.create_timer(STATUS, self.publish_status, clock=steady)
        node.create_timer(CHECKS, self.check_graph, clock=steady)
        node.get_logger().info("the arm holds until `<source>/arm` is called")  # the first line takes 0.1 s and more

    def now(self) -> float:
        """The time of the stamps [s]."""
        return self.node.get_clock().now().nanoseconds * 1e-9

    def tick(self) -> None:
        """One setpoint to the controller, or none where there is nothing to send."""
        steady, now = time.monotonic(), self.now()
        self.ticks += 1
        self.overruns.append(max(steady - self._due, 0.0))
        self._due = max(self._due + self.period, steady)
        if not len(self.listener.readings):
            return
        state = self.listener.sample()
        self._watch(steady)
        ruling = self.servo.tick(state, now, self._is_quiet(steady))
        if ruling is not None and ruling.sent is not None:
            self.controller.send(ruling.sent, self.servo.gate.joints, state, now)
            self.gripper.send(ruling.sent.gripper, now)
            self._tell(ruling.sent, now)
        if ruling is not None:
            self._log(ruling)

    def _tell(self, sent: Target, now: float) -> None:
        """The gripper first, so that both are there when the pose is."""
        self._setpoint_gripper.publish(numbers_msg(now, ["gripper"], np.array([sent.gripper])))
        self._setpoint.publish(pose_msg(now, self.robot.base_frame, sent.position, sent.turn))

    def _watch(self, steady: float) -> None:
        """What no stamp shows: readings that cannot be used, and silence while the clock of the stamps stands still."""
        gate, age = self.servo.gate, self.robot.limits.age
        if gate.stopped:
            return
        if problem := self.listener.problem:
            gate.stop(problem)
        elif self.servo.commanded and steady - self._heard[gate.holder] > age:
            gate.stop(f"'{gate.holder}' is silent for {steady - self._heard[gate.holder]:.2f} s")

    def _is_quiet(self, steady: float) -> bool:
        """Whether the arm or its holder missed a word, long before either counts as silent."""
        heard = [self.listener.heard, *([self._heard[self.servo.gate.holder]] if self.servo.commanded else [])]
        return steady - min(heard) > PATIENCE / self.robot.rate

    def _log(self, ruling: Ruling) -> None:
        """Each decision at debug level; what is new and not plain, for everyone."""
        from rclpy.logging import LoggingSeverity

        log, text = self.node.get_logger(), f"{ruling.verdict}: {ruling.reason}"
        if log.is_enabled_for(LoggingSeverity.DEBUG):  # the text takes longer than all else in a tick
            log.debug(f"{text} raw={ruling.raw} sent={ruling.sent}")
        if ruling.verdict in ("rejected", "stopped") and text != self._logged:
            log.warning(text)
        self._logged = text

    def _take(self, source: str, message: Any) -> None:
        if message.header.frame_id != self.robot.base_frame:
            frames = f"'{message.header.frame_id}', not '{self.robot.base_frame}'"
            self.node.get_logger().error(f"{source}/target_pose is in the frame {frames}", throttle_duration_sec=1.0)
            return
        position, turn = pose_of(message)
        opening = self._openings.get(source)
        if opening is None:  # it asked nothing of the fingers yet: they stay
            opening = 0.0 if self.servo.gate.stopped else self.servo.gate.setpoint.gripper
        target = Target(stamp_of(message.header), position, turn, opening, source)
        if self.servo.offer(target, self.now()):
            self._heard[source] = time.monotonic()

    def _take_gripper(self, source: str, message: Any) -> None:
        if len(message.position) == 1 and source == self.servo.gate.holder:  # others' are stale once they take over
            self._openings[source] = float(message.position[0])

    def _arm(self, source: str, _request: Any, response: Any) -> Any:
        try:
            if problem := self.listener.problem:
                raise RobotRLError(f"the arm cannot be armed: {problem}")
            if wrong := self._wrong_graph() or self._wrong_pose():
                raise RobotRLError(f"the arm cannot be armed: {wrong}")
            silent = time.monotonic() - self._heard.get(source, -np.inf)
            commands = source == self.servo.gate.holder and self.servo.commanded and not self.servo.gate.stopped
            if commands and silent < self.robot.limits.age:
                raise RobotRLError(f"'{source}' commands the arm already; `{source}/release` ends that")
            self._openings.clear()
            self.servo.arm(source, self.listener.newest, self.now())
            response.success, response.message = True, str(self.servo.leases)
            self.publish_status()
        except RobotRLError as error:
            response.success, response.message = False, str(error)
        obeys = f"; {' and '.join(self._controllers)} listens to its setpoints" if response.success else ""
        self.node.get_logger().info(f"{source}/arm: {response.message}{obeys}")
        if response.success and self._controllers[1:]:
            name = "; if one of them is not meant to, name the other in `controller.node` of the robot's file"
            self.node.get_logger().warning(f"{len(self._controllers)} nodes listen to the setpoints{name}")
        return response

    def _hold(self, reason: str, source: str, _request: Any, response: Any) -> Any:
        """`source` "" stops everyone."""
        if source in ("", self.servo.gate.holder):
            self.servo.stop(reason)
        response.success, response.message = True, self.servo.gate.stopped or f"'{self.servo.gate.holder}' commands it"
        return response

    def check_graph(self) -> None:
        """Stop where somebody else commands the controller too, or nobody listens."""
        wrong = "" if self.servo.gate.stopped else self._wrong_graph(armed=True)
        if wrong:
            self.servo.stop(wrong)
            self.node.get_logger().error(wrong)

    def _wrong_graph(self, armed: bool = False) -> str:
        publisher, file = self.controller.publisher, self.robot.controller
        topic, found = publisher.topic_name, controllers_of(self.node, publisher, file.node)
        self._controllers = found.controllers
        # The name of one that is followed already may be late to come; nobody begins to follow a nameless one.
        if (wrong := found.wrong(topic, name_of(publisher.msg_type), file.node)) and not (armed and found.nameless):
            return wrong
        if not publisher.get_subscription_count():
            return f"nobody listens on {topic}: is the controller active?"
        if (others := publisher_names(self.node, topic))[1:]:
            return f"{len(others)} publish on {topic}: {', '.join(others)}; one of them has to go"
        for source in SOURCES:
            name = self.node.resolve_topic_name(f"{source}/target_pose")
            # One that was killed stays in the graph for a while beside its successor, which has no name at first.
            known = {other for other in publisher_names(self.node, name) if UNKNOWN not in other}
            if (others := sorted(known))[1:]:
                return f"{len(others)} publish on {name}: {', '.join(others)}; one of them has to go"
        return ""

    def _wrong_pose(self) -> str:
        if self._kinematics is None:
            return ""
        return self._kinematics.disagreement(self.listener.readings.last, *APART)

    def publish_status(self) -> None:
        """Who commands the arm, or why nobody does."""
        from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

        gate = self.servo.gate
        late = float(np.percentile(self.overruns, 99)) if self.overruns else 0.0
        age = self.now() - self.listener.readings.newest if len(self.listener.readings) else np.inf
        values = {
            "sees the arm": not self.listener.problem, "holder": gate.holder, "lease": self.servo.leases,
            "controller": ", ".join(self._controllers),
            "rests": gate.rests, "at home": self.servo.is_home(self.now()),
            "age of the state [s]": f"{age:.3f}", "ticks": self.ticks, "tick p99 late [s]": f"{late:.4f}",
            **{verdict: gate.counts[verdict] for verdict in ("sent", "clipped", "rejected", "stopped")},
        }  # fmt: skip
        level = DiagnosticStatus.ERROR if gate.stopped else DiagnosticStatus.OK
        status = DiagnosticStatus(level=level, name="arm", message=gate.stopped, hardware_id=self.robot.arm)
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        self._status.publish(status)
        self._beats += 1
        if self._beats % round(1.0 / STATUS) == 0:
            self._diagnose(status)

    def _diagnose(self, status: Any) -> None:
        from diagnostic_msgs.msg import DiagnosticArray

        message = DiagnosticArray(status=[status])
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _declare(self) -> None:
        from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor

        scale = FloatingPointRange(from_value=0.01, to_value=1.0, step=0.0)
        about = "share of the robot's speeds that is allowed; only to be changed while the arm is stopped"
        descriptor = ParameterDescriptor(description=about, floating_point_range=[scale])
        value = self.node.declare_parameter("speed_scale", 1.0, descriptor).value
        self.servo = self._new_servo(value)
        self.node.add_on_set_parameters_callback(self._set)

    def _set(self, parameters: list[Any]) -> Any:
        from rcl_interfaces.msg import SetParametersResult

        for parameter in parameters:
            if parameter.name == "speed_scale":
                if not self.servo.gate.stopped or not self.servo.gate.rests:
                    reason = "speed_scale cannot change while the arm is armed; call `stop` first"
                    return SetParametersResult(successful=False, reason=reason)
                self.servo = self._new_servo(parameter.value)
        return SetParametersResult(successful=True)

    def _new_servo(self, scale: float) -> Servo:
        robot, self._kinematics = self.robot, None
        if robot.kinematics is not None:
            from drivers.kinematics import from_file

            self._kinematics = from_file(robot.kinematics)
        limits = replace(robot.limits, speed=scale * robot.limits.speed, turn_speed=scale * robot.limits.turn_speed)
        gated = self._kinematics if robot.kinematics and robot.kinematics.gated else None
        gate = Gate(limits, robot.arm_limits, self.period, gated)
        home = np.array(robot.home) if robot.home else None
        return Servo(gate, 1.0 / robot.rate - robot.command_latency, SOURCES, home)

    def _offer_services(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import JointState
        from std_srvs.srv import Trigger

        node, self._beats = self.node, 0
        self._status = node.create_publisher(DiagnosticStatus, "arm_status", 1)
        self._diagnostics = node.create_publisher(DiagnosticArray, "diagnostics", 10)
        self._setpoint = node.create_publisher(PoseStamped, "setpoint", 10)
        self._setpoint_gripper = node.create_publisher(JointState, "setpoint_gripper", 10)
        for source in SOURCES:
            for topic, kind, take in (
                ("target_pose", PoseStamped, self._take),
                ("target_gripper", JointState, self._take_gripper),
            ):
                name = f"{source}/{topic}"
                listen(node, kind, name, partial(take, source), 1, needed=False)
            node.create_service(Trigger, f"{source}/arm", partial(self._arm, source))
            let_go = partial(self._hold, f"'{source}' let go of it", source)
            node.create_service(Trigger, f"{source}/release", let_go)
        node.create_service(Trigger, f"{HOMING}/arm", partial(self._arm, HOMING))
        node.create_service(Trigger, "stop", partial(self._hold, "somebody called stop", ""))


def publisher_names(node: Node, topic: str) -> list[str]:
    """The nodes that publish on `topic`, a name for each publisher."""
    return sorted(f"{i.node_namespace.rstrip('/')}/{i.node_name}" for i in node.get_publishers_info_by_topic(topic))


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is asked to end; then the arm comes to rest first."""
    own, ros = split_ros_arguments(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", type=Path, required=True, help="the robot's YAML file")
    try:
        robot = robot_file.load(parser.parse_args(own).robot)
        asked = start_ros(ros)
        import rclpy

        node = rclpy.create_node("arm_node")
        arm = ArmNode(node, robot)
    except RobotRLError as error:
        print(f"arm_node: {error}", file=sys.stderr)
        return 2

    def rests() -> bool:
        arm.servo.stop("the node is shut down")
        return arm.servo.gate.rests

    spin(node, asked, rests, LAST_TICKS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
