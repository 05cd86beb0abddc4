"""A control period of robosuite in one compiled call: physics and controller in turn, no Python in between.

robosuite 1.5 runs its controller as Python objects before each of the 25 physics steps of a control period; that is
four fifths of its time. Here the same arithmetic is compiled by numba, which also calls MuJoCo's own mj_step1 and
mj_step2. Nothing of robosuite is patched: its objects build the model, place the objects, judge success, and hold the
gains, which are read anew each period.

The controllers are operational space control (Khatib 1987, as in robosuite's osc.py) and joint position; robosuite
1.5.2 cannot build its own joint velocity controller. Where robosuite multiplies by (pseudo-)inverses, here Cholesky
factors are solved: equal to rounding. A pseudo-inverse is taken where a matrix is singular.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding
import mujoco
import numpy as np
from numba import njit, types

SINGULAR = 1e-10  # a pivot below this share of the largest calls for the pseudo-inverse
FRESH = np.empty(
    (0, 0)
)  # after a reset robosuite begins with the inertia of before the fingers were placed; else: the present
NULLSPACE_KP = 10.0  # robosuite's stiffness of the posture [1/s^2]

for library in Path(mujoco.__file__).parent.glob("libmujoco*"):
    llvmlite.binding.load_library_permanently(str(library))  # compiled code finds MuJoCo's functions by their names

_P, _I = types.int64, types.int32  # an address, and C's int
mj_step1: Any = types.ExternalFunction("mj_step1", types.void(_P, _P))
mj_step2: Any = types.ExternalFunction("mj_step2", types.void(_P, _P))
mj_jac_site: Any = types.ExternalFunction("mj_jacSite", types.void(_P, _P, _P, _P, _I))


class NotCoveredError(Exception):
    """The compiled path does not reproduce this; the message says what."""


class Arm(NamedTuple):
    """Views into MuJoCo's memory, and where in them the arm lies; n joints."""

    model: int  # addresses
    data: int
    qpos: np.ndarray
    qvel: np.ndarray
    mass: np.ndarray  # MuJoCo's sparse joint-space inertia
    bias: np.ndarray
    site_pos: np.ndarray
    site_rot: np.ndarray
    ctrl: np.ndarray
    jacobian: np.ndarray  # (6, nv) work space
    joints: np.ndarray  # (n,) into qpos
    dofs: np.ndarray  # (n,) into qvel
    actuators: np.ndarray  # (n,) into ctrl
    low: np.ndarray  # (n,) limits of the actuators
    high: np.ndarray
    mass_entries: np.ndarray  # (k, 3): row, column, index into `mass`
    hand: int  # sites
    base: int


