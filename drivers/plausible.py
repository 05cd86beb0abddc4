"""Which numbers a robot's file can mean: most that are wrong are in another unit, millimetres, degrees or milliseconds.

Every number has a range of what an arm on a table may have. A file that means more says so by the number's name, in
`plausible`: no range is widened as a whole, and an entry that widens nothing is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drivers.robot_file import RobotFile, StateGroup

RAISE = 10.0  # times the range is the most that a file can say


@dataclass(frozen=True)
class Range:
    """What a number may be; or of several, what the largest may be."""

    low: float
    high: float
    unit: str = ""
    or_zero: bool = False


LIMITS = {
    "beyond": Range(1e-3, 0.5, "m"),
    "tilt": Range(0.01, math.pi / 2, "rad"),
    "speed": Range(5e-3, 1.5, "m/s"),
    "turn_speed": Range(0.02, 6.3, "rad/s"),
    "acceleration": Range(0.1, 30.0, "m/s^2"),
    "turn_acceleration": Range(0.3, 120.0, "rad/s^2"),
    "jerk": Range(1.0, 5000.0, "m/s^3", or_zero=True),
    "turn_jerk": Range(3.0, 20_000.0, "rad/s^3", or_zero=True),
    "lead": Range(2e-3, 0.3, "m"),
    "lead_turn": Range(5e-3, 1.2, "rad"),
    "age": Range(0.01, 1.0, "s"),
    "ahead": Range(1e-4, 0.1, "s"),
    "near": Range(5e-4, 0.15, "m"),
    "near_turn": Range(2e-3, 1.0, "rad"),
    "joint_margin": Range(1e-3, 0.8, "rad"),
    "joint_speed": Range(0.01, 1.0),
    "joint_acceleration": Range(0.5, 100.0, "rad/s^2"),
    "toggle": Range(0.01, 5.0, "s"),
    "force": Range(1.0, 500.0, "N"),
    "torque": Range(0.1, 100.0, "Nm"),
}
ANY = Range(0.0, 1e6)  # of a limit that has no range yet
LATENCY = Range(1e-4, 1.0, "s", or_zero=True)
PLACE = Range(5e-3, 3.0, "m", or_zero=True)  # the length of a position
STATES = {
    "m": (Range(0.0, 10.0, "m"), Range(5e-3, 20.0, "m")),  # its ends, and how far they are apart
    "rad": (Range(0.0, 50.0, "rad"), Range(1e-3, 100.0, "rad")),
    "1": (Range(0.0, 100.0), Range(0.01, 200.0)),
    "N": (Range(0.0, 2000.0, "N"), Range(0.1, 4000.0, "N")),
    "Nm": (Range(0.0, 500.0, "Nm"), Range(0.01, 1000.0, "Nm")),
}
STATE = Range(0.0, 1e6), Range(0.0, 2e6)  # in another unit


def implausible(robot: RobotFile) -> Iterator[str]:
    """What no number of `robot` can mean, and what its `plausible` says in vain."""
    numbers = dict(_numbers(robot))
    for name, (values, range_) in numbers.items():
        raised = robot.plausible.get(name)
        if raised is not None and (wrong := _vain(name, values, range_, raised)):
            yield wrong
        elif (value := _beyond(values, _widened(range_, raised))) is not None:
            yield _in_words(name, value, range_)
    for name in robot.plausible:
        if name not in numbers:
            close = get_close_matches(name, numbers, 1, 0.5)
            yield f"`plausible` names '{name}', which is no number of this robot" + (
                f"; did you mean '{close[0]}'?" if close else ""
            )


def _numbers(robot: RobotFile) -> Iterator[tuple[str, tuple[list[float], Range]]]:
    """All numbers of the file by the keys that lead to them; a place's is its length."""
    yield "rate", ([robot.rate], Range(0.5, 250.0, "Hz"))
    yield "servo_rate", ([robot.servo_rate], Range(5.0, 2000.0, "Hz"))
    yield "max_steps", ([robot.max_steps], Range(1, 40_000))
    yield "move", ([robot.move], Range(5e-4, 0.2, "m"))
    yield "turn", ([robot.turn], Range(1e-3, 1.0, "rad", or_zero=True))
    yield "arm_latency", ([robot.arm_latency], LATENCY)
    yield "command_latency", ([robot.command_latency], LATENCY)
    yield "base.position", ([math.hypot(*robot.base.position)], PLACE)
    if robot.home:
        yield "home", ([math.hypot(*robot.home[:3])], PLACE)
    if robot.kinematics:
        yield "kinematics.offset", ([math.hypot(*robot.kinematics.offset)], Range(1e-3, 1.0, "m", or_zero=True))
    for name, sensor in robot.sensors.items():
        yield f"sensors.{name}.latency", ([sensor.latency], LATENCY)
    yield from _limits(robot)
    yield from _fingers(robot)
    yield from _cameras(robot)
    for i, group in enumerate(robot.state):
        yield from _states(f"state.{i}", group)


