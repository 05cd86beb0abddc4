"""A robosuite world as a robot: an arm that follows Cartesian targets, is measured, and knows nothing of episodes.

The arm is under robosuite's operational space control, as in `RobosuiteEnv`, with a goal that stays where it was put
until the next one: that is how an impedance controller on a real arm takes targets (crisp's `target_pose`, for one).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_rl.geometry import quat_inverse, quat_product, unit_quat, vector_from_quat
from robot_rl.types import ArmState, RobotRLError
from sim.robosuite_env import RATE, RobosuiteEnv, controller_of
from sim.worlds import WorldConfig


class RobotWorld:
    """Time passes only in `advance`. Poses are of the point between the fingers, in the frame of the arm's base."""

    def __init__(self, env: RobosuiteEnv) -> None:
        if env._fast is None or controller_of(env.spec) != "OSC_POSE":
            raise RobotRLError("a simulated robot needs OSC_POSE, and the tested versions of robosuite and mujoco")
        self._env, self._fast = env, env._fast
        self._model, self._data, self._robot = env._model, env._data, env._robot
        prefix = self._robot.robot_model.naming_prefix
        self.base_name = f"{prefix}base"
        self.joint_names = [*self._robot.robot_joints, *self._robot.gripper_joints["right"]]
        self._addresses = [self._model.joint(name).qposadr[0] for name in self.joint_names]
        self._arm = len(self._robot.robot_joints)
        self._hand = self._data.body(self._robot.robot_model.eef_name["right"])
        self._tip = self._data.site(self._robot.part_controllers["right"].ref_name)
        self._base = self._data.body(self.base_name)
        self._is_object = np.array([not c.name.startswith(prefix) for c in env.spec.state])
        self.camera_names = list(env._suite.sim.model.camera_names)
        self.object_names = [c.name for c, is_object in zip(env.spec.state, self._is_object, strict=True) if is_object]
        self.reset(0)

    def reset(self, seed: int | None) -> None:
        """The start that the world has for `seed`; the arm rests there."""
        self._env.reset(seed)
        self._goal = self.tool()
        self._gripper, self._until_grip = 0.0, 0.0  # robosuite's command: -1 opens, 1 closes, 0 stays; and when [s]

    def command(self, position: np.ndarray, turn: np.ndarray) -> None:
        """Where the tool shall be from now on: (3,) [m] and a quaternion (4,) xyzw."""
        self._goal = np.array(position, float), unit_quat(turn)

    def grip(self, opening: float) -> None:
        """What the fingers shall do from now on: close below a half, open above."""
        self._gripper = float(np.sign(0.5 - opening))

    def advance(self, seconds: float) -> None:
        """Let time pass: whole physics steps, one at least."""
        position, turn = self.tool()
        spin = vector_from_quat(quat_product(self._goal[1], quat_inverse(turn)))
        substeps = max(round(seconds / self._model.opt.timestep), 1)
        self._until_grip -= substeps * self._model.opt.timestep
        grip = self._gripper if self._until_grip < 0 else 0.0
        if self._until_grip < 0:  # robosuite's fingers move on with each command, and it gives one each control period
            self._until_grip += 1.0 / RATE
        self._fast.run(np.array([*(self._goal[0] - position), *spin, grip]), substeps)
        self._env._mujoco.mj_kinematics(self._model, self._data)

    def tool(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) and quaternion (4,) xyzw."""
        base = np.roll(self._base.xquat, -1)
        turn = quat_product(quat_inverse(base), np.roll(self._hand.xquat, -1))
        return self._base.xmat.reshape(3, 3).T @ (self._tip.xpos - self._base.xpos), unit_quat(turn)

    def joints(self) -> np.ndarray:
        """Of arm and fingers, in the order of `joint_names` [rad], [m]."""
        return self._data.qpos[self._addresses]

    def wrench(self) -> np.ndarray:
        """On the wrist, in its frame: force [N] and torque [Nm], the hand's weight included."""
        return np.concatenate([self._robot.ee_force["right"], self._robot.ee_torque["right"]])

    def objects(self) -> np.ndarray:
        """All that the world's state says of objects, in the order of `object_names`."""
        return self._env._reader.read()[self._is_object]

    def state(self, stamp: float, closed: float, opened: float) -> ArmState:
        """The arm as it would be measured now; the fingers' opening is counted from `closed` to `opened`."""
        position, turn = self.tool()
        joints = self.joints()
        opening = (joints[self._arm] - closed) / (opened - closed)
        return ArmState(stamp, position, turn, joints[: self._arm], float(opening), self.wrench())

    def succeeded(self) -> bool:
        """Whether the task is solved at present."""
        return self._env.succeeded()

    def look(self) -> np.ndarray:
        """(n,): all that pictures of this world depend on, for `RobotView.show`."""
        return np.concatenate([np.ravel(part) for part in _changing(self._model, self._data)])

    def close(self) -> None:
        """Free the world."""
        self._env.close()


class RobotView:
    """What cameras see of such a world, wherever that is simulated: `show` its look, and take pictures."""

    def __init__(self, config: WorldConfig) -> None:
        self._env = robosuite_world(config)

    def show(self, look: np.ndarray) -> None:
        """What `RobotWorld.look` gave, of a world of the same config."""
        model, data = self._env._model, self._env._data
        for part in _changing(model, data):
            part[...], look = look[: part.size].reshape(part.shape), look[part.size :]
        self._env._mujoco.mj_kinematics(model, data)

    def image(self, camera: str, height: int, depth: bool = False) -> np.ndarray:
        """(height, height, 3) uint8 RGB, or depth (height, height, 1) uint16 [mm]."""
        return self._env._image(camera, height, depth)

    def close(self) -> None:
        """Free the world."""
        self._env.close()


def _changing(model: Any, data: Any) -> list[np.ndarray]:
    """Where things are; some, a door for one, are put elsewhere in the model when a world is reset."""
    return [data.qpos, data.mocap_pos, data.mocap_quat, model.body_pos, model.body_quat]


def robosuite_world(config: WorldConfig) -> RobosuiteEnv:
    """The world of `config`; raises where it is none that can stand in for a robot."""
    world = config.build()
    if not isinstance(world, RobosuiteEnv):
        raise RobotRLError(f"a robot can be simulated in a world of robosuite, not in '{config.world}'")
    return world
