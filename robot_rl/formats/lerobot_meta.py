"""What `meta/` of a LeRobot dataset (v2.0, v2.1, v3.0) says: features, rate, and where every episode lies.

Nothing in it is believed: what is missing, of another type or outside the dataset is named with its file and its key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_rl.formats import metadata, paths, tables
from robot_rl.formats.account import Account
from robot_rl.formats.metadata import Metadata
from robot_rl.types import LARGEST_IMAGE, RobotRLError

READABLE = ("v2.0", "v2.1", "v3.0")
MOST_ROWS = 10**8  # of an episode
FASTEST = 10_000.0  # [Hz]
CHANNELS = ("c", "channel", "channels", "rgb", "color", "colour")
PICTURES = "observation.images."
ACTIONS = ("action", "actions")  # what the actions are called, by LeRobot and by openpi's converters
STATES = ("observation.state", "state")


@dataclass(frozen=True)
class Feature:
    """One column of a dataset."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: list[str] | None  # one a number, where all have one
    depth: bool  # said to hold distances
    where: str  # file and key

    @property
    def is_picture(self) -> bool:
        """In a video, or among the numbers."""
        return self.dtype in ("video", "image")

    @property
    def is_vector(self) -> bool:
        """Of floating-point numbers."""
        return "float" in self.dtype and len(self.shape) == 1

    def image_size(self) -> tuple[int, int, int]:
        """Height, width and channels of its pictures, in whatever order they were written."""
        if len(self.shape) == 2:
            return (*self.shape, 1)  # type: ignore[return-value]
        if len(self.shape) != 3:
            raise RobotRLError(f"{self.where}: 'shape' is {list(self.shape)}; pictures have height, width and channels")
        first = (self.names or [""])[0].lower() in CHANNELS
        few = [n in (1, 3, 4) for n in self.shape]
        if first or (few[0] and not few[2]):
            channels, height, width = self.shape
        elif few[2]:
            height, width, channels = self.shape
        else:
            raise RobotRLError(f"{self.where}: 'shape' is {list(self.shape)}; which of them counts colours is unknown")
        if max(height, width) > LARGEST_IMAGE or channels not in (1, 3, 4):
            raise RobotRLError(f"{self.where}: 'shape' is {list(self.shape)}; such pictures are not read")
        return height, width, channels


@dataclass(frozen=True)
class Recording:
    """Where one episode of a dataset lies."""

    number: int
    length: int  # rows
    tasks: tuple[str, ...]
    data: Path
    videos: dict[str, tuple[Path, float]]  # by feature: the file, and the moment in it when the episode begins [s]


class Meta:
    """The folder `meta` of the dataset in `path`."""

    def __init__(self, path: Path, account: Account) -> None:
        self.path, self._account, self._files = path, account, dict[str, Path]()
        self.info = metadata.read_json(self.file("meta/info.json"))
        self.version = self.info.text("codebase_version")
        if self.version not in READABLE:
            raise RobotRLError(
                f"{path} is a LeRobot dataset of the format {self.version:.40}; {', '.join(READABLE)} are read"
            )
        self.rate = self.info.number("fps", 1e-3, FASTEST)
        self.arm = self.info.text("robot_type", "")
        features = self.info.object("features")
        self.features = {key: _feature(features.object(key), key, account) for key in features}
        self.recordings = self._recordings_v3() if self.version == "v3.0" else self._recordings_v2()
        self._require_sound()

    def file(self, relative: str) -> Path:
        """A file of the dataset, which lies in it; looked for once, as a file holds up to thousands of episodes."""
        if (found := self._files.get(relative)) is None:
            found = self._files[relative] = paths.inside(self.path, relative)
        return found

    def _recordings_v2(self) -> list[Recording]:
        found = []
        for line in metadata.read_json_lines(self.file("meta/episodes.jsonl")):
            number = line.whole("episode_index")
            chunk = number // self.info.whole("chunks_size", 1, default=1000)
            place = {
                "episode_index": number,
                "episode_chunk": chunk,
                "chunk_index": line.whole("chunk_index", default=chunk),
            }
            videos = {key: (place, 0.0) for key in self._films()}
            found.append(self._recording(line, place, videos))
        return found

    def _recordings_v3(self) -> list[Recording]:
        found = []
        folder = self.file("meta/episodes")
        for file in sorted(f.relative_to(self.path) for f in folder.glob("*/*.parquet")):
            for i, values in enumerate(tables.table(self.file(str(file)), without="stats/").to_pylist()):
                row = Metadata(f"{self.path / file}: row {i}", values)
                place = {key: row.whole(f"data/{key}") for key in ("chunk_index", "file_index")}
                videos = {key: film for key in self._films() if (film := _film(row, key)) is not None}
                found.append(self._recording(row, {**place, "episode_index": row.whole("episode_index")}, videos))
        return found

    def _recording(
        self, row: Metadata, place: Mapping[str, int], videos: Mapping[str, tuple[Mapping[str, int], float]]
    ) -> Recording:
        number, length = row.whole("episode_index"), row.whole("length", 0, MOST_ROWS)
        if length < 2:
            raise RobotRLError(f"{row.where}: episode {number} has {length} rows; it needs 2 or more. Remove it")
        films = {key: (self._place("video_path", where, key), begin) for key, (where, begin) in videos.items()}
        return Recording(number, length, _tasks(row), self._place("data_path", place), films)

    def _place(self, pattern: str, place: Mapping[str, int], key: str = "") -> Path:
        """The file that `pattern` of info.json gives; it lies in the dataset, if it is there."""
        values: dict[str, int | str] = {**place, **({"video_key": key} if key else {})}
        try:
            return self.file(paths.filled(self.info.text(pattern), values, self.info.name(pattern)))
        except RobotRLError as error:
            raise error if pattern in str(error) else RobotRLError(f"{self.info.name(pattern)}: {error}") from error

    def _films(self) -> list[str]:
        films = [key for key, feature in self.features.items() if feature.dtype == "video"]
        return films if "video_path" in self.info else []

    def _require_sound(self) -> None:
        """Every episode once, and its numbers there; of videos some may be missing."""
        if not self.recordings:
            raise RobotRLError(f"{self.path} holds no episodes: meta/ lists none; record or download it again")
        numbers = [r.number for r in self.recordings]
        if twice := [n for n, count in Counter(numbers).items() if count > 1]:
            raise RobotRLError(f"{self.path}: meta/ lists the episodes {sorted(twice)[:5]} twice; mend or download it")
        there = {file: file.exists() for file in {r.data for r in self.recordings}}
        missing = sorted(str(file.relative_to(self.path)) for file, found in there.items() if not found)
        if len(missing) == len(there):
            raise RobotRLError(
                f"{self.path} lacks all {len(there)} files of numbers that meta/ lists, such as "
                f"{', '.join(missing[:3])}: the copy is incomplete, download them"
            )
        if missing:
            lost = [r.number for r in self.recordings if not there[r.data]]
            self.recordings = [r for r in self.recordings if there[r.data]]
            self._account.leave_out(
                f"{len(lost)} of {len(numbers)} episodes, {_ranges(lost)}",
                f"the copy lacks {len(missing)} of {len(there)} files of numbers, such as {missing[0]}",
            )
        total = self.info.whole("total_episodes", default=len(numbers))
        if total != len(numbers):
            self._account.note(
                f"meta/info.json counts {total} episodes, and meta/ lists {len(numbers)}: those are read"
            )


