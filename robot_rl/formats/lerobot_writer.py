"""Writes LeRobot datasets (v3.0): one parquet file of numbers, one mp4 file an episode and camera, and `meta/`.

It is written here rather than through lerobot, which cannot be installed beside this project (0.4.4 asks for torch
below 2.11, av below 16, huggingface-hub below 0.36 and headless OpenCV); that lerobot reads it and trains on it is what
`tests/peer_lerobot.py` shows.

Row t holds observation t and the action that followed it in its own unit; the last row, which has no action, repeats
that of the row before, as lerobot itself pads an episode's end. Stamps, scores and interventions are columns of their
own. Extras are not written. Pictures lose a little: the video is H.264 with halved colour resolution.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl import control
from robot_rl.atomic import discard
from robot_rl.formats.lerobot import OURS
from robot_rl.formats.lerobot_meta import PICTURES
from robot_rl.types import Episode, RobotRLError, Spec
from robot_rl.video import write_video

NAMES = "__index_level_0__"  # what pandas calls an index without a name
FILES = 1000  # in a folder
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEOS = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
SEEKABLE = {"crf": "18", "preset": "veryfast", "g": "2", "bf": "0"}  # lerobot reads pictures in any order
LOOKED_AT = 20  # pictures of an episode from which the statistics are made

Columns = dict[str, np.ndarray]  # each (N,) or (N, D)
Statistics = dict[str, dict[str, np.ndarray]]  # feature -> min, max, mean, std, count


def write(path: Path, spec: Spec, episodes: Iterable[Episode]) -> int:
    """Export `episodes` of `spec` to the new folder `path`; returns how many. It appears whole or not at all."""
    path = Path(path)
    if path.exists():
        raise RobotRLError(f"{path} exists and is not overwritten; remove it or choose another name")
    if not spec.rate.is_integer():
        raise RobotRLError(f"LeRobot counts whole pictures a second, and {spec.world} has {spec.rate:g} Hz")
    if odd := [c.name for c in spec.cameras if c.height % 2 or c.width % 2]:
        raise RobotRLError(f"a video needs an even height and width: the pictures of {', '.join(odd)} have not")
    part = path.with_name(f".part-{path.name}")
    discard(part)
    try:
        count = _Writer(part, spec).write(episodes)
        os.rename(part, path)
    except OSError as error:
        raise RobotRLError(f"{path} could not be written ({error}); choose another place or free some space") from error
    finally:
        discard(part)
    return count


class _Writer:
    def __init__(self, path: Path, spec: Spec) -> None:
        self.path, self.spec, self.rows = path, spec, 0
        self.task = spec.world.removeprefix("lerobot:")
        self.stamps: list[str] = []  # the keys of the stamps, alike in all episodes
        self.about: list[dict[str, Any]] = []  # rows of meta/episodes
        self.own: list[dict[str, Any]] = []  # of every episode, what is for ourselves
        self.statistics: list[Statistics] = []

    def write(self, episodes: Iterable[Episode]) -> int:
        parquet = _pyarrow()
        writer: Any = None
        for episode in episodes:
            columns = self._columns(episode)
            table = _table(columns)
            if writer is None:
                self._make_folders()
                writer = parquet.ParquetWriter(self.path / _path(DATA, 0), table.schema)
            writer.write_table(table)
            self._film(episode, columns)
        if writer is None:
            raise RobotRLError("there are no episodes to export; collect or choose some")
        writer.close()
        self._write_meta()
        return len(self.about)

    def _make_folders(self) -> None:
        for file in (_path(DATA, 0), EPISODES):
            (self.path / file).parent.mkdir(parents=True)

    def _columns(self, episode: Episode) -> Columns:
        T, number = len(episode), len(self.about)
        stamps = sorted(key for key in episode.obs if key.startswith("stamp/"))
        if self.about and stamps != self.stamps:
            raise RobotRLError(f"episode {number} has the stamps {stamps}, those before it {self.stamps}")
        self.stamps = stamps
        reward, score, human = (_again(v) for v in (episode.reward, episode.score, episode.intervened))
        done = np.arange(T + 1) >= T - 1
        return {
            "observation.state": episode.obs["state"].astype(np.float32),
            "action": _again(control.to_physical(episode.action, self.spec.action)).astype(np.float32),
            "next.reward": reward.astype(np.float32),
            "next.score": score.astype(np.float32),
            "next.success": reward > 0,
            "next.done": done,
            "intervention": human,
            **{key.replace("/", "."): episode.obs[key].astype(np.float64) for key in stamps},
            "timestamp": (np.arange(T + 1) / self.spec.rate).astype(np.float32),
            "frame_index": np.arange(T + 1),
            "episode_index": np.full(T + 1, number),
            "index": self.rows + np.arange(T + 1),
            "task_index": np.zeros(T + 1, np.int64),
        }

    def _film(self, episode: Episode, columns: Columns) -> None:
        """Write the pictures, and note what `meta/` is to say of the episode."""
        number, rows = len(self.about), len(episode) + 1
        statistics = {key: _statistics(values) for key, values in columns.items()}
        about: dict[str, Any] = {"episode_index": number, "tasks": [self.task], "length": rows}
        about |= {"dataset_from_index": self.rows, "dataset_to_index": self.rows + rows}
        about |= {"data/chunk_index": 0, "data/file_index": 0}
        about |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        for camera in self.spec.cameras:
            key, pictures = f"{PICTURES}{camera.name}", episode.obs[f"image/{camera.name}"]
            write_video(self.path / _path(VIDEOS, number, key), list(pictures), self.spec.rate, SEEKABLE)
            place: dict[str, Any] = {"chunk_index": number // FILES, "file_index": number % FILES}
            place |= {"from_timestamp": 0.0, "to_timestamp": rows / self.spec.rate}
            about |= {f"videos/{key}/{name}": value for name, value in place.items()}
            statistics[key] = _picture_statistics(pictures)
        about |= {f"stats/{k}/{name}": v.tolist() for k, s in statistics.items() for name, v in s.items()}
        self.rows += rows
        self.about.append(about)
        self.statistics.append(statistics)
        ending = {"terminated": episode.terminated, "truncated": episode.truncated}
        self.own.append({**ending, "stamps": self.stamps, "meta": episode.meta})

    def _write_meta(self) -> None:
        import pyarrow

        _pyarrow().write_table(pyarrow.Table.from_pylist(self.about), self.path / EPISODES)
        tasks = {"task_index": [0], NAMES: [self.task]}
        _pyarrow().write_table(_indexed(pyarrow.table(tasks)), self.path / "meta/tasks.parquet")
        _dump(self.path / "meta/info.json", self._info())
        merged = {key: _merged([s[key] for s in self.statistics]) for key in self.statistics[0]}
        _dump(self.path / "meta/stats.json", {k: {n: v.tolist() for n, v in s.items()} for k, s in merged.items()})
        _dump(self.path / OURS, {"spec": self.spec.to_dict(), "episodes": self.own})

    def _info(self) -> dict[str, Any]:
        episodes = len(self.about)
        return {
            "codebase_version": "v3.0",
            "robot_type": self.spec.arm,
            "total_episodes": episodes,
            "total_frames": self.rows,
            "total_tasks": 1,
            "chunks_size": FILES,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": int(self.spec.rate),
            "splits": {"train": f"0:{episodes}"},
            "data_path": DATA,
            "video_path": VIDEOS if self.spec.cameras else None,
            "features": self._features(),
        }

    def _features(self) -> dict[str, Any]:
        spec = self.spec
        vectors = {"observation.state": spec.state, "action": spec.action}
        scalars = {"next.reward": "float32", "next.score": "float32", "next.success": "bool", "next.done": "bool"}
        scalars |= {"intervention": "bool"} | {key.replace("/", "."): "float64" for key in self.stamps}
        scalars |= {"timestamp": "float32"}
        scalars |= {key: "int64" for key in ("frame_index", "episode_index", "index", "task_index")}
        features: dict[str, Any] = {
            key: {"dtype": "float32", "shape": [len(channels)], "names": [c.name for c in channels]}
            for key, channels in vectors.items()
        }
        features |= {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in scalars.items()}
        for camera in spec.cameras:
            about: dict[str, Any] = {"video.height": camera.height, "video.width": camera.width, "video.channels": 3}
            about |= {"video.codec": "h264", "video.pix_fmt": "yuv420p", "video.is_depth_map": False}
            about |= {"video.fps": int(spec.rate), "has_audio": False}
            shape, names = [camera.height, camera.width, 3], ["height", "width", "channels"]
            features[f"{PICTURES}{camera.name}"] = {"dtype": "video", "shape": shape, "names": names, "info": about}
        return features


def _again(values: np.ndarray) -> np.ndarray:
    """(T, ...) with the last row twice."""
    return np.concatenate([values, values[-1:]])


def _statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """Of (N,) or (N, D), as (D,) each."""
    v = values.reshape(len(values), -1).astype(np.float64)
    return {"min": v.min(0), "max": v.max(0), "mean": v.mean(0), "std": v.std(0), "count": np.array([len(v)])}


def _picture_statistics(pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Of pictures (N, H, W, 3), for every colour in [0, 1], as (3, 1, 1) each."""
    some = pictures[np.unique(np.linspace(0, len(pictures) - 1, LOOKED_AT).astype(int))]
    found = _statistics(some.reshape(-1, 3) / 255.0)
    count = np.array([len(some)])
    return {k: count if k == "count" else v.reshape(3, 1, 1) for k, v in found.items()}


