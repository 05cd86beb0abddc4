"""Is a robot ready? What was heard on its topics, judged before anything moves, and how to mend what is wrong.

`check_listener.py` listens; here nothing needs ROS. A problem is an ERROR, a remark a WARN.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from drivers.gate import Gate
from drivers.graph import Endpoint as Endpoint
from drivers.graph import Endpoints, absent, listeners
from drivers.health import Level, StreamHealth
from drivers.robot_file import REACH, RobotFile
from drivers.sound import SENTENCE, excerpt
from drivers.stamps import StampMonitor
from robot_rl.types import ArmState, RobotRLError

if TYPE_CHECKING:
    from drivers.kinematics import MujocoKinematics

FAR, TURNED = 0.01, 0.05  # measured pose and forward kinematics may differ so much [m], [rad]
HELD = 0.02  # share of the time that the arm may be held by a stream: what this process misses looks like that too
BEYOND = 0.5  # joints that are farther outside their limits are in another unit [rad]
KINDS = {
    "cartesian_impedance": "geometry_msgs/msg/PoseStamped",
    "joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
    "forward_command": "std_msgs/msg/Float64MultiArray",
    "servo_twist": "geometry_msgs/msg/TwistStamped",
}
Finding = tuple[Level, str]


@dataclass
class Heard:
    """One stream of the robot's file, called by its key there, as far as it was heard."""

    name: str
    topic: str
    """with its namespace"""
    kind: str
    health: StreamHealth
    ages: list[float] = field(default_factory=list)
    """of each reading when it came [s]"""
    numbers: dict[str, float] = field(default_factory=dict)
    """of the last message that names its numbers"""
    wrong: str = ""
    """why its messages cannot be read"""
    part: frozenset[str] = frozenset()
    """the names that come together in its messages, where they have names"""
    shared: bool = False
    """others bring other names on this topic"""
    oldest: float = math.inf
    """so old may its readings be when they are acted on [s]; see `observer.oldest`"""
    patience: float = math.inf
    """so long may it be silent before the arm brakes [s]"""
    often: float = math.inf
    """... where it usually comes within so long; else it may be `oldest` [s]"""

    def __post_init__(self) -> None:
        self._moment = _Moment()
        self._monitor = StampMonitor(self._moment, self.health.limits.ahead)
        self._kept: list[tuple[float, float]] = []  # of those that `Stream` would keep: age, arrival [s]

    def add(self, stamp: float, now: float, steady: float, number: int | None, image: np.ndarray | None = None) -> None:
        """A reading of the moment `stamp` came at `now`, by the steady clock at `steady` [s]; see `StreamHealth`."""
        self.ages.append(now - stamp)
        self.health.add(stamp, steady, number=number, image=image)
        self._moment.time, self._moment.moment = now, steady
        if self._monitor.admit(stamp) != "refused":
            self._kept.append((now - stamp, steady))

    @property
    def called(self) -> str:
        """Its name; with the names that only it brings, where others are on its topic."""
        return f"{self.name} ({excerpt(', '.join(sorted(self.part)[:2]))})" if self.shared else self.name

    def held(self) -> str:
        """By the rule of `deploy` and the arm's node: how much of the time it would hold the arm, in words."""
        ages, arrivals = np.array([a for a, _ in self._kept]), np.array([t for _, t in self._kept])
        gaps = np.diff(arrivals)
        if not len(gaps) or not gaps.sum() > 0:
            return ""
        old = np.clip(ages[:-1] + gaps - self.oldest, 0.0, gaps)
        patience = self.patience if np.median(gaps) < self.often else math.inf
        quiet = np.clip(gaps - patience, 0.0, gaps)
        share = float(np.maximum(old, quiet).sum() / gaps.sum())
        if share <= HELD:
            return ""
        rates = f"{self.health.rate:.1f} Hz, and {self.health.limits.rate:g} Hz were asked for"
        what = f"its readings become {float((ages[:-1] + gaps).max()):.2f} s old"
        limit = min(self.oldest, patience)
        return f"{rates}: {what}, and above {limit:.2f} s the arm is held: {100 * share:.0f} % of the time"

    def seldom(self) -> str:
        """Where it comes too seldom to be missed before it is too old, in words."""
        gaps = np.diff([t for _, t in self._kept])
        if not len(gaps) or not (gap := float(np.median(gaps))) > self.often:
            return ""
        needed = f"{1.0 / self.often:.1f} Hz or more are needed"
        return f"it comes at {1.0 / gap:.1f} Hz, and {needed} for its silence to be missed at once"

    def odd(self) -> str:
        """Stamps that `Stream` leaves out, in words; "": there are none."""
        counts, most = self._monitor.counts, -min(self.ages, default=0.0)
        ahead = f"{counts['future']} of {len(self.ages)} stamps are up to {most:.2f} s in the future"
        order = f"{counts['order'] + counts['number']} of {len(self.ages)} stamps are not newer than the one before"
        return "; ".join([*([ahead] if counts["future"] else []), *([order] if counts["order"] else [])])

    @property
    def age(self) -> float:
        """The median [s]; nan where nothing came."""
        return float(np.median(self.ages)) if self.ages else np.nan

    def verdict(self, steady: float) -> Finding:
        """Of `StreamHealth`, as if the last reading had come as late as they usually do."""
        if self.wrong:
            return Level.ERROR, self.wrong
        level, text = self.health.verdict(self.age - self.health.age(0.0) if self.ages else 0.0, steady)
        if level < Level.ERROR and (held := self.held()):
            return Level.ERROR, held
        return (Level.WARN, odd) if level == Level.OK and (odd := self.odd() or self.seldom()) else (level, text)


