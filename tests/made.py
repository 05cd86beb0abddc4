"""Small recordings of other projects, written by the tests themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import zarr

ZARR_3 = int(zarr.__version__.split(".")[0]) >= 3


def feature(size: int, names: Any = None, dtype: str = "float32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [size], "names": names}


def png(picture: np.ndarray) -> dict[str, Any]:
    return {"bytes": cv2.imencode(".png", picture)[1].tobytes(), "path": None}


def lerobot(
    path: Path,
    rows: tuple[int, ...] = (12, 12),
    version: str = "v2.1",
    info: dict[str, Any] | None = None,
    features: dict[str, Any] | None = None,
    columns: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
    pattern: str | None = None,
) -> Path:
    """A dataset; what is given replaces, adds or (None) removes what is usual. Columns are for all rows at once."""
    rng, total = np.random.default_rng(0), sum(rows)
    number = np.repeat(np.arange(len(rows)), rows)
    frame = np.concatenate([np.arange(n) for n in rows])
    told = {k: v for k, v in {
        "observation.state": feature(2, ["a", "b"]), "action": feature(2, ["a", "b"]), "timestamp": feature(1),
        "episode_index": feature(1, dtype="int64"), **(features or {}),
    }.items() if v is not None}  # fmt: skip
    values = {k: v for k, v in {
        "observation.state": rng.uniform(-1, 1, (total, 2)), "action": rng.uniform(-1, 1, (total, 2)),
        "timestamp": frame / 10, "episode_index": number, **(columns or {}),
    }.items() if v is not None}  # fmt: skip
    old = version != "v3.0"
    pattern = pattern or (
        "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
        if old
        else "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    )
    meta = {
        "codebase_version": version, "robot_type": "panda", "fps": 10, "chunks_size": 1000, "features": told,
        "data_path": pattern, **(info or {}),
    }  # fmt: skip
    (path / "meta").mkdir(parents=True)
    (path / "meta/info.json").write_text(json.dumps(meta))
    entries = [{"episode_index": i, "tasks": ["pick"], "length": n} for i, n in enumerate(rows)]
    if old:
        (path / "meta/episodes.jsonl").write_text("\n".join(json.dumps({**e, **(about or {})}) for e in entries))
        for i in range(len(rows)):
            _parquet(path / f"data/chunk-000/episode_{i:06d}.parquet", values, np.flatnonzero(number == i))
    else:
        place = {"data/chunk_index": 0, "data/file_index": 0}
        told_of = {k: [e[k] for e in entries] for k in entries[0]} | {k: [v] * len(rows) for k, v in place.items()}
        _parquet(path / "meta/episodes/chunk-000/file-000.parquet", {**told_of, **(about or {})})
        _parquet(path / "data/chunk-000/file-000.parquet", values)
    return path


def _parquet(file: Path, values: dict[str, Any], rows: np.ndarray | None = None) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}
    chosen = {k: v if rows is None else [v[i] for i in rows] for k, v in columns.items()}
    parquet.write_table(pyarrow.table(chosen), file)


def changed(file: Path, change: dict[str, Any]) -> None:
    """Merge `change` into a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))


def demonstrations(
    path: Path,
    lengths: tuple[int, ...] = (30, 30),
    obs: dict[str, Any] | None = None,
    next_obs: bool = True,
    env_args: dict[str, Any] | None = None,
    masks: dict[str, list[str]] | None = None,
    **arrays: Any,
) -> Path:
    """A file in robomimic's layout; values are functions of a demonstration's length, None removes one."""
    rng = np.random.default_rng(0)
    settings = {"env_name": "Lift", "type": 1, "env_kwargs": {"robots": ["Panda"], "control_freq": 20}}
    usual = {
        "actions": lambda n: rng.uniform(-1, 1, (n, 7)), "rewards": lambda n: (np.arange(n) == n - 1).astype(float),
        "states": lambda n: rng.normal(size=(n, 32)),
    }  # fmt: skip
    seen = {"robot0_eef_pos": lambda n: rng.uniform(-1, 1, (n, 3)), **(obs or {})}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(settings if env_args is None else env_args)
        for i, n in enumerate(lengths):
            for key, make in {**usual, **arrays}.items():
                if make is not None:
                    data.create_dataset(f"demo_{i}/{key}", data=make(n))
            for key, make in seen.items():
                values = make(n)
                data.create_dataset(f"demo_{i}/obs/{key}", data=values)
                if next_obs and "/" not in key:
                    data.create_dataset(f"demo_{i}/next_obs/{key}", data=np.roll(values, -1, 0))
        for name, chosen in (masks or {}).items():
            file.create_dataset(f"mask/{name}", data=np.array(chosen, "S8"))
    return path


def aloha(path: Path, episodes: int = 2, rows: int = 20) -> Path:
    path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(episodes):
        with h5py.File(path / f"episode_{i}.hdf5", "w") as file:
            file.attrs["sim"] = False
            file["action"] = rng.uniform(-1, 1, (rows, 14)).astype(np.float32)
            for key in ("qpos", "qvel"):
                file[f"observations/{key}"] = rng.uniform(-1, 1, (rows, 14)).astype(np.float32)
            file["observations/images/cam_high"] = rng.integers(0, 256, (rows, 6, 8, 3), np.uint8)
    return path


def buffer(path: Path, version: int = 2, ends: tuple[int, ...] = (10, 20), **arrays: np.ndarray | None) -> Path:
    """Push-T's replay buffer; chunks of 10 rows, those of zeros left out as zarr does."""
    rng = np.random.default_rng(0)
    values = {
        "state": np.concatenate([rng.uniform(100, 400, (ends[-1], 4)), rng.uniform(-3, 3, (ends[-1], 1))], 1),
        "action": rng.uniform(0, 512, (ends[-1], 2)), **arrays,
    }  # fmt: skip
    root: Any = zarr.open_group(str(path), mode="w", **({"zarr_format": version} if ZARR_3 else {}))
    data, meta = root.require_group("data"), root.require_group("meta")
    for key, value in values.items():
        if value is not None:
            _array(data, key, value.shape, (10, *value.shape[1:]), "f4")[:] = value
    _array(meta, "episode_ends", (len(ends),), (len(ends),), "i8")[:] = np.array(ends)
    return path


def _array(group: Any, key: str, shape: Any, chunks: Any, dtype: str) -> Any:
    if hasattr(group, "create_array"):
        return group.create_array(key, shape=shape, chunks=chunks, dtype=dtype, config={"write_empty_chunks": False})
    return group.create_dataset(key, shape=shape, chunks=chunks, dtype=dtype, write_empty_chunks=False)
