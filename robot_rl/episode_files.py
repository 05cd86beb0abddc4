"""One episode as the files of one zarr group (format 2), and back, with a checksum for every chunk.

The whole group is made in memory and only then written: the bytes needed are known before the first is written, and
zarr's own file handling, slow in version 3, is left out.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr

from robot_rl.types import Episode, RobotRLError, Spec

RESERVE = 64 * 2**20  # bytes left free on the disk: one filled to the brim breaks more than this store
ROWS, IMAGE_ROWS = 256, 32  # time steps a chunk: what a damaged file costs, against the number of files
CODEC = numcodecs.Blosc("zstd", clevel=3, shuffle=numcodecs.Blosc.BITSHUFFLE)  # camera images: a fifth less than raw
DAMAGE = (OSError, ValueError, LookupError, TypeError)  # what a missing, cut or overwritten file raises
IMAGES = "obs/image/"

Arrays = dict[str, np.ndarray]  # "obs/state", "obs/image/front", "action", "extras/base_action", ...
Files = dict[str, bytes]  # path inside the episode's directory -> content


def encode(episode: Episode, spec: Spec) -> Files:
    """The files of an episode; RobotRLError names what is malformed in it."""
    arrays = _arrays(episode)
    _check(arrays, len(episode), spec)
    files = _zarr_files(arrays)
    attributes = {
        "terminated": bool(episode.terminated),
        "truncated": bool(episode.truncated),
        "success": episode.success,
        "length": len(episode),
        "meta": episode.meta,
        "checksums": {name: _checksums(array, _chunk_rows(name)) for name, array in arrays.items()},
    }
    try:
        text = json.dumps(attributes, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RobotRLError(f"episode.meta is not plain JSON ({error}): keep text, finite numbers, lists") from error
    files[".zattrs"] = json.dumps({**attributes, "crc32": _crc_of(json.loads(text))}, indent=1).encode()
    return files


def write(directory: Path, files: Files) -> None:
    """Write `files` to the new `directory`, which is removed again when that fails."""
    need = sum(map(len, files.values()))
    try:
        free = _free(directory.parent)
        if free < need + RESERVE:
            raise RobotRLError(
                f"no room at {directory.parent}: the episode needs {_mib(need)}, {_mib(free)} are free and "
                f"{_mib(RESERVE)} are kept in reserve; free some space and append again"
            )
        directory.mkdir()
        for name, content in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(content)
    except BaseException as error:
        shutil.rmtree(directory, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise RobotRLError(
            f"the episode could not be written at {directory.parent} ({error.strerror}): it needs {_mib(need)}, "
            f"{_mib(_free(directory.parent))} are free; the store is as it was, free some space and append again"
        ) from error


def sync(directory: Path) -> None:
    """Make the files in `directory`, and its own name, survive a power cut; done when it is gone meanwhile."""
    inside = [Path(folder, name) for folder, _, files in os.walk(directory) for name in [*files, "."]]
    with suppress(OSError):
        for path in [*inside, directory.parent]:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def read(directory: Path, *, images: bool) -> Episode:
    """The episode in `directory`; RobotRLError where a file is missing or is not what was written."""
    try:
        attributes = _attributes(directory)
        wanted = {k: v for k, v in attributes["checksums"].items() if images or not k.startswith(IMAGES)}
        arrays = {name: _checked(directory, name, checksums) for name, checksums in wanted.items()}
        return _episode(arrays, attributes, attributes["meta"])
    except DAMAGE as error:
        raise RobotRLError(
            f"episode {directory} is damaged ({error}): `robot-rl inspect --repair` its store"
        ) from error


def read_prefix(directory: Path) -> Episode | None:
    """The longest prefix of steps in which every array matches its checksums; None where no step does."""
    try:
        attributes = _attributes(directory)
        arrays = {name: _whole_rows(directory, name, sums) for name, sums in attributes["checksums"].items()}
    except DAMAGE:
        return None
    # A step needs the observation after it too, so arrays with T + 1 rows hold one step fewer than rows.
    steps = min(len(array) - _extra_row(name) for name, array in arrays.items())
    if steps < 1:
        return None
    arrays = {name: array[: steps + _extra_row(name)] for name, array in arrays.items()}
    meta = {**attributes["meta"], "repaired": f"cut from {attributes['length']} to {steps} steps"}
    return _episode(arrays, {"terminated": False, "truncated": True}, meta)


def _extra_row(name: str) -> int:
    return int(name.startswith(("obs/", "extras/")))


def _arrays(episode: Episode) -> Arrays:
    own = {k: np.asarray(getattr(episode, k)) for k in ("action", "reward", "score", "intervened")}
    obs = {f"obs/{key}": np.asarray(value) for key, value in episode.obs.items()}
    return {**obs, **own, **{f"extras/{key}": np.asarray(value) for key, value in episode.extras.items()}}


def _episode(arrays: Arrays, flags: Mapping[str, Any], meta: dict[str, Any]) -> Episode:
    def under(prefix: str) -> Arrays:
        return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    own: dict[str, Any] = {name: array for name, array in arrays.items() if "/" not in name}
    own.update({flag: bool(flags[flag]) for flag in ("terminated", "truncated")})
    return Episode(obs=under("obs/"), extras=under("extras/"), meta=meta, **own)


# ------------------------------------------------------------------------------------------------- what is refused


def _check(arrays: Arrays, steps: int, spec: Spec) -> None:
    """Raise RobotRLError unless the arrays are what a store of `spec` keeps."""
    if steps == 0:
        raise RobotRLError("the episode has no steps; there is nothing to store")
    expected = _expected(steps, spec)
    missing = [name for name in expected if name not in arrays]
    if missing:
        raise RobotRLError(f"the episode lacks {', '.join(missing)}, which the Spec of the store asks for")
    for name, array in arrays.items():
        _check_name(name, arrays)
        _check_form(name, array, expected.get(name), steps + _extra_row(name))
        _check_values(name, array)


def _expected(steps: int, spec: Spec) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every array that the Spec fixes."""
    images = {IMAGES + c.name: ((steps + 1, *c.shape), c.dtype.name) for c in spec.cameras}
    rows = {"reward": ((steps,), "float32"), "score": ((steps,), "float32"), "intervened": ((steps,), "bool")}
    state = {"obs/state": ((steps + 1, len(spec.state)), "float32")}
    return {**state, **images, "action": ((steps, len(spec.action)), "float32"), **rows}


