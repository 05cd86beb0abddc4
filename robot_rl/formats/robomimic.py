"""Reads and writes robomimic's HDF5 files (0.2, 0.3): `data/demo_<i>` with obs, next_obs, actions, rewards and dones.

What we write, robomimic reads with the observation keys "state", "<camera>_image"; depth is "<camera>_depth".
What robomimic has no place for (stamps, scores, interventions, extras) lies beside it in the group `robot_rl` of every
demonstration, so that reading a file of our own gives back the episodes exactly. A file with simulator states rather
than observations is read by `robosuite_hdf5.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robot_rl.formats import guard, hdf5, metadata, pictures
from robot_rl.formats.account import Account
from robot_rl.formats.robomimic_foreign import ForeignFile
from robot_rl.types import CameraSpec, Episode, RobotRLError, Spec

SPEC = "robot_rl_spec"  # attribute of `data` in files of our own
OURS = "robot_rl"  # group of a demonstration in files of our own
ROBOSUITE, GYM = 1, 2  # robomimic's EnvType


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


def read(
    path: Path,
    account: Account | None = None,
    cameras: Sequence[str] = (),
    image_size: int | None = None,
    filter_key: str | None = None,
    ignore_rewards: bool = False,
) -> tuple[Spec, Iterator[Episode]]:
    """The Spec of the file at `path`, and its episodes one at a time.

    A file of our own tells its Spec; how another's is made, `robomimic_foreign.py` says. Of the cameras those named in
    `cameras` are read, or all, their pictures `image_size` pixels high and wide where that is given. `filter_key` names
    a mask of the file; `ignore_rewards` reads nothing of success. What is left out goes to `account`.
    """
    path, account = Path(path), account if account is not None else Account()
    with hdf5.opened(path) as file:
        chosen = hdf5.masked(file, filter_key, account)
        list(hdf5.demos(file, chosen))  # raises where there are none
        own = hdf5.attribute(file["data"], SPEC) is not None
        if not own:
            foreign = ForeignFile(file, chosen, account, tuple(cameras), image_size, ignore_rewards)
        spec = _own_spec(file, cameras, image_size) if own else foreign.spec
    return spec, _episodes(path, spec, chosen, account) if own else foreign.episodes(path)


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


def _episodes(path: Path, spec: Spec, chosen: set[str] | None, account: Account) -> Iterator[Episode]:
    with hdf5.opened(path) as file:
        for _, where, demo in hdf5.demos(file, chosen):
            with guard.reading(where):
                episode = _own_episode(demo, spec, where, account)
            yield episode


def _own_spec(file: h5py.File, cameras: Sequence[str], image_size: int | None) -> Spec:
    spec = metadata.spec(hdf5.json_attribute(file["data"], SPEC))
    pictures.chosen([c.name for c in spec.cameras], cameras, file.filename)
    kept = [c for c in spec.cameras if not cameras or c.name in cameras]
    return replace(spec, cameras=tuple(pictures.sized(c, image_size) for c in kept))


def _own_episode(demo: h5py.Group, spec: Spec, where: str, account: Account) -> Episode:
    cameras = {f"image/{camera.name}": camera for camera in spec.cameras}
    obs = {key: _all_rows(demo, name, where, cameras.get(key), account) for key, name in _names(spec).items()}
    arrays = {key: hdf5.array(demo, key, where) for key in ("actions", "rewards")}
    arrays |= {key: hdf5.array(demo, f"{OURS}/{key}", where) for key in ("score", "intervened")}
    hdf5.require_equal_lengths({k: len(v) for k, v in arrays.items()}, where)
    ours = hdf5.group(demo, OURS, where)
    stamps = {key: v for key, v in _nested(ours, "obs", where).items() if _is_of(key, cameras)}
    return Episode(
        obs=obs | stamps,
        action=arrays["actions"],
        reward=arrays["rewards"],
        score=arrays["score"],
        intervened=arrays["intervened"],
        terminated=bool(demo.attrs["terminated"]),
        truncated=bool(demo.attrs["truncated"]),
        extras=_nested(ours, "extras", where),
        meta=hdf5.json_attribute(demo, "meta").values,
    )


def _is_of(key: str, cameras: Mapping[str, CameraSpec]) -> bool:
    """Whether a stamp belongs to what is read: those of cameras that are left out do not."""
    read = key.removeprefix("stamp/")
    return not read.startswith("image/") or read in cameras


def _nested(group: h5py.Group, name: str, where: str) -> dict[str, np.ndarray]:
    """Every dataset below group/name, its key being the path from there: "stamp/state"."""
    keys: list[str] = []
    if name in group:
        found = hdf5.group(group, name, where)
        found.visititems(lambda key, item: keys.append(key) if isinstance(item, h5py.Dataset) else None)
    return {key: hdf5.array(group[name], key, where) for key in keys}


def _all_rows(demo: h5py.Group, name: str, where: str, camera: CameraSpec | None, account: Account) -> np.ndarray:
    """(T + 1, ...) observations: those before every action, and the one after the last."""
    before, after = (hdf5.dataset(demo, f"{group}/{name}", where) for group in ("obs", "next_obs"))
    hdf5.require_equal_lengths({f"obs/{name}": len(before), f"next_obs/{name}": len(after)}, where)
    if camera is None:
        rows = hdf5.array(demo, f"obs/{name}", where)
        return np.concatenate([rows, hdf5.array(demo, f"next_obs/{name}", where)[-1:]])
    return hdf5.images(demo, f"obs/{name}", where, len(before), camera, account, last_of=f"next_obs/{name}")
