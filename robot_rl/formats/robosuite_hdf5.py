"""Reads robosuite's HDF5 demonstrations (1.0 to 1.5, and robomimic's with states): simulator states and actions.

Such a file holds no observations: they are read off the simulator put into every recorded state. `states[i]` is the
state before `actions[i]`, so what follows the last action is not there and that action is dropped. robosuite records
some steps beyond the first success; an episode ends there, as it does in our worlds. The recorded model is not used:
models of robosuite before 1.5 do not load in 1.5, and its own take the recorded states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robot_rl.formats import guard, hdf5
from robot_rl.formats.account import Account
from robot_rl.types import Episode, Obs, RobotRLError, Spec

# Tasks of which the simulator's state does not tell the scene: observations read off it would be wrong.
OUTSIDE_THE_STATE = {"Door": "where the door stands", "Wipe": "which marks are wiped away"}
BEFORE_1_0 = ("joint_velocities", "right_dpos", "gripper_actuations")  # what a demonstration held instead of actions


@dataclass(frozen=True)
class RawDemo:
    """One demonstration as robosuite stored it."""

    where: str  # file and name, for errors
    source: str
    name: str
    task: str  # "Lift"
    arms: tuple[str, ...]  # ("Panda",)
    controller: dict[str, Any]  # robosuite's configuration of the (first) arm's controller
    states: np.ndarray  # (N, 1 + nq + nv) float64: time [s], positions, velocities
    actions: np.ndarray  # (N, A) float64 as commanded; robosuite's controller clips them to [-1, 1]


def masked(path: Path, filter_key: str | None, account: Account) -> set[str] | None:
    """The demonstrations in the mask `filter_key` of the file at `path`; None: all."""
    with hdf5.opened(path) as file:
        return hdf5.masked(file, filter_key, account)


def read(path: Path, chosen: set[str] | None = None) -> Iterator[RawDemo]:
    """The demonstrations of the file at `path`, or those `chosen`, one at a time; each is checked as it is read."""
    path = Path(path)
    with hdf5.opened(path) as file:
        for name, where, group in hdf5.demos(file, chosen):
            if "actions" not in group and any(key in group for key in BEFORE_1_0):
                raise RobotRLError(
                    f"{where} was recorded by robosuite {_version(file)}: its files hold joint velocities and no "
                    "actions; those of robosuite 1.0 and later are read. Record the task anew with `collect --device`"
                )
            task, arms, controller = _description(file["data"])
            states, actions = (hdf5.array(group, key, where) for key in ("states", "actions"))
            hdf5.require_equal_lengths({"states": len(states), "actions": len(actions)}, where)
            if states.ndim != 2 or actions.ndim != 2 or len(states) < 2:
                raise RobotRLError(
                    f"{where}: states {states.shape} and actions {actions.shape} must be tables of 2 rows or more"
                )
            yield RawDemo(where, str(path), name, task, arms, controller, states, actions)


def _version(file: h5py.File) -> str:
    told = hdf5.attribute(file["data"], "repository_version")
    return f"{told} (before 1.0)" if isinstance(told, str) else "before 1.0"


def episode(demo: RawDemo, spec: Spec, reset_to: Callable[[np.ndarray], Obs], success: Callable[[], bool]) -> Episode:
    """`demo` as an episode of the world of `spec`: `reset_to` puts it into a state, `success` then judges it.

    Actions are clipped as robosuite clipped them; `meta["clipped"]` counts the steps. Raises where the demonstration
    does not belong to this world: another task, arm, controller, rate or model, or no success in any state.
    """
    if demo.task in OUTSIDE_THE_STATE:
        raise RobotRLError(
            f"{demo.where}: demonstrations of {demo.task} cannot be imported, because robosuite's states do not hold "
            f"{OUTSIDE_THE_STATE[demo.task]}; demonstrate it anew with `robot-rl collect`"
        )
    _require_same_robot(demo, spec)
    _require_same_controller(demo, spec)
    observations = _observations(demo, reset_to, success)
    length = len(observations) - 1
    commands, reward = demo.actions[:length], np.zeros(length, np.float32)
    reward[-1] = 1.0
    return Episode(
        obs={key: np.stack([obs[key] for obs in observations]) for key in observations[0]},
        action=np.clip(commands, -1.0, 1.0).astype(np.float32),
        reward=reward,
        score=reward.copy(),
        intervened=np.zeros(length, bool),
        terminated=True,
        truncated=False,
        meta={
            "source": demo.source,
            "demo": demo.name,
            "reset_to": demo.states[0].tolist(),
            "clipped": int((np.abs(commands) > 1.0).any(1).sum()),
            "dropped": len(demo.actions) - length,
        },
    )


def _observations(demo: RawDemo, reset_to: Callable[[np.ndarray], Obs], success: Callable[[], bool]) -> list[Obs]:
    """What is seen in every recorded state up to the first success."""
    observations: list[Obs] = []
    for state in demo.states:
        try:
            observations.append(reset_to(state))
        except RobotRLError as error:
            raise RobotRLError(f"{demo.where} ({demo.task}, states of {len(state)} numbers): {error}") from error
        if len(observations) > 1 and success():
            return observations
    raise RobotRLError(
        f"{demo.where}: none of its {len(demo.states)} states is a success of {demo.task} here; it was recorded with "
        "another model of the task, or the demonstrator failed. Leave it out"
    )


def _require_same_robot(demo: RawDemo, spec: Spec) -> None:
    theirs = f"{demo.task} with {' and '.join(demo.arms)}"
    world = spec.world.removeprefix("robosuite:")
    if (demo.task, demo.arms) != (world, (spec.arm,)):
        raise RobotRLError(
            f"{demo.where} shows {theirs} (states of {demo.states.shape[1]} numbers, actions of "
            f"{demo.actions.shape[1]}); this world is {world} with {spec.arm} (actions of {len(spec.action)}). "
            + ("Worlds with two arms cannot be imported" if len(demo.arms) > 1 else "Choose that task and arm")
        )
    if demo.actions.shape[1] != len(spec.action):
        raise RobotRLError(
            f"{demo.where} ({theirs}): actions of {demo.actions.shape[1]} numbers; this world takes {len(spec.action)}"
        )
    periods = np.diff(demo.states[:, 0])
    if np.abs(periods * spec.rate - 1.0).max() > 0.01:
        raise RobotRLError(
            f"{demo.where} ({theirs}) was recorded every {periods.min():.4g} to {periods.max():.4g} s; this world runs "
            f"at {spec.rate} Hz. Use a world of that rate, or leave it out"
        )


def _require_same_controller(demo: RawDemo, spec: Spec) -> None:
    """An action means the same here and there: a delta of the end effector, of the same size."""
    here = [channel.high for channel in spec.action[:6]]
    kind = demo.controller.get("type")
    delta = demo.controller.get("control_delta", demo.controller.get("input_type") == "delta")
    with guard.reading(f"{demo.where}: the controller's output_max"):
        there = np.broadcast_to(np.asarray(demo.controller.get("output_max", np.nan), np.float64), 6)
    if kind != "OSC_POSE" or not delta or not np.allclose(here, there):
        raise RobotRLError(
            f"{demo.where} was recorded with the controller {kind}, delta {delta}, full action {there.tolist()}; here "
            f"it is OSC_POSE with deltas, full action {here} (m, rad). Such actions cannot be converted, only recorded"
        )


def _description(data: h5py.Group) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """Task, arms and controller: robosuite's own `env_info`, or robomimic's `env_args`."""
    if "env_info" in data.attrs:
        info = hdf5.json_attribute(data, "env_info")
        task = info.text("env_name")
    else:
        arguments = hdf5.json_attribute(data, "env_args")
        info, task = arguments.object("env_kwargs", {}), arguments.text("env_name")
    robots = info.values.get("robots") or ()
    arms = (robots,) if isinstance(robots, str) else tuple(map(str, robots)) if isinstance(robots, list) else ()
    controllers = info.values.get("controller_configs") or {}
    controller = controllers[0] if isinstance(controllers, list) and controllers else controllers  # a list: one an arm
    parts = controller.get("body_parts") if isinstance(controller, dict) else None
    controller = parts.get("right", controller) if isinstance(parts, dict) else controller  # 1.5 nests the arm's
    if not isinstance(controller, dict):
        raise RobotRLError(f"{info.name('controller_configs')} is {controller!r:.60}; it must be an object")
    return task, arms, controller
