"""Rotations of other projects' recordings in the 6-D form of ours: one rule for all formats.

A quaternion and its negative are the same rotation, and recorders change from one to the other; axis times angle jumps
where the angle passes pi. Neither may be a jump in what a policy sees. Which numbers are a rotation is told by their
names, as in "robot0_eef_quat_site_0", "ee.qw", "eef_rot_axis_angle_2"; numbers without such names stay as they are,
and so does what has more numbers than one rotation (`tell_unclear`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from robot_rl.formats.account import Account
from robot_rl.geometry import matrix_from_quat, rot6d_from_matrix
from robot_rl.types import RobotRLError

UNIT = 0.05  # by how much the length of a quaternion may differ from 1
QUATERNION = re.compile(r"(?<![a-z])(quat|quaternion|orientation)(?![a-z])(_?[xyzw]{4})?", re.IGNORECASE)
AXIS_ANGLE = re.compile(r"(?<![a-z])(rot_axis_?angle|axis_?angle|rot_?vec|ori)(?![a-z])", re.IGNORECASE)
COMPONENT = re.compile(r"(.+)[._/]([xyzw0-3])|((?:.*[._/])?q)([xyzw])", re.IGNORECASE)  # "eef_quat_0", "ee.qw"


def continuous(
    names: Sequence[str], values: np.ndarray, where: str, scalar_first: bool = False
) -> tuple[list[str], np.ndarray]:
    """Names and values (N, D) of a state with every rotation in it as six numbers.

    `scalar_first`: quaternions whose components bear numbers are wxyz; those with letters tell their order themselves.
    """
    told: list[str] = []
    columns: list[np.ndarray] = []
    at = 0
    while at < len(names):
        if (order := _quaternion(names[at : at + 4], scalar_first)) is not None and not _goes_on(names, at, 4):
            quat = values[:, at : at + 4][:, order]
            stem, matrix, size = _stem(names[at]), matrix_from_quat(_unit(quat, names[at], where)), 4
        elif _is_axis_angle(names[at : at + 3]) and not _goes_on(names, at, 3):
            stem, matrix, size = _stem(names[at]), _matrix_from_vectors(values[:, at : at + 3]), 3
        else:
            told.append(names[at])
            columns.append(values[:, at : at + 1])
            at += 1
            continue
        told += [f"{_named_6d(stem)}_{i}" for i in range(6)]
        columns.append(rot6d_from_matrix(matrix))
        at += size
    return told, np.concatenate(columns, 1) if columns else np.empty((len(values), 0))


def tell_unclear(names: Sequence[str], account: Account) -> None:
    """Say what `continuous` left as it was though it is called a rotation: it has more numbers than one."""
    for at, name in enumerate(names):
        size = 4 if _quaternion(names[at : at + 4], False) else 3 if _is_axis_angle(names[at : at + 3]) else 0
        if size and _goes_on(names, at, size):
            account.note(
                f"{_stem(name)} is called a rotation and has more than {size} numbers: they are kept as they are. If "
                "they are two rotations, or an axis and its angle, split or convert them first"
            )


def _goes_on(names: Sequence[str], at: int, size: int) -> bool:
    """Whether behind the `size` components from `at` on there is another of the same."""
    return len(names) > at + size and names[at + size] in (names[at][:-1] + str(size), names[at][:-1] + "w")


def _is_axis_angle(names: Sequence[str]) -> bool:
    return len(names) == 3 and _rotation(names, ("012", "xyz"), AXIS_ANGLE) is not None


def _rotation(names: Sequence[str], components: tuple[str, ...], kind: re.Pattern[str]) -> str | None:
    """Which components of what `names` are, if they are those of one rotation of this `kind`: "wxyz"."""
    found = [COMPONENT.fullmatch(name) for name in names]
    if any(f is None for f in found):
        return None
    keys = {f[1] or f[3] for f in found if f is not None}
    told = "".join(f[2] or f[4] for f in found if f is not None).lower()
    named = kind.search(key := keys.pop()) or (kind is QUATERNION and key[-1] in "qQ" and "0" not in told)
    return told if not keys and named and told in components else None


def _quaternion(names: Sequence[str], scalar_first: bool) -> list[int] | None:
    """Where x, y, z and w are, if these four names are a quaternion's."""
    told = _rotation(names, ("0123", "xyzw", "wxyz"), QUATERNION) if len(names) == 4 else None
    if told is None:
        return None
    first = "wxyz" in (told, _stem(names[0]).lower()[-4:]) or (told == "0123" and scalar_first)
    return [1, 2, 3, 0] if first else [0, 1, 2, 3]


def _stem(name: str) -> str:
    """The name of a rotation without that of its component."""
    found = COMPONENT.fullmatch(name)
    assert found is not None
    return found[1] or found[3]


def _named_6d(stem: str) -> str:
    for kind in (QUATERNION, AXIS_ANGLE):
        if kind.search(stem):
            return kind.sub("rot6d", stem, count=1)
    return f"{stem[:-1]}rot6d"  # "ee.q"


def _unit(quat: np.ndarray, name: str, where: str) -> np.ndarray:
    length = np.linalg.norm(quat, axis=1, keepdims=True)
    if (bad := np.abs(length[:, 0] - 1.0) > UNIT).any():
        row = int(np.argmax(bad))
        raise RobotRLError(
            f"{where}: '{_stem(name)}' is called a quaternion, and its length is {length[row, 0]:.4g} in row {row}, "
            "not 1; rename it, or remove the recording"
        )
    return quat / length


def _matrix_from_vectors(vectors: np.ndarray) -> np.ndarray:
    """Axis times angle (N, 3) [rad] to matrices (N, 3, 3)."""
    angle = np.linalg.norm(vectors, axis=1, keepdims=True)
    half = np.sinc(angle / (2 * np.pi)) / 2  # sin(angle / 2) / angle
    return matrix_from_quat(np.concatenate([vectors * half, np.cos(angle / 2)], 1))
