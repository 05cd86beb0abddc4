"""One YAML file says what a robot is: its arm, topics, frames, limits, cameras, and what its policies see and command.

The same file serves recording, training and deployment: `RobotFile.spec` is what stores and checkpoints carry, so one
that was made with another robot is refused when it is loaded. Unknown keys are refused too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import dacite

from drivers.consistent import inconsistent, without_effect
from drivers.gate import GateLimits
from drivers.plausible import implausible
from robot_rl import bounded_yaml
from robot_rl.robots import ArmLimits, arm_limits
from robot_rl.types import CameraSpec, Channel, RobotRLError, Spec

Profile = Literal["cartesian_impedance", "joint_trajectory", "forward_command", "servo_twist"]
DEVICES = ("realsense:", "opencv:", "sim:")
STATE_SOURCES = ("position", "rot6d", "joints", "joint_states")
REACH = 3.0  # no arm's box is farther from its base [m]: it is in millimetres then


@dataclass(frozen=True)
class StateGroup:
    """Some channels of the state, and where they come from.

    `source` is `position` or `rot6d` (of the tool), `joints` (of the arm), or the name of a sensor.
    """

    source: str
    channels: tuple[str, ...]
    unit: str = "1"
    low: tuple[float, ...] = ()
    """of each channel; joints have the arm's where it is not given"""
    high: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    """what the sensor calls them; as the channels where not given"""


@dataclass(frozen=True)
class SensorFile:
    """Named numbers on a topic of sensor_msgs/JointState: of an object tracker, say."""

    topic: str
    latency: float = 0.0
    """what its stamps come too late by [s]"""


@dataclass(frozen=True)
class CameraFile:
    """One camera."""

    topic: str
    height: int
    width: int
    device: str = ""
    """realsense:SERIAL, opencv:INDEX_OR_PATH or sim:NAME; "": a node that is not ours publishes the topic"""
    rate: float = 30.0
    latency: float = 0.0
    shadows: bool = True
    """of a simulated one"""
    depth: bool = False
    """its pictures are distances, 16UC1 [mm] or 32FC1 [m] on the topic; those of a device are not aligned to its
    colours"""
    observed: bool = True
    """policies see it; else it is only recorded"""


@dataclass(frozen=True)
class GripperFile:
    """Fingers, by the position of one joint."""

    joint: str
    closed: float
    """its position [m] or [rad]"""
    open: float
    topic: str = "gripper_position_controller/commands"
    """takes that position; or the name of the action"""
    profile: Literal["commands", "gripper_command", "parallel_gripper_command"] = "commands"
    """std_msgs/Float64MultiArray on the topic; or one of control_msgs' actions, GripperCommand (franka_gripper, and
    ros2_control up to Jazzy) or ParallelGripperCommand (newer)"""
    joint_states: str = ""
    """topic of its joint's state, sensor_msgs/JointState, where that does not come on the arm's; "": it does"""
    effort: float = 0.0
    """that an action may use [N] or [Nm]; an action needs it, as 0 means no force at all to some servers"""
    start: Literal["", "open", "closed"] = ""
    """how an episode begins: whoever plays or demonstrates asks for that once the arm is home; "": as they are"""


@dataclass(frozen=True)
class ControllerFile:
    """Which controller moves the arm, and how it is told."""

    profile: Profile
    topic: str
    node: str = ""
    """the controller's node, with its namespace or without: no other that listens counts then; "": any but recorders,
    viewers and the like"""


@dataclass(frozen=True)
class KinematicsFile:
    """A MuJoCo model of the arm, for inverse kinematics; `robosuite:panda` is one that robosuite brings."""

    model: str
    joints: tuple[str, ...]
    tool: str
    """body"""
    base: str
    """body"""
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """of the tool's point in that body [m]"""
    gated: bool = True
    """the gate holds the setpoints to the maker's joint ranges and speeds; else joints and pose are only compared"""


