"""What the makers say of their arms: how far each joint turns, and how fast."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, pi, radians

import numpy as np

from robot_rl.types import RobotRLError


@dataclass(frozen=True)
class ArmLimits:
    """The joints of one kind of arm, in the maker's order. inf: turns for ever."""

    low: tuple[float, ...]  # [rad]
    high: tuple[float, ...]  # [rad]
    speed: tuple[float, ...]  # [rad/s]
    source: str

    def __post_init__(self) -> None:
        low, high, speed = np.array(self.low), np.array(self.high), np.array(self.speed)
        if not len(low) == len(high) == len(speed) > 0:
            raise RobotRLError(f"an arm needs as many lows as highs and speeds: {self}")
        if not (low < high).all() or not ((speed > 0) & np.isfinite(speed)).all():
            raise RobotRLError(f"every joint needs a low below its high, and a finite speed above 0: {self}")


def _symmetric(*high: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(-h for h in high), high


_UR = _symmetric(2 * pi, 2 * pi, pi, 2 * pi, 2 * pi, 2 * pi)  # the elbow meets the arm beyond pi

ARMS = {
    "FR3": ArmLimits(
        (-2.9007, -1.8361, -2.9007, -3.0770, -2.8763, 0.4398, -3.0508),
        (2.9007, 1.8361, 2.9007, -0.1169, 2.8763, 4.6216, 3.0508),
        (2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26),
        "Franka Robotics, Franka Control Interface, Robot and interface specifications, FR3",
    ),
    "Panda": ArmLimits(
        (-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
        (2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
        (2.1750, 2.1750, 2.1750, 2.1750, 2.6100, 2.6100, 2.6100),
        "Franka Emika, Franka Control Interface, Robot and interface specifications, Panda",
    ),
    "UR5e": ArmLimits(*_UR, (pi,) * 6, "Universal Robots, UR5e user manual 5.8; ur_description, config/ur5e"),
    "UR10e": ArmLimits(
        *_UR,
        (radians(120), radians(120), pi, pi, pi, pi),
        "Universal Robots, UR10e user manual 5.8; ur_description, config/ur10e",
    ),
    "xArm7": ArmLimits(
        (-2 * pi, -2.059, -2 * pi, -0.19198, -2 * pi, -1.69297, -2 * pi),
        (2 * pi, 2.0944, 2 * pi, 3.927, 2 * pi, pi, 2 * pi),
        (3.14,) * 7,
        "UFACTORY, xarm_description, urdf/xarm7",
    ),
    "Gen3": ArmLimits(
        *_symmetric(inf, 2.24, inf, 2.57, inf, 2.09, inf),
        (1.3963, 1.3963, 1.3963, 1.3963, 1.2218, 1.2218, 1.2218),
        "Kinova, kortex_description, gen3/7dof",
    ),
}


def arm_limits(name: str) -> ArmLimits:
    """The limits of the arm called `name`."""
    if name not in ARMS:
        raise RobotRLError(f"no limits are known of an arm '{name}'; known are: {', '.join(ARMS)}")
    return ARMS[name]
