"""Reads HDF5 files in robomimic's layout that others wrote: robomimic, MimicGen, LIBERO, Isaac Lab.

The Spec is made from the observations: every vector and every single number under `obs` becomes channels of the state,
in the order of the names and with the range seen in the file, rotations in 6-D form; every stack of pictures becomes a
camera. What lies deeper, or is neither, is left out and said. Without `next_obs` the last action of a demonstration is
dropped, and what came of it counts for the one before. Whether actions are deltas in [-1, 1] or absolute, `env_args`
says; the range of absolute ones is the one seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robot_rl import control
from robot_rl.formats import guard, hdf5, outcome, pictures, rotations
from robot_rl.formats.account import Account
from robot_rl.formats.metadata import Metadata
from robot_rl.formats.seen import Ranges
from robot_rl.types import LARGEST_IMAGE, CameraSpec, Channel, Episode, Obs, RobotRLError, Spec

RATE = 20.0  # robosuite's and robomimic's control rate where a file does not tell [Hz]
PICTURE = re.compile(r"_(image|rgb|depth)$")
SCALAR_FIRST = re.compile("^Isaac", re.IGNORECASE)  # environments whose quaternions are wxyz
REWARDS = "rewards"


@dataclass(frozen=True)
class Layout:
    """What of a demonstration's `obs` is read, by its keys."""

    vectors: tuple[str, ...]
    cameras: dict[str, CameraSpec]  # as they are in the file


