"""What the parts of a robot's file say of one another, and what is said in it without any effect."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_rl.geometry import matrix_from_quat

if TYPE_CHECKING:
    from drivers.robot_file import RobotFile, StateGroup

HOME = 0.005, 0.02  # so far is home inside box [m] and cone [rad]: it is armed from where it is measured there
PATIENCE = 1.4  # periods of the policy; whoever says nothing for so long is not followed until the next word
TOPIC = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*")
OURS = ("setpoint", "setpoint_gripper", "arm_status", "diagnostics", "joy", "stop", "world/success", "recorder/status")
SYSTEM = ("rosout", "parameter_events", "clock", "tf", "tf_static", "robot_description")
SOURCES = re.compile(
    r"(teleop|policy|homing)/(target_pose|target_gripper|target_twist|plan|value|fault|heartbeat|arm|release)"
)


def inconsistent(robot: RobotFile) -> Iterator[str]:
    """What cannot be together."""
    yield from _home(robot)
    yield from _motion(robot)
    yield from _times(robot)
    yield from _fingers(robot)
    yield from _shared(robot)
    for i, group in enumerate(robot.state):
        yield from _state(robot, i, group)


def without_effect(robot: RobotFile, data: dict[str, Any]) -> Iterator[str]:
    """What the file's `data` says to no effect: its author believes in what is not there."""
    limits = data.get("limits", {})
    if not (robot.kinematics and robot.kinematics.gated):
        for name in ("joint_speed", "joint_acceleration", "joint_margin"):
            if name in limits:
                yield f"limits.{name} has no effect without gated `kinematics`: give these, or leave it out"
    else:
        for name in ("jerk", "turn_jerk"):
            if limits.get(name):
                yield f"limits.{name} has no effect with gated `kinematics`, where joints are limited: leave it out"
    if not robot.wrench:
        for name in ("force", "torque"):
            if name in limits:
                yield f"limits.{name} has no effect without `wrench`: name its topic, or leave it out"
    for name, camera in data.get("cameras", {}).items():
        device = robot.cameras[str(name)].device
        if "shadows" in camera and not device.startswith("sim:"):
            yield f"cameras.{name}.shadows has no effect on '{device}', but on a `sim:` device only: leave it out"
    if "base" in data and not {"position", "rot6d"} & {group.source for group in robot.state}:
        yield "base has no effect, as no group of the state is a position or rot6d: leave it out"
    for i, group in enumerate(data.get("state", ())):
        if group["source"] in ("position", "rot6d", "joints") and "names" in group:
            yield f"state.{i}.names has no effect on the source '{group['source']}', which has none: leave it out"


def _home(robot: RobotFile) -> Iterator[str]:
    if not robot.home:
        return
    c, position = robot.limits, np.array(robot.home[:3])
    inside = min((position - c.box_low).min(), (c.box_high - position).min())
    if inside < HOME[0]:
        where = f"its home {position.tolist()} is {'outside' if inside < 0 else 'at the edge of'} the box"
        yield f"{where}, {list(c.box_low)} to {list(c.box_high)}: it has to be {1000 * HOME[0]:g} mm inside"
    axis = matrix_from_quat(np.array(robot.home[3:]))[:, 2]
    tilt = math.acos(min(max(float(axis @ np.array(c.axis)), -1.0), 1.0))
    if tilt > c.tilt - HOME[1]:
        yield f"its home is tilted by {tilt:.2f} rad from limits.axis, and limits.tilt is {c.tilt:g}"


def _motion(robot: RobotFile) -> Iterator[str]:
    c = robot.limits
    for near, lead, unit in (("near", "lead", "m"), ("near_turn", "lead_turn", "rad")):
        if getattr(c, near) > getattr(c, lead):
            a, b = getattr(c, near), getattr(c, lead)
            yield f"limits.{near} {a:g} {unit} is beyond limits.{lead} {b:g}: a first target that far would be rejected"
    side = min(b - a for a, b in zip(c.box_low, c.box_high, strict=True))
    if (way := c.speed**2 / (2 * c.acceleration)) > side:
        yield f"from its full speed the arm stops after {way:.2f} m, and the box is {side:.2f} m wide"
    if (turn := c.turn_speed**2 / (2 * c.turn_acceleration)) > c.tilt:
        yield f"from its full turn_speed the arm stops after {turn:.2f} rad, and limits.tilt is {c.tilt:g}"


def _times(robot: RobotFile) -> Iterator[str]:
    c, period = robot.limits, 1.0 / robot.rate
    if c.age < PATIENCE * period:
        yield f"limits.age {c.age:g} s is below {PATIENCE} periods of the policy, at its rate of {robot.rate:g} Hz"
    if c.ahead >= c.age:
        yield f"limits.ahead {c.ahead:g} s is no shorter than limits.age {c.age:g} s"
    late = {"arm_latency": robot.arm_latency}
    late |= {f"sensors.{name}.latency": sensor.latency for name, sensor in robot.sensors.items()}
    for name, camera in robot.cameras.items():
        late[f"cameras.{name}.latency"] = camera.latency
        if camera.observed and camera.latency + 1.0 / camera.rate >= c.age:
            old = f"{camera.latency + 1.0 / camera.rate:.2f} s old"
            yield f"the pictures of cameras.{name} get {old} at {camera.rate:g} Hz, and limits.age is {c.age:g} s"
    for name, latency in late.items():
        if latency >= c.age:
            yield f"{name} {latency:g} s is no shorter than limits.age {c.age:g} s: all would be too old"