class FastStep:
    """Runs control periods of one robosuite world; raises `NotCoveredError` where it would not simulate the same."""

    def __init__(self, suite: Any) -> None:
        from robosuite.utils import transform_utils

        self._robot = suite.robots[0]
        self._is_osc = _require_covered(suite)
        self._turn = lambda spin: transform_utils.quat2mat(transform_utils.axisangle2quat(spin))  # in float32, as there
        self._arm = _arm(suite)
        self._gripper_actuators = np.array(self._robot._ref_actuators_indexes_dict.get("right_gripper", []), np.int64)
        limits = suite.sim.model._model.actuator_ctrlrange[self._gripper_actuators]
        self._gripper_low, self._gripper_high = limits[:, 0], limits[:, 1]
        self.run(np.zeros(suite.action_dim), 0)  # no step, but compiled: workers find the result in numba's cache

    def run(self, command: np.ndarray, substeps: int) -> None:
        """`substeps` physics steps under `command`, in the controller's own units and the gripper's."""
        parts = self._robot.part_controllers
        controller = parts["right"]
        n = controller.control_dim
        self._grip(command[n:], parts.get("right_gripper"))
        goal = controller.scale_action(command[:n])
        first_mass = FRESH if controller.new_update else np.ascontiguousarray(controller.mass_matrix)
        controller.new_update = True
        kp, kd = np.asarray(controller.kp, np.float64), np.asarray(controller.kd, np.float64)
        if self._is_osc:
            turn = self._turn(goal[3:] if controller.use_ori else np.zeros(3))
            _osc_pose(
                self._arm,
                substeps,
                goal,
                turn,
                kp,
                kd,
                controller.initial_joint,
                bool(controller.uncoupling),
                first_mass,
            )
        else:
            limits = np.array([-np.inf, np.inf]) if controller.position_limits is None else controller.position_limits
            _joint_position(
                self._arm, substeps, goal, limits, kp, kd, bool(controller.use_torque_compensation), first_mass
            )

    def _grip(self, action: np.ndarray, controller: Any) -> None:
        """The gripper's command holds for the whole period."""
        if controller is None or not len(self._gripper_actuators):
            return
        goal = self._robot.gripper["right"].format_action(action)
        if controller.use_action_scaling:
            half = 0.5 * (controller.actuator_max - controller.actuator_min)
            goal = 0.5 * (controller.actuator_max + controller.actuator_min) + half * controller.scale_action(goal)
        self._arm.ctrl[self._gripper_actuators] = np.minimum(np.maximum(goal, self._gripper_low), self._gripper_high)


def _require_covered(suite: Any) -> bool:
    """Whether the arm is under operational space control; raises where neither that nor joint position is meant."""
    from robosuite.controllers.parts.arm.osc import OperationalSpaceController
    from robosuite.controllers.parts.generic.joint_pos import JointPositionController
    from robosuite.controllers.parts.gripper.simple_grip import SimpleGripController
    from robosuite.environments.base import MujocoEnv
    from robosuite.environments.robot_env import RobotEnv

    robot = suite.robots[0]
    arm, gripper = robot.part_controllers["right"], robot.part_controllers.get("right_gripper")
    kind = type(arm)
    if kind not in (OperationalSpaceController, JointPositionController):
        raise NotCoveredError(f"the controller {arm.name}")
    if set(robot.part_controllers) - {"right", "right_gripper"}:
        raise NotCoveredError(f"the parts {sorted(robot.part_controllers)} of {robot.name}")
    if gripper is not None and type(gripper) is not SimpleGripController:
        raise NotCoveredError(f"the gripper's controller {gripper.name}")
    if not suite.lite_physics:
        raise NotCoveredError("lite_physics=False")
    if type(suite)._pre_action is not RobotEnv._pre_action or type(suite)._post_action is not MujocoEnv._post_action:
        raise NotCoveredError(
            f"{type(suite).__name__}, which acts between the physics steps or reads the wrist's forces"
        )
    options = {
        "impedance_mode": "fixed",
        "input_type": "delta",
        "input_ref_frame": "base",
        "_goal_update_mode": "achieved",
        "interpolator": None,
        "interpolator_pos": None,
        "interpolator_ori": None,
    }
    for name, only in options.items():
        if getattr(arm, name, only) != only:
            raise NotCoveredError(f"{arm.name} with {name.strip('_')}={getattr(arm, name)!r}")
    return kind is OperationalSpaceController


def _arm(suite: Any) -> Arm:
    """The views; a soft reset keeps model and data, so they hold for the life of the world."""
    robot, model, data = suite.robots[0], suite.sim.model._model, suite.sim.data._data
    controller = robot.part_controllers["right"]
    dofs = np.array(controller.qvel_index, np.int64)
    actuators = np.array(robot._ref_actuators_indexes_dict["right"], np.int64)
    limits = model.actuator_ctrlrange[actuators]
    base = f"{controller.naming_prefix}{controller.part_name}_center"
    return Arm(
        model=model._address,
        data=data._address,
        qpos=data.qpos,
        qvel=data.qvel,
        mass=data.qM,
        bias=data.qfrc_bias,
        site_pos=data.site_xpos,
        site_rot=data.site_xmat,
        ctrl=data.ctrl,
        jacobian=np.zeros((6, model.nv)),
        joints=np.array(controller.qpos_index, np.int64),
        dofs=dofs,
        actuators=actuators,
        low=np.ascontiguousarray(limits[:, 0]),
        high=np.ascontiguousarray(limits[:, 1]),
        mass_entries=_mass_entries(model, list(dofs)),
        hand=suite.sim.model.site_name2id(controller.ref_name),
        base=suite.sim.model.site_name2id(base),
    )