class _Moment:
    """Implements `Clocks` by what is told."""

    time = moment = 0.0

    def now(self) -> float:
        return self.time

    def steady(self) -> float:
        return self.moment


@dataclass
class Measured:
    """The last that came of the arm; None: nothing did."""

    joints: dict[str, float] = field(default_factory=dict)
    frame: str = ""
    position: np.ndarray | None = None  # (3,) [m]
    turn: np.ndarray | None = None  # (4,) xyzw
    wrench: np.ndarray | None = None  # (6,) [N], [Nm]
    arm_node: str | None = None  # what it says, "": all is well


def table(streams: Iterable[Heard], steady: float) -> str:
    """A line a stream."""
    rows = [("stream", "topic", "rate [Hz]", "age [ms]", "jitter [ms]", "drops", "frozen", "verdict")]
    for heard in streams:
        health, (level, text) = heard.health, heard.verdict(steady)
        numbers = [f"{health.rate:.1f}", f"{1000 * heard.age:.0f}", f"{1000 * health.jitter:.1f}", f"{health.drops}"]
        still = "-" if not heard.kind.endswith("Image") else "YES" if "frozen" in text else "no"
        shown = numbers if heard.ages else ["-"] * 4
        verdict = "ok" if level == Level.OK else f"{level.name}: {text}"
        rows.append((heard.called, heard.topic, shown[0], shown[1], shown[2], shown[3], still, verdict))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def in_words(findings: list[Finding]) -> str:
    """All remarks, all problems, and the verdict."""
    problems = [text for level, text in findings if level > Level.WARN]
    remarks = [text for level, text in findings if level == Level.WARN]
    lines = [*(f"remark: {text}" for text in remarks), *(f"PROBLEM: {text}" for text in problems)]
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return "\n".join([*lines, f"not ready: {count}" if problems else "ready"])


