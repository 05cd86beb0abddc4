"""Every single-arm manipulation task of robosuite as an `Env`: Cartesian deltas at 20 Hz, exact seeds, lean steps.

Three habits of robosuite 1.5 are not passed on. Its random draws live in one generator that runs on from episode to
episode: here a seed sets that generator. Its observables are sampled before the last physics step, and those relative
to the hand a whole control step late (zero after a reset): here all are read from one moment, the end of the step. And
its 25 physics steps of a control period run Python: here they are one compiled call (`fast_step.py`) wherever that
gives the same.
"""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_rl import control
from robot_rl.depth import millimetres
from robot_rl.types import CameraSpec, Channel, Obs, RobotRLError, Spec, Step
from sim.robosuite_state import StateReader

if TYPE_CHECKING:
    from collections.abc import Iterable

RATE = 20.0  # control steps a second [Hz]
REACH = 0.05  # the end effector's goal moves at most so far from where it is, per axis [m]
TURN = 0.5  # and turns at most so far, per axis [rad]
SWING = 0.05  # a joint's goal moves at most so far from where it is [rad]
CONTROLLERS = ("OSC_POSE", "OSC_POSITION", "JOINT_POSITION")
TESTED = {"robosuite": "1.5.2", "mujoco": "3.3.7"}
MAX_STEPS = {"Lift": 100, "PickPlaceCan": 200, "NutAssemblySquare": 300, "Stack": 200, "Door": 200}
DEPTH = "_depth"  # ends the name of a camera whose depth is observed
VIEWS = ("frontview", "agentview")  # for people; the first that the task has
VIEW_SIZE = 256  # [pixels]


@dataclass(frozen=True)
class RobosuiteConfig:
    """Which task, which arm, and what is seen of it."""

    task: str = "Lift"
    arm: str = "Panda"
    controller: str = "OSC_POSE"  # or OSC_POSITION, JOINT_POSITION: what the actions command
    cameras: tuple[str, ...] = ()  # rendered into the observation; "agentview_depth" is the depth that agentview sees
    image_size: int = 84  # height and width of those images [pixels]
    shadows: bool = True  # shadows and reflections in those images; without, rendering is quicker
    max_steps: int | None = None  # None: 100 for Lift, 200 to 400 for the others

    def build(self) -> RobosuiteEnv:
        """The world; raises where robosuite is missing or does not know the task, the arm or a camera."""
        return RobosuiteEnv(self)


