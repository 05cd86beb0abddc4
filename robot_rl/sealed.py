"""Files of tensors that carry the SHA-256 of their contents: what was changed, cut or forged by accident is not loaded.

The hash stands in the comment at the end of the zip that `torch.save` writes, so that anything else that reads such a
zip still does. It tells a flipped bit or a cut copy from what was written; it does not tell who wrote it. Unpickling
runs no code (`weights_only`), and nothing that is not finite, plain and of the file's own size passes.
"""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from robot_rl.atomic import atomically
from robot_rl.types import RobotRLError

MARK = b"robot-rl sha256 "
COMMENT = len(MARK) + 64
BEGINNING = b"PK\3\4"  # of a zip
END = b"PK\5\6"  # of a zip: 22 bytes, the last two of which are the length of the comment behind them
MOST_NODES, DEEPEST = 1_000_000, 64  # of the plain data in a file
ALIASES = 4  # times that the tensors of a file may show its bytes
DTYPES = {
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32,
    torch.int64, torch.bool,
}  # fmt: skip


def write(data: dict[str, Any], path: Path) -> None:
    """Write tensors and plain data to `path`, sealed; it appears whole or not at all."""

    def fill(part: Path) -> None:
        with open(part, "w+b") as file:
            torch.save(data, file)
            _seal(file)

    atomically(path, fill)


def read(path: Path, *, sealed: bool = True) -> dict[str, Any]:
    """The tensors and plain data of a file; RobotRLError where it is not what was written, or not finite.

    `sealed` False takes a file of `torch.save` by other projects, which has no hash.
    """
    path = Path(path)
    if not path.is_file():
        raise RobotRLError(f"there is no checkpoint {path}")
    with open(path, "rb") as file:  # opened once: a writer may replace it meanwhile
        size = os.fstat(file.fileno()).st_size
        if sealed:
            _require_seal(file, size, path)
        _require_stored(file, size, path, sealed)
        file.seek(0)
        try:
            data = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise RobotRLError(
                f"{path} is not a readable checkpoint ({type(error).__name__}: {error}); train it again or use another"
            ) from error
    if not isinstance(data, dict):
        raise RobotRLError(f"{path} holds a {type(data).__name__}, not a checkpoint's table; use another file")
    require_finite(data, str(path), ALIASES * size)
    return data


def seal(path: Path) -> None:
    """Add the hash to a file that `torch.save` wrote, such as one of robot-rl 0.1, which is known to be whole."""
    data = read(path, sealed=False)
    write(data, path)


def require_finite(data: Any, origin: str, most_bytes: float = math.inf) -> None:
    """Raise RobotRLError unless all tensors and numbers in `data` are finite, and no larger than what holds them.

    `most_bytes` bounds the tensors in all: one number can be shown as a tensor of 8 TiB.
    """
    total = 0
    for name, value in leaves(data, origin):
        if isinstance(value, Tensor):
            total += _require_plain(value, name, origin)
            if total > most_bytes:
                raise RobotRLError(f"{origin}: its tensors show {total:,} bytes or more, which are not in it")
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise RobotRLError(f"{origin}: {name} is not finite; it cannot be used, train it again")
        elif isinstance(value, float) and not math.isfinite(value):
            raise RobotRLError(f"{origin}: {name} is {value}; it cannot be used, train it again")


def leaves(data: Any, origin: str) -> Iterator[tuple[str, Any]]:
    """Everything in nested plain data that is no table or list, with its dotted name; bounded in number and depth."""
    todo: list[tuple[str, Any, int]] = [("", data, 0)]
    for _ in range(MOST_NODES):
        if not todo:
            return
        name, value, depth = todo.pop()
        if depth > DEEPEST or len(todo) > MOST_NODES:
            todo.append((name, value, depth))
            break
        if isinstance(value, dict):
            todo += [(f"{name}.{key}" if name else str(key), v, depth + 1) for key, v in value.items()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            todo += [(f"{name}.{i}", v, depth + 1) for i, v in enumerate(value)]
        else:
            yield name, value
    if todo:
        raise RobotRLError(f"{origin} holds more than a checkpoint does ({MOST_NODES:,} values, {DEEPEST} levels)")


def _require_plain(tensor: Tensor, name: str, origin: str) -> int:
    """The bytes of a tensor, all of which are there; raises for one that is sparse, quantized, or spread out."""
    if tensor.layout is not torch.strided or tensor.dtype not in DTYPES or tensor.device.type != "cpu":
        raise RobotRLError(f"{origin}: {name} is a tensor of {tensor.layout}, {tensor.dtype}; no checkpoint has those")
    size = tensor.numel() * tensor.element_size()
    if size > tensor.untyped_storage().nbytes():
        raise RobotRLError(
            f"{origin}: {name} {tuple(tensor.shape)} shows {size / 2**30:,.2f} GiB, of which only "
            f"{tensor.untyped_storage().nbytes():,} bytes are there"
        )
    return size


def _seal(file: IO[bytes]) -> None:
    """Write the hash behind the zip that `file` is."""
    file.seek(-22, os.SEEK_END)
    if file.read(4) != END:
        raise RuntimeError("torch.save wrote no zip")
    file.seek(-2, os.SEEK_END)
    file.write(COMMENT.to_bytes(2, "little"))
    size = file.seek(0, os.SEEK_END)
    file.write(MARK + _hash(file, size).encode())


def _require_seal(file: IO[bytes], size: int, path: Path) -> None:
    file.seek(max(size - COMMENT, 0))
    comment = file.read()
    if not comment.startswith(MARK):
        _require_zip(file, path)
        raise RobotRLError(
            f"{path} carries no hash of its contents: it is cut or damaged, or it was made by robot-rl 0.1 or another "
            "project. If you know that it is whole: python -m robot_rl.sealed FILE"
        )
    if comment[len(MARK) :] != _hash(file, size - COMMENT).encode():
        raise RobotRLError(f"{path} is not what was written: its hash differs. Copy it again, or train it again")


def _require_zip(file: IO[bytes], path: Path) -> None:
    """Raise where a file has neither the beginning nor the end of a zip: it never was a checkpoint."""
    file.seek(0)
    if file.read(len(BEGINNING)) != BEGINNING and not zipfile.is_zipfile(file):
        raise RobotRLError(
            f"{path} is no checkpoint (no zip of torch.save): name a file that pretrain, refine, distil or "
            "reward wrote, or the folder of its run"
        )


def _hash(file: IO[bytes], size: int) -> str:
    """SHA-256 of the first `size` bytes; the file is left behind them."""
    file.seek(0)
    sha = hashlib.sha256()
    while size > 0 and (block := file.read(min(size, 2**20))):
        sha.update(block)
        size -= len(block)
    return sha.hexdigest()


def _require_stored(file: IO[bytes], size: int, path: Path, sealed: bool) -> None:
    """Raise where a zip's members are packed, or show the same bytes again and again."""
    file.seek(0)
    if not sealed and not zipfile.is_zipfile(file):
        return  # before PyTorch 1.6
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise RobotRLError(f"{path} is not a readable checkpoint ({error}); train it again or use another") from error
    if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > size:
        raise RobotRLError(f"{path} unpacks to more than its {size:,} bytes, which torch.save does not do")


if __name__ == "__main__":
    import sys

    for argument in sys.argv[1:]:
        try:
            seal(Path(argument))
        except RobotRLError as error:
            sys.exit(str(error))
        print(f"{argument} now carries the hash of its contents")