def streams_wrong(streams: list[Heard], published: Endpoints, steady: float) -> Iterator[Finding]:
    """What is missing, late, slow, frozen, or published twice."""
    yield from _clocks_wrong([heard for heard in streams if heard.ages])
    for heard in streams:
        names = [e.node for e in published.get(heard.topic, [])]
        parts = [other.part for other in streams if other.topic == heard.topic and other.part]
        apart = len(parts) >= len(names) and sum(map(len, parts)) == len(frozenset().union(*parts))
        if not heard.ages and not heard.wrong:
            remedy = f"or let `{heard.name}` of the robot's file say what it is called"
            yield Level.ERROR, f"{heard.name}: {absent(heard.topic, heard.kind, published, 'publishes', remedy)}"
        elif names[1:] and not apart and not (heard.shared and heard.part != parts[0]):
            yield Level.ERROR, f"{len(names)} publish on {heard.topic}: {', '.join(names)}; one of them has to go"
        elif not _is_off(heard):
            level, text = heard.verdict(steady)
            if level != Level.OK:
                yield level, f"{heard.called}: {text} ({heard.topic})"


def arm_wrong(robot: RobotFile, measured: Measured, kinematics: MujocoKinematics | None) -> Iterator[Finding]:
    """What forbids moving from where the arm was measured: frame, names, units, limits, and its kinematics."""
    units = [*_joints_wrong(robot, measured), *_pose_wrong(robot, measured)]
    yield from units
    if not (measured.joints and measured.position is not None and measured.turn is not None):
        return
    if any(level == Level.ERROR for level, _ in units):
        return  # what follows would be wrong for the same reason
    state = _state(robot, measured)
    try:
        Gate(robot.limits, robot.arm_limits, 1.0 / robot.servo_rate).arm(state, "check", time.monotonic())
    except RobotRLError as error:
        yield Level.ERROR, str(error)
    if kinematics is None:
        yield Level.WARN, "the robot's file has no `kinematics`: whether its pose and its joints agree is not checked"
    elif abs(np.linalg.norm(state.turn) - 1) < 1e-3 and (wrong := kinematics.disagreement(state, FAR, TURNED)):
        yield Level.ERROR, wrong  # a quaternion of another length has no pose, and the gate has just said so


def names_wrong(robot: RobotFile, streams: list[Heard]) -> Iterator[Finding]:
    """Numbers of the policies' state that no message brings."""
    for group in robot.state:
        parts = [h for h in streams if h.numbers and h.name.removeprefix("sensors.") == group.source]
        has = [name for heard in parts for name in heard.numbers]
        known = {*has, *robot.joints, robot.gripper.joint}  # of these two arm_wrong tells
        if parts and (missing := [name for name in group.names or group.channels if name not in known]):
            yield (
                Level.ERROR,
                f"{parts[0].topic} lacks {', '.join(missing)}; it has {excerpt(', '.join(has), SENTENCE)}",
            )


def commands_wrong(robot: RobotFile, topics: tuple[str, str], published: Endpoints, heard: Endpoints) -> Iterator[str]:
    """Whether the controller's and the gripper's topic, both with namespace, have a listener and nobody else's word."""
    kinds = KINDS[robot.controller.profile], KINDS["forward_command"]
    by_topic = 2 if robot.gripper.profile == "commands" else 1  # an action is no topic: see check_gripper.py
    for topic, kind in list(zip(topics, kinds, strict=True))[:by_topic]:
        node = robot.controller.node if topic == topics[0] else ""
        found = listeners(heard.get(topic, []), kind, node)
        if found.lookers and (wrong := found.wrong(topic, kind, node)):
            yield wrong
        elif not found.controllers and not found.nameless:
            yield absent(topic, kind, heard, "listens on", "is the controller active (ros2 control list_controllers)?")
        nodes = [e.node for e in published.get(topic, [])]
        if any(not node.endswith("/arm_node") for node in nodes) or nodes[1:]:
            yield f"{', '.join(nodes)} command {topic}: only one arm_node may; what else does has to go"