class RobosuiteEnv:
    """One task of robosuite; action (A,) is 3 deltas [m], 3 [rad] in the arm's base frame, and the gripper's channels.

    The state is the end effector's position and rotation, the joints of gripper and arm, and all that robosuite tells
    of the objects, with every quaternion turned into 6-D form. Channels keep robosuite's names: "cube_pos_x",
    "robot0_eef_rot6d_0". Positions are in the world frame, save those called "..._to_robot0_eef_...", which are in the
    hand's. Sizes of objects that robosuite draws when it builds a model are those of its seed 0.
    """

    def __init__(self, config: RobosuiteConfig) -> None:
        robosuite, self._mujoco = _import_robosuite()
        _require_known(config)
        self._suite = _make(robosuite, config)
        # Soft resets keep these for life.
        self._robot, sim = self._suite.robots[0], self._suite.sim
        self._model, self._data = sim.model._model, sim.data._data
        self._draws_object = getattr(self._suite, "single_object_mode", 0) == 1
        self._substeps = int(self._suite.control_timestep / self._suite.model_timestep)
        self._fast = _fast_step(self._suite)
        self._reader = StateReader(self._suite, every_object=self._draws_object)
        self.spec = self._spec(config)
        self._renderers: dict[int, Any] = {}
        self._shadows = config.shadows
        self._steps = 0
        self.reset(0)
        _require_fingers(self._suite, config)

    def reset(self, seed: int | None = None) -> Obs:
        """The same seed gives the same start, in any process and after any other episode; None draws a fresh one."""
        draw = np.random.default_rng(seed)
        # Arm, placement and arena all hold this one generator object, so its state is set and not the object.
        self._suite.rng.bit_generator.state = draw.bit_generator.state
        if self._draws_object:
            self._choose_object(draw)
        self._suite.reset()
        self._steps = 0
        return self.observe()

    def reset_to(self, state: np.ndarray) -> Obs:
        """Begin an episode in a recorded state: [time, qpos, qvel], flattened as in robosuite's HDF5 demonstrations.

        What robosuite keeps in the model and not in the state (where the door stands, the size of a cube) stays as
        this model has it. The gripper's command starts at rest.
        """
        state = np.asarray(state, np.float64)
        nq, nv = self._model.nq, self._model.nv
        if state.shape != (1 + nq + nv,):
            raise RobotRLError(
                f"a state of {self.spec.world} with {self.spec.arm} has {1 + nq + nv} numbers (time, {nq} positions, "
                f"{nv} velocities); this one has the shape {state.shape}. It was recorded with another task, arm or "
                "version of robosuite."
            )
        self.reset(0)
        self._suite.sim.set_state_from_flattened(state)
        self._suite.sim.forward()
        arm = self._robot.part_controllers["right"]
        arm.update_initial_joints(np.array(self._data.qpos[arm.qpos_index]))  # else it would pull back to seed 0's pose
        return self.observe()

    def step(self, action: np.ndarray) -> Step:
        """Run 1 / 20 s with `action` (A,) in [-1, 1]."""
        action = control.checked(action, len(self.spec.action))
        ended = self._advance(control.to_physical(action, self.spec.action))
        self._steps += 1
        success = self.succeeded()
        over = success or ended
        return Step(
            obs=self.observe(),
            action=action,
            reward=float(success),
            terminated=over,
            truncated=not over and self._steps >= self.spec.max_steps,
            score=float(success),
        )

    def observe(self) -> Obs:
        """The present state, and images where cameras were asked for, all stamped with simulation time."""
        stamp = np.array(self._data.time, np.float64)
        obs: Obs = {"state": self._reader.read(), "stamp/state": stamp}
        for camera in self.spec.cameras:
            obs[f"image/{camera.name}"] = self._image(camera.name.removesuffix(DEPTH), camera.height, camera.depth)
            obs[f"stamp/image/{camera.name}"] = stamp
        return obs

    def succeeded(self) -> bool:
        """Whether the task is solved at present, as robosuite judges it."""
        return bool(self._suite._check_success())

    def render(self) -> np.ndarray:
        """A view for people, (256, 256, 3) uint8 RGB."""
        view = next(v for v in VIEWS if v in self._suite.sim.model.camera_names)
        return self._image(view, VIEW_SIZE)

    def close(self) -> None:
        """Free the renderers and the simulation."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
        if self._suite.sim is not None:
            self._suite.close()

    def _advance(self, command: np.ndarray) -> bool:
        """Physics and controller for one control period; true where robosuite itself ends the task (Wipe)."""
        self._suite.timestep += 1
        if self._fast is not None:
            self._fast.run(command, self._substeps)
        else:
            self._advance_in_python(command)
        self._suite.cur_time += self._suite.control_timestep
        self._mujoco.mj_kinematics(self._model, self._data)  # poses of the moment reached; the next step does so again
        return self._fast is None and bool(self._suite._post_action(command)[1])

    def _advance_in_python(self, command: np.ndarray) -> None:
        """The same with robosuite's own objects."""
        mujoco, model, data = self._mujoco, self._model, self._data
        mujoco.mj_step1(model, data)
        self._suite._pre_action(command, policy_step=True)
        mujoco.mj_step2(model, data)
        parts = self._actuators()
        run = self._robot.composite_controller.run_controller
        for _ in range(self._substeps - 1):
            mujoco.mj_step1(model, data)
            for part, force in run(self._robot._enabled_parts).items():
                actuators, low, high = parts[part]
                data.ctrl[actuators] = np.minimum(np.maximum(force, low), high)
            mujoco.mj_step2(model, data)

    def _actuators(self) -> dict[str, tuple[list[int], np.ndarray, np.ndarray]]:
        """Of each part of the robot: its actuators, and the least and most they take."""
        limits = self._model.actuator_ctrlrange
        return {
            part: (ids, limits[ids, 0], limits[ids, 1]) for part, ids in self._robot._ref_actuators_indexes_dict.items()
        }

    def _choose_object(self, rng: np.random.Generator) -> None:
        """Choose the object of a task that varies it; robosuite would draw from a set, whose order is the process's."""
        objects = getattr(self._suite, "objects", None) or self._suite.nuts
        self._suite.single_object_mode = 2  # "the one that I name"
        name = "object_id" if hasattr(self._suite, "objects") else "nut_id"
        setattr(self._suite, name, int(rng.integers(len(objects))))

    def _action_channels(self, controller: str) -> tuple[Channel, ...]:
        """Those of the arm, and the gripper's: -1 opens it, +1 closes it."""
        arm = _arm_channels(controller, len(self._robot.part_controllers["right"].qpos_index))
        n_gripper = self._suite.action_dim - len(arm)
        fingers = ["gripper"] if n_gripper == 1 else [f"gripper_{i}" for i in range(n_gripper)]
        return (*arm, *(Channel(name, "1", -1.0, 1.0) for name in fingers))

    def _image(self, camera: str, size: int, depth: bool = False) -> np.ndarray:
        """(size, size, 3) uint8 RGB, or depth (size, size, 1) uint16 [mm]."""
        mujoco = self._mujoco
        if size not in self._renderers:
            screen = self._model.vis.global_
            screen.offwidth, screen.offheight = max(screen.offwidth, size), max(screen.offheight, size)
            self._renderers[size] = mujoco.Renderer(self._model, size, size)
            flags = self._renderers[size].scene.flags
            flags[mujoco.mjtRndFlag.mjRND_SHADOW] = flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = self._shadows
        look = mujoco.MjvOption()
        look.geomgroup[0] = 0  # robosuite keeps collision shapes in group 0, the visible ones in group 1
        mujoco.mj_camlight(self._model, self._data)
        renderer = self._renderers[size]
        renderer.update_scene(self._data, camera=camera, scene_option=look)
        if not depth:
            return renderer.render()
        renderer.enable_depth_rendering()
        metres = renderer.render()
        renderer.disable_depth_rendering()
        return millimetres(metres)

    def _spec(self, config: RobosuiteConfig) -> Spec:
        for camera in config.cameras:
            _require(
                camera.removesuffix(DEPTH),
                "camera",
                self._suite.sim.model.camera_names,
                f" in {config.task} with {config.arm}",
            )
        return Spec(
            world=f"robosuite:{config.task}",
            arm=config.arm,
            state=self._reader.channels,
            action=self._action_channels(config.controller),
            cameras=tuple(
                CameraSpec(name, config.image_size, config.image_size, config.shadows, name.endswith(DEPTH))
                for name in config.cameras
            ),
            rate=RATE,
            max_steps=MAX_STEPS.get(config.task, 400) if config.max_steps is None else config.max_steps,
        )


