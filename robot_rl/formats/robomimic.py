"""Reads and writes robomimic's HDF5 files (0.2, 0.3): `data/demo_<i>` with obs, next_obs, actions, rewards and dones.

What we write, robomimic reads with the observation keys "state", "<camera>_image"; depth is "<camera>_depth".
What robomimic has no place for (stamps, scores, interventions, extras) lies beside it in the group `robot_rl` of every
demonstration, so that reading a file of our own gives back the episodes exactly. A file with simulator states rather
than observations is read by `robosuite_hdf5.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robot_rl.formats import hdf5
from robot_rl.geometry import matrix_from_quat, rot6d_from_matrix
from robot_rl.types import CameraSpec, Channel, Episode, Obs, RobotRLError, Spec

SPEC = "robot_rl_spec"  # attribute of `data` in files of our own
OURS = "robot_rl"  # group of a demonstration in files of our own
ROBOSUITE, GYM = 1, 2  # robomimic's EnvType
RATE = 20.0  # robosuite's and robomimic's control rate where a file does not tell [Hz]


def write(path: Path, spec: Spec, episodes: Iterable[Episode]) -> int:
    """Export `episodes` of `spec` to the new file `path`; returns how many. The file appears whole or not at all."""
    path = Path(path)
    if path.exists():
        raise RobotRLError(f"{path} exists and is not overwritten; remove it or choose another name")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # of a link the link
        with h5py.File(temporary, "x") as file:
            count = _fill(file.create_group("data"), spec, episodes)
        os.rename(temporary, path)
    except OSError as error:
        raise RobotRLError(f"{path} could not be written ({error}); choose another place or free some space") from error
    finally:
        temporary.unlink(missing_ok=True)
    return count


def read(path: Path) -> tuple[Spec, Iterator[Episode]]:
    """The Spec of the file at `path`, and its episodes one at a time.

    A file of our own tells its Spec. Of another file the Spec is made from its observations: every vector under `obs`
    becomes channels of the state, in the order of the names and with the range seen in the file, quaternions in 6-D
    form; every "<camera>_image" becomes a camera. Without `next_obs` the last action of a demonstration is dropped.
    """
    path = Path(path)
    with hdf5.opened(path) as file:
        list(hdf5.demos(file))  # raises where there are none
        spec = _own_spec(file) if SPEC in file["data"].attrs else _foreign_spec(file)
    return spec, _episodes(path, spec)


def _fill(data: h5py.Group, spec: Spec, episodes: Iterable[Episode]) -> int:
    count = total = 0
    for count, episode in enumerate(episodes, 1):
        _write_demo(data.create_group(f"demo_{count - 1}"), episode, spec)
        total += len(episode)
    if not count:
        raise RobotRLError("there are no episodes to export; collect or choose some")
    data.attrs["total"] = total
    data.attrs["env_args"] = json.dumps(_env_args(spec))
    data.attrs[SPEC] = json.dumps(spec.to_dict())
    return count


def _env_args(spec: Spec) -> dict[str, Any]:
    suite, _, task = spec.world.partition(":")
    if suite == "robosuite":
        arguments = {"robots": [spec.arm], "control_freq": int(spec.rate)}
        return {"env_name": task, "type": ROBOSUITE, "env_kwargs": arguments}
    return {"env_name": spec.world, "type": GYM, "env_kwargs": {}}


def _write_demo(demo: h5py.Group, episode: Episode, spec: Spec) -> None:
    length = len(episode)
    demo.attrs.update({"num_samples": length, "terminated": episode.terminated, "truncated": episode.truncated})
    demo.attrs["meta"] = json.dumps(episode.meta)
    for key, name in _names(spec).items():
        if key not in episode.obs or len(episode.obs[key]) != length + 1:
            raise RobotRLError(f"an episode to export has no '{key}' of {length + 1} rows, which {spec.world} promises")
        _put(demo, f"obs/{name}", episode.obs[key][:-1])
        _put(demo, f"next_obs/{name}", episode.obs[key][1:])
    dones = np.zeros(length, np.int64)
    dones[-1] = episode.terminated  # a time-out is no end: learners bootstrap from it
    for name, values in (("actions", episode.action), ("rewards", episode.reward), ("dones", dones)):
        _put(demo, name, values)
    ours = demo.create_group(OURS)
    for name, values in (("score", episode.score), ("intervened", episode.intervened)):
        _put(ours, name, values)
    for key, values in episode.obs.items():
        if key not in _names(spec):
            _put(ours, f"obs/{key}", values)
    for key, values in episode.extras.items():
        _put(ours, f"extras/{key}", values)


def _put(group: h5py.Group, name: str, values: np.ndarray) -> None:
    group.create_dataset(name, data=values, compression="gzip" if values.ndim == 4 else None)  # pictures only


def _names(spec: Spec) -> dict[str, str]:
    """Our observation keys and what robomimic calls them."""
    kinds = {c.name: f"{c.name.removesuffix('_depth')}_depth" if c.depth else f"{c.name}_image" for c in spec.cameras}
    return {"state": "state"} | {f"image/{name}": key for name, key in kinds.items()}


def _episodes(path: Path, spec: Spec) -> Iterator[Episode]:
    with hdf5.opened(path) as file:
        own = SPEC in file["data"].attrs
        for name, where, demo in hdf5.demos(file):
            yield _own_episode(demo, spec, where) if own else _foreign_episode(demo, spec, where, path, name)


def _own_spec(file: h5py.File) -> Spec:
    return Spec.from_dict(hdf5.json_attribute(file["data"], SPEC))


def _own_episode(demo: h5py.Group, spec: Spec, where: str) -> Episode:
    obs = {key: _all_rows(demo, name, where) for key, name in _names(spec).items()}
    arrays = {key: hdf5.array(demo, key, where) for key in ("actions", "rewards")}
    arrays |= {key: hdf5.array(demo, f"{OURS}/{key}", where) for key in ("score", "intervened")}
    hdf5.require_equal_lengths({k: len(v) for k, v in arrays.items()}, where)
    return Episode(
        obs=obs | _nested(demo[OURS], "obs", where),
        action=arrays["actions"],
        reward=arrays["rewards"],
        score=arrays["score"],
        intervened=arrays["intervened"],
        terminated=bool(demo.attrs["terminated"]),
        truncated=bool(demo.attrs["truncated"]),
        extras=_nested(demo[OURS], "extras", where),
        meta=hdf5.json_attribute(demo, "meta"),
    )


def _nested(group: h5py.Group, name: str, where: str) -> dict[str, np.ndarray]:
    """Every dataset below group/name, its key being the path from there: "stamp/state"."""
    keys: list[str] = []
    if name in group:
        group[name].visititems(lambda key, item: keys.append(key) if isinstance(item, h5py.Dataset) else None)
    return {key: hdf5.array(group[name], key, where) for key in keys}


def _all_rows(demo: h5py.Group, name: str, where: str) -> np.ndarray:
    """(T + 1, ...) observations: those before every action, and the one after the last."""
    rows, after = hdf5.array(demo, f"obs/{name}", where), hdf5.array(demo, f"next_obs/{name}", where)
    hdf5.require_equal_lengths({f"obs/{name}": len(rows), f"next_obs/{name}": len(after)}, where)
    return np.concatenate([rows, after[-1:]])


def _foreign_spec(file: h5py.File) -> Spec:
    arguments = hdf5.json_attribute(file["data"], "env_args")
    settings = arguments.get("env_kwargs", {})
    robots = settings.get("robots") or ""
    _, where, first = next(hdf5.demos(file))
    cameras = [(key, first["obs"][key].shape) for key in sorted(first.get("obs", ())) if key.endswith("_image")]
    return Spec(
        world=f"robomimic:{arguments.get('env_name')}",
        arm=robots if isinstance(robots, str) else " and ".join(robots),
        state=_channels(file),
        action=tuple(
            Channel(f"action_{i}", "", -1.0, 1.0) for i in range(hdf5.array(first, "actions", where).shape[1])
        ),
        cameras=tuple(CameraSpec(key.removesuffix("_image"), shape[1], shape[2]) for key, shape in cameras),
        rate=float(settings.get("control_freq", RATE)),
        max_steps=max(len(hdf5.array(demo, "actions", where)) for _, where, demo in hdf5.demos(file)),
    )


def _channels(file: h5py.File) -> tuple[Channel, ...]:
    """The state's channels, with the ranges seen in the whole file; raises where demonstrations hold unlike ones."""
    ranges: dict[str, tuple[float, float]] = {}
    for _, where, demo in hdf5.demos(file):
        names, state = _foreign_state(demo, "obs", where)
        if ranges and names != list(ranges):
            raise RobotRLError(
                f"{where} holds other observations ({len(names)} numbers) than the demonstrations before it "
                f"({len(ranges)}); split the file, or leave it out"
            )
        for name, low, high in zip(names, state.min(0).tolist(), state.max(0).tolist(), strict=True):
            before = ranges.get(name, (low, high))
            ranges[name] = (min(low, before[0]), max(high, before[1]))
    return tuple(Channel(name, "", low, high) for name, (low, high) in ranges.items())