def _clocks_wrong(streams: list[Heard]) -> Iterator[Finding]:
    """One finding for all streams whose stamps are off."""
    off = [heard for heard in streams if _is_off(heard)]
    if bare := [heard.name for heard in off if heard.age > 1e9]:
        yield Level.ERROR, f"{', '.join(bare)}: no stamps; let the driver fill header.stamp when it acquires them"
    if off := [heard for heard in off if heard.age <= 1e9]:
        names, age = ", ".join(heard.name for heard in off), float(np.median([heard.age for heard in off]))
        when = f"{age:.2f} s old" if age > 0 else f"{-age:.2f} s in the future"
        slow = "; where they agree, what publishes is that slow" if age > 0 else ""
        clocks = f"the clocks differ by about {abs(age):.2f} s: run chrony (ntp) on both computers"
        yield Level.ERROR, f"{names}: stamped {when} when they come: {clocks}, or use_sim_time with a simulator{slow}"


def _is_off(heard: Heard) -> bool:
    return heard.age < -heard.health.limits.ahead or heard.age > heard.health.limits.stop_age


def _joints_wrong(robot: RobotFile, measured: Measured) -> Iterator[Finding]:
    if not measured.joints:
        return
    has, fingers = excerpt(", ".join(measured.joints), SENTENCE), robot.gripper
    if missing := [name for name in (*robot.joints, fingers.joint) if name not in measured.joints]:
        yield Level.ERROR, f"{robot.joint_states} lacks {', '.join(missing)}; it has {has}: mend the robot's file"
        return
    if [name for name in measured.joints if name in robot.joints] != list(robot.joints):
        yield Level.WARN, f"{robot.joint_states} has another order, {has}: they are told apart by their names"
    opening = _opening(robot, measured)
    if not -0.2 < opening < 1.2:
        at = measured.joints[fingers.joint]
        yield Level.ERROR, f"{fingers.joint} is at {at:g}, and closed is {fingers.closed:g}, open {fingers.open:g}"
    yield from _limits_wrong(robot, np.array([measured.joints[name] for name in robot.joints]))


def _limits_wrong(robot: RobotFile, joints: np.ndarray) -> Iterator[Finding]:
    low, high, margin = np.array(robot.arm_limits.low), np.array(robot.arm_limits.high), robot.limits.joint_margin
    beyond = np.maximum(low - joints, joints - high)
    said = {
        name: f"{name} is at {q:.3f}, of {a:.3f} to {b:.3f}"
        for name, q, a, b in zip(robot.joints, joints, low, high, strict=True)
    }
    outside = "; ".join(said[name] for name, far in zip(robot.joints, beyond, strict=True) if not far <= 0)
    close = "; ".join(said[name] for name, far in zip(robot.joints, beyond, strict=True) if -margin < far <= 0)
    would_fit = ((low <= np.radians(joints)) & (np.radians(joints) <= high)).all()
    if beyond.max() > BEYOND and would_fit:
        yield Level.ERROR, f"the joints are in degrees: {outside}; joint states are in radians"
    elif outside:
        yield Level.ERROR, f"outside the limits of {robot.arm} [rad]: {outside}: is it that arm, in that order?"
    if close:
        yield Level.WARN, f"within {margin:g} rad of the end: {close}; move it by hand"


def _pose_wrong(robot: RobotFile, measured: Measured) -> Iterator[Finding]:
    if measured.position is None:
        return
    if measured.frame != robot.base_frame:
        frames = f"in the frame '{measured.frame}', the robot's file says base_frame '{robot.base_frame}'"
        yield Level.ERROR, f"{robot.pose} is {frames}: change that, or what the driver publishes"
    if (far := float(np.abs(measured.position).max())) > REACH:
        yield Level.ERROR, f"{robot.pose} is {far:g} m away: are those millimetres? Poses are in metres"


def _state(robot: RobotFile, measured: Measured) -> ArmState:
    assert measured.position is not None and measured.turn is not None
    joints = np.array([measured.joints[name] for name in robot.joints])
    wrench = np.zeros(6) if measured.wrench is None else measured.wrench
    return ArmState(0.0, measured.position, measured.turn, joints, _opening(robot, measured), wrench)


def _opening(robot: RobotFile, measured: Measured) -> float:
    fingers = robot.gripper
    return (measured.joints[fingers.joint] - fingers.closed) / (fingers.open - fingers.closed)