class ForeignFile:
    """The demonstrations `chosen` (None: all) of an open file; `episodes` opens it anew. See `robomimic.read`."""

    def __init__(
        self,
        file: h5py.File,
        chosen: set[str] | None,
        account: Account,
        cameras: tuple[str, ...] = (),
        image_size: int | None = None,
        ignore_rewards: bool = False,
    ) -> None:
        self._chosen, self._account = chosen, account
        self._arguments = hdf5.json_attribute(file["data"], "env_args")
        self._settings = self._arguments.object("env_kwargs", {})
        self._scalar_first = bool(SCALAR_FIRST.match(self._arguments.text("env_name", "")))
        self._layout = self._laid_out(file, cameras)
        self._absolute = is_absolute(self._settings)
        self._judge = self._judged(file, ignore_rewards)
        self.spec = self._spec(file, image_size)

    def episodes(self, path: Path) -> Iterator[Episode]:
        """One after the other."""
        with hdf5.opened(path) as file:
            for name, where, demo in hdf5.demos(file, self._chosen):
                with guard.reading(where):
                    episode = self._episode(demo, where, path, name)
                yield episode

    # ------------------------------------------------------------------------------------------------- the Spec

    def _laid_out(self, file: h5py.File, cameras: tuple[str, ...]) -> Layout:
        _, where, first = next(hdf5.demos(file, self._chosen))
        self._first = {*_observations(first, "obs", where)}
        vectors: list[str] = []
        found: dict[str, CameraSpec] = {}
        for key, item in _observations(first, "obs", where).items():
            if isinstance(item, h5py.Group):
                for inner in _below(item):
                    self._account.leave_out(f"obs/{key}/{inner}", "a group within obs")
            elif (camera := _camera(key, item)) is not None:
                taken = camera.name in [c.name for c in found.values()]
                found[key] = replace(camera, name=key) if taken else camera
            elif _is_vector(item):
                vectors.append(key)
            else:
                self._account.leave_out(f"obs/{key}", f"{item.dtype} {item.shape}: neither a vector nor a picture")
        pictures.chosen([c.name for c in found.values()], cameras, file.filename)
        kept = {key: c for key, c in found.items() if not cameras or c.name in cameras}
        for key in (key for key in found if key not in kept):
            self._account.leave_out(f"camera {found[key].name}", "not among --cameras")
        if not vectors:
            raise RobotRLError(f"{where}: 'obs' holds no vectors, only {hdf5.some(first['obs'])}; a state is needed")
        return Layout(tuple(vectors), kept)

    def _spec(self, file: h5py.File, image_size: int | None) -> Spec:
        state, target, longest = Ranges(), Ranges(), 0
        size = 0
        for _, where, demo in hdf5.demos(file, self._chosen):
            state.add(*self._state(demo, "obs", where), where)
            actions = hdf5.vector(demo, "actions", where)
            target.add([f"target_{i}" for i in range(actions.shape[1])], actions, where)
            longest, size = max(longest, len(actions)), actions.shape[1]
        deltas = tuple(Channel(f"action_{i}", "", -1.0, 1.0) for i in range(size))
        if self._absolute:
            self._account.note("actions are absolute, as env_args says: their range is the one seen in the file")
        rotations.tell_unclear(state.names or [], self._account)
        told = self._settings.values.get("robots") or ""
        robots = told if isinstance(told, (str, list)) else [told]
        return Spec(
            world=f"robomimic:{self._arguments.text('env_name', 'unknown')}",
            arm=robots if isinstance(robots, str) else " and ".join(map(str, robots)),
            state=state.channels(),
            action=target.channels() if self._absolute else deltas,
            cameras=tuple(pictures.sized(c, image_size) for c in self._layout.cameras.values()),
            rate=self._rate(),
            max_steps=longest,
        )

    def _rate(self) -> float:
        if "control_freq" not in self._settings:
            self._account.note(f"env_args tells no control_freq: {RATE:g} Hz are taken")
        return self._settings.number("control_freq", 1e-3, 1e4, default=RATE)

    def _judged(self, file: h5py.File, ignore_rewards: bool) -> outcome.Judge:
        there = [REWARDS in demo for _, _, demo in hdf5.demos(file, self._chosen)]
        if ignore_rewards:
            self._account.leave_out(REWARDS, "--ignore-rewards")
        elif not any(there):
            self._account.note(
                "there are no rewards: no episode is a success. robomimic's dataset_states_to_obs.py adds them"
            )
        else:
            told = (hdf5.vector(demo, REWARDS, where)[:, 0] for _, where, demo in hdf5.demos(file, self._chosen))
            return outcome.Judge.of(REWARDS, told, file.filename, self._account)
        return outcome.Judge("")

    # ---------------------------------------------------------------------------------------------- an episode

    def _state(self, demo: h5py.Group, group: str, where: str) -> tuple[list[str], np.ndarray]:
        """Names and values (N, S) of all vectors in demo/group."""
        there = _observations(demo, group, where)
        for key in sorted({*there} - self._first):
            self._account.leave_out(f"obs/{key}", "the first demonstration does not have it")
        names: list[str] = []
        columns: list[np.ndarray] = []
        if lacks := [key for key in self._layout.vectors if key not in there]:
            raise RobotRLError(f"{where}: '{group}' lacks {', '.join(lacks)}, which the first demonstration has")
        for key in self._layout.vectors:
            values = hdf5.vector(demo[group], key, where)
            names += _named(key, values.shape[1])
            columns.append(values)
        hdf5.require_equal_lengths(
            {f"{group}/{key}": len(c) for key, c in zip(self._layout.vectors, columns, strict=True)}, where
        )
        return rotations.continuous(names, np.concatenate(columns, 1), where, self._scalar_first)

    def _episode(self, demo: h5py.Group, where: str, path: Path, name: str) -> Episode:
        action = self._action(hdf5.vector(demo, "actions", where), where)
        state, rows = self._rows_of_state(demo, where)
        lengths = {"obs": rows, "actions": len(action)}
        told = hdf5.vector(demo, REWARDS, where)[:, 0] if self._judge.key else None
        hdf5.require_equal_lengths(lengths | ({} if told is None else {REWARDS: len(told)}), where)
        if len(state) < 2:
            raise RobotRLError(f"{where} has a single observation and no 'next_obs'; remove it from the file")
        result = self._outcome(told, len(state) - 1)
        T = len(result)
        return Episode(
            obs=self._obs(demo, state[: T + 1], rows, where),
            action=action[:T],
            reward=result.reward,
            score=result.score,
            intervened=np.zeros(T, bool),
            terminated=result.terminated,
            truncated=not result.terminated,
            meta={"source": str(path), "demo": name, "success_from": self._judge.key},
        )

    def _rows_of_state(self, demo: h5py.Group, where: str) -> tuple[np.ndarray, int]:
        """States (T + 1, S), one more than actions, and how many rows `obs` has."""
        names, state = self._state(demo, "obs", where)
        rows = len(state)
        if names != [c.name for c in self.spec.state]:
            raise RobotRLError(f"{where} holds other observations than the demonstrations before it; leave it out")
        if "next_obs" in demo:
            after = self._state(demo, "next_obs", where)[1]
            hdf5.require_equal_lengths({"obs": rows, "next_obs": len(after)}, where)
            state = np.concatenate([state, after[-1:]])
        return state.astype(np.float32), rows

    def _outcome(self, told: np.ndarray | None, length: int) -> outcome.Outcome:
        if told is None:
            return outcome.none(length)
        folded = told if len(told) == length else np.append(told[: length - 1], max(told[length - 1 :]))
        return self._judge.outcome(folded, self._account)

    def _obs(self, demo: h5py.Group, state: np.ndarray, rows: int, where: str) -> Obs:
        stamps = np.arange(len(state)) / self.spec.rate
        obs: Obs = {"state": state, "stamp/state": stamps}
        for key, camera in zip(self._layout.cameras, self.spec.cameras, strict=True):
            whole = len(state) > rows  # the observation after the last action is in next_obs
            last = f"next_obs/{key}" if whole else None
            images = hdf5.images(demo, f"obs/{key}", where, rows if whole else len(state), camera, self._account, last)
            obs |= {f"image/{camera.name}": images, f"stamp/image/{camera.name}": stamps.copy()}
        return obs

    def _action(self, actions: np.ndarray, where: str) -> np.ndarray:
        """As -1 to 1."""
        if actions.shape[1] != len(self.spec.action):
            raise RobotRLError(f"{where}: actions have {actions.shape[1]} numbers, before it {len(self.spec.action)}")
        if self._absolute:
            return np.clip(control.to_unit(actions, self.spec.action), -1.0, 1.0).astype(np.float32)
        if (reach := np.abs(actions.astype(np.float64)).max(initial=0.0)) > 1.0 + 1e-6:  # of int8 -128 is abs(-128)
            raise RobotRLError(
                f"{where}: actions {actions.shape} reach {reach:.4g}; by env_args they are deltas in [-1, 1]. "
                "If they are absolute, say so there (controller_configs: control_delta false), or convert them"
            )
        return np.clip(actions, -1.0, 1.0).astype(np.float32)