def _merged(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The statistics of several episodes as one, each weighed by its rows."""
    counts = np.array([p["count"][0] for p in parts])
    mean, square = (np.average(v, axis=0, weights=counts) for v in (
        [p["mean"] for p in parts], [p["std"] ** 2 + p["mean"] ** 2 for p in parts],
    ))  # fmt: skip
    low, high = np.min([p["min"] for p in parts], 0), np.max([p["max"] for p in parts], 0)
    std = np.sqrt(np.maximum(square - mean**2, 0.0))
    return {"min": low, "max": high, "mean": mean, "std": std, "count": np.array([counts.sum()])}


def _table(columns: Columns) -> Any:
    import pyarrow

    def column(values: np.ndarray) -> Any:
        if values.ndim == 1:
            return pyarrow.array(values)
        return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.reshape(-1)), values.shape[1])

    return pyarrow.table({key: column(values) for key, values in columns.items()})


def _indexed(tasks: Any) -> Any:
    """lerobot reads the tasks with pandas, which is to take their names for the index."""
    kinds = {"task_index": ("int64", "int64"), NAMES: ("unicode", "object")}
    columns = [
        {"name": None if key == NAMES else key, "field_name": key, "pandas_type": a, "numpy_type": b, "metadata": None}
        for key, (a, b) in kinds.items()
    ]
    about = {"index_columns": [NAMES], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    return tasks.replace_schema_metadata({"pandas": json.dumps(about)})


def _path(pattern: str, number: int, key: str = "") -> str:
    return pattern.format(chunk_index=number // FILES, file_index=number % FILES, video_key=key)


def _dump(file: Path, data: dict[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=1))


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise RobotRLError(f"LeRobot datasets need pyarrow: pip install 'robot-rl[lerobot]' ({error})") from error
    return parquet