def _mass_entries(model: Any, dofs: list[int]) -> np.ndarray:
    """(k, 3): where MuJoCo keeps the inertia between two joints of the arm; a row holds a joint and its ancestors."""
    entries = []
    for row, dof in enumerate(dofs):
        address, other = int(model.dof_Madr[dof]), int(dof)
        while other >= 0:
            if other in dofs:
                entries.append((row, dofs.index(other), address))
            address, other = address + 1, int(model.dof_parentid[other])
    return np.array(entries, np.int64)


Array = np.ndarray
_compiled = njit(cache=True, error_model="numpy")


@_compiled
def _osc_pose(
    arm: Arm,
    substeps: int,
    delta: Array,
    turn: Array,
    kp: Array,
    kd: Array,
    posture: Array,
    uncouple: bool,
    first_mass: Array,
) -> None:
    """Towards a pose of the hand that is given, once, relative to where it is, in the frame of the arm's first link.

    robosuite's name of that frame is the base; with IIWA and XArm7 it turns with the first joint.
    """
    goal_pos, goal_rot = np.zeros(3), np.zeros((3, 3))
    for step in range(substeps):
        mj_step1(arm.model, arm.data)
        hand_pos, hand_rot = _pose(arm, arm.hand)
        base_pos, base_rot = _pose(arm, arm.base)
        if step == 0:
            goal_pos[:] = base_rot.T @ (hand_pos - base_pos) + delta[:3]
            goal_rot[:] = turn.astype(np.float64) @ (base_rot.T @ hand_rot)
        drift = _jacobian(arm, arm.base) @ arm.qvel
        jacobian = _jacobian(arm, arm.hand)
        velocity = jacobian @ arm.qvel - drift
        force = np.empty(6)
        force[:3] = kp[:3] * (base_pos + base_rot @ goal_pos - hand_pos) - kd[:3] * velocity[:3]
        force[3:] = kp[3:] * _rotation_error(base_rot @ goal_rot, hand_rot) - kd[3:] * velocity[3:]
        M = first_mass if step == 0 and len(first_mass) else _mass(arm)
        J = np.empty((6, len(arm.dofs)))
        for i in range(len(arm.dofs)):
            J[:, i] = jacobian[:, arm.dofs[i]]
        _command(arm, _osc_torques(arm, M, J, force, posture, uncouple))
        mj_step2(arm.model, arm.data)


@_compiled
def _joint_position(
    arm: Arm, substeps: int, delta: Array, limits: Array, kp: Array, kd: Array, compensate: bool, first_mass: Array
) -> None:
    """Towards joint positions that are given, once, relative to the present ones."""
    goal = np.zeros(len(delta))
    for step in range(substeps):
        mj_step1(arm.model, arm.data)
        q, v = arm.qpos[arm.joints], arm.qvel[arm.dofs]
        if step == 0:
            goal[:] = np.minimum(np.maximum(q + delta, limits[0]), limits[1])
        torques = kp * (goal - q) - kd * v
        if compensate:
            M = first_mass if step == 0 and len(first_mass) else _mass(arm)
            torques = M @ torques + arm.bias[arm.dofs]
        _command(arm, torques)
        mj_step2(arm.model, arm.data)


