"""The node beside the controller: whoever wants to move the arm goes through its gate, and it holds the arm by itself.

    python -m drivers.arm_node --robot ROBOT.yaml [--ros-args ...]

Of each source (teleop goes before policy) it takes `<source>/target_pose` (geometry_msgs/PoseStamped, whose stamp is
that of the observation it came from) and `<source>/target_gripper` (sensor_msgs/JointState, one position, 0 closed to
1 open), while it is armed: arm_services.py has the services for that. `arm_status` says at 10 Hz who commands, or why
nobody does; see authority.py for who may do what when, servo.py and gate.py for what is obeyed. What is sent to
whatever controller is told on `setpoint` (PoseStamped) and `setpoint_gripper` (JointState) too, stamped with the time
of sending.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from drivers import interrupts, robot_file
from drivers.arm_listener import ArmListener
from drivers.arm_services import ArmServices
from drivers.authority import HOMING, Authority
from drivers.clocks import STEP, StepWatch, read_together
from drivers.consistent import PATIENCE
from drivers.controllers import controller_for
from drivers.gate import Gate, Ruling
from drivers.gripper import gripper_for
from drivers.messages import numbers_msg, pose_msg, pose_of, stamp_of
from drivers.node_process import declare, make_node, place, spin, split_ros_arguments, start_ros
from drivers.pacing import Pacing
from drivers.robot_file import RobotFile
from drivers.servo import Servo
from drivers.sound import SENTENCE, excerpt
from drivers.subscriptions import controllers_of, listen, name_of
from robot_rl.types import ArmState, RobotRLError, Target

if TYPE_CHECKING:
    from rclpy.node import Node

SOURCES = ("teleop", "policy")  # the first goes before
STATUS, CHECKS = 0.1, 0.5  # periods [s]
MISSED_BEAT = 0.11  # likewise of homing's owner, whose heart beats at 10 Hz or faster [s]
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
        # It outlives every servo, and its leases go on rising when this node is started anew.
        self.authority = Authority(SOURCES, robot.limits.age, time.time_ns() // 1_000_000)
        self.first_lease = self.authority.lease
        self.servo = self._new_servo()
        self._openings: dict[str, float] = {}  # that each source wants
        self._last_number = 0, 0  # of a lease, and of the last wish under it by its publisher
        self._logged, self._told, self._fingers_told = "", (0, ""), ""
        self._controllers: tuple[str, ...] = ()  # who listens to the setpoints, as far as was looked
        self._state: ArmState | None = None  # the last reading
        simulated = bool(node.get_parameter("use_sim_time").value)
        self._steps = StepWatch(STEP, simulated)
        self._pacing = Pacing(robot, self.listener, simulated)
        self.authority.explain = self._pacing.why_silent
        self.overruns: deque[float] = deque(maxlen=1000)  # how much later than due each tick came [s]
        self._due, self.ticks = time.monotonic(), 0
        self._declare()
        self._open_topics()
        ArmServices(node, self)
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
        now, steady, doubt = read_together(self.now)
        self.ticks += 1
        self.overruns.append(max(steady - self._due, 0.0))
        self._due = max(self._due + self.period, steady)
        self._look_at_clock(now, steady, doubt)
        if len(self.listener.readings):
            self._state = self.listener.sample()
        if (state := self._state) is None:
            return
        self._watch(steady)
        gate = self.servo.gate
        if gate.stopped and not gate.rests and self._wrong_pose(state):  # no place to go to, and to hold
            state = replace(state, position=np.full(3, np.nan))
        ruling = self.servo.tick(state, now, steady, self._is_quiet(steady))
        if ruling is not None and ruling.sent is not None:
            self.controller.send(ruling.sent, self.servo.gate.joints, state, now)
            if ruling.sent.gripper is not None:  # until somebody asks, they stay as they are
                self.gripper.send(ruling.sent.gripper, steady)  # it repeats by durations
            self._tell(ruling.sent, state, now)
            if self.controller.problem:
                self.servo.stop(self.controller.problem)
        if ruling is not None:
            self._log(ruling)
        else:
            self.controller.rest(now)
        self.tell_changes()

    def cut(self, reason: str) -> None:
        """No tick comes any more: a velocity that was sent last is taken back, as nobody else might."""
        self.controller.cut(reason)
        self.controller.rest(self.now())

    def _look_at_clock(self, now: float, steady: float, doubt: float) -> None:
        """Where the stamps' clock stepped, no reading of before it can be compared with now: stop, and forget them."""
        self._pacing.look(now, steady)
        if step := self._steps.look(now, steady, doubt):
            if self.authority.held:
                self.servo.stop(f"the clock stepped by {step:+.2f} s")
            self.node.get_logger().error(f"the clock stepped by {step:+.2f} s: what was read before is forgotten")
            self.listener.forget(now, step)

    def tell_changes(self) -> None:
        """A status at once where the holder or the reason changed: programs wait for it."""
        if (changed := (self.authority.lease, self.authority.reason)) != self._told:
            self._told = changed
            self.publish_status()

    def _tell(self, sent: Target, state: ArmState, now: float) -> None:
        """The gripper first, so that both are there when the pose is; as measured where nobody asked it anything."""
        opening = min(max(state.gripper, 0.0), 1.0) if sent.gripper is None else sent.gripper
        self._setpoint_gripper.publish(numbers_msg(now, ["gripper"], np.array([opening])))
        self._setpoint.publish(pose_msg(now, self.robot.base_frame, sent.position, sent.turn))

    def _watch(self, steady: float) -> None:
        """What no stamp shows: readings that cannot be used, and silence while the clock of the stamps stands still."""
        gate = self.servo.gate
        if wrong := self._pacing.because(self.listener.problem):  # silence of any part too
            self.controller.cut(wrong)
            if not gate.stopped:
                gate.stop(wrong)

    def _is_quiet(self, steady: float) -> bool:
        """Whether the arm or its holder missed a word, long before either counts as silent."""
        authority, patience = self.authority, PATIENCE / self.robot.rate
        if authority.state == "commanded":
            whose = max(MISSED_BEAT, patience) if authority.holder == HOMING else patience
            if authority.silence(steady) > whose:
                return True
        return steady - self.listener.heard > patience

    def _log(self, ruling: Ruling) -> None:
        """Each decision at debug level; what is new and not plain, for everyone."""
        from rclpy.logging import LoggingSeverity

        log, text = self.node.get_logger(), f"{ruling.verdict}: {ruling.reason}"
        if log.is_enabled_for(LoggingSeverity.DEBUG):  # the text takes longer than all else in a tick
            log.debug(f"{text} raw={ruling.raw} sent={ruling.sent}")
        if ruling.verdict in ("rejected", "stopped") and text != self._logged:
            log.warning(text)
        self._logged = text

    def _take(self, source: str, message: Any, info: dict[str, Any]) -> None:
        if message.header.frame_id != self.robot.base_frame:
            frames = f"'{excerpt(message.header.frame_id)}', not '{self.robot.base_frame}'"
            self.node.get_logger().error(f"{source}/target_pose is in the frame {frames}", throttle_duration_sec=1.0)
            return
        position, turn = pose_of(message)
        target = Target(stamp_of(message.header), position, turn, self._openings.get(source), source)
        if not self._of_another(target, info["publication_sequence_number"]):
            self.servo.offer(target, self.now(), time.monotonic())
            if wrong := self.servo.not_taken:
                words = f"{source}/target_pose does not take the arm from '{self.authority.holder}': {wrong}"
                self.node.get_logger().error(words, throttle_duration_sec=1.0)
        self.tell_changes()

    def _of_another(self, wish: Target, number: int | None) -> bool:
        """Whether a wish is of another publisher than those before it under this lease: then the arm is stopped.

        A publisher numbers its messages. One that hung, and goes on after its successor was armed, is found by that,
        where both nodes have the same name; the graph may still show one that was killed long ago. `number` is None
        where the middleware tells none.
        """
        authority = self.authority
        if number is None or not authority.held or wish.source != authority.holder or not wish.stamp > self.servo.since:
            return False
        lease, last = self._last_number
        if lease == authority.lease and number <= last:
            self.servo.stop(f"two publish on {wish.source}/target_pose at once; one of them has to go")
            return True
        self._last_number = authority.lease, number
        return False

    def _take_gripper(self, source: str, message: Any) -> None:
        if len(message.position) == 1 and source == self.servo.gate.holder:  # others' are stale once they take over
            self._openings[source] = float(message.position[0])

    def arm(self, source: str) -> None:
        """Give `source` a lease; raises where it may not have one."""
        self.authority.watch(steady := time.monotonic())
        if wrong := self.authority.refuses(source):
            raise RobotRLError(wrong)
        if wrong := self.unready():
            self.check_graph()  # what forbids this one may forbid the one that holds it too
            raise RobotRLError(f"the arm cannot be armed: {wrong}")
        self.servo.arm(source, self.listener.newest, self.now(), steady)
        self._openings.clear()
        self.gripper.begin()
        self.node.get_logger().info(f"{' and '.join(self._controllers)} listens to the setpoints")
        if slow := self._pacing.slow():
            self.node.get_logger().warning(slow)
        if self._controllers[1:]:
            name = "; if one of them is not meant to, name the other in `controller.node` of the robot's file"
            self.node.get_logger().warning(f"{len(self._controllers)} nodes listen to the setpoints{name}")

    def unready(self) -> str:
        """Why nobody could command this arm as things are; "": somebody could."""
        if problem := self._pacing.unfit() or self._pacing.because(self.listener.problem):
            return problem
        state, limits = self.listener.newest, self.robot.limits
        if not -limits.ahead <= (age := self.now() - state.stamp) <= limits.age:
            return f"what is known of it is {age:.2f} s old"
        return self._wrong_graph() or self._wrong_pose(state) or self.servo.gate.unfit(state)

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
        wanted = [f"{source}/target_{part}" for source in SOURCES for part in ("pose", "gripper")]
        for topic in (*wanted, self.robot.pose, *filter(None, [self.robot.wrench])):
            name = self.node.resolve_topic_name(topic)
            # One that was killed stays in the graph for a while beside its successor, which has no name at first.
            known = {other for other in publisher_names(self.node, name) if UNKNOWN not in other}
            if (others := sorted(known))[1:]:
                return f"{len(others)} publish on {name}: {', '.join(others)}; one of them has to go"
        return ""

    def _wrong_pose(self, state: ArmState) -> str:
        if self._kinematics is None or not np.isfinite([*state.position, *state.turn, *state.joints]).all():
            return ""  # of what is no number the gate tells
        return self._kinematics.disagreement(state, *APART)

    def publish_status(self) -> None:
        """Who commands the arm, or why nobody does; and why the fingers do not obey."""
        from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

        gate = self.servo.gate
        late = float(np.percentile(self.overruns, 99)) if self.overruns else 0.0
        age = self.now() - self.listener.readings.newest if len(self.listener.readings) else np.inf
        values = {
            "sees the arm": not self.listener.problem, "holder": gate.holder, "lease": self.servo.leases,
            "armed as": self.authority.armed_as, "started": self.first_lease, "needs reset": self.authority.latched,
            "rests": gate.rests, "at home": self._is_home(), "controller": ", ".join(self._controllers),
            "opening": "" if gate.opening is None else gate.opening, "fingers": self._watch_fingers(),
            "slow": self._pacing.slow(),
            "age of the state [s]": f"{age:.3f}", "ticks": self.ticks, "tick p99 late [s]": f"{late:.4f}",
            **{verdict: gate.counts[verdict] for verdict in ("sent", "clipped", "rejected", "stopped")},
        }  # fmt: skip
        level = DiagnosticStatus.WARN if values["fingers"] or values["slow"] else DiagnosticStatus.OK
        level = DiagnosticStatus.ERROR if gate.stopped else level
        status = DiagnosticStatus(
            level=level, name="arm", message=excerpt(gate.stopped, SENTENCE), hardware_id=self.robot.arm
        )
        status.values = [KeyValue(key=key, value=excerpt(str(value), SENTENCE)) for key, value in values.items()]
        self._status.publish(status)
        self._beats += 1
        if self._beats % round(1.0 / STATUS) == 0:
            self._diagnose(status)

    def _watch_fingers(self) -> str:
        """What is wrong with them, told in the log once; "": nothing."""
        self.gripper.watch(time.monotonic())
        problem, log = self.gripper.problem, self.node.get_logger()
        if problem != self._fingers_told and problem:
            log.warning(problem)
        elif problem != self._fingers_told:
            log.info("the fingers obey")
        self._fingers_told = problem
        return problem

    def _is_home(self) -> bool:
        readings = self.listener.readings
        return bool(len(readings)) and self.servo.is_home(readings.last, time.monotonic())

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
        self._limit(declare(self.node, "speed_scale", 1.0, descriptor))
        self.node.add_on_set_parameters_callback(self._set)

    def _set(self, parameters: list[Any]) -> Any:
        from rcl_interfaces.msg import SetParametersResult

        for parameter in parameters:
            if parameter.name == "speed_scale":
                try:
                    self._limit(parameter.value)
                except RobotRLError as error:
                    return SetParametersResult(successful=False, reason=f"speed_scale: {error}")
        return SetParametersResult(successful=True)

    def _limit(self, scale: float) -> None:
        limits = self.robot.limits
        limits = replace(limits, speed=scale * limits.speed, turn_speed=scale * limits.turn_speed)
        self.servo.gate.limit(limits)
        self.controller.limits = limits

    def _new_servo(self) -> Servo:
        robot, self._kinematics = self.robot, None
        if robot.kinematics is not None:
            from drivers.kinematics import from_file

            self._kinematics = from_file(robot.kinematics)
        gated = self._kinematics if robot.kinematics and robot.kinematics.gated else None
        gate = Gate(robot.limits, robot.arm_limits, self.period, gated)
        home = np.array(robot.home) if robot.home else None
        return Servo(gate, 1.0 / robot.rate - robot.command_latency, SOURCES, home, self.authority)

    def _open_topics(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import JointState

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
                listen(node, kind, name, partial(take, source), 1, needed=False, informed=take == self._take)


def publisher_names(node: Node, topic: str) -> list[str]:
    """The nodes that publish on `topic`, a name for each publisher."""
    return sorted(f"{i.node_namespace.rstrip('/')}/{i.node_name}" for i in node.get_publishers_info_by_topic(topic))


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is asked to end; then the arm comes to rest first."""
    interrupts.listen()
    own, ros = split_ros_arguments(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", type=place, required=True, help="the robot's YAML file")
    try:
        robot = robot_file.load(parser.parse_args(own).robot)
        asked = start_ros(ros)
        node = make_node("arm_node")
        arm = ArmNode(node, robot)
    except RobotRLError as error:
        print(f"arm_node: {error}", file=sys.stderr)
        return 2

    def rests() -> bool:
        arm.servo.stop("the node is shut down")
        return arm.servo.gate.rests and arm.controller.resting

    try:
        spin(node, asked, rests, LAST_TICKS)
    except BaseException as error:
        arm.cut(f"the node fails: {error!r}")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