def _fingers(robot: RobotFile) -> Iterator[str]:
    fingers = robot.gripper
    if fingers.joint in robot.joints:
        yield f"its gripper's joint '{fingers.joint}' is one of the arm's"
    by_action = fingers.profile != "commands"
    if by_action and not fingers.effort > 0:
        yield (
            f"gripper.effort is missing, the largest force of the profile {fingers.profile} [N] or [Nm]: without it "
            "the action is sent 0, and franka's fingers then close without any force"
        )
    if not by_action and fingers.effort:
        yield "gripper.effort has no effect with the profile 'commands', which sends positions: leave it out"


def _shared(robot: RobotFile) -> Iterator[str]:
    """Devices and topics that two would have; and topics that are none, or are taken."""
    seen: dict[tuple[str, bool], str] = {}
    for name, camera in robot.cameras.items():
        if not camera.device or camera.device.startswith("sim:"):
            continue
        other = seen.setdefault((_device(camera.device), camera.depth), name)
        if other != name:
            yield f"the cameras '{other}' and '{name}' are one device, {camera.device}: give one of them another"
    topics = {"joint_states": robot.joint_states, "pose": robot.pose, "controller.topic": robot.controller.topic}
    topics |= {"wrench": robot.wrench} if robot.wrench else {}
    topics["gripper.topic"] = robot.gripper.topic
    if own := robot.gripper.joint_states:
        topics["gripper.joint_states"] = own
        if own == robot.joint_states:
            yield f"gripper.joint_states '{own}' is the topic of joint_states too: leave gripper.joint_states out"
    topics |= {f"cameras.{name}.topic": camera.topic for name, camera in robot.cameras.items()}
    topics |= {f"sensors.{name}.topic": sensor.topic for name, sensor in robot.sensors.items()}
    for (one, a), (two, b) in itertools.combinations(topics.items(), 2):
        if a == b:
            yield f"{one} and {two} share the topic '{a}': each needs its own"
    for name, topic in topics.items():
        if not TOPIC.fullmatch(topic) or "__" in topic:
            yield f"{name} '{topic}' is no name for a topic: letters, digits and single _, parts divided by /"
        elif topic in OURS or SOURCES.fullmatch(topic):
            yield f"{name} '{topic}' is a topic or service of the arm's node itself: choose another"
        elif topic in SYSTEM:
            yield f"{name} '{topic}' is a topic of ROS itself, which says something else: choose another"


def _device(device: str) -> str:
    """One name for one device: an index is that of /dev/video."""
    kind, _, where = device.partition(":")
    where = f"/dev/video{int(where)}" if kind == "opencv" and where.isdecimal() else where
    return f"{kind}:{where.lstrip('0') if kind == 'realsense' else where}"


def _state(robot: RobotFile, i: int, group: StateGroup) -> Iterator[str]:
    """Ranges that do not hold what will be there, and units that the source does not have."""
    units = {"position": ("m", "1"), "rot6d": ("1",), "joints": ("rad", "1")}
    if group.unit not in units.get(group.source, (group.unit,)):
        yield f"state.{i} is in {units[group.source][0]}, as all of '{group.source}' is, and not in '{group.unit}'"
    low, high = np.array(group.low), np.array(group.high)
    if not (low.size and high.size):
        return
    if group.source == "position":
        c, turn = robot.limits, matrix_from_quat(np.array(robot.base.turn))
        corners = np.array(list(itertools.product(*zip(c.box_low, c.box_high, strict=True)))) @ turn.T
        seen = corners + robot.base.position
        if (seen.min(0) < low - 1e-9).any() or (seen.max(0) > high + 1e-9).any():
            box = f"{np.round(seen.min(0), 3).tolist()} to {np.round(seen.max(0), 3).tolist()}"
            yield f"state.{i} goes from {group.low} to {group.high}, and the box is, in its frame, {box}"
    if group.source == "rot6d" and (low.max() > -1 or high.min() < 1):
        yield f"state.{i} is a rot6d, whose numbers go from -1 to 1: its low and high are {group.low}, {group.high}"
    if group.source == "joints" and ((low > robot.arm_limits.high) | (high < robot.arm_limits.low)).any():
        yield f"state.{i} goes from {group.low} to {group.high} rad, where no joint of {robot.arm} comes"
    for name, a, b in zip(group.names or group.channels, group.low, group.high, strict=True):
        ends = sorted((robot.gripper.closed, robot.gripper.open))
        if group.source == "joint_states" and name == robot.gripper.joint and (ends[0] < a or ends[1] > b):
            yield f"state.{i} goes from {a:g} to {b:g} for {name}, and the gripper from {ends[0]:g} to {ends[1]:g}"
