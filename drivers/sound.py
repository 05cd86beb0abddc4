"""What is wrong with one reading of an arm or one target, looked at alone; and whether a reading is of now.

And what of a text that came over the network goes into words.
"""

from __future__ import annotations

import math

import numpy as np

from robot_rl.start import plain
from robot_rl.types import ArmState, Target

UNIT = 1e-3  # so far from 1 may the length of a quaternion be
NAME = 100  # characters that are shown of a name
SENTENCE = 1000  # ... of a reason


def excerpt(text: str, most: int = NAME) -> str:
    """What is shown or kept of a `text` from the network: a line of `most` characters, and how many there were.

    Messages may be of any length, and go on at 10 Hz into statuses, logs and terminals. What no terminal
    prints, it would obey: a '?' stands for it, and a space for the end of a line.
    """
    line = plain("".join(" " if c.isspace() else c for c in text[:most]))
    return line if len(text) <= most else f"{line}... ({len(text)} characters)"


def state_wrong(state: ArmState, n: int) -> str:
    """What of a reading is no number, or not of an arm of `n` joints; "": nothing."""
    if not (is_number(state.gripper) and is_number(state.stamp)):
        return f"the arm's measured gripper or stamp is no finite number: {state.gripper}, {state.stamp}"
    numbers = {"position": 3, "turn": 4, "joints": n, "wrench": 6}
    if bad := [name for name, size in numbers.items() if not is_vector(getattr(state, name), size)]:
        return f"the arm's measured {', '.join(bad)}: not finite, or not of an arm of {n} joints"
    if abs(length(state.turn) - 1) > UNIT:
        return f"the arm's measured quaternion has not length 1: {state.turn}"
    return ""


def state_late(state: ArmState, now: float, age: float, ahead: float) -> str:
    """Whether a reading is older than `age` [s] or from farther in the future than `ahead` [s], `now` by its clock."""
    old = now - state.stamp
    return "" if -ahead <= old <= age else f"the arm's state is {old:.3f} s old"


def target_wrong(target: Target) -> str:
    """What of a target is no number or no rotation; "": nothing."""
    for name, size in (("position", 3), ("turn", 4)):
        if not is_vector(getattr(target, name), size):
            return f"its {name} is not {size} finite numbers: {getattr(target, name)}"
    numbers = {"stamp": target.stamp} | ({} if target.gripper is None else {"gripper": target.gripper})
    if bad := [name for name, value in numbers.items() if not is_number(value)]:
        return f"its {bad[0]} is not a finite number: {numbers[bad[0]]}"
    long = length(target.turn)
    return "" if abs(long - 1) <= UNIT else f"its quaternion has length {long:.4g}"


def is_number(value: object) -> bool:
    """Whether it is one, finite, and of a size that can be reckoned with."""
    plain = float(value) if isinstance(value, np.floating) else value
    return isinstance(plain, (int, float)) and -1e300 < plain < 1e300  # an int may be too large for math.isfinite


def is_vector(value: object, size: int) -> bool:
    """Whether it is an array (size,) of finite numbers."""
    return (
        isinstance(value, np.ndarray)
        and value.shape == (size,)
        and value.dtype.kind in "fiu"
        and bool(np.isfinite(value).all())
    )


def length(vector: np.ndarray) -> float:
    """Of a vector (n,), of 1e300 too."""
    return math.hypot(*vector.tolist())
