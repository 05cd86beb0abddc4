"""Where the tool is for given joints, and which joints bring it to a pose: a MuJoCo model and mink's solver."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import mink
import mujoco
import numpy as np

from drivers.robot_file import KinematicsFile
from robot_rl.geometry import angle_between, unit_quat
from robot_rl.types import ArmState, RobotRLError

STEPS = 20  # of Gauss and Newton; a setpoint's neighbour takes two or three
NEAR, NEAR_TURN = 1e-4, 1e-3  # a solution is so exact [m], [rad]


def from_file(file: KinematicsFile) -> MinkKinematics:
    """Of the model that a robot's file names."""
    model = Path(file.model)
    if file.model.startswith("robosuite:"):
        package = importlib.util.find_spec("robosuite")
        if package is None or package.origin is None:
            raise RobotRLError(f"the model {file.model} is robosuite's, which is not installed")
        model = Path(package.origin).parent / "models/assets/robots" / file.model.partition(":")[2] / "robot.xml"
    if not model.is_file():
        raise RobotRLError(f"the robot's kinematics need the MuJoCo model {model}, which is not there")
    return MinkKinematics(model, file.joints, file.tool, file.base, file.offset)


class MinkKinematics:
    """Implements `Kinematics` by an arm in a MuJoCo model: poses of a point of a body, in another's frame."""

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
        self._at = np.array([self._model.joint(joint).qposadr[0] for joint in joints])
        self._configuration = mink.Configuration(self._model)
        self._tool = mink.FrameTask(tool, "body", position_cost=1.0, orientation_cost=1.0, lm_damping=1e-6)
        self._posture = mink.PostureTask(self._model, cost=1e-4)  # of the many solutions the one nearest to the seed
        self._limits = [mink.ConfigurationLimit(self._model)]
        self._frame, self._base = tool, base
        self._offset = mink.SE3.from_translation(np.asarray(offset, float))  # of the tool's point in its body

    def pose(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tool's position (3,) [m] and quaternion (4,) xyzw for joints (n,) [rad]."""
        self._set(joints)
        body = self._configuration.get_transform_frame_to_world(self._frame, "body")
        pose = self._base_pose().inverse() @ body @ self._offset
        return pose.translation(), np.roll(pose.rotation().wxyz, -1)

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

    def solve(self, position: np.ndarray, turn: np.ndarray, joints: np.ndarray) -> np.ndarray | None:
        """Joints (n,) [rad] near `joints`, inside the model's ranges, that bring the tool there; None: not found."""
        self._set(joints)
        target = mink.SE3.from_rotation_and_translation(mink.SO3(np.roll(turn, 1)), np.asarray(position, float))
        self._tool.set_target(self._base_pose() @ target @ self._offset.inverse())
        self._posture.set_target(self._configuration.q)
        for _ in range(STEPS):
            error = self._tool.compute_error(self._configuration)
            if np.linalg.norm(error[:3]) < NEAR and np.linalg.norm(error[3:]) < NEAR_TURN:
                return self._configuration.q[self._at].copy()
            velocity = mink.solve_ik(
                self._configuration, [self._tool, self._posture], 1.0, "quadprog", damping=1e-9, limits=self._limits
            )
            self._configuration.integrate_inplace(velocity, 1.0)
        return None

    def _set(self, joints: np.ndarray) -> None:
        q = self._configuration.q.copy()
        low, high = self._model.jnt_range.T
        q[self._at] = joints
        self._configuration.update(np.where(self._model.jnt_limited, np.clip(q, low, high), q))

    def _base_pose(self) -> mink.SE3:
        return self._configuration.get_transform_frame_to_world(self._base, "body")
