"""A zarr store is judged before zarr opens it, because opening one can run code, or ask for more memory than there is.

zarr builds whatever codec the metadata name: `pickle`, or an array of objects, unpickles, and unpickling runs code.
Here all metadata are read as plain JSON, those of version 2 (`.zarray`, `.zgroup`, `.zattrs`, `.zmetadata`) and of
version 3 (`zarr.json`), consolidated or not, sharded or not. What passes are arrays of numbers and booleans, packed by
one of a few codecs, of a size that fits the files that are there; every chunk's header is held against that size.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from robot_rl import unpacking
from robot_rl.types import RobotRLError
from robot_rl.zarr_chunks import Form, require_form
from robot_rl.zarr_files import Files, Folder, Zipped

METADATA = (".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json")
LARGEST_METADATA = 16 * 2**20  # bytes
MOST_DIMENSIONS = 16
MOST_UNPACKED = 4 * unpacking.GIB  # of a whole store, be its files as small as they like
SPARE_CHUNKS = 100_000  # chunks that an array may have beyond 64 for each file that is there
V2_DTYPE = re.compile(r"[<>|]?(b1|[iu][1248]|f[248])")
V3_TYPES = {"bool", *(f"{k}{n}" for k in ("int", "uint") for n in (8, 16, 32, 64)), "float16", "float32", "float64"}
COMPRESSORS = ("blosc", "zstd", "lz4", "gzip", "zlib")
PLAIN = ("bytes", "endian", "transpose", "crc32c")  # codecs of version 3 that change no size but by a checksum
CHUNK = re.compile(r"(c/)?\d+([./]\d+)*|c")


@dataclass(frozen=True)
class Array:
    """What the metadata say of an array, and the bytes of its chunks on the disk."""

    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]  # the shape of a chunk; of a shard where there are shards
    form: Form
    stored: int = 0

    @property
    def nbytes(self) -> int:
        """Unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_group(path: Path) -> tuple[Any, dict[str, Array]]:
    """The zarr group in the folder or zip `path`, for reading, and its arrays by path; RobotRLError if it is unsafe."""
    if path.is_dir():
        arrays = require_safe(Folder(path))
        return zarr.open_group(str(path), mode="r"), arrays
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = require_safe(Zipped(archive))
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise RobotRLError(f"{path} is no whole zip ({error}); copy it again") from error
    return zarr.open_group(zarr.storage.ZipStore(str(path), mode="r"), mode="r"), arrays


def require_safe(files: Files) -> dict[str, Array]:
    """The arrays of a store by their path; RobotRLError where zarr must not open it."""
    arrays: dict[str, Array] = {}
    for name in files.sizes:
        if posixpath.basename(name) in METADATA:
            for path, array in _arrays(files, name):
                if arrays.setdefault(path, array) != array:
                    raise RobotRLError(
                        f"{files.origin}: {name} tells of another array {path} than its own file; copy it again"
                    )
    chunks = _chunks(files, arrays)
    for path, array in list(arrays.items()):
        _require_sizes(files, path, array, chunks[path])
        for name in chunks[path]:
            require_form(files, name, array.form)
        arrays[path] = replace(array, stored=sum(files.sizes[name] for name in chunks[path]))
        if len(array.shape) <= 2:  # numbers are read as a whole, pictures an episode at a time
            unpacking.require_plausible(array.nbytes, arrays[path].stored, f"{files.origin}: {path}")
    total, stored = sum(a.nbytes for a in arrays.values()), sum(a.stored for a in arrays.values())
    if total > max(MOST_UNPACKED, unpacking.RATIO * stored):
        raise _absurd(files.origin, f"{stored:,} bytes of chunks for {total / unpacking.GIB:,.2f} GiB of arrays")
    return arrays