@_compiled
def _osc_torques(arm: Arm, M: Array, J: Array, force: Array, posture: Array, uncouple: bool) -> Array:
    """J^T Lambda F + bias + N^T (posture torques), with Lambda = (J M^-1 J^T)^-1 and N = I - M^-1 J^T Lambda J."""
    Y = _solve(M, J.T.copy())  # M^-1 J^T
    inverse_lambda = J @ Y
    if uncouple:
        wrench = np.empty(6)
        wrench[:3] = _solve_one(inverse_lambda[:3, :3].copy(), force[:3])
        wrench[3:] = _solve_one(inverse_lambda[3:, 3:].copy(), force[3:])
    else:
        wrench = _solve_one(inverse_lambda, force)
    q, v = arm.qpos[arm.joints], arm.qvel[arm.dofs]
    home = M @ (NULLSPACE_KP * (posture - q) - 2.0 * np.sqrt(NULLSPACE_KP) * v)
    rest = _solve_one(inverse_lambda, Y.T @ home)
    return J.T @ (wrench - rest) + arm.bias[arm.dofs] + home


@_compiled
def _command(arm: Arm, torques: Array) -> None:
    for i in range(len(torques)):
        arm.ctrl[arm.actuators[i]] = min(max(torques[i], arm.low[i]), arm.high[i])


@_compiled
def _pose(arm: Arm, site: int) -> tuple[Array, Array]:
    return arm.site_pos[site], arm.site_rot[site].copy().reshape(3, 3)


@_compiled
def _jacobian(arm: Arm, site: int) -> Array:
    """(6, nv) of a site: position above rotation; valid until the next call."""
    rows = arm.jacobian
    mj_jac_site(arm.model, arm.data, rows.ctypes.data, rows[3:].ctypes.data, site)
    return rows


@_compiled
def _mass(arm: Arm) -> Array:
    """(n, n) inertia between the joints of the arm."""
    n = len(arm.dofs)
    M = np.zeros((n, n))
    for k in range(len(arm.mass_entries)):
        row, column = arm.mass_entries[k, 0], arm.mass_entries[k, 1]
        M[row, column] = M[column, row] = arm.mass[arm.mass_entries[k, 2]]
    return M


@_compiled
def _rotation_error(goal: Array, now: Array) -> Array:
    """(3,) half the summed cross products of the axes: the sine of the angle along the axis of rotation."""
    error = np.zeros(3)
    for i in range(3):
        error[0] += 0.5 * (now[1, i] * goal[2, i] - now[2, i] * goal[1, i])
        error[1] += 0.5 * (now[2, i] * goal[0, i] - now[0, i] * goal[2, i])
        error[2] += 0.5 * (now[0, i] * goal[1, i] - now[1, i] * goal[0, i])
    return error


@_compiled
def _solve_one(A: Array, b: Array) -> Array:
    return _solve(A, b.copy().reshape(-1, 1))[:, 0].copy()


@_compiled
def _solve(A: Array, B: Array) -> Array:
    """A^-1 B for a symmetric positive definite A (n, n), or pinv(A) B where it is singular; B (n, k)."""
    n, k = B.shape
    L, X, largest = np.zeros((n, n)), B.copy(), 0.0
    for i in range(n):
        largest = max(largest, A[i, i])
    for i in range(n):
        for j in range(i + 1):
            value = A[i, j]
            for m in range(j):
                value -= L[i, m] * L[j, m]
            if i > j:
                L[i, j] = value / L[j, j]
            elif value > SINGULAR * largest:
                L[i, i] = np.sqrt(value)
            else:
                return np.linalg.pinv(A) @ B
    for c in range(k):
        for i in range(n):
            for m in range(i):
                X[i, c] -= L[i, m] * X[m, c]
            X[i, c] /= L[i, i]
        for i in range(n - 1, -1, -1):
            for m in range(i + 1, n):
                X[i, c] -= L[m, i] * X[m, c]
            X[i, c] /= L[i, i]
    return X
