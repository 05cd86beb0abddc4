"""What robosuite tells of a moment, as one state vector with named channels; quaternions become 6-D rotations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from robot_rl.geometry import matrix_from_quat, rot6d_from_matrix
from robot_rl.types import Channel

ROBOT_KEYS = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "robot0_joint_pos")
SLIDE = 2  # mujoco.mjtJoint.mjJNT_SLIDE


class StateReader:
    """robosuite's own sensors, read at one moment and laid out as channels."""

    def __init__(self, suite: Any, *, every_object: bool) -> None:
        observables = suite._observables
        sensors = {name: o._sensor for name, o in observables.items() if _is_needed(name, o)}
        values, rounds = _evaluated(sensors)
        about_objects = [
            name
            for name, o in observables.items()
            if o.modality == "object" and np.ndim(values[name]) < 2 and (every_object or o.is_active())
        ]
        self._keys = [key for key in (*ROBOT_KEYS, *about_objects) if key in values and np.size(values[key])]
        self._sensors = [(name, sensors[name]) for name in _in_order(self._keys, rounds)]
        self._turns = [key for key in self._keys if key.endswith("_quat")]
        self.channels = tuple(c for key in self._keys for c in _channels(suite, key, np.size(values[key])))

    def read(self) -> np.ndarray:
        """(S,) float32."""
        values: dict[str, Any] = {}
        for name, sensor in self._sensors:
            values[name] = sensor(values)
        rotations = rot6d_from_matrix(matrix_from_quat(np.stack([values[key] for key in self._turns])))  # (n, 6)
        values.update(zip(self._turns, rotations, strict=True))
        return np.concatenate([np.ravel(values[key]) for key in self._keys]).astype(np.float32)


class _Watched(dict[str, Any]):
    """A cache that notes which keys a sensor looked at and which it set."""

    def __init__(self) -> None:
        super().__init__()
        self.read: set[str] = set()
        self.written: set[str] = set()

    def __contains__(self, key: object) -> bool:
        self.read.add(str(key))
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.written.add(key)
        super().__setitem__(key, value)


def _evaluated(sensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[set[str], set[str]]]]:
    """What every sensor says, and of each, the keys it reads and the keys it sets: its own, and for some a second one.

    Twice round, because some build on what a later one leaves in the cache.
    """
    cache, touched = _Watched(), {}
    for _ in range(2):
        for name, sensor in sensors.items():
            cache.read, cache.written = set(), {name}
            cache[name] = sensor(cache)
            touched[name] = (cache.read - {name}, cache.written)
    return dict(cache), touched


def _in_order(wanted: Iterable[str], touched: dict[str, tuple[set[str], set[str]]]) -> list[str]:
    """The sensors that the wanted keys need, each after those whose work it reads."""
    order: list[str] = []

    def visit(key: str, above: frozenset[str]) -> None:
        for name in (n for n, (_, written) in touched.items() if key in written and n not in order and n not in above):
            for other in sorted(touched[name][0]):
                visit(other, above | {name})
            if name not in order:
                order.append(name)

    for key in wanted:
        visit(key, frozenset())
    return order


def _is_needed(name: str, observable: Any) -> bool:
    return name in ROBOT_KEYS or observable.modality == "object"


def _channels(suite: Any, key: str, size: int) -> Iterable[Channel]:
    """The channels of one of robosuite's observables; rotations grow from 4 numbers to 6."""
    if key.endswith("_quat"):
        return [Channel(f"{key[:-5]}_rot6d_{i}", "1", -1.0, 1.0) for i in range(6)]
    if key == "robot0_joint_pos":
        return _joint_channels(suite, key, suite.robots[0].robot_joints)
    if key == "robot0_gripper_qpos":
        return _joint_channels(suite, key, suite.robots[0].gripper_joints["right"])
    if size == 3:
        return [Channel(f"{key}_{axis}", "m", -2.0, 2.0) for axis in "xyz"]
    if key.endswith("_qpos"):
        return [Channel(key, "rad", -np.pi, np.pi)]
    if key.endswith("_radius"):
        return [Channel(key, "m", 0.0, 2.0)]
    return [Channel(key, "1", 0.0, 10.0 if key.endswith("_id") else 1.0)]


def _joint_channels(suite: Any, key: str, joints: Iterable[str]) -> Iterable[Channel]:
    """One channel a joint, with the unit and the limits of the model."""
    model = suite.sim.model
    for i, joint in enumerate(joints):
        index = model.joint_name2id(joint)
        low, high = model.jnt_range[index] if model.jnt_limited[index] else (-2 * np.pi, 2 * np.pi)
        yield Channel(f"{key}_{i}", "m" if model.jnt_type[index] == SLIDE else "rad", float(low), float(high))