@dataclass(frozen=True)
class BasePlace:
    """Where the arm's base stands in the frame that the state's positions are in."""

    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class RobotFile:
    """A robot, whole. Topics are relative names."""

    world: str
    """what the task is called"""
    arm: str
    """whose limits hold: see robot_rl/robots.py"""
    joints: tuple[str, ...]
    """of the arm, from base to hand, as joint_states calls them"""
    base_frame: str
    gripper: GripperFile
    controller: ControllerFile
    limits: GateLimits
    state: tuple[StateGroup, ...]
    rate: float = 20.0
    """of the policy [Hz]"""
    servo_rate: float = 100.0
    """of the setpoints to the controller [Hz]"""
    max_steps: int = 400
    """time limit of an episode [policy steps]"""
    move: float = 0.05
    """an action of 1 moves the tool so far from where it is, per axis [m]"""
    turn: float = 0.5
    """and turns it so far, per axis [rad]; 0: actions do not turn it"""
    home: tuple[float, ...] = ()
    """position and quaternion xyzw where an episode begins; where not given, the arm stays where it is"""
    joint_states: str = "joint_states"
    pose: str = "current_pose"
    """geometry_msgs/PoseStamped of the tool"""
    wrench: str = ""
    """geometry_msgs/WrenchStamped on the tool; "": there is none, and no force stops the arm"""
    arm_latency: float = 0.0
    """what the arm's stamps come too late by [s]"""
    command_latency: float = 0.0
    """from a setpoint to the arm's motion [s]; setpoints are brought to a target that much before its period is over"""
    base: BasePlace = field(default_factory=BasePlace)
    kinematics: KinematicsFile | None = None
    sensors: dict[str, SensorFile] = field(default_factory=dict)
    cameras: dict[str, CameraFile] = field(default_factory=dict)
    plausible: dict[str, float] = field(default_factory=dict)
    """numbers that are meant though they are implausible, by name: {limits.speed: 3.0}; see plausible.py"""

    def __post_init__(self) -> None:
        for wrong in (*self._wrong_numbers(), *self._wrong_places(), *self._wrong_names(), *self._wrong_cameras()):
            raise RobotRLError(f"this robot cannot be: {wrong}")
        self.spec()

    @property
    def arm_limits(self) -> ArmLimits:
        """What the maker says of the arm."""
        return arm_limits(self.arm)

    def spec(self) -> Spec:
        """What policies for this robot see and command."""
        moves = [Channel(f"eef_delta_{axis}", "m", -self.move, self.move) for axis in "xyz"]
        turns = [Channel(f"eef_delta_r{axis}", "rad", -self.turn, self.turn) for axis in "xyz"] if self.turn else []
        return Spec(
            self.world,
            self.arm,
            tuple(channel for group in self.state for channel in self._channels(group)),
            (*moves, *turns, Channel("gripper", "1", -1.0, 1.0)),
            tuple(
                CameraSpec(name, c.height, c.width, c.shadows, c.depth)
                for name, c in sorted(self.cameras.items())
                if c.observed
            ),
            self.rate,
            self.max_steps,
        )

    def _channels(self, group: StateGroup) -> list[Channel]:
        n = len(group.channels)
        needed = {"position": 3, "rot6d": 6, "joints": len(self.joints)}.get(group.source, n)
        if n != needed or n == 0:
            raise RobotRLError(f"the state of '{group.source}' has {n} channels: it needs {needed or 'some'}")
        unit, low, high = group.unit, group.low, group.high
        if group.source == "rot6d":
            low, high = low or (-1.0,) * 6, high or (1.0,) * 6
        elif group.source == "joints":
            unit, low, high = "rad", low or self.arm_limits.low, high or self.arm_limits.high
        if len(group.names) not in (0, n):
            raise RobotRLError(f"the state's {group.channels[0]} ... needs {n} names, or none: {group.names}")
        if not len(low) == len(high) == n:
            raise RobotRLError(f"the state's {group.channels[0]} ... needs {n} lows and highs: {low}, {high}")
        if wrong := [c for c, a, b in zip(group.channels, low, high, strict=True) if not a < b]:
            raise RobotRLError(f"the state's {wrong[0]} needs a low below its high")
        return [Channel(c, unit, float(a), float(b)) for c, a, b in zip(group.channels, low, high, strict=True)]

    def _wrong_numbers(self) -> list[str]:
        positive = {"rate": self.rate, "servo_rate": self.servo_rate, "max_steps": self.max_steps, "move": self.move}
        latencies = {"arm_latency": self.arm_latency, "command_latency": self.command_latency, "turn": self.turn}
        latencies |= {f"sensors.{name}.latency": sensor.latency for name, sensor in self.sensors.items()}
        for name, c in self.cameras.items():
            positive |= {f"cameras.{name}.{key}": getattr(c, key) for key in ("height", "width", "rate")}
            latencies[f"cameras.{name}.latency"] = c.latency
        wrong = [f"{name} is {value}" for name, value in _numbers(asdict(self)) if not math.isfinite(value)]
        wrong += [f"{name} is {value}" for name, value in positive.items() if value <= 0]
        wrong += [f"{name} is {value}" for name, value in latencies.items() if value < 0]
        if self.rate > 0 and self.command_latency >= 1 / self.rate:
            wrong.append(f"command_latency {self.command_latency} is no shorter than a period of the policy")
        if self.servo_rate < self.rate:
            wrong.append(f"servo_rate {self.servo_rate} is below the policy's rate {self.rate}")
        if self.gripper.closed == self.gripper.open:
            wrong.append(f"its gripper is closed and open at {self.gripper.open}")
        return wrong

    def _wrong_places(self) -> list[str]:
        wrong = []
        places = {
            "box": (*self.limits.box_low, *self.limits.box_high),
            "home": self.home[:3],
            "base": self.base.position,
        }
        for name, place in places.items():
            if (far := max(map(abs, place), default=0.0)) > REACH:
                wrong.append(f"its {name} reaches {far:g} m; are those millimetres?")
        far, turned = math.sqrt(3) * self.move, math.sqrt(3) * self.turn
        if far > self.limits.near or turned > self.limits.near_turn:
            wrong.append(
                f"by its move and turn an action goes up to {far:.3f} m and {turned:.2f} rad: the gate would "
                f"reject a first one, by near {self.limits.near} and near_turn {self.limits.near_turn}"
            )
        if len(self.home) not in (0, 7):
            wrong.append(f"home has {len(self.home)} numbers: it takes x y z and a quaternion x y z w")
        for name, turn in {"base": self.base.turn, "home": self.home[3:]}.items():
            if turn and abs(math.hypot(*turn) - 1) > 1e-3:
                wrong.append(f"the quaternion of its {name} has length {math.hypot(*turn):.4g}")
        return wrong

    def _wrong_names(self) -> list[str]:
        known = {*STATE_SOURCES, *self.sensors}
        wrong = [
            f"the state's source '{g.source}' is none of {sorted(known)}" for g in self.state if g.source not in known
        ]
        wrong += [f"the sensor '{n}' needs another name" for n in self.sensors if n in STATE_SOURCES]
        if not self.state:
            wrong.append("its state has no channels")
        if len(self.joints) != (n := len(self.arm_limits.low)):
            wrong.append(f"it names {len(self.joints)} joints, and {self.arm} has {n}")
        if self.kinematics and len(self.kinematics.joints) != len(self.joints):
            wrong.append(f"its kinematics names {len(self.kinematics.joints)} joints, and it has {len(self.joints)}")
        by_joints = self.controller.profile in ("joint_trajectory", "forward_command")
        if by_joints and (self.kinematics is None or not self.kinematics.gated):
            wrong.append(f"the profile {self.controller.profile} sends joints: it needs gated `kinematics`")
        wrong += [f"it has the joint '{name}' twice" for name in _twice(self.joints)]
        wrong += [f"the state has '{c}' twice" for c in _twice([c for group in self.state for c in group.channels])]
        topics = [self.joint_states, self.pose, self.controller.topic, self.gripper.topic]
        topics += [c.topic for c in self.cameras.values()] + [s.topic for s in self.sensors.values()]
        if not all(topics):
            wrong.append("one of its topics is empty")
        for topic in (*topics, self.wrench, self.gripper.joint_states):
            if topic.startswith("/"):
                wrong.append(f"the topic '{topic}' is absolute; drop the slash, namespaces are for the launch")
        return wrong

    def _wrong_cameras(self) -> list[str]:
        wrong = []
        for topic in _twice([camera.topic for camera in self.cameras.values()]):
            names = [f"cameras.{name}.topic" for name, camera in self.cameras.items() if camera.topic == topic]
            wrong.append(f"{' and '.join(names)} share the topic '{topic}': each needs its own")
        for name, camera in self.cameras.items():
            if not name.isidentifier():
                wrong.append(f"the camera '{name}' needs a name of letters, digits and _")
            if camera.device and not camera.device.startswith(DEVICES):
                wrong.append(f"the camera '{name}' has the device '{camera.device}': none of {', '.join(DEVICES)}")
            if camera.depth and camera.device.startswith("opencv:"):
                wrong.append(f"the camera '{name}' is opened by OpenCV, which gives no depth: leave `depth` out")
        return wrong