def _chunks(files: Files, arrays: dict[str, Array]) -> dict[str, list[str]]:
    """The chunk files of every array."""
    found: dict[str, list[str]] = {path: [] for path in arrays}
    for name in files.sizes:
        above = posixpath.dirname(name)
        while above and above not in arrays:
            above = posixpath.dirname(above)
        if above in arrays and CHUNK.fullmatch(posixpath.relpath(name, above or ".")):
            found[above].append(name)
    return found


def _require_sizes(files: Files, path: str, array: Array, chunks: list[str]) -> None:
    grid = math.prod(math.ceil(n / c) for n, c in zip(array.shape, array.chunks, strict=True))
    if grid > SPARE_CHUNKS + 64 * len(chunks):
        raise _absurd(f"{files.origin}: {path}", f"{len(chunks)} chunk files of {grid:,} that its shape asks for")
    if grid:
        largest = max((files.sizes[name] for name in chunks), default=0)
        unpacking.require_plausible(array.form.size, largest, f"{files.origin}: a chunk of {path}")


def _absurd(what: str, why: str) -> RobotRLError:
    return RobotRLError(f"{what}: {why}; it is damaged or was made to fill the memory. Nothing of it was read")


# --------------------------------------------------------------------------------------------- metadata, as plain JSON


def _arrays(files: Files, name: str) -> Iterator[tuple[str, Array]]:
    """The arrays that a file of metadata tells of: its own, or of a whole store where they are consolidated."""
    where, folder, kind = f"{files.origin}: {name}", posixpath.dirname(name), posixpath.basename(name)
    if files.sizes[name] > LARGEST_METADATA:
        raise _absurd(where, f"metadata of {files.sizes[name]:,} bytes")
    try:
        data = json.loads(files.read(name))
    except (ValueError, RecursionError) as error:
        raise RobotRLError(f"{where} is no JSON ({error}); copy it again") from error
    try:
        yield from _told(kind, folder, data)
    except RobotRLError as error:
        raise RobotRLError(f"{where}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise RobotRLError(
            f"{where} is no metadata of zarr ({type(error).__name__}: {error}); copy it again"
        ) from error


def _told(kind: str, folder: str, data: Any) -> Iterator[tuple[str, Array]]:
    if not isinstance(data, dict):
        raise RobotRLError("it is no JSON object; copy it again")
    if kind == ".zarray":
        yield folder, _v2(data)
    elif kind == ".zmetadata":
        for path, inner in data["metadata"].items():
            yield from _told(posixpath.basename(path), _joined(folder, posixpath.dirname(path)), inner)
    elif kind == "zarr.json" and data["node_type"] == "array":
        yield folder, _v3(data)
    elif kind == "zarr.json":
        for path, inner in ((data.get("consolidated_metadata") or {}).get("metadata") or {}).items():
            yield from _told("zarr.json", _joined(folder, path), inner)


def _joined(folder: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(folder, path)) if path else folder


def _v2(data: dict[str, Any]) -> Array:
    """Of a `.zarray`."""
    _require(data["zarr_format"] == 2, "zarr_format", data["zarr_format"])
    dtype = data["dtype"]
    _require(isinstance(dtype, str) and V2_DTYPE.fullmatch(dtype) is not None, "dtype", dtype)
    _require(data.get("order", "C") in ("C", "F"), "order", data.get("order"))
    _require_fill(data.get("fill_value"))
    for packed in data.get("filters") or []:
        _require_filter(packed, dtype)
    compressor = data["compressor"]
    name = "" if compressor is None else compressor["id"]
    _require(name in ("", *COMPRESSORS), "compressor", name)
    shape, chunks = _sizes(data["shape"], 0), _sizes(data["chunks"], 1)
    _require(len(shape) == len(chunks), "chunks", data["chunks"])
    size = math.prod(chunks) * np.dtype(dtype).itemsize
    return Array(shape, np.dtype(dtype), chunks, Form(size, name))


def _require_filter(packed: dict[str, Any], dtype: str) -> None:
    """Only filters that keep the size: delta of the same type, and shuffle."""
    _require(packed["id"] in ("delta", "shuffle"), "filter", packed["id"])
    for key in ("dtype", "astype"):
        told = packed.get(key, dtype)
        _require(isinstance(told, str) and told.lstrip("<>|") == dtype.lstrip("<>|"), f"filter's {key}", told)


