"""Recordings that are damaged at random: metadata, tables, trees and chunks. Whatever is in them, only RobotRLError may
come of it. `tests/benchmarks/fuzz_imports.py` tries thousands, `tests/test_fuzz_imports.py` a few."""

from __future__ import annotations

import json
import random
import shutil
import signal
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robot_rl import episode_files
from robot_rl.formats import (
    aloha,
    diffusion_policy,
    lerobot,
    lerobot_writer,
    replay_buffer,
    robomimic,
    robosuite_hdf5,
    unreadable,
)  # fmt: skip
from robot_rl.formats.account import Account
from robot_rl.types import CameraSpec, Channel, Episode, RobotRLError, Spec
from sim import pusht
from sim.pusht import PushTConfig
from tests import made

PATIENCE = 20  # seconds that one input may take
NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**400, -0.5, 1e308, float("nan"), float("inf"), "", "x", "../..",
    "/etc/passwd", "\0", "{chunk_index:999999999d}", "{0.__class__}", "{", "x" * 5000, [], [[]], [None], [1, 2],
    ["a"] * 99,
    [10**12], [0], [-3], {}, {"a": {}}, "float32", "video", "image", "int64", "string", "v3.0", "v2.0",
    "<f8", "|O", "|V9",
    [1, 2, 3, 4, 5, 6, 7, 8, 9], 12, 1000, "data/chunk-000/file-000.parquet", [12, 2], [24, 2], {"id": "pickle"}, "0.0",
]  # fmt: skip
Spoil = Callable[[Path, random.Random], None]


@dataclass
class Tally:
    """What became of the inputs of one kind."""

    read: int = 0
    refused: int = 0
    broken: list[str] = field(default_factory=list)  # tracebacks


def fuzz(kind: str, inputs: int, seed: int, folder: Path) -> Tally:
    """Damage and read `inputs` recordings of a `kind`: lerobot, hdf5 or zarr."""
    sources = SOURCES[kind](folder / "sources")
    tally = Tally()
    for i in range(inputs):
        dice = random.Random(f"{kind} {seed} {i}")
        source, spoils, read = dice.choice(sources)
        copy = folder / f"input{i}{source.suffix}"
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
        for _ in range(dice.choice([1, 1, 1, 2, 4])):
            with suppress(Exception):  # what is spoilt already may not open to be spoilt more
                dice.choice(spoils)(copy, dice)
        _try(read, copy, tally, f"{kind} seed {seed} input {i} of {source.name}")
        shutil.rmtree(copy) if copy.is_dir() else copy.unlink(missing_ok=True)
    return tally


def _try(read: Callable[[Path], None], path: Path, tally: Tally, name: str) -> None:
    try:
        with _patience():
            read(path)
        tally.read += 1
    except RobotRLError:
        tally.refused += 1
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        tally.broken.append(f"{name}\n{traceback.format_exc()}")