def is_absolute(settings: Metadata) -> bool:
    """Whether the actions of robosuite's `env_kwargs` are where to go, not how far: of any arm's controller."""
    return any(c.get("control_delta") is False or c.get("input_type") == "absolute" for c in _controllers(settings))


def _controllers(settings: Metadata) -> list[dict[str, Any]]:
    """Of every arm; 1.5 nests them in the robot's."""
    told = settings.values.get("controller_configs")
    found: list[dict[str, Any]] = []
    for robot in told if isinstance(told, list) else [told]:
        if isinstance(robot, dict):
            parts = robot.get("body_parts")
            found += [robot, *(p for p in (parts.values() if isinstance(parts, dict) else ()) if isinstance(p, dict))]
    return found


def _observations(demo: h5py.Group, group: str, where: str) -> dict[str, Any]:
    """What demo/group holds, by name."""
    if not isinstance(demo.get(group), h5py.Group):
        raise RobotRLError(
            f"{where} holds no '{group}'; let robomimic's dataset_states_to_obs.py add observations to the file"
        )
    with guard.reading(f"{where}: '{group}'"):
        return {key: demo[group][key] for key in sorted(demo[group])}


def _below(group: h5py.Group) -> list[str]:
    found: list[str] = []
    group.visititems(lambda key, item: found.append(f"{key} {item.shape}") if isinstance(item, h5py.Dataset) else None)
    return found or ["(empty)"]


def _camera(key: str, item: h5py.Dataset) -> CameraSpec | None:
    """The camera whose pictures a dataset holds; None: it holds none."""
    shape: tuple[int, ...] = tuple(item.shape or ())
    if hdf5.colours_first(shape):
        shape = (shape[0], *shape[2:], shape[1])
    if len(shape) == 3 and item.dtype == np.uint16:
        shape = (*shape, 1)
    depth = item.dtype == np.uint16
    if len(shape) != 4 or not (item.dtype == np.uint8 or (depth and shape[3] == 1)) or shape[3] not in (1, 3, 4):
        return None
    if not (0 < shape[1] <= LARGEST_IMAGE and 0 < shape[2] <= LARGEST_IMAGE):
        return None
    name = key if depth else PICTURE.sub("", key)
    return CameraSpec(name, shape[1], shape[2], depth=depth)


def _is_vector(item: Any) -> bool:
    shape = getattr(item, "shape", None)
    if not isinstance(item, h5py.Dataset) or not shape or item.dtype.kind not in "biuf" or item.dtype.itemsize > 8:
        return False
    return len(shape) == 1 or (len(shape) == 2 and 0 < shape[1] <= hdf5.WIDEST)


def _named(key: str, size: int) -> list[str]:
    """A name for each number; in LIBERO's `ee_states` the last three of six are axis times angle."""
    if key == "ee_states" and size == 6:
        return [*(f"{key}_{i}" for i in range(3)), *(f"{key}_ori_{i}" for i in range(3))]
    return [f"{key}_{i}" for i in range(size)]