def _check_name(name: str, arrays: Arrays) -> None:
    if not all(re.fullmatch(r"[A-Za-z0-9_][\w.-]*", part, re.ASCII) for part in name.split("/")):
        raise RobotRLError(f"'{name}' cannot name an array: use letters, digits, '_', '-', '.', and '/' between them")
    if any(other.startswith(f"{name}/") for other in arrays):
        raise RobotRLError(f"'{name}' is both an array and the folder of others: rename one of them")


def _check_form(name: str, array: np.ndarray, expected: tuple[tuple[int, ...], str] | None, rows: int) -> None:
    if expected and (array.shape, array.dtype.name) != expected:
        raise RobotRLError(
            f"{name} is {array.dtype} {array.shape}; the Spec of the store asks for {expected[1]} {expected[0]}"
        )
    if name.startswith(IMAGES) and not expected:
        raise RobotRLError(f"{name} comes from a camera that the Spec of the store does not have")
    if array.ndim == 0 or len(array) != rows:
        raise RobotRLError(f"{name} has shape {array.shape}; it must have {rows} rows, like the rest of the episode")
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise RobotRLError(f"{name} holds {array.dtype}; a store keeps numbers of at most 64 bits and booleans")


def _check_values(name: str, array: np.ndarray) -> None:
    if array.dtype.kind != "f":
        return
    flat = array.reshape(len(array), math.prod(array.shape[1:]))
    if not np.isfinite(flat).all():
        step = int(np.argmax(~np.isfinite(flat).all(axis=1)))
        raise RobotRLError(f"{name} holds NaN or infinity, first at step {step}; nothing was stored")
    if name == "action" and np.abs(flat).max(initial=0.0) > 1.0:
        step = int(np.argmax((np.abs(flat) > 1.0).any(axis=1)))
        raise RobotRLError(f"action leaves [-1, 1], first at step {step}: {array[step]}; clip it before storing")


