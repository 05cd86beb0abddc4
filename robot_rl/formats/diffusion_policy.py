"""Reads and writes the replay buffers of Diffusion Policy (zarr v2: `data/*` and `meta/episode_ends`).

Such a buffer holds one observation for every action and none after the last one, while our episodes need it. The last
action of every episode is therefore dropped: an N-row recording becomes an episode of N - 1 actions. What is written
has such a last row: it repeats the last action, as Diffusion Policy pads an episode's end, and so nothing is lost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from robot_rl import control, zarr_metadata
from robot_rl.atomic import discard
from robot_rl.types import CameraSpec, Episode, Obs, RobotRLError, Spec

SPEC = "robot_rl_spec"  # attribute of buffers of our own
ZARR_2: dict[str, Any] = {"zarr_format": 2} if int(zarr.__version__.split(".")[0]) >= 3 else {}
ROWS, IMAGE_ROWS = 4096, 32  # of a chunk

Rows = Callable[[np.ndarray], np.ndarray]


def read(path: Path, spec: Spec, observe: Rows, grade: Rows) -> Iterator[Episode]:
    """The episodes of the buffer at `path`, one at a time, as recordings of the world of `spec`.

    `observe` turns recorded states (N, D) into states (N, S) float32 of `spec`, `grade` turns them into scores (N,)
    in [0, 1], 1 being success; both come from the world. Actions are in the units of `spec.action`; one outside its
    range is an error, because the robot did go there and a clipped action would say that it did not. Where `spec`
    has a camera, the buffer's `img` is its picture. The first recorded state is kept in `meta["reset_to"]`.
    """
    path = Path(path)
    data, ends = _open(path)
    states, actions = _numbers(path, data, "state", ends[-1]), _numbers(path, data, "action", ends[-1])
    if actions.shape[1] != len(spec.action):
        raise RobotRLError(f"{path}: data/action has {actions.shape[1]} columns; {spec.world} takes {len(spec.action)}")
    images = _pictures(path, data, spec, ends[-1])
    for index, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        where = f"{path}: episode {index}"
        obs = _observations(states[start:end], spec, observe, where)
        if images is not None:
            obs |= _camera_rows(images, start, end, spec.cameras[0], spec.rate, where)
        score = np.asarray(grade(states[start:end]), np.float32)[1:]
        action = _unit_actions(actions[start : end - 1], spec, where)
        meta = {"source": str(path), "episode": index, "reset_to": states[start].tolist()}
        yield _episode(obs, action, score, meta)


def own_spec(path: Path) -> Spec | None:
    """The Spec of a buffer that `write` made; None: another project's."""
    try:
        told = zarr_metadata.open_group(path)[0].attrs.get(SPEC)
    except (OSError, ValueError, KeyError) as error:
        raise RobotRLError(f"{path} is not a whole Diffusion Policy replay buffer: {error}") from error
    return None if told is None else Spec.from_dict(json.loads(str(told)))


def read_own(path: Path, spec: Spec) -> Iterator[Episode]:
    """The episodes of a buffer that `write` made."""
    data, ends = _open(path)
    scores = iter(np.split(_numbers(path, data, "score", ends[-1])[:, 0], ends[:-1]))
    return read(path, spec, lambda states: states.astype(np.float32), lambda _states: next(scores))


def write(path: Path, spec: Spec, episodes: Iterable[Episode]) -> int:
    """Export `episodes` of `spec` to the new folder `path`; returns how many. It appears whole or not at all.

    States are as observed and actions in the units of `spec.action`; stamps, interventions and extras are not written.
    The pictures of one camera are `img`, of several `img_<camera>` each, as bytes.
    """
    path = Path(path)
    if path.exists():
        raise RobotRLError(f"{path} exists and is not overwritten; remove it or choose another name")
    part = path.with_name(f".part-{path.name}")
    discard(part)
    try:
        ends = _fill(part, spec, episodes)
        os.rename(part, path)
    except OSError as error:
        raise RobotRLError(f"{path} could not be written ({error}); choose another place or free some space") from error
    finally:
        discard(part)
    return len(ends)


