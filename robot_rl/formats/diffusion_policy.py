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

from robot_rl import control
from robot_rl.atomic import discard
from robot_rl.formats import guard, outcome, pictures
from robot_rl.formats.account import Account
from robot_rl.formats.replay_buffer import CHUNKS, SPEC, Buffer
from robot_rl.types import CameraSpec, Episode, Obs, RobotRLError, Spec

ZARR_2: dict[str, Any] = {"zarr_format": 2} if int(zarr.__version__.split(".")[0]) >= 3 else {}
ROWS, IMAGE_ROWS = 4096, 32  # of a chunk

Rows = Callable[[np.ndarray], np.ndarray]


def read(path: Path, spec: Spec, observe: Rows, grade: Rows, account: Account | None = None) -> Iterator[Episode]:
    """The episodes of the buffer at `path`, one at a time, as recordings of the world of `spec`.

    `observe` turns recorded states (N, D) into states (N, S) float32 of `spec`, `grade` turns them into scores (N,)
    in [0, 1], 1 being success; both come from the world. Actions are in the units of `spec.action`; one outside its
    range is an error, because the robot did go there and a clipped action would say that it did not. Where `spec`
    has cameras, their pictures are `img` of the buffer, or `img_<camera>` each. An episode ends at its first success.
    The first recorded state is kept in `meta["reset_to"]`. What is left out goes to `account`.
    """
    account = account if account is not None else Account()
    buffer = Buffer(Path(path), account)
    states, actions = buffer.numbers("state"), buffer.numbers("action")
    if actions.shape[1] != len(spec.action):
        raise RobotRLError(f"{path}: data/action has {actions.shape[1]} columns; {spec.world} takes {len(spec.action)}")
    images = {camera: _pictures(buffer, camera, spec) for camera in spec.cameras}
    used = {"state", "action", "score", *(array.basename for array in images.values())}
    for key in buffer.keys:
        if key not in used:
            why = "ask for it with --cameras" if key.startswith("img") else "the world gives it no place"
            account.leave_out(f"data/{key}", why)
    for index, (start, end) in enumerate(zip([0, *buffer.ends[:-1]], buffer.ends, strict=True)):
        where = f"{path}: episode {index}"
        with guard.reading(where):
            score = np.asarray(grade(states[start:end]), np.float32)[1:]
            result = outcome.cut_at_success(score >= 1.0, account, score)
            end = start + len(result) + 1
            obs = _observations(states[start:end], spec, observe, where)
            for camera, array in images.items():
                obs |= _camera_rows(buffer, array, start, end, camera, spec, where)
            action = _unit_actions(actions[start : end - 1], spec, where)
        meta = {"source": str(path), "episode": index, "reset_to": states[start].tolist(), "success_from": "score"}
        yield _episode(obs, action, result, meta)


def own_spec(path: Path) -> Spec | None:
    """The Spec of a buffer that `write` made; None: another project's."""
    return Buffer(Path(path), Account()).spec


def read_own(path: Path, spec: Spec, account: Account | None = None) -> Iterator[Episode]:
    """The episodes of a buffer that `write` made, with the cameras of `spec`."""
    buffer = Buffer(Path(path), Account())
    scores = iter(np.split(buffer.numbers("score")[:, 0], buffer.ends[:-1]))
    return read(path, spec, lambda states: states.astype(np.float32), lambda _states: next(scores), account)


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
    root.attrs[SPEC], root.attrs[CHUNKS] = json.dumps(spec.to_dict()), "all"
    data, ends, made = root.require_group("data"), list[int](), dict[str, Any]()
    for episode in episodes:
        action = control.to_physical(episode.action, spec.action)
        rows = {"state": episode.obs["state"], "action": np.concatenate([action, action[-1:]]).astype(np.float32)}
        rows["score"] = np.append(np.float32(0), episode.score)[:, None]  # of the observation in the same row
        for camera in spec.cameras:
            rows[_picture_name(spec, camera)] = episode.obs[f"image/{camera.name}"]
        for key, values in rows.items():
            if not ends:
                made[key] = _made(data, key, values)
            made[key].resize(((ends[-1] if ends else 0) + len(values), *values.shape[1:]))
            made[key][-len(values) :] = values
        ends.append((ends[-1] if ends else 0) + len(action) + 1)
    if not ends:
        raise RobotRLError("there are no episodes to export; collect or choose some")
    last = _made(root.require_group("meta"), "episode_ends", np.array(ends))
    last.resize((len(ends),))
    last[:] = np.array(ends)
    return ends


def _made(group: Any, key: str, like: np.ndarray) -> Any:
    """An empty array for rows such as those of `like`; writing through this object alone keeps chunks of zeros."""
    rows = IMAGE_ROWS if like.ndim == 4 else ROWS
    about: dict[str, Any] = {"shape": (0, *like.shape[1:]), "chunks": (rows, *like.shape[1:]), "dtype": like.dtype}
    if hasattr(group, "create_array"):  # zarr 3
        return group.create_array(key, **about, config={"write_empty_chunks": True})
    return group.create_dataset(key, **about, write_empty_chunks=True)


def _picture_name(spec: Spec, camera: CameraSpec) -> str:
    return "img" if len(spec.cameras) == 1 else f"img_{camera.name}"


def _pictures(buffer: Buffer, camera: CameraSpec, spec: Spec) -> Any:
    """The array of a camera's pictures; those of another project's buffer have the size that the world gives."""
    key = _picture_name(spec, camera)
    array = buffer.array(key, optional=True)
    if array is None:  # of our own several were written, of which one is read
        array = buffer.array(f"img_{camera.name}" if f"img_{camera.name}" in buffer.keys else key)
    if array.ndim != 4 or array.shape[3] != 3 or (buffer.spec is None and array.shape[1:] != camera.shape):
        raise RobotRLError(
            f"{buffer.path}: data/{key} holds pictures {array.shape[1:]}; camera '{camera.name}' gives {camera.shape}"
        )
    return array


def _camera_rows(buffer: Buffer, array: Any, start: int, end: int, camera: CameraSpec, spec: Spec, where: str) -> Obs:
    """The pictures of one episode as uint8; recordings hold them as float 0..255."""

    def pieces() -> Iterator[np.ndarray]:
        for at in range(start, end, IMAGE_ROWS):
            yield from _bytes(buffer.rows(array, "img", at, min(at + IMAGE_ROWS, end)), where)

    key = f"image/{camera.name}"
    found = pictures.gathered(pieces(), end - start, camera, where)
    if array.dtype.kind == "f" and found.max() <= 1:
        raise RobotRLError(f"{where}: data/img spans [{found.min()}, {found.max()}]; pictures are expected in 0..255")
    return {key: found, f"stamp/{key}": np.arange(end - start) / spec.rate}


def _bytes(found: np.ndarray, where: str) -> np.ndarray:
    if found.dtype == np.uint8:
        return found
    if not (np.isfinite(found).all() and found.max() <= 255.0 and found.min() >= 0.0):
        raise RobotRLError(f"{where}: data/img spans [{found.min()}, {found.max()}]; pictures are expected in 0..255")
    return np.rint(found).astype(np.uint8)


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


def _episode(obs: Obs, action: np.ndarray, result: outcome.Outcome, meta: dict[str, Any]) -> Episode:
    return Episode(
        obs=obs,
        action=action,
        reward=result.reward,
        score=result.score,
        intervened=np.zeros(len(action), bool),
        terminated=result.terminated,
        truncated=not result.terminated,
        meta=meta,
    )