@contextmanager
def _patience() -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError(f"still at it after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# --------------------------------------------------------------------------------------------- how they are read


def _store(spec: Spec, episodes: Any) -> None:
    """As an import does, but for the writing."""
    for episode in episodes:
        episode_files.encode(episode, spec)
    Spec.from_dict(json.loads(json.dumps(spec.to_dict())))


def read_lerobot(path: Path) -> None:
    if not lerobot.is_dataset(path):
        raise RobotRLError(unreadable.what_it_is(path))
    account = Account()
    dataset = lerobot.Dataset(path, account)
    spec = dataset.spec([c for c in dataset.cameras if dataset.filmed([c])])
    _store(spec, dataset.episodes(spec))
    account.lines()


def read_hdf5(path: Path) -> None:
    if aloha.is_recording(path):
        found = aloha.Recordings(path, Account(), ("cam_high",))
        _store(found.spec, found.episodes())
        return
    with suppress(RobotRLError):  # then it may still hold states
        _store(*robomimic.read(path, account := Account()))
        account.lines()
        return
    for demo in robosuite_hdf5.read(path):
        robosuite_hdf5._require_same_controller(demo, LIFT)


def read_zarr(path: Path) -> None:
    if not replay_buffer.is_buffer(path):
        raise RobotRLError(unreadable.what_it_is(path))
    if (own := diffusion_policy.own_spec(path)) is not None:
        _store(own, diffusion_policy.read_own(path, own))
        return
    spec = PushTConfig().spec()
    _store(spec, diffusion_policy.read(path, spec, pusht.observe, pusht.grade))


# ------------------------------------------------------------------------------------------------ the sound ones

LIFT = Spec(
    "robosuite:Lift", "Panda", (Channel("x", "m", -1.0, 1.0), Channel("y", "m", -1.0, 1.0)),
    tuple(Channel(f"a{i}", "m", -0.05, 0.05) for i in range(7)), (CameraSpec("front", 8, 8),), 20.0, 50,
)  # fmt: skip


def _episodes(spec: Spec, T: int = 9) -> list[Episode]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(2):
        obs = {"state": rng.uniform(-1, 1, (T + 1, len(spec.state))).astype(np.float32)}
        obs |= {f"image/{c.name}": rng.integers(0, 256, (T + 1, *c.shape), np.uint8) for c in spec.cameras}
        obs |= {f"stamp/{key}": np.arange(T + 1) / spec.rate for key in list(obs)}
        reward = (np.arange(T) == T - 1).astype(np.float32)
        action = rng.uniform(-1, 1, (T, len(spec.action))).astype(np.float32)
        found.append(Episode(obs, action, reward, reward.copy(), np.zeros(T, bool), True, False, meta={"seed": 1}))
    return found


def _lerobot_sources(folder: Path) -> list[Any]:
    picture = {"dtype": "image", "shape": [6, 8, 3], "names": ["height", "width", "channels"]}
    images = [made.png(np.full((6, 8, 3), i, np.uint8)) for i in range(24)]
    with_images = {"features": {"observation.images.top": picture}, "columns": {"observation.images.top": images}}
    rewards = {"next.reward": (np.arange(24) % 12 == 11).astype(float)}
    told = {"features": {"next.reward": made.feature(1)}, "columns": rewards}
    places = [
        made.lerobot(folder / "v21", **with_images),
        made.lerobot(folder / "v30", version="v3.0", **told),
        folder / "own",
    ]
    lerobot_writer.write(folder / "own", LIFT, _episodes(LIFT))
    return [(p, [spoil_json, spoil_json, spoil_table, spoil_bytes], read_lerobot) for p in places]


def _hdf5_sources(folder: Path) -> list[Any]:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    obs = {
        "agentview_rgb": lambda n: rng.integers(0, 256, (n, 6, 8, 3), np.uint8), "gripper": lambda n: np.arange(n) / n,
        "robot0_eef_quat": lambda n: np.tile([0.0, 0.0, 0.0, 1.0], (n, 1)),
    }  # fmt: skip
    places = [
        made.demonstrations(folder / "foreign.hdf5", (6, 5), obs, masks={"train": ["demo_0"]}),
        made.demonstrations(folder / "libero.hdf5", (6,), obs, next_obs=False),
        made.aloha(folder / "aloha", 1, 6) / "episode_0.hdf5",
        folder / "own.hdf5",
    ]
    robomimic.write(folder / "own.hdf5", LIFT, _episodes(LIFT))
    return [(p, [spoil_tree, spoil_tree, spoil_attribute, spoil_bytes], read_hdf5) for p in places]


def _zarr_sources(folder: Path) -> list[Any]:
    folder.mkdir(parents=True)
    zeros = np.concatenate([np.full((10, 2), 9.0), np.zeros((10, 2))])
    places = [made.buffer(folder / "v2.zarr", 2, action=zeros), folder / "own.zarr"]
    if made.ZARR_3:
        places.append(made.buffer(folder / "v3.zarr", 3))
    diffusion_policy.write(folder / "own.zarr", LIFT, _episodes(LIFT))
    return [(p, [spoil_json, spoil_json, spoil_bytes, spoil_files, spoil_by_zip], read_zarr) for p in places]


SOURCES: dict[str, Callable[[Path], list[Any]]] = {
    "lerobot": _lerobot_sources, "hdf5": _hdf5_sources, "zarr": _zarr_sources,
}  # fmt: skip

# -------------------------------------------------------------------------------------------------------- damage


def _files(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]


def spoil_json(path: Path, dice: random.Random) -> None:
    """Change a value, a key, or the type of something in a file of JSON."""
    names = (".zarray", ".zgroup", ".zattrs", "zarr.json")
    found = [f for f in _files(path) if f.suffix in (".json", ".jsonl") or f.name in names]
    if not found:
        return
    file = dice.choice(found)
    lines = (
        file.read_text(errors="replace").splitlines() if file.suffix == ".jsonl" else [file.read_text(errors="replace")]
    )
    at = dice.randrange(len(lines)) if lines else 0
    try:
        lines[at : at + 1] = [json.dumps(_changed(json.loads(lines[at]), dice))]
    except (ValueError, IndexError):
        return
    file.write_text("\n".join(lines))


def _changed(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(list(value))
        how = dice.random()
        if how < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if how < 0.15:
            return {(k if k != key else dice.choice(["", "x", "a.b/c", "../x"])): v for k, v in value.items()}
        return {k: _changed(v, dice) if k == key else v for k, v in value.items()}
    if isinstance(value, list) and value and dice.random() < 0.7:
        at = dice.randrange(len(value))
        if dice.random() < 0.2:
            return value[:at] + value[at + 1 :]
        return [_changed(v, dice) if i == at else v for i, v in enumerate(value)]
    if isinstance(value, str) and value.startswith("{") and dice.random() < 0.9:  # JSON in JSON: our own Spec
        return json.dumps(_changed(json.loads(value), dice))
    return dice.choice(NASTY)


def spoil_bytes(path: Path, dice: random.Random) -> None:
    """Flip, cut, blank or double bytes of a file."""
    file = dice.choice(_files(path))
    data = bytearray(file.read_bytes())
    if not data:
        return
    at, how = dice.randrange(len(data)), dice.randrange(5)
    if how == 0:
        data[at] ^= 1 << dice.randrange(8)
    elif how == 1:
        del data[at:]
    elif how == 2:
        data[at : at + 64] = bytes(min(64, len(data) - at))
    elif how == 3:
        data[at:at] = data[at : at + dice.choice([1, 8, 4096])]
    else:
        data[at : at + 8] = dice.randbytes(8)
    file.write_bytes(data)


def spoil_files(path: Path, dice: random.Random) -> None:
    """Remove a file, or make another of it."""
    files = _files(path)
    file, other = dice.choice(files), dice.choice(files)
    how = dice.randrange(4)
    if how == 0:
        file.unlink()
    elif how == 1:
        file.write_bytes(other.read_bytes())
    elif how == 2:
        file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    else:
        file.unlink()
        file.symlink_to("/etc/passwd")


def spoil_by_zip(path: Path, dice: random.Random) -> None:
    """Put the zip of a buffer in its place, and damage that too."""
    if not path.is_dir():
        return
    whole = path.with_suffix(".zip.part")
    with zipfile.ZipFile(whole, "w", dice.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for file in _files(path):
            if not file.is_symlink():
                archive.write(file, dice.choice(["", "inner/"]) + str(file.relative_to(path)))
    shutil.rmtree(path)
    whole.rename(path)
    if dice.random() < 0.5:
        spoil_bytes(path, dice)


def spoil_table(path: Path, dice: random.Random) -> None:
    """Change a column of a parquet file: its rows, type, name."""
    import pyarrow
    import pyarrow.parquet as parquet

    files = [f for f in _files(path) if f.suffix == ".parquet"]
    if not files:
        return
    file = dice.choice(files)
    try:
        table = parquet.read_table(file)
    except Exception:  # already spoilt
        return
    key = dice.choice(table.column_names or [""])
    values, n = table.to_pydict(), table.num_rows
    column = values.get(key, [])
    if n and dice.random() < 0.5:
        column = [*column]
        column[dice.randrange(n)] = dice.choice([None, column[0]])
        values[key] = column
    changes: list[Callable[[], Any]] = [
        lambda: {k: v for k, v in values.items() if k != key},
        lambda: {**values, key: [dice.choice(["x", None]) for _ in range(n)]},
        lambda: {**values, key: [float(dice.choice([np.nan, np.inf, 1e300, -1, 0.5, 2**60])) for _ in range(n)]},
        lambda: {**values, key: [dice.choice([-1, 0, 1, 2**62, 12]) for _ in range(n)]},
        lambda: {**values, key: [[1.0] * dice.choice([0, 1, 2, 3]) for _ in range(n)]},
        lambda: {**values, key: [[[1.0, 2.0]] for _ in range(n)]},
        lambda: {**values, key: [{"bytes": b"torn", "path": dice.choice([None, "../x", "x"])} for _ in range(n)]},
        lambda: {**values, key: [b"bytes"] * n},
        lambda: {**values, key: [None] * n},
        lambda: {k: v[: dice.choice([0, 1, n // 2])] for k, v in values.items()},
        lambda: {k: v + v for k, v in values.items()},
        lambda: {(k if k != key else "renamed"): v for k, v in values.items()},
    ]
    try:
        parquet.write_table(pyarrow.table(dice.choice(changes)()), file)
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError):
        return


def spoil_tree(path: Path, dice: random.Random) -> None:
    """Replace, remove or link something in an HDF5 file."""
    try:
        with h5py.File(path, "a") as file:
            names: list[str] = []
            file.visit(names.append)
            name = dice.choice(names)
            small = isinstance(file[name], h5py.Dataset) and (file[name].size or 0) < 10**6
            values = file[name][()] if small else np.zeros(3)
            if dice.random() < 0.15:
                file[dice.choice([f"{name}x", f"data/demo_{dice.choice([7, '0', 'x', '9' * 30])}"])] = file[name]
                return
            del file[name]
            how = dice.randrange(14)
            if how == 0:
                return
            if how == 1:
                file.create_group(name)
            elif how == 2:
                file[name] = h5py.SoftLink(dice.choice(["/", "/nowhere", f"/{name}", "/data"]))
            elif how == 3:
                file[name] = h5py.ExternalLink("/etc/passwd", "/")
            elif how == 4:
                file.create_dataset(name, shape=(10**9, 3), dtype="f8", chunks=(1024, 3))
            else:
                file[name] = _values(values, how, dice)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, IndexError):
        return  # already spoilt


def _values(values: Any, how: int, dice: random.Random) -> Any:
    array = np.atleast_1d(np.asarray(values))
    choices = [
        array[: len(array) // 2], array[:0], np.concatenate([array, array]), array[..., None], array[..., :0],
        array.astype("f8") * dice.choice([np.nan, np.inf, -1, 1e300, 100, 0]) if array.dtype.kind in "biuf" else array,
        array.astype(dice.choice(["f2", "u1", "i8", "c16", "?"])) if array.dtype.kind in "biuf" else array,
        np.float64(3), "text", np.array([b"a", b"b"]), np.zeros((3,), [("a", "f4"), ("b", "i2")]), h5py.Empty("f4"),
        dice.choice([1, -1, 0.5]) * np.ones(array.shape), np.zeros((2, 2, 2, 2, 2)),
    ]  # fmt: skip
    return dice.choice(choices)


def spoil_attribute(path: Path, dice: random.Random) -> None:
    """Change an attribute of an HDF5 file; of JSON something in it."""
    try:
        with h5py.File(path, "a") as file:
            names: list[str] = [""]
            file.visit(names.append)
            places = [file[n] if n else file for n in names]
            place = dice.choice([p for p in places if len(p.attrs)] or [file])
            if not len(place.attrs):
                return
            key = dice.choice(list(place.attrs))
            value = place.attrs[key]
            if isinstance(value, str) and value.startswith("{") and dice.random() < 0.8:
                place.attrs[key] = json.dumps(_changed(json.loads(value), dice))
            elif dice.random() < 0.3:
                del place.attrs[key]
            else:
                place.attrs[key] = dice.choice(
                    [0, 1.5, "x", b"\xff\xfe", np.zeros(3), h5py.Empty("f4"), "[1, 2]", "null"]
                )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError):
        return