def _fill(part: Path, spec: Spec, episodes: Iterable[Episode]) -> list[int]:
    """Write the buffer, an episode at a time; the exclusive end row of every one."""
    root: Any = zarr.open_group(str(part), mode="w", **ZARR_2)
    root.attrs[SPEC] = json.dumps(spec.to_dict())
    data, ends = root.require_group("data"), list[int]()
    for episode in episodes:
        action = control.to_physical(episode.action, spec.action)
        rows = {"state": episode.obs["state"], "action": np.concatenate([action, action[-1:]]).astype(np.float32)}
        rows["score"] = np.append(np.float32(0), episode.score)[:, None]  # of the observation in the same row
        for camera in spec.cameras:
            rows[_picture_name(spec, camera)] = episode.obs[f"image/{camera.name}"]
        for key, values in rows.items():
            if not ends:
                _made(data, key, values)
            data[key].resize(((ends[-1] if ends else 0) + len(values), *values.shape[1:]))
            data[key][-len(values) :] = values
        ends.append((ends[-1] if ends else 0) + len(action) + 1)
    if not ends:
        raise RobotRLError("there are no episodes to export; collect or choose some")
    _made(root.require_group("meta"), "episode_ends", np.array(ends))
    root["meta"]["episode_ends"].resize((len(ends),))
    root["meta"]["episode_ends"][:] = np.array(ends)
    return ends


def _made(group: Any, key: str, like: np.ndarray) -> None:
    """An empty array for rows such as those of `like`."""
    make = group.create_array if hasattr(group, "create_array") else group.create_dataset  # zarr 3, zarr 2
    rows = IMAGE_ROWS if like.ndim == 4 else ROWS
    make(key, shape=(0, *like.shape[1:]), chunks=(rows, *like.shape[1:]), dtype=like.dtype)


def _picture_name(spec: Spec, camera: CameraSpec) -> str:
    return "img" if len(spec.cameras) == 1 else f"img_{camera.name}"


def _open(path: Path) -> tuple[Any, list[int]]:
    """The group `data` and the exclusive end row of every episode."""
    if not path.exists():
        raise RobotRLError(f"{path} does not exist; give the folder of a Diffusion Policy replay buffer (*.zarr)")
    try:
        root, _ = zarr_metadata.open_group(path)
        data, ends = root["data"], np.asarray(root["meta"]["episode_ends"][:])
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise RobotRLError(
            f"{path} is not a whole Diffusion Policy replay buffer (zarr with data/* and meta/episode_ends): {error}"
        ) from error
    if len(ends) == 0:
        raise RobotRLError(f"{path} holds no episodes: meta/episode_ends is empty; record or download it again")
    lengths = np.diff(ends, prepend=0)
    if lengths.min() < 2:
        short = int(np.argmin(lengths))
        raise RobotRLError(f"{path}: episode {short} has {lengths[short]} rows; an episode needs 2 or more. Remove it")
    return data, [int(end) for end in ends]


def _array(path: Path, data: Any, key: str, rows: int) -> Any:
    """The zarr array data/`key`, known to be complete."""
    try:
        array = data[key]
    except KeyError as error:
        raise RobotRLError(f"{path} lacks data/{key}; it has: {', '.join(sorted(data))}") from error
    if array.shape[0] != rows:
        raise RobotRLError(
            f"{path}: data/{key} has {array.shape[0]} rows, but meta/episode_ends says {rows}; the copy is incomplete"
        )
    if array.nchunks_initialized < array.nchunks:  # zarr reads zeros in place of a lost file, without a word
        lost = array.nchunks - array.nchunks_initialized
        raise RobotRLError(f"{path}: {lost} of {array.nchunks} chunk files of data/{key} are missing; copy it again")
    return array