def _foreign_state(demo: h5py.Group, group: str, where: str) -> tuple[list[str], np.ndarray]:
    """Names and values (N, S) float32 of all vectors in demo/group."""
    if not isinstance(demo.get(group), h5py.Group):
        raise RobotRLError(
            f"{where} holds no '{group}'; let robomimic's dataset_states_to_obs.py add observations to the file"
        )
    names: list[str] = []
    columns: list[np.ndarray] = []
    for key in sorted(k for k, item in demo[group].items() if isinstance(item, h5py.Dataset) and item.ndim == 2):
        values = hdf5.array(demo[group], key, where)
        if key.endswith("_quat") and values.shape[1] == 4:
            key, values = f"{key[:-5]}_rot6d", rot6d_from_matrix(matrix_from_quat(values))
        names += [f"{key}_{i}" for i in range(values.shape[1])]
        columns.append(values)
    if not columns:
        raise RobotRLError(f"{where}: '{group}' holds no vectors, only {sorted(demo[group])}; a state is needed")
    hdf5.require_equal_lengths({f"{group}/{key}": len(item) for key, item in demo[group].items()}, where)
    return names, np.concatenate(columns, 1).astype(np.float32)


def _foreign_episode(demo: h5py.Group, spec: Spec, where: str, path: Path, name: str) -> Episode:
    action = _unit_actions(hdf5.array(demo, "actions", where), where)
    obs, length = _foreign_obs(demo, spec, where)
    reward = _sparse(hdf5.array(demo, "rewards", where), where)
    rows = len(next(iter(demo["obs"].values())))
    hdf5.require_equal_lengths({"obs": rows, "actions": len(action), "rewards": len(reward)}, where)
    reward = reward[:length]
    success = bool(reward[-1] > 0)
    return Episode(
        obs=obs,
        action=action[:length],
        reward=reward,
        score=reward.copy(),
        intervened=np.zeros(length, bool),
        terminated=success,
        truncated=not success,
        meta={"source": str(path), "demo": name},
    )


