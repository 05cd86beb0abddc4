"""What the chunks of a zarr array unpack to, told by their headers: nothing is unpacked to find out.

Blosc, zstd and lz4 say the size in their first bytes; a gzip or zlib stream is unpacked in small pieces until it is
longer than its chunk may be. A shard holds an index of many chunks.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from robot_rl import unpacking
from robot_rl.types import RobotRLError
from robot_rl.zarr_files import Files

DEFLATE = 1032  # at most so many bytes come of one (zlib's own figure)
PIECE = 2**20
ABSENT = 2**64 - 1  # in a shard's index


@dataclass(frozen=True)
class Form:
    """How the chunks of an array are stored."""

    size: int
    """bytes of an unpacked chunk"""
    compressor: str = ""
    """blosc, zstd, lz4, gzip, zlib; "": none"""
    inner: Form | None = None
    """of the chunks in a shard; None: this is no shard"""
    count: int = 0
    """chunks in a shard"""
    index_bytes: int = 0
    """of a shard's index, its checksum included"""
    index_first: bool = False
    """whether that index lies at the start of the file"""


def require_form(files: Files, name: str, form: Form) -> None:
    """Raise RobotRLError where the chunk file `name` unpacks to more than its array says."""
    stored = files.sizes[name]
    unpacking.require_plausible(form.size, stored, f"{files.origin}: {name}")
    if form.inner is None:
        _require_size(files, name, (0, stored), form)
        return
    if stored < form.index_bytes:
        raise RobotRLError(f"{files.origin}: {name} is shorter than the index of a shard; copy it again")
    start = 0 if form.index_first else stored - form.index_bytes
    index = np.frombuffer(files.read(name, start, form.index_bytes)[: 16 * form.count], "<u8").reshape(-1, 2)
    for offset, length in index.tolist():
        if (offset, length) == (ABSENT, ABSENT):
            continue
        if offset + length > stored:
            raise RobotRLError(f"{files.origin}: {name} has a chunk beyond its end; copy it again")
        _require_size(files, name, (offset, length), form.inner)


def _require_size(files: Files, name: str, place: tuple[int, int], form: Form) -> None:
    """Raise where the chunk at offset and length `place` of a file unpacks to more than `form.size`."""
    if form.compressor in ("gzip", "zlib"):
        told = _streamed(files, name, place, form.size)
    elif form.compressor:
        told = _TOLD[form.compressor](files.read(name, place[0], min(place[1], 18)))
    else:
        told = place[1] if place[1] <= form.size + 4 else math.inf  # 4: a checksum
    if told > form.size + 4:
        said = "does not say what it unpacks to" if told == math.inf else f"unpacks to {told:,} bytes"
        raise RobotRLError(
            f"{files.origin}: the chunk {name} {said}, its array has chunks of {form.size:,} bytes; it is damaged "
            "or was made to fill the memory. Nothing of it was read"
        )


def _streamed(files: Files, name: str, place: tuple[int, int], most: int) -> float:
    """Bytes that a gzip or zlib stream unpacks to, counted up to just above `most`."""
    start, length = place
    if length * DEFLATE <= max(most, unpacking.UNQUESTIONED):
        return 0  # it cannot be too much
    unpacked, stream = 0, zlib.decompressobj(wbits=47)  # 47: gzip or zlib
    for offset in range(start, start + length, PIECE):
        rest = files.read(name, offset, min(PIECE, start + length - offset))
        while rest and not stream.eof:
            try:
                unpacked += len(stream.decompress(rest, PIECE))
            except zlib.error as error:
                raise RobotRLError(f"{files.origin}: {name} cannot be unpacked ({error}); copy it again") from error
            rest = stream.unconsumed_tail
            if unpacked > most:
                return unpacked
        if stream.eof and (rest or stream.unused_data):
            return math.inf  # gzip reads on behind the end
    return unpacked


def _blosc(head: bytes) -> float:
    return int.from_bytes(head[4:8], "little") if len(head) >= 16 else math.inf


def _lz4(head: bytes) -> float:
    return int.from_bytes(head[:4], "little") if len(head) >= 4 else math.inf


def _zstd(head: bytes) -> float:
    """RFC 8878, section 3.1.1.1: the frame's content size, which is optional."""
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return math.inf
    single, flag = head[4] >> 5 & 1, head[4] >> 6
    start = 5 + (not single) + (0, 1, 2, 4)[head[4] & 3]
    length = (1 if single else 0, 2, 4, 8)[flag]
    if not length or len(head) < start + length:
        return math.inf
    return int.from_bytes(head[start : start + length], "little") + (256 if length == 2 else 0)


_TOLD = {"blosc": _blosc, "lz4": _lz4, "zstd": _zstd}
