"""What an action asks of an arm: a target counted from where the arm is measured. The one place, and both ways.

An action has the channels of `RobotFile.spec`: three of moving, three of turning where the robot's actions turn it, and
the gripper, +1 closed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robot_rl import control
from robot_rl.geometry import quat_from_vector, quat_inverse, quat_product, unit_quat, vector_from_quat
from robot_rl.types import ArmState, Channel, Target

WITHOUT_TURNS = 4  # channels


def target_of(action: np.ndarray, here: ArmState, channels: Sequence[Channel], stamp: float, source: str) -> Target:
    """The target of `action` (A,) in [-1, 1] for an arm that is `here`; it came from an observation of `stamp` [s]."""
    delta = control.to_physical(action, channels)
    turn = unit_quat(here.turn)
    if len(channels) > WITHOUT_TURNS:
        turn = unit_quat(quat_product(quat_from_vector(delta[3:6]), turn))
    return Target(stamp, here.position + delta[:3], turn, 0.5 * (1.0 - float(delta[-1])), source)


def action_of(target: Target, here: ArmState, channels: Sequence[Channel]) -> np.ndarray:
    """The inverse of `target_of`: the action (A,) float32 that asks for `target`; beyond [-1, 1] it is cut.

    Where the target asks nothing of the fingers, it asks for what they are measured at.
    """
    opening = here.gripper if target.gripper is None else target.gripper
    turned = vector_from_quat(quat_product(target.turn, quat_inverse(unit_quat(here.turn))))
    turns = turned if len(channels) > WITHOUT_TURNS else np.zeros(0)
    delta = np.concatenate([target.position - here.position, turns, [1.0 - 2.0 * opening]])
    return np.clip(control.to_unit(delta, channels), -1.0, 1.0).astype(np.float32)
