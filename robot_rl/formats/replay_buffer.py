"""Opens Diffusion Policy's replay buffers (zarr v2 or v3, a folder or a zip): `data/*` and `meta/episode_ends`.

zarr leaves out a chunk that holds nothing but the array's fill value, and gives that value where a chunk's file is
not there; a file that was lost looks the same. Told apart is what can be: our own buffers keep every chunk, an array
without a fill value cannot do without one, a robot whose every action is the same was not recorded, and a state or a
picture does not stay at the fill value in all its numbers for a whole chunk. Else the fill value is taken, and said.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from robot_rl import memory, zarr_metadata
from robot_rl.formats import guard, metadata
from robot_rl.formats.account import Account
from robot_rl.formats.seen import LARGEST, odd
from robot_rl.types import RobotRLError, Spec
from robot_rl.zarr_files import Zipped

SPEC = "robot_rl_spec"  # attribute of buffers of our own
CHUNKS = "robot_rl_chunks"  # attribute of those that keep every chunk: "all"
OBSERVED = ("state", "img")
UMI = ("robot0_eef_pos", "robot0_eef_rot_axis_angle", "robot0_gripper_width")
MOST_EPISODES = 10**7


class Buffer:
    """The buffer in the folder or zip `path`; raises where it is none, or is not whole."""

    def __init__(self, path: Path, account: Account) -> None:
        self.path, self._account = path, account
        if not path.exists():
            raise RobotRLError(f"{path} does not exist; give the folder of a Diffusion Policy replay buffer (*.zarr)")
        with guard.reading(f"{path} is not a whole Diffusion Policy replay buffer and"):
            self._root = _root(path)
            self.attributes = dict(self._root.attrs)
        self.data = self._group("data")
        self.keys = self._keys()
        self.ends = self._ends()

    @property
    def spec(self) -> Spec | None:
        """Of a buffer of our own; None: another project's."""
        if (told := self.attributes.get(SPEC)) is None:
            return None
        return metadata.spec(metadata.parsed(str(told), f"{self.path}: the attribute '{SPEC}'"))

    def array(self, key: str, optional: bool = False) -> Any:
        """data/`key`, known to be complete; None where it is `optional` and not there."""
        if key not in self.keys:
            if optional:
                return None
            raise RobotRLError(f"{self.path} lacks data/{key}; it has: {', '.join(self.keys)}{self._layout()}")
        where = f"{self.path}: data/{key}"
        with guard.reading(where):
            array = self.data[key]
            if array.dtype.kind not in "biuf" or array.ndim < 1:
                raise RobotRLError(f"{where} holds {array.dtype} {array.shape}; it must hold rows of numbers")
            if array.shape[0] != self.ends[-1]:
                raise RobotRLError(
                    f"{where} has {array.shape[0]} rows, but meta/episode_ends says {self.ends[-1]}; the copy is "
                    "incomplete"
                )
            self._require_chunks(array, key, where)
        return array

    def numbers(self, key: str) -> np.ndarray:
        """data/`key` (N, D) as float64, all of it finite."""
        array = self.array(key)
        if array.ndim != 2 or not 0 < array.shape[1] <= 4096:
            raise RobotRLError(f"{self.path}: data/{key} has shape {array.shape}; it must be (rows, numbers)")
        memory.require(16 * array.size, f"{self.path}: data/{key} {array.shape}")
        values = self.rows(array, key, 0, self.ends[-1]).astype(np.float64)
        bad = ~(np.abs(values) <= LARGEST).all(1)
        if bad.any():
            raise RobotRLError(
                f"{self.path}: data/{key} holds {odd(values)} in {bad.sum()} rows, first "
                f"in row {int(np.argmax(bad))}; remove the episodes they belong to"
            )
        return values

    def rows(self, array: Any, key: str, start: int, end: int) -> np.ndarray:
        """Rows of an array, decoded."""
        with guard.reading(f"{self.path}: data/{key} cannot be decoded:"):
            return np.asarray(array[start:end])

    def _group(self, key: str) -> Any:
        with guard.reading(f"{self.path}: '{key}'"):
            there = sorted(self._root)
            found = self._root[key] if key in there else None
        if not isinstance(found, zarr.Group):
            raise RobotRLError(
                f"{self.path} is not a whole Diffusion Policy replay buffer: it has no group '{key}', but "
                f"{', '.join(there[:8]) or 'nothing'}; data/* and meta/episode_ends are needed"
            )
        return found

    def _keys(self) -> list[str]:
        with guard.reading(f"{self.path}: data"):
            return sorted(key for key in self.data if isinstance(self.data[key], zarr.Array))

    def _ends(self) -> list[int]:
        """The exclusive end row of every episode."""
        meta, where = self._group("meta"), f"{self.path}: meta/episode_ends"
        with guard.reading(where):
            if "episode_ends" not in meta:
                raise RobotRLError(f"{where} is missing; it says where episodes end. Copy the buffer again")
            array = meta["episode_ends"]
            if array.ndim != 1 or array.dtype.kind not in "iu" or array.shape[0] > MOST_EPISODES:
                raise RobotRLError(f"{where} is {array.dtype} {array.shape}; it must be whole numbers, one an episode")
            lost = array.nchunks - array.nchunks_initialized
            ends = [int(end) for end in array[:]]
        if not ends:
            raise RobotRLError(
                f"{self.path} holds no episodes: meta/episode_ends is empty; record or download it again"
            )
        lengths = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        if min(lengths) < 2:
            short = lengths.index(min(lengths))
            why = f" ({lost} of its chunk files are missing)" if lost else ""
            raise RobotRLError(
                f"{self.path}: episode {short} has {lengths[short]} rows{why}; an episode needs 2 or more. Remove it"
            )
        return ends

    def _require_chunks(self, array: Any, key: str, where: str) -> None:
        """Raise where chunks are not there that cannot have been left out; say where they are taken for that."""
        if (lost := array.nchunks - array.nchunks_initialized) <= 0:
            return
        missing = f"{lost} of {array.nchunks} chunk files of data/{key} are missing"
        if self.attributes.get(CHUNKS) == "all" or array.fill_value is None:
            raise RobotRLError(f"{self.path}: {missing}, and this buffer leaves none out; copy it again")
        own_score = SPEC in self.attributes and key == "score"  # an earlier export left its zeros out
        if own_score:
            return
        if key in OBSERVED or lost == array.nchunks:
            raise RobotRLError(
                f"{self.path}: {missing}: all of it would be {array.fill_value}; copy it again. If that is really what "
                "was recorded, save the array with zarr's write_empty_chunks=True"
            )
        self._account.note(
            f"data/{key}: {lost} of {array.nchunks} chunks are not stored and read as its fill value "
            f"{array.fill_value}, as zarr leaves out chunks of nothing else; if the copy was cut short, copy it again"
        )

    def _layout(self) -> str:
        """What else it may be."""
        if all(key in self.keys for key in UMI):
            return (
                ". This is UMI's layout: poses of a hand-held gripper, without commands or a rate; convert it to a "
                "LeRobot dataset, with the next pose as the action"
            )
        return ". Read are buffers of Push-T, data/state (agent and block) and data/action, and our own"


