"""Reads LeRobot datasets (v2.0, v2.1, v3.0): numbers in parquet, pictures in mp4 or parquet, the rest in `meta/`.

A row holds an observation and the action that followed it, and there is no observation after the last action: that
action is dropped, so N rows become an episode of N - 1 actions. What came of it counts for the one before.

Actions are what was commanded, as a rule absolute joint targets. A dataset names its channels, but tells neither their
units nor what they may be: the range of a channel, and with it what -1 and +1 mean, is the one seen in the whole
dataset. A dataset of our own (see `lerobot_writer.py`) tells its Spec.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from robot_rl import control
from robot_rl.types import CameraSpec, Channel, Episode, Obs, RobotRLError, Spec

OURS = "meta/robot_rl.json"  # in datasets of our own: the Spec, and of every episode what LeRobot has no place for
PICTURES = "observation.images."
READABLE = ("v2.0", "v2.1", "v3.0")


@dataclass(frozen=True)
class Recording:
    """Where one episode of a dataset lies."""

    number: int
    length: int  # rows
    tasks: tuple[str, ...]
    data: Path
    videos: dict[str, tuple[Path, float]]  # by feature: the file, and the moment in it when the episode begins [s]


class Dataset:
    """The dataset in the folder `path`; raises where it is none, or its files are not all there."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.info = _json(self.path / "meta" / "info.json")
        if (version := self.info.get("codebase_version")) not in READABLE:
            raise RobotRLError(f"{path} is a LeRobot dataset of the format {version}; {', '.join(READABLE)} are read")
        self.features: dict[str, dict[str, Any]] = self.info["features"]
        self.rate = float(self.info["fps"])
        self.own = _json(self.path / OURS) if (self.path / OURS).exists() else None
        self.recordings = self._recordings_v3() if version == "v3.0" else self._recordings_v2()
        if not self.recordings:
            raise RobotRLError(f"{path} holds no episodes; record or download it again")
        self.cameras = {_camera_name(k): k for k, f in self.features.items() if f["dtype"] in ("video", "image")}
        self.states = self._state_features()

    def spec(self, cameras: Sequence[str] = ()) -> Spec:
        """What the dataset's robot sees and commands; of its cameras those that are named."""
        pictures = tuple(self._camera(name) for name in cameras)
        if self.own is not None:
            own = Spec.from_dict(self.own["spec"])
            return replace(own, cameras=tuple(c for c in own.cameras if c.name in cameras))
        tasks = {task for r in self.recordings for task in r.tasks}
        state, action = self._ranges(self.states), self._ranges(["action"])
        longest = max(r.length for r in self.recordings) - 1
        world = f"lerobot:{tasks.pop() if len(tasks) == 1 else f'{len(tasks)} tasks'}"
        return Spec(world, self.info.get("robot_type") or "", state, action, pictures, self.rate, longest)

    def filmed(self, cameras: Sequence[str]) -> list[Recording]:
        """The episodes of which there are pictures of all these cameras."""
        keys = [self.cameras[c] for c in cameras if self.features[self.cameras[c]]["dtype"] == "video"]
        return [r for r in self.recordings if all(r.videos[key][0].is_file() for key in keys)]

    def words(self, cameras: Sequence[str]) -> str:
        """What is read of the dataset and what is left out, for the user."""
        total = len(self.recordings)
        if not cameras:
            there = [f"{c} ({len(self.filmed([c]))} of {total} episodes)" for c in self.cameras]
            return f"pictures are left out, ask for them with --cameras: {', '.join(there)}" if there else ""
        chosen = [r.number for r in self.filmed(cameras)]
        if len(chosen) == total:
            return f"all {total} episodes have pictures of {', '.join(cameras)}"
        return f"{len(chosen)} of {total} episodes have pictures of {', '.join(cameras)}, only they are read: {chosen}"

    def episodes(self, spec: Spec) -> Iterator[Episode]:
        """The episodes as recordings of `spec`, which is one that this dataset gave."""
        chosen = self.filmed([c.name for c in spec.cameras])
        if not chosen:
            names = ", ".join(c.name for c in spec.cameras)
            raise RobotRLError(f"{self.path} has no video of {names} for any episode; download videos/ or do without")
        for file, recordings in groupby(chosen, key=lambda r: r.data):
            table = _table(file)
            for recording in recordings:
                yield self._episode(self._rows(table, recording), recording, spec)

    def _recordings_v2(self) -> list[Recording]:
        lines = [json.loads(line) for line in _text(self.path / "meta" / "episodes.jsonl").splitlines() if line]
        found = []
        for line in lines:
            place = {"episode_index": line["episode_index"]}
            place["episode_chunk"] = line["episode_index"] // self.info["chunks_size"]
            videos = {key: (self._place("video_path", place, key), 0.0) for key in self._films()}
            data = self._place("data_path", place)
            found.append(Recording(line["episode_index"], line["length"], tuple(line["tasks"]), data, videos))
        return found

    def _recordings_v3(self) -> list[Recording]:
        found = []
        for file in sorted((self.path / "meta" / "episodes").glob("*/*.parquet")):
            for row in _table(file).to_pylist():
                data = self._place("data_path", _place(row, "data"))
                videos = {
                    key: (
                        self._place("video_path", _place(row, f"videos/{key}"), key),
                        row[f"videos/{key}/from_timestamp"],
                    )
                    for key in self._films()
                }
                found.append(Recording(row["episode_index"], row["length"], tuple(row["tasks"]), data, videos))
        return found

    def _place(self, pattern: str, place: dict[str, int], key: str = "") -> Path:
        return self.path / self.info[pattern].format(**place, video_key=key)

    def _films(self) -> list[str]:
        return [key for key, feature in self.features.items() if feature["dtype"] == "video"]

    def _state_features(self) -> list[str]:
        """Every vector that is observed, `observation.state` first."""
        if "action" not in self.features:
            raise RobotRLError(f"{self.path} has no feature 'action'; it has {', '.join(self.features)}")
        found = [k for k, f in self.features.items() if k.startswith("observation.") and "float" in f["dtype"]]
        found = [key for key in found if len(self.features[key]["shape"]) == 1]
        if not found:
            raise RobotRLError(f"{self.path} observes no numbers: it has {', '.join(self.features)}")
        return sorted(found, key=lambda key: (key != "observation.state", key))

    def _camera(self, name: str) -> CameraSpec:
        if name not in self.cameras:
            raise RobotRLError(f"{self.path} has no camera '{name}'; it has: {', '.join(self.cameras) or 'none'}")
        feature = self.features[self.cameras[name]]
        first = (feature.get("names") or ["height"])[0]
        height, width = feature["shape"][1:] if first.startswith("channel") else feature["shape"][:2]
        return CameraSpec(name, height, width)

    def _ranges(self, keys: list[str]) -> tuple[Channel, ...]:
        """Channels with the ranges seen in the whole dataset; one that never moved gets 1 to either side."""
        low, high = np.full(1, np.inf), np.full(1, -np.inf)
        for file in sorted({r.data for r in self.recordings}):
            values = np.concatenate([_numbers(_table(file, keys), key, str(file)) for key in keys], 1)
            low, high = np.minimum(low, values.min(0)), np.maximum(high, values.max(0))
        still = low == high
        names = [name for key in keys for name in self._channel_names(key)]
        bounds = zip(names, (low - still).tolist(), (high + still).tolist(), strict=True)
        return tuple(Channel(name, "", a, b) for name, a, b in bounds)

    def _channel_names(self, key: str) -> list[str]:
        """LeRobot writes names as a list, as a list in a list, or as a dictionary of either."""
        feature, prefix = self.features[key], key.removeprefix("observation.")
        names: Any = feature.get("names")
        size = feature["shape"][0]
        if isinstance(names, dict):
            lists = all(isinstance(v, list) for v in names.values())
            names = list(names.values()) if lists else sorted(names, key=lambda name: names[name])
        while names and isinstance(names[0], list):
            names = [name for inner in names for name in inner]
        if names is None or len(names) != size:
            return [f"{prefix}_{i}" for i in range(size)]
        return [str(n) if prefix in ("state", "action") else f"{prefix}_{n}" for n in names]

    def _rows(self, table: Any, recording: Recording) -> Any:
        """The rows of one episode."""
        at = np.flatnonzero(table["episode_index"].to_numpy() == recording.number)
        where = f"{recording.data}: episode {recording.number}"
        if len(at) != recording.length:
            raise RobotRLError(f"{where} has {len(at)} rows, meta/ says {recording.length}; the copy is incomplete")
        if len(at) < 2 or at[-1] - at[0] != len(at) - 1:
            raise RobotRLError(f"{where} has {len(at)} rows; it needs 2 or more, one after the other. Remove it")
        return table.slice(at[0], len(at))

    def _episode(self, rows: Any, recording: Recording, spec: Spec) -> Episode:
        where = f"{recording.data}: episode {recording.number}"
        state = np.concatenate([_numbers(rows, key, where) for key in self.states], 1).astype(np.float32)
        stamps = _numbers(rows, "timestamp", where)[:, 0]
        obs: Obs = {"state": state, "stamp/state": stamps}
        for camera in spec.cameras:
            key = f"image/{camera.name}"
            obs |= {key: self._pictures(rows, recording, camera, where), f"stamp/{key}": stamps.copy()}
        action = np.clip(control.to_unit(_numbers(rows, "action", where)[:-1], spec.action), -1, 1).astype(np.float32)
        reward, score = _outcome(rows, where)
        success = bool(reward[-1] > 0)
        human = _numbers(rows, "intervention", where)[:-1, 0] > 0 if "intervention" in rows.column_names else None
        intervened = np.zeros(len(action), bool) if human is None else human
        meta = {"source": str(self.path), "episode": recording.number, "tasks": list(recording.tasks)}
        episode = Episode(obs, action, reward, score, intervened, success, not success, meta=meta)
        return self._as_it_was(episode, rows, recording, where)

    def _as_it_was(self, episode: Episode, rows: Any, recording: Recording, where: str) -> Episode:
        """An episode of our own has its stamps, its ending and its meta back."""
        if self.own is None:
            return episode
        told = self.own["episodes"][recording.number]
        stamps = {key: _numbers(rows, key.replace("/", "."), where)[:, 0] for key in told["stamps"]}
        obs = {key: value for key, value in episode.obs.items() if not key.startswith("stamp/")} | stamps
        return replace(episode, obs=obs, terminated=told["terminated"], truncated=told["truncated"], meta=told["meta"])

    def _pictures(self, rows: Any, recording: Recording, camera: CameraSpec, where: str) -> np.ndarray:
        key = self.cameras[camera.name]
        if self.features[key]["dtype"] == "image":
            encoded = [row["bytes"] for row in rows[key].to_pylist()]
            return np.stack([cv2.imdecode(np.frombuffer(b, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for b in encoded])
        file, begin = recording.videos[key]
        pictures = _film(file, begin, self.rate, recording.length, f"{file}: episode {recording.number}")
        if pictures.shape[1:] != (camera.height, camera.width, 3):
            said = f"({camera.height}, {camera.width}, 3)"
            raise RobotRLError(f"{where}: the pictures of '{camera.name}' are {pictures.shape[1:]}, meta/ says {said}")
        return pictures


def is_dataset(path: Path) -> bool:
    """Whether the folder `path` looks like one."""
    return (Path(path) / "meta" / "info.json").is_file()


def _camera_name(key: str) -> str:
    return key.removeprefix(PICTURES).removeprefix("observation.").replace(".", "_")


def _place(row: dict[str, Any], kind: str) -> dict[str, int]:
    return {key: row[f"{kind}/{key}"] for key in ("chunk_index", "file_index")}


def _outcome(rows: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Reward and score (N - 1,) float32; where nothing is told of success, there is none."""
    told = {
        key: _numbers(rows, f"next.{key}", where)[:, 0]
        for key in ("success", "reward", "score")
        if f"next.{key}" in rows.column_names
    }
    graded = told.get("score", told.get("reward"))
    success = told.get("success")
    if success is None:
        success = graded if graded is not None and np.isin(graded, (0, 1)).all() else np.zeros(rows.num_rows)
    if graded is None or graded.min() < 0 or graded.max() > 1:
        graded = success
    reward, score = ((v[:-1]).astype(np.float32) for v in (success, graded))
    reward[-1], score[-1] = max(success[-2:]), max(graded[-2:])
    return reward, score


def _film(file: Path, begin: float, rate: float, length: int, where: str) -> np.ndarray:
    """`length` pictures (N, H, W, 3) uint8 RGB of a video from the moment `begin` [s] on; every one must be there."""
    pictures: list[np.ndarray] = []
    try:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            assert stream.time_base is not None
            container.seek(int(begin / stream.time_base), stream=stream)  # to the key frame before it
            for frame in container.decode(stream):
                off = frame.time - begin - len(pictures) / rate
                if off < -0.5 / rate and not pictures:
                    continue
                if abs(off) > 0.5 / rate:
                    raise RobotRLError(f"{where}: picture {len(pictures)} is {off:+.3f} s off; convert the video again")
                pictures.append(frame.to_ndarray(format="rgb24"))
                if len(pictures) == length:
                    return np.stack(pictures)
    except (OSError, IndexError, av.error.FFmpegError) as error:
        raise RobotRLError(f"{where}: the video cannot be decoded ({error}); copy or download it again") from error
    raise RobotRLError(f"{where}: the video ends after {len(pictures)} of {length} pictures; download it again")


def _table(file: Path, columns: list[str] | None = None) -> Any:
    """A parquet file, as pyarrow's table."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise RobotRLError(f"LeRobot datasets need pyarrow: pip install 'robot-rl[lerobot]' ({error})") from error
    try:
        return parquet.ParquetFile(file).read(columns=columns)
    except (OSError, pyarrow.ArrowException) as error:
        raise RobotRLError(f"{file} is missing or no whole parquet file ({error}); copy it again") from error


def _numbers(table: Any, key: str, where: str) -> np.ndarray:
    """Column `key` as (N, D) float64, all of it finite."""
    if key not in table.column_names:
        raise RobotRLError(f"{where} lacks the column '{key}'; it has {', '.join(table.column_names)}")
    column = table[key].combine_chunks()
    nested = hasattr(column.type, "value_type")
    values = (column.flatten() if nested else column).to_numpy(zero_copy_only=False).astype(np.float64)
    values = values.reshape(table.num_rows, -1)
    if not np.isfinite(values).all():
        first = int(np.argmax(~np.isfinite(values).all(1)))
        raise RobotRLError(f"{where}: '{key}' holds NaN or infinity, first in row {first}; remove that episode")
    return values


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(_text(file))
    except ValueError as error:
        raise RobotRLError(f"{file} is no JSON ({error}); copy or download it again") from error


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        raise RobotRLError(f"{file} cannot be read ({error.strerror}); the copy is incomplete") from error