def _arm_channels(controller: str, joints: int) -> tuple[Channel, ...]:
    """What an action of that controller commands: deltas of the end effector in the base frame, or of the joints."""
    if controller == "JOINT_POSITION":
        return tuple(Channel(f"joint_delta_{i}", "rad", -SWING, SWING) for i in range(joints))
    moves = tuple(Channel(f"eef_delta_{axis}", "m", -REACH, REACH) for axis in "xyz")
    turns = tuple(Channel(f"eef_delta_r{axis}", "rad", -TURN, TURN) for axis in "xyz")
    return moves if controller == "OSC_POSITION" else moves + turns


def controller_of(spec: Spec) -> str:
    """The controller whose commands the actions of `spec` are."""
    names = {channel.name for channel in spec.action}
    if "joint_delta_0" in names:
        return "JOINT_POSITION"
    return "OSC_POSE" if "eef_delta_rx" in names else "OSC_POSITION"


def _fast_step(suite: Any) -> Any:
    """The compiled stepping of a world, or None, with a word to the user, where it would not simulate the same."""
    from sim import fast_step

    untested = [
        f"{name} {version(name)} (tested: {name}=={pin})" for name, pin in TESTED.items() if version(name) != pin
    ]
    try:
        if untested:
            raise fast_step.NotCoveredError(" and ".join(untested))
        return fast_step.FastStep(suite)
    except fast_step.NotCoveredError as reason:
        warnings.warn(
            f"robosuite's own stepping, which is slower, is used: the fast one does not cover {reason}", stacklevel=2
        )
        return None


