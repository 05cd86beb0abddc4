"""One episode as the files of one zarr group (format 2), and back, with a checksum for every chunk.

The whole group is made in memory and only then written: the bytes needed are known before the first is written, and
zarr's own file handling, slow in version 3, is left out.
"""

from __future__ import annotations

import json
import math
import os
import posixpath
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr

from robot_rl import memory, unpacking, zarr_metadata
from robot_rl.formats import paths
from robot_rl.types import Episode, RobotRLError, Spec
from robot_rl.zarr_chunks import require_form
from robot_rl.zarr_files import Loaded

RESERVE = 64 * 2**20  # bytes left free on the disk: one filled to the brim breaks more than this store
ROWS, IMAGE_ROWS = 256, 32  # time steps a chunk: what a damaged file costs, against the number of files
CODEC = numcodecs.Blosc("zstd", clevel=3, shuffle=numcodecs.Blosc.BITSHUFFLE)  # camera images: a fifth less than raw
DAMAGE = (OSError, ValueError, LookupError, TypeError, RecursionError)  # what a cut or overwritten file raises
NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*", re.ASCII)  # of an array
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
    files[".zattrs"] = json.dumps({**attributes, "crc32": checksum(json.loads(text))}, indent=1).encode()
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


def read(directory: Path, spec: Spec, *, images: bool) -> Episode:
    """The episode in `directory`; RobotRLError where a file is missing, is not what was written, or not of `spec`."""
    try:
        attributes = _attributes(directory)
        wanted = {k: v for k, v in attributes["checksums"].items() if images or not k.startswith(IMAGES)}
        rows = {name: attributes["length"] + _extra_row(name) for name in wanted}
        arrays = {name: _checked(directory, name, sums, rows[name]) for name, sums in wanted.items()}
    except DAMAGE as error:
        raise RobotRLError(
            f"episode {directory} is damaged ({error}): `robot-rl inspect --repair` its store"
        ) from error
    try:  # checksums do not tell who made them
        _check(arrays, attributes["length"], spec if images else replace(spec, cameras=()))
    except RobotRLError as error:
        raise RobotRLError(
            f"episode {directory} is not what its store may hold ({error}): `robot-rl inspect --repair` sets it aside"
        ) from error
    return _episode(arrays, attributes, attributes["meta"])


def read_prefix(directory: Path, spec: Spec) -> Episode | None:
    """The longest prefix of steps in which every array matches its checksums; None where no step does, or none of
    an episode that a store of `spec` may hold.
    """
    try:
        attributes = _attributes(directory)
        arrays = {name: _whole_rows(directory, name, sums) for name, sums in attributes["checksums"].items()}
    except (*DAMAGE, RobotRLError):  # the latter: a link out of the store, a codec that runs code
        return None
    # A step needs the observation after it too, so arrays with T + 1 rows hold one step fewer than rows.
    steps = min(len(array) - _extra_row(name) for name, array in arrays.items())
    if steps < 1:
        return None
    arrays = {name: array[: steps + _extra_row(name)] for name, array in arrays.items()}
    try:
        _check(arrays, steps, spec)
    except RobotRLError:
        return None
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
    if not NAME.fullmatch(name):
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


def checksum(attributes: Mapping[str, Any]) -> int:
    """CRC-32 of attributes, whatever the order of their names."""
    return zlib.crc32(json.dumps(attributes, sort_keys=True).encode())


def _attributes(directory: Path) -> dict[str, Any]:
    attributes = json.loads(_content(directory, ".zattrs", zarr_metadata.LARGEST_METADATA))
    if not isinstance(attributes, dict) or attributes.pop("crc32", None) != checksum(attributes):
        raise ValueError(".zattrs does not match its checksum")
    kinds = {"terminated": bool, "truncated": bool, "length": int, "meta": dict, "checksums": dict}
    if wrong := [key for key, kind in kinds.items() if type(attributes.get(key)) is not kind]:
        raise ValueError(f".zattrs lacks {', '.join(wrong)}")
    for name, sums in attributes["checksums"].items():
        if not NAME.fullmatch(name) or not isinstance(sums, list):
            raise ValueError(f".zattrs tells of an array {name!r:.60}")
    return attributes


def _content(directory: Path, name: str, most: float = math.inf) -> bytes:
    """A file of the episode in `directory`, which may be a link in its store, but not out of it."""
    path = paths.inside(directory.parent, f"{directory.name}/{name}")
    if path.stat().st_size > most:
        raise ValueError(f"{name} has {path.stat().st_size:,} bytes")
    return path.read_bytes()


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """ValueError for all that zarr raises over damaged files: a dozen kinds, SystemError and its own among them."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{name}: {error}") from error


def _checked(directory: Path, name: str, checksums: list[int], rows: int) -> np.ndarray:
    with _decoding(name):
        stored = _open_array(directory, name)
        if stored.shape[0] != rows:
            raise ValueError(f"it has {stored.shape[0]} rows of {rows}")
        array = stored[...].view(stored.dtype.str)  # zarr 3 says "<f4" where numpy says float32
    if _checksums(array, stored.chunks[0]) != checksums:
        raise ValueError(f"{name} does not match its checksums")
    return array


def _whole_rows(directory: Path, name: str, checksums: list[int]) -> np.ndarray:
    """The rows of an array up to its first chunk that cannot be read or does not match."""
    with _decoding(name):
        stored = _open_array(directory, name, damaged=True)
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


def _open_array(directory: Path, name: str, *, damaged: bool = False) -> Any:
    """The zarr array `name`; its files are read and judged here, its chunks decoded when it is indexed.

    Of a `damaged` one chunks that are none are left out: zarr reads zeros there, which their checksum betrays.
    """
    folder = paths.inside(directory.parent, f"{directory.name}/{name}")
    entries = [e for e in os.scandir(folder) if not e.is_dir()]  # a folder: the name of another array goes on
    memory.require(sum(e.stat().st_size for e in entries), f"{folder}")
    files = {f"{name}/{entry.name}": _content(directory, f"{name}/{entry.name}") for entry in entries}
    if damaged:
        files = _only_chunks(files, f"{name}/.zarray", str(directory))
    array = zarr_metadata.require_safe(Loaded(str(directory), files))[name]
    unpacking.require_plausible(array.nbytes, array.stored, f"{folder}")
    if not _ZARR_3:
        return zarr.open_array(files, path=name, mode="r")
    buffer = zarr.core.buffer.default_buffer_prototype().buffer
    store = zarr.storage.MemoryStore({key: buffer.from_bytes(content) for key, content in files.items()})
    return zarr.open_array(store, path=name, mode="r", zarr_format=2)


def _only_chunks(files: Files, metadata: str, origin: str) -> Files:
    """Those of an array's files that are what its metadata say."""
    form = zarr_metadata.require_safe(Loaded(origin, {metadata: files[metadata]}))[posixpath.dirname(metadata)].form
    kept = {metadata: files[metadata]}
    for name, content in files.items():
        with suppress(RobotRLError):
            if name != metadata:
                require_form(Loaded(origin, files), name, form)
                kept[name] = content
    return kept


_ZARR_3 = zarr.__version__.startswith("3.")