def _v3(data: dict[str, Any]) -> Array:
    """Of a `zarr.json`."""
    _require(data["zarr_format"] == 3, "zarr_format", data["zarr_format"])
    _require(isinstance(data["data_type"], str) and data["data_type"] in V3_TYPES, "data_type", data["data_type"])
    _require(not data.get("storage_transformers"), "storage_transformers", data.get("storage_transformers"))
    _require(data["chunk_grid"]["name"] == "regular", "chunk_grid", data["chunk_grid"]["name"])
    encoding = data["chunk_key_encoding"]["name"]
    _require(encoding in ("default", "v2"), "chunk_key_encoding", encoding)
    _require_fill(data.get("fill_value"))
    shape, chunks = _sizes(data["shape"], 0), _sizes(data["chunk_grid"]["configuration"]["chunk_shape"], 1)
    _require(len(shape) == len(chunks), "chunk_shape", chunks)
    dtype = np.dtype(data["data_type"])
    return Array(shape, dtype, chunks, _form(data["codecs"], chunks, dtype.itemsize))


def _form(codecs: list[dict[str, Any]], chunks: tuple[int, ...], itemsize: int, inner: bool = False) -> Form:
    """What a list of codecs makes of a chunk."""
    names = [codec["name"].removeprefix("numcodecs.") for codec in codecs]
    size = math.prod(chunks) * itemsize
    if names == ["sharding_indexed"] and not inner:
        return _shard(codecs[0]["configuration"], chunks, itemsize)
    for name in names:
        _require(name in (*PLAIN, *COMPRESSORS), "codec", name)
    packing = [name for name in names if name in COMPRESSORS]
    _require(len(packing) <= 1, "codecs", names)
    return Form(size, packing[0] if packing else "")


def _shard(told: dict[str, Any], shard: tuple[int, ...], itemsize: int) -> Form:
    chunks = _sizes(told["chunk_shape"], 1)
    whole = len(chunks) == len(shard) and all(n % c == 0 for n, c in zip(shard, chunks, strict=True))
    _require(whole, "chunk_shape of a shard", chunks)
    index = [codec["name"] for codec in told["index_codecs"]]
    _require(index in (["bytes"], ["bytes", "crc32c"]), "index_codecs", index)
    order = (told["index_codecs"][0].get("configuration") or {}).get("endian", "little")
    _require(order == "little", "endian of index_codecs", order)
    place = told.get("index_location", "end")
    _require(place in ("start", "end"), "index_location", place)
    count = math.prod(shard) // math.prod(chunks)
    inner = _form(told["codecs"], chunks, itemsize, inner=True)
    return Form(math.prod(shard) * itemsize, "", inner, count, 16 * count + 4 * (len(index) - 1), place == "start")


def _sizes(values: Any, least: int) -> tuple[int, ...]:
    whole = isinstance(values, list) and all(type(v) is int and least <= v < 2**48 for v in values)
    _require(whole and len(values) <= MOST_DIMENSIONS, "shape or chunks", values)
    return tuple(values)


def _require_fill(value: Any) -> None:
    simple = value is None or isinstance(value, (bool, int, float)) or value in ("NaN", "Infinity", "-Infinity")
    _require(simple or (isinstance(value, str) and re.fullmatch("0x[0-9a-fA-F]{1,16}", value) is not None),
             "fill_value", value)  # fmt: skip


def _require(sound: bool, key: str, value: Any) -> None:
    """Raise RobotRLError, which names what is not taken."""
    if not sound:
        raise RobotRLError(
            f"{key} {value!r:.60} is not taken: a store holds numbers and booleans, packed by Blosc, zstd, lz4, gzip "
            "or zlib, as anything else may run code or unpack to any size. Save the arrays again without it"
        )