def _make(robosuite: Any, config: RobosuiteConfig) -> Any:
    """robosuite's own world. Its arm takes metres and radians, so that `control.py` alone scales actions."""
    parts = robosuite.load_composite_controller_config(controller="BASIC")
    arm = parts["body_parts"]["right"]
    if config.controller != arm["type"]:
        arm = robosuite.load_part_controller_config(default_controller=config.controller) | {"gripper": arm["gripper"]}
    limits = [channel.high for channel in _arm_channels(config.controller, 0)] or SWING
    lows = [-limit for limit in limits] if isinstance(limits, list) else -limits
    arm = {**arm, "input_max": limits, "input_min": lows, "output_max": limits, "output_min": lows}
    return robosuite.make(
        config.task,
        robots=config.arm,
        controller_configs={**parts, "body_parts": {"right": arm}},
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        control_freq=int(RATE),
        ignore_done=True,
        hard_reset=False,  # a reset takes 2 ms, not half a second; nothing leaks (tests/test_robosuite_env.py)
        seed=0,
    )


def _import_robosuite() -> tuple[Any, Any]:
    """The modules robosuite, without its chatter, and mujoco, which renders by EGL where there is no display."""
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    log = logging.getLogger("robosuite_logs")
    if _is_worth_reading not in log.filters:
        log.addFilter(_is_worth_reading)
    try:
        import mujoco
        import robosuite
    except ImportError as error:
        raise RobotRLError(
            f"robosuite could not be imported ({error}); install it with: pip install 'robosuite>=1.5.2,<1.6' mujoco"
        ) from error
    return robosuite, mujoco


def _is_worth_reading(record: logging.LogRecord) -> bool:
    """Warnings, save those about optional parts of robosuite that nothing here uses."""
    idle = ("private macro", "setup_macros", "robosuite_models", "mimicgen", "mink")
    return record.levelno >= logging.WARNING and not any(word in record.getMessage() for word in idle)


def _require_known(config: RobosuiteConfig) -> None:
    from robosuite.environments.base import REGISTERED_ENVS
    from robosuite.environments.manipulation.two_arm_env import TwoArmEnv
    from robosuite.models.robots.robot_model import REGISTERED_ROBOTS
    from robosuite.robots import ROBOT_CLASS_MAPPING, FixedBaseRobot

    two_armed = {name for name, env in REGISTERED_ENVS.items() if issubclass(env, TwoArmEnv)}
    if config.task in two_armed:
        raise RobotRLError(
            f"{config.task} needs two arms; this project drives one. One-armed tasks are: "
            f"{', '.join(sorted(set(REGISTERED_ENVS) - two_armed))}"
        )
    _require(config.task, "task", set(REGISTERED_ENVS) - two_armed)
    fixed = {name for name, robot in ROBOT_CLASS_MAPPING.items() if robot is FixedBaseRobot}
    _require(config.arm, "single arm", {name for name in fixed if REGISTERED_ROBOTS[name].arms == ["right"]})
    if config.controller not in CONTROLLERS:
        raise RobotRLError(f"there is no controller '{config.controller}' here; there are: {', '.join(CONTROLLERS)}")


def _require_fingers(suite: Any, config: RobosuiteConfig) -> None:
    """Stack asks whether the fingers touch the cube; fingers named wrongly never do."""
    geoms, parts = suite.sim.model.geom_names, suite.robots[0].gripper["right"].important_geoms
    pads = [pad for side in ("left", "right") for pad in parts.get(f"{side}_fingerpad", ["none"])]
    if config.task == "Stack" and not set(pads) <= set(geoms):
        raise RobotRLError(
            f"robosuite cannot judge Stack with {config.arm}: it looks for {pads}, which the gripper lacks, and would "
            "call a cube stacked that is still held. Choose another arm, such as Panda."
        )


def _require(name: str, kind: str, known: Iterable[str], where: str = "") -> None:
    known = sorted(known)
    if name in known:
        return
    lower = {k.lower(): k for k in known}
    close = get_close_matches(name.lower(), lower, n=1, cutoff=0.4)
    guess = f" Did you mean '{lower[close[0]]}'?" if close else ""
    raise RobotRLError(f"robosuite has no {kind} '{name}'{where}.{guess} There are: {', '.join(known)}")
