"""Reads LeRobot datasets (v2.0, v2.1, v3.0): numbers in parquet, pictures in mp4 or parquet, the rest in `meta/`.

A row holds an observation and the action that followed it, and there is no observation after the last action: that
action is dropped, so N rows become an episode of N - 1 actions. What came of it counts for the one before.

Actions are what was commanded, as a rule absolute joint targets. A dataset names its channels, but tells neither their
units nor what they may be: the range of a channel, and with it what -1 and +1 mean, is the one seen in the whole
dataset. A dataset of our own (see `lerobot_writer.py`) tells its Spec.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl import control
from robot_rl.formats import guard, metadata, outcome, pictures, rotations, tables
from robot_rl.formats.account import Account
from robot_rl.formats.lerobot_meta import ACTIONS, PICTURES, STATES, Feature, Meta, Recording
from robot_rl.formats.lerobot_video import film
from robot_rl.formats.metadata import Metadata
from robot_rl.formats.seen import Ranges
from robot_rl.types import CameraSpec, Channel, Episode, Obs, RobotRLError, Spec

OURS = "meta/robot_rl.json"  # in datasets of our own: the Spec, and of every episode what LeRobot has no place for
BOOKKEEPING = {"timestamp", "frame_index", "episode_index", "index", "task_index", "next.done", "intervention"}
SUCCESS, REWARD, SCORE = "next.success", "next.reward", "next.score"
RATE_OFF = 0.02  # part by which stamps and `fps` may differ unsaid
CLOCKS = {1e3: "milliseconds", 1e6: "microseconds", 1e9: "nanoseconds"}
LOOKED_AT = 5  # files of which the rate is found out


class Dataset:
    """The dataset in the folder `path`; raises where it is none, or its files are not all there.

    With `ignore_rewards` nothing is read of success. What is decided and left out goes to `account`.
    """

    def __init__(self, path: Path, account: Account | None = None, ignore_rewards: bool = False) -> None:
        self.path, self.account = Path(path), account if account is not None else Account()
        meta = Meta(self.path, self.account)
        self.features, self.rate, self.recordings = meta.features, meta.rate, meta.recordings
        self._arm, self._ignore_rewards, self._meta = meta.arm, ignore_rewards, meta
        self.own = metadata.read_json(meta.file(OURS)) if (self.path / OURS).exists() else None
        self.cameras: dict[str, str] = {}
        for key in (key for key, feature in self.features.items() if feature.is_picture):
            if self.cameras.setdefault(name := _camera_name(key), key) != key:
                self.account.leave_out(key, f"its name would be {name}, as that of {self.cameras[name]}; rename one")
        self.action = self._action()
        self.states = self._states()

    def spec(self, cameras: Sequence[str] = (), image_size: int | None = None) -> Spec:
        """What the dataset's robot sees and commands; of its cameras those that are named."""
        pictures.chosen(list(self.cameras), cameras, str(self.path))
        if self.own is not None:
            own = metadata.spec(self.own.object("spec"))
            kept = tuple(pictures.sized(c, image_size) for c in own.cameras if c.name in cameras)
            return replace(own, cameras=kept)
        images = tuple(pictures.sized(self._camera(name), image_size) for name in cameras)
        tasks = {task for r in self.recordings for task in r.tasks}
        state, action = self._ranges()
        longest = max(r.length for r in self.recordings) - 1
        world = f"lerobot:{tasks.pop() if len(tasks) == 1 else f'{len(tasks)} tasks'}"
        return Spec(world, self._arm, state, action, images, self.rate, longest)

    def filmed(self, cameras: Sequence[str]) -> list[Recording]:
        """The episodes of which there are pictures of all these cameras."""
        keys = [self.cameras[c] for c in cameras if self.features[self.cameras[c]].dtype == "video"]
        return [r for r in self.recordings if all(k in r.videos and r.videos[k][0].exists() for k in keys)]

    def words(self, cameras: Sequence[str]) -> str:
        """What is read of the dataset's pictures and what is left out, for the user."""
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
            raise RobotRLError(self._no_video([c.name for c in spec.cameras]))
        self._tell_left_out(spec)
        wanted = self._columns(spec)
        for file, recordings in groupby(chosen, key=lambda r: r.data):
            table = tables.table(file, wanted)
            for recording in recordings:
                where = f"{recording.data}: episode {recording.number}"
                with guard.reading(where):
                    episode = self._episode(self._rows(table, recording), recording, spec, where)
                yield episode

    # ------------------------------------------------------------------------------------------------ what is read

    def _action(self) -> Feature:
        for key in ACTIONS:
            if (found := self.features.get(key)) is not None:
                if not found.is_vector and not (found.dtype.startswith("int") and len(found.shape) == 1):
                    raise RobotRLError(
                        f"{found.where}: 'shape' is {list(found.shape)}, 'dtype' {found.dtype}; actions must be vectors"
                    )
                return found
        raise RobotRLError(
            f"{self.path} has no feature 'action' or 'actions'; it has {', '.join(self.features)}: rename the one that "
            "holds what was commanded, in meta/info.json and the parquet files"
        )

    def _states(self) -> list[Feature]:
        """Every vector that is observed, the robot's state first."""
        found = [
            f for f in self.features.values() if f.is_vector and (f.key.startswith("observation.") or f.key in STATES)
        ]
        stamps = {key.replace("/", ".") for key in self._own_stamps}
        found = [f for f in found if f.key not in stamps]
        if not found:
            raise RobotRLError(
                f"{self.path} observes no numbers: it has {', '.join(self.features)}; 'observation.state' is needed"
            )
        return sorted(found, key=lambda f: (f.key not in STATES, f.key))

    @property
    def _own_stamps(self) -> set[str]:
        if self.own is None:
            return set()
        told = [Metadata(f"{self.own.where}: episodes", e) for e in self.own.items("episodes") if isinstance(e, dict)]
        return {str(key) for each in told for key in each.items("stamps", [])}

    def _columns(self, spec: Spec) -> list[str]:
        """Of the files, those that an episode needs: others may be large."""
        keys = {"episode_index", self.action.key, *(f.key for f in self.states)}
        keys |= {self.cameras[c.name] for c in spec.cameras if self.features[self.cameras[c.name]].dtype == "image"}
        optional = {"timestamp", "intervention", SUCCESS, REWARD, SCORE} | {
            k.replace("/", ".") for k in self._own_stamps
        }
        there = set(self._column_names(self.recordings[0].data))
        return sorted(keys | (optional & there))

    def _column_names(self, file: Path) -> list[str]:
        return list(tables.names(file))

    def _tell_left_out(self, spec: Spec) -> None:
        told = {self.action.key, *(f.key for f in self.states), SUCCESS, REWARD, SCORE, *BOOKKEEPING}
        told |= {self.cameras[c.name] for c in spec.cameras} | {k.replace("/", ".") for k in self._own_stamps}
        for key, feature in self.features.items():
            if key in told:
                continue
            if feature.is_picture:
                if self.cameras[name := _camera_name(key)] != key:
                    continue  # said before
                there = f"{len(self.filmed([name]))} of {len(self.recordings)} episodes have its pictures"
                self.account.leave_out(f"camera {name}", f"ask for it with --cameras; {there}")
            else:
                self.account.leave_out(key, "no vector that the robot observes")
        if not self.own and self._ignore_rewards:
            for key in (SUCCESS, REWARD, SCORE):
                if key in self.features:
                    self.account.leave_out(key, "--ignore-rewards")

    def _no_video(self, cameras: Sequence[str]) -> str:
        missing = [
            r.videos[self.cameras[c]][0] for c in cameras for r in self.recordings if self.cameras[c] in r.videos
        ]
        said = f", such as {missing[0].relative_to(self.path)}" if missing else "; meta/ names none"
        renamed = [n for n in ("video", "Videos") if (self.path / n).is_dir()]
        remedy = f"rename the folder {renamed[0]}/ to videos/" if renamed else "download videos/"
        return (
            f"{self.path} has no video of {', '.join(cameras)} for any episode{said}: {remedy}, or leave --cameras out"
        )

    # ------------------------------------------------------------------------------------------------- the Spec

    def _camera(self, name: str) -> CameraSpec:
        feature = self.features[self.cameras[name]]
        height, width, channels = feature.image_size()
        depth = feature.depth or (channels == 1 and feature.dtype == "image" and self._holds_16_bits(feature))
        if depth and feature.dtype == "video":
            raise RobotRLError(
                f"{feature.where}: depth in a video is not read, as its unit is unknown; leave '{name}' out"
            )
        return CameraSpec(name, height, width, depth=depth)

    def _holds_16_bits(self, feature: Feature) -> bool:
        first = self.recordings[0]
        rows = tables.table(first.data, [feature.key]).slice(0, 1)
        return next(self._images(rows, feature.key, str(first.data))).dtype == np.uint16

    def _ranges(self) -> tuple[tuple[Channel, ...], tuple[Channel, ...]]:
        """Channels of state and action with the ranges seen in the whole dataset."""
        state, action = Ranges(), Ranges()
        for file in sorted({r.data for r in self.recordings}):
            rows = tables.table(file, [self.action.key, *(f.key for f in self.states)])
            if rows.num_rows == 0:
                raise RobotRLError(f"{file} has no rows, and meta/ lists episodes in it; the copy is incomplete")
            state.add(*self._state(rows, str(file)), str(file))
            names = _channel_names(self.action, "action")
            action.add(names, tables.numbers(rows, self.action.key, str(file), self.action.shape[0]), str(file))
        rotations.tell_unclear(state.names or [], self.account)
        return state.channels(), action.channels()

    def _state(self, rows: Any, where: str) -> tuple[list[str], np.ndarray]:
        """Names and values (N, S) of all that is observed, rotations in 6-D form; our own datasets have them so."""
        names: list[str] = []
        for feature in self.states:
            prefix = feature.key.removeprefix("observation.")
            names += _channel_names(feature, prefix)
        values = np.concatenate([tables.numbers(rows, f.key, where, f.shape[0]) for f in self.states], 1)
        return (names, values) if self.own is not None else rotations.continuous(names, values, where)

    # ---------------------------------------------------------------------------------------------- an episode

    def _rows(self, table: Any, recording: Recording) -> Any:
        """The rows of one episode."""
        where = f"{recording.data}: episode {recording.number}"
        numbers = tables.numbers(table, "episode_index", str(recording.data), 1)[:, 0]
        at = np.flatnonzero(numbers == recording.number)
        if len(at) != recording.length:
            raise RobotRLError(f"{where} has {len(at)} rows, meta/ says {recording.length}; the copy is incomplete")
        if len(at) < 2 or at[-1] - at[0] != len(at) - 1:
            raise RobotRLError(f"{where} has {len(at)} rows; it needs 2 or more, one after the other. Remove it")
        return table.slice(at[0], len(at))

    def _episode(self, rows: Any, recording: Recording, spec: Spec, where: str) -> Episode:
        state = self._state(rows, where)[1].astype(np.float32)
        values = tables.numbers(rows, self.action.key, where, len(spec.action))[:-1]
        action = np.clip(control.to_unit(values, spec.action), -1, 1).astype(np.float32)
        outcome_ = self._outcome(rows, where)
        stamps = self._stamps(rows, where)
        obs: Obs = {"state": state, "stamp/state": stamps}
        for camera in spec.cameras:
            key = f"image/{camera.name}"
            obs |= {key: self._pictures(rows, recording, camera, where), f"stamp/{key}": stamps.copy()}
        human = tables.numbers(rows, "intervention", where)[:-1, 0] > 0 if "intervention" in rows.column_names else None
        intervened = np.zeros(len(action), bool) if human is None else human
        meta: dict[str, Any] = {"source": str(self.path), "episode": recording.number, "tasks": list(recording.tasks)}
        meta["success_from"] = self._told_by
        T = len(outcome_)
        obs = {key: value[: T + 1] for key, value in obs.items()}
        ends = (outcome_.terminated, not outcome_.terminated)
        episode = Episode(obs, action[:T], outcome_.reward, outcome_.score, intervened[:T], *ends, meta=meta)
        return self._as_it_was(episode, rows, recording, where)

    def _as_it_was(self, episode: Episode, rows: Any, recording: Recording, where: str) -> Episode:
        """An episode of our own has its stamps, its ending and its meta back."""
        if self.own is None:
            return episode
        kept = self.own.items("episodes")
        if recording.number >= len(kept) or not isinstance(kept[recording.number], dict):
            raise RobotRLError(f"{self.own.name('episodes')} says nothing of episode {recording.number}")
        told = Metadata(f"{self.own.where}: episodes {recording.number}", kept[recording.number])
        keys = [str(key) for key in told.items("stamps")]
        stamps = {key: tables.numbers(rows, key.replace("/", "."), where)[:, 0] for key in keys}
        obs = {key: value for key, value in episode.obs.items() if not key.startswith("stamp/")} | stamps
        terminated, truncated = told.flag("terminated"), told.flag("truncated")
        return replace(
            episode, obs=obs, terminated=terminated, truncated=truncated, meta=told.object("meta", {}).values
        )

    def _stamps(self, rows: Any, where: str) -> np.ndarray:
        """When every row was recorded [s]."""
        if self._clock == 0:
            return np.arange(rows.num_rows) / self.rate
        return tables.numbers(rows, "timestamp", where, 1)[:, 0] / self._clock

    @cached_property
    def _clock(self) -> float:
        """Units of the column `timestamp` in a second; 0: there is none. A rate that is not `fps` is said."""
        gaps = []
        for file in sorted({r.data for r in self.recordings})[:LOOKED_AT]:
            if "timestamp" not in tables.names(file):
                self.account.note(
                    f"there is no column 'timestamp': rows are {1 / self.rate:.4g} s apart, as 'fps' says"
                )
                return 0.0
            rows = tables.table(file, ["timestamp", "episode_index"])
            same = np.diff(tables.numbers(rows, "episode_index", str(file), 1)[:, 0]) == 0
            gaps.append(np.diff(tables.numbers(rows, "timestamp", str(file), 1)[:, 0])[same])
        gap = float(np.median(np.concatenate(gaps))) if any(len(g) for g in gaps) else 1 / self.rate
        unit = next((u for u in CLOCKS if abs(gap * self.rate / u - 1) < 0.5), 1.0)
        if unit != 1.0:
            self.account.note(f"the column 'timestamp' counts {CLOCKS[unit]}; it is kept in seconds")
        mean = float(np.mean(np.concatenate(gaps))) if any(len(g) for g in gaps) else gap
        if mean <= 0 or abs(mean * self.rate / unit - 1) > RATE_OFF:
            said = f"{unit / mean:.3g} Hz" if mean > 0 else "no time at all"
            self.account.note(f"its stamps say {said}, and meta/info.json says fps {self.rate:g}: the latter is taken")
        return unit

    def _pictures(self, rows: Any, recording: Recording, camera: CameraSpec, where: str) -> np.ndarray:
        feature = self.features[key := self.cameras[camera.name]]
        if feature.dtype == "image":
            self.account.picture(camera, feature.image_size(), f"'{key}' in meta/info.json")
            return pictures.gathered(self._images(rows, key, where), rows.num_rows, camera, where, self.account)
        file, begin = recording.videos[key]
        size = feature.image_size()[:2]
        return film(file, begin, self.rate, recording.length, f"{file}: episode {recording.number}", camera, size)

    def _images(self, rows: Any, key: str, where: str) -> Iterator[np.ndarray]:
        """The pictures in column `key`: in it, or in the files that it names."""
        if key not in rows.column_names:
            raise RobotRLError(f"{where} lacks the column '{key}'; it has {', '.join(rows.column_names)}")
        for i in range(rows.num_rows):
            value, at = rows[key][i].as_py(), f"{where}: '{key}' in row {i}"
            if isinstance(value, dict):
                data, path = value.get("bytes"), value.get("path")
            else:
                data, path = (value, None) if isinstance(value, bytes) else (None, value)
            if not data and isinstance(path, str) and path:
                guard.require_file(file := self._meta.file(path))
                data = file.read_bytes()
            if not isinstance(data, bytes) or not data:
                raise RobotRLError(f"{at} holds no picture: neither its bytes nor the path of a file in {self.path}")
            yield pictures.decoded(data, at)

    # ------------------------------------------------------------------------------------------------- success

    @cached_property
    def _told_by(self) -> str:
        """The column that says what succeeded; "" where none does."""
        if self._ignore_rewards:
            return ""
        return next((key for key in (SUCCESS, REWARD) if key in tables.names(self.recordings[0].data)), "")

    @cached_property
    def _judge(self) -> outcome.Judge:
        if not self._told_by:
            return outcome.Judge("")
        return outcome.Judge.of(self._told_by, self._told(), str(self.path), self.account)

    def _told(self) -> Iterator[np.ndarray]:
        for file, recordings in groupby(self.recordings, key=lambda r: r.data):
            table = tables.table(file, [self._told_by, "episode_index"])
            for recording in recordings:
                yield tables.numbers(self._rows(table, recording), self._told_by, str(file), 1)[:, 0]

    def _outcome(self, rows: Any, where: str) -> outcome.Outcome:
        """Of N rows N - 1 actions: what is told of the last row counts for the action before."""
        if self.own is not None:
            return _own_outcome(rows, where)
        if not self._told_by:
            if not self._ignore_rewards:
                self.account.note(
                    f"nothing in it says what succeeded (no {SUCCESS}, no {REWARD}): no episode is a success"
                )
            return outcome.none(rows.num_rows - 1)
        told = _folded(tables.numbers(rows, self._told_by, where, 1)[:, 0])
        graded = self._graded(rows, where)
        return self._judge.outcome(told, self.account, None if graded is None else _folded(graded))

    def _graded(self, rows: Any, where: str) -> np.ndarray | None:
        """Progress (N,) in [0, 1], where a column beside that of success tells it."""
        for key in (SCORE, REWARD):
            if key in rows.column_names and key != self._told_by:
                values = tables.numbers(rows, key, where, 1)[:, 0]
                if values.min() >= 0 and values.max() <= 1:
                    return values
                self.account.leave_out(key, f"a reward outside [0, 1]; {self._told_by} tells success")
        return None


def is_dataset(path: Path) -> bool:
    """Whether the folder `path` looks like one."""
    return (Path(path) / "meta" / "info.json").exists()


def _camera_name(key: str) -> str:
    return key.removeprefix(PICTURES).removeprefix("observation.").replace(".", "_").replace("/", "_")


def _channel_names(feature: Feature, prefix: str) -> list[str]:
    """A name for each of its numbers; those of the state and of the action bear no prefix."""
    if feature.names is None:
        return [f"{prefix}_{i}" for i in range(feature.shape[0])]
    plain = feature.key in (*ACTIONS, *STATES)
    return [name if plain else f"{prefix}_{name}" for name in feature.names]


def _folded(values: np.ndarray) -> np.ndarray:
    """(N,) to (N - 1,): the last two rows become one, the greater."""
    return np.append(values[:-2], max(values[-2:]))


def _own_outcome(rows: Any, where: str) -> outcome.Outcome:
    """As it was written, which needs no judgement."""
    told = [tables.numbers(rows, key, where, 1)[:-1, 0].astype(np.float32) for key in (REWARD, SCORE)]
    return outcome.Outcome(told[0], told[1], bool(told[0][-1] > 0))
