"""Where the tool is for given joints, and which joints bring it on its way to a pose: a MuJoCo model of the arm."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import mujoco
import numpy as np

from drivers import quats
from drivers.robot_file import KinematicsFile
from robot_rl.geometry import (
    angle_between,
    quat_inverse,
    quat_product,
    unit_quat,
    vector_from_quat,
)
from robot_rl.types import ArmState, RobotRLError

DAMPING = 2e-3  # [m] of tool a [rad] of joints; a way that needs more of the joints than its inverse is not gone
ITERATIONS = 3  # of Gauss and Newton
LARGE = 0.05  # [rad]; of so large a step only the direction counts
NEAR = 1e-10  # [m] and [rad]


def from_file(file: KinematicsFile) -> MujocoKinematics:
    """Of the model that a robot's file names."""
    model = Path(file.model)
    if file.model.startswith("robosuite:"):
        package = importlib.util.find_spec("robosuite")
        if package is None or package.origin is None:
            raise RobotRLError(f"the model {file.model} is robosuite's, which is not installed")
        model = Path(package.origin).parent / "models/assets/robots" / file.model.partition(":")[2] / "robot.xml"
    if not model.is_file():
        raise RobotRLError(f"the robot's kinematics need the MuJoCo model {model}, which is not there")
    return MujocoKinematics(model, file.joints, file.tool, file.base, file.offset)


class MujocoKinematics:
    """Implements `Kinematics` by an arm in a MuJoCo model: poses of a point of a body, in another's frame.

    Not for two threads at once.
    """

    def __init__(
        self, model: Path, joints: Sequence[str], tool: str, base: str, offset: Sequence[float] = (0, 0, 0)
    ) -> None:
        self._model = mujoco.MjModel.from_xml_path(str(model))
        names = {
            "joint": [self._model.joint(i).name for i in range(self._model.njnt)],
            "body": [self._model.body(i).name for i in range(self._model.nbody)],
        }
        for name, kind in [*((joint, "joint") for joint in joints), (tool, "body"), (base, "body")]:
            if name not in names[kind]:
                raise RobotRLError(f"{model} has no {kind} '{name}'; it has: {', '.join(names[kind])}")
        self._data = mujoco.MjData(self._model)
        self._at = np.array([self._model.joint(joint).qposadr[0] for joint in joints])
        self._columns = np.array([self._model.joint(joint).dofadr[0] for joint in joints])
        self._tool, self._base = self._model.body(tool).id, self._model.body(base).id
        self._offset = np.asarray(offset, float)  # of the tool's point in its body
        self._linear, self._angular = np.zeros((3, self._model.nv)), np.zeros((3, self._model.nv))

    def pose(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tool's position (3,) [m] and quaternion (4,) xyzw for joints (n,) [rad]."""
        positions, turns = self.poses(joints[None])
        return positions[0], turns[0]

    def poses(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions (k, 3) [m] and quaternions (k, 4) xyzw of the tool for joints (k, n) [rad]."""
        model, data, tool, base = self._model, self._data, self._tool, self._base
        seen = np.empty((len(joints), 14))
        for row, angles in zip(seen, joints, strict=True):
            data.qpos[self._at] = angles
            mujoco.mj_kinematics(model, data)
            row[:3], row[3:7], row[7:10], row[10:] = (
                data.xpos[tool],
                data.xquat[tool],
                data.xpos[base],
                data.xquat[base],
            )
        faces, back = np.roll(seen[:, 3:7], -1, axis=1), np.roll(seen[:, 10:], -1, axis=1) * quats.BACK
        points = seen[:, :3] + quats.turned(faces, self._offset)
        turns = quats.product(back, faces)
        return quats.turned(back, points - seen[:, 7:10]), turns / np.linalg.norm(turns, axis=1, keepdims=True)

    def jacobian(self, joints: np.ndarray) -> np.ndarray:
        """(6, n): how the tool's point moves [m] and turns [rad] in the base's frame, a [rad] of each joint."""
        model, data = self._model, self._data
        data.qpos[self._at] = joints
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        point = data.xpos[self._tool] + data.xmat[self._tool].reshape(3, 3) @ self._offset
        mujoco.mj_jac(model, data, self._linear, self._angular, point, self._tool)
        back = data.xmat[self._base].reshape(3, 3).T
        return np.vstack([back @ self._linear[:, self._columns], back @ self._angular[:, self._columns]])

    def disagreement(self, state: ArmState, far: float, turned: float) -> str:
        """How the measured pose is more than `far` [m] or `turned` [rad] from that of the measured joints; "": not."""
        position, turn = self.pose(state.joints)
        away = float(np.linalg.norm(position - state.position))
        between = angle_between(turn, unit_quat(state.turn))
        if away <= far and between <= turned:  # nan is not
            return ""
        return (
            f"the measured pose is {away:.3f} m and {between:.2f} rad from that of the measured joints: "
            f"{np.round(state.position, 3)} {np.round(state.turn, 3)}, and by the kinematics "
            f"{np.round(position, 3)} {np.round(turn, 3)}. In the robot's file look at base_frame, and in kinematics "
            "at base (turned or mirrored?), tool and offset (the driver's tool frame), and the joints' order"
        )

    def nearer(
        self, position: np.ndarray, turn: np.ndarray, joints: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> np.ndarray:
        """Joints (n,) [rad] from `low` to `high`, near `joints`, that bring the tool to the pose, or nearer to it.

        By damped least squares (Nakamura and Hanafusa, 1986): a way that would take very large turns of the joints is
        not gone. Joints that come to `low` or `high` stay there, and the others go on.
        """
        found = joints
        for _ in range(ITERATIONS):
            here, faces = self.pose(found)
            error = np.concatenate([position - here, vector_from_quat(quat_product(turn, quat_inverse(faces)))])
            if np.abs(error).max() < NEAR:
                break
            step = self._step(self.jacobian(found), error, low - found, high - found)
            found = found + step
            if np.abs(step).max() > LARGE:
                break
        return found

    @staticmethod
    def _step(jacobian: np.ndarray, error: np.ndarray, least: np.ndarray, most: np.ndarray) -> np.ndarray:
        """Steps (n,) of the joints, each from `least` to `most`, that take off as much of `error` (6,) as they can."""
        free, step = np.ones(len(least), bool), np.zeros(len(least))
        for _ in range(len(least)):
            J = jacobian * free
            rest = error - jacobian @ np.where(free, 0.0, step)
            wanted = J.T @ np.linalg.solve(J @ J.T + DAMPING**2 * np.eye(6), rest)
            step = np.where(free, wanted, step)
            if not (out := free & ((step < least) | (step > most))).any():
                break
            step = np.where(out, np.clip(step, least, most), step)
            free &= ~out
        return np.clip(step, least, most)