def _foreign_obs(demo: h5py.Group, spec: Spec, where: str) -> tuple[Obs, int]:
    """Observations, one more than actions, and the number of actions between them."""
    _, state = _foreign_state(demo, "obs", where)
    has_next = "next_obs" in demo
    if has_next:
        state = np.concatenate([state, _foreign_state(demo, "next_obs", where)[1][-1:]])
    if len(state) < 2:
        raise RobotRLError(f"{where} has a single observation and no 'next_obs'; remove it from the file")
    obs: Obs = {"state": state, "stamp/state": np.arange(len(state)) / spec.rate}
    for key, robomimic_key in _names(spec).items():
        if key != "state":
            images = (
                _all_rows(demo, robomimic_key, where) if has_next else hdf5.array(demo["obs"], robomimic_key, where)
            )
            obs |= {key: images, f"stamp/{key}": obs["stamp/state"].copy()}
    return obs, len(state) - 1


def _unit_actions(actions: np.ndarray, where: str) -> np.ndarray:
    if actions.ndim != 2 or np.abs(actions).max(initial=0.0) > 1.0 + 1e-6:
        raise RobotRLError(
            f"{where}: actions {actions.shape} reach {np.abs(actions).max(initial=0.0):.4g}; robomimic's are rows in "
            "[-1, 1]. Absolute poses must be converted to deltas first"
        )
    return np.clip(actions, -1.0, 1.0).astype(np.float32)


def _sparse(rewards: np.ndarray, where: str) -> np.ndarray:
    if not np.isin(rewards, (0.0, 1.0)).all():
        raise RobotRLError(
            f"{where}: rewards span [{rewards.min():.4g}, {rewards.max():.4g}]; only 0 and 1 (success) can be read. "
            "Convert the file without reward shaping"
        )
    return rewards.reshape(-1).astype(np.float32)