def _root(path: Path) -> Any:
    """The outermost group; in a zip that may be in a folder."""
    if not path.is_dir() and (folder := _folder_in_zip(path)):
        with zipfile.ZipFile(path) as archive:
            zarr_metadata.require_safe(Zipped(archive))
        return zarr.open_group(zarr.storage.ZipStore(str(path), mode="r"), mode="r", path=folder)
    return zarr_metadata.open_group(path)[0]


def _folder_in_zip(path: Path) -> str:
    """The one folder that all of the zip `path` lies in; "": there is none."""
    if not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.startswith("__MACOSX")]
    first = {name.split("/")[0] for name in names}
    groups = [n for n in names if n.rsplit("/", 1)[-1] in (".zgroup", "zarr.json")]
    return first.pop() if len(first) == 1 and groups and all("/" in name for name in names) else ""


def is_buffer(path: Path) -> bool:
    """Whether the folder or zip looks like a zarr store."""
    if path.is_dir():
        return any((path / name).exists() for name in (".zgroup", "zarr.json", ".zmetadata"))
    if not zipfile.is_zipfile(path):
        return False
    with guard.reading(f"{path} is no whole zip and"), zipfile.ZipFile(path) as archive:
        return any(name.rsplit("/", 1)[-1] in (".zgroup", "zarr.json") for name in archive.namelist())