def _limits(robot: RobotFile) -> Iterator[tuple[str, tuple[list[float], Range]]]:
    c = robot.limits
    for name, value in vars(c).items():
        if name in ("box_low", "box_high"):
            yield f"limits.{name}", ([math.hypot(*value)], PLACE)
        elif name != "axis" and value is not None:  # an axis has length 1
            yield f"limits.{name}", ([value], LIMITS.get(name, ANY))
    sides = [b - a for a, b in zip(c.box_low, c.box_high, strict=True)]
    yield "limits.box", (sides, Range(0.01, 6.0, "m"))


def _fingers(robot: RobotFile) -> Iterator[tuple[str, tuple[list[float], Range]]]:
    fingers = robot.gripper
    for name in ("closed", "open"):
        yield f"gripper.{name}", ([getattr(fingers, name)], Range(0.0, 3.2, "m or rad"))
    yield "gripper", ([abs(fingers.open - fingers.closed)], Range(1e-3, 3.2, "m or rad"))
    yield "gripper.effort", ([fingers.effort], Range(0.1, 300.0, "N", or_zero=True))


def _cameras(robot: RobotFile) -> Iterator[tuple[str, tuple[list[float], Range]]]:
    for name, camera in robot.cameras.items():
        yield f"cameras.{name}.height", ([camera.height], Range(2, 8192))
        yield f"cameras.{name}.width", ([camera.width], Range(2, 8192))
        yield f"cameras.{name}.rate", ([camera.rate], Range(0.5, 500.0, "Hz"))
        yield f"cameras.{name}.latency", ([camera.latency], LATENCY)


def _states(name: str, group: StateGroup) -> Iterator[tuple[str, tuple[list[float], Range]]]:
    ends, apart = STATES.get("rad" if group.source == "joints" else group.unit, STATE)
    for end in ("low", "high"):
        if values := getattr(group, end):
            yield f"{name}.{end}", (list(values), ends)
    if group.low and group.high:
        yield name, ([b - a for a, b in zip(group.low, group.high, strict=True)], apart)


def _beyond(values: Sequence[float], range_: Range) -> float | None:
    """The first that is outside; None: none is."""
    wrong = [v for v in values if not range_.low <= abs(v) <= range_.high and not (range_.or_zero and v == 0)]
    return wrong[0] if wrong else None


def _widened(range_: Range, raised: float | None) -> Range:
    if raised is None:
        return range_
    return Range(min(range_.low, raised), max(range_.high, raised), range_.unit, range_.or_zero)


def _vain(name: str, values: Sequence[float], range_: Range, raised: float) -> str:
    """Why that entry of `plausible` cannot be; "": it can."""
    if not range_.low / RAISE <= raised <= range_.high * RAISE:
        return f"`plausible` takes {name} to {raised:g} {range_.unit}: no arm has that"
    if _beyond(values, range_) is None or _beyond([raised], range_) is None:
        return f"`plausible` raises nothing by {name}: {_range(range_)} may be had without it; leave it out"
    return ""


def _range(range_: Range) -> str:
    return f"{range_.low:g} to {range_.high:g} {range_.unit}".strip()


def _in_words(name: str, value: float, range_: Range) -> str:
    meant = f"; is that {unit}?" if (unit := _other_unit(abs(value), range_)) else ""
    said = f"{name} is {value:g} {range_.unit}".strip()
    remedy = f"who means it names it: `plausible: {{{name}: ...}}`, see docs/robot.md"
    return f"{said}: a plausible value is {_range(range_)}{meant}; {remedy}"


def _other_unit(value: float, range_: Range) -> str:
    """The unit in which it would be plausible."""
    unit = range_.unit
    if unit.startswith("rad") and range_.low <= math.radians(value) <= range_.high:
        return unit.replace("rad", "degrees", 1)
    if unit.startswith(("m", "s", "N")) and range_.low <= value / 1000 <= range_.high:
        return "mm or degrees" if unit == "m or rad" else f"m{unit}"
    if unit.startswith("m") and range_.low <= value / 100 <= range_.high:
        return f"c{unit}"
    return ""
