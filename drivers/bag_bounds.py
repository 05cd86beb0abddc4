"""What a bag unpacks to is known before it is unpacked: `rosbags` does so without a bound, and 20 kB can mean 8 GiB.

Of an MCAP file every chunk is unpacked once with a bound, and every entry of its index must be of one of them. An
SQLite file holds its messages as they are, in plain tables. Files are known by how they begin: their names may lie.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from robot_rl import unpacking
from robot_rl.formats import guard
from robot_rl.types import RobotRLError

MCAP, SQLITE = b"\x89MCAP0\r\n", b"SQLite format 3\0"
ZSTD = (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + i, 0x2A, 0x4D, 0x18]) for i in range(16)))  # the latter may come before
HEADER, FOOTER = 9, 37  # bytes: before a record; at the end of the file, with its magic
CHUNK, CHUNK_INDEX = 0x06, 0x08
LONGEST_NAME = 64  # of a compression
MEND = "`mcap recover` or `ros2 bag reindex` mends what a killed recorder left"

Chunk = tuple[bytes, int, int]  # compression, bytes packed, bytes unpacked


def require_bounded(path: Path) -> None:
    """Raise RobotRLError where the bag at `path`, a file or folder, unpacks to more than its bytes can mean."""
    for file in sorted(f for f in path.iterdir() if f.is_file()) if path.is_dir() else [path]:
        with guard.reading(f"the bag {file}"):
            with file.open("rb") as opened:
                begin = opened.read(len(SQLITE))
            if begin.startswith(ZSTD):
                raise RobotRLError(
                    f"{file} is packed as a whole (compression_mode: file), so what it unpacks to is not known: unpack "
                    "it with `zstd -d`, and import the file that comes out"
                )
            if begin.startswith(MCAP):
                _require_mcap(file)
            elif begin == SQLITE:
                _require_sqlite(file)


def require_plain_messages(reader: Any, path: Path) -> None:
    """Raise RobotRLError where each message is packed by itself, as the metadata of an open `reader` say."""
    if any(r.compression_mode == "message" for r in reader.readers):
        raise RobotRLError(
            f"the bag {path} has its messages packed one by one (compression_mode: message), so what they unpack to is "
            "not known: write it anew with `ros2 bag convert` and compression_mode none"
        )


def _require_mcap(file: Path) -> None:
    size, chunks = os.path.getsize(file), dict[int, Chunk]()
    with file.open("rb") as bag:
        bag.seek(max(size - FOOTER, 0))
        (summary,) = struct.unpack("<Q", _read(bag, FOOTER, file)[HEADER : HEADER + 8])
        at = len(MCAP)
        while at < size - len(MCAP):
            bag.seek(at)
            kind, length = struct.unpack("<BQ", _read(bag, HEADER, file))
            if length > size - at - HEADER:
                raise RobotRLError(f"the bag {file} cannot be read (cut off in the record at byte {at}): {MEND}")
            summary = 0 if at == summary else summary
            if kind == CHUNK:
                chunks[at] = _chunk(bag, length, f"{file}: the chunk at byte {at}")
            elif kind == CHUNK_INDEX:
                _require_indexed(_read(bag, length, file), chunks, f"{file}: the index at byte {at}")
            at += HEADER + length
    if summary:
        raise RobotRLError(f"{file}: its summary is said to begin at byte {summary}, where no record does: {MEND}")


def _chunk(bag: BinaryIO, length: int, where: str) -> Chunk:
    """The chunk at the place of `bag`, once it was unpacked within bounds."""
    head = struct.Struct("<QQQII")  # its first and last time, bytes unpacked, checksum, how long the name is
    *_, unpacked, _, long = head.unpack(_read(bag, head.size, where))
    if long > LONGEST_NAME:
        raise RobotRLError(f"{where} is damaged: its compression has a name of {long} bytes; copy it again")
    compression = _read(bag, long, where)
    (packed,) = struct.unpack("<Q", _read(bag, 8, where))
    if head.size + long + 8 + packed != length:
        raise RobotRLError(f"{where} is damaged: it holds {length} bytes, and speaks of {packed}; copy it again")
    unpacking.require_plausible(unpacked, packed, where)
    _require_unpacks(_read(bag, packed, where), compression, unpacked, where)
    return compression, packed, unpacked


def _require_unpacks(data: bytes, compression: bytes, size: int, where: str) -> None:
    """Raise unless `data` unpacks to just `size` bytes; no more than one above that are made."""
    if not compression:
        found, more = len(data), b""
    else:
        unpacker = _unpacker(compression, where)
        found = len(unpacker.decompress(data, max_length=size + 1))
        more = unpacker.unused_data or b"" if unpacker.eof else b"more"
    if found != size or more:
        raise RobotRLError(
            f"{where} is said to unpack to {size:,} bytes, and does to others; it is damaged or was made to fill the "
            "memory. Nothing of it was read"
        )


def _unpacker(compression: bytes, where: str) -> Any:
    """As `rosbags` unpacks, but in pieces."""
    if compression == b"lz4":
        from lz4.frame import LZ4FrameDecompressor

        return LZ4FrameDecompressor()
    if compression == b"zstd":
        try:
            from compression.zstd import ZstdDecompressor  # since Python 3.14
        except ImportError:
            from backports.zstd import ZstdDecompressor
        return ZstdDecompressor()
    raise RobotRLError(f"{where} is packed by {compression.decode(errors='replace')!r}; known are zstd and lz4")


def _require_indexed(entry: bytes, chunks: dict[int, Chunk], where: str) -> None:
    """Raise unless an entry of the index, by which chunks are found, is of one of `chunks`."""
    begin, _, long = struct.unpack_from("<QQI", entry, 16)
    at = 36 + long + 8  # behind the places of its messages
    (name,) = struct.unpack_from("<I", entry, at)
    compression = entry[at + 4 : at + 4 + name]
    if chunks.get(begin) != (compression, *struct.unpack_from("<QQ", entry, at + 4 + name)):
        raise RobotRLError(f"{where} is of a chunk at byte {begin}, which is not there so: {MEND}")


def _read(bag: BinaryIO, size: int, where: Path | str) -> bytes:
    data = bag.read(size)
    if len(data) != size:
        raise RobotRLError(f"the bag {where} cannot be read (cut off): {MEND}")
    return data


def _require_sqlite(file: Path) -> None:
    """Raise where tables are computed as they are read, or a message is larger than the file."""
    with closing(sqlite3.connect(f"file:{quote(str(file.absolute()))}?immutable=1&mode=ro", uri=True)) as base:
        held = base.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        for kind, name, sql in held:
            computed = kind not in ("table", "index") or str(sql or "").upper().startswith("CREATE VIRTUAL")
            if not computed and kind == "table":  # of its columns the last entry says whether they are computed
                columns = base.execute("SELECT hidden FROM pragma_table_xinfo(?)", (name,)).fetchall()
                computed = any(hidden for (hidden,) in columns)
            if computed:
                raise RobotRLError(
                    f"{file}: the {kind} {name} is computed as it is read, which no bag's is; copy it again"
                )
        if ("table", "messages") in [row[:2] for row in held]:
            (largest,) = base.execute("SELECT max(length(data)) FROM messages").fetchone()
            if (largest or 0) > os.path.getsize(file):
                raise RobotRLError(f"{file} holds a message of {largest:,} bytes, more than itself; copy it again")