def _ranges(numbers: list[int]) -> str:
    """1, 2, 3, 7 as "1 to 3, 7"."""
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    told = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs[:6]]
    return ", ".join(told) + (" ..." if len(runs) > 6 else "")


def _feature(told: Metadata, key: str, account: Account) -> Feature:
    dtype = told.text("dtype")
    shape = told.items("shape", [1])
    if not all(type(n) is int and 0 < n < 2**31 for n in shape) or not 1 <= len(shape) <= 4:
        raise RobotRLError(f"{told.name('shape')} is {shape!r:.60}; it must be whole numbers above 0")
    names = _flat(told.values.get("names"))
    if dtype not in ("video", "image") and names is not None and len(names) != shape[0]:
        if shape[0] > 1:
            account.note(f"{key} has {shape[0]} numbers and {len(names)} names: they are numbered instead")
        names = None
    info = {**told.object("info", {}).values, **told.object("video_info", {}).values}
    depth = any(info.get(k) is True for k in ("is_depth_map", "video.is_depth_map"))
    return Feature(key, dtype, tuple(shape), names, depth, told.where)


def _flat(names: Any) -> list[str] | None:
    """Names as a list, as lists in one, as {"motors": [...]}, as {"arm": [...], "gripper": "g"}, as {"x": 0}."""
    if isinstance(names, dict) and names and all(type(v) is int for v in names.values()):
        return sorted(names, key=lambda name: names[name])
    if isinstance(names, dict):
        names = list(names.values())
    if isinstance(names, str):
        return [names]
    if not isinstance(names, list):
        return None
    found = [_flat(name) if isinstance(name, (list, dict, str)) else [str(name)] for name in names]
    return [name for inner in found for name in inner or []] or None


def _film(row: Metadata, key: str) -> tuple[dict[str, int], float] | None:
    """Where in which video an episode's pictures are; None where a row leaves that empty."""
    told = [f"videos/{key}/{name}" for name in ("chunk_index", "file_index")]
    if not all(name in row for name in told):
        return None
    place = {"chunk_index": row.whole(told[0]), "file_index": row.whole(told[1])}
    place["episode_index"] = row.whole("episode_index")
    return place, row.number(f"videos/{key}/from_timestamp", 0.0, 1e9, default=0.0)


def _tasks(row: Metadata) -> tuple[str, ...]:
    """What was done, in words: `tasks`, or `task` as some converters write it; a string or a list of strings."""
    key = "tasks" if "tasks" in row else "task"
    told = row.values.get(key)
    tasks = [told] if isinstance(told, str) else [] if told is None else told
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise RobotRLError(f"{row.name(key)} is {told!r:.60}; it must be a list of strings")
    return tuple(tasks)