def _loaded(path: Path, array: Any, key: str, start: int, end: int) -> np.ndarray:
    try:
        return np.asarray(array[start:end])
    except (OSError, ValueError, RuntimeError) as error:
        raise RobotRLError(f"{path}: data/{key} cannot be decoded ({error}); copy it again") from error


def _numbers(path: Path, data: Any, key: str, rows: int) -> np.ndarray:
    """data/`key` (N, D) as float64, all of it finite."""
    values = _loaded(path, _array(path, data, key, rows), key, 0, rows).astype(np.float64)
    if values.ndim != 2:
        raise RobotRLError(f"{path}: data/{key} has shape {values.shape}; it must be (rows, numbers)")
    bad = ~np.isfinite(values).all(1)
    if bad.any():
        raise RobotRLError(
            f"{path}: data/{key} holds NaN or infinity in {bad.sum()} rows, first in row {int(np.argmax(bad))}; "
            "remove the episodes they belong to"
        )
    return values


def _pictures(path: Path, data: Any, spec: Spec, rows: int) -> Any:
    if not spec.cameras:
        return None
    if len(spec.cameras) > 1:
        raise RobotRLError(f"{path}: a Diffusion Policy buffer has one picture, `img`; {spec.world} has {spec.cameras}")
    array, camera = _array(path, data, "img", rows), spec.cameras[0]
    if array.shape[1:] != (camera.height, camera.width, 3):
        raise RobotRLError(
            f"{path}: data/img holds pictures {array.shape[1:]}; camera '{camera.name}' gives "
            f"({camera.height}, {camera.width}, 3)"
        )
    return array


def _camera_rows(images: Any, start: int, end: int, camera: CameraSpec, rate: float, where: str) -> Obs:
    """The pictures of one episode as uint8; recordings hold them as float 0..255."""
    pictures = _loaded(Path(where), images, "img", start, end)
    if not (np.isfinite(pictures).all() and 1.0 < pictures.max() <= 255.0 and pictures.min() >= 0.0):
        raise RobotRLError(
            f"{where}: data/img spans [{pictures.min()}, {pictures.max()}]; pictures are expected in 0..255"
        )
    key = f"image/{camera.name}"
    return {key: np.rint(pictures).astype(np.uint8), f"stamp/{key}": np.arange(end - start) / rate}


def _observations(states: np.ndarray, spec: Spec, observe: Rows, where: str) -> Obs:
    state = np.asarray(observe(states), np.float32)
    if state.shape != (len(states), len(spec.state)):
        raise RobotRLError(f"{where}: states of shape {state.shape}; {spec.world} has {len(spec.state)} channels")
    return {"state": state, "stamp/state": np.arange(len(states)) / spec.rate}


def _unit_actions(values: np.ndarray, spec: Spec, where: str) -> np.ndarray:
    action = control.to_unit(values, spec.action)
    outside = np.abs(action) > 1.0 + 1e-6
    if outside.any():
        step, column = np.argwhere(outside)[0]
        channel = spec.action[column]
        raise RobotRLError(
            f"{where}: {outside.any(1).sum()} actions are out of range, first at step {step}: {channel.name} = "
            f"{values[step, column]:.6g} {channel.unit}, range [{channel.low}, {channel.high}]; widen the range in the "
            "world's spec or remove the episode"
        )
    return np.clip(action, -1.0, 1.0).astype(np.float32)


def _episode(obs: Obs, action: np.ndarray, score: np.ndarray, meta: dict[str, Any]) -> Episode:
    reward = (score >= 1.0).astype(np.float32)
    success = bool(reward[-1] > 0)
    return Episode(
        obs=obs,
        action=action,
        reward=reward,
        score=score,
        intervened=np.zeros(len(action), bool),
        terminated=success,
        truncated=not success,
        meta=meta,
    )
