"""Reads ALOHA's recordings (ACT, Mobile ALOHA): one HDF5 file an episode, with `action` and `observations/`.

Row t holds an observation and the action that followed it; the last action has no observation after it and is dropped.
Actions are absolute joint targets, their range the one seen. Files tell neither rate nor success: ALOHA runs at 50 Hz.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robot_rl import control
from robot_rl.formats import guard, hdf5, outcome, paths, pictures
from robot_rl.formats.account import Account
from robot_rl.formats.seen import Ranges
from robot_rl.types import LARGEST_IMAGE, CameraSpec, Episode, Obs, RobotRLError, Spec

RATE = 50.0  # [Hz]
STATES = ("qpos", "qvel", "effort", "base_vel")  # of `observations`, in this order
IMAGES = "observations/images"
ENDINGS = (".hdf5", ".h5")
MOST_FILES = 10_000  # looked at below a folder


def files(path: Path) -> list[Path]:
    """The episodes in the folder or file `path`, by their numbers; none: it holds other things."""
    found = [path] if path.is_file() else [paths.inside(path, f.name) for f in path.iterdir() if f.suffix in ENDINGS]
    return sorted(found, key=lambda f: (int((re.findall("[0-9]+", f.stem) or ["0"])[-1][:9]), f.name))


def is_recording(path: Path) -> bool:
    """Whether the HDF5 file, or the first of the folder, is laid out so."""
    found = files(path)
    if not found:
        return False
    guard.require_file(found[0])
    if not h5py.is_hdf5(found[0]):
        return False
    with hdf5.opened(found[0]) as file:
        return "action" in file and isinstance(file.get("observations"), h5py.Group)


class Recordings:
    """The episodes in the folder or file `path`; see `robomimic.read` for the options."""

    def __init__(
        self, path: Path, account: Account, cameras: Sequence[str] = (), image_size: int | None = None
    ) -> None:
        self.files, self._account = files(path), account
        _require_distinct(self.files)
        _tell_others(path, self.files, account)
        state, action, longest = Ranges(), Ranges(), 0
        for each in self.files:
            with hdf5.opened(each) as file:
                values, targets = self._numbers(file)
            state.add(
                [n for key, v in values.items() for n in _named(key, v)], np.hstack([*values.values()]), str(each)
            )
            action.add(_named("action", targets), targets, str(each))
            longest = max(longest, len(targets) - 1)
        with hdf5.opened(self.files[0]) as file:
            self._keys = self._cameras(file, path, cameras)
        sized = tuple(pictures.sized(c, image_size) for c in self._keys.values())
        account.note(f"ALOHA's files tell no rate: {RATE:g} Hz are taken. Nothing tells success: no episode is one")
        self.spec = Spec("aloha", "aloha", state.channels(), action.channels(), sized, RATE, longest)

    def episodes(self) -> Iterator[Episode]:
        """One after the other."""
        for each in self.files:
            with hdf5.opened(each) as file:
                episode = self._episode(file)
            yield episode

    def _numbers(self, file: h5py.File) -> tuple[dict[str, np.ndarray], np.ndarray]:
        where = file.filename
        observed = hdf5.group(file, "observations", where)
        keys = [key for key in STATES if key in observed]
        if not keys:
            raise RobotRLError(f"{where}: 'observations' has none of {', '.join(STATES)}; it has {hdf5.some(observed)}")
        for key in sorted({*observed} - {*STATES, "images"}):
            self._account.leave_out(f"observations/{key}", "unknown to ALOHA's layout")
        for key in sorted({*file} - {"action", "observations"}):
            self._account.leave_out(key, "unknown to ALOHA's layout")
        values = {key: hdf5.vector(observed, key, f"{where}: observations") for key in keys}
        action = hdf5.vector(file, "action", where)
        hdf5.require_equal_lengths({"action": len(action)} | {k: len(v) for k, v in values.items()}, where)
        if len(action) < 2:
            raise RobotRLError(f"{where} has {len(action)} rows; an episode needs 2 or more. Leave it out")
        return values, action

    def _cameras(self, file: h5py.File, path: Path, names: Sequence[str]) -> dict[str, CameraSpec]:
        """The cameras that are read, by the key of their pictures."""
        there = file.get(IMAGES)
        found = {key: there[key] for key in sorted(there)} if isinstance(there, h5py.Group) else {}
        pictures.chosen(list(found), names, str(path))
        for key in (key for key in found if key not in names):
            self._account.leave_out(f"camera {key}", "ask for it with --cameras")
        return {key: self._camera(key, found[key], file.filename) for key in names}

    def _camera(self, key: str, item: Any, where: str) -> CameraSpec:
        if not isinstance(item, h5py.Dataset) or item.dtype.kind != "u" or len(item.shape) not in (2, 4):
            raise RobotRLError(f"{where}: '{IMAGES}/{key}' is no stack of pictures; leave the camera out")
        shape = next(_decoded(item[:1], f"{where}: {key}")).shape if len(item.shape) == 2 else item.shape[1:]
        if len(shape) != 3 or not all(0 < n <= LARGEST_IMAGE for n in shape):
            raise RobotRLError(f"{where}: '{IMAGES}/{key}' holds pictures {shape}; (height, width, 3) is read")
        return CameraSpec(key, shape[0], shape[1])

    def _episode(self, file: h5py.File) -> Episode:
        where = file.filename
        values, targets = self._numbers(file)
        state = np.hstack([*values.values()]).astype(np.float32)
        if state.shape[1] != len(self.spec.state) or targets.shape[1] != len(self.spec.action):
            raise RobotRLError(f"{where} holds other numbers than the files before it; leave it out")
        action = np.clip(control.to_unit(targets[:-1], self.spec.action), -1, 1).astype(np.float32)
        stamps = np.arange(len(state)) / RATE
        obs: Obs = {"state": state, "stamp/state": stamps}
        for key, camera in zip(self._keys, self.spec.cameras, strict=True):
            obs |= {f"image/{key}": self._images(file, key, len(state), camera), f"stamp/image/{key}": stamps.copy()}
        result = outcome.none(len(action))
        human = np.zeros(len(action), bool)
        meta = {"source": where, "success_from": ""}
        return Episode(obs, action, result.reward, result.score, human, False, True, meta=meta)

    def _images(self, file: h5py.File, key: str, rows: int, camera: CameraSpec) -> np.ndarray:
        found = hdf5.dataset(file, f"{IMAGES}/{key}", file.filename)
        if len(found.shape) == 4:
            return hdf5.images(file, f"{IMAGES}/{key}", file.filename, rows, camera, self._account)
        where = f"{file.filename}: '{IMAGES}/{key}'"
        return pictures.gathered(
            (next(_decoded(found[i : i + 1], where)) for i in range(len(found))), rows, camera, where, self._account
        )


def _require_distinct(found: Sequence[Path]) -> None:
    """Raise where two names are of one file, by a hard or a symbolic link: its episode would count double."""
    names: dict[tuple[int, int], Path] = {}
    for file in found:
        stat = file.stat()
        if (first := names.setdefault((stat.st_dev, stat.st_ino), file)) is not file:
            raise RobotRLError(f"{file} is a link to {first}: its episode would count double; remove one of the two")


def _tell_others(path: Path, read: Sequence[Path], account: Account) -> None:
    """Account for the HDF5 files in and below the folder `path` that are not `read`."""
    below = path.rglob("*") if path.is_dir() else iter(())
    others = [
        str(file.relative_to(path))
        for file, _ in zip(below, range(MOST_FILES), strict=False)
        if file.suffix.lower() in ENDINGS and file not in read and file.is_file()
    ]
    if others := sorted(others):
        more = " ..." if len(others) > 3 else ""
        why = "only *.hdf5 and *.h5 directly in the folder are read; import a subfolder by itself"
        account.leave_out(f"{len(others)} files, {', '.join(others[:3])}{more}", why)


def _decoded(rows: np.ndarray, where: str) -> Iterator[np.ndarray]:
    """Pictures of rows of compressed bytes, which zeros fill up."""
    for row in rows:
        yield pictures.decoded(row.astype(np.uint8).tobytes(), where)


def _named(key: str, values: np.ndarray) -> list[str]:
    return [f"{key}_{i}" for i in range(values.shape[1])]