def load(path: Path) -> RobotFile:
    """Read a robot's YAML; the error names file and key."""
    data = bounded_yaml.read(path, "the robot's file")
    if not isinstance(data, dict):
        raise RobotRLError(f"the robot's file {path} holds no keys")
    config = dacite.Config(strict=True, type_hooks={float: _number})
    try:
        robot = dacite.from_dict(RobotFile, _tuples(data), config)
        for wrong in (*implausible(robot), *inconsistent(robot), *without_effect(robot, data)):
            raise RobotRLError(f"this robot cannot be: {wrong}")
    except dacite.UnexpectedDataError as error:
        raise RobotRLError(f"{path}: {error}{_guess(error.keys)}") from error
    except (dacite.DaciteError, RobotRLError, ValueError) as error:
        raise RobotRLError(f"{path}: {error}") from error
    return robot


def _tuples(value: Any) -> Any:
    """`value` with tuples for lists; a word is no list of letters, and stays for dacite to refuse."""
    if isinstance(value, dict):
        return {str(key): _tuples(v) for key, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _number(value: Any) -> Any:
    """YAML reads 1 as an int, which is a number here; true is none, and as a word dacite refuses it with its key."""
    if isinstance(value, bool):
        return str(value)
    return float(value) if isinstance(value, int) else value


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number in `value`, with the keys that lead to it."""
    if isinstance(value, float):
        yield name, value
    elif isinstance(value, (dict, tuple)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(inner, f"{name}.{key}" if name else str(key))


def _twice(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _guess(keys: set[str]) -> str:
    parts = (RobotFile, StateGroup, SensorFile, CameraFile, GripperFile, ControllerFile, KinematicsFile, BasePlace)
    known = [f.name for part in (*parts, GateLimits) for f in fields(part)]
    close = [c for key in keys for c in get_close_matches(key, known, 1)]
    return f"; did you mean {close[0]!r}?" if close else ""


def with_limits(robot: RobotFile, **changes: Any) -> RobotFile:
    """The same robot under other limits."""
    return replace(robot, limits=replace(robot.limits, **changes))