# ---------------------------------------------------------------------------------------------------------- bytes


def _chunk_rows(name: str) -> int:
    return IMAGE_ROWS if name.startswith(IMAGES) else ROWS


def _checksums(array: np.ndarray, rows: int) -> list[int]:
    """CRC-32 of each chunk of `rows` steps; it covers the dtype and the shape of a step too."""
    form = zlib.crc32(f"{array.dtype.str}{array.shape[1:]}".encode())
    return [zlib.crc32(array[i : i + rows].tobytes(), form) for i in range(0, len(array), rows)]


def _crc_of(attributes: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(attributes, sort_keys=True).encode())


def _attributes(directory: Path) -> dict[str, Any]:
    attributes = json.loads((directory / ".zattrs").read_bytes())
    if not isinstance(attributes, dict) or attributes.pop("crc32", None) != _crc_of(attributes):
        raise ValueError(".zattrs does not match its checksum")
    return attributes


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """ValueError for all that zarr raises over damaged files: a dozen kinds, SystemError and its own among them."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{name}: {error}") from error


def _checked(directory: Path, name: str, checksums: list[int]) -> np.ndarray:
    with _decoding(name):
        stored = _open_array(directory, name)
        array = stored[...].view(stored.dtype.str)  # zarr 3 says "<f4" where numpy says float32
    if _checksums(array, stored.chunks[0]) != checksums:
        raise ValueError(f"{name} does not match its checksums")
    return array


def _whole_rows(directory: Path, name: str, checksums: list[int]) -> np.ndarray:
    """The rows of an array up to its first chunk that cannot be read or does not match."""
    with _decoding(name):
        stored = _open_array(directory, name)
        rows, whole = stored.chunks[0], [stored[:0]]
    for i, checksum in enumerate(checksums):
        try:
            with _decoding(name):
                chunk = stored[i * rows : (i + 1) * rows]
        except ValueError:
            break
        if _checksums(chunk, rows) != [checksum]:
            break
        whole.append(chunk)
    return np.concatenate(whole)


def _free(path: Path) -> int:
    """Free bytes of the disk that `path` is on; 0 where it is gone."""
    return shutil.disk_usage(path).free if path.exists() else 0


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:.1f} MiB"


# ------------------------------------------------- zarr 2 (Python 3.10) and zarr 3 (3.11 on) differ here and only here


def _zarr_files(arrays: Arrays) -> Files:
    """`arrays` as a zarr group of format 2."""
    store: dict[str, Any] = {}
    for name, array in arrays.items():
        shape, chunks = array.shape, tuple(max(1, n) for n in (_chunk_rows(name), *array.shape[1:]))
        # Empty chunks are written too: zarr 2 takes -0.0 for empty, and would give back +0.0.
        if _ZARR_3:
            stored = zarr.create_array(
                zarr.storage.MemoryStore(store), name=name, shape=shape, chunks=chunks, dtype=array.dtype,
                compressors=CODEC, fill_value=0, zarr_format=2, config={"write_empty_chunks": True},
            )  # fmt: skip
        else:
            stored = zarr.create(
                shape, chunks=chunks, dtype=array.dtype, compressor=CODEC, fill_value=0, store=store, path=name,
                write_empty_chunks=True,
            )  # fmt: skip
        stored[...] = array
    files = {name: content.to_bytes() if _ZARR_3 else bytes(content) for name, content in store.items()}
    return {name: content for name, content in files.items() if content != b"{}"}  # attributes nobody set


def _open_array(directory: Path, name: str) -> Any:
    """The zarr array `name`; its files are read here, its chunks decoded when it is indexed."""
    files = {f"{name}/{entry.name}": Path(entry).read_bytes() for entry in os.scandir(directory / name)}
    if not _ZARR_3:
        return zarr.open_array(files, path=name, mode="r")
    buffer = zarr.core.buffer.default_buffer_prototype().buffer
    store = zarr.storage.MemoryStore({key: buffer.from_bytes(content) for key, content in files.items()})
    return zarr.open_array(store, path=name, mode="r", zarr_format=2)


_ZARR_3 = zarr.__version__.startswith("3.")
